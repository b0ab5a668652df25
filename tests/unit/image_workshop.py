"""Image builds with stand-ins for mmdebstrap, mke2fs and qemu-img. `pytest_plugins` of a test module names it
for its fixture."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest

import lab.image.build as building
from lab.errors import ImageError
from lab.image.build import BuildTools
from lab.image.store import ImageStore

RECIPE = """
about = "a test's"
suite = "none"
packages = ["one", "two"]
exclude = ["/usr/share/doc/*"]
cmdline = "root=/dev/vda"
disk_size = "1MiB"
build_space = "1MiB"
"""

MMDEBSTRAP = """\
    #!/bin/sh
    # The tarball is the last argument but for a mirror.
    for tarball; do case $tarball in *.tar) break ;; esac; done
    echo "I: running apt-get update..."
    {trouble}
    root=$(TMPDIR=/tmp mktemp -d)
    mkdir -p $root/boot $root/var/lib/dpkg
    echo kernel >$root/boot/vmlinuz-6.1.0-test
    echo initrd >$root/boot/initrd
    echo map >$root/boot/System.map-6.1.0-test
    printf 'Package: one\\nStatus: install ok installed\\nVersion: 1:2-3\\n' >$root/var/lib/dpkg/status
    tar -C $root -cf "$tarball" .
    rm -rf $root
    echo built >>"$BUILDS"
    """


class Workshop:
    """A recipe, a cache, and programs that pretend."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.recipes, self.cache = folder / "bin", folder / "recipes", folder / "cache"
        self.builds = folder / "builds"
        self.bin.mkdir()
        (self.recipes / "tiny").mkdir(parents=True)
        (self.recipes / "tiny/recipe.toml").write_text(RECIPE)
        self.store = ImageStore(self.recipes, self.cache)
        self.stages: list[tuple[str, float | None]] = []
        self.mmdebstrap("")
        self.program("mke2fs", '#!/bin/sh\nfor disk; do :; done\necho "ext4 of" "$@" >"$disk"\n')
        self.program("qemu-img", '#!/bin/sh\nfor out; do :; done\necho "$@" >"$out"\n')

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(textwrap.dedent(text))
        path.chmod(0o755)

    def mmdebstrap(self, trouble: str) -> None:
        self.program("mmdebstrap", textwrap.dedent(MMDEBSTRAP).replace("{trouble}", trouble))

    def own_image(self, more: str = "") -> Path:
        """The folder of a recipe beside the shop that extends its recipe."""
        own = self.recipes.parent / "books/own"
        own.mkdir(parents=True)
        (own / "recipe.toml").write_text(f'extends = "tiny"\npackages = ["three"]\n{more}\n')
        return own

    def build(self, force: bool = False) -> Path:
        return self.store.build("tiny", self.progress, force).folder

    def progress(self, stage: str, fraction: float | None) -> None:
        self.stages.append((stage, fraction))

    def built(self) -> int:
        return len(self.builds.read_text().splitlines()) if self.builds.exists() else 0

    def left(self) -> list[str]:
        """Everything in the cache but locks."""
        return sorted(p.name for p in self.store.images.iterdir() if not p.name.startswith(".lock-"))


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    shop = Workshop(tmp_path)
    monkeypatch.setenv("PATH", f"{shop.bin}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("BUILDS", str(shop.builds))
    monkeypatch.delenv("FREEZELAB_MIRROR", raising=False)
    # The stand-ins make files of this user's: neither root nor fakeroot is needed.
    tools = BuildTools(str(shop.bin / "mmdebstrap"), str(shop.bin / "mke2fs"), "tar", "root", (), ())
    monkeypatch.setattr(building, "find_tools", lambda: tools)
    return shop


def failure(shop: Workshop, force: bool = False) -> ImageError:
    with pytest.raises(ImageError) as caught:
        shop.build(force)
    return caught.value
