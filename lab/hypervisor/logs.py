"""QEMU's messages, from the log that libvirt keeps for each domain."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Collection
from pathlib import Path

from lab.errors import HypervisorError
from lab.hypervisor.domain import DomainSpec
from lab.hypervisor.embed import Root

_NOISE = re.compile(
    r"^[ -]|^[A-Z_]+=|\\$|is tainted:|: starting up |: warning: |terminating on signal|shutting down, reason"
)
"""Lines of QEMU's log to leave out: those that libvirt writes at every start and end, and QEMU's warnings."""

_QEMU_PREFIX = re.compile(r".*qemu-system-\w+: ", re.DOTALL)
_STAMP = re.compile(r"^\S+Z (?:qemu-system-\w+: )?")
_LINES = 3


class Logs:
    """Finds the logs of a connection's domains. root: of the embedded driver."""

    def __init__(self, uri: str, root: Root | None) -> None:
        self._uri, self._root = uri, root

    def path(self, name: str) -> Path | None:
        """The log of the domain with this name; None when this process cannot read it."""
        if self._root is not None:
            return self._root.path / "log" / "qemu" / f"{name}.log"
        if self._uri.startswith("qemu:///system"):
            return Path("/var/log/libvirt/qemu") / f"{name}.log"
        if self._uri.startswith("qemu:///session"):
            return Path.home() / ".cache/libvirt/qemu/log" / f"{name}.log"
        return None

    def tail(self, name: str) -> str:
        """The last lines with messages; "" without any."""
        _path, lines = self._read(name)
        return "\n".join(["QEMU's log ends:", *lines[-_LINES:]]) if lines else ""

    def drop(self, pattern: str, archive: Path | None = None, but: Collection[str] = ()) -> list[Path]:
        """Remove the embedded driver's logs of domains whose names match `pattern` (fnmatch(3)). Returns the
        removed files. archive: a folder to which logs with messages are moved. but: names of domains to
        keep."""
        if self._root is None:
            return []
        gone = []
        for path in sorted((self._root.path / "log" / "qemu").glob(f"{pattern}.log")):
            if path.stem in but:
                continue
            with contextlib.suppress(OSError):
                if archive is not None and self._read(path.stem)[1]:
                    shutil.move(path, archive / f"qemu-{path.name}")
                path.unlink(missing_ok=True)
                gone.append(path)
        return gone

    def last(self, name: str) -> str:
        """QEMU's last messages in one line, without their stamps, because the very last is seldom the reason.
        "" without any."""
        return "; ".join(_STAMP.sub("", line) for line in self._read(name)[1][-_LINES:])

    def _read(self, name: str) -> tuple[Path | None, list[str]]:
        path = self.path(name)
        if path is None:
            return None, []
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return None, []
        return path, [line for line in lines[-40:] if not _NOISE.search(line)]


def start_failure(error: HypervisorError, spec: DomainSpec) -> HypervisorError:
    """A failed start's error with QEMU's own message instead of libvirt's wrapping."""
    if "host forwarding rule" in error.what:
        return HypervisorError(
            f"TCP port {spec.ssh_port} on 127.0.0.1 is in use", where=spec.guest, hint="choose another port"
        )
    if 'Failed to get "write" lock' in error.what or 'Failed to get shared "write" lock' in error.what:
        disk = spec.disk.path if spec.disk is not None else "its disk"
        return HypervisorError(
            "its disk image is in use by another program",
            where=spec.guest,
            hint=f"to see which: fuser -v {disk}",
        )
    lines = _QEMU_PREFIX.sub("cannot be started: ", error.what) if "monitor" in error.what else error.what
    return HypervisorError(lines, where=error.where, hint=error.hint)
