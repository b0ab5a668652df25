"""Building and keeping images, with stand-ins for mmdebstrap, mke2fs and qemu-img."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import lab.image.build as building
from lab.errors import ImageError, MachineError, UsageError
from lab.image.build import BuildTools, installed_packages, mmdebstrap_argv, remove_tree
from lab.image.recipe import load_recipe
from lab.image.store import ImageStore, default_cache, overlay

PROJECT = Path(__file__).resolve().parents[2]

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


def test_build_then_find(shop: Workshop) -> None:
    assert shop.store.names() == ["tiny"]
    assert shop.store.find("tiny") is None
    assert shop.store.listing() == []
    folder = shop.build()
    image = shop.store.get("tiny")
    assert image == shop.store.find("tiny")
    assert image.folder == folder == shop.store.images / f"tiny-{image.digest[:12]}"
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


def failure(shop: Workshop, force: bool = False) -> ImageError:
    with pytest.raises(ImageError) as caught:
        shop.build(force)
    return caught.value


def test_failing_program_is_quoted_and_leaves_nothing(shop: Workshop) -> None:
    shop.mmdebstrap('echo "E: something odd" >&2; exit 25')
    error = failure(shop)
    assert "mmdebstrap: exit status 25" in error.what
    assert "E: something odd" in error.what
    assert f"{shop.bin}/mmdebstrap --mode=root" in error.hint
    assert shop.left() == []


@pytest.mark.parametrize(
    "said",
    [
        "tar: write error: No space left on device",
        "E: You don't have enough free space in /var/cache/apt/archives/.",
    ],
)
def test_full_disk_while_a_program_works(shop: Workshop, said: str) -> None:
    noise = "; ".join(f"echo line {n}" for n in range(30))
    shop.mmdebstrap(f'echo "{said}"; {noise}; exit 1')
    error = failure(shop)
    assert error.what.startswith("no space left on ")
    assert "needs about 1 MiB" in error.what
    assert "\n" not in error.what
    assert shop.left() == []


def test_full_disk_in_mke2fs(shop: Workshop) -> None:
    shop.program("mke2fs", "#!/bin/sh\necho 'mke2fs: No space left on device while writing' >&2; exit 1\n")
    assert failure(shop).what.startswith("no space left on ")
    assert shop.left() == []


def test_full_disk_at_the_sync(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    monkeypatch.setattr(building, "sync_tree", full)
    assert failure(shop).what.startswith("no space left on ")
    assert shop.left() == []


def test_too_little_space_is_said_before_anything_is_done(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "free_bytes", lambda _folder: 1000)
    assert failure(shop).what.endswith("needs about 1 MiB, 0 MiB are free")
    assert shop.built() == 0
    assert shop.left() == []


def test_no_network(shop: Workshop) -> None:
    shop.mmdebstrap("echo 'W: Temporary failure resolving somewhere'; exit 100")
    error = failure(shop)
    assert "cannot be fetched" in error.what
    assert "http_proxy" in error.hint


def test_system_without_a_kernel(shop: Workshop) -> None:
    shop.mmdebstrap("mkdir -p x/boot && tar -C x -cf $tarball . && rm -r x && exit 0")
    assert "0 kernels and no initrd" in failure(shop).what
    assert shop.left() == []


def test_failed_forced_build_keeps_the_image(shop: Workshop) -> None:
    folder = shop.build()
    disk = shop.store.get("tiny").disk
    shop.mmdebstrap("exit 1")
    failure(shop, force=True)
    assert shop.store.get("tiny").disk == disk
    assert shop.left() == [folder.name]


def test_interrupt_ends_the_program_and_leaves_nothing(shop: Workshop, tmp_path: Path) -> None:
    mark = tmp_path / "ended"
    shop.mmdebstrap(
        f"trap 'echo >{mark}; kill $!; exit 1' TERM; echo 'I: downloading packages'; sleep 60 & wait"
    )

    def interrupt(stage: str, fraction: float | None) -> None:
        if stage == "downloading packages":
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        shop.store.build("tiny", interrupt)
    assert time.monotonic() - started < 15
    assert mark.exists()
    assert shop.left() == []


def _until(what: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_killed_builder_leaves_nothing_that_looks_finished(shop: Workshop, tmp_path: Path) -> None:
    """kill -9 while mmdebstrap works: its program ends too, and the next build sweeps up."""
    child_pid = tmp_path / "child"
    shop.mmdebstrap(f"echo $$ >{child_pid}.new; mv {child_pid}.new {child_pid}; exec sleep 60")
    script = f"""
