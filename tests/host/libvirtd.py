"""A real libvirtd for qemu:///system, in namespaces of its own, for a program that tries something on it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.image.store import ImageStore, default_cache
from lab.session.paths import RECIPES
from tests.mounts import need_namespaces

ROOT = Path(__file__).parents[2]

longer = pytest.mark.skipif(
    "FREEZELAB_CLOUD" not in os.environ,
    reason="takes a minute or two, or builds an image; FREEZELAB_CLOUD=1 has it",
)

# A /dev without kvm: libvirtd looks at every emulator before it starts a guest, and a KVM that is there but
# boots nothing costs it minutes.
INSIDE = """
set -e
for folder in /run /var/lib/libvirt /var/cache/libvirt /var/log/libvirt /etc/libvirt; do
    mkdir -p "$folder"
    mount -t tmpfs none "$folder"
done
mkdir /run/dev
for name in null zero full random urandom tty; do
    touch "/run/dev/$name"
    mount --bind "/dev/$name" "/run/dev/$name"
done
mkdir /run/dev/shm /run/dev/pts
mount --rbind /run/dev /dev
mount -t tmpfs none /dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 none /dev/pts
ln -s pts/ptmx /dev/ptmx
cat > /etc/libvirt/qemu.conf <<END
stdio_handler = "file"
security_driver = "none"
user = "root"
group = "root"
cgroup_controllers = []
namespaces = []
END
# Not exec: the shell is this namespace's init and reaps, or libvirt would wait for emulators long dead.
"$@"
exit $?
"""


def namespaced(program: str, *arguments: str, timeout_s: float = 280) -> dict[str, Any]:
    """What a program of this folder saw, which prints it as JSON."""
    if os.geteuid() != 0:
        pytest.skip("only root can make the namespaces")
    for needed in ("/usr/sbin/libvirtd", "/usr/bin/qemu-system-x86_64", "unshare"):
        if not shutil.which(needed):
            pytest.skip(f"{needed} is not installed")
    need_namespaces()
    ImageStore(RECIPES, default_cache()).build("debian", lambda *_: None)  # in there is no network to do so
    path = str(Path(__file__).with_name(program))
    apart = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", "--"]
    done = subprocess.run(
        [*apart, "sh", "-c", INSIDE, "inside", sys.executable, path, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout))
