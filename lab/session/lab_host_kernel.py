"""The kernels in the lab host's image: one other than its first is taken out of the disk and booted."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from lab.errors import MachineError, UsageError
from lab.image.store import Image, default_cache
from lab.process import runner
from lab.session.paths import made

KERNELS = "/usr/lib/freezelab/kernels"
"""In the image: a folder for each kernel, by its release, with vmlinuz and initrd."""

NEWER = "labhost-newer"
"""The image with a third kernel."""

_READ_S = 60.0


def with_kernel(image: Image, release: str) -> Image:
    """The image with a kernel of `release`, such as 6.12: a whole release, or its first numbers. UsageError
    when the image has none."""
    known = _names(image)
    found = [name for name in known if name == release or name.startswith(f"{release}.")]
    if not found:
        other = "" if image.name == NEWER else f"; --image {NEWER} has another"
        raise UsageError(
            f"image {image.name} has no kernel {release!r}",
            where="--kernel",
            hint=f"known: {', '.join(known)}{other}",
        )
    name = found[-1]
    folder = made(default_cache() / "labhost") / f"kernel-{image.label}-{name}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            new = made(Path(work) / name)
            for file in ("vmlinuz", "initrd"):
                _debugfs(image, f"dump {KERNELS}/{name}/{file} {new}/{file}")
                if not (new / file).exists():
                    raise MachineError(f"kernel {name} has no {file}", where=f"image {image.label}")
            new.rename(folder)
    return replace(image, kernel=folder / "vmlinuz", initrd=folder / "initrd")


def _names(image: Image) -> list[str]:
    """The releases of its kernels, the lowest first."""
    rows = [line.split("/") for line in _debugfs(image, f"ls -p {KERNELS}").splitlines()]
    names = [row[5] for row in rows if len(row) > 5 and row[5] not in (".", "..")]
    return sorted(names, key=lambda name: [int(part) for part in name.split("-")[0].split("+")[0].split(".")])


def _debugfs(image: Image, request: str) -> str:
    return runner.run(["debugfs", "-R", request, str(image.disk)], _READ_S).stdout
