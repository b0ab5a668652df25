"""Guests that begin with a golden guest's state: each is itself, in time, and a guest like any other.

Those that have a lab of their own come first: one process cannot have two guests of a name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.controller import CycleGuest
from lab.core.clock import GuestClock
from lab.core.plan import FreezeMethod, GuestSpec, ResyncMechanism
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.verdict import Outcome
from lab.guest.probe import GuestProbe
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.image.golden import Golden, GoldenStore
from lab.ports import Freezing, NullView
from lab.process.clock import HostClock
from lab.record.journal import FileJournal
from lab.session import clones
from lab.session.guests import Guests
from tests.guest.conftest import Lab, running_lab
from tests.guest.without_a_run import settings_for

SHORT: dict[str, Any] = {"settle_ns": NS_PER_S // 2, "before_ns": 2 * NS_PER_S, "watch_ns": 4 * NS_PER_S}
RATE = 2e-3
"""By how much a guest's clock may run too fast or too slow that Linux calibrated on a busy host."""

EACH_ITS_OWN = {
    "name": "hostname",
    "name on disk": "cat /etc/hostname",
    "machine id": "cat /etc/machine-id",
    "D-Bus id": "cat /var/lib/dbus/machine-id",
    "systemd's id": "busctl call org.freedesktop.systemd1 / org.freedesktop.DBus.Peer GetMachineId",
    "boot id": "cat /proc/sys/kernel/random/boot_id",
    "machine's uuid": "cat /sys/class/dmi/id/product_uuid",
    "firmware's tables": "md5sum < /sys/firmware/dmi/tables/DMI",
    "host key": "cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub",
    "MAC address": "cat /sys/class/net/eth0/address",
    "link-local address": "ip -o -6 address show dev eth0 scope link | tr -s ' ' | cut -d' ' -f4",
    "random numbers": "head -c 16 /dev/urandom | od -An -tx1",
    "journal": "ls /run/log/journal",
}


class View(NullView):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@dataclass
class Pair:
    hypervisor: LibvirtHypervisor
    subjects: dict[str, CycleGuest]
    view: View
    folder: Path
    clock: HostClock

    def probe(self, name: str) -> GuestProbe:
        probe = self.subjects[name].probe
        assert isinstance(probe, GuestProbe)
        return probe

    def timings(self, name: str) -> dict[str, Any]:
        events = [json.loads(line) for line in (self.folder / "events.jsonl").read_text().splitlines()]
        (found,) = [e["timings"] for e in events if e["kind"] == "boot" and e["guest"] == name]
        assert isinstance(found, dict)
        return found


def test_one_of_shared_memory_goes_over_to_another_process(home: Path) -> None:
    with running_lab(home, GuestSpec("web-0"), shared_memory=True, golden=True) as lab:
        result, found = lab.cycle(method=FreezeMethod.IN_PLACE, **SHORT)
        assert result.pause is not None
        assert result.pause.closes
        assert result.boot_id_unchanged
        assert {f.outcome for f in found} == {Outcome.PASSED}, found


