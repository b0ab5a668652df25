"""chronyd beside a program that watches the vmclock device, and has chronyd poll after a disruption.

QEMU's vmclock (10.0 and later) can never bring a clock back: it declares its counter invalid, so Linux makes
no PTP clock of it. What it has is the disruption marker, which QEMU moves when a guest goes on from a state
that was sent or saved (hw/acpi/vmclock.c, vmclock_post_load), and not at a stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lab.core.clock import Interval
from lab.core.mechanism import ResyncMechanism
from lab.core.timesync.vmclock import MARKER, PERIOD
from lab.core.timesync_setup import Setup
from lab.core.units import NS_PER_MS
from lab.errors import GuestError, Refused
from lab.guest.client import ANSWER_S, BackgroundProgram
from lab.guest.timesync.access import GuestAccess
from lab.guest.timesync.daemon import DaemonResync, TimeDaemon

MODULE, DEVICE = "ptp_vmclock", "/dev/vmclock0"
POLL_NOW = ("chronyc", "burst 1/3")
"""One good answer of at most three (chronyc(1)), asked for at once. With maxsamples 1 it is the estimate."""


class VmclockResync(DaemonResync):
    """ports.Resync: chronyd, and the watcher."""

    def __init__(
        self, mechanism: ResyncMechanism, services: Sequence[TimeDaemon], access: GuestAccess
    ) -> None:
        super().__init__(mechanism, services, access)
        self._watcher = BackgroundProgram(access.ssh, "vmclock_watch", "the program that watches vmclock")
        self._status: dict[str, str] = {}

    def check(self) -> None:
        """Refused when the guest's kernel has no driver, its machine no device, or DaemonResync refuses."""
        ssh, where = self._ssh(), self._access.where
        if ssh.run(f"modprobe {MODULE}").status != 0:
            kernel = ssh.check("uname -r").strip()
            raise Refused(
                f"no {MODULE} in this guest's kernel, {kernel}",
                where=where,
                hint="Linux has it from 6.13 on, Debian's from 7.x on: image debian-testing",
            )
        if ssh.run(f"[ -c {DEVICE} ]").status != 0:
            hint = "a guest of the lab with QEMU 10.0 or later has one: emulator: trixie-backports"
            raise Refused("its machine has no vmclock", where=where, hint=hint)
        super().check()

    def install(self, config: str, rtc: Interval | None = None) -> VmclockResync:
        super().install(config, rtc)
        letter, facts = self._watcher.start(*POLL_NOW)
        if letter != "R":
            raise GuestError(f"vmclock cannot be watched: {facts.get('why')}", where=self._access.where)
        self._status = {MARKER: str(facts["marker"]), PERIOD: str(facts["period_ns"])}
        return self

    def setup(self) -> Setup:
        made = super().setup()
        return Setup(
            made.mechanism, made.program, made.config, {**made.status, **self._status}, made.rtc_stops
        )

    def outcome(self) -> str:
        """The watcher's disruptions, and chronyd's claim."""
        answer = self._watcher.ask("report", "D", ANSWER_S)
        if answer is None:
            return f"the program that watched vmclock has ended; {super().outcome()}"
        found = answer["found"]
        if found:
            self._status[MARKER] = str(found[-1]["new"])
        told = [disruption(one) for one in found] or ["vmclock's marker has not moved"]
        return "; ".join([*told, super().outcome()])

    def remove(self) -> None:
        self._watcher.stop("E", ANSWER_S)
        super().remove()


def disruption(one: dict[str, Any]) -> str:
    """A record of the watcher's in words. Its times are upper bounds of the guest's own time since the
    resume."""

    def ms(key: str) -> str:
        return f"{one[key] / NS_PER_MS:.1f} ms"

    done = "told" if one["status"] == 0 else f"could not be told (exit status {one['status']})"
    text = f"vmclock's marker moved from {one['old']} to {one['new']}, seen after at most {ms('noticed_ns')}"
    text += f", chronyd {done} after {ms('told_ns')}"
    if "stepped_ns" in one:
        text += f", clock stepped by {one['step_ns'] / NS_PER_MS:+.1f} ms after {ms('stepped_ns')}"
    return text
