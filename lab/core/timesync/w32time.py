"""How the Windows Time service handles an offset, as Microsoft's documentation has it ("Windows Time service
tools and settings", learn.microsoft.com). The lab was never run with Windows: every forecast says so.

It polls a peer with the flag 0x1 every SpecialPollInterval seconds, others every 2^MinPollInterval to
2^MaxPollInterval s. Since Windows 10 1703 SpecialPollInterval is kept within these two. That the timer stands
still with the guest, so that a pause does not advance a poll, is an assumption.

- An offset above MaxPosPhaseCorrection (of a guest that is behind) or MaxNegPhaseCorrection (of one that is
  ahead), in seconds, is logged and not corrected; 0xFFFFFFFF is no limit.
- An offset of LargePhaseOffset or more, in units of 100 ns, is a spike: ignored, unless it persists for
  SpikeWatchPeriod seconds. During HoldPeriod, after the start, spikes are not looked for. The documentation
  does not say how many samples are still to come, so the spike may be waited out or not.
- An offset above MaxAllowedPhaseOffset, in seconds, is set at once. A smaller one is corrected gradually by
  the rate of the clock, if that takes no more than half of it, else at once as well:

      PhaseCorrection <= SystemClockRate / 2, where PhaseCorrection is, from Windows Server 2016 on,
      min(offset / (16 x PhaseCorrectRate x poll interval in s), offset / (UpdateInterval / 100)),
      and before offset / (PhaseCorrectRate x UpdateInterval),

  with offset and SystemClockRate in ticks of 100 ns. Which Windows it is is not known, so between the two
  limits the kind of correction is not known either.

Nothing says for how long a PhaseCorrection applies. Its latest end here is an estimate: PhaseCorrection is
what is added in each SystemClockRate of ticks, and is computed anew every UpdateInterval (10 ms each) from
what is left, which falls with a time constant of 1/64 s times the divisor.
"""

from __future__ import annotations

from collections.abc import Mapping

from lab.core.clock import Interval
from lab.core.mechanism import UNSEEN
from lab.core.quantities import format_about
from lab.core.resync import Correction
from lab.core.timesync.forecast import Forecast
from lab.core.timesync.situation import Situation
from lab.core.timesync.texts import number
from lab.core.timesync_setup import Setup
from lab.core.units import NS_PER_MS, NS_PER_S

TICK_NS = 100
CLOCK_RATE = 156_250
"""SystemClockRate in ticks: the default of LastClockRate, 15.625 ms."""

UPDATE_NS = 10 * NS_PER_MS
"""The unit of UpdateInterval."""

NO_LIMIT = 0xFFFFFFFF
MOST_POLL = 17
"""The largest exponent of a poll interval in NTP (RFC 5905, MAXPOLL)."""

SPECIAL = 0x1
"""The peer's flag SpecialInterval."""

SOURCE_NS = 200 * NS_PER_MS
"""How close to the true time it comes by a server on the Internet: half of a long round trip, and the clock's
ticks of 16 ms. An estimate; Microsoft calls the default "loosely accurate"."""

TIME_CONSTANTS = 4
"""After this many time constants 2 % of an offset are left."""

SOURCES = (
    "Microsoft, Windows Time service tools and settings (learn.microsoft.com)",
    "Microsoft, Configuring systems for high accuracy (learn.microsoft.com)",
)

_DEFAULTS = {
    "SpecialPollInterval": 604_800,
    "MinPollInterval": 10,
    "MaxPollInterval": 15,
    "MaxAllowedPhaseOffset": 1,
    "MaxNegPhaseCorrection": 54_000,
    "MaxPosPhaseCorrection": 54_000,
    "LargePhaseOffset": 50_000_000,
    "SpikeWatchPeriod": 900,
    "PhaseCorrectRate": 7,
    "UpdateInterval": 360_000,
}
"""Those of a stand-alone Windows."""


def values(config: str) -> dict[str, int]:
    """The registry's numbers in the output of `w32tm /query /configuration`, "Name: 5 (Local)", with the
    defaults of a stand-alone Windows for what is missing, and `special`: 1 when a peer has the flag 0x1."""
    given: dict[str, str] = {}
    for line in config.splitlines():
        name, _, value = line.partition(":")
        given[name.strip()] = value.strip()
    numbers = {name: value.split()[0] for name, value in given.items() if value}
    found = dict(_DEFAULTS)
    found |= {name: read for name in _DEFAULTS if (read := number(numbers, name)) is not None and read >= 0}
    for name in ("PhaseCorrectRate", "UpdateInterval"):
        found[name] = max(1, found[name])
    flags = [peer.partition(",")[2] for peer in given.get("NtpServer", "").split()]
    found["special"] = int(any(_flags(text) & SPECIAL for text in flags))
    return found


