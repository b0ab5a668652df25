"""The state of a systemd service, read with systemctl(1).

Properties of units: org.freedesktop.systemd1(5).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab.errors import MachineError
from lab.host.patches.base import started
from lab.process import runner

_PROPERTIES = (
    "LoadState", "ActiveState", "SubState", "MainPID", "InvocationID", "ControlGroup", "CanStart", "CanStop",
)  # fmt: skip


@dataclass(frozen=True)
class ServiceState:
    """A service's state at one time.

    loaded: "loaded", "not-found", "masked", … active: "active", "inactive", "failed", "activating", …
    sub: the active state in more detail. pid: the main process; 0 without one. began: the main process's
    start in clock ticks since boot; None when it is gone. invocation: an id that is new for each start
    (systemd.exec(5)). group: the service's cgroup; "" when it does not run. by_hand: its unit allows manual
    starts and stops.
    """

    unit: str
    loaded: str
    active: str
    sub: str
    pid: int
    began: int | None
    invocation: str
    group: str
    by_hand: bool

    @property
    def runs(self) -> bool:
        """Whether the service is active and has a main process."""
        return self.active == "active" and self.began is not None

    @property
    def identity(self) -> tuple[int, int | None, str]:
        """Identifies the main process, even when its pid is reused."""
        return self.pid, self.began, self.invocation

    def __str__(self) -> str:
        return f"process {self.pid}, invocation {self.invocation[:8]}"


def booted() -> bool:
    """Whether systemd is this machine's init (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def command(verb: str, *arguments: str, user: bool = False) -> list[str]:
    """A systemctl command line. user: for the user's systemd instance."""
    return ["systemctl", *(["--user"] if user else []), "--no-ask-password", verb, *arguments]


def look(unit: str, patience_s: float, *, user: bool = False) -> ServiceState:
    """The service's present state. MachineError when systemd does not answer within `patience_s` seconds."""
    argv = command("show", f"--property={','.join(_PROPERTIES)}", "--", unit, user=user)
    done = runner.run(argv, patience_s, check=False)
    if not done.ok:
        hint = "a user's systemd needs a session or loginctl enable-linger, and XDG_RUNTIME_DIR"
        what = f"systemd does not answer: {done.last_line or done.why}"
        raise MachineError(what, where=unit, hint=hint if user else "")
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    main = found.get("MainPID", "")
    pid = int(main) if main.isdigit() else 0
    return ServiceState(
        unit,
        found.get("LoadState", ""),
        found.get("ActiveState", ""),
        found.get("SubState", ""),
        pid,
        started(pid) if pid else None,
        found.get("InvocationID", ""),
        found.get("ControlGroup", ""),
        found.get("CanStart") == found.get("CanStop") == "yes",
    )
