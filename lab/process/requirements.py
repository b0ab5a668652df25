"""Which of the needed packages (packages.txt) this machine lacks."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lab.errors import MachineError
from lab.process.packages import SystemPackage, how_to_get, listed
from lab.process.runner import quote, which


def needed(*, images: bool) -> list[SystemPackage]:
    """What shows whether it is there, of what is needed to run guests and, with `images`, to build images."""
    stages = {"run"} | ({"image"} if images else set())
    if images and os.geteuid() != 0:
        stages.add("user")
    return [package for package in listed() if package.stage in stages and package.label]


def missing(*, images: bool) -> list[SystemPackage]:
    """Those of needed() that are not there."""
    return [
        package
        for package in needed(images=images)
        if not (which(package.program) if package.program else package.has_files)
    ]


def advice(*, images: bool = True) -> str:
    """The command that installs all that is missing; "" when nothing is."""
    return how_to_get(missing(images=images))


def how_to_build() -> str:
    """How to install libvirt-python beside a wheel that was installed without its extra `guests`."""
    prefix = Path(sys.prefix)
    injects = (prefix / "pipx_metadata.json").is_file()
    install = "pipx inject freezelab" if injects else f"{quote([str(prefix / 'bin/pip')])} install"
    packages = how_to_get(package for package in listed() if package.stage == "install")
    return f"{packages}; {install} libvirt-python"


def check_programs(*, images: bool) -> None:
    """Check that the programs are there. MachineError names all that is missing and how to get it. Files are
    not checked: where libvirt has its own elsewhere, it finds them itself."""
    lacking = [package.program for package in missing(images=images) if package.program]
    if lacking:
        raise MachineError(f"not installed: {', '.join(lacking)}", hint=advice())
