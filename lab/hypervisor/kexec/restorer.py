"""In a lab host: the next kernel and its initramfs, which continues the guest before the host boots; and how
kexec loads them."""

from __future__ import annotations

import lzma
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path

from lab.errors import Refused
from lab.hypervisor.kexec.vmlinux import vmlinux
from lab.process import runner

KERNELS = Path("/usr/lib/freezelab/kernels")

NEEDED = {
    "disk": ("virtio_pci", "virtio_blk"),
    "card": ("virtio_net", "macvtap"),
    "kvm": ("kvm_amd", "kvm_intel"),
    "memory": ("nd_pmem", "nd_e820"),
    "port": ("virtio_console",),
}
"""The modules that restore.sh loads, with those that they need, by what they are for."""

_LATER = ("qemu_fw_cfg", "autofs4", "ip_tables")
"""What the host's own initramfs loads for systemd."""

_APPLETS = "sh mount umount insmod ip udhcpc ln cat mkdir mkfifo sleep switch_root chroot"
_WORK = Path("/run/freezelab-kexec")

QUICK = (
    *("quiet", "audit=0", "apparmor=0", "cryptomgr.notests", "no_timer_check", "rodata=off", "panic=5"),
    "initcall_blacklist=jent_mod_init,load_system_certificate_list,init_encrypted,crypto_kdf108_init",
)
"""Kernel options for the time until the guest runs. rodata, initcall_blacklist: work that takes tenths of a
second on an emulated CPU and serves a lab host nothing. panic: a kernel that fails reboots the host."""

_BELOW = "0x3fffffff"
"""kexec puts what it loads below 1 GiB: the reserved memory begins at 4 GiB."""

_SIGNED = b"~Module signature appended~\n"
_SIGNATURE_HEAD = 12
"""struct module_signature (Linux, include/linux/module_signature.h); its last four bytes are the length."""

_LOAD_S = 120.0


def kernels() -> list[str]:
    """The releases of the kernels that the lab host has."""
    return sorted(path.name for path in KERNELS.glob("*") if (path / "vmlinuz").exists())


def kernel_of(release: str, known: Sequence[str]) -> str:
    """The kernel whose release begins so: 6.1 is 6.1.0-57, and not 6.12. Refused when there is none."""
    found = [name for name in known if name == release or name.startswith((f"{release}.", f"{release}-"))]
    if not found:
        raise Refused(f"it has no Linux {release}", where="lab host", hint=f"it has: {', '.join(known)}")
    return found[-1]


def modules_of(kernel: str, names: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The files of these modules and of those that they need, in the order of loading, without what is built
    in; and the names of those that the kernel does not have."""
    files: list[Path] = []
    lacking = []
    for name in names:
        shown = runner.run(["modprobe", "-S", kernel, "--show-depends", name], _LOAD_S, check=False)
        if not shown.ok:
            lacking.append(name)
        for line in shown.stdout.splitlines() if shown.ok else ():
            verb, path, *_ = line.split()
            if verb == "insmod" and Path(path) not in files:
                files.append(Path(path))
    return files, lacking


def of_this_cpu(names: Sequence[str]) -> list[str]:
    """The modules without KVM's for another make of CPU."""
    other = "kvm_intel" if " svm " in Path("/proc/cpuinfo").read_text(encoding="utf-8") else "kvm_amd"
    return [name for name in names if name != other]


def check(kernel: str) -> None:
    """Refused when the kernel lacks a module that a guest needs."""
    lacking = [name for names in NEEDED.values() for name in modules_of(kernel, of_this_cpu(names))[1]]
    if lacking:
        raise Refused(f"Linux {kernel} has no {', '.join(lacking)}", where="lab host")


def load(kernel: str) -> None:
    """Load the kernel and its initramfs, for kexec. The running kernel's options are kept: they reserve the
    memory."""
    shutil.rmtree(_WORK, ignore_errors=True)
    _WORK.mkdir()
    elf, initrd = _WORK / "vmlinux", _WORK / "initrd"
    _make_initrd(kernel, initrd)
    elf.write_bytes(vmlinux((KERNELS / kernel / "vmlinuz").read_bytes()))
    words = Path("/proc/cmdline").read_text(encoding="utf-8").split()
    words += [word for word in QUICK if word not in words]
    # -i: no checksum of what was loaded, which the CPU would compute while guests wait. -c: the old system
    # call; the new one takes no ELF file.
    runner.run(
        [
            *("kexec", "-c", "-i", "-t", "elf-x86_64", "--args-linux", "-l", str(elf), f"--initrd={initrd}"),
            *(f"--mem-max={_BELOW}", f"--append={' '.join(words)}"),
        ],
        _LOAD_S,
    )
    shutil.rmtree(_WORK)


def quick_module(data: bytes) -> bytes:
    """A module that loads faster: without its signature, which takes a digest of it all to check, and with
    its type information (BTF) under a name that the kernel does not look for."""
    end = data.rfind(_SIGNED)
    if end == len(data) - len(_SIGNED):
        (length,) = struct.unpack(">I", data[end - 4 : end])
        data = data[: end - _SIGNATURE_HEAD - length]
    return data.replace(b"\0.BTF\0", b"\0.btf\0")


def _make_initrd(kernel: str, target: Path) -> None:
    root = _WORK / "root"
    for name in ("bin", "modules", "restore", "dev", "proc", "sys", "run", "root"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for applet in _APPLETS.split():
        (root / "bin" / applet).symlink_to("busybox")
    shutil.copy(Path(__file__).parent / "restore.sh", root / "init")
    (root / "init").chmod(0o755)
    shutil.copy("/usr/lib/freezelab/dhcp", root / "dhcp")
    there = set[str]()
    for group, names in {**NEEDED, "later": _LATER}.items():
        order = []
        for file in modules_of(kernel, of_this_cpu(names))[0]:
            name = file.name.removesuffix(".xz")
            if name in there:
                continue
            there.add(name)
            order.append(f"{name}\n")
            data = file.read_bytes()
            data = lzma.decompress(data) if file.suffix == ".xz" else data
            (root / "modules" / name).write_bytes(quick_module(data))
        (root / "restore" / group).write_text("".join(order), encoding="ascii")
    pack = f"cd {root} && find . | sort | busybox cpio -o -H newc >{target}"
    runner.run(["sh", "-c", pack], _LOAD_S)
