"""The images on this machine: recipes on one side, built and imported images in the cache on the other.

    <cache>/images/<name>-<digest12>/   disk-*.img (raw, sparse), image.json; vmlinuz, initrd; or firmware.fd

Beside them are the folders and locks of lab.image.staging.

An image is current when its digest is its recipe's, or when it was imported: there is one of a name. A folder
without image.json is no image.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import json
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from lab.core.depth import Depth
from lab.errors import ImageError, UsageError
from lab.image import staging
from lab.image.build import MANIFEST, Progress, build, disk_full, remove_tree, sync, sync_tree
from lab.image.program import ProgramFailed, run
from lab.image.recipe import Recipe, load_recipe, recipe_names
from lab.process.runner import find

_FOR_GOLDEN = ("python3", "systemd", "eth0", "sshd")
"""What the program in a golden guest needs (guest/inside/clone_identity.py), by the survey's names."""


@dataclass(frozen=True)
class Image:
    """An image that guests can be made of. `disk` is shared and never written to: guests get overlays.

    kernel, initrd, cmdline: what is loaded; an imported image boots by its own boot loader and has none.
    firmware: what boots it; None: QEMU's BIOS. user: who logs in.
    """

    name: str
    digest: str
    folder: Path
    disk: Path
    disk_format: str
    kernel: Path | None
    initrd: Path | None
    cmdline: str
    info: dict[str, Any] = field(compare=False, repr=False)
    firmware: Path | None = None
    user: str = "root"

    @property
    def imported(self) -> bool:
        """Whether it is a disk of the user's own, which takes its identity from a NoCloud seed."""
        return self.kernel is None

    @property
    def depth(self) -> Depth:
        """What looks into its guests; AUTO if it is not known what they have."""
        if not self.imported:
            return Depth.PYTHON
        if self.info.get("probe") == Depth.AGENT:
            return Depth.AGENT
        if not self.survey:
            return Depth.AUTO
        return Depth.PYTHON if self.survey.get("python3") else Depth.SHELL

    @property
    def not_golden(self) -> str:
        """Why its guests cannot start from a golden state; "" if nothing is known against it."""
        if not self.imported:
            return ""
        if self.depth is Depth.AGENT:
            return "it is looked into by its agent alone"
        if not self.survey:
            return "it is not known what is in its image, which was imported with --no-try"
        return next((f"its image has no {what}" for what in _FOR_GOLDEN if not self.survey.get(what)), "")

    @property
    def has_agent(self) -> bool:
        """Whether a guest agent answers in its guests, as far as is known."""
        return not self.survey or "agent" in self.survey

    @property
    def survey(self) -> Mapping[str, str]:
        """What a guest of an imported image has (guest/survey.py); empty when none was booted."""
        return dict(self.info.get("guest") or {})

    @property
    def label(self) -> str:
        """The name of its folder: debian-0123456789ab."""
        return self.folder.name


@dataclass(frozen=True)
class Listed:
    """A line of `freezelab image list`. size_bytes: what it takes on the disk."""

    image: Image
    size_bytes: int
    current: bool


def default_cache() -> Path:
    """FREEZELAB_CACHE, else the user's cache folder."""
    if configured := os.environ.get("FREEZELAB_CACHE"):
        return Path(configured).expanduser().absolute()
    return platformdirs.user_cache_path("freezelab")


