"""QEMU binaries beside the system's: finds the fetched ones, and checks their versions and machine types.

    <cache>/emulators/<name>-<version>/    qemu-system-x86_64 (starts it), root/ (its packages, unpacked),
                                           emulator.json
    <cache>/emulators/.fetch-*/            a running fetch, or the rest of a killed one
    <cache>/emulators/.lock                held while one is fetched or removed

A folder without emulator.json is not an emulator. lab.host.emulators_fetch creates and removes emulators.
Nothing here changes the system's own QEMU.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.errors import MachineError
from lab.process.runner import Finished, run, which

PROGRAM = "qemu-system-x86_64"
MANIFEST = "emulator.json"

_ANSWER_S = 20.0
"""How long an emulator may take to answer; QEMU 7.2 and 10.0 take 0.03-0.1 s on an idle machine."""

_VERSION = re.compile(r"QEMU emulator version (\d+(?:\.\d+)+)(?: \(([^)\n]*)\))?")

_ASKED = ("qmp_capabilities", "qom-list-types", "query-machines", "quit")
"""QMP commands that check an emulator. libvirt sends qom-list-types too; it makes QEMU load all of its
modules, and a QEMU that finds another build's modules crashes."""


@dataclass(frozen=True)
class Package:
    """An unpacked package. size_bytes: the size of the downloaded archive."""

    name: str
    version: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Fetched:
    """An emulator in the store.

    name: the name given to `freezelab emulator fetch`. suite: the Debian suite. version: QEMU's, "10.0.2".
    build: the package's, "1:10.0.2+ds-2". size_bytes: on disk. fetched: when, UTC, ISO 8601.
    own_libraries: it uses its own shared libraries, because the system's do not fit.
    """

    folder: Path
    name: str
    suite: str
    version: str
    build: str
    size_bytes: int
    fetched: str
    own_libraries: bool
    packages: tuple[Package, ...]

    @property
    def path(self) -> Path:
        """The executable, also for libvirt's <emulator>."""
        return self.folder / PROGRAM

    @property
    def label(self) -> str:
        """The name of the emulator's folder: "backports-10.0.2+ds-2"."""
        return self.folder.name

    def is_called(self, text: str) -> bool:
        return text in (self.name, self.suite, self.label)

    def to_json(self) -> str:
        """The text of emulator.json: all fields but the folder."""
        values = {key: value for key, value in asdict(self).items() if key != "folder"}
        return json.dumps(values, indent=1) + "\n"


def store(cache: Path) -> Path:
    """The folder of all fetched emulators. cache: the lab's cache folder."""
    return cache / "emulators"


def listing(cache: Path) -> list[Fetched]:
    """All fetched emulators, by name, the newest version last. Folders that are not emulators are left
    out."""
    found = []
    for manifest in store(cache).glob(f"[!.]*/{MANIFEST}"):
        try:
            found.append(load(manifest.parent))
        except MachineError:
            continue
    return sorted(found, key=lambda one: (one.name, _order(one.version), one.fetched))


