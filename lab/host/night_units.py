"""A night's units for a user's systemd, and its line for cron where there is no systemd.

systemd.service(5), systemd.timer(5), systemd.syntax(7), crontab(5).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.errors import MachineError, UsageError
from lab.host.patches.systemd import booted, command
from lab.process import runner

NAME = "freezelab-nightly"
SERVICE, TIMER = f"{NAME}.service", f"{NAME}.timer"
HOME = "FREEZELAB_HOME"

_PATIENCE_S = 30.0

_SERVICE = """\
# Written by freezelab nightly install, and removed by freezelab nightly remove.
[Unit]
Description=freezelab: a night's playbooks

[Service]
Type=oneshot
{environment}
ExecStart=:{command}
# The night ends its run as Ctrl-C does: the guests are resumed and removed.
KillMode=mixed
TimeoutStopSec=5min
OOMPolicy=continue
"""

_TIMER = """\
# Written by freezelab nightly install, and removed by freezelab nightly remove.
[Unit]
Description=freezelab: every night at {at}

[Timer]
OnCalendar=*-*-* {at}:00
# A night that the machine was off is made up for when it is on again.
Persistent=true

[Install]
WantedBy=timers.target
"""


@dataclass(frozen=True)
class NightJob:
    """What is run every night. hour, minute: local time. environment: variables that it is run with, HOME of
    freezelab among them."""

    hour: int
    minute: int
    argv: tuple[str, ...]
    environment: Mapping[str, str]

    @property
    def at(self) -> str:
        return f"{self.hour:02}:{self.minute:02}"


@dataclass(frozen=True)
class TimerState:
    """The installed timer. next_at, last_at: as systemd prints them, "" when not known. running: whether a
    night that it has started is under way. lingers: whether it runs while the user is not logged in; None
    when that is not known."""

    home: str
    next_at: str
    last_at: str
    running: bool
    lingers: bool | None


def parse_time(text: str) -> tuple[int, int]:
    """(hour, minute) of "02:00". UsageError when it is no such time."""
    hour, colon, minute = text.partition(":")
    if colon and all(part.isascii() and part.isdigit() and len(part) <= 2 for part in (hour, minute)):
        found = int(hour), int(minute)
        if found[0] < 24 and found[1] < 60 and len(minute) == 2:
            return found
    raise UsageError(f"{text!r} is no time of day", where="--at", hint="from 00:00 to 23:59, local time")


def quoted(text: str) -> str:
    """One word of ExecStart=: or Environment=, quoted by systemd's rules. UsageError when it is not UTF-8: no
    unit can have it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError("not UTF-8, and no unit of systemd can name it", where=ascii(text)) from None
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return '"' + "".join(f"\\x{ord(c):02x}" if ord(c) < 0x20 or ord(c) == 0x7F else c for c in escaped) + '"'


def service_text(job: NightJob) -> str:
    """The service's unit file. With the colon before the command no $ in it is a variable's."""
    environment = "\n".join(
        f"Environment={quoted(f'{name}={value}')}" for name, value in sorted(job.environment.items())
    )
    return _SERVICE.format(environment=environment, command=" ".join(map(quoted, job.argv)))


def timer_text(job: NightJob) -> str:
    """The timer's unit file."""
    return _TIMER.format(at=job.at)


def crontab_line(job: NightJob) -> str:
    """The line for crontab -e, where a % would be a line feed. UsageError when no line can have it."""
    words = [*(f"{name}={value}" for name, value in sorted(job.environment.items())), *job.argv]
    if not all(word.isprintable() for word in words):
        raise UsageError("a crontab cannot have control characters, or what is not UTF-8")
    line = shlex.join(["env", *words]).replace("%", "\\%")
    return f"{job.minute} {job.hour} * * * {line}"


def unit_folder() -> Path:
    """Where a user's own units are (systemd.unit(5))."""
    config = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    return (config if config.is_absolute() else Path.home() / ".config") / "systemd" / "user"


def has_user_manager() -> bool:
    """Whether this machine runs systemd, so that a user may have units."""
    return booted() and runner.which("systemctl") is not None


def installed_home(folder: Path) -> str | None:
    """The state folder of the night that is installed, as its unit quotes it; None when none is."""
    try:
        lines = (folder / SERVICE).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return None if not (folder / TIMER).exists() else ""
    prefix = f'Environment="{HOME}='
    return next((line.removeprefix(prefix)[:-1] for line in lines if line.startswith(prefix)), "")


def is_home(installed: str, home: str) -> bool:
    """Whether an installed_home() is this state folder."""
    return installed == quoted(home)[1:-1]


