"""Snapshots of a real QEMU's disk by the embedded driver, written back, and on a file system that is full."""

from __future__ import annotations

import hashlib
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
    import json
    import time
    from lab.errors import HypervisorError, Refused
    from lab.hypervisor import overlays, own_recovery
    from lab.hypervisor.own_lease import SCHEMA, OwnRecord
    from lab.hypervisor.domain import Accelerator, Disk
    from tests.driver.conftest import spec_of
    emulator = lab.emulator(Accelerator.TCG)
    spec = dataclasses.replace(
        spec_of("web-0", home), emulator=emulator.path, machine=emulator.machine,
        kernel=None, disk=Disk(home / "disk.qcow2"), ssh_port=0,
    )
    lab.define_and_start(spec)
    domain, small, mid = lab._context.domain("web-0")[0], home / "small", home / "mid"
    before = domain.XMLDesc(0)

    def shown(what):
        same = domain.XMLDesc(0) == before
        print(what, lab.state("web-0"), "same" if same else "another", len(overlays.left(domain, "web-0")))

    try:
        for _ in range(2):
            overlays.take(domain, "web-0", None, None)
            shown("taken")
            print([str(overlays.flatten(domain, "web-0")) == str([str(home / one)]) for one in (
                f"freezelab-{spec.uuid}-vda.qcow2",)])
            shown("flat")
        history = home / "events.jsonl"
        history.write_text('{"kind": "deadman", "guest": "web-0", "act": "resumed"}')
        overlays.take(domain, "web-0", None, None)
        pid = lab._context.process("web-0").pid
        record = OwnRecord(
            lab.uri, spec.uuid, "my-vm", "web-0", "killed", str(history), frozen="snapshot", pid=pid
        )
        (home / "own").mkdir()
        (home / "own" / "one.json").write_text(json.dumps({"schema": SCHEMA, **dataclasses.asdict(record)}))
        print(*own_recovery.resume_all(lab._context, ()))
        shown("recovered")
        for folder, memory in ((small, None), (None, small / "memory")):
            try:
                overlays.take(domain, "web-0", folder, memory)
            except HypervisorError as error:
                print(error.what.split(":")[0])
            shown("full")
        print(sorted(path.name for path in small.iterdir()))
        overlays.take(domain, "web-0", mid, None)
        end = time.monotonic() + 60
        while lab.state("web-0") != "paused" and time.monotonic() < end:
            time.sleep(0.02)
        shown("filled")
        overlays.flatten(domain, "web-0")
        shown("emptied")
        (home / f"freezelab-{spec.uuid}-vda.qcow2").write_bytes(b"")
        (home / f"freezelab-{spec.uuid}-memory.save").write_bytes(b"")
        try:
            overlays.check(domain, "web-0", None)
        except Refused as refused:
            print(refused.what.split(":")[0])
        print(len(overlays.undo(domain, "web-0")), overlays.check(domain, "web-0", None) == {home})
    finally:
        lab.destroy("web-0")
"""


def test_an_overlay_goes_back_into_its_own_disk_and_none_is_left_on_a_full_one(home: Path) -> None:
    need_namespaces()
    base = home / "first.raw"
    base.write_bytes(filling_its_disk())
    digest = hashlib.sha256(base.read_bytes()).hexdigest()
    disk = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw"]
    subprocess.run([*disk, str(home / "disk.qcow2"), "64M"], check=True)
    small, mid = home / "small", home / "mid"
    small.mkdir()
    mid.mkdir()
    script = (
        f"mount -t tmpfs -o size=64k small {small} && mount -t tmpfs -o size=2m mid {mid} && "
        f"head -c 60k /dev/zero >{small}/filled && exec {sys.executable} -"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        input=source_of(home, BODY), cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    turn = ["taken running another 1", "[True]", "flat running same 0"]
    dead = "domain my-vm runs again (it was in a snapshot by the killed run killed)"
    full = ["libvirt cannot take the snapshot", "full running same 0"]
    assert done.stdout.splitlines() == [
        *turn,
        *turn,
        dead,
        "recovered running same 0",
        *full,
        *full,
        "['filled']",
        "filled paused another 1",
        "emptied running same 0",
        "a file of an earlier snapshot is there",
        "2 True",
    ]
    assert hashlib.sha256(base.read_bytes()).hexdigest() == digest  # further down, and shared
