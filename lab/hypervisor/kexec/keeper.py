"""In a lab host: the guest whose memory outlives the host's kernel.

python3 -m lab.hypervisor.kexec.keeper …
    check RELEASE BYTES   refuse what cannot work; prints the release of the kernel that is meant
    start <SPEC           start the guest in the reserved memory
    load RELEASE          load the next kernel and its initramfs
    keep                  obey the controller's orders, see LabHostKeeper
    proof                 compare the frozen guest's memory with what it was
    stop                  end the guest, and leave nothing of it

The guest is RAM in a DAX file on the reserved memory, a device state beside it, and a disk of the host's.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import select
import shlex
import shutil
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.core.units import format_size
from lab.errors import FreezelabError, HypervisorError, Refused
from lab.hypervisor import memory
from lab.hypervisor.kexec import restorer
from lab.hypervisor.qmp import MonitorError, QmpSocket
from lab.process import runner

KEPT = Path("/srv/reserved")
ON_DISK = Path("/srv/freezelab/kept")
PORT = Path("/dev/virtio-ports/org.freezelab.push.0")
DISK = ON_DISK / "disk.qcow2"
CARD = "guest0"
WHERE = "lab host"
_PID = Path("/run/freezelab-keeper.pid")

SPARE_BYTES = 32 << 20
"""The reserved memory that is not the guest's: its device state, its console's log, the file system's own."""

_DO_S = 60.0
_RESERVED = re.compile(r"([0-9a-f]+)-([0-9a-f]+) : Persistent Memory \(legacy\)")
_KEXEC = (169, 0xFEE1DEAD, 672274793, 0x45584543, 0)
"""reboot(2): its number on x86-64, its two magic numbers, LINUX_REBOOT_CMD_KEXEC."""


@dataclass(frozen=True)
class LabHostGuestSpec:
    """The guest. image: the image's folder. seed: its seed's file, which is moved. machine: QEMU's type."""

    name: str
    image: str
    memory_bytes: int
    vcpus: int
    mac: str
    cmdline: str
    seed: str
    machine: str


def check(release: str, memory_bytes: int) -> str:
    """The release of the kernel that is meant. Refused, with the reason, when it cannot replace the running
    one under a guest of this size."""
    check_reserved(Path("/proc/iomem").read_text(encoding="ascii"), memory_bytes)
    kernel = restorer.kernel_of(release, restorer.kernels())
    restorer.check(kernel)
    if why := locked(Path("/sys/kernel/security/lockdown"), Path("/proc/sys/kernel/kexec_load_disabled")):
        raise Refused(why, where=WHERE)
    return kernel


def check_reserved(iomem: str, memory_bytes: int) -> None:
    """Refused when too little memory is reserved for a guest. iomem: the text of /proc/iomem."""
    reserved = [int(end, 16) - int(start, 16) + 1 for start, end in _RESERVED.findall(iomem)]
    again = "freezelab labhost down, and labhost up --reserve 384MiB"
    if not reserved:
        raise Refused("no memory is reserved in it", where=WHERE, hint=again)
    if memory_bytes + SPARE_BYTES > reserved[0]:
        needed = f"{format_size(memory_bytes)} and {format_size(SPARE_BYTES)}"
        what = f"{format_size(reserved[0])} are reserved in it, and the guest needs {needed}"
        raise Refused(what, where=WHERE, hint="reserve more, or give the guest less")


def locked(lockdown: Path, disabled: Path) -> str:
    """Why the running kernel starts no other one; "" when it does. lockdown, disabled: the kernel's files."""
    with suppress(OSError):
        mode = re.search(r"\[(\w+)\]", lockdown.read_text(encoding="ascii"))
        if mode is not None and mode[1] != "none":
            return f"its kernel is locked down ({mode[1]}), as with secure boot, and kexec_load is refused"
    with suppress(OSError):
        if disabled.read_text(encoding="ascii").strip() != "0":
            return "its kernel refuses kexec until it is rebooted (kernel.kexec_load_disabled)"
    return ""