def test_a_state_that_qemu_refuses_ends_in_a_boot(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, removed = Golden.state, []
    monkeypatch.setattr(Golden, "state", lambda self: whole(self)[:100_000])
    monkeypatch.setattr(GoldenStore, "remove", lambda _self, folder: removed.append(folder))
    with running_lab(home, GuestSpec("web-0"), golden=True) as lab:
        assert lab.probe.ssh.check("hostname").strip() == "web-0"
    assert len(removed) == 1


@pytest.fixture(scope="module")
def pair(home: Path) -> Iterator[Pair]:
    """Two guests of one golden one, which is made first if it is not cached."""
    clock, view = HostClock(), View()
    specs = tuple(GuestSpec(f"web-{number}") for number in range(2))
    with (
        settings_for(home, "golden", specs, ResyncMechanism.AGENT, clock, golden=True) as (
            hypervisor,
            settings,
            plan,
        ),
        FileJournal(settings.folder, clock) as journal,
        Guests(hypervisor, settings, clock, view, journal) as guests,
    ):
        yield Pair(hypervisor, guests.up(plan.parts[0]), view, settings.folder, clock)


def test_both_were_started_so(pair: Pair) -> None:
    for name in pair.subjects:
        timings = pair.timings(name)
        assert 0 < timings["from_golden_s"] <= timings["to_probe_s"] <= timings["to_ssh_s"]
        assert timings["started"] == "golden"
    assert all("golden" in note and "saved" in note for note in pair.view.notes)


def test_nothing_of_ones_identity_is_anothers(pair: Pair, eventually: Callable[..., Any]) -> None:
    def identity(name: str) -> dict[str, str]:
        script = "\n".join(f"{command}; echo --" for command in EACH_ITS_OWN.values())
        said = [
            part.strip() for part in pair.probe(name).ssh.check(script).split("--\n")[: len(EACH_ITS_OWN)]
        ]
        return dict(zip(EACH_ITS_OWN, said, strict=True))

    def settled(name: str) -> dict[str, str] | None:
        """The journal begins anew after a guest was told to be ready."""
        found = identity(name)
        return found if found["journal"] == found["machine id"] else None

    one, other = (eventually(lambda name=name: settled(name), 30) for name in pair.subjects)
    assert not {what for what in EACH_ITS_OWN if not one[what] or one[what] == other[what]}
    for name, found in zip(pair.subjects, (one, other), strict=True):
        spec = pair.hypervisor.spec(name)
        assert spec is not None
        assert found["name"] == found["name on disk"] == name
        assert found["MAC address"] == spec.mac
        assert found["machine's uuid"] == spec.uuid
        assert found["D-Bus id"] == found["machine id"]
        assert found["machine id"] in found["systemd's id"]


def test_nothing_of_the_making_is_left(pair: Pair, eventually: Callable[..., Any]) -> None:
    ssh = pair.probe("web-0").ssh
    eventually(lambda: ssh.check("pgrep -c python3 || true").strip() == "1", 30)  # the probe
    assert ssh.check("pgrep -c -x -f 'sshd: root@notty'").strip() == "1"
    assert "permaddr" not in ssh.check("ip -details link show eth0")
    assert clones.MADE_OF not in ssh.check(
        "cat /etc/hostname /etc/hosts; hostname; journalctl -q -o cat -u ssh"
    )


def test_clocks_are_right_from_the_start(pair: Pair) -> None:
    for name in pair.subjects:
        probe, allowed = pair.probe(name), pair.timings(name)["clock_within_ms"] * NS_PER_MS
        # Since then the agent's mechanism has set it by readings, to about a millisecond.
        readings = [probe.read() for _ in range(8)]
        age = max(reading.t4.raw_ns for reading in readings) - pair.clock.now().raw_ns + 60 * NS_PER_S
        least = max(r.t3[GuestClock.REAL] - r.t4.real_ns for r in readings)
        most = min(r.t2[GuestClock.REAL] - r.t1.real_ns for r in readings)
        assert least <= allowed + RATE * age
        assert most >= -(allowed + RATE * age)
        said = probe.ssh.check("cat /sys/class/rtc/rtc0/since_epoch; date +%s").split()
        assert abs(int(said[0]) - int(said[1])) <= 2


def test_the_agent_answers_and_a_suspend_is_measured(pair: Pair) -> None:
    pair.hypervisor.agent_ready("web-0", pair.clock.now().raw_ns + 20 * NS_PER_S)
    lab = Lab(pair.hypervisor, pair.subjects["web-0"], pair.folder, pair.clock)
    result, found = lab.cycle(**SHORT)
    assert result.pause is not None
    assert result.pause.closes
    assert result.boot_id_unchanged
    before, after = result.observation.facts_before, result.observation.facts_after
    assert before is not None and after is not None
    assert before.clocksource == after.clocksource != ""
    assert {f.outcome for f in found} == {Outcome.PASSED}, found


def test_one_is_saved_and_restored_and_its_sister_does_not_notice(pair: Pair) -> None:
    freezing = Freezing(FreezeMethod.SAVE_RESTORE)
    before = pair.probe("web-0").facts().boot_id
    pair.hypervisor.prepare("web-0", freezing)
    pair.hypervisor.freeze("web-0", freezing, pair.clock.now().raw_ns + 60 * NS_PER_S)
    pair.hypervisor.resume("web-0", freezing)
    pair.hypervisor.finish("web-0")
    assert pair.probe("web-0").facts().boot_id == before
    assert pair.probe("web-1").facts().reconnects == 0
