"""Puts programs of the user's own into a running guest: files, commands, services, in this order.

Values of secrets go through the SSH connection's input and are never part of a command line. Texts of the
guest that an error quotes have them masked.
"""

from __future__ import annotations

import io
import shlex
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from lab.core.secret_values import SecretValues
from lab.core.setup import SetupCommand, SetupFile, SetupService, SetupSpec
from lab.core.units import NS_PER_MS, NS_PER_S, format_duration, format_size
from lab.errors import GuestError, GuestGone, MachineError
from lab.guest.health import bounded
from lab.guest.readiness import why_not_ready
from lab.guest.ssh import SSH, Result
from lab.ports import Clock

BOOT_S = 120
"""How long the set-up waits for the end of the guest's boot; then it begins all the same."""

COPY_S, COPY_BYTES_PER_S = 60.0, 200_000
"""The longest time for a file: the first, and its size over the second. An emulated guest takes some MB/s."""

MOST_BYTES = 256 << 20
MOST_LINES, MOST_LINE = 8, 200
"""What an error quotes of a guest's output."""

GRACE_S = 30.0
"""From the guest's own time limit until the lab stops waiting for it."""

EVERY_NS = 300 * NS_PER_MS
_TIMED_OUT = (124, 137)
_TAIL = 4096

_BOOTED = f"timeout {BOOT_S} systemctl is-system-running --wait"  # degraded will do
_RUN = """\
eval "$(cat)"
exec </dev/null
cd /root || exit
log=$(mktemp) || exit
{command} >"$log" 2>&1
status=$?
tail -c {tail} "$log"
rm -f "$log"
exit $status
"""
# Beside its place first, and with nobody's rights: a secret is never readable meanwhile.
_COPY = """\
set -e
umask 022
mkdir -p {folder}
if [ -d {to} ]; then echo 'there is a folder of this name' >&2; exit 1; fi
umask 077
cat >{new}
chown {owner} {new}
chmod {mode} {new}
mv -f {new} {to}
"""
_OWNER = 't=$(mktemp) && chown {owner} "$t" && stat -c \'%u %g\' "$t"; status=$?; rm -f "$t"; exit $status'
_UNPACK = """\
set -e
umask 022
mkdir -p {folder}
case $(tar --version 2>/dev/null) in
*GNU*) exec tar -C {folder} --no-overwrite-dir --keep-directory-symlink -xf - ;;
*) exec tar -C {folder} -xf - ;;
esac
"""
_START = """\
[ -d /run/systemd/system ] || {{ echo 'there is no systemd in the guest' >&2; exit 1; }}
{reload}
{start}
"""
_STATE = "systemctl is-failed --quiet {unit} && exit 3; exit 0"
_JOURNAL = "journalctl --unit {unit} --lines {lines} --output cat --no-pager --quiet 2>/dev/null"


