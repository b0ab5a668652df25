"""Building: packages to a tar, the tar to a tree, the tree to an ext4 image; kernel and initrd beside it.

The same programs run for root and for an ordinary user: mmdebstrap in mode root or unshare, then tar
and mke2fs, which an ordinary user runs under fakeroot so that the files in the image belong to root.
Nothing is mounted and nothing is left of a build that did not end: everything happens in a staging
folder beside the result, which is synced here and renamed by the store.
"""

from __future__ import annotations

import datetime as dt
import errno
import getpass
import json
import os
import re
import shlex
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.core.units import NS_PER_S
from lab.errors import ImageError, MachineError
from lab.image.program import ProgramFailed, run
from lab.image.recipe import FORMAT, Recipe, hooks, overlay_tar
from lab.process.runner import find

Progress = Callable[[str, float | None], None]

MANIFEST = "image.json"
_TIMEOUT_S = 1800.0
_MIB = 1 << 20
_NOT_FOR_APT = set('":\\')
"""Below a folder with one of them apt finds no key, or mmdebstrap does not start (seen with bookworm's)."""

_VALID = "Acquire::Check-Valid-Until"

# What mmdebstrap says, what to call it, and the share of the whole build that is over by then.
_STAGES = (
    ("running apt-get update", "reading package lists", 0.01),
    ("downloading packages", "downloading packages", 0.10),
    ("extracting archives", "unpacking the base system", 0.20),
    ("installing essential", "installing the base system", 0.25),
    ("installing remaining", "installing packages", 0.40),
    ("running --customize-hook", "configuring the system", 0.75),
    ("cleaning package lists", "tidying", 0.85),
    ("creating tarball", "packing", 0.86),
)


@dataclass(frozen=True)
class BuildTools:
    """Where the programs are, and how this user builds."""

    mmdebstrap: str
    mke2fs: str
    tar: str
    mode: str  # mmdebstrap's: root or unshare
    fakeroot: tuple[str, ...]
    isolate: tuple[str, ...]


def find_tools() -> BuildTools:
    """MachineError when this machine or user cannot build."""
    mmdebstrap = find("mmdebstrap")
    mke2fs, tar = find("mke2fs"), find("tar")
    if os.geteuid() == 0:
        # In mode root mmdebstrap mounts /proc, /sys and more where all can see it, and when it is stopped
        # it leaves them mounted. In namespaces of its own, killing the first process takes all away.
        # (Mode unshare makes such namespaces itself.)
        return BuildTools(mmdebstrap, mke2fs, tar, "root", (), _isolation())
    fakeroot = find("fakeroot")
    find("newuidmap")
    user = getpass.getuser()
    for path in (Path("/etc/subuid"), Path("/etc/subgid")):
        try:
            owners = {line.split(":")[0] for line in path.read_text(encoding="utf-8").splitlines()}
        except OSError:
            owners = set()
        if not owners & {user, str(os.getuid())}:
            raise MachineError(
                f"user {user} has no line in {path}, so mmdebstrap cannot build without root",
                hint=f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}",
            )
    return BuildTools(mmdebstrap, mke2fs, tar, "unshare", (fakeroot,), ())


def _isolation() -> tuple[str, ...]:
    """What goes before a program to give it namespaces of its own; nothing where the kernel gives none,
    as in a container or in a chroot whose root is no mount."""
    unshare = find("unshare")
    isolate = (unshare, "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--")
    try:
        run([*isolate, "true"], timeout_s=10)
    except ProgramFailed:
        return ()
    return isolate


def free_bytes(folder: Path) -> int:
    """What this user may still write below `folder`."""
    facts = os.statvfs(folder)
    return facts.f_bavail * facts.f_frsize


def disk_full(folder: Path, needed: int) -> ImageError:
    """The error for a full disk. needed: bytes, 0 if it is not known how many."""
    if os.statvfs(folder).f_favail:
        room = f"{free_bytes(folder) // _MIB} MiB are free"
        room = f"a build needs about {needed // _MIB} MiB, {room}" if needed else room
    else:
        room = "it can have no more files"
    return ImageError(
        f"no space left on {folder}: {room}",
        hint="make room there, or put the images elsewhere with FREEZELAB_CACHE=FOLDER",
    )


def check_space(folder: Path, needed: int) -> None:
    """ImageError when `folder` has too little room for a build."""
    if free_bytes(folder) < needed:
        raise disk_full(folder, needed)


