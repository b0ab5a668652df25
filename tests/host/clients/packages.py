"""Clients as Debian packages them, unpacked below the user's cache folder: nothing is installed, nothing of
theirs is changed. The first time they are downloaded (4 MB a suite), afterwards they are just there.

    <cache>/clients/<suite>-<digest>/    the files of all PACKAGES; packages.json says which versions
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lab.host.emulators_apt import PrivateApt, unpack
from lab.host.emulators_sources import Archive

CLIENTS = ("resource-agents", "cloud-init", "waagent")

_MODULES = (
    *("requests", "urllib3", "idna", "certifi", "chardet", "charset-normalizer"),
    *("yaml", "configobj", "six", "distro"),
)
"""Of all that the packages depend on, the Python modules that their readers of the service import."""

PACKAGES = (*CLIENTS, *(f"python3-{name}" for name in _MODULES))


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
        """A script under the system's Python, with the packages' modules and no others (-S)."""
        env = ("env", f"PYTHONPATH={self.modules}", "PYTHONDONTWRITEBYTECODE=1")
        return [*env, "/usr/bin/python3", "-S", str(script), *arguments]


def fetch(suite: str, archive: Archive, cache: Path) -> Clients:
    """MachineError: the archive does not have them; Unreachable when it does not answer."""
    digest = hashlib.sha256(" ".join(PACKAGES).encode()).hexdigest()[:8]
    shelf, final = cache / "clients", cache / "clients" / f"{suite}-{digest}"
    if not final.is_dir():
        shelf.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=shelf) as name:
            work, made = Path(name) / "apt", Path(name) / "made"
            work.mkdir()
            apt = PrivateApt(work, archive, [suite])
            apt.update()
            packages = apt.packages(PACKAGES)
            unpack(apt.download(packages), made)
            versions = {one.name: one.version for one in packages}
            (made / "packages.json").write_text(json.dumps(versions, indent=1), encoding="utf-8")
            made.chmod(0o755)
            try:
                made.rename(final)
            except OSError:
                if not final.is_dir():  # else another run was faster
                    raise
    return Clients(suite, final, json.loads((final / "packages.json").read_text("utf-8")))
