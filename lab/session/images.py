"""The images of a plan, and `freezelab image` (build, list, remove)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from lab.core.plan import GuestSpec, Plan
from lab.core.units import format_size
from lab.image.build import Progress
from lab.image.golden import GoldenStore
from lab.image.store import Image, ImageStore, default_cache
from lab.process.requirements import check_programs
from lab.session import paths


def _store() -> ImageStore:
    return ImageStore(paths.RECIPES, default_cache())


def images_for(plan: Plan, progress: Progress) -> dict[str, Image]:
    """The images of the plan's guests by GuestSpec.image_key, built if they do not exist yet."""
    store = _store()
    # All are looked for, and unknown names told, before the first is built.
    wanted = {guest.image_key: guest for cell in plan.parts for guest in cell.guests if not guest.is_own}
    found = {key: store.find(guest.image, guest.setup.packages) for key, guest in sorted(wanted.items())}
    check_programs(images=None in found.values())

    def build(guest: GuestSpec) -> Image:
        return store.build(guest.image, progress, packages=guest.setup.packages)

    return {key: image or build(wanted[key]) for key, image in found.items()}


def build(name: str, progress: Callable[[], AbstractContextManager[Progress]], *, force: bool) -> str:
    """Build an image, with `progress` if it has to be built; the result is its path in a sentence."""
    store = _store()
    there = None if force else store.find(name)
    if there is not None:
        return f"{there.label} is built already: {there.folder}"
    with progress() as shown:
        made = store.build(name, shown, force=force)
    return f"{made.label}: {made.folder}"


HEADS = ("image", "size", "state", "folder")


def listing() -> Iterator[tuple[str, ...]]:
    """A row for each image and golden guest, built or not, with the columns HEADS."""
    store = _store()
    built = store.listing()
    for one in built:
        state = "current" if one.current else "of an older recipe"
        yield one.image.label, format_size(one.size_bytes >> 20 << 20), state, str(one.image.folder)
    for golden in GoldenStore(default_cache()).listing():
        allocated, of = format_size(golden.allocated_bytes >> 20 << 20), format_size(golden.ram_bytes)
        yield golden.label, allocated, f"golden guest of {of}", str(golden.folder)
    for name in store.names():
        if not any(one.current and one.image.name == name for one in built):
            yield name, "", "not built", f"freezelab image build {name}"


def remove(which: str) -> Iterator[str]:
    """Remove images; a line for each."""
    for image in _store().remove(which):
        yield f"removed {image.label}"
        for label in GoldenStore(default_cache()).remove_of(image.digest):
            yield f"removed golden guest {label}"
