"""`freezelab hosts` with hosts that are namespaces, each with a real sshd: checks, recoveries, cuts."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.core.clock import Interval
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.session import kept_guests
from tests.host.libvirtd import longer
from tests.host.other_user import attempts, closed
from tests.host.ssh_hosts import ROOT, SshHosts, in_namespace, ssh_hosts


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
    """How far the hosts' REALTIME is from this machine's is known. One link is slow in one direction; the
    clock that readings are extrapolated by is two seconds ahead on another host, and REALTIME on a third."""
    slow, ahead, off = lab.hosts[1], lab.add("ahead", ahead_s=2), lab.add("off", real_ahead_s=2)
    slow.wire.there_s, slow.wire.back_s = 0.03, 0.002
    found, status = checked(lab, lab.file())
    clocks = {name: host["clock"] for name, host in found["hosts"].items()}
    for host in lab.hosts:
        clock = clocks[host.name]
        assert clock["offset_low_ns"] <= host.real_ahead_ns <= clock["offset_high_ns"]
    (told,) = (one for one in found["problems"] if "ahead of this machine's" in one["what"])
    assert told["hosts"] == [off.name]
    assert not told["fails"]
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
    threading.Thread(target=cut.cut_in_a_command).start()
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


JUMP = """
Host {jump}
  User root
  IdentityFile {folder}/key
  UserKnownHostsFile {folder}/known_hosts
Host 127.0.0.1
  ProxyJump {jump}
"""
AHEAD = "python3 -c 'import time; time.clock_settime(0, time.clock_gettime(0) + 2)'"


@longer
@pytest.mark.guest
def test_a_host_whose_clock_is_two_seconds_off(lab: SshHosts) -> None:
    """It is a guest of the first host, through which it is reached: a kernel with a clock of its own."""
    first, _ = lab.hosts
    lab.there(first, "up", "--quiet")
    (guest,) = kept_guests.read_all(first.state)
    (lab.folder / "config").write_text(JUMP.format(jump=first.address, folder=lab.folder))
    known = (lab.folder / "known_hosts").read_text() + Path(guest.known_hosts).read_text()
    (lab.folder / "known_hosts").write_text(known)
    ssh = f"host: 127.0.0.1, port: {guest.port}, user: root, key: {guest.key}, known_hosts: known_hosts"
    file = lab.file(f"hosts: [{{name: guest, ssh: {{{ssh}, config: config}}}}]\n", "guest.yaml")

    before = offset_of(lab, file)
    lab.there(first, "ssh", guest.name, AHEAD)
    after, found = offset_of(lab, file), checked(lab, file)[0]
    moved = after - before
    assert 2 * NS_PER_S in moved.widened(20 * NS_PER_MS), moved  # it drifts between the two
    assert after.half_width_ns < 250 * NS_PER_MS
    assert any("ahead of this machine's" in one["what"] for one in found["problems"])
    assert fails(found)["guest"].startswith("there is no freezelab: ")


def offset_of(lab: SshHosts, file: Path) -> Interval:
    (host,) = checked(lab, file)[0]["hosts"].values()
    assert host["clock"] is not None, host
    return Interval(host["clock"]["offset_low_ns"], host["clock"]["offset_high_ns"])


def test_a_file_with_mistakes_asks_nobody(lab: SshHosts) -> None:
    path = lab.file("hosts: [{name: a, sshh: b}]\n")
    for command in ("check", "recover"):
        done = lab.run("hosts", command, str(path))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"freezelab: {path}:1:19: hosts[0]: unknown key 'sshh'; did you mean ssh?\n"


HOLD_NS = 4 * NS_PER_S
FLEET = """
name: two-hosts
hosts: [rack-1, rack-2]
guests: [{name: web, count: 2}]
resync: agent
cycle: {patch: {hold: 4s}, settle: 0s, before: 1s, watch: 5s}
"""


@pytest.mark.guest
def test_guests_on_two_hosts_are_frozen_at_one_instant_and_a_cut_link_leaves_none_frozen() -> None:
    """rack-2 has another MONOTONIC_RAW, and its link is cut while its guest is frozen, for longer than that
    takes. Its guest is resumed meanwhile, and the record has what was measured there."""
    with ssh_hosts("rack-1") as lab:
        second = lab.add("rack-2", ahead_s=1000)
        folder = lab.folder / "playbook"
        folder.mkdir()
        (folder / "fleet.yaml").write_text(FLEET)
        cut = threading.Thread(target=second.cut_in_a_freeze, args=(8.0,), daemon=True)
        cut.start()
        playbook, hosts = str(folder / "fleet.yaml"), str(lab.file())
        done = lab.run("run", playbook, "--hosts", hosts, "--json", timeout_s=250)
        assert done.stdout, done.stderr
        cut.join()
        run = json.loads(done.stdout)
        assert run["outcome"] != "failed", done.stderr
        stops = {part["cells"][0]: part["host"]["details"]["fleet"]["stops"] for part in run["parts"]}
        assert sorted(stops) == ["rack-1", "rack-2"]
        for (stop,) in stops.values():  # about the instant, in the controller's clock, with the truth in them
            assert stop["high_ns"] > -5 * NS_PER_MS and stop["low_ns"] < 2 * NS_PER_S
        (resumed,) = lab.told("resume", "web-1")  # REALTIME is that of the whole machine
        assert second.cut_ns < resumed["real_ns"] < second.healed_ns
        guests = {guest["name"]: guest["cycles"][0] for guest in run["guests"]}
        assert sorted(guests) == ["web-0", "web-1"]
        assert all(
            cycle["pause"] is None or cycle["pause"]["high_ns"] >= HOLD_NS for cycle in guests.values()
        )
        for host in lab.hosts:
            assert not list((host.state / "guests").glob("*"))


ROLLOUT = """
name: two-waves
hosts: [rack-1, rack-2]
fleet:
  guests: [{name: web, count: 2}]
  availability_sets: [{name: web, guests: [web], update_domains: 2, fault_domains: hosts}]