def start(spec: LabHostGuestSpec) -> None:
    """Start the guest. HypervisorError when QEMU does not start, or says that the guest cannot be saved."""
    _mount()
    memory.allocate(KEPT / "ram", spec.memory_bytes)
    base = next(Path(spec.image).glob("disk-*.img"))
    shutil.rmtree(ON_DISK, ignore_errors=True)
    ON_DISK.mkdir()
    shutil.move(spec.seed, ON_DISK / "seed")
    runner.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(DISK)], _DO_S)
    (ON_DISK / "guest").write_text(f"mac={spec.mac}\n", encoding="ascii")
    (ON_DISK / "qemu").write_text(f'exec {shlex.join(arguments(spec))} "$@"\n', encoding="utf-8")
    card = ("ip", "link", "add", "link", "eth0", "name", CARD, "address", spec.mac, "type", "macvtap")
    runner.run(card, _DO_S)
    runner.run(("ip", "link", "set", CARD, "up"), _DO_S)
    number = Path(f"/sys/class/net/{CARD}/ifindex").read_text(encoding="ascii").strip()
    qemu = ["sh", "-c", f"exec 9<>/dev/tap{number}; . {ON_DISK}/qemu"]
    with (ON_DISK / "qemu.log").open("wb") as log:
        started = runner.start(qemu, stdout=log.fileno(), stderr=log.fileno(), for_good=True)
    until = time.monotonic() + _DO_S
    while True:
        with suppress(MonitorError):
            with QmpSocket(KEPT / "qmp") as qmp:
                _check_saveable(qmp)
            return
        if started.status is not None or time.monotonic() > until:
            lines = (ON_DISK / "qemu.log").read_text(encoding="utf-8", errors="replace").splitlines()
            raise HypervisorError(lines[-1] if lines else "QEMU does not answer", where=spec.name)
        time.sleep(0.05)


def arguments(spec: LabHostGuestSpec) -> list[str]:
    """QEMU's command line, the same before and after. Its machine has no more devices than the guest needs:
    each one lengthens the start and the load."""
    machine = f"{spec.machine},accel=kvm,memory-backend=labram,suppress-vmdesc=on,vmport=off,hpet=off"
    ram = f"memory-backend-file,id=labram,size={spec.memory_bytes},mem-path={KEPT}/ram,share=on"
    image = Path(spec.image)
    return [
        *("qemu-system-x86_64", "-name", spec.name, "-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", machine, "-cpu", "host,migratable=on", "-smp", str(spec.vcpus)),
        *("-m", f"{spec.memory_bytes >> 20}M", "-object", ram, "-rtc", "base=utc,driftfix=slew"),
        *("-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initrd"), "-append", spec.cmdline),
        *("-fw_cfg", f"name=opt/freezelab/seed,file={ON_DISK}/seed"),
        *("-chardev", f"file,id=console,path={ON_DISK}/console,append=on", "-serial", "chardev:console"),
        *("-drive", f"file={DISK},format=qcow2,if=none,id=disk0,cache=unsafe"),
        *("-device", "virtio-blk-pci,drive=disk0", "-netdev", "tap,id=net0,fd=9"),
        *("-device", f"virtio-net-pci,netdev=net0,mac={spec.mac},romfile="),
        *("-qmp", f"unix:{KEPT}/qmp,server=on,wait=off"),
    ]


def _check_saveable(qmp: QmpSocket) -> None:
    """Refused when QEMU says that a device of the guest cannot be saved."""
    if reasons := qmp.execute("query-migrate", _DO_S).get("blocked-reasons"):
        raise Refused(f"the guest cannot be saved: {reasons[0]}", where=WHERE)


def _mount() -> None:
    """A new file system on the reserved memory, with DAX: its files are the memory itself. Blocks for huge
    pages; no journal, since nothing outlives the host's power."""
    runner.run(["modprobe", "-a", "nd_pmem", "nd_e820", "macvtap"], _DO_S)
    until = time.monotonic() + _DO_S
    while not Path("/dev/pmem0").exists() and time.monotonic() < until:  # it appears some time after
        time.sleep(0.05)
    layout = ("-b", "4096", "-O", "^has_journal,^metadata_csum", "-E", "stride=512,stripe_width=512")
    runner.run(["mke2fs", "-q", "-F", "-t", "ext4", *layout, "/dev/pmem0"], _DO_S)
    KEPT.mkdir(exist_ok=True)
    runner.run(["mount", "-t", "ext4", "-o", "dax=always", "/dev/pmem0", str(KEPT)], _DO_S)


def end_keeper() -> None:
    """End the keeper that runs, which has the port and the guest's monitor, if there is one."""
    with suppress(OSError, ValueError):
        pid = int(_PID.read_text(encoding="ascii"))
        if b"kexec.keeper" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
            while Path(f"/proc/{pid}/cmdline").read_bytes():
                time.sleep(0.01)
        _PID.unlink()


def stop() -> None:
    """End the guest, and its keeper, and remove what they have. Safe to call at any time."""
    end_keeper()
    with suppress(MonitorError), QmpSocket(KEPT / "qmp") as qmp:
        qmp.execute("quit")
    shutil.rmtree(ON_DISK, ignore_errors=True)
    until = time.monotonic() + _DO_S
    while not runner.run(["umount", str(KEPT)], _DO_S, check=False).ok and KEPT.is_mount():
        if time.monotonic() > until:
            raise HypervisorError("the guest's memory is still in use", where=WHERE)
        time.sleep(0.1)
    runner.run(["ip", "link", "del", CARD], _DO_S, check=False)


