"""A guest whose disk image cannot grow: QEMU has paused it, and it is told so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.driver.kernels import filling_its_disk
from tests.driver.programs import ROOT, source_of
from tests.mounts import need_namespaces

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system"),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="qemu is not installed"),
]

BODY = """
    import time
    from lab.core.method import FreezeMethod
    from lab.errors import GuestGone
    from lab.hypervisor.domain import Accelerator, Disk
    from tests.driver.conftest import spec_of
    emulator = lab.emulator(Accelerator.TCG)
    spec = dataclasses.replace(
        spec_of("web-0", home), emulator=emulator.path, machine=emulator.machine,
        kernel=None, disk=Disk(home / "small" / "disk.qcow2"), ssh_port=0,
    )
    lab.define_and_start(spec)
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            lab.look("web-0")
            time.sleep(0.05)
        print("nothing was told; it is", lab.state("web-0"))
    except GuestGone as gone:
        print(gone, gone.ended, sep=chr(10))
    finally:
        lab.destroy("web-0")
"""


def test_a_guest_that_qemu_has_paused_for_its_full_disk_is_told(home: Path) -> None:
    need_namespaces()
    (home / "first.raw").write_bytes(filling_its_disk())
    small = home / "small"
    small.mkdir()
    script = (
        f"mount -t tmpfs -o size=2m small {small} && "
        f"qemu-img create -q -f qcow2 -b {home}/first.raw -F raw {small}/disk.qcow2 64M && "
        f"exec {sys.executable} -"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        input=source_of(home, BODY), cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    why = f"its disk image cannot be written: {small}/disk.qcow2: no space left on the device"
    assert done.stdout.splitlines() == [
        f"guest web-0: QEMU has paused it: {why}",
        "free some space there, or put FREEZELAB_HOME elsewhere",
        "True",
    ]
