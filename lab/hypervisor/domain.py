"""A guest's domain as a value, and its XML (domain.xml.j2).

A domain is called `freezelab-RUN-GUEST`. On qemu:///system, where the user's own domains share the name
space, this name neither collides with theirs nor looks like one, and two runs can each have a guest `web-0`.
The lab's domains are recognised by their metadata, never by their name.
"""

from __future__ import annotations

import functools
import re
import secrets
import uuid as uuids
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from lab.core.plan import RtcTrack as RtcTrack
from lab.errors import HypervisorError

if TYPE_CHECKING:
    import jinja2

NAMESPACE = "urn:freezelab:domain:1"
"""XML namespace of the metadata that marks a domain as the lab's."""

_CONTROL, _SERVER = "labcontrol", ",server=on,wait=off"

_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
# Characters that XML 1.0 cannot contain, even escaped.
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


CPU = "EPYC"
NOT_IN_TCG = (
    "rdseed", "sha-ni", "fxsr_opt", "misalignsse", "3dnowprefetch", "osvw", "topoext", "nrip-save", "xsavec",
    "svm",
)  # fmt: skip
"""CPU features that some QEMU version's TCG lacks (qemu -cpu EPYC,check). TCG guests have a named CPU model
without them: `max` differs between versions, and a hand-over to another version must not change the guest's
CPU. It is an AMD model, because on Intel models Linux uses page-table isolation, which is slow under TCG."""

_WITHOUT_NESTED = (*(name for name in NOT_IN_TCG if name != "svm"), "cx16")
"""The same for lab hosts, whose kvm_amd needs svm. Linux 6.12 boots on the TCG of QEMU 7.2 without cx16."""


class Accelerator(StrEnum):
    """The accelerator that runs the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"

    @property
    def domain_type(self) -> str:
        """The value of libvirt's <domain type=…>."""
        return "kvm" if self is Accelerator.KVM else "qemu"


class Console(StrEnum):
    """The guest's console device, by its name in the guest's kernel."""

    SERIAL = "ttyS0"  # works from the first instruction on; slow: one exit per byte
    VIRTIO = "hvc0"  # fast; silent until the kernel has loaded its driver


class TickPolicy(StrEnum):
    """What happens to RTC ticks that a guest missed: QEMU's driftfix=none and driftfix=slew."""

    DELAY = "delay"
    CATCHUP = "catchup"


@dataclass(frozen=True)
class Disk:
    """The guest's root disk. cache: libvirt's cache mode; `unsafe` ignores flushes, which suits a temporary
    overlay."""

    path: Path
    format: str = "qcow2"
    cache: str = "unsafe"


@dataclass(frozen=True)
class FwCfg:
    """A file shown to the guest as /sys/firmware/qemu_fw_cfg/by_name/NAME/raw. name: "opt/…"."""

    name: str
    file: Path

    @property
    def has_comma(self) -> bool:
        """Whether the path contains a comma, which older libvirts do not pass on correctly; see the
        template."""
        return "," in str(self.file)

    @property
    def option(self) -> str:
        """The argument of QEMU's -fw_cfg."""
        return f"name={self.name},file={_doubled(self.file)}"


