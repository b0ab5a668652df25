"""A lab host: a machine of the tests' own, with KVM and livepatch in its kernel and systemd as its init.

It is a Debian under QEMU, whose emulated CPU has SVM, so that kvm_amd loads in it. In it run those tests of
this folder that change a host's kernel or services. It takes some five minutes and 300 MB of packages, so it
is asked for by FREEZELAB_LAB_HOST=1.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PACKAGES = (
    "systemd-sysv,udev,dbus,kmod,gcc,make,linux-image-cloud-amd64,linux-headers-cloud-amd64,"
    "python3,python3-pytest,python3-psutil,python3-libvirt,libvirt-daemon-system"
)
TESTS = "tests/host/test_reload_kvm.py tests/host/test_livepatch.py tests/host/test_restart_libvirt.py"

UNIT = """
[Unit]
After=multi-user.target
[Service]
Type=oneshot
WorkingDirectory=/srv/work
Environment=FREEZELAB_EXPENDABLE=1 PYTHONDONTWRITEBYTECODE=1
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
ExecStartPre=/sbin/modprobe kvm_amd
ExecStart=/usr/bin/python3 -m pytest -c /dev/null --rootdir=/srv/work -p no:cacheprovider
ExecStopPost=/bin/systemctl --no-block poweroff
"""


@pytest.mark.timeout(1800)
def test_in_a_lab_host(tmp_path: Path) -> None:
    if os.environ.get("FREEZELAB_LAB_HOST") != "1":
        pytest.skip("minutes long: asked for by FREEZELAB_LAB_HOST=1")
    if os.geteuid() != 0:
        pytest.skip("only root can build it")
    for program in ("mmdebstrap", "mke2fs", "qemu-system-x86_64"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    tree, disk = tmp_path / "root", tmp_path / "disk"
    mirror = [os.environ["FREEZELAB_MIRROR"]] if os.environ.get("FREEZELAB_MIRROR") else []
    bare = ["--quiet", "--variant=minbase", "--aptopt=APT::Install-Recommends false"]
    subprocess.run(["mmdebstrap", *bare, f"--include={PACKAGES}", "bookworm", str(tree), *mirror], check=True)
    work = tree / "srv/work"  # not below /root: an ordinary user runs a part of it
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "lab", work / "lab", ignore=ignore)
    shutil.copytree(ROOT / "tests/host", work / "tests/host", ignore=ignore)
    units = tree / "etc/systemd/system"
    (units / "trial.service").write_text(
        UNIT.replace(
            "no:cacheprovider", f"no:cacheprovider --import-mode=importlib --color=no -q -rs {TESTS}"
        )
    )
    wants = units / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "trial.service").symlink_to("../trial.service")
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(disk), "4G"], check=True)
    kernel, initrd = next((tree / "boot").glob("vmlinuz-*")), next((tree / "boot").glob("initrd.img-*"))
    options = {
        "accel": "tcg,thread=multi",
        "cpu": "max,+svm,+npt",
        "smp": "2",
        "m": "2048",
        "nic": "none",
        "kernel": str(kernel),
        "initrd": str(initrd),
        "append": "root=/dev/vda rw console=ttyS0 quiet mitigations=off",
        "drive": f"file={disk},if=virtio,format=raw,cache=unsafe",
    }
    said = subprocess.run(
        ["qemu-system-x86_64", "-nographic", "-no-reboot"]
        + [word for name, value in options.items() for word in (f"-{name}", value)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=1200,
        check=False,
    ).stdout.decode("utf-8", "replace")
    shutil.rmtree(tree)
    disk.unlink()
    total = re.search(r"^(?:(\d+) failed, )?(\d+) passed(?:, (\d+) skipped)?", said, re.MULTILINE)
    assert total is not None, said[-4000:]
    assert total[1] is None, said[-8000:]
    # What tells why a host cannot is skipped where it can; the daemon in namespaces wants an emulator.
    reasons = set(re.findall(r"^SKIPPED \[\d+\] \S+?:\d+: (.*?)\s*$", said, re.MULTILINE))
    assert reasons <= {
        "KVM is there as modules",
        "this kernel can be patched live",
        "/usr/bin/qemu-system-x86_64 is not installed",
    }
