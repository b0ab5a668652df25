"""Guests that power off, reboot or fall asleep by themselves, or whose kernel panics: what is known of them
is told at once, and holds nobody else up. And signals while guests come and go."""

from __future__ import annotations

import json
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.controller import Controller, CycleGuest
from lab.core.history import SCHEMA, Host, RunEnded, RunStarted
from lab.core.plan import CycleSpec, FreezeMethod, GuestSpec, HoldPatch, Plan, ResyncMechanism
from lab.core.units import NS_PER_S
from lab.errors import GuestGone
from lab.guest.console import Panicked
from lab.guest.handler import GuestHandler
from lab.host import patches
from lab.hypervisor.domain import Accelerator
from lab.ports import NullView
from lab.process.clock import HostClock
from lab.process.pace import paced
from lab.record.journal import FileJournal
from lab.session.guest_monitor import NOTHING_NS, STILL_S
from lab.session.guests import Guests
from lab.session.settings import Settings
from tests.guest.conftest import Cli, no_shield
from tests.guest.without_a_run import settings_for

Eventually = Callable[..., Any]
HOLD = CycleSpec(
    FreezeMethod.SUSPEND,
    HoldPatch(NS_PER_S),
    settle_ns=10 * NS_PER_S,
    before_ns=NS_PER_S,
    watch_ns=3 * NS_PER_S,
)
ITSELF = {
    "web-0": ("poweroff -f", "has ended: it powered itself off"),
    "web-1": ("reboot -f", "rebooted by itself"),
    # Asleep by a suspend to idle, of which QEMU knows nothing: told by its silence, or its CPU time.
    "web-2": ("echo mem > /sys/power/state", "still|silent"),
}
AT_ONCE_S = 40.0
"""A cycle is 15 s long here. Whoever waits for SSH of a guest that does not answer waits 15 to 20 s, for each
guest and each thing that is asked."""


@contextmanager
def guests_of(
    home: Path, names: list[str], **of_each: Any
) -> Iterator[tuple[Guests, Plan, Settings, ExitStack]]:
    """What starts and removes guests of these names."""
    clock = HostClock()
    specs = tuple(GuestSpec(name, **of_each) for name in names)
    made = settings_for(home, "lives", specs, ResyncMechanism.NONE, clock, HOLD, golden=not of_each)
    with made as (hypervisor, settings, plan), ExitStack() as stack:
        journal = stack.enter_context(FileJournal(settings.folder, clock))
        yield Guests(hypervisor, settings, clock, NullView(), journal), plan, settings, stack


def test_what_guests_do_by_themselves_holds_nobody_up(home: Path) -> None:
    clock = HostClock()
    with guests_of(home, [*ITSELF, "web-3"]) as (guests, plan, settings, _), guests:
        subjects: dict[str, CycleGuest] = guests.up(plan.parts[0])
        hypervisor = guests._hypervisor
        for name, (command, _why) in ITSELF.items():
            guests.probes[name].ssh.channel(f"setsid sh -c 'sleep 1; {command}' >/dev/null 2>&1 &")
        folder = Path(tempfile.mkdtemp(dir=settings.folder))
        begun = time.monotonic()
        with FileJournal(folder, clock) as journal:
            journal.append(RunStarted(SCHEMA, "lives", plan, Host()))
            controller = Controller(clock, hypervisor, journal, NullView(), no_shield)
            with pytest.raises(GuestGone, match="guest web-0: has ended: it powered itself off") as raised:
                controller.run_cycle(0, subjects, HOLD, patches.make(HOLD.patch, clock), frozen=True)
            journal.append(RunEnded(interrupted=False, failure=str(raised.value)))
        took = time.monotonic() - begun
    assert raised.value.exit_code == 4
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    told = {name: [e for e in events if e.get("guest") == name] for name in [*ITSELF, "web-3"]}
    for name, (_command, why) in ITSELF.items():
        problems = [e["text"] for e in told[name] if e["kind"] == "problem"]
        assert any(re.search(why, problem) for problem in problems), (name, problems)
        assert "stop" not in {e["kind"] for e in told[name]}, f"{name} was to be frozen"
    assert {"stop", "resume", "samples"} <= {e["kind"] for e in told["web-3"]}
    assert "problem" not in {e["kind"] for e in told["web-3"]}
    assert took < AT_ONCE_S


