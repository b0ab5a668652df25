"""restart-service: restarts a service of the host's systemd.

The restart is proven by another main process (another pid or start time) and another invocation id.
"""

from __future__ import annotations

from pathlib import Path

from lab.core import patch as plan
from lab.core.units import NS_PER_S
from lab.errors import MachineError
from lab.host.patches import daemon, systemd
from lab.host.patches.base import Stepwise, Tools, Work, failure, need_root, one_line, read, seconds
from lab.host.patches.systemd import ServiceState
from lab.ports import Clock
from lab.process import runner

_PATIENCE_S = 5.0
"""Time limit for systemd's answer, which takes some 10 ms."""


class RestartService(Stepwise):
    """Restarts a service. It succeeds when the service is active with another main process."""

    def __init__(self, spec: plan.RestartServicePatch, clock: Clock, tools: Tools) -> None:
        super().__init__(spec.label, spec.impact, clock, spec.deadline_ns)
        self._unit, self._user, self._uri = spec.unit, spec.scope is plan.UnitScope.USER, tools.uri
        self._tried = False

    def check(self) -> None:
        """MachineError without systemd, or when the service is not running or this user may not restart
        it."""
        runner.find("systemctl")
        if not self._user and not systemd.booted():
            raise MachineError(
                "systemd is not this machine's init: there is no service to restart",
                where=self._unit,
                hint="use scope: user for services of a user's systemd",
            )
        state = self._look()
        if state.loaded != "loaded":
            what = "is masked" if state.loaded == "masked" else f"no such service ({state.loaded})"
            raise MachineError(what, where=self._unit, hint=self._by_hand("list-units", "--type=service"))
        if not state.runs:
            what = "has no main process" if state.active == "active" else f"is {state.active}, not active"
            hint = self._by_hand("status", self._unit)
            raise MachineError(f"{what} ({state.sub})", where=self._unit, hint=hint)
        if not state.by_hand:
            raise MachineError("its unit refuses a manual restart", where=self._unit)
        if _inside(state.group):
            raise MachineError("freezelab itself runs in it: a restart would end the run", where=self._unit)
        if self._serves_libvirt(state):
            hint = "use patch: restart-libvirt, which connects again afterwards"
            raise MachineError("the lab reaches its guests through it", where=self._unit, hint=hint)
        if not self._user:
            need_root(f"restart {self._unit}")

    def version(self, guest: str) -> str:  # noqa: ARG002 - ports.HostPatch's
        """The service's main process and invocation; "" when it has none."""
        try:
            state = self._look()
        except MachineError:
            return ""
        return str(state) if state.runs else ""

    def verify(self, before: str, after: str) -> str:
        if not after:
            return f"{self._unit} is not active, or has no main process"
        return f"it still has the same main process: {after}" if before == after else ""

    def undo(self) -> str:
        """Start the service if the patch has left it stopped. A restart itself cannot be undone."""
        if not self._tried or self._look().runs:
            return ""
        work = self._work()
        try:
            work.run(*systemd.command("reset-failed", self._unit, user=self._user), check=False)
            self._systemctl(work, "start")
        except MachineError as error:
            hint = f"by hand: {self._by_hand('start', self._unit)}"
            raise MachineError(f"not undone: {one_line(error)}", where=self.label, hint=hint) from error
        return f"{self._unit}: started again in {seconds(self._own_ns - work.left_ns)}"

    def _do(self, work: Work) -> None:
        before = self._look(work)
        work.facts.update(unit=self._unit, before=str(before))
        self._tried = True
        with work.step(f"restart {self._unit}"):
            self._systemctl(work, "restart")
        with work.step("main process"):
            after = work.wait(lambda: self._other(work, before), f"{self._unit} has no new main process")
        work.facts["after"] = str(after)

    def _other(self, work: Work, before: ServiceState) -> ServiceState | None:
        state = self._look(work)
        return state if state.runs and state.identity != before.identity else None

    def _look(self, work: Work | None = None) -> ServiceState:
        patience_s = _PATIENCE_S if work is None else max(work.left_ns / NS_PER_S, 0.05)
        return systemd.look(self._unit, patience_s, user=self._user)

    def _systemctl(self, work: Work, verb: str) -> None:
        done = work.run(*systemd.command(verb, "--", self._unit, user=self._user), check=False)
        if done.overran:
            raise MachineError(f"systemd has not finished after {seconds(done.took_ns)}: {verb} {self._unit}")
        if not done.ok:
            # The first line is the error, the last one says where to read more.
            first = next(filter(None, map(str.strip, done.stderr.splitlines())), failure(done))
            raise MachineError(f"systemctl {verb}: {first[:200]}")

    def _by_hand(self, *arguments: str) -> str:
        return runner.quote(["systemctl", *(["--user"] if self._user else []), *arguments])

    def _serves_libvirt(self, state: ServiceState) -> bool:
        """Whether the service is the daemon of the lab's own libvirt connection."""
        try:
            return daemon.find(self._uri).pid == state.pid
        except MachineError:  # the connection has no daemon, or not on this host
            return False


def _inside(group: str) -> bool:
    """Whether this process is in this cgroup or in one below it."""
    ours = [line.split(":", 2)[2] for line in read(Path("/proc/self/cgroup")).splitlines()]
    return bool(group.strip("/")) and any(path == group or path.startswith(f"{group}/") for path in ours)
