"""A recipe: what an image is made of, as data, and the digest that names the result.

    recipe.toml   about, suite, packages, exclude, enable, cmdline, disk_size, build_space; or extends and
                  without
    files/        laid over the root file system (root's, 0644, or 0755 for executables); NAME.symlink is the
                  symbolic link NAME to the path that it contains, because a wheel cannot contain links
    hooks/        POSIX sh, run in order on the finished system with its root as $1
    README.md     about it; the only file that the image does not hang on

With `extends`, the name of a shipped recipe or the path of a folder, a recipe adds its packages and exclude
to those of another, but for those packages that it is `without`; its other keys replace the other's. The
other's files, hooks and enable come first, then its own. Packages may be added to any recipe, which makes one
more.

The digest covers all other files and FORMAT, so that any change to them makes another image.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import tarfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab.core.units import parse_size
from lab.errors import ImageError

# Raise it when the code that builds changes what is built.
FORMAT = 1

_LINK = ".symlink"

_KEYS = {
    *("about", "suite", "packages", "exclude", "enable", "cmdline", "disk_size", "build_space"),
    *("extends", "without"),
}
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")
_MOST_NAME = 60


@dataclass(frozen=True)
class RecipeLayer:
    """A folder of a recipe. enable: units of systemd that start at boot."""

    folder: Path
    enable: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """What an image is made of. layers: the folders, that of what is extended first."""

    name: str
    layers: tuple[RecipeLayer, ...]
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

    def with_packages(self, more: Sequence[str]) -> Recipe:
        """The recipe with these packages as well; itself, if it has them."""
        new = tuple(sorted({*more} - {*self.packages}))
        if not new:
            return self
        digest = hashlib.sha256(f"freezelab image {self.digest} with {' '.join(new)}\n".encode())
        # Without +, which separates the names of folders that are being built (lab.image.store).
        name = f"{self.name}-with-{'-'.join(new)}".replace("+", "_")[:_MOST_NAME].rstrip("._-")
        packages = (*self.packages, *new)
        return replace(self, name=name, digest=digest.hexdigest(), packages=packages)


def recipe_names(recipes: Path) -> list[str]:
    """The recipes below `recipes`."""
    return sorted(path.parent.name for path in recipes.glob("*/recipe.toml"))


def load_recipe(folder: Path, recipes: Path | None = None) -> Recipe:
    """ImageError when the recipe cannot be read or says nonsense. recipes: where the names are that it may
    extend; None: beside it."""
    return _load(folder, recipes or folder.parent, ())


def _load(folder: Path, recipes: Path, extending: tuple[Path, ...]) -> Recipe:
    """extending: the folders that extend this one, by way of each other."""
    path = folder / "recipe.toml"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        digest = folder_digest(folder)
        name = folder.resolve().name
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ImageError(f"the recipe cannot be read: {error}", where=str(path)) from error
    if unknown := sorted(set(data) - _KEYS):
        raise ImageError(f"unknown keys: {', '.join(unknown)}", where=str(path))
    if not _NAME.fullmatch(name):
        hint = "use small letters, digits, '.', '_' and '-'"
        raise ImageError(f"an image cannot be named {name!r}", where=str(folder), hint=hint)
    base = _base(data, path, recipes, (*extending, folder.resolve())) if "extends" in data else None
    layer = RecipeLayer(folder, _texts(data, "enable", path))

    def text(key: str) -> str:
        return str(getattr(base, key)) if base and key not in data else _text(data, key, path)

    def size(key: str, attribute: str) -> int:
        return int(getattr(base, attribute)) if base and key not in data else _size(data, key, path)

    return Recipe(
        name=name,
        layers=(*(base.layers if base else ()), layer),
        digest=hashlib.sha256(f"{base.digest} {digest}\n".encode()).hexdigest() if base else digest,
        about=text("about"),
        suite=text("suite"),
        packages=_added(
            _inherited(base, _texts(data, "without", path), path), _texts(data, "packages", path)
        ),
        exclude=_added(base.exclude if base else (), _texts(data, "exclude", path)),
        cmdline=text("cmdline"),
        disk_bytes=size("disk_size", "disk_bytes"),
        build_bytes=size("build_space", "build_bytes"),
    )


def _base(data: dict[str, Any], path: Path, recipes: Path, extending: tuple[Path, ...]) -> Recipe:
    """The recipe that this one extends."""
    written = _text(data, "extends", path)
    folder = path.parent / written if "/" in written else recipes / written
    if not (folder / "recipe.toml").is_file():
        known = ", ".join(recipe_names(recipes)) or "none"
        hint = f"known: {known}; or a path like ../other"
        raise ImageError(f"it extends {written!r}, which is no recipe", where=str(path), hint=hint)
    if folder.resolve() in extending:
        raise ImageError(f"it extends itself, by way of {written!r}", where=str(path))
    return _load(folder, recipes, extending)


def _inherited(base: Recipe | None, without: tuple[str, ...], path: Path) -> tuple[str, ...]:
    """The packages of what is extended, without these."""
    there = base.packages if base else ()
    if unknown := sorted(set(without) - set(there)):
        what = f"it is without {', '.join(unknown)}, which what it extends does not have"
        raise ImageError(what, where=str(path), hint="delete it")
    return tuple(package for package in there if package not in without)


def _added(inherited: tuple[str, ...], own: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*inherited, *own)))


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


def hooks(folder: Path) -> list[str]:
    """The texts of a folder's hook scripts, in order."""
    try:
        return [path.read_text(encoding="utf-8") for path in sorted((folder / "hooks").glob("*.sh"))]
    except (OSError, UnicodeDecodeError) as error:
        raise ImageError(f"a hook cannot be read: {error}", where=str(folder)) from error
