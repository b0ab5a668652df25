"""Set-ups in which the host acts after the resume, through the guest's agent or by hwclock in the guest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from lab.core.clock import Interval
from lab.core.mechanism import Means, ResyncMechanism
from lab.core.timesync_setup import SILENT, WINDOWS, WINDOWS_NAME, Setup
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import AgentError, FreezelabError, GuestError, GuestGone, HypervisorError, Refused
from lab.guest.ssh import SSH
from lab.guest.timesync.access import GuestAccess
from lab.guest.timesync.line_client import PATIENCE_S, START_S, Line
from lab.ports import Call
from lab.process.pace import paced
from lab.threads import Worker

AGENT_S = 25.0
"""Time limit for the agent: libvirt waits for its greeting and then for its answer (lab.hypervisor.agent,
_SET_S each)."""

HWCLOCK_S = 15.0
"""Time limit for hwclock, which gives up after 10 s without a tick of the RTC (util-linux,
sys-utils/hwclock.c)."""

REGAIN_S = 20.0
ASK_S = 10.0
SECONDS_A_DAY = 86_400

PATIENCE_NS = 5 * NS_PER_S
"""How long a silent agent is pinged again before a freeze: systemd starts one in tenths of a second, or in
seconds under TCG."""

AGAIN_NS = 200 * NS_PER_MS

_HWCLOCK = (
    "echo H $$; while read -r what; do case $what in "
    "set) if said=$(hwclock --hctosys --utc 2>&1); then echo done; else echo failed $said; fi;; "
    "*) echo here;; esac; done"
)
"""The shell waits since before the freeze; only hwclock itself is started after it."""


class NoResync:
    """A mechanism that does nothing."""

    def setup(self) -> Setup:
        return Setup(ResyncMechanism.NONE)

    def resumed(self) -> None:
        return None

    def outcome(self) -> str:
        return ""

    def finished_raw_ns(self) -> int | None:
        return None

    def remove(self) -> None:
        return None


class WindowsResync(NoResync):
    """The Windows Time service, which the guest has as the playbook says. Nothing of it can be read without
    logging in, so its set-up is the documented one."""

    def __init__(self, mechanism: ResyncMechanism, system: str) -> None:
        self._mechanism, self._system = mechanism, system

    def setup(self) -> Setup:
        return Setup(self._mechanism, self._system, self._mechanism.config())


class Acting:
    """Does one action after each resume, in its own thread, and keeps its outcome."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._thread: threading.Thread | None = None
        self._outcome = ""
        self._finished_raw_ns: int | None = None

    def _start(self, act: Callable[[], str]) -> None:
        def run() -> None:
            try:
                self._outcome = act()
            except FreezelabError as error:
                self._outcome = f"failed: {error.what}"
            except BaseException as error:
                self._outcome = f"failed: {type(error).__name__}: {error}"
                raise

        self._finished_raw_ns = None
        self._outcome = f"no answer within {self._patience_s:.0f} s"
        self._thread = Worker(target=run, name="resync", daemon=True)
        self._thread.start()

    def outcome(self) -> str:
        if self._thread is not None:
            self._thread.join(self._patience_s)
        return self._outcome

    def finished_raw_ns(self) -> int | None:
        return self._finished_raw_ns


class AgentResync(Acting):
    """The host acts through the guest's agent, in one of three ways."""

    def __init__(self, mechanism: ResyncMechanism, access: GuestAccess) -> None:
        super().__init__(paced(AGENT_S))
        if access.agent is None:
            raise Refused("the host has no channel to this guest's agent", where=access.where)
        self._mechanism, self._access, self._agent = mechanism, access, access.agent
        self._status: dict[str, str] = {}
        self._act = {
            Means.AGENT_TIME: self._agent.set_time,
            Means.AGENT_SECONDS: self._agent.set_seconds,
            Means.AGENT_RTC: self._agent.read_rtc,
        }[mechanism.means]

    def install(self, rtc: Interval | None) -> AgentResync:
        """GuestError when the agent does not answer. rtc: the RTC minus REALTIME, if known."""
        self._status = rtc_status(rtc)
        self._ping()
        if (system := self._agent.system()).get("id") == WINDOWS:
            self._status[WINDOWS_NAME] = system.get("pretty-name", "")
        return self

    def setup(self) -> Setup:
        """The agent's set-up and present state. A silent agent, which may be restarting, is pinged again for
        PATIENCE_NS. If it stays silent, the status says so, and the cycle goes on without a resync."""
        clock = self._access.clock
        give_up = clock.now().raw_ns + PATIENCE_NS
        status = dict(self._status)
        while "round_trip_ns" not in status:
            try:
                status["round_trip_ns"] = str(_took_ns(self._ping()))
            except GuestError as error:
                now = clock.now().raw_ns
                if now >= give_up:
                    status[SILENT] = error.what
                    break
                clock.sleep_until(min(now + AGAIN_NS, give_up))
        config = ""
        if self._mechanism.reads_rtc:
            config, more = adjtime(self._access.ssh(), utc=False)
            status |= more
        return Setup(self._mechanism, "qemu-guest-agent", config, status, self._access.rtc_stops)

    def _ping(self) -> Call:
        try:
            return self._agent.ping()
        except HypervisorError as error:
            raise GuestError(f"its agent does not answer: {error.what}", where=self._access.where) from error

    def resumed(self) -> None:
        self._start(self._set)

    def _set(self) -> str:
        try:
            call = self._act()
        except AgentError:
            self._finished_raw_ns = self._access.clock.now().raw_ns
            raise
        self._finished_raw_ns = call.returned.raw_ns
        return f"the agent answered after {_took_ns(call) / NS_PER_MS:.0f} ms"

    def remove(self) -> None:
        self.outcome()


