"""`freezelab hosts` with hosts that are namespaces, each with a real sshd: checks, recoveries, cuts."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.host.ssh_hosts import SshHosts, ssh_hosts


@pytest.fixture
def lab() -> Iterator[SshHosts]:
    with ssh_hosts("rack-1", "rack-2") as made:
        yield made


def checked(lab: SshHosts, file: Path) -> tuple[dict[str, Any], int]:
    """What `hosts check` found, each host by its name, and its exit code."""
    done = lab.run("hosts", "check", str(file), "--json")
    found = json.loads(done.stdout)
    found["hosts"] = {host["name"]: host for host in found["hosts"]}
    return found, done.returncode


def fails(found: dict[str, Any]) -> dict[str, str]:
    """What stands in the way of a run, by the hosts."""
    return {",".join(one["hosts"]): one["what"] for one in found["problems"] if one["fails"]}


def test_offsets_contain_the_truth_over_uneven_links(lab: SshHosts) -> None:
    """The hosts' REALTIME is this machine's, so the truth is zero. One link is slow in one direction; the
    clock that readings are extrapolated by is two seconds ahead on another host."""
    slow, ahead = lab.hosts[1], lab.add("ahead", ahead_s=2)
    slow.wire.there_s, slow.wire.back_s = 0.03, 0.002
    found, status = checked(lab, lab.file())
    clocks = {name: host["clock"] for name, host in found["hosts"].items()}
    for clock in clocks.values():
        assert clock["offset_low_ns"] <= 0 <= clock["offset_high_ns"]
    assert clocks[slow.name]["round_trip_least_ns"] >= 32_000_000
    assert clocks[slow.name]["offset_high_ns"] >= 28_000_000  # no symmetry is assumed
    width = clocks[ahead.name]["offset_high_ns"] - clocks[ahead.name]["offset_low_ns"]
    assert width <= clocks[ahead.name]["round_trip_median_ns"] + 1_000_000
    assert all(host["report"]["checks"] for host in found["hosts"].values())
    assert status == (4 if fails(found) else 0)


def test_what_stands_in_the_way_is_a_line_each(lab: SshHosts) -> None:
    """Hosts that are off, unknown, another one than known, one machine twice, and without freezelab."""
    first, unknown = lab.hosts
    off, twin = lab.add("off"), lab.add("twin", boot=(first.folder / "boot-id").read_text().strip())
    impostor = lab.add("impostor")
    off.switch_off()
    known = {line.split()[0]: line for line in (lab.folder / "known_hosts").read_text().splitlines()}
    del known[unknown.address]
    known[impostor.address] = known[first.address].replace(first.address, impostor.address)
    (lab.folder / "known_hosts").write_text("\n".join(known.values()) + "\n")
    without = lab.entry(first).replace("name: rack-1", "name: without").replace("[env,", "[no-such-program,")
    without = without.replace("user: root", "user: root, port: 22")
    found, status = checked(lab, lab.file("hosts:\n" + "".join(map(lab.entry, lab.hosts)) + without))
    assert status == 4
    wrong = fails(found)
    assert wrong.pop("rack-1,twin").startswith("are one machine")
    assert wrong.pop("rack-2").startswith(
        f"the host key of {unknown.address} is not known: ssh-ed25519 SHA256:"
    )
    assert wrong.pop("off").startswith(f"no answer to SSH at root@{off.address}:22 within")
    assert wrong.pop("impostor").startswith(f"{impostor.address} shows another host key than the known one")
    assert wrong.pop("without").startswith("there is no freezelab: ")
    assert found["hosts"]["without"]["clock"] is not None
    assert found["hosts"][twin.name]["report"]["boot"] == found["hosts"]["rack-1"]["report"]["boot"]
    assert unknown.address not in (lab.folder / "known_hosts").read_text()


def test_what_was_left_is_freed_on_all_that_can_be_asked(lab: SshHosts) -> None:
    """A link that is cut in the middle is noticed, the other host freed all the same; healed, both are."""
    cut, other = lab.hosts
    for host in lab.hosts:
        (host.state / "guests" / "run-of-the-dead").mkdir(parents=True)
    threading.Thread(target=cut.cut_after_login).start()
    done = lab.run("hosts", "recover", str(lab.file()))
    left = other.state / "guests" / "run-of-the-dead"
    assert done.returncode == 4
    assert done.stdout == f"{other.name}: removed {left}\n", done.stderr
    assert done.stderr.startswith(f"freezelab: host {cut.name}: freezelab recover: the connection was lost\n")
    assert not left.exists()
    cut.wire.is_cut = False
    done = lab.run("hosts", "recover", str(lab.file()))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{other.name}: nothing to recover\n" in done.stdout
    assert not (cut.state / "guests" / "run-of-the-dead").exists()


def test_a_file_with_mistakes_asks_nobody(lab: SshHosts) -> None:
    path = lab.file("hosts: [{name: a, sshh: b}]\n")
    for command in ("check", "recover"):
        done = lab.run("hosts", command, str(path))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"freezelab: {path}:1:19: hosts[0]: unknown key 'sshh'; did you mean ssh?\n"