def build(recipe: Recipe, staging: Path, progress: Progress, source: Mapping[str, Any], *, lock: int) -> None:
    """Fill `staging`, an empty folder, and sync it. source: where the recipe is, for image.json. lock: held
    open as long as any program works."""
    scratch = staging if os.geteuid() == 0 and not _NOT_FOR_APT & set(str(staging)) else _temporary()
    try:
        for folder in {staging, scratch}:
            check_space(folder, recipe.build_bytes)
        _build(recipe, staging, progress, source, scratch, lock)
        progress("writing to disk", 0.99)
        sync_tree(staging)
    except ProgramFailed as failure:
        if failure.disk_full:
            tight = min({staging, scratch}, key=free_bytes)
            raise disk_full(tight, recipe.build_bytes) from failure
        if failure.offline:
            raise ImageError(
                f"the packages cannot be fetched: {failure.lines[0]}",
                hint="check the network, http_proxy, or set FREEZELAB_MIRROR to a Debian mirror",
            ) from failure
        if failure.too_old:
            raise ImageError(
                f"the mirror's lists of {recipe.suite} are too old: {failure.too_old}",
                where=f"image {recipe.name}",
                hint="set FREEZELAB_MIRROR to another mirror; or, for one that stands still, "
                f'{_VALID} "false"; in /etc/apt/apt.conf.d',
            ) from failure
        if failure.no_package:
            what = f"{recipe.suite} has no package {failure.no_package}"
            raise ImageError(what, where=f"image {recipe.name}") from failure
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(staging, recipe.build_bytes) from error
        where = str(error.filename or staging)
        raise ImageError(f"the build failed: {error.strerror}", where=where) from error


def _temporary() -> Path:
    return Path(tempfile.gettempdir())


def _build(
    recipe: Recipe, staging: Path, progress: Progress, source: Mapping[str, Any], scratch: Path, lock: int
) -> None:
    started = time.monotonic_ns()
    tools = find_tools()
    work = staging / "work"
    work.mkdir()
    tarball, tree = work / "root.tar", work / "root"

    def on_line(line: str) -> None:
        for marker, stage, fraction in _STAGES:
            if marker in line:
                progress(stage, fraction)

    progress("preparing", 0.0)
    layers = [work / f"files-{number}.tar" for number in range(len(recipe.layers))]
    for tar, layer in zip(layers, recipe.layers, strict=True):
        tar.write_bytes(overlay_tar(layer.folder / "files"))
    env = {"INITRD": "No"}  # Debian's kernel package builds none; the recipe's hook builds its own
    if scratch == staging:
        env["TMPDIR"] = str(work)
    run(
        mmdebstrap_argv(recipe, tools, layers, tarball, os.environ.get("FREEZELAB_MIRROR"), _apt_options()),
        timeout_s=_TIMEOUT_S,
        on_line=on_line,
        env=env,
        open_descriptors=(lock,),
        # Outside namespaces of ours mmdebstrap must tidy up itself, which it does when asked to end.
        first=signal.SIGKILL if tools.isolate else signal.SIGTERM,
    )

    progress("unpacking", 0.90)
    tree.mkdir()
    # One fakeroot session must see both programs, so its memory of owners is carried in a file.
    owners = str(work / "owners")
    save = [*tools.fakeroot, "-s", owners, "--"] if tools.fakeroot else []
    load = [*tools.fakeroot, "-i", owners, "--"] if tools.fakeroot else []
    unpack = [tools.tar, "-C", str(tree), "--numeric-owner", "--exclude=./dev/*", "-xf", str(tarball)]
    run([*save, *unpack], timeout_s=_TIMEOUT_S, open_descriptors=(lock,))
    tarball.unlink()
    kernel_version = _boot_files(tree, staging)
    packages = installed_packages((tree / "var/lib/dpkg/status").read_text(encoding="utf-8"))

    progress("creating the disk", 0.95)
    # A name of its own for every build: an overlay over an image that was built again must fail
    # loudly (its backing file is gone), not read blocks that have moved.
    disk = staging / f"disk-{os.urandom(4).hex()}.img"
    with disk.open("xb") as file:
        file.truncate(recipe.disk_bytes)
    run([*load, *mke2fs_argv(tools, tree, disk)], timeout_s=_TIMEOUT_S, open_descriptors=(lock,))

    remove_tree(work)
    facts: dict[str, Any] = {
        "format": FORMAT,
        "name": recipe.name,
        "digest": recipe.digest,
        "recipe": dict(source),
        "about": recipe.about,
        "suite": recipe.suite,
        "disk": disk.name,
        "disk_format": "raw",
        "kernel": "vmlinuz",
        "initrd": "initrd",
        "kernel_version": kernel_version,
        "cmdline": recipe.cmdline,
        "packages": packages,
        "built": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "build_seconds": round((time.monotonic_ns() - started) / NS_PER_S, 1),
        "mode": tools.mode,
    }
    (staging / MANIFEST).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def mmdebstrap_argv(
    recipe: Recipe,
    tools: BuildTools,
    tars: Sequence[Path],
    tarball: Path,
    mirror: str | None,
    options: Sequence[str] = (),
) -> list[str]:
    """tars: the files of each of the recipe's layers. Without a mirror mmdebstrap takes Debian's own.
    options: lines of apt.conf."""
    argv = [
        *tools.isolate,
        tools.mmdebstrap,
        f"--mode={tools.mode}",
        "--variant=apt",
        "--format=tar",
        f"--include={','.join(recipe.packages)}",
        '--aptopt=Apt::Install-Recommends "false"',
        *(f"--aptopt={option}" for option in options),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.exclude),
        *(f"--customize-hook={text}" for text in _custom(recipe, tars)),
        recipe.suite,
        str(tarball),
    ]
    return [*argv, mirror] if mirror else argv