def load(folder: Path) -> Fetched:
    """The emulator in a folder of the store. MachineError when the folder does not contain one."""
    try:
        info: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        fetched = Fetched(
            folder=folder,
            name=str(info["name"]),
            suite=str(info["suite"]),
            version=str(info["version"]),
            build=str(info["build"]),
            size_bytes=int(info["size_bytes"]),
            fetched=str(info["fetched"]),
            own_libraries=bool(info["own_libraries"]),
            packages=tuple(Package(**each) for each in info["packages"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MachineError(
            f"not an emulator of the lab: {type(error).__name__}: {error}",
            where=str(folder),
            hint=f"rm -r {shlex.quote(str(folder))}",
        ) from error
    if not os.access(fetched.path, os.X_OK):
        raise MachineError(
            f"{PROGRAM} is missing", where=str(folder), hint=f"rm -r {shlex.quote(str(folder))}"
        )
    return fetched


def find(name_or_path: str, cache: Path) -> Path:
    """The path of the emulator that a playbook names: a path (with a "/"), or the newest fetched emulator
    with that name, suite or label. Starts nothing.

    MachineError when there is no such file, when it is not executable, or when no emulator of that name has
    been fetched; the hint says how to get it.
    """
    if "/" in name_or_path:
        path = Path(name_or_path).expanduser().absolute()
        _executable(path)
        return path
    fetched = [one for one in listing(cache) if one.is_called(name_or_path)]
    if not fetched:
        raise MachineError(
            f"no emulator named {name_or_path!r} has been fetched",
            hint=f"freezelab emulator fetch {shlex.quote(name_or_path)}, or use a path",
        )
    return max(fetched, key=lambda one: (_order(one.version), one.fetched)).path


def system() -> Path | None:
    """The path of the system's own emulator; None when there is none on PATH."""
    found = which(PROGRAM)
    return Path(found) if found else None


def version(path: Path | str) -> str:
    """The version that --version prints: "10.0.2 (Debian 1:10.0.2+ds-2)", or "10.0.2" without a builder's
    text. MachineError when the file is missing, cannot be run, fails, hangs, or is not QEMU."""
    path = Path(path)
    finished = _ask(path, [str(path), "--version"], "--version")
    match = _VERSION.search(finished.stdout)
    if match is None:
        raise MachineError(f"is no QEMU: --version printed {_quoted(finished.stdout)}", where=str(path))
    number, builder = match.groups()
    return f"{number} ({builder})" if builder else str(number)


def machines(path: Path | str) -> frozenset[str]:
    """The emulator's machine types with their aliases: {"pc-q35-7.2", "q35", …}. It is started with no
    machine and queried through QMP, with libvirt's own query for its types as well, so an emulator that
    passes works with libvirt.

    MachineError when it cannot be run, crashes, hangs, or gives an unexpected answer.
    """
    path = Path(path)
    what = "QMP"
    # QMP is on standard input, which run() leaves empty, so a shell redirects the file of commands to it.
    with tempfile.NamedTemporaryFile("w", prefix="freezelab-qmp-", suffix=".json") as questions:
        questions.writelines(json.dumps({"execute": command}) + "\n" for command in _ASKED)
        questions.flush()
        argv = [str(path), "-machine", "none", "-nodefaults", "-display", "none", "-qmp", "stdio"]
        shell = ["sh", "-c", 'questions=$1; shift; exec "$@" <"$questions"', "sh", questions.name]
        finished = _ask(path, [*shell, *argv], what)
    answers = _answers(finished.stdout)
    if len(answers) < len(_ASKED) - 1:
        raise MachineError(f"is no QEMU: to QMP it answered {_quoted(finished.stdout)}", where=str(path))
    known: set[str] = set()
    for machine in answers[_ASKED.index("query-machines")]:
        known.update(str(machine[key]) for key in ("name", "alias") if key in machine)
    return frozenset(known)


def _answers(text: str) -> list[Any]:
    """The commands' return values, in order, without the greeting and events. The list ends at the first
    error or invalid line."""
    answers = []
    for line in text.splitlines():
        try:
            message = json.loads(line)
        except ValueError:
            break
        if isinstance(message, dict) and "return" in message:
            answers.append(message["return"])
    wanted = _ASKED.index("query-machines")
    if len(answers) > wanted and not (
        isinstance(answers[wanted], list) and all(isinstance(one, dict) for one in answers[wanted])
    ):
        return answers[:wanted]
    return answers


def _ask(path: Path, argv: Sequence[str], what: str) -> Finished:
    """Run an emulator to its end. MachineError, with one line, when it fails in any way."""
    _executable(path)
    try:
        finished = run(argv, _ANSWER_S, check=False)
    except MachineError as error:  # not a binary for this machine, a script without #!
        raise MachineError(error.what, where=str(path)) from error
    if not finished.ok:
        last = f": {finished.last_line}" if finished.last_line else ""
        raise MachineError(f"does not answer to {what}: {finished.why}{last}", where=str(path))
    return finished


def _executable(path: Path) -> None:
    where = str(path)
    try:
        path.stat()
    except OSError as error:
        raise MachineError(f"no such emulator: {error.strerror}", where=where) from error
    if not path.is_file():
        raise MachineError("not a file, so no emulator", where=where)
    if not os.access(path, os.X_OK):
        raise MachineError("not executable", where=where, hint=f"chmod +x {shlex.quote(where)}")


def _order(number: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", number))


def _quoted(text: str) -> str:
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return repr(first[:60]) if first else "nothing"
