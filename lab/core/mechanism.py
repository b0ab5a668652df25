"""Resync mechanisms, which correct a guest's clock after a freeze.

Each member of ResyncMechanism has its name, what it does, what moves the clock, which configuration it
installs (core.mechanism_configs) and what it needs; all other modules use these properties. core.timesync
forecasts the effect of its means after a pause, a module for each program; guest.timesync installs them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum

from lab.core import mechanism_configs as configs
from lab.core.units import NS_PER_S

UNSEEN = "not seen on Windows"
"""What is said of what Microsoft's documentation describes, and the lab was never run with."""


class Means(Enum):
    """What moves the guest's clock. Each member has its own rules (core.timesync.rules) and its own
    installation in a guest (guest.timesync)."""

    NOTHING = "nothing"
    AGENT_TIME = "the agent, given nanoseconds"
    AGENT_SECONDS = "the agent, given whole seconds"
    AGENT_RTC = "the agent, from the RTC"
    HWCLOCK = "hwclock"
    PUSH = "the lab's own program, by measured offsets"
    CHRONYD = "chronyd"
    VMCLOCK = "chronyd, told of disruptions by vmclock"
    TIMESYNCD = "systemd-timesyncd"
    TIMESYNCD_RESYNC = "systemd-timesyncd, told to poll at the resume"
    NTPD = "ntpd"
    OPENNTPD = "OpenNTPD"
    PHC2SYS = "phc2sys"
    W32TIME = "the Windows Time service"

    @property
    def uses_agent(self) -> bool:
        return self in (Means.AGENT_TIME, Means.AGENT_SECONDS, Means.AGENT_RTC)

    @property
    def is_daemon(self) -> bool:
        return self in (
            *(Means.CHRONYD, Means.VMCLOCK, Means.TIMESYNCD, Means.TIMESYNCD_RESYNC),
            *(Means.NTPD, Means.OPENNTPD, Means.PHC2SYS, Means.W32TIME),
        )

    @property
    def needs_python(self) -> bool:
        """True when a Python program in the guest has a part in it."""
        return self in (Means.PUSH, Means.VMCLOCK, Means.TIMESYNCD_RESYNC)


@dataclass(frozen=True)
class PtpClock:
    """A clock of the host that the guest's kernel presents as a PTP device.

    module: the guest's kernel module. name: the beginning of the clock's name, which sysfs has in the file
    clock_name (Linux, drivers/ptp/ptp_kvm_common.c, drivers/virtio/virtio_rtc_ptp.c). kernels: which kernels
    have the module, for who has none of them.
    """

    module: str
    name: str
    kernels: str = ""


@dataclass(frozen=True)
class Feature:
    """A feature that a program has from a version on. name: as its documentation has it. since: major and
    minor version."""

    name: str
    since: tuple[int, int]


@dataclass(frozen=True)
class MechanismTraits:
    """What a resync mechanism is.

    about: what it does, in a few words. config: the whole configuration of its program, "" for none. {server}
    and {port} stand for the host's NTP server, {device} for the PTP clock's device, {rtc_offset} for by how
    much the guest's RTC is behind, in seconds. ptp: the PTP clock that it needs. device: the device of QEMU's
    that its guests get, "" for none. feature: the feature that its program needs. updates: how many updates
    of the clock the installation waits for, so that a limit of makestep is used up, as after a long time of
    operation; 0: none, the clock has to be in time. windows: it is a part of Windows. The guest has it
    already, as the playbook says: the lab installs nothing, and measures by the agent.
    """

    about: str
    means: Means
    config: str = ""
    ptp: PtpClock | None = None
    device: str = ""
    feature: Feature | None = None
    updates: int = 0
    windows: bool = False