def _flags(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        return 0


def poll_ns(value: Mapping[str, int]) -> Interval:
    """The shortest and longest poll interval. value: those of values()."""
    exponents = [min(value[name], MOST_POLL) for name in ("MinPollInterval", "MaxPollInterval")]
    least, most = 1 << exponents[0], 1 << max(exponents)
    if value["special"]:
        kept = min(max(value["SpecialPollInterval"], least), most)
        least, most = sorted((kept, value["SpecialPollInterval"]))
    return Interval(least * NS_PER_S, most * NS_PER_S)


def _divisors(value: Mapping[str, int], poll_s: int) -> tuple[int, int]:
    """By what an offset is divided for PhaseCorrection: from 2016 on, and before."""
    newer = max(16 * value["PhaseCorrectRate"] * poll_s, value["UpdateInterval"] // 100)
    return newer, value["PhaseCorrectRate"] * value["UpdateInterval"]


def gradual_ns(value: Mapping[str, int], clock_rate: int = CLOCK_RATE) -> Interval:
    """The largest offset that is corrected gradually, as bounds: every Windows does so up to low_ns, and none
    above high_ns. value: those of values(). clock_rate: SystemClockRate in ticks of 100 ns."""
    most = value["MaxAllowedPhaseOffset"] * NS_PER_S
    polls = poll_ns(value)
    found = [
        clock_rate * divisor // 2 * TICK_NS
        for poll in (polls.low_ns, polls.high_ns)
        for divisor in _divisors(value, poll // NS_PER_S)
    ]
    return Interval(min(most, *found), min(most, max(found)))


def latest_ns(value: Mapping[str, int], off: Interval) -> int:
    """The latest end of its correction of an offset in `off` (magnitudes), in ns after the resume: the next
    poll, the spike's time and the poll after that, and the gradual correction (an estimate)."""
    poll = poll_ns(value).high_ns
    latest = poll
    if off.high_ns >= value["LargePhaseOffset"] * TICK_NS:
        latest += value["SpikeWatchPeriod"] * NS_PER_S + poll
    if off.low_ns <= gradual_ns(value).high_ns:
        update = value["UpdateInterval"] * UPDATE_NS
        constant = max(_divisors(value, poll // NS_PER_S)) * NS_PER_S // 64
        latest += TIME_CONSTANTS * max(constant, update) + update
    return latest


def forecast(setup: Setup, at: Situation) -> Forecast:
    value = values(setup.config)
    ahead = at.at_resume.mid_ns > 0
    limit_s = value["MaxNegPhaseCorrection" if ahead else "MaxPosPhaseCorrection"]
    limit = limit_s * NS_PER_S if limit_s != NO_LIMIT else None
    left = Interval(-SOURCE_NS, SOURCE_NS)
    if at.right:
        return Forecast(True, Correction.NONE, None, left, f"nothing to repair; {UNSEEN}", SOURCES)
    if limit is not None and at.off.high_ns > limit:
        text = f"more than {format_about(limit)} off: logged, and not corrected; {UNSEEN}"
        if at.off.low_ns > limit:
            return Forecast(False, Correction.NONE, None, -at.lost, text, SOURCES)
        return Forecast(None, None, None, None, text, SOURCES)
    gradual, large = gradual_ns(value), value["LargePhaseOffset"] * TICK_NS
    within = Interval(0, latest_ns(value, at.off))
    correction: Correction | None = Correction.STEP
    how, when = "stepped", "at its next poll"
    if at.off.high_ns <= gradual.low_ns:
        # At most half as fast again: PhaseCorrection <= SystemClockRate / 2.
        within = Interval(2 * max(0, at.off.low_ns - SOURCE_NS), within.high_ns)
        how, correction, when = "slewed", Correction.SLEW, "after its next poll"
    elif at.off.low_ns <= gradual.high_ns:
        how, correction, when = "stepped or slewed", None, "after its next poll"
    text = f"{how} {when}{at.until(within)}"
    if at.off.high_ns >= large:
        watched = format_about(value["SpikeWatchPeriod"] * NS_PER_S)
        text += f"; {format_about(large)} or more is a spike to it, which it may ignore for {watched}"
    text += f"; {UNSEEN}"
    return Forecast(True, correction, within, left, text, SOURCES, once=correction is Correction.STEP)
