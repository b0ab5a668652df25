"""apt in a private folder: packages of another suite, without root and without changes to the system.

Lists, caches and the (empty) dpkg status are private; the sources are the machine's with another suite. Only
the section Acquire of the machine's configuration is kept (proxies, timeouts), so none of its hooks run.
Signatures are always checked, with the machine's keys.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from lab.errors import MachineError
from lab.host.emulators import Package
from lab.host.emulators_sources import Archive
from lab.process.runner import Finished, Stop, environment, run

_UPDATE_S = 600
_ASK_S = 60
_DOWNLOAD_S = 3600
_UNPACK_S = 300

_SETTINGS = (
    ("APT::Get::AllowUnauthenticated", "false"),
    ("APT::Get::Download-Only", "true"),
    ("APT::Get::List-Cleanup", "false"),
    ("Acquire::AllowInsecureRepositories", "false"),
    ("Acquire::AllowWeakRepositories", "false"),
    ("Acquire::AllowDowngradeToInsecureRepositories", "false"),
    ("Acquire::ForceHash", "SHA256"),
    ("Acquire::Languages", "none"),
    ("Acquire::Retries", "2"),
    ("Acquire::http::Timeout", "30"),
    ("Acquire::https::Timeout", "30"),
    ("Debug::NoLocking", "true"),
)

_NOT_FOR_APT = set('":\\')
"""apt.conf(5) cannot quote a quotation mark; with a colon or backslash, apt 2.6 finds no key."""

_UNREACHABLE = re.compile(
    r"temporary failure resolving|could not (?:resolve|connect)|unable to connect|timed out|timeout|"
    r"connection (?:refused|reset|failed)|network is unreachable|no route to host|cannot initiate",
    re.I,
)
_UNSIGNED = re.compile(
    r"NO_PUBKEY|is not signed|signatures? (?:couldn't|could not|were invalid)|EXPKEYSIG", re.I
)
_NO_SUITE = re.compile(r"does not have a Release file", re.I)
_FULL = re.compile(r"no space left|not enough free space|don't have enough free space", re.I)

_URI_LINE = re.compile(r"'[^']+' (\S+)_([^_\s]+)_\w+\.deb (\d+) SHA256:([0-9a-f]{64})")
"""A line of apt-get --print-uris (apt-get(8)): address, file, size, digest. The format is not documented."""


class Unreachable(MachineError):
    """The package archive does not answer."""


@dataclass(frozen=True)
class Offer:
    """A package of a suite. recommends_build: the packages that it recommends in exactly its own version."""

    version: str
    recommends_build: tuple[str, ...]


class PrivateApt:
    """apt for `suites` of the archive, of which the last is preferred, in the existing empty `folder`."""

    def __init__(self, folder: Path, archive: Archive, suites: Sequence[str]) -> None:
        """MachineError when apt cannot use a folder with this path."""
        if _NOT_FOR_APT & set(str(folder)):
            raise MachineError(
                'apt takes no folder with a colon, a backslash or a " in its path',
                where=str(folder),
                hint="set FREEZELAB_CACHE to another folder",
            )
        self._folder, self._suites = folder, tuple(suites)
        for name in ("lists/partial", "cache/archives/partial", "parts", "debs", "empty"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        (folder / "parts" / "lab.sources").write_text(
            "\n".join(archive.stanza(suite) for suite in suites), encoding="utf-8"
        )
        self._env = environment(LC_ALL="C", APT_CONFIG=str(folder / "apt.conf"))
        (folder / "apt.conf").write_text(self._configuration(), encoding="utf-8")

    def update(self) -> None:
        """Fetch the package lists. MachineError when there is no such suite or its signature cannot be
        checked; Unreachable when the archive does not answer."""
        self._apt(["update", "--error-on=any"], _UPDATE_S)

    def offer(self, package: str) -> Offer | None:
        """The package in the preferred suite that has it; None when no suite has it."""
        finished = self._run(["apt-cache", "--no-all-versions", "show", package], _ASK_S)
        version = re.search(r"^Version: (\S+)$", finished.stdout, re.MULTILINE)
        if not finished.ok or version is None:
            return None
        recommends = re.search(r"^Recommends: (.*)$", finished.stdout, re.MULTILINE)
        same = re.escape(version[1])
        names = re.findall(rf"(?:^|, )([a-z0-9.+-]+) \(= {same}\)", recommends[1]) if recommends else []
        return Offer(version[1], tuple(names))

    def packages(self, names: Sequence[str]) -> list[Package]:
        """These packages, without their dependencies."""
        return self._listed(["download", *names])

    def closure(self, names: Sequence[str]) -> list[Package]:
        """These packages and all of their dependencies, including the C library. MachineError when the suites
        lack one."""
        return self._listed(["--no-install-recommends", "install", *names])

    def download(self, packages: Sequence[Package]) -> list[Path]:
        """Download exactly these versions. Returns the files, which apt has verified by the signed lists."""
        exact = [f"{one.name}={one.version}" for one in packages]
        self._apt(["download", *exact], _DOWNLOAD_S)
        return sorted((self._folder / "debs").glob("*.deb"))

    def _listed(self, arguments: Sequence[str]) -> list[Package]:
        """The packages that an apt-get command would download."""
        found = []
        for line in self._apt(["--print-uris", *arguments], _ASK_S).stdout.splitlines():
            if line.startswith("'"):
                match = _URI_LINE.fullmatch(line.strip())
                if match is None:
                    raise MachineError(f"apt-get names a package in an unknown way: {line[:200]}")
                name, version, size, sha256 = match.groups()
                found.append(Package(name, unquote(version), sha256, int(size)))
        return found

    def _apt(self, arguments: Sequence[str], timeout_s: float) -> Finished:
        finished = self._run(["apt-get", "-q", "-y", "-t", self._suites[-1], *arguments], timeout_s)
        if not finished.ok:
            raise self._failure(finished)
        return finished

    def _run(self, argv: Sequence[str], timeout_s: float) -> Finished:
        # apt ends with this process, even after kill -9, because the next fetch removes its folder.
        bound = Stop(parent_death=signal.SIGKILL)
        return run(argv, timeout_s, check=False, env=self._env, cwd=self._folder / "debs", stop=bound)

    def _failure(self, finished: Finished) -> MachineError:
        suites = " and ".join(self._suites)
        text = f"{finished.stdout}\n{finished.stderr}"
        if finished.overran or _UNREACHABLE.search(text):
            return Unreachable(
                f"this machine's package archive does not answer for {suites}",
                hint="is the network up? apt-get update shows more",
            )
        if _UNSIGNED.search(text):
            return MachineError(
                f"the signature of {suites} cannot be checked",
                hint="this machine lacks its key: is the package debian-archive-keyring up to date?",
            )
        if _NO_SUITE.search(text):
            return MachineError(f"this machine's package archive has no suite {suites}")
        if _FULL.search(text):
            return MachineError(
                "the disk is full",
                where=str(self._folder),
                hint="set FREEZELAB_CACHE to another folder",
            )
        errors = [line for line in finished.stderr.splitlines() if line.startswith("E:")]
        return MachineError(f"apt-get failed for {suites}: {errors[0] if errors else finished.last_line}")

    def _configuration(self) -> str:
        """The text of an apt.conf that makes apt ignore the machine's own; apt.conf(5) has the order of
        files."""
        folder, none = self._folder, self._folder / "empty"
        dump = run(["apt-config", "dump"], _ASK_S).stdout
        acquire = [line for line in dump.splitlines() if line.startswith("Acquire::")]
        paths = {
            "Dir::State": folder,
            "Dir::State::lists": folder / "lists",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
            "Dir::Etc::main": none / "apt.conf",
            "Dir::Etc::parts": none,
            "Dir::Etc::sourcelist": none / "sources.list",
            "Dir::Etc::sourceparts": folder / "parts",
            "Dir::Etc::preferences": none / "preferences",
            "Dir::Etc::preferencesparts": none,
        }
        settings = [(key, str(path)) for key, path in paths.items()] + list(_SETTINGS)
        if os.geteuid() == 0:
            # apt would download as user _apt, who may not enter root's cache, and warn each time.
            settings.append(("APT::Sandbox::User", "root"))
        return "\n".join([*acquire, *(f'{key} "{value}";' for key, value in settings)]) + "\n"


def unpack(archives: Sequence[Path], root: Path) -> None:
    """Unpack packages' files below `root`, without running their scripts."""
    for archive in archives:
        run(["dpkg-deb", "--extract", str(archive), str(root)], _UNPACK_S)
