"""Clients as Debian packages them, unpacked below the user's cache folder: nothing is installed, nothing of
theirs is changed. The first time they are downloaded (4 MB a suite, and 5 MB for a Python), afterwards they
are just there.

    <cache>/clients/<suite>-<digest>/    the files of some packages; packages.json says which versions
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.host.emulators_apt import PrivateApt, unpack
from lab.host.emulators_sources import Archive

CLIENTS = ("resource-agents", "cloud-init", "waagent", "amazon-ec2-utils")

_MODULES = (
    *("requests", "urllib3", "idna", "certifi", "chardet", "charset-normalizer"),
    *("yaml", "configobj", "six", "distro"),
)
"""Of all that the packages depend on, the Python modules that their readers of the service import."""

PYTHONS = {"bookworm": ("3.11", ("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib"))}
"""By suite, the Python that its clients need on a newer Debian: they import `crypt`, which 3.13 no longer
has. An older Debian runs the clients of a newer one, but not its Python."""


@dataclass(frozen=True)
class Clients:
    """The unpacked packages of one suite. versions: by package."""

    suite: str
    root: Path
    versions: dict[str, str]

    @property
    def modules(self) -> Path:
        return self.root / "usr/lib/python3/dist-packages"

    def python(self, script: Path, *arguments: str) -> list[str]:
        """A script under the suite's or the system's Python, with the packages' modules alone (-S)."""
        env = ("env", f"PYTHONPATH={self.modules}", "PYTHONDONTWRITEBYTECODE=1")
        version, _packages = PYTHONS.get(self.suite, ("", ()))
        python = self.root / f"usr/bin/python{version}" if version else Path("/usr/bin/python3")
        return [*env, str(python), "-S", str(script), *arguments]


def place(made: Path, final: Path) -> None:
    """Put a folder where others look for it, unless another run was faster."""
    try:
        made.rename(final)
    except OSError:
        if not final.is_dir():
            raise


def packages_of(suite: str) -> tuple[str, ...]:
    _version, python = PYTHONS.get(suite, ("", ()))
    return (*CLIENTS, *(f"python3-{name}" for name in _MODULES), *python)


def fetch(suite: str, archive: Archive, cache: Path) -> Clients:
    """MachineError: the archive does not have them; Unreachable when it does not answer."""
    root = unpacked(suite, packages_of(suite), archive, cache)
    return Clients(suite, root, json.loads((root / "packages.json").read_text("utf-8")))


def unpacked(
    suite: str, names: Sequence[str], archive: Archive, cache: Path, *, closure: bool = False
) -> Path:
    """The folder with the files of these packages of a suite; closure: and of all that they depend on.
    MachineError as with fetch()."""
    digest = hashlib.sha256(" ".join([*names, *["closure"] * closure]).encode()).hexdigest()[:8]
    shelf, final = cache / "clients", cache / "clients" / f"{suite}-{digest}"
    if not final.is_dir():
        shelf.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=shelf) as name:
            work, made = Path(name) / "apt", Path(name) / "made"
            work.mkdir()
            apt = PrivateApt(work, archive, [suite])
            apt.update()
            packages = apt.closure(names) if closure else apt.packages(names)
            unpack(apt.download(packages), made)
            versions = {one.name: one.version for one in packages}
            (made / "packages.json").write_text(json.dumps(versions, indent=1), encoding="utf-8")
            made.chmod(0o755)
            place(made, final)
    return final