def write_units(job: NightJob, folder: Path) -> None:
    """Write both units, checked by systemd-analyze where it is installed: both or neither. UsageError when
    those of another state folder are there, MachineError when they cannot be written or are not valid."""
    there = installed_home(folder)
    if there and not is_home(there, job.environment[HOME]):
        raise UsageError(
            f"the night of another state folder is installed: {there}",
            where=str(folder / SERVICE),
            hint=f"{HOME}={shlex.quote(there.replace('%%', '%'))} freezelab nightly remove",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{NAME}-", dir=folder) as drafts:
            drawn = Path(drafts)
            (drawn / SERVICE).write_text(service_text(job), encoding="utf-8")
            (drawn / TIMER).write_text(timer_text(job), encoding="utf-8")
            _verify(drawn)
            for name in (SERVICE, TIMER):
                (drawn / name).replace(folder / name)
    except OSError as error:
        where = str(error.filename or folder)
        raise MachineError(f"the units cannot be written: {error.strerror}", where=where) from error


def _verify(folder: Path) -> None:
    if runner.which("systemd-analyze") is None:
        return
    # A user's manager, which it acts out, wants a runtime folder even to read a file.
    with tempfile.TemporaryDirectory() as runtime:
        argv = ["systemd-analyze", "--user", "verify", str(folder / TIMER), str(folder / SERVICE)]
        done = runner.run(
            argv, _PATIENCE_S, check=False, env={**runner.environment(), "XDG_RUNTIME_DIR": runtime}
        )
    if not done.ok:
        raise MachineError(f"systemd does not accept the units: {done.last_line or done.why}")


def start_timer() -> None:
    """Have the user's systemd read the units, and start the timer, now and at each start of the machine.
    MachineError when it does not answer."""
    _systemctl("daemon-reload")
    _systemctl("enable", TIMER)
    _systemctl("restart", TIMER)  # a timer that runs already goes by its old time


def remove_units(folder: Path) -> list[str]:
    """Stop the timer and remove its units. Returns the removed files. MachineError when one cannot be
    removed. A night that is under way goes on."""
    there = [folder / name for name in (TIMER, SERVICE) if (folder / name).exists()]
    if there and has_user_manager():
        with contextlib.suppress(MachineError):
            _systemctl("disable", "--now", TIMER)
        with contextlib.suppress(MachineError):  # when it last ran, for Persistent=
            _systemctl("clean", "--what=state", TIMER)
    for path in (folder / "timers.target.wants" / TIMER, *there):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise MachineError(f"cannot be removed: {error.strerror}", where=str(path)) from error
    if there and has_user_manager():
        with contextlib.suppress(MachineError):
            _systemctl("daemon-reload")
    return [str(path) for path in there]


def timer_state(folder: Path) -> TimerState | None:
    """The installed timer; None without one. What systemd does not say is left empty."""
    home = installed_home(folder)
    if home is None:
        return None
    shown: dict[str, str] = {}
    if has_user_manager():
        names = "--property=NextElapseUSecRealtime,LastTriggerUSec"
        shown = _properties("show", names, "--", TIMER)
        shown["ActiveState"] = _properties("show", "--property=ActiveState", "--", SERVICE).get(
            "ActiveState", ""
        )
    return TimerState(
        home.replace("%%", "%"),
        shown.get("NextElapseUSecRealtime", ""),
        shown.get("LastTriggerUSec", ""),
        shown.get("ActiveState", "") == "activating",  # a oneshot's whole life
        lingers(),
    )


def lingers() -> bool | None:
    """Whether this user's systemd runs while they are not logged in (loginctl(1), enable-linger). None when
    that is not known."""
    if runner.which("loginctl") is None or not booted():
        return None
    argv = ["loginctl", "show-user", "--property=Linger", str(os.getuid())]
    done = runner.run(argv, _PATIENCE_S, check=False)
    if done.ok:
        return "Linger=yes" in done.stdout
    # Of a user who is not logged in it says only that.
    return False if "not logged in or lingering" in done.stderr else None


def linger_command() -> str:
    """What has the user's systemd run always."""
    try:
        return f"loginctl enable-linger {pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"loginctl enable-linger {os.getuid()}"


def _properties(verb: str, *words: str) -> dict[str, str]:
    done = _asked(verb, *words)
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def _asked(verb: str, *words: str) -> runner.Finished:
    """systemctl --user. After su or sudo nothing says where the user's systemd is, which is known."""
    env = runner.environment()
    if not env.get("XDG_RUNTIME_DIR"):
        env["XDG_RUNTIME_DIR"] = f"/run/user/{os.getuid()}"
    return runner.run(command(verb, *words, user=True), _PATIENCE_S, check=False, env=env)


def _systemctl(verb: str, *words: str) -> None:
    done = _asked(verb, *words)
    if not done.ok:
        raise MachineError(
            f"the user's systemd does not do it: {done.last_line or done.why}",
            where=runner.quote(done.argv),
            hint=f"does it run? {linger_command()}",
        )
