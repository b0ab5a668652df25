"""What freezelab needs of a distribution, from packages.txt, and how to get it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_COMMANDS = {
    "apt": "apt-get install --no-install-recommends",
    "dnf": "dnf install --setopt=install_weak_deps=False",
}


@dataclass(frozen=True)
class SystemPackage:
    """A line of packages.txt. program: "" when files show that it is there, or nothing does. files: patterns
    from the root, of which one is enough. names: the packages by package manager, "apt" or "dnf"."""

    stage: str
    program: str
    files: tuple[str, ...]
    names: dict[str, tuple[str, ...]]
    purpose: str

    @property
    def label(self) -> str:
        """The program's or the file's name, without a folder."""
        return self.program or Path(self.files[0]).name if self.program or self.files else ""

    @property
    def has_files(self) -> bool:
        """Whether one of its files is there; true for a package without files."""
        return not self.files or any(any(Path("/").glob(pattern[1:])) for pattern in self.files)


@cache
def listed() -> tuple[SystemPackage, ...]:
    """All lines of packages.txt."""
    lines = Path(__file__).with_name("packages.txt").read_text(encoding="utf-8").splitlines()
    return tuple(_parsed(line) for line in lines if line and not line.startswith("#"))


def with_program(program: str) -> SystemPackage | None:
    """The line of a program; None when it has none."""
    return next((package for package in listed() if package.program == program), None)


def how_to_get(packages: Iterable[SystemPackage]) -> str:
    """A command that installs the packages, or their programs' and files' names where the distribution has
    neither apt-get nor dnf. "" for no packages."""
    wanted = list(packages)
    if not wanted:
        return ""
    manager = next((name for name, tool in (("apt", "apt-get"), ("dnf", "dnf")) if shutil.which(tool)), "")
    if not manager:
        return f"install what contains: {', '.join(dict.fromkeys(one.label for one in wanted if one.label))}"
    names = dict.fromkeys(name for package in wanted for name in package.names[manager])
    command = f"{_COMMANDS[manager]} {' '.join(names)}"
    return command if os.geteuid() == 0 else f"sudo {command}"


def _parsed(line: str) -> SystemPackage:
    stage, shown, apt, dnf, purpose = (column.strip() for column in line.split("|"))
    is_program = "/" not in shown
    names = {"apt": tuple(apt.split()), "dnf": tuple(dnf.split())}
    return SystemPackage(
        stage, shown if is_program else "", () if is_program else tuple(shown.split()), names, purpose
    )
