"""The chronyd of Debian's unstable suite in a guest of an older one: with the libraries that it was built
with, and in the place of the guest's own, whose unit starts it."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.guest.ssh import SSH
from lab.host.emulators_apt import PrivateApt, unpack
from lab.host.emulators_sources import read_archive
from lab.process.runner import run

SUITE = "sid"
INSIDE = "/opt/freezelab-chrony"
OWN = "/usr/sbin/chronyd"


def fetched(folder: Path) -> bytes:
    """A tar of chronyd, its libraries and their loader, from this machine's own mirror. MachineError when it
    does not have them."""
    work, root = folder / "apt", folder / "root"
    work.mkdir()
    apt = PrivateApt(work, read_archive(), (SUITE,))
    apt.update()
    # Of all that chrony depends on, libraries suffice: the rest is there for its package's scripts.
    wanted = [one for one in apt.closure(["chrony"]) if one.name.startswith("lib") or one.name == "chrony"]
    unpack(apt.download(wanted), root)
    loader = next(root.rglob("ld-linux-x86-64.so.2")).resolve()
    places = ":".join(str(path) for path in sorted({one.parent for one in root.rglob("lib*.so.*")}))
    program = next(root.rglob("sbin/chronyd"))
    listed = run([str(loader), "--library-path", places, "--list", str(program)], 10).stdout
    libraries = [Path(word) for word in listed.split() if word.startswith(str(root))]
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:gz") as packed:
        packed.add(program, "chronyd")
        packed.add(loader, "loader/chronyd")  # a process is called as its program's file, which is the loader
        for library in libraries:
            packed.add(library.resolve(), f"lib/{library.name}")
    shutil.rmtree(work)
    shutil.rmtree(root)
    return tar.getvalue()


@contextmanager
def in_place_of_its_own(ssh: SSH, packed: bytes) -> Iterator[None]:
    """The guest's chronyd is the one that was packed."""
    start = f'exec {INSIDE}/loader/chronyd --library-path {INSIDE}/lib {INSIDE}/chronyd "$@"'
    ssh.check(f"mkdir -p {INSIDE} && tar -xzf - -C {INSIDE}", stdin=packed)
    ssh.check(f"printf '#!/bin/sh\\n%s\\n' '{start}' >{INSIDE}/start && chmod 755 {INSIDE}/start")
    ssh.check(f"mount --bind {INSIDE}/start {OWN}")
    try:
        yield
    finally:
        ssh.check(f"umount {OWN}; rm -rf {INSIDE}")
