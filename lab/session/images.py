"""The images of a plan, and `freezelab image` (build, list, remove)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from lab.core.depth import Depth
from lab.core.depth_needs import obstacle
from lab.core.plan import Cell, GuestSpec, Plan
from lab.core.units import format_size
from lab.errors import Refused, UsageError
from lab.hypervisor.accelerators import KVM_DEVICE
from lab.image.build import Progress
from lab.image.golden import GoldenStore
from lab.image.store import Image, ImageStore, default_cache
from lab.process.requirements import check_programs
from lab.session import image_survey, paths


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

    for cell in plan.parts:
        for guest in cell.guests:
            check_image(guest, found.get(guest.image_key))
    return {key: image or build(wanted[key]) for key, image in found.items()}


def check_image(spec: GuestSpec, image: Image | None) -> None:
    """UsageError when a guest asks for what its image does not allow."""
    if image is None or not image.imported:
        return
    if spec.kernel_options:
        what = f"image {image.name} boots by its own boot loader: kernel_options cannot be set"
        raise UsageError(what, where=f"guest {spec.name}", hint="set them in the disk before it is imported")


def check_cell(cell: Cell, spec: GuestSpec, image: Image) -> None:
    """Refused when a guest of this image cannot do what the cell asks of it, as far as is known."""
    if not image.imported:
        return
    why = obstacle(image.depth, cell, spec)
    if not why and (lacking := image_survey.lacking(image, cell.resync)):
        why = f"{cell.resync} needs {lacking}, which image {image.name} does not have"
    if why:
        raise Refused(why, where=f"guest {spec.name}", hint="docs/images.md, What works without what")


def check_images(cell: Cell, images: Mapping[str, Image]) -> None:
    """See check_cell; for all guests of the cell. images: by GuestSpec.image_key."""
    for spec in cell.guests:
        if not spec.is_own and spec.image_key in images:
            check_cell(cell, spec, images[spec.image_key])


def proof_kernel(images: Iterable[Image], progress: Progress) -> Path:
    """A kernel with which KVM can be tried: that of an image whose guests are given one, this machine's, or
    the shipped image's, which is built for it."""
    for image in images:
        if image.kernel is not None:
            return image.kernel
    store = _store()
    if (shipped := store.find(SHIPPED)) is not None and shipped.kernel is not None:
        return shipped.kernel
    own = Path(f"/boot/vmlinuz-{os.uname().release}")
    if os.access(own, os.R_OK) or not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return own  # without KVM no kernel is tried
    return store.build(SHIPPED, progress).kernel or own


def build(name: str, progress: Callable[[], AbstractContextManager[Progress]], *, force: bool) -> str:
    """Build an image, with `progress` if it has to be built; the result is its path in a sentence."""
    store = _store()
    there = None if force else store.find(name)
    if there is not None:
        return f"{there.label} is built already: {there.folder}"
    with progress() as shown:
        made = store.build(name, shown, force=force)
    return f"{made.label}: {made.folder}"


SHIPPED = "debian"
HEADS = ("image", "size", "state", "folder")


def listing() -> Iterator[tuple[str, ...]]:
    """A row for each image and golden guest, built or not, with the columns HEADS."""
    store = _store()
    built = store.listing()
    for one in built:
        state = "current" if one.current else "of an older recipe"
        if one.image.imported:
            state = f"imported, {'UEFI' if one.image.firmware else 'BIOS'}"
            state += f", by {one.image.depth}" if one.image.depth in (Depth.SHELL, Depth.AGENT) else ""
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
