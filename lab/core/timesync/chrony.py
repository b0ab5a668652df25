"""How chronyd handles an offset that appears at once (chrony 4.3; the RTC: 4.9).

Samples. Each poll gives one; a source's offset is where a straight line through its last samples ends now,
and samples are dropped from its start while the residuals' signs change too seldom, down to minsamples
(sourcestats.c, SST_DoNewRegression; regress.c, RGR_FindBestRegression). So after a jump the estimated offset
approaches the true one in parts, and while the samples scatter by more than maxjitter (1 s) or maxdistance (3
s) the source is not selected at all (sources.c, SRC_SelectSource). After `minsamples` new samples none of the
old ones is left.

Of a line through n samples of which the last share f lies at P and the others at 0, the end lies at P (4 f -
3 f^2): at P from f = 1/3 on, and at most at 4/3 P (f = 2/3). That follows from least squares; it is not a
rule of chrony's.

Correction. Each update steps when the offset that is not already being slewed is beyond makestep's threshold
and its limit is not used up (reference.c, is_step_limit_reached), and slews otherwise, at most at maxslewrate
(sys_generic.c, update_slew: at least 1 s for each). A step may overshoot (4/3), which a later one corrects.

Reference clocks. A sample is made of the readings since the last poll, at most `filter` of them: some 60 %,
those about the median, are averaged (samplefilt.c), so the first sample after a pause may show only a part of
it. The RTC is read once a second, at its update interrupt (refclock_rtc.c), which may be late but never
early. The first interrupt after a pause was due during it: it comes at once, in the middle of a second, and
is read as the second's beginning. A median of three or more excludes it.

A guest whose clocks run on through a pause of more than 10 s sees the time jump forward in its scheduler
(sched.c, check_current_time, JUMP_DETECT_THRESHOLD): sources are reset, the clock is not changed.

Status keys, all optional: `poll` the current polling interval, a power of two in seconds; `updates` the
number of clock updates since chronyd started; `online`, `offline` the numbers of such servers (chronyc(1),
activity); `options` chronyd's command line, of which -x (the clock is not changed) and -R (a makestep with a
limit is ignored) matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from lab.core.clock import Interval
from lab.core.quantities import format_about
from lab.core.resync import Correction
from lab.core.timesync.chronyconf import ChronyConf, Source, parse
from lab.core.timesync.forecast import Forecast
from lab.core.timesync.rtc import QEMU_RTC, STOOD_STILL, TRACK, by_rtc
from lab.core.timesync.situation import SOURCE_NS, Situation
from lab.core.timesync.texts import number, switches
from lab.core.timesync_setup import Setup
from lab.core.units import NS_PER_MS, NS_PER_S

JUMP_NS = 10 * NS_PER_S
OVERSHOOT = Fraction(4, 3)
LINE = 3
"""Fewer samples make no line (regress.c, MIN_SAMPLES_FOR_REGRESS): then the newest sample is the estimate."""

POLL_LATE_NS = 2 * NS_PER_S
"""A poll is late by some percent of its interval, plus the time of an answer: an estimate."""

ROUNDS = 2
"""How often the estimate has to become true: what a first step leaves, or overshoots, shows only in new
samples."""

CONF = "chrony.conf(5): makestep, maxslewrate, minpoll, maxpoll, minsamples"
SOURCE = "chrony reference.c (is_step_limit_reached), sys_generic.c (update_slew), sources.c, sourcestats.c"
CHRONYD, CHRONYC = "chronyd(8): -x, -R", "chronyc(1): offline, activity"
WITH_VALUE = "fFlLtuD"
RTC = "chrony refclock_rtc.c, samplefilt.c; chrony.conf(5): refclock RTC"
MEDIAN = 3
"""From this number of readings on, the median excludes one wrong reading."""

SCHED = "chrony sched.c (check_current_time)"


def forecast(setup: Setup, at: Situation) -> Forecast:
    conf, options = parse(setup.config), switches(setup.status.get("options", ""), WITH_VALUE)
    if at.right:
        if at.pause.high_ns and any(source.is_rtc and source.readings < MEDIAN for source in conf.sources):
            text = "open: the RTC's first interrupt may set a right clock back, for a second"
            return Forecast(None, None, None, None, text, (RTC,))
        text = "nothing to repair"
        if at.pause.high_ns > JUMP_NS:
            text += "; after more than 10 s chronyd takes its sources anew"
        return Forecast(True, Correction.NONE, None, _left(setup, conf), text, (SCHED,))
    if "x" in options:
        text = f"left {at.side}: chronyd -x does not touch the clock"
        return Forecast(False, Correction.NONE, None, -at.lost, text, (CHRONYD,))
    if _all_offline(setup, conf.sources):
        text = f"left {at.side}: its sources are offline"
        return Forecast(False, Correction.NONE, None, -at.lost, text, (CONF, CHRONYC))
    if not conf.sources:
        if conf.elsewhere or not setup.config.strip():
            return Forecast(None, None, None, None, "open: its sources are not known", (CONF,))
        return Forecast(False, Correction.NONE, None, -at.lost, f"left {at.side}: no source", (CONF,))
    if setup.rtc_stops and at.stopped and all(source.is_rtc for source in conf.sources):
        text = f"left {at.side}: {STOOD_STILL}"
        return Forecast(False, Correction.NONE, None, -at.lost, text, (RTC, QEMU_RTC, TRACK))
    change = conf.maxchange
    if change is not None and _largest_offset_ns(at) > change.offset_s * NS_PER_S:
        text = f"open: maxchange {float(change.offset_s):g} ignores offsets, or ends chronyd"
        return Forecast(None, None, None, None, text, ("chrony.conf(5): maxchange", SOURCE))
    if "R" in options and conf.makestep is not None and conf.makestep.limit > 0:
        conf = replace(conf, makestep=None)
    return _repair(setup, conf, at)


def _all_offline(setup: Setup, sources: Sequence[Source]) -> bool:
    """True when no server is polled. Reference clocks are never offline."""
    servers = [source for source in sources if source.kind != "refclock"]
    if not servers or len(servers) < len(sources):
        return False
    online, offline = number(setup.status, "online"), number(setup.status, "offline")
    if online is None or offline is None:
        return all(source.offline for source in servers)
    return not online and offline > 0


def _largest_offset_ns(at: Situation) -> Fraction:
    """The largest offset that chronyd may estimate: the offset after the pause, with the overshoot."""
    return at.off.high_ns + at.lost.high_ns * (OVERSHOOT - 1)


def _left(setup: Setup, conf: ChronyConf) -> Interval:
    """The offset at which its sources keep the clock."""
    ends = [
        by_rtc(setup, int(source.offset_s * NS_PER_S)) if source.is_rtc else Interval(-SOURCE_NS, SOURCE_NS)
        for source in conf.sources
    ] or [Interval(-SOURCE_NS, SOURCE_NS)]
    return Interval(min(end.low_ns for end in ends), max(end.high_ns for end in ends))


def _interval_ns(poll: int) -> int:
    return NS_PER_S << poll if poll >= 0 else NS_PER_S >> -poll


def _polls(setup: Setup, sources: Sequence[Source]) -> tuple[int, int]:
    """The sampling interval of the slowest source, and the time until its old samples are gone, in
    nanoseconds. Sub-second polls need quick networks, so only 1 s is certain."""
    slowest = max(sources, key=lambda source: source.maxpoll)
    poll, reported = slowest.maxpoll, number(setup.status, "poll")
    if reported is not None and slowest.minpoll <= reported <= slowest.maxpoll:
        # It is raised by one at a time, and by an offset lowered (ntp_core.c, adjust_poll).
        poll = min(slowest.maxpoll, reported + 1)
    each = _interval_ns(max(0, poll))
    return each, (slowest.samples + 1) * (each + each // 10) + POLL_LATE_NS


def _repair(setup: Setup, conf: ChronyConf, at: Situation) -> Forecast:
    each, believed = _polls(setup, conf.sources)
    fastest = conf.max_slew_ppm / 1_000_000
    correction, why = _how(setup, conf, at, each)
    left = _left(setup, conf)
    latest = ROUNDS * believed
    earliest = 0
    rate = f"at most {float(fastest * 1000):.3g} ms a second"
    if correction is not Correction.STEP:
        # It goes too far by a third at most, and that comes back at the same rate.
        latest += int((at.off.high_ns + at.lost.high_ns * 2 * (OVERSHOOT - 1)) / fastest) if fastest else 0
    if correction is Correction.SLEW:
        # Sooner than maxslewrate alone allows: the fit takes the pause for a frequency too, and corrects that
        # beside the slew. The default, 83333 ppm, is five sixths of what the kernel can (adjtimex(2), tick).
        # What has to be slewed ends at the residual, which is wide where the source is an RTC.
        if not fastest:
            return Forecast(False, Correction.NONE, None, -at.lost, f"left {at.side}: maxslewrate 0", (CONF,))
        earliest = int((at.at_resume - left).smallest_ns / fastest * 5 / 6)
    within = Interval(earliest, max(earliest, latest))
    text = {
        Correction.STEP: f"stepped once its samples agree{at.until(within)}",
        Correction.SLEW: f"slewed, {rate}{at.until(within)}",
        None: f"stepped or slewed ({rate}){at.until(within)}",
    }[correction]
    return Forecast(True, correction, within, left, text + why, (CONF, SOURCE))


def _how(setup: Setup, conf: ChronyConf, at: Situation, each_ns: int) -> tuple[Correction | None, str]:
    """Step or slew, None when it may be either, and the reason."""
    make = conf.makestep
    if make is None:
        return Correction.SLEW, ": no makestep"
    shown = f"makestep {float(make.threshold_s):g} {make.limit}"
    updates = number(setup.status, "updates")
    if make.limit == 0 or (make.limit > 0 and updates is not None and updates >= make.limit):
        return Correction.SLEW, f": {shown} is used up"
    threshold_ns = make.threshold_s * NS_PER_S
    samples = max(source.samples for source in conf.sources)
    if (_largest_offset_ns(at) if samples >= LINE else at.off.high_ns) + NS_PER_MS <= threshold_ns:
        return Correction.SLEW, f": below {format_about(int(threshold_ns))}"
    if make.limit > 0:
        return None, f": slewed when {shown} is used up"
    # What is slewed away until a third of the samples are new, and the line ends at the offset itself.
    slewed = samples * each_ns * conf.max_slew_ppm / 1_000_000 if samples >= LINE else 0
    if any(source.readings > 1 for source in conf.sources):
        # A part of the pause is seen first, and slewed away when it is below the threshold itself.
        slewed = max(slewed, threshold_ns)
    if at.off.low_ns - slewed > threshold_ns + NS_PER_MS:
        return Correction.STEP, ""
    return None, f": about {format_about(int(threshold_ns))}"