class ImageStore:
    """recipes: the folder images/ of the project. cache: default_cache(), or a test's own."""

    def __init__(self, recipes: Path, cache: Path) -> None:
        self.recipes = recipes
        self.images = cache / "images"

    def names(self) -> list[str]:
        """The images that can be built."""
        return recipe_names(self.recipes)

    def find(self, name: str, packages: Sequence[str] = ()) -> Image | None:
        """The current image of that name, or of the recipe in the folder that `name` is the path of (with a
        "/"), with these packages added. None when it is not built (or its recipe has changed since)."""
        if (imported := self._imported(name)) and name not in self.names():
            if packages:
                what = f"packages cannot be added to {name}, which was imported"
                raise UsageError(what, hint="install them in the disk before it is imported")
            return imported[-1]
        return self._built(self._recipe(name, packages))

    def add(self, name: str, progress: Progress, fill: Callable[[Path, int], None]) -> Image:
        """An imported image, in place of those of its name. fill: puts an image's files and its manifest into
        a folder, given a descriptor that its programs keep open. Nothing is left, and nothing changed, when
        it fails. UsageError for a name that a recipe has, or that is none."""
        if not _NAME.fullmatch(name):
            hint = "small letters, digits, dots and hyphens, at most 40 characters"
            raise UsageError(f"not a name for an image: {name!r}", hint=hint)
        if name in self.names():
            raise UsageError(f"{name} is the name of an image that is built", hint="choose another name")
        for folder in staging.remove_left(self.images):
            progress(f"removed {folder.name}, which a killed import or build has left", None)
        with staging.lock(self.images, name, progress) as lock:
            self._sweep(name)
            work = self._staging_folder(name)
            try:
                fill(work, lock)
                sync_tree(work)
                digest = load_image(work).digest
                final = self.images / f"{name}-{digest[:12]}"
                for old in self._imported(name):
                    self._retire(old.folder, name)
                work.rename(final)
                sync(self.images)
            except OSError as error:
                raise self._not_written(error) from error
            finally:
                self._sweep(name)
        return load_image(final)

    def _imported(self, name: str) -> list[Image]:
        found = []
        for manifest in self.images.glob(f"{name}-*/{MANIFEST}") if _NAME.fullmatch(name) else ():
            with contextlib.suppress(ImageError):
                found.append(load_image(manifest.parent))
        return [image for image in found if image.imported and image.name == name]

    def _staging_folder(self, name: str) -> Path:
        try:
            work = Path(tempfile.mkdtemp(prefix=staging.prefix(name), dir=self.images))
            work.chmod(0o755)
        except OSError as error:
            raise self._not_written(error) from error
        return work

    def _not_written(self, error: OSError) -> ImageError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return disk_full(self.images, 0)
        return ImageError(f"cannot be saved: {error.strerror}", where=str(self.images))

    def get(self, name: str) -> Image:
        """The current image of that name; ImageError says how to build it."""
        if image := self.find(name):
            return image
        raise ImageError(f"image {name} is not built", hint=f"freezelab image build {name}")

    def build(
        self, name: str, progress: Progress, force: bool = False, packages: Sequence[str] = ()
    ) -> Image:
        """Build what find() looks for, unless it is there. force: build it again all the same.

        Overlays over an image that was built again no longer open.
        """
        recipe = self._recipe(name, packages)
        wanted, name = name, recipe.name
        if not force and (image := self._built(recipe)):
            return image
        with staging.lock(self.images, name, progress) as lock:
            if not force and (image := self._built(recipe)):
                return image  # another process built it while this one waited
            self._sweep(name)
            final = self.images / f"{name}-{recipe.short_digest}"
            work = self._staging_folder(name)
            try:
                build(recipe, work, progress, source_of(wanted, packages), lock=lock)
                self._retire(final, name)
                work.rename(final)
                sync(self.images)
            finally:
                self._sweep(name)
            progress("done", 1.0)
        return load_image(final)

    def listing(self) -> list[Listed]:
        """All that is built, current or not, by name and age."""
        listed = []
        for image in self._all():
            size = sum(path.lstat().st_blocks * 512 for path in image.folder.iterdir())
            listed.append(Listed(image, size, image.imported or self._is_current(image)))
        return sorted(listed, key=lambda item: (item.image.name, str(item.image.info.get("built", ""))))

    def _all(self) -> Iterator[Image]:
        for manifest in sorted(self.images.glob(f"[!.]*/{MANIFEST}")):
            with contextlib.suppress(ImageError):
                yield load_image(manifest.parent)

    def remove(self, name_or_digest: str) -> list[Image]:
        """Remove all images of a name (with a "/": of a recipe's folder), or the one of a folder's name or
        digest (at least 6 digits)."""
        if "/" in name_or_digest:
            name_or_digest = Path(name_or_digest).resolve().name
        chosen = [item.image for item in self.listing() if _matches(item.image, name_or_digest)]
        if not chosen:
            built = sorted(
                {item.image.name for item in self.listing()} | {i.image.label for i in self.listing()}
            )
            raise _unknown(name_or_digest, built, "no built image")
        for image in chosen:
            with staging.lock(self.images, image.name, lambda _stage, _fraction: None):
                self._retire(image.folder, image.name)
                self._sweep(image.name)
        return chosen

    def _is_current(self, image: Image) -> bool:
        """Whether its recipe, where it was when the image was built, makes the same image now."""
        source = image.info.get("recipe") or {}
        try:
            recipe = self._recipe(str(source.get("name", image.name)), source.get("packages", ()))
        except (ImageError, UsageError):  # a broken recipe must not hide what is built
            return False
        return recipe.digest == image.digest

    def _recipe(self, name: str, packages: Sequence[str] = ()) -> Recipe:
        return self._plain_recipe(name).with_packages(packages)

    def _plain_recipe(self, name: str) -> Recipe:
        if "/" in name:
            folder = Path(name)
            if not (folder / "recipe.toml").is_file():
                base = "".join(self.names()[:1])
                hint = f'an image of your own is a folder with a recipe.toml, such as: extends = "{base}"'
                raise UsageError(f"no image folder {name}", hint=hint)
            return load_recipe(folder, self.recipes)
        names = self.names()
        if name not in names:
            known = names + [image.name for image in self._all() if image.imported]
            raise _unknown(name, known, "no image")
        return load_recipe(self.recipes / name)

    def _built(self, recipe: Recipe) -> Image | None:
        folder = self.images / f"{recipe.name}-{recipe.short_digest}"
        if not (folder / MANIFEST).is_file():
            return None
        image = load_image(folder)
        return image if image.digest == recipe.digest else None

    def _retire(self, folder: Path, name: str) -> None:
        """Move an image to where _sweep removes it, in one step, so that none is seen half removed."""
        if folder.exists():  # renamed without a new folder, for which a full disk has no room
            folder.rename(self.images / f"{staging.prefix(name)}{secrets.token_hex(4)}")

    def _sweep(self, name: str) -> None:
        """Remove what killed builds left. Only under the lock: then nobody works there."""
        for folder in self.images.iterdir():
            if folder.name.startswith(staging.prefix(name)):
                remove_tree(folder)


