"""The configurations that the lab installs, by mechanism: {server}, {port} and {device} are filled in.

They stand here, beside the rules that read them, because what a plan predicts is predicted from the same text
as what a run does. Each is the whole configuration of its program: Debian's own is put aside while it is in.
"""

from __future__ import annotations

from lab.core.mechanism import ResyncMechanism

CHRONY = """\
server {server} port {port} minpoll 0 maxpoll 0 iburst
makestep 1.0 -1
driftfile /var/lib/chrony/chrony.drift
"""

CHRONY_DISTRIBUTION = """\
# Debian's chrony.conf, with the lab's server and its poll interval of 1 s in place of Debian's pool and 64 s
# (a longer interval would add waiting, and say nothing of makestep).
server {server} port {port} minpoll 0 maxpoll 0 iburst
driftfile /var/lib/chrony/chrony.drift
maxupdateskew 100.0
rtcsync
makestep 1 3
"""

CHRONY_FROZEN = """\
# For a guest that is frozen now and then, and stands behind by the pause when it goes on.
#
# minpoll -2: asked every 0.25 s, the first answer after a resume is here in 0.25 s. chronyd takes intervals
#   below 1 s only where the round trip is below 10 ms, as to a guest's own host; else it asks every second.
# maxsamples 1: only the newest sample counts. With more of them the pause is fitted as a frequency: samples
#   from before it lie on one side, those from after it on the other, and the line through them is steep (a
#   guest was seen to overshoot by 1.1 s). One sample has no slope: the frequency is left as it is. At this
#   interval even a drift of 100 ppm moves the clock by no more than 25 us between two corrections.
#   The price: chronyd knows nothing of its own scatter then, and claims no better than 4 s.
# maxdelay 0.05: a sample is wrong by at most half its round trip, so by 25 ms; longer ones are dropped.
# makestep 0.05 -1: what is off by more than any sample can be wrong was frozen, and is stepped, always. What
#   is smaller is slewed, at no more than 83333 ppm (the default), so in less than a second.
server {server} port {port} minpoll -2 maxpoll -2 maxsamples 1 maxdelay 0.05 iburst
makestep 0.05 -1
driftfile /var/lib/chrony/chrony.drift
"""

CHRONY_PHC = """\
# The host's clock as the guest's kernel reads it: no network, no round trip to speak of.
refclock PHC {device} poll -2 dpoll -2 filter 1 maxsamples 1 stratum 2
makestep 0.05 -1
driftfile /var/lib/chrony/chrony.drift
"""

TIMESYNCD = """\
[Time]
NTP={server}
FallbackNTP=
"""

NTPD = """\
driftfile /var/lib/ntpsec/ntp.drift
server {server} iburst
restrict default kod nomodify nopeer noquery limited
restrict 127.0.0.1
restrict ::1
"""

CONFIGS: dict[ResyncMechanism, str] = {
    ResyncMechanism.CHRONY: CHRONY,
    ResyncMechanism.CHRONY_DISTRIBUTION: CHRONY_DISTRIBUTION,
    ResyncMechanism.CHRONY_FROZEN: CHRONY_FROZEN,
    ResyncMechanism.CHRONY_PHC: CHRONY_PHC,
    ResyncMechanism.VMCLOCK: CHRONY_PHC,
    ResyncMechanism.TIMESYNCD: TIMESYNCD,
    ResyncMechanism.NTPD: NTPD,
}


def filled(mechanism: ResyncMechanism, server: str = "", port: int = 0, device: str = "") -> str:
    """The mechanism's configuration; "" for one without.

    server, port: of the host's NTP server as the guest sees it. timesyncd and ntpd have no word for a port:
    the image's /usr/lib/freezelab/ntp-port sees to that. device: the PHC, such as /dev/ptp0.
    """
    text = CONFIGS.get(mechanism, "")
    return text.replace("{server}", server).replace("{port}", str(port)).replace("{device}", device)
