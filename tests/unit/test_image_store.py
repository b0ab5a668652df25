"""Images that are built, found, kept and removed, with stand-ins for mmdebstrap, mke2fs and qemu-img."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.errors import ImageError, UsageError
from lab.image.store import default_cache, overlay
from tests.unit.image_workshop import Workshop

pytest_plugins = ["tests.unit.image_workshop"]


def test_build_then_find(shop: Workshop) -> None:
    assert shop.store.names() == ["tiny"]
    assert shop.store.find("tiny") is None
    assert shop.store.listing() == []
    folder = shop.build()
    image = shop.store.get("tiny")
    assert image == shop.store.find("tiny")
    assert image.folder == folder == shop.store.images / f"tiny-{image.digest[:12]}"
    assert image.kernel is not None
    assert image.initrd is not None
    assert image.kernel.read_text() == "kernel\n"
    assert image.initrd.read_text() == "initrd\n"
    assert (image.cmdline, image.disk_format) == ("root=/dev/vda", "raw")
    assert image.info["packages"] == {"one": "1:2-3"}
    assert image.info["kernel_version"] == "6.1.0-test"
    assert "metadata_csum" in image.disk.read_text()
    assert shop.left() == [folder.name]
    assert {p.name for p in folder.iterdir()} == {image.disk.name, "vmlinuz", "initrd", "image.json"}
    (listed,) = shop.store.listing()
    assert listed.current
    assert listed.image == image
    assert listed.size_bytes > 0


def test_progress_has_stages_and_ends(shop: Workshop) -> None:
    shop.build()
    assert shop.stages[0] == ("preparing", 0.0)
    assert ("reading package lists", 0.01) in shop.stages
    assert shop.stages[-1] == ("done", 1.0)
    fractions = [fraction for _, fraction in shop.stages if fraction is not None]
    assert fractions == sorted(fractions)


def test_build_is_done_once(shop: Workshop) -> None:
    assert shop.build() == shop.build()
    assert shop.built() == 1


def test_forced_build_gets_a_new_disk(shop: Workshop) -> None:
    """So that an overlay over the old one fails to open and never reads other blocks."""
    shop.build()
    first = shop.store.get("tiny").disk
    shop.build(force=True)
    assert shop.built() == 2
    assert shop.store.get("tiny").disk != first
    assert not first.exists()
    assert len(shop.left()) == 1


def test_changed_recipe_is_another_image(shop: Workshop) -> None:
    old = shop.build()
    with (shop.recipes / "tiny/recipe.toml").open("a") as file:
        file.write("# changed\n")
    assert shop.store.find("tiny") is None
    new = shop.build()
    assert old != new
    assert [(item.image.folder, item.current) for item in shop.store.listing()] == [(old, False), (new, True)]
    assert [image.folder for image in shop.store.remove(old.name)] == [old]
    assert shop.left() == [new.name]


def test_get_says_how_to_build(shop: Workshop) -> None:
    with pytest.raises(ImageError) as caught:
        shop.store.get("tiny")
    assert caught.value.hint == "freezelab image build tiny"


@pytest.mark.parametrize("name", ["tinny", "../tiny", "", "tiny/", "."])
def test_unknown_name(shop: Workshop, name: str) -> None:
    for call in (shop.store.get, shop.store.find, lambda n: shop.store.build(n, shop.progress)):
        with pytest.raises(UsageError) as caught:
            call(name)
        assert "tiny" in caught.value.hint
    if name == "tinny":
        assert "did you mean tiny?" in caught.value.hint


def test_remove(shop: Workshop) -> None:
    folder = shop.build()
    with pytest.raises(UsageError):
        shop.store.remove("other")
    with pytest.raises(UsageError):
        shop.store.remove("ab")  # too short for a digest
    digest = shop.store.get("tiny").digest
    assert [image.folder for image in shop.store.remove(digest[:8])] == [folder]
    assert shop.left() == []
    assert shop.store.find("tiny") is None


def test_folder_that_is_no_image(shop: Workshop) -> None:
    folder = shop.build()
    (folder / "image.json").write_text("{}")
    with pytest.raises(ImageError) as caught:
        shop.store.find("tiny")
    assert caught.value.where == str(folder)
    assert shop.store.listing() == []


def test_image_with_a_missing_kernel(shop: Workshop) -> None:
    folder = shop.build()
    (folder / "vmlinuz").unlink()
    with pytest.raises(ImageError) as caught:
        shop.store.get("tiny")
    assert "vmlinuz is missing" in caught.value.what


def test_overlay(shop: Workshop, tmp_path: Path) -> None:
    shop.build()
    image = shop.store.get("tiny")
    path = overlay(image, tmp_path / "web-0.qcow2")
    assert f"-f qcow2 -b {image.disk} -F raw" in path.read_text()
    before = path.read_text()
    with pytest.raises(ImageError) as caught:
        overlay(image, path)
    assert caught.value.where == str(path)
    assert path.read_text() == before


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FREEZELAB_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("FREEZELAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache() == tmp_path / "xdg" / "freezelab"


def test_manifest_is_readable(shop: Workshop) -> None:
    info = json.loads((shop.build() / "image.json").read_text())
    assert info["digest"] == shop.store.get("tiny").digest


def test_an_image_of_a_folder_is_built_found_listed_and_removed(shop: Workshop) -> None:
    shop.build()
    own = shop.own_image()
    image = shop.store.build(str(own), shop.progress)
    assert image.name == "own"
    assert shop.store.find(str(own)) == image
    assert shop.store.build(f"{own}/", shop.progress) == image
    assert shop.built() == 2
    assert [(one.image.name, one.current) for one in shop.store.listing()] == [("own", True), ("tiny", True)]
    (own / "files").mkdir()
    (own / "files/new").write_text("")
    assert shop.store.find(str(own)) is None
    assert [(one.image.name, one.current) for one in shop.store.listing()] == [("own", False), ("tiny", True)]
    assert shop.store.remove(f"{own}/") == [image]
    assert [one.image.name for one in shop.store.listing()] == ["tiny"]


def test_an_image_with_packages_is_another_one(shop: Workshop) -> None:
    plain = shop.store.build("tiny", shop.progress)
    more = shop.store.build("tiny", shop.progress, packages=("redis-server",))
    assert more.name == "tiny-with-redis-server"
    assert shop.store.find("tiny", ["redis-server"]) == more
    assert shop.store.find("tiny", ["two"]) == shop.store.find("tiny") == plain
    assert all(one.current for one in shop.store.listing())


def test_a_folder_without_a_recipe_is_refused(shop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no image folder") as caught:
        shop.store.find(f"{tmp_path}/nothing")
    assert caught.value.exit_code == 2


def test_an_image_whose_recipe_is_gone_is_listed_as_old(shop: Workshop) -> None:
    """A clone of another version has built it, in the same cache."""
    shop.build()
    (shop.recipes / "tiny").rename(shop.recipes / "other")
    (listed,) = shop.store.listing()
    assert not listed.current
    with pytest.raises(UsageError, match="no image named 'tiny'"):
        shop.store.find("tiny")
