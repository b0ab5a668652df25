"""Reads this machine's package sources, and derives the source of another suite of the same archive.

Mirror, keys and transport are the machine's own: its entry for the main archive is used with another suite.
Both of apt's formats are read, deb822 (.sources) and one-line (.list); see sources.list(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.errors import MachineError, UsageError

_OPTIONS = {"signed-by": "Signed-By", "arch": "Architectures"}
"""The options of an entry that are kept. `trusted` and `allow-insecure` are not: signatures are always
checked."""

_SUITE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_MOVING = ("stable", "oldstable", "testing", "unstable", "sid")
_INSTEAD = "use the path of an emulator in the playbook: emulator: /path/to/qemu-system-x86_64"


@dataclass(frozen=True)
class SourceEntry:
    """A source of binary packages. signed_by, architectures: in apt's syntax, "" for apt's defaults.
    signed_by may be a whole key of several lines."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""
    architectures: str = ""

    def stanza(self, suite: str) -> str:
        """This source with another suite, component main only, as a stanza of a .sources file."""
        lines = ["Types: deb", f"URIs: {' '.join(self.uris)}", f"Suites: {suite}", "Components: main"]
        if self.signed_by:
            lines.append(f"Signed-By: {self.signed_by}")
        if self.architectures:
            lines.append(f"Architectures: {self.architectures}")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Archive:
    """The distribution's archive as this machine reaches it. codename: the running release's."""

    codename: str
    main: SourceEntry
    entries: tuple[SourceEntry, ...]

    def suite(self, name: str) -> str:
        """The suite that a name means: "backports" means the running release's backports. UsageError when the
        name cannot be a suite's."""
        if not _SUITE.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot be the name of a suite", hint=f"backports, or a suite: {self.codename}, …"
            )
        return f"{self.codename}-backports" if name == "backports" else name

    def stanza(self, suite: str) -> str:
        """The stanza for a suite, from the machine's entry for that suite or else from its main entry."""
        own = next((one for one in self.entries if suite in one.suites), self.main)
        return own.stanza(suite)

    def base(self, suite: str) -> str:
        """The suite on which an incomplete suite (such as backports) builds; a complete suite itself."""
        return suite.partition("-")[0]


def read_archive(etc_apt: Path = Path("/etc/apt"), os_release: Path = Path("/etc/os-release")) -> Archive:
    """This machine's archive. MachineError when it is not Debian, or apt has no entry for its release."""
    release = _fields(os_release)
    if release.get("ID") != "debian":
        name = release.get("PRETTY_NAME") or release.get("ID") or "this system"
        raise MachineError(f"an emulator can be fetched on Debian only; this is {name}", hint=_INSTEAD)
    codename = release.get("VERSION_CODENAME", "")
    if not _SUITE.fullmatch(codename):
        raise MachineError("no codename (VERSION_CODENAME)", where=str(os_release), hint=_INSTEAD)
    entries = tuple(read_entries(etc_apt))
    for wanted in ((codename,), _MOVING):
        fitting = [
            entry
            for entry in entries
            if "main" in entry.components and any(suite in wanted for suite in entry.suites)
        ]
        if fitting:
            return Archive(
                codename, max(fitting, key=lambda one: _likelihood(one, codename, entries)), entries
            )
    raise MachineError(f"no entry for {codename}'s component main", where=str(etc_apt), hint=_INSTEAD)


def _likelihood(entry: SourceEntry, codename: str, entries: tuple[SourceEntry, ...]) -> int:
    """How likely an entry is the distribution's own: other archives may have the same suite and component."""
    updated = {uri for one in entries if f"{codename}-updates" in one.suites for uri in one.uris}
    return (
        2 * bool(updated.intersection(entry.uris))
        + 2 * ("debian-archive-keyring" in entry.signed_by)
        + any(uri.rstrip("/").endswith("/debian") for uri in entry.uris)
    )


def read_entries(etc_apt: Path) -> Iterator[SourceEntry]:
    """All enabled entries for binary packages on a server, in apt's order of files. Unreadable files and
    lines that apt would refuse are left out; apt itself reports them when it is used."""
    parts = sorted((etc_apt / "sources.list.d").glob("*"))
    for path in [etc_apt / "sources.list", *parts]:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if path.suffix == ".sources":
            yield from _deb822(text)
        elif path.suffix == ".list":
            yield from _one_line(text)


def _deb822(text: str) -> Iterator[SourceEntry]:
    for paragraph in re.split(r"\n[ \t]*(?:\n[ \t]*)+", text.replace("\r\n", "\n")):
        fields: dict[str, str] = {}
        key = ""
        for line in paragraph.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t") and key:
                fields[key] += "\n" + line.rstrip()
            elif ":" in line:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.strip()
        if fields.get("enabled", "yes").lower() in ("no", "false", "0", "off", "without", "disable"):
            continue
        yield from _entry(
            fields.get("types", "").split(),
            fields.get("uris", "").split(),
            fields.get("suites", "").split(),
            fields.get("components", "").split(),
            {name: fields.get(key.lower(), "") for key, name in _FIELDS.items()},
        )


_FIELDS = {"Signed-By": "signed_by", "Architectures": "architectures"}


def _one_line(text: str) -> Iterator[SourceEntry]:
    for line in text.splitlines():
        match = re.fullmatch(
            r"(deb)\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)\s*(.*)", line.partition("#")[0].strip()
        )
        if match is None:
            continue
        kind, options, uri, suite, components = match.groups()
        given = dict(option.split("=", 1) for option in (options or "").split() if "=" in option)
        values = {
            _FIELDS[name]: given[key].replace(",", " " if key == "arch" else ",")
            for key, name in _OPTIONS.items()
            if key in given
        }
        yield from _entry([kind], [uri], [suite], components.split(), values)


def _entry(
    types: list[str], uris: list[str], suites: list[str], components: list[str], options: Mapping[str, str]
) -> Iterator[SourceEntry]:
    """Yield the entry, unless it is for source packages only, without components (flat), or on a disc."""
    reached = tuple(uri for uri in uris if not uri.startswith("cdrom:"))
    if "deb" in types and reached and components:
        yield SourceEntry(reached, tuple(suites), tuple(components), **options)


def _fields(os_release: Path) -> dict[str, str]:
    """The fields of os-release(5): lines of KEY=value, with or without quotes."""
    try:
        text = os_release.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}