class ResyncMechanism(StrEnum):
    """What corrects the guest's clock after the resume. The order is that of menus and documentation."""

    NONE = "none"
    AGENT = "agent"
    AGENT_RTC = "agent-rtc"
    DOMTIME_NOW = "domtime-now"
    HWCLOCK = "hwclock"
    PUSH = "push"
    CHRONY = "chrony"
    CHRONY_DISTRIBUTION = "chrony-distribution"
    CHRONY_FROZEN = "chrony-frozen"
    CHRONY_PHC = "chrony-phc"
    CHRONY_RTC = "chrony-rtc"
    TIMESYNCD = "timesyncd"
    TIMESYNCD_RESYNC = "timesyncd-resync"
    NTPD = "ntpd"
    OPENNTPD = "openntpd"
    PHC2SYS = "phc2sys"
    VMCLOCK = "vmclock"
    VIRTIO_RTC = "virtio-rtc"
    W32TIME = "w32time"
    W32TIME_DOMAIN = "w32time-domain"
    W32TIME_ACCURATE = "w32time-accurate"

    @property
    def traits(self) -> MechanismTraits:
        return _TRAITS[self]

    @property
    def about(self) -> str:
        """What it does, in a few words."""
        return self.traits.about

    @property
    def means(self) -> Means:
        """What moves the clock."""
        return self.traits.means

    @property
    def repairs(self) -> bool:
        """True when the mechanism corrects the clock at all."""
        return self.means is not Means.NOTHING

    @property
    def uses_agent(self) -> bool:
        """True when the host acts through qemu-guest-agent."""
        return self.means.uses_agent

    @property
    def acts_from_host(self) -> bool:
        """True when the host acts on the resume; otherwise the guest corrects its own clock, or nothing
        does."""
        return self.repairs and not self.is_daemon

    @property
    def needs_host(self) -> bool:
        """True when it works only during a run, by the host's time server or an action at the resume."""
        return self.acts_from_host or self.uses_ntp

    @property
    def is_of_windows(self) -> bool:
        """True when the guest is a Windows that has it already: nothing is installed."""
        return self.traits.windows

    @property
    def fits_kept_guest(self) -> bool:
        """True when a kept guest can have it outside of runs."""
        return not self.needs_host and not self.is_of_windows

    @property
    def is_daemon(self) -> bool:
        """True when a program in the guest disciplines its clock, with a configuration of its own."""
        return self.means.is_daemon

    @property
    def uses_ntp(self) -> bool:
        """True when it needs the host's NTP server."""
        return "{server}" in self.traits.config

    @property
    def reads_rtc(self) -> bool:
        """True when its time comes from the guest's RTC: whole seconds, and no more correct than the RTC."""
        return self.means in (Means.AGENT_RTC, Means.HWCLOCK) or "{rtc_offset}" in self.traits.config

    def config(self, server: str = "", port: int = 0, device: str = "", rtc_behind_ns: int = 0) -> str:
        """The configuration of its program; "" for one without.

        server, port: of the host's NTP server as the guest sees it. timesyncd and ntpd have no word for a
        port: the image's /usr/lib/freezelab/ntp-port sees to that. device: the PHC, such as /dev/ptp0.
        rtc_behind_ns: REALTIME less the guest's RTC.
        """
        values = {
            "{server}": server,
            "{port}": str(port),
            "{device}": device,
            "{rtc_offset}": f"{rtc_behind_ns / NS_PER_S:.3f}",
        }
        text = self.traits.config
        for name, value in values.items():
            text = text.replace(name, value)
        return text


