"""The configurations that resync mechanisms install.

They are here, because a plan's forecast and a run use the same text. Each is the whole configuration of its
program; Debian's own is moved aside while it is installed. core.mechanism says what stands in its braces.
"""

CHRONY_CONF = """\
server {server} port {port} minpoll 0 maxpoll 0 iburst
makestep 1.0 -1
driftfile /var/lib/chrony/chrony.drift
"""

CHRONY_DISTRIBUTION_CONF = """\
# Debian's chrony.conf, with the lab's server and its poll interval of 1 s in place of Debian's pool and 64 s
# (a longer interval would add waiting, and say nothing of makestep).
server {server} port {port} minpoll 0 maxpoll 0 iburst
driftfile /var/lib/chrony/chrony.drift
maxupdateskew 100.0
rtcsync
makestep 1 3
"""

CHRONY_FROZEN_CONF = """\
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

CHRONY_PHC_CONF = """\
# The host's clock as the guest's kernel reads it: no network, no round trip to speak of.
refclock PHC {device} poll -2 dpoll -2 filter 1 maxsamples 1 stratum 2
makestep 0.05 -1
driftfile /var/lib/chrony/chrony.drift
"""

CHRONY_RTC_CONF = """\
# The guest's own RTC, which runs on while the guest is frozen: no network, no agent, no KVM. chronyd refuses
# it together with rtcsync or rtcfile.
#
# utc: the RTC keeps UTC.
# poll 2, filter 4: a sample every 4 s, from the middle of the RTC's last four seconds. The first interrupt
#   after a resume is no tick: it comes in the midst of a second that is read as its beginning, and would put
#   the clock back by up to a second (seen after a stop by a signal, with filter 1). One of four is left out.
# maxsamples 1: only the newest sample counts, as in chrony-frozen.
# offset: how far the RTC was behind when this was installed. QEMU starts it with whole seconds.
# makestep 0.2 -1: what is off by more than an interrupt may be late was frozen, and is stepped, always.
refclock RTC /dev/rtc0:utc poll 2 filter 4 maxsamples 1 stratum 2 offset {rtc_offset}
makestep 0.2 -1
driftfile /var/lib/chrony/chrony.drift
"""

CHRONY_VMCLOCK_CONF = """\
# Polled every 64 s, as in a guest that is left alone, and at once when vmclock's watcher says so. One sample
# counts (maxsamples, maxdelay, makestep: as in chrony-frozen).
server {server} port {port} minpoll 6 maxpoll 6 maxsamples 1 maxdelay 0.05 iburst
makestep 0.05 -1
driftfile /var/lib/chrony/chrony.drift
"""

TIMESYNCD_CONF = """\
[Time]
NTP={server}
FallbackNTP=
"""

NTPD_CONF = """\
driftfile /var/lib/ntpsec/ntp.drift
server {server} iburst
restrict default kod nomodify nopeer noquery limited
restrict 127.0.0.1
restrict ::1
"""

OPENNTPD_CONF = """\
server {server}
"""

PHC2SYS_CONF = """\
# -O 0: the host's clock is UTC as well. -R 4: asked every 0.25 s. -S 0.05: what is off by more is stepped at
# any time; without it phc2sys steps when it starts, and never again.
OPTIONS="-s {device} -c CLOCK_REALTIME -O 0 -R 4 -S 0.05"
"""

W32TIME_ALONE = """\
Type: NTP
NtpServer: time.windows.com,0x1
SpecialPollInterval: {poll_s}
MinPollInterval: {shortest}
MaxPollInterval: {longest}
MaxAllowedPhaseOffset: 1
MaxNegPhaseCorrection: 54000
MaxPosPhaseCorrection: 54000
LargePhaseOffset: 50000000
SpikeWatchPeriod: 900
HoldPeriod: 5
PhaseCorrectRate: 7
UpdateInterval: {update}
"""
"""The registry's values of a stand-alone Windows, by the names of `w32tm /query /configuration` (Microsoft,
"Windows Time service tools and settings", registry reference)."""

W32TIME_CONF = W32TIME_ALONE.format(poll_s=604800, shortest=10, longest=15, update=360000)

W32TIME_DOMAIN_CONF = """\
Type: NT5DS
MinPollInterval: 10
MaxPollInterval: 15
MaxAllowedPhaseOffset: 300
MaxNegPhaseCorrection: 4294967295
MaxPosPhaseCorrection: 4294967295
LargePhaseOffset: 50000000
SpikeWatchPeriod: 900
HoldPeriod: 5
PhaseCorrectRate: 1
UpdateInterval: 30000
"""
"""The same of a member of an Active Directory domain."""

W32TIME_ACCURATE_CONF = W32TIME_ALONE.format(poll_s=64, shortest=6, longest=6, update=100)
"""Those of a stand-alone Windows, with the intervals of "Configuring systems for high accuracy"
(Microsoft)."""