class GuestInstaller:
    """Sets one guest up.

    ssh: the guest's connection, re-established if it was lost; called in the caller's thread. progress:
    called with the label of each step. secrets: the values of the set-up's secrets.
    """

    def __init__(
        self,
        guest: str,
        ssh: Callable[[], SSH],
        clock: Clock,
        secrets: SecretValues,
        progress: Callable[[str], None],
    ) -> None:
        self._where = f"guest {guest}"
        self._ssh, self._clock, self._secrets, self._progress = ssh, clock, secrets, progress

    def install(self, setup: SetupSpec) -> None:
        """Copy the files, run the commands, start the services. GuestError, with the guest's last lines, when
        a step fails or takes too long; MachineError when a file of the host cannot be read."""
        self._ssh().run(_BOOTED, BOOT_S + GRACE_S)
        for file in setup.files:
            self._progress(file.label)
            self._copy(file)
        for command in setup.run:
            self._progress(command.label)
            self._run(command)
        reload = "systemctl daemon-reload" if setup.files or setup.run else ""
        for service in setup.services:
            self._progress(service.label)
            self._start(service, reload)
            reload = ""

    # -- files ---------------------------------------------------------------------------------------

    def _copy(self, file: SetupFile) -> None:
        source = Path(file.source)
        owner = file.owner or "root:root"
        if file.source and source.is_dir():
            ids = self._checked(_OWNER.format(owner=shlex.quote(owner)), file.label, COPY_S).split()
            folder, data = (
                PurePosixPath(file.to).parent,
                self._packed(source, file.to, int(ids[0]), int(ids[1])),
            )
            script = _UNPACK.format(folder=shlex.quote(str(folder)))
        else:
            data = self._data(file)
            script = _COPY.format(
                folder=shlex.quote(str(PurePosixPath(file.to).parent)),
                to=shlex.quote(file.to),
                new=shlex.quote(f"{file.to}.freezelab"),
                owner=shlex.quote(owner),
                mode=file.mode or _default_mode(file),
            )
        self._checked(script, file.label, COPY_S + len(data) / COPY_BYTES_PER_S, data)

    def _data(self, file: SetupFile) -> bytes:
        if file.secret:
            return self._secrets[file.secret]
        return self._read(Path(file.source)) if file.source else file.content.encode()

    def _read(self, path: Path) -> bytes:
        try:
            self._check_size(path, path.stat().st_size)
            return path.read_bytes()
        except OSError as error:
            raise MachineError(f"it cannot be read: {error.strerror}", where=str(path)) from error

    def _packed(self, source: Path, to: str, uid: int, gid: int) -> bytes:
        """The folder as a tar, below the last part of `to`."""

        def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
            entry.uid, entry.gid, entry.uname, entry.gname = uid, gid, "", ""
            entry.mode = 0o755 if entry.mode & 0o100 else 0o644
            self._check_size(source, buffer.tell())
            return entry

        buffer = io.BytesIO()
        try:
            with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
                tar.add(source, PurePosixPath(to).name, filter=plain)
        except OSError as error:
            raise MachineError(
                f"it cannot be read: {error.strerror}", where=str(error.filename or source)
            ) from error
        return buffer.getvalue()

    def _check_size(self, path: Path, size: int) -> None:
        if size > MOST_BYTES:
            what = f"larger than {format_size(MOST_BYTES)}"
            raise MachineError(what, where=str(path), hint="put it into files/ of an image of your own")

    # -- commands ------------------------------------------------------------------------------------

    def _run(self, command: SetupCommand) -> None:
        limit_s = command.within_ns / NS_PER_S
        inside = bounded(command.text, limit_s, "/bin/sh -ec")
        script = _RUN.format(command=inside, tail=_TAIL)
        begun = self._clock.now().raw_ns
        result = self._result(script, command.label, limit_s + GRACE_S, self._secrets.exports())
        if result.status == 0:
            return
        late = result.status in _TIMED_OUT and self._clock.now().raw_ns - begun >= command.within_ns
        how = (
            f"did not end within {format_duration(command.within_ns)}"
            if late
            else f"exited with {result.status}"
        )
        raise self._failed(f"{command.label}: {how}", result.out, cut=len(result.out.encode()) >= _TAIL)

    # -- services ------------------------------------------------------------------------------------

    def _start(self, service: SetupService, reload: str) -> None:
        unit = shlex.quote(service.unit)
        begun = self._clock.now().raw_ns
        deadline = begun + service.within_ns
        limit_s = service.within_ns / NS_PER_S
        script = _START.format(reload=reload, start=bounded(f"systemctl start {unit}", limit_s))
        result = self._result(script, service.label, limit_s + GRACE_S)
        if result.status:
            late = result.status in _TIMED_OUT and self._clock.now().raw_ns >= deadline
            last = (self._lines(result.err) or ["no output"])[0]
            how = (
                f"not started within {format_duration(service.within_ns)}" if late else f"not started: {last}"
            )
            raise self._unready(service, how)
        if service.ready is None:
            return
        while why := self._why_not(service, deadline):
            now = self._clock.now().raw_ns
            if self._result(_STATE.format(unit=unit), service.label, GRACE_S).status == 3:
                raise self._unready(service, f"has failed before it was ready ({why})")
            if now >= deadline:
                how = f"not ready within {format_duration(service.within_ns)} by {service.ready.label}: {why}"
                raise self._unready(service, how)
            self._clock.sleep_until(min(now + EVERY_NS, deadline))

    def _why_not(self, service: SetupService, deadline: int) -> str:
        if service.ready is None:
            return ""
        return _shown(self._secrets.mask(why_not_ready(self._ssh(), service.ready, self._clock, deadline)))

    def _unready(self, service: SetupService, how: str) -> GuestError:
        """The error of a service, with the last lines of its journal."""
        script = _JOURNAL.format(unit=shlex.quote(service.unit), lines=MOST_LINES)
        journal = self._result(script, service.label, GRACE_S).out
        return self._failed(f"the service {service.name}: {how}", journal)

    # -- the guest's answers -------------------------------------------------------------------------

    def _checked(self, script: str, label: str, timeout_s: float, stdin: bytes = b"") -> str:
        result = self._result(script, label, timeout_s, stdin)
        if result.status:
            raise self._failed(f"{label}: exited with {result.status}", result.err or result.out)
        return result.out

    def _result(self, script: str, label: str, timeout_s: float, stdin: bytes = b"") -> Result:
        try:
            return self._ssh().run(script, timeout_s, stdin)
        except GuestGone:
            raise
        except GuestError as error:
            how = error.what.rpartition(": ")[2]
            raise GuestError(f"set-up failed: {label}: {how}", where=self._where) from error

    def _failed(self, what: str, output: str, *, cut: bool = False) -> GuestError:
        """cut: the output does not begin at its beginning."""
        quoted = "".join(f"\n  {line}" for line in self._lines(output, cut=cut))
        return GuestError(f"set-up failed: {self._secrets.mask(what)}{quoted}", where=self._where)

    def _lines(self, output: str, *, cut: bool = False) -> list[str]:
        """The last lines, with secrets masked; of a line that was cut, its end."""
        text = self._secrets.mask(self._secrets.drop_rest(output.lstrip("\ufffd")) if cut else output)
        part, _, text = text.partition("\n") if cut else ("", "", text)
        first = [_shown_end(part.rstrip())] if part.strip() else []
        whole = [_shown(line.rstrip()) for line in text.splitlines() if line.strip()]
        return [*first, *whole][-MOST_LINES:]


def _shown(line: str) -> str:
    line = _printable(line)
    return line if len(line) <= MOST_LINE else f"{line[:MOST_LINE]}…"


def _shown_end(line: str) -> str:
    return f"…{_printable(line)[-MOST_LINE:]}"


def _printable(line: str) -> str:
    return "".join(char if char.isprintable() else " " for char in line)


def _default_mode(file: SetupFile) -> str:
    """Octal digits: of a secret, of a text of the lab's, of a file of the host."""
    if file.secret:
        return "0600"
    return "0755" if file.source and Path(file.source).stat().st_mode & 0o100 else "0644"