@dataclass(frozen=True)
class DomainSpec:
    """One guest's domain.

    guest, run: letters, digits, dots, dashes and underscores, up to 64; HypervisorError otherwise.
    home: the lab's state folder, which separates labs with different homes on one libvirt.
    machine: a versioned machine type, so that the guest's machine is the same under another QEMU.
    kernel, initrd, cmdline: what QEMU itself loads; no kernel: the firmware boots from the disk.
    firmware: a ROM instead of QEMU's BIOS, such as UEFI. seed_disk: a second, read-only disk, raw.
    ssh_port: TCP port on the host's 127.0.0.1 that forwards to the guest's port 22; None: no network.
    console_log: the console's output is appended to it; its folder must exist.
    agent_socket: the agent channel's socket on the host; None: libvirt chooses.
    probe_socket: the socket of the probe's serial channel; None: no such channel, and none for the push.
    monitor_socket, control_socket: the sockets of two QMP monitors of the lab's own, beside libvirt's: the
        dead-man's, which must work when the controller does not, and the controller's; None: no such monitor.
    tap: an existing tap for the network card instead of QEMU's user-mode network; other_tap: the successor's
        tap, because two processes cannot open the same one.
    invariant_tsc: KVM only: the guest has an invariant TSC. tsc_hz: KVM only: the TSC's frequency.
    cpu: the CPU model under TCG; under KVM the guest has the host's. nested: TCG only: it has SVM, so that
        the guest has KVM.
    memory_file: a file with the guest's RAM, which another QEMU can map as well; None: anonymous memory.
    memory_base: a file with the initial content of the guest's RAM. It is mapped privately and never written,
        so guests of one file share their unchanged pages. Not together with memory_file.
    memory_in_stream: the RAM comes in the stream of a predecessor whose RAM was such a file: anonymous, with
        the same id. Not together with either.
    guest_sleep: the guest may suspend itself to RAM (S3).
    generation: how many QEMU processes the guest has had before, in hand-overs.
    incoming: this process waits for a device state, of a predecessor or a golden guest, instead of booting.
    mac: the network card's MAC address; "": derived from the uuid.
    lab_socket: the path at which the QEMU process listens for frames of the lab's own network; None: it has
        no card there. lab_switch: the path that it sends its frames to. lab_mac: that card's MAC address.
    kept_guest: the guest outlives the command that started it, until it is taken down by name.
    devices: further devices, as arguments of QEMU's -device.
    watchdog: what an i6300esb watchdog does, as libvirt names it; "": there is none.
    machine_uuid: the product UUID that the guest's firmware reports (DMI), the same in every process of the
        guest; "": the uuid.
    """

    guest: str
    run: str
    home: Path
    memory_bytes: int
    vcpus: int
    accelerator: Accelerator
    emulator: Path
    machine: str
    kernel: Path | None
    cmdline: str
    console_log: Path
    initrd: Path | None = None
    firmware: Path | None = None
    disk: Disk | None = None
    seed_disk: Path | None = None
    ssh_port: int | None = None
    console: Console = Console.SERIAL
    fw_cfg: tuple[FwCfg, ...] = ()
    rtc_track: RtcTrack = RtcTrack.WALL
    rtc_tickpolicy: TickPolicy = TickPolicy.CATCHUP
    agent_socket: Path | None = None
    probe_socket: Path | None = None
    monitor_socket: Path | None = None
    control_socket: Path | None = None
    invariant_tsc: bool = False
    tsc_hz: int | None = None
    cpu: str = CPU
    nested: bool = False
    memory_file: Path | None = None
    memory_base: Path | None = None
    memory_in_stream: bool = False
    guest_sleep: bool = False
    generation: int = 0
    incoming: bool = False
    tap: str = ""
    other_tap: str = ""
    mac: str = ""
    lab_socket: Path | None = None
    lab_switch: Path | None = None
    lab_mac: str = ""
    kept_guest: bool = False
    devices: tuple[str, ...] = ()
    watchdog: str = ""
    uuid: str = field(default_factory=lambda: str(uuids.uuid4()))
    machine_uuid: str = ""

    def __post_init__(self) -> None:
        for kind, word in (("guest", self.guest), ("run", self.run)):
            if not _WORD.fullmatch(word):
                raise HypervisorError(
                    f"not a name for a {kind}: {word!r}", hint="letters, digits, dots and dashes, up to 64"
                )
        if not self.mac:
            # In QEMU's locally administered range 52:54:00. A successor keeps it, but not the uuid.
            digits = uuids.UUID(self.uuid).hex[-6:]
            object.__setattr__(self, "mac", f"52:54:00:{digits[0:2]}:{digits[2:4]}:{digits[4:6]}")
        if not self.machine_uuid:
            object.__setattr__(self, "machine_uuid", self.uuid)

    @property
    def name(self) -> str:
        """The domain's name in libvirt."""
        return domain_name(self.run, self.guest, self.generation)

    @property
    def without(self) -> tuple[str, ...]:
        """The features of `cpu` that are disabled, because QEMU 7.2's TCG lacks some of them."""
        if self.cpu != CPU:
            return ()
        return _WITHOUT_NESTED if self.nested else NOT_IN_TCG

    @property
    def bus(self) -> str:
        """QEMU's name of the machine's first PCI bus."""
        return "pcie.0" if "q35" in self.machine else "pci.0"

    @property
    def memory_backend(self) -> str:
        """The argument of QEMU's -object for RAM that is, or was, in a file; "" for other memory. All kinds
        have the same id, because a device state contains the id of its RAM."""
        if self.memory_in_stream:
            return f"memory-backend-ram,id=labram,size={self.memory_bytes}"
        path = self.memory_file or self.memory_base
        if path is None:
            return ""
        share = "on" if self.memory_file else "off"
        size = self.memory_bytes
        return f"memory-backend-file,id=labram,size={size},mem-path={_doubled(path)},share={share}"

    @property
    def monitors(self) -> dict[str, str]:
        """The arguments of QEMU's -chardev for the lab's own monitors, by their ids."""
        own = {"labmonitor": self.monitor_socket, _CONTROL: self.control_socket}
        return {
            name: f"{_socket(name)}{_doubled(path)}{_SERVER}"
            for name, path in own.items()
            if path is not None
        }

    @property
    def lab_netdev(self) -> str:
        """The argument of QEMU's -netdev for the lab's own network; "" without it."""
        if self.lab_socket is None or self.lab_switch is None:
            return ""
        local = f"local.type=unix,local.path={_doubled(self.lab_socket)}"
        return f"dgram,id=lab1,{local},remote.type=unix,remote.path={_doubled(self.lab_switch)}"

    @property
    def forwarded_port(self) -> int | None:
        """The TCP port on 127.0.0.1 that QEMU forwards to the guest; None without one."""
        return None if self.tap else self.ssh_port

    @property
    def takes_port_later(self) -> bool:
        """Whether the process takes over its SSH port only when its predecessor has ended."""
        return self.incoming and self.generation > 0

    @property
    def push_socket(self) -> Path | None:
        """The socket of the serial channel over which the clock is set (timesync/push.py), beside the
        probe's."""
        return push_socket(self.probe_socket) if self.probe_socket is not None else None

    @property
    def sockets(self) -> tuple[Path, ...]:
        """The sockets on which the process listens at paths that the lab has chosen."""
        own = (
            self.agent_socket, self.probe_socket, self.push_socket, self.monitor_socket, self.control_socket,
            self.lab_socket,
        )  # fmt: skip
        return tuple(path for path in own if path is not None)

    def with_sockets_in(self, folder: Path) -> DomainSpec:
        """The same domain with a new socket in `folder` in place of each."""

        def new(old: Path | None, what: str) -> Path | None:
            return folder / f"{secrets.token_hex(4)}.{what}" if old is not None else None

        return replace(
            self,
            agent_socket=new(self.agent_socket, "agent"),
            probe_socket=new(self.probe_socket, "probe"),
            monitor_socket=new(self.monitor_socket, "monitor"),
            control_socket=new(self.control_socket, "control"),
            lab_socket=new(self.lab_socket, "net"),
        )

    def successor(self, emulator: Path) -> DomainSpec:
        """The same guest in a successor, which waits for this process's device state. It has the same
        sockets."""
        return replace(
            self,
            emulator=emulator,
            tap=self.other_tap,
            other_tap=self.tap,
            generation=self.generation + 1,
            incoming=True,
            uuid=str(uuids.uuid4()),
        )

    def with_memory_in_stream(self) -> DomainSpec:
        """The same domain with memory of its own, which is empty, in place of a file."""
        named = bool(self.memory_backend)
        return replace(self, memory_file=None, memory_base=None, memory_in_stream=named)

    @property
    def title(self) -> str:
        return f"freezelab guest {self.guest} of run {self.run}"

    def again(self, emulator: Path) -> DomainSpec:
        """The same guest, booted again from its disk under `emulator`."""
        return replace(self, emulator=emulator, incoming=False, memory_base=None, memory_in_stream=False)