rollout: {gates: [{command: "true"}]}
announce: {notice: 20min, handler: [./acknowledge_for_others.py]}
resync: agent
cycle: {patch: {hold: 1s}, settle: 0s, before: 1s, watch: 3s}
"""


def tried_in_a_freeze(lab: SshHosts) -> list[str]:
    """What another user could do on each host, and on the controller's machine, while a guest is frozen."""
    lab.folder.chmod(0o755)  # so that only freezelab's own folders hide what is in them
    end = time.monotonic() + 200
    while not any(host.told("freeze") for host in lab.hosts) and time.monotonic() < end:
        time.sleep(0.05)
    found = attempts(in_namespace(lab.controller), closed(lab.folder / "controller-state"), [lab.controller])
    for host in lab.hosts:
        found += attempts(host.inside(), closed(host.state))
    return found


@pytest.mark.guest
def test_update_domains_on_two_hosts_are_told_and_down_one_at_a_time() -> None:
    """rack-2's MONOTONIC_RAW is 1000 s ahead, its REALTIME two: that of this machine has the truth. The guest
    on the other host acknowledges for each domain, to the one metadata service, before the 20 s of its notice
    are over. Meanwhile another user can do nothing."""
    with ssh_hosts("rack-1") as lab:
        second = lab.add("rack-2", ahead_s=1000, real_ahead_s=2)
        folder = lab.folder / "playbook"
        folder.mkdir()
        (folder / "fleet.yaml").write_text(ROLLOUT)
        shutil.copy(ROOT / "tests" / "host" / "acknowledge_for_others.py", folder)
        could: list[str] = []
        other = threading.Thread(target=lambda: could.extend(tried_in_a_freeze(lab)), daemon=True)
        other.start()
        done = lab.run("run", str(folder / "fleet.yaml"), "--hosts", str(lab.file()), "--json", timeout_s=250)
        assert done.stdout, done.stderr
        other.join()
        assert [line.split()[0] for line in could] == ["tried"] * 3
        run = json.loads(done.stdout)
        (rollout,) = run["rollouts"]
        assert rollout["ended"] == "complete", rollout
        assert [wave["state"] for wave in rollout["waves"]] == ["done", "done"]
        (back,), (frozen,) = lab.told("resume", "web-0"), lab.told("stop", "web-1")
        frozen_ns = frozen["call"]["called"]["real_ns"] - second.real_ahead_ns
        apart_ns = frozen_ns - back["call"]["returned"]["real_ns"]
        assert apart_ns > 0
        members = {event["resources"][0]: event["members"] for event in run["events"]}
        assert sorted(members) == ["web-0", "web-1"]
        for guest, given in members.items():  # one group over both hosts: both are told, if only of its start
            told = [one["guest"] for one in given if one["seen"] or one["seen_started"]]
            assert sorted(told) == ["web-0", "web-1"], given
            assert [one["guest"] for one in given if one["approved"]] == [*({"web-0", "web-1"} - {guest})]
        passed = [event["frozen"]["real_ns"] - event["published"]["real_ns"] for event in run["events"]]
        assert all(0 < ns < 25 * NS_PER_S for ns in passed), passed
        proof = run["one_at_a_time"]
        assert proof["outcome"] != "failed", proof
        assert proof["nearest"]["ns"] <= apart_ns + NS_PER_MS
        if proof["outcome"] == "passed":
            assert proof["nearest"]["ns"] > 0
