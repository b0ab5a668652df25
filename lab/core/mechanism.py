"""What brings a guest's clock back to time after a freeze, by name."""

from __future__ import annotations

from enum import StrEnum


class ResyncMechanism(StrEnum):
    """What brings the guest's clock back to time after the resume."""

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
    TIMESYNCD = "timesyncd"
    NTPD = "ntpd"
    VMCLOCK = "vmclock"

    @property
    def about(self) -> str:
        """What it does, in a few words."""
        return _ABOUT[self]

    @property
    def uses_agent(self) -> bool:
        """Whether the host acts through qemu-guest-agent."""
        return self in (self.AGENT, self.AGENT_RTC, self.DOMTIME_NOW)

    @property
    def acts_from_host(self) -> bool:
        """Whether the host does it, on the resume; else the guest helps itself, or nobody does."""
        return self.uses_agent or self in (self.PUSH, self.HWCLOCK)

    @property
    def is_daemon(self) -> bool:
        """Whether a program in the guest keeps its clock in time, with a configuration of its own."""
        return self is not self.NONE and not self.acts_from_host

    @property
    def is_chrony(self) -> bool:
        """Whether that program is chronyd."""
        return self.is_daemon and self not in (self.TIMESYNCD, self.NTPD)

    @property
    def uses_ntp(self) -> bool:
        """Whether it needs the host's NTP server."""
        return self in (self.CHRONY, self.CHRONY_DISTRIBUTION, self.CHRONY_FROZEN, self.TIMESYNCD, self.NTPD)

    @property
    def reads_rtc(self) -> bool:
        """Whether its time comes from the guest's RTC: whole seconds, and only as right as the RTC is."""
        return self in (self.AGENT_RTC, self.HWCLOCK)


_ABOUT = {
    ResyncMechanism.NONE: "nothing repairs the clock",
    ResyncMechanism.AGENT: "the host sets the time in nanoseconds through the guest agent",
    ResyncMechanism.AGENT_RTC: "the guest agent reads the RTC (libvirt's SYNC flag)",
    ResyncMechanism.DOMTIME_NOW: "the host sets whole seconds through the agent (virsh domtime --now)",
    ResyncMechanism.HWCLOCK: "hwclock --hctosys in the guest, on the resume",
    ResyncMechanism.PUSH: "the host measures the offset on the resume, and the guest steps by it",
    ResyncMechanism.CHRONY: "chronyd, makestep 1.0 -1",
    ResyncMechanism.CHRONY_DISTRIBUTION: "chronyd, makestep 1 3 as several distributions have it",
    ResyncMechanism.CHRONY_FROZEN: "chronyd, set up for guests that are frozen",
    ResyncMechanism.CHRONY_PHC: "chronyd on the host's clock by ptp_kvm",
    ResyncMechanism.TIMESYNCD: "systemd-timesyncd",
    ResyncMechanism.NTPD: "ntpd (ntpsec)",
    ResyncMechanism.VMCLOCK: "chronyd on the vmclock device",
}