_TRAITS = {
    ResyncMechanism.NONE: MechanismTraits("nothing repairs the clock", Means.NOTHING),
    ResyncMechanism.AGENT: MechanismTraits(
        "the host sets the time in nanoseconds through the guest agent", Means.AGENT_TIME
    ),
    ResyncMechanism.AGENT_RTC: MechanismTraits(
        "the guest agent reads the RTC (libvirt's SYNC flag)", Means.AGENT_RTC
    ),
    ResyncMechanism.DOMTIME_NOW: MechanismTraits(
        "the host sets whole seconds through the agent (virsh domtime --now)", Means.AGENT_SECONDS
    ),
    ResyncMechanism.HWCLOCK: MechanismTraits("hwclock --hctosys in the guest, on the resume", Means.HWCLOCK),
    ResyncMechanism.PUSH: MechanismTraits(
        "the host measures the offset on the resume, and the guest steps by it", Means.PUSH
    ),
    ResyncMechanism.CHRONY: MechanismTraits("chronyd, makestep 1.0 -1", Means.CHRONYD, configs.CHRONY_CONF),
    ResyncMechanism.CHRONY_DISTRIBUTION: MechanismTraits(
        "chronyd, makestep 1 3 as several distributions have it",
        Means.CHRONYD,
        configs.CHRONY_DISTRIBUTION_CONF,
        updates=4,  # one more than makestep's limit
    ),
    ResyncMechanism.CHRONY_FROZEN: MechanismTraits(
        "chronyd, set up for guests that are frozen", Means.CHRONYD, configs.CHRONY_FROZEN_CONF
    ),
    ResyncMechanism.CHRONY_PHC: MechanismTraits(
        "chronyd on the host's clock by ptp_kvm",
        Means.CHRONYD,
        configs.CHRONY_PHC_CONF,
        ptp=PtpClock("ptp_kvm", "KVM virtual PTP"),
    ),
    ResyncMechanism.CHRONY_RTC: MechanismTraits(
        "chronyd on the guest's RTC (chrony 4.7)",
        Means.CHRONYD,
        configs.CHRONY_RTC_CONF,
        feature=Feature("refclock RTC", (4, 7)),
    ),
    ResyncMechanism.TIMESYNCD: MechanismTraits("systemd-timesyncd", Means.TIMESYNCD, configs.TIMESYNCD_CONF),
    ResyncMechanism.TIMESYNCD_RESYNC: MechanismTraits(
        "systemd-timesyncd, told to poll at the resume by a touch of the clock",
        Means.TIMESYNCD_RESYNC,
        configs.TIMESYNCD_CONF,
    ),
    ResyncMechanism.NTPD: MechanismTraits("ntpd (ntpsec)", Means.NTPD, configs.NTPD_CONF),
    ResyncMechanism.OPENNTPD: MechanismTraits(
        "OpenNTPD's ntpd, which never steps once it runs", Means.OPENNTPD, configs.OPENNTPD_CONF
    ),
    ResyncMechanism.PHC2SYS: MechanismTraits(
        "phc2sys (linuxptp) on the host's clock by ptp_kvm",
        Means.PHC2SYS,
        configs.PHC2SYS_CONF,
        ptp=PtpClock("ptp_kvm", "KVM virtual PTP"),
    ),
    ResyncMechanism.VMCLOCK: MechanismTraits(
        "chronyd, told to poll when the vmclock device reports a disruption",
        Means.VMCLOCK,
        configs.CHRONY_VMCLOCK_CONF,
        device="vmclock",
    ),
    ResyncMechanism.VIRTIO_RTC: MechanismTraits(
        "chronyd on the host's clock by virtio-rtc",
        Means.CHRONYD,
        configs.CHRONY_PHC_CONF,
        ptp=PtpClock(
            "virtio_rtc",
            "Virtio PTP",
            "Linux has it from 6.16 on; Debian's up to 7.3 are built without (VIRTIO_RTC is not set)",
        ),
        device="virtio-rtc-pci",
    ),
    ResyncMechanism.W32TIME: MechanismTraits(
        f"the Windows Time service of a stand-alone Windows ({UNSEEN})",
        Means.W32TIME,
        configs.W32TIME_CONF,
        windows=True,
    ),
    ResyncMechanism.W32TIME_DOMAIN: MechanismTraits(
        f"the Windows Time service of a domain member ({UNSEEN})",
        Means.W32TIME,
        configs.W32TIME_DOMAIN_CONF,
        windows=True,
    ),
    ResyncMechanism.W32TIME_ACCURATE: MechanismTraits(
        f"the Windows Time service with Microsoft's settings for high accuracy ({UNSEEN})",
        Means.W32TIME,
        configs.W32TIME_ACCURATE_CONF,
        windows=True,
    ),
}
