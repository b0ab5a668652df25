"""What a guest's domain is made of, as a value, and its XML (domain.xml.j2).

Names. A domain is called `freezelab-RUN-GUEST`: on qemu:///system, where the user's own domains live in
the same name space, that can neither meet nor be mistaken for one of theirs, and two runs can have a
`web-0` each. That a domain is the lab's is told by its metadata, never by its name.
"""

from __future__ import annotations

import functools
import re
import uuid as uuids
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

_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
# What XML 1.0 cannot carry, even escaped.
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


CPU = "EPYC"
NOT_IN_TCG = (
    "rdseed", "sha-ni", "fxsr_opt", "misalignsse", "3dnowprefetch", "osvw", "topoext", "nrip-save", "xsavec",
    "svm",
)  # fmt: skip
"""TCG's guests have a named CPU, less what some QEMU's TCG lacks (qemu -cpu EPYC,check): `max` is another
CPU in each version, and a guest that is handed from one to the next must not find its CPU changed. An
AMD model, because Linux isolates its page tables on Intel's, which TCG pays dearly for."""


class Accelerator(StrEnum):
    """What runs the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"

    @property
    def domain_type(self) -> str:
        """libvirt's <domain type=…>."""
        return "kvm" if self is Accelerator.KVM else "qemu"


class Console(StrEnum):
    """The guest's console device, by the kernel's name of it."""

    SERIAL = "ttyS0"  # from the first instruction on, slow: one exit a byte
    VIRTIO = "hvc0"  # fast, silent until the kernel has its driver


class TickPolicy(StrEnum):
    """What happens to RTC ticks that a guest missed: QEMU's driftfix=none and driftfix=slew."""

    DELAY = "delay"
    CATCHUP = "catchup"


@dataclass(frozen=True)
class Disk:
    """The guest's root disk. cache: libvirt's word; `unsafe` ignores flushes, fine for an overlay that
    is thrown away."""

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
        """Whether libvirt is too old for it: see the template."""
        return "," in str(self.file)

    @property
    def option(self) -> str:
        """QEMU's -fw_cfg."""
        return f"name={self.name},file={_doubled(self.file)}"