import lab.image.build as building
from pathlib import Path
from lab.image.store import ImageStore
tools = building.BuildTools({str(shop.bin / "mmdebstrap")!r}, "mke2fs", "tar", "root", (), ())
building.find_tools = lambda: tools
ImageStore(Path({str(shop.recipes)!r}), Path({str(shop.cache)!r})).build("tiny", lambda stage, fraction: None)
"""
    builder = subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT)
    try:
        _until(child_pid.exists)
    finally:
        builder.send_signal(signal.SIGKILL)
        builder.wait()
    child = int(child_pid.read_text())
    _until(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text())
    assert shop.store.find("tiny") is None
    assert shop.store.listing() == []
    assert [name for name in shop.left() if not name.startswith(".build-tiny+")] == []
    assert shop.left() != []  # else this test proves nothing
    shop.mmdebstrap("")
    folder = shop.build()
    assert shop.left() == [folder.name]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as mounting does")
@pytest.mark.parametrize("how", ["exception", "kill -9"])
def test_stopped_build_as_root_leaves_no_mounts(tmp_path: Path, how: str) -> None:
    """mmdebstrap's mounts, in mode root, must go with it whatever ends it."""
    if not building.find_tools().isolate:
        pytest.skip("no namespaces to be had here, as in a chroot whose root is no mount")
    inside = tmp_path / "inside"
    inside.mkdir()
    script = f"""
import signal, sys
import lab.image.build as building
from lab.image.program import run
def stop(line):
    if {how!r} == "exception":
        raise KeyboardInterrupt
    print(line, flush=True)
mount = "trap '' TERM; mount -t tmpfs none {inside}; echo mounted; sleep 60"
run([*building.find_tools().isolate, "sh", "-c", mount], timeout_s=60, on_line=stop, first=signal.SIGKILL)
"""
    started = time.monotonic()
    builder = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with builder:
        try:
            assert builder.stdout is not None
            said = builder.stdout.readline()
        finally:
            builder.kill()
    assert said == ("" if how == "exception" else "mounted\n")
    _until(lambda: not any(str(inside) in _cmdline(pid) for pid in Path("/proc").glob("[0-9]*")))
    assert str(inside) not in Path("/proc/self/mounts").read_text()
    assert time.monotonic() - started < 30


def _cmdline(process: Path) -> str:
    try:
        return (process / "cmdline").read_text(errors="replace")
    except OSError:
        return ""


def test_second_builder_waits_and_finds_it_done(shop: Workshop) -> None:
    shop.build()
    shop.store.images.joinpath(".lock-tiny").touch()
    with shop.store.images.joinpath(".lock-tiny").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        folder = shop.store.get("tiny").folder
        hidden = folder.rename(folder.with_name(".hidden"))
        thread = threading.Thread(target=shop.build)
        thread.start()
        _until(lambda: ("waiting for another build of tiny", None) in shop.stages)
        hidden.rename(folder)
    thread.join(10)
    assert not thread.is_alive()
    assert shop.built() == 1


def test_cache_that_cannot_be_written(shop: Workshop) -> None:
    shop.cache.write_text("a file")
    error = failure(shop)
    assert "FREEZELAB_CACHE" in error.hint


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


def test_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name, **_: None)
    with pytest.raises(MachineError) as caught:
        building.find_tools()
    assert "apt-get install mmdebstrap" in caught.value.hint


def test_mirror_is_passed_on_only_when_given(shop: Workshop, tmp_path: Path) -> None:
    recipe = load_recipe(shop.recipes / "tiny")
    tools = building.find_tools()
    tarball = tmp_path / "root.tar"
    plain = mmdebstrap_argv(recipe, tools, tmp_path / "files.tar", tarball, None)
    assert plain[-2:] == ["none", str(tarball)]
    assert mmdebstrap_argv(recipe, tools, tmp_path / "files.tar", tarball, "file:/m")[-1] == "file:/m"
    assert "--include=one,two" in plain


def test_a_cache_of_any_name(shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    shop.mmdebstrap('printf %s "${TMPDIR:-}" >>"$BUILDS.tmpdir"; printf "%s\n" "$@" >>"$BUILDS.argv"')
    store = ImageStore(shop.recipes, tmp_path / "ü, it's 100%")
    image = store.build("tiny", shop.progress)
    overlay(image, tmp_path / "overlay")
    (hook,) = [
        line.split("=", 1)[1]
        for line in Path(f"{shop.builds}.argv").read_text().splitlines()
        if "tar-in" in line
    ]
    assert [word.rsplit("/", 1)[-1] for word in shlex.split(hook)] == ["tar-in", "files.tar", ""]
    assert Path(f"{shop.builds}.tmpdir").read_text().startswith(str(store.images))
    Path(f"{shop.builds}.tmpdir").unlink()
    monkeypatch.delenv("TMPDIR", raising=False)
    ImageStore(shop.recipes, tmp_path / 'a:b"c').build("tiny", shop.progress)
    assert Path(f"{shop.builds}.tmpdir").read_text() == "", "apt finds no key below such a folder"


def test_installed_packages_leaves_out_the_removed() -> None:
    status = (
        "Package: b\nStatus: install ok installed\nVersion: 2\n\n"
        "Package: a\nStatus: deinstall ok config-files\nVersion: 1\n"
    )
    assert installed_packages(status) == {"b": "2"}


def test_remove_tree_refuses_what_is_mounted() -> None:
    with pytest.raises(ImageError):
        remove_tree(Path("/"))


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FREEZELAB_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("FREEZELAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache() == tmp_path / "xdg" / "freezelab"


def test_manifest_is_readable(shop: Workshop) -> None:
    info = json.loads((shop.build() / "image.json").read_text())
    assert info["digest"] == shop.store.get("tiny").digest