def source_of(name: str, packages: Sequence[str]) -> dict[str, Any]:
    """What image.json has of an image's recipe: its name or whole path, and the packages that were added."""
    return {"name": os.path.abspath(name) if "/" in name else name, "packages": list(packages)}  # noqa: PTH100


def overlay(image: Image, path: Path) -> Path:
    """A new qcow2 at `path` over the image's disk. What is there already is never overwritten."""
    if path.exists() or path.is_symlink():
        raise ImageError("there is a file already", where=str(path))
    qemu_img = find("qemu-img")
    base = ["-b", str(image.disk), "-F", image.disk_format]
    try:
        run([qemu_img, "create", "-q", "-f", "qcow2", *base, str(path)], timeout_s=60)
    except ProgramFailed as failure:
        if failure.disk_full:
            raise disk_full(path.parent, 1 << 20) from failure
        raise
    return path


def load_image(folder: Path) -> Image:
    """The image in a folder. ImageError when it is none, or a file of it is missing."""

    def there(key: str) -> Path | None:
        return folder / str(info[key]) if info.get(key) or not info.get("source") else None

    try:
        info = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        image = Image(
            name=str(info["name"]),
            digest=str(info["digest"]),
            folder=folder,
            disk=folder / str(info["disk"]),
            disk_format=str(info["disk_format"]),
            kernel=there("kernel"),
            initrd=there("initrd"),
            cmdline=str(info["cmdline"]),
            info=info,
            firmware=folder / str(info["firmware"]) if info.get("firmware") else None,
            user=str(info.get("user", "root")),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ImageError(f"not an image: {error}", where=str(folder), hint="remove that folder") from error
    for path in (image.disk, image.kernel, image.initrd, image.firmware):
        if path is not None and not path.is_file():
            raise ImageError(f"{path.name} is missing", where=str(folder), hint="remove that folder")
    return image


def _matches(image: Image, text: str) -> bool:
    return text in (image.name, image.label) or (
        re.fullmatch(r"[0-9a-f]{6,64}", text) is not None and image.digest.startswith(text)
    )


def _unknown(name: str, known: list[str], what: str) -> UsageError:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        hint = f"did you mean {close[0]}? known: {', '.join(known)}"
    else:
        hint = f"known: {', '.join(known) or 'none'}"
    return UsageError(f"{what} named {name!r}", hint=hint)


_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,38}[a-z0-9])?")
