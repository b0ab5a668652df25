"""freezelab itself in the lab host, as it is here: what has changed is sent.

The lab host has a list of the files that were sent, with their digests. A golden state has it too, so that a
lab host that starts from it is sent the difference.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from lab.errors import Refused
from lab.session.lab_host_shell import NAME, PLACE, RUNNING, LabHostShell
from lab.session.paths import CLONE

CODE, PACKAGES = f"{PLACE}/code", f"{PLACE}/packages"

WITH_CODE = f"cd {CODE} && PYTHONPATH={CODE}:{PACKAGES}"
"""The beginning of a command in the lab host that runs a Python with freezelab."""

_SENT = ("lab", "images", "playbooks", "examples", "docs", "tests", "pyproject.toml", "requirements.lock")
_FILES, _GONE = f"{CODE}.files", f"{CODE}.gone"

_RUNS = "a run goes on"


def clone() -> Path:
    """The clone that freezelab runs from. Refused without one."""
    if CLONE is None:
        raise Refused("a lab host needs a clone of freezelab: a wheel has no requirements.lock")
    return CLONE


def send_code(shell: LabHostShell) -> None:
    """Send freezelab's files that the lab host does not have as they are here, and remove those that are gone
    here. Refused while a run there needs what is there."""
    here = _digests()
    listed = _listed(here)
    digest = hashlib.sha256(listed).hexdigest()
    known = f"echo '{digest}  {_FILES}' | sha256sum --check --status 2>/dev/null"
    found = shell.run(
        f"{known} && exit; [ -z \"$({RUNNING}\n)\" ] || echo '{_RUNS}'; cat {_FILES} 2>/dev/null; echo end"
    )
    if not found:
        return
    if found.startswith(_RUNS):
        what = "a run goes on in it, and freezelab has changed here since that began"
        raise Refused(what, where=f"lab host {NAME}", hint="wait for its end")
    there = dict(line.split("  ", 1)[::-1] for line in found.splitlines() if "  " in line)
    gone = "".join(f"{name}\n" for name in there if name not in here)
    changed = [name for name, value in here.items() if there.get(name) != value]
    with tempfile.NamedTemporaryFile() as file:
        file.write(_packed(changed, here, gone.encode(), listed))
        file.flush()
        first = "" if there else f"rm -rf {CODE} && "
        # The list comes last: what was cut off is sent again, whole.
        shell.send(
            ["cat", file.name],
            f"rm -f {_FILES} && {first}mkdir -p {CODE} && tar -C {PLACE} -xf - && "
            f"(cd {CODE} && xargs -r -d '\\n' rm -f) <{_GONE} && mv {_FILES}.new {_FILES}",
        )


def _digests() -> dict[str, str]:
    """The digest of each file that is sent, by its path in the clone."""
    root = clone()
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in _SENT
        for path in (root / name, *(root / name).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def _listed(digests: dict[str, str]) -> bytes:
    """The list of the lab host's, in the form of sha256sum."""
    return "".join(f"{value}  {name}\n" for name, value in sorted(digests.items())).encode()


def _packed(names: Iterable[str], digests: dict[str, str], gone: bytes, listed: bytes) -> bytes:
    """A tar of these files, with the two lists. A file's time follows from its digest: Python knows compiled
    modules by the time and the size of their source."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in names:
            path = clone() / name
            entry = tarfile.TarInfo(f"{Path(CODE).name}/{name}")
            entry.mode, entry.mtime = path.stat().st_mode & 0o777, int(digests[name][:7], 16)
            data = path.read_bytes()
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        for place, data in ((_GONE, gone), (f"{_FILES}.new", listed)):
            entry = tarfile.TarInfo(Path(place).name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