class HwclockResync(Acting):
    """`hwclock --hctosys --utc` in the guest, through a shell that waits for the command."""

    def __init__(self, access: GuestAccess) -> None:
        super().__init__(REGAIN_S + HWCLOCK_S)
        self._access = access
        self._line: Line | None = None
        self._program = ""
        self._status: dict[str, str] = {}
        self._lock = threading.Lock()

    def install(self, rtc: Interval | None) -> HwclockResync:
        """Refused without hwclock, GuestError when the guest does not answer."""
        ssh = self._access.ssh()
        result = ssh.run("hwclock --version")
        if result.status != 0:
            raise Refused("the guest has no hwclock", where=self._access.where)
        self._program, self._status = result.out.strip(), rtc_status(rtc)
        self._line = Line(ssh.again(START_S), _HWCLOCK)
        self._line.open()
        self._line.ask("hello", PATIENCE_S)
        return self

    def setup(self) -> Setup:
        with self._lock:
            sent, _, arrived = self._working().ask("hello", PATIENCE_S)
        config, more = adjtime(self._access.ssh(), utc=True)
        status = {"round_trip_ns": str(arrived.raw_ns - sent.raw_ns), **self._status, **more}
        return Setup(ResyncMechanism.HWCLOCK, self._program, config, status, self._access.rtc_stops)

    def resumed(self) -> None:
        self._start(self._set)

    def _set(self) -> str:
        deadline = time.monotonic() + REGAIN_S
        begun = self._access.clock.now()
        with self._lock:
            line = self._working()
            try:
                _, reply, done = line.ask("set", HWCLOCK_S)
            except GuestGone:
                raise
            except GuestError:
                line.again(deadline)
                _, reply, done = line.ask("set", HWCLOCK_S)
        self._finished_raw_ns = done.raw_ns
        if reply != "done":
            return f"hwclock {reply}"
        took_ms = (done.raw_ns - begun.raw_ns) / NS_PER_MS
        return f"hwclock set the clock from the RTC, done after {took_ms:.0f} ms"

    def _working(self) -> Line:
        if self._line is None:
            raise GuestError("hwclock's shell is not there", where=self._access.where)
        return self._line

    def remove(self) -> None:
        self.outcome()
        line, self._line = self._line, None
        if line is not None:
            line.close()


def rtc_status(rtc: Interval | None) -> dict[str, str]:
    """The status of the RTC minus REALTIME, measured when the guest's clock had just been set to the
    host's."""
    if rtc is None:
        return {}
    return {"rtc_minus_real_ns": str(rtc.mid_ns), "rtc_bound_ns": str(rtc.half_width_ns)}


def adjtime(ssh: SSH, *, utc: bool) -> tuple[str, dict[str, str]]:
    """A guest's /etc/adjtime, and how `hwclock -s` uses it. utc: whether hwclock runs with --utc. GuestError
    when the guest does not answer."""
    reply = ssh.check("cat /etc/adjtime 2>/dev/null; echo; echo =; date '+%s %z'", ASK_S)
    text, _, now = reply.rpartition("\n=\n")
    return text.strip(), adjtime_status(text, now, utc)


def adjtime_status(text: str, now: str, utc: bool) -> dict[str, str]:
    """The status of core.timesync.host from the text of /etc/adjtime (its three lines: hwclock(8)). now: the
    guest's seconds since 1970 and its zone, "1764355000 +0200"."""
    lines = [line.split() for line in text.strip().splitlines()]
    seconds, zone = now.split()
    status = {}
    if not utc and ["LOCAL"] in lines:
        east = int(zone[1:3]) * 3600 + int(zone[3:5]) * 60
        status["rtc_zone_s"] = str(-east if zone.startswith("-") else east)
    try:
        factor, last, left = (float(word) for word in lines[0])
    except (IndexError, ValueError):
        return status
    if factor:
        drift_s = factor * (int(seconds) - last) / SECONDS_A_DAY + left
        status["rtc_drift_ns"] = str(round(drift_s * NS_PER_S))
    return status


def _took_ns(call: Call) -> int:
    return call.returned.raw_ns - call.called.raw_ns
