"""What is left on the machine when an installed wheel is removed."""

from __future__ import annotations

from pathlib import Path

from lab.image.store import default_cache
from lab.session.paths import home_path


def what_remains() -> list[Path]:
    """The folders of freezelab that exist: state, cache, and those in memory that the state folder uses."""
    home = home_path()
    links = (home / "libvirt" / "run", home / "ram")
    folders = [home, default_cache(), *(link.readlink() for link in links if link.is_symlink())]
    return [folder for folder in folders if folder.is_dir()]
