"""A recipe: what an image is made of, as data, and the digest that names the result.

    recipe.toml   about, suite, packages, exclude, cmdline, disk_size, build_space
    files/        laid over the root file system (root's, 0644, or 0755 for executables); NAME.symlink is the
                  symbolic link NAME to the path that it contains, because a wheel cannot contain links
    hooks/        POSIX sh, run in order on the finished system with its root as $1
    README.md     about it; the only file that the image does not hang on

The digest covers all other files and FORMAT, so that any change to them makes another image.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.core.units import parse_size
from lab.errors import ImageError

# Raise it when the code that builds changes what is built.
FORMAT = 1

_LINK = ".symlink"

_KEYS = {"about", "suite", "packages", "exclude", "cmdline", "disk_size", "build_space"}


@dataclass(frozen=True)
class Recipe:
    """One folder below images/."""

    name: str
    folder: Path
    digest: str
    about: str
    suite: str
    packages: tuple[str, ...]
    exclude: tuple[str, ...]
    cmdline: str
    disk_bytes: int
    build_bytes: int

    @property
    def short_digest(self) -> str:
        return self.digest[:12]


def recipe_names(recipes: Path) -> list[str]:
    """The recipes below `recipes`."""
    return sorted(path.parent.name for path in recipes.glob("*/recipe.toml"))


def load_recipe(folder: Path) -> Recipe:
    """ImageError when the recipe cannot be read or says nonsense."""
    path = folder / "recipe.toml"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        digest = folder_digest(folder)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ImageError(f"the recipe cannot be read: {error}", where=str(path)) from error
    if unknown := sorted(set(data) - _KEYS):
        raise ImageError(f"unknown keys: {', '.join(unknown)}", where=str(path))
    return Recipe(
        name=folder.name,
        folder=folder,
        digest=digest,
        about=_text(data, "about", path),
        suite=_text(data, "suite", path),
        packages=_texts(data, "packages", path),
        exclude=_texts(data, "exclude", path),
        cmdline=_text(data, "cmdline", path),
        disk_bytes=_size(data, "disk_size", path),
        build_bytes=_size(data, "build_space", path),
    )


def _text(data: dict[str, Any], key: str, path: Path) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value:
        raise ImageError(f"{key} is missing or not a string", where=str(path))
    return value


def _texts(data: dict[str, Any], key: str, path: Path) -> tuple[str, ...]:
    value = data.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise ImageError(f"{key} is not a list of strings", where=str(path))
    return tuple(value)


def _size(data: dict[str, Any], key: str, path: Path) -> int:
    try:
        return parse_size(_text(data, key, path))
    except ValueError as error:
        raise ImageError(f"{key}: {error}", where=str(path)) from error


def _entries(folder: Path) -> list[tuple[str, Path]]:
    """(relative name, path) of all files and links below, sorted; editors' droppings and README left out."""
    found = []
    for root, folders, files in os.walk(folder):
        for name in [*files, *(f for f in folders if Path(root, f).is_symlink())]:
            path = Path(root, name)
            if not name.endswith(("~", ".swp")) and path != folder / "README.md":
                found.append((path.relative_to(folder).as_posix().removesuffix(_LINK), path))
    return sorted(found)


def _link_target(path: Path) -> str | None:
    """The target of a symbolic link, or of a file that stands for one; None for other files."""
    if path.is_symlink():
        return str(path.readlink())
    return path.read_text(encoding="utf-8").strip() if path.suffix == _LINK else None


def _mode(path: Path) -> int:
    """All that git keeps of a mode, so that a digest does not hang on the umask of a checkout."""
    return 0o755 if path.lstat().st_mode & stat.S_IXUSR else 0o644


def folder_digest(folder: Path) -> str:
    """sha256 over names, executable bits and contents of the files below, and FORMAT."""
    digest = hashlib.sha256(f"freezelab image format {FORMAT}\n".encode())
    for name, path in _entries(folder):
        target = _link_target(path)
        if target is not None:
            kind, content = "link", target.encode()
        else:
            kind, content = f"{_mode(path):o}", path.read_bytes()
        digest.update(f"{kind} {len(content)} {len(name.encode())} {name}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def overlay_tar(folder: Path) -> bytes:
    """files/ as a tar, root's and with plain modes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, path in _entries(folder):
            entry = tarfile.TarInfo(name)
            target = _link_target(path)
            if target is not None:
                entry.type, entry.linkname = tarfile.SYMTYPE, target
                tar.addfile(entry)
                continue
            content = path.read_bytes()
            entry.size, entry.mode = len(content), _mode(path)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def hooks(recipe: Recipe) -> list[str]:
    """The hook scripts' texts, in order."""
    try:
        return [path.read_text(encoding="utf-8") for path in sorted((recipe.folder / "hooks").glob("*.sh"))]
    except (OSError, UnicodeDecodeError) as error:
        raise ImageError(f"a hook cannot be read: {error}", where=str(recipe.folder)) from error