def _custom(recipe: Recipe, tars: Sequence[Path]) -> Iterator[str]:
    """What is done to the installed system, layer by layer."""
    for layer, tar in zip(recipe.layers, tars, strict=True):
        yield f"tar-in {shlex.quote(str(tar))} /"
        # The scripts' texts, not their paths: in mode unshare their folder need not be readable.
        yield from hooks(layer.folder)
        if layer.enable:
            yield f'chroot "$1" systemctl --quiet enable {shlex.join(layer.enable)}'


def _apt_options() -> list[str]:
    """What this machine's apt is told of how old a mirror's lists may be (apt.conf(5)): mmdebstrap does not
    read its configuration. A mirror that stands still, as snapshot.debian.org, needs it."""
    try:
        told: list[str] = []
        run(["apt-config", "dump", "--format", '%f "%v";%n', _VALID], timeout_s=10, on_line=told.append)
    except (ProgramFailed, MachineError):
        return []
    return [line.strip() for line in told if line.startswith(_VALID)]


def mke2fs_argv(tools: BuildTools, tree: Path, disk: Path) -> list[str]:
    """An ext4 that the guest need not finish by itself (no lazy initialisation in the background)."""
    options = "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0"
    return [
        *(tools.mke2fs, "-q", "-F", "-t", "ext4", "-m", "0", "-L", "freezelab"),
        *("-O", "^metadata_csum", "-J", "size=8", "-E", options, "-d", str(tree), str(disk)),
    ]


def _boot_files(tree: Path, staging: Path) -> str:
    """Move kernel and initrd out of the tree; the kernel's version."""
    kernels = sorted((tree / "boot").glob("vmlinuz-*"))
    initrd = tree / "boot" / "initrd"
    if len(kernels) != 1 or not initrd.is_file():
        found = f"{len(kernels)} kernels and {'an' if initrd.is_file() else 'no'} initrd"
        raise ImageError(f"the system has {found} in /boot; one of each is needed")
    version = kernels[0].name.removeprefix("vmlinuz-")
    shutil.copyfile(kernels[0], staging / "vmlinuz")
    shutil.copyfile(initrd, staging / "initrd")
    for path in (tree / "boot").iterdir():
        if path.is_file():
            path.unlink()
    return version


_FIELD = re.compile(r"^(Package|Version|Status): (.*)$", re.M)


def installed_packages(status: str) -> dict[str, str]:
    """Package versions from dpkg's status file."""
    versions = {}
    for paragraph in status.split("\n\n"):
        fields = dict(_FIELD.findall(paragraph))
        if fields.get("Status", "").endswith(" installed"):
            versions[fields["Package"]] = fields["Version"]
    return dict(sorted(versions.items()))


def remove_tree(folder: Path) -> None:
    """Remove a staging folder. Refuses while anything is mounted below: that would empty the mount too."""
    real = folder.resolve()
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        mounts = []
    for line in mounts:
        mount = line.split()[4]
        if Path(mount.encode().decode("unicode_escape")).is_relative_to(real):
            raise ImageError(f"something is still mounted below {folder}", hint=f"umount it: {mount}")
    shutil.rmtree(folder)


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """All files of a flat folder, then the folder itself, to stable storage."""
    for path in sorted(folder.iterdir()):
        sync(path)
    sync(folder)
