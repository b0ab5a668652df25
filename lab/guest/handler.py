"""Runs a user's program in a guest, which handles the guest's Scheduled Events."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from lab.core.handlers import HandlerEnd
from lab.errors import GuestError, MachineError
from lab.guest.ssh import SSH

FOLDER = "/run/freezelab/handlers"
START_S, ANSWER_S = 60.0, 60.0
GRACE_S = 5
"""Seconds between SIGTERM and SIGKILL."""

_TRIES = 3
_SETTLE_S = 0.5
"""Seconds after which a program that cannot run, or not with these arguments, has usually ended."""

MOST_LINE = 300
"""The most characters of a log's last line in a message."""

MOST_LOG_BYTES = 4 << 20
"""The most bytes of a log that are fetched at once; only the last ones."""

# systemd separates the program from the SSH connection, and tracks all processes that it starts.
_START = """\
set -e
[ -d /run/systemd/system ] || {{ echo 'there is no systemd' >&2; exit 1; }}
[ ! -e {folder} ] || {{ systemctl stop {unit} || true; rm -rf {folder}; }} 2>/dev/null
mkdir -p {folder}
cat >{folder}/{program}
chmod 0700 {folder}/{program}
systemd-run --quiet --collect --unit={unit} --working-directory={folder} \
    -p Type=exec -p KillMode=control-group -p TimeoutStopSec={grace} \
    -p StandardOutput=append:{folder}/log -p StandardError=append:{folder}/log \
    -p ExecStopPost='/bin/sh -c "echo $$SERVICE_RESULT $$EXIT_CODE $$EXIT_STATUS >{folder}/end"' \
    {environment} -- {folder}/{program} {arguments} || {{ echo 'the guest cannot execute it' >&2; exit 1; }}
sleep {settle}
systemctl is-active --quiet {unit} || {{ tail -n 5 {folder}/log >&2; exit 3; }}
"""
# Prints nothing while the handler runs or the guest shuts down; afterwards, how the handler has ended.
_ENDED = (
    '[ "$(systemctl is-system-running)" != stopping ] || exit 0; '
    "case $(systemctl is-active {unit}) in "
    "inactive | failed) cat {folder}/end 2>/dev/null || echo unknown ;; esac"
)
# Prints the log's size, its new part (or the end of that), and a final mark: under load, sshd may report a
# command's end before all of its output.
_FETCH = """\
size=$(stat -c %s {log} 2>/dev/null || echo {fetched})
new=$((size - {fetched}))
echo "$size"
[ "$new" -le {most} ] || new={most}
[ "$new" -le 0 ] || head -c "$size" {log} | tail -c "$new"
echo .
"""
_NEEDED = "it needs a first line such as #!/bin/sh that names an interpreter which is in the guest"


class GuestHandler:
    """A handler that runs from start() to close(), even when the SSH connection is lost. A context manager.

    ssh: returns the guest's connection, re-established if it was lost; called in the caller's thread, not
    closed here. program: a file on the host that the guest can execute: a binary, or a script whose first
        line names its interpreter. name: the handler's name in this guest. log: a file on the host to which
        fetch_log() and close() append the handler's output.
    environment: added to systemd's environment of a service. FREEZELAB_GUEST is the guest's host name. mask:
        takes the guest's secrets out of the handler's output.
    end: how the handler has ended by itself, as of the last look(); None while it has not.
    """

    def __init__(
        self,
        guest: str,
        ssh: Callable[[], SSH],
        program: Path,
        arguments: Sequence[str],
        name: str,
        log: Path,
        environment: Mapping[str, str] | None = None,
        mask: Callable[[str], str] = str,
    ) -> None:
        self.guest, self.program, self.log = guest, program, log
        self._ssh, self._arguments, self._mask = ssh, tuple(arguments), mask
        self._environment = {"FREEZELAB_GUEST": guest, **(environment or {})}
        plain = re.sub(r"[^A-Za-z0-9_]+", "-", name) or "handler"
        self.unit, self._folder = f"freezelab-{plain}.service", f"{FOLDER}/{plain}"
        self.end: HandlerEnd | None = None
        self._started = False
        self._fetched = 0

    def __enter__(self) -> GuestHandler:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the handler, or restart it, for example after a reboot, which has ended and removed it.
        GuestError, with the last line of its output, when it does not start or has ended half a second later;
        MachineError when the program cannot be read."""
        try:
            text = self.program.read_bytes()
        except OSError as error:
            raise MachineError(
                f"the handler cannot be read: {error.strerror}", where=str(self.program)
            ) from error
        given = " ".join(
            f"--setenv={shlex.quote(f'{key}={value}')}" for key, value in self._environment.items()
        )
        script = _START.format(
            unit=self.unit,
            folder=self._folder,
            program=shlex.quote(self.program.name),
            grace=GRACE_S,
            settle=_SETTLE_S,
            environment=given,
            # systemd expands $NAME in a command line as an environment variable (systemd.service(5)).
            arguments=shlex.join(argument.replace("$", "$$") for argument in self._arguments),
        )
        self._started, self._fetched, self.end = True, 0, None
        result = self._ssh().run(script, START_S, stdin=text)
        if result.status:
            lines = [line for line in self._mask(result.err or result.out).splitlines() if line.strip()]
            what = "ended at once" if result.status == 3 else "does not start"
            raise GuestError(
                f"the handler {self.program.name} {what}: {lines[-1].strip() if lines else 'no output'}",
                where=f"guest {self.guest}",
                hint="" if result.status == 3 else _NEEDED,
            )

    def look(self) -> HandlerEnd | None:
        """How the handler has ended; None while it runs. GuestError when the guest does not answer;
        MachineError when the log cannot be written."""
        if self.end is None and self._started:
            ended = self._ssh().run(_ENDED.format(unit=self.unit, folder=self._folder), ANSWER_S).out
            if ended:
                self.fetch_log()
                result, code, status = (*ended.split(), "", "", "")[:3]
                self.end = HandlerEnd(self.program.name, result, code, status, _last_line(self.log))
        return self.end

    def fetch_log(self) -> None:
        """Append the handler's output since the last call to `log`. GuestError when the guest does not
        answer; MachineError when the file cannot be written."""
        script = _FETCH.format(log=f"{self._folder}/log", fetched=self._fetched, most=MOST_LOG_BYTES)
        for _ in range(_TRIES):
            size, _, text = self._ssh().check(script, ANSWER_S).partition("\n")
            if text.endswith(".\n"):
                break
        else:
            raise GuestError("the handler's log cannot be fetched completely", where=f"guest {self.guest}")
        self._fetched, text = int(size), self._mask(text.removesuffix(".\n"))
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise MachineError(
                f"the handler's log cannot be written: {error.strerror}", where=str(self.log)
            ) from error

    def close(self) -> None:
        """End the handler and all that it has started by SIGTERM, and by SIGKILL after GRACE_S; fetch its
        log, and remove it from the guest. Tries only once, and does nothing when the guest does not
        answer."""
        if not self._started:
            return
        with suppress(GuestError):
            try:
                self._ssh()
            except GuestError:
                self._started = False
                raise
            try:
                self.look()
                self._ssh().run(f"systemctl stop {self.unit}", START_S)
                self.fetch_log()
            finally:
                self._started = False
                tidy = f"rm -rf {self._folder}; rmdir {FOLDER} /run/freezelab 2>/dev/null"
                self._ssh().run(tidy, ANSWER_S)


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip()[:MOST_LINE] for line in reversed(lines) if line.strip()), "")