def test_a_guest_that_was_suspended_to_idle_is_woken_for_the_next_cycle(
    home: Path, eventually: Eventually
) -> None:
    clock = HostClock()
    spec = replace(HOLD, settle_ns=3 * NS_PER_S, wake=True)
    with guests_of(home, ["web-0"]) as (guests, plan, settings, _), guests:
        subjects: dict[str, CycleGuest] = guests.up(plan.parts[0])
        command = "setsid sh -c 'sleep 1; echo mem > /sys/power/state' >/dev/null 2>&1 &"
        guests.probes["web-0"].ssh.channel(command)
        eventually(lambda: asleep(guests, "web-0"))
        with FileJournal(Path(tempfile.mkdtemp(dir=settings.folder)), clock) as journal:
            journal.append(RunStarted(SCHEMA, "lives", plan, Host()))
            controller = Controller(clock, guests._hypervisor, journal, NullView(), no_shield)
            controller.run_cycle(0, subjects, spec, patches.make(HOLD.patch, clock), frozen=True)
            journal.append(RunEnded(interrupted=False, failure=""))
    events = [json.loads(line) for line in journal.path.read_text().splitlines()]
    kinds = {event["kind"] for event in events}
    assert {"stop", "resume", "samples"} <= kinds
    assert [event for event in events if event["kind"] == "problem"] == []


def asleep(guests: Guests, name: str) -> bool:
    """Whether its vCPUs use as little CPU time as those of a guest that sleeps, for two seconds."""
    before = guests._hypervisor.cpu_time_ns(name)
    time.sleep(STILL_S)
    return guests._hypervisor.cpu_time_ns(name) - before < paced(NOTHING_NS)


def test_a_kernel_that_panics_is_started_again_and_then_given_up(home: Path) -> None:
    """Without its initramfs it finds no disk. Nothing of the guest is left."""
    begun = time.monotonic()
    with guests_of(home, ["web-0"], kernel_options=("rdinit=/none",)) as (guests, plan, settings, _):
        with guests, pytest.raises(Panicked, match="its kernel has panicked: VFS: Unable to mount root fs"):
            guests.up(plan.parts[0])
        console = (settings.folder / "console-web-0.log").read_text(errors="replace")
        assert guests._hypervisor.list_lab_domains() == []
    assert console.count("] Kernel panic - not syncing: VFS") == 3
    assert time.monotonic() - begun < 120
    assert not list((home / "libvirt" / "log" / "qemu").glob(f"*{settings.run}*"))


def test_an_emulated_kernel_does_not_check_its_timer(home: Path) -> None:
    """M1: on a busy host it panicked there ("IO-APIC + timer doesn't work!")."""
    with guests_of(home, ["web-0"]) as (guests, plan, settings, _), guests:
        guests.up(plan.parts[0])
        options = guests.probes["web-0"].ssh.check("cat /proc/cmdline").split()
        emulated = settings.accelerator.accelerator is Accelerator.TCG
    assert ("no_timer_check" in options) is emulated


def test_what_a_guest_that_shuts_down_ends_is_not_ended_by_itself(home: Path, tmp_path: Path) -> None:
    """V10: its handler and its commands. They were told as "killed by SIGTERM" and "exited with -1"."""
    (tmp_path / "sleeps").write_text("#!/bin/sh\nexec sleep 600\n")
    with guests_of(home, ["web-0"]) as (guests, plan, _settings, _), guests:
        guests.up(plan.parts[0])
        probe = guests.probes["web-0"]
        handler = GuestHandler(
            "web-0", lambda: probe.ssh, tmp_path / "sleeps", [], "sleeps", tmp_path / "log"
        )
        handler.start()
        probe.ssh.run("systemctl --no-block poweroff")

        def look() -> None:
            while True:
                assert handler.look() is None

        with pytest.raises(GuestGone, match="has ended: it powered itself off"):
            look()


PLAYBOOK = """
name: short
fleet: {guests: [{name: web-0}], boot: golden}
resync: push
cycle: {patch: {hold: 1s}, settle: 0s, before: 1s, watch: 1s}
"""


@pytest.mark.parametrize(
    ("number", "phase", "delay"),
    [(signal.SIGINT, '"kind":"boot"', 0.05), (signal.SIGTERM, "", 0.05)],
    ids=["time sync", "removal"],
)
def test_a_signal_ends_it_at_once_and_leaves_nothing(
    cli: Cli, tmp_path: Path, eventually: Eventually, number: signal.Signals, phase: str, delay: float
) -> None:
    """D4: workers wait for the guest while its time sync is set up. D5: the guests are being taken down."""
    (tmp_path / "short.yaml").write_text(PLAYBOOK)
    process = cli.start("run", str(tmp_path / "short.yaml"))
    if phase:
        eventually(lambda: phase in cli.journal().replace(" ", "") or process.poll() is not None)
    else:
        assert process.stderr is not None
        eventually(lambda: "remove guests" in process.stderr.readline())
    time.sleep(delay)
    process.send_signal(number)
    sent = time.monotonic()
    _out, err = process.communicate(timeout=120)
    assert time.monotonic() - sent < 20
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert cli.qemu() == []
    assert cli.left() == []