class LabHostKeeper:
    """Obeys orders of the controller, a line each, and answers with marks, each with the host's uptime:

    freeze SECONDS PROVE   stop the guest and save its devices; "stopped", "saved". PROVE 1: with a digest of
                           its memory. If nothing is heard for so long, the guest goes on: "resumed".
    back                   the guest goes on here; "resumed"
    leave                  start the loaded kernel; "leaving"
    """

    def __init__(self) -> None:
        end_keeper()
        _PID.write_text(str(os.getpid()), encoding="ascii")
        self._qmp = QmpSocket(KEPT / "qmp")
        capabilities = [{"capability": "x-ignore-shared", "state": True}]
        self._qmp.execute("migrate-set-capabilities", _DO_S, capabilities=capabilities)
        self._port = os.open(PORT, os.O_RDWR | os.O_NONBLOCK)
        self._until: float | None = None

    def mark(self, name: str, more: str = "") -> None:
        up = Path("/proc/uptime").read_text(encoding="ascii").split()[0]
        with suppress(BlockingIOError):  # nobody is there
            os.write(self._port, f"{name} {up} {more}\n".encode())

    def obey(self) -> None:
        """Obey until the host's kernel has gone."""
        self.mark("ready")
        buffer = b""
        while True:
            wait_s = None if self._until is None else max(0.0, self._until - time.monotonic())
            if not select.select([self._port], [], [], wait_s)[0]:
                self._back()
                continue
            data = os.read(self._port, 4096)
            if not data:  # the controller's end is closed
                time.sleep(0.05)
                if self._until is not None and time.monotonic() > self._until:
                    self._back()
                continue
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                self._obey(line.decode("ascii", "replace").split())

    def _obey(self, order: list[str]) -> None:
        try:
            match order:
                case ["freeze", seconds, prove]:
                    self._freeze(float(seconds), prove == "1")
                case ["back"]:
                    self._back()
                case ["leave"]:
                    self._leave()
        except (FreezelabError, MonitorError, OSError) as error:
            self.mark("failed", str(error).splitlines()[0])

    def _freeze(self, seconds: float, prove: bool) -> None:
        self._until = time.monotonic() + seconds
        self._qmp.execute("stop", _DO_S)
        self.mark("stopped")
        self._qmp.execute("migrate", _DO_S, uri=f"exec:cat >{KEPT}/state")
        while (now := self._qmp.execute("query-migrate", _DO_S))["status"] not in ("completed", "failed"):
            time.sleep(0.002)
        if now["status"] == "failed":
            raise HypervisorError(str(now.get("error-desc", "its devices cannot be saved")))
        self.mark("saved")
        (KEPT / "prove").unlink(missing_ok=True)
        if prove:
            (KEPT / "prove").touch()
            digest(KEPT / "before")
            self.mark("digested")

    def _back(self) -> None:
        self._until = None
        self._qmp.execute("cont", _DO_S)
        self.mark("resumed")

    def _leave(self) -> None:
        if Path("/sys/kernel/kexec_loaded").read_text(encoding="ascii").strip() != "1":
            raise HypervisorError("no kernel is loaded")
        # All file systems become read-only, whoever has files open: nothing is written any more, and the next
        # kernel has no journal to replay.
        Path("/proc/sysrq-trigger").write_text("u", encoding="ascii")
        while " ext4 rw" in Path("/proc/mounts").read_text(encoding="utf-8"):
            time.sleep(0.002)
        self.mark("leaving")
        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall(*map(ctypes.c_long, _KEXEC))
        for place in ("/", str(KEPT)):
            runner.run(["mount", "-o", "remount,rw", place], _DO_S, check=False)
        raise HypervisorError(f"kexec: {os.strerror(ctypes.get_errno())}")


def digest(target: Path) -> None:
    """Write the digests of all pages of the guest's memory to a file."""
    taken = memory.take(KEPT / "ram")
    runs = [(run.start, run.stop) for run in taken.allocated]
    target.write_bytes(json.dumps([taken.pages, runs]).encode() + b"\n" + taken.sums)


def proof() -> str:
    """The MemoryProof of the frozen guest, as JSON: its memory now, and what digest() has written before."""
    head, _, sums = (KEPT / "before").read_bytes().partition(b"\n")
    pages, runs = json.loads(head)
    before = memory.Digest(pages, tuple(range(*run) for run in runs), sums)
    return json.dumps(asdict(memory.compare(before, memory.take(KEPT / "ram"), 0)), separators=(",", ":"))


def main(words: list[str]) -> None:
    match words:
        case ["check", release, size]:
            sys.stdout.write(f"{check(release, int(size))}\n")
        case ["start"]:
            start(LabHostGuestSpec(**json.load(sys.stdin)))
        case ["load", release]:
            restorer.load(restorer.kernel_of(release, restorer.kernels()))
        case ["keep"]:
            LabHostKeeper().obey()
        case ["proof"]:
            sys.stdout.write(f"{proof()}\n")
        case ["stop"]:
            stop()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except FreezelabError as error:
        sys.exit(json.dumps({"refused": isinstance(error, Refused), "what": error.what, "hint": error.hint}))
