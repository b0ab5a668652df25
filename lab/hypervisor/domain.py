"""What a guest's domain is made of, as a value, and its XML (domain.xml.j2).

Names. A domain is called `freezelab-RUN-GUEST`: on qemu:///system, where the user's own domains live in
the same name space, that can neither meet nor be mistaken for one of theirs, and two runs can have a
`web-0` each. That a domain is the lab's is told by its metadata, never by its name.
"""

from __future__ import annotations

import functools
import re
import uuid as uuids
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import HypervisorError

if TYPE_CHECKING:
    import jinja2

NAMESPACE = "urn:freezelab:domain:1"
"""XML namespace of the metadata that marks a domain as the lab's."""

_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
# What XML 1.0 cannot carry, even escaped.
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


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


class RtcTrack(StrEnum):
    """What the emulated RTC follows: libvirt's names for QEMU's -rtc clock=host and clock=vm."""

    WALL = "wall"  # the host's clock, through pauses
    GUEST = "guest"  # the guest's virtual clock: it stops with the guest


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


@dataclass(frozen=True)
class DomainSpec:
    """One guest's domain.

    guest, run: letters, digits, dots, dashes and underscores, up to 64; HypervisorError otherwise.
    home: the lab's state folder, so that labs of different homes on one libvirt leave each other alone.
    machine: a versioned type, so that a guest is the same on the next QEMU.
    ssh_port: TCP port on the host's 127.0.0.1 that reaches the guest's port 22; None: no network.
    console_log: appended to; its folder must exist.
    agent_socket: the agent channel's socket on the host; None: libvirt chooses.
    invariant_tsc: KVM only: show the guest an invariant TSC. tsc_hz: KVM only: its frequency.
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
    invariant_tsc: bool = False
    tsc_hz: int | None = None
    uuid: str = field(default_factory=lambda: str(uuids.uuid4()))

    def __post_init__(self) -> None:
        for kind, word in (("guest", self.guest), ("run", self.run)):
            if not _WORD.fullmatch(word):
                raise HypervisorError(
                    f"not a name for a {kind}: {word!r}", hint="letters, digits, dots and dashes, up to 64"
                )

    @property
    def name(self) -> str:
        """The domain's name in libvirt."""
        return domain_name(self.run, self.guest)

    @property
    def title(self) -> str:
        return f"freezelab guest {self.guest} of run {self.run}"

    @property
    def mac(self) -> str:
        """A MAC address derived from the uuid, in QEMU's locally administered 52:54:00."""
        digits = uuids.UUID(self.uuid).hex[-6:]
        return f"52:54:00:{digits[0:2]}:{digits[2:4]}:{digits[4:6]}"


def domain_name(run: str, guest: str) -> str:
    """The libvirt domain of a run's guest."""
    return f"freezelab-{run}-{guest}"


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
