"""Builds of images that fail, are killed or wait for another one, and what the programs are told. The
programs are stand-ins."""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import lab.image.build as building
from lab.errors import ImageError, MachineError
from lab.image.build import installed_packages, mmdebstrap_argv, remove_tree
from lab.image.recipe import load_recipe
from lab.image.store import ImageStore, overlay
from lab.process import runner
from tests.unit.image_workshop import Workshop, failure

pytest_plugins = ["tests.unit.image_workshop"]

PROJECT = Path(__file__).resolve().parents[2]


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


def until(what: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


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
        until(child_pid.exists)
    finally:
        builder.send_signal(signal.SIGKILL)
        builder.wait()
    child = int(child_pid.read_text())
    until(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text())
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
    until(lambda: not any(str(inside) in _cmdline(pid) for pid in Path("/proc").glob("[0-9]*")))
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
        until(lambda: ("waiting for another build of tiny", None) in shop.stages)
        hidden.rename(folder)
    thread.join(10)
    assert not thread.is_alive()
    assert shop.built() == 1


def test_cache_that_cannot_be_written(shop: Workshop) -> None:
    shop.cache.write_text("a file")
    error = failure(shop)
    assert "FREEZELAB_CACHE" in error.hint


def test_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "which", lambda _name: None)
    with pytest.raises(MachineError) as caught:
        building.find_tools()
    assert caught.value.hint.endswith(" mmdebstrap")


def test_mirror_is_passed_on_only_when_given(shop: Workshop, tmp_path: Path) -> None:
    recipe = load_recipe(shop.recipes / "tiny")
    tools = building.find_tools()
    tarball = tmp_path / "root.tar"
    plain = mmdebstrap_argv(recipe, tools, [tmp_path / "files.tar"], tarball, None)
    assert plain[-2:] == ["none", str(tarball)]
    assert mmdebstrap_argv(recipe, tools, [tmp_path / "files.tar"], tarball, "file:/m")[-1] == "file:/m"
    assert "--include=one,two" in plain


def test_files_hooks_and_units_come_layer_by_layer(shop: Workshop) -> None:
    own = shop.own_image('enable = ["app", "db@1"]')
    (own / "files/etc").mkdir(parents=True)
    (own / "files/etc/app").write_text("")
    (own / "hooks").mkdir()
    (own / "hooks/50-own.sh").write_text("own hook")
    (shop.recipes / "tiny/hooks").mkdir()
    (shop.recipes / "tiny/hooks/90-base.sh").write_text("base hook")
    recipe = load_recipe(own, shop.recipes)
    argv = mmdebstrap_argv(
        recipe, building.find_tools(), [Path("/0.tar"), Path("/1.tar")], Path("/r.tar"), None
    )
    hooks = [word.partition("=")[2] for word in argv if word.startswith("--customize-hook=")]
    enabling = 'chroot "$1" systemctl --quiet enable app db@1'
    assert hooks == ["tar-in /0.tar /", "base hook", "tar-in /1.tar /", "own hook", enabling]
    assert "--include=one,two,three" in argv


def test_a_package_that_does_not_exist_is_named(shop: Workshop) -> None:
    shop.mmdebstrap('echo "E: Unable to locate package rediss" >&2; exit 25')
    assert failure(shop).what == "none has no package rediss"


def test_a_mirror_that_stands_still_is_named(shop: Workshop) -> None:
    shop.mmdebstrap(
        'echo "E: Release file for http://mirror/dists/none/InRelease is expired (invalid since 23d 18h). '
        'Updates for this repository will not be applied." >&2; exit 25'
    )
    error = failure(shop)
    assert error.what == "the mirror's lists of none are too old: invalid since 23d 18h"
    assert "FREEZELAB_MIRROR" in error.hint


def test_what_this_machine_says_of_old_lists_counts(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apt.conf").write_text('Acquire::Check-Valid-Until "false";\nAcquire::Retries "7";\n')
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    options = building._apt_options()
    assert options == ['Acquire::Check-Valid-Until "false";']
    recipe = load_recipe(shop.recipes / "tiny")
    argv = mmdebstrap_argv(recipe, building.find_tools(), [Path("/0.tar")], Path("/r.tar"), None, options)
    assert f"--aptopt={options[0]}" in argv


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
    assert [word.rsplit("/", 1)[-1] for word in shlex.split(hook)] == ["tar-in", "files-0.tar", ""]
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