@dataclass(frozen=True)
class DomainSpec:
    """One guest's domain.

    guest, run: letters, digits, dots, dashes and underscores, up to 64; HypervisorError otherwise.
    home: the lab's state folder, so that labs of different homes on one libvirt leave each other alone.
    machine: a versioned type, so that a guest is the same on the next QEMU.
    ssh_port: TCP port on the host's 127.0.0.1 that reaches the guest's port 22; None: no network.
    console_log: appended to; its folder must exist.
    agent_socket: the agent channel's socket on the host; None: libvirt chooses.
    probe_socket: the same of the probe's serial channel; None: there is no such channel.
    monitor_socket: of a QMP monitor of the lab's own, beside libvirt's; None: there is none.
    tap: an existing tap that the network card is attached to instead of QEMU's user-mode network;
        other_tap: the one that a successor takes, as two processes cannot open one.
    invariant_tsc: KVM only: show the guest an invariant TSC. tsc_hz: KVM only: its frequency.
    cpu: the model that TCG shows; on KVM it is the host's.
    memory_file: the guest's RAM is this file, which another QEMU can map as well; None: QEMU's own.
    memory_base: its RAM begins as this file holds it, which is mapped privately and never written to: guests
        that start from one file share the pages that none of them has changed. Not beside memory_file.
    guest_sleep: the guest may suspend itself to RAM (S3).
    generation: how many QEMU processes this guest had before, each taking up where the last one stopped.
    incoming: this process waits for such a state, or a golden guest's, instead of booting.
    mac: of the network card; "": derived from the uuid.
    kept_guest: the guest outlives the command that started it, until it is taken down by name.
    machine_uuid: what firmware tells the guest that its machine is (DMI's product UUID), which is the same
        whatever process it runs in; "": the uuid.
    """

    guest: str
    run: str
    home: Path
    memory_bytes: int
    vcpus: int
    accelerator: Accelerator
    emulator: Path
    machine: str
    kernel: Path
    cmdline: str
    console_log: Path
    initrd: Path | None = None
    disk: Disk | None = None
    ssh_port: int | None = None
    console: Console = Console.SERIAL
    fw_cfg: tuple[FwCfg, ...] = ()
    rtc_track: RtcTrack = RtcTrack.WALL
    rtc_tickpolicy: TickPolicy = TickPolicy.CATCHUP
    agent_socket: Path | None = None
    probe_socket: Path | None = None
    monitor_socket: Path | None = None
    invariant_tsc: bool = False
    tsc_hz: int | None = None
    cpu: str = CPU
    memory_file: Path | None = None
    memory_base: Path | None = None
    guest_sleep: bool = False
    generation: int = 0
    incoming: bool = False
    tap: str = ""
    other_tap: str = ""
    mac: str = ""
    kept_guest: bool = False
    uuid: str = field(default_factory=lambda: str(uuids.uuid4()))
    machine_uuid: str = ""

    def __post_init__(self) -> None:
        for kind, word in (("guest", self.guest), ("run", self.run)):
            if not _WORD.fullmatch(word):
                raise HypervisorError(
                    f"not a name for a {kind}: {word!r}", hint="letters, digits, dots and dashes, up to 64"
                )
        if not self.mac:
            # In QEMU's locally administered 52:54:00. It outlives the uuid: see successor().
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
        """CPU features of `cpu` that are not shown, because QEMU 7.2's TCG does not have them all."""
        return NOT_IN_TCG if self.cpu == CPU else ()

    @property
    def bus(self) -> str:
        """The machine's first PCI bus, as QEMU calls it."""
        return "pcie.0" if "q35" in self.machine else "pci.0"

    @property
    def memory_backend(self) -> str:
        """QEMU's -object for RAM that is a file's; "" when it is QEMU's own. The same id in both kinds: a
        device state names the RAM that it belongs to."""
        path = self.memory_file or self.memory_base
        if path is None:
            return ""
        share = "on" if self.memory_file else "off"
        size = self.memory_bytes
        return f"memory-backend-file,id=labram,size={size},mem-path={_doubled(path)},share={share}"

    @property
    def has_arguments(self) -> bool:
        """Whether something is told to QEMU past libvirt."""
        commas = any(entry.has_comma for entry in self.fw_cfg)
        renamed = self.machine_uuid != self.uuid
        network = self.ssh_port or self.tap
        memory = self.memory_backend or self.incoming
        return bool(network or memory or self.monitor_socket or commas or renamed)

    @property
    def monitor_device(self) -> str:
        """QEMU's -chardev of the lab's own monitor."""
        path = _doubled(self.monitor_socket) if self.monitor_socket is not None else ""
        return f"socket,id=labmonitor,path={path},server=on,wait=off"

    @property
    def takes_port_later(self) -> bool:
        """Its port is a predecessor's as long as that is there."""
        return self.incoming and self.generation > 0

    @property
    def sockets(self) -> tuple[Path, ...]:
        """Sockets of our own choosing that its process listens on."""
        own = (self.agent_socket, self.probe_socket, self.monitor_socket)
        return tuple(path for path in own if path is not None)

    def successor(
        self,
        emulator: Path,
        agent_socket: Path | None,
        probe_socket: Path | None = None,
        monitor_socket: Path | None = None,
    ) -> DomainSpec:
        """The same guest in another QEMU process, which waits for the state of this one."""
        return replace(
            self,
            emulator=emulator,
            agent_socket=agent_socket,
            probe_socket=probe_socket,
            monitor_socket=monitor_socket,
            tap=self.other_tap,
            other_tap=self.tap,
            generation=self.generation + 1,
            incoming=True,
            uuid=str(uuids.uuid4()),
        )

    @property
    def title(self) -> str:
        return f"freezelab guest {self.guest} of run {self.run}"

    def again(self, emulator: Path) -> DomainSpec:
        """The same guest, to be booted once more from its disk."""
        return replace(self, emulator=emulator, incoming=False, memory_base=None)


def _doubled(path: Path) -> str:
    """A path as a part of an option, where a single comma ends it (qemu(1))."""
    return str(path).replace(",", ",,")


def domain_name(run: str, guest: str, generation: int = 0) -> str:
    """The libvirt domain of a run's guest."""
    return f"freezelab-{run}-{guest}" + (f".{generation}" if generation else "")


@functools.cache
def _template() -> jinja2.Template:
    import jinja2

    source = (Path(__file__).parent / "domain.xml.j2").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)


def render(spec: DomainSpec) -> str:
    """The domain's XML. HypervisorError when a value holds what XML cannot carry."""
    text = _template().render(d=spec, namespace=NAMESPACE)
    if bad := _FORBIDDEN.search(text):
        raise HypervisorError(f"a control character ({bad[0]!r}) in the domain's values", where=spec.guest)
    return text