def _doubled(path: Path) -> str:
    """A path in a QEMU option, with commas doubled (qemu(1))."""
    return str(path).replace(",", ",,")


def _socket(name: str) -> str:
    return f"socket,id={name},path="


def control_socket_of(arguments: Sequence[str]) -> Path | None:
    """The control_socket of a QEMU process with these arguments; None when it has none."""
    for argument in arguments:
        if argument.startswith(_socket(_CONTROL)):
            path = argument.removeprefix(_socket(_CONTROL)).removesuffix(_SERVER)
            return Path(path.replace(",,", ","))
    return None


def push_socket(probe_socket: Path) -> Path:
    """The path of the push's socket beside the probe's."""
    return probe_socket.with_name(f"{probe_socket.name}.push")


def domain_name(run: str, guest: str, generation: int = 0) -> str:
    """The name of the libvirt domain of a run's guest."""
    return f"freezelab-{run}-{guest}" + (f".{generation}" if generation else "")


def prepare() -> None:
    """Compute what render() needs, once and for all: some 50 ms."""
    _template()


@functools.cache
def _template() -> jinja2.Template:
    import jinja2

    source = (Path(__file__).parent / "domain.xml.j2").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)


def render(spec: DomainSpec) -> str:
    """The domain's XML. HypervisorError when a value contains a character that XML does not allow."""
    text = _template().render(d=spec, namespace=NAMESPACE)
    if bad := _FORBIDDEN.search(text):
        raise HypervisorError(f"a control character ({bad[0]!r}) in the domain's values", where=spec.guest)
    return text
