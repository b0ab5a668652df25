"""How systemd-timesyncd handles an offset (systemd 252, src/timesync/timesyncd-manager.c; timesyncd.conf(5)).

It polls every PollIntervalMinSec to PollIntervalMaxSec (32 s to 2048 s): the interval doubles while |offset|
< 0.05 s, and returns to the minimum beyond 0.2 s (manager_adjust_poll, NTP_ACCURACY_SEC). Its timer uses
CLOCK_BOOTTIME, which stands still with the guest, so a pause does not advance a poll. An answer with |offset|
>= 0.4 s steps the clock by it at once (manager_adjust_clock, NTP_MAX_ADJUST, ADJ_SETOFFSET); one offset
larger than the round trip is never a spike. Below that the kernel's PLL slews it, time constant
log2(interval) - 4.

The kernel's PLL takes 2^-(2 + constant) of what is left each second (Linux, kernel/time/ntp.c,
ntp_offset_chunk, SHIFT_PLL), so the offset falls with a time constant of as many seconds; and it changes the
frequency (ntp_update_offset) by at most half of the offset over the next interval, or the 500 ppm of MAXFREQ,
which overshoots.

When somebody else sets the clock, by however little, it polls at once and returns to the minimum interval
(manager_clock_watch: a timer of TFD_TIMER_CANCEL_ON_SET). So a touch of the clock at the resume tells it to
poll. It has to move the clock, if only by a microsecond: Linux wakes such a timer when REALTIME less
MONOTONIC has changed (fs/timerfd.c, timerfd_clock_was_set), so a step of nothing is not noticed.

Status keys, all optional: `PollIntervalUSec` as `timedatectl show-timesync` writes it ("34min 8s"), or in
microseconds; `since_poll_s` seconds since the last answer.
"""

from __future__ import annotations

import re
from fractions import Fraction

from lab.core.clock import Interval
from lab.core.mechanism import Means
from lab.core.quantities import format_about
from lab.core.resync import Correction
from lab.core.timesync.forecast import Forecast
from lab.core.timesync.situation import SOURCE_NS, Situation
from lab.core.timesync.texts import number, real, words
from lab.core.timesync_setup import Setup
from lab.core.units import NS_PER_MS, NS_PER_S, NS_PER_US

STEP_NS = 400 * NS_PER_MS
LEAST_S, MOST_S, SMALLEST_S = 32, 2048, 16
RETRY_NS = 20 * NS_PER_S
"""After a lost answer it polls again after 15 s (NTP_RETRY_INTERVAL_MIN_USEC); the timer itself may be late
by 250 ms (sd_event's default accuracy)."""

POLLED_NS = 5 * NS_PER_S
"""From the resume to the answer of the poll that a touch of the clock made it send: an estimate."""

REGAINED_NS = 20 * NS_PER_S
"""The same until the connection is there again by which the clock is touched, where the pause cut it."""

STALE_NS = 60 * NS_PER_S
"""The largest age of its state at the freeze: the settling, and the measurement of the offset before it."""

SHIFT_PLL = 2
MAXTC = 10
TIME_CONSTANTS = 4
"""After this many time constants 2 % of an offset are left."""

SOURCES = (
    "timesyncd.conf(5): PollIntervalMinSec, PollIntervalMaxSec",
    "systemd src/timesync/timesyncd-manager.c (manager_adjust_clock, manager_adjust_poll)",
)
KERNEL = "Linux kernel/time/ntp.c (ntp_update_offset, ntp_offset_chunk)"

_UNITS = {
    "": NS_PER_S, "s": NS_PER_S, "sec": NS_PER_S, "second": NS_PER_S, "seconds": NS_PER_S,
    "us": NS_PER_US, "usec": NS_PER_US, "µs": NS_PER_US, "ms": NS_PER_MS, "msec": NS_PER_MS,
    "m": 60 * NS_PER_S, "min": 60 * NS_PER_S, "minute": 60 * NS_PER_S, "minutes": 60 * NS_PER_S,
    "h": 3600 * NS_PER_S, "hr": 3600 * NS_PER_S, "hour": 3600 * NS_PER_S, "hours": 3600 * NS_PER_S,
}  # fmt: skip
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-zµ]*)\s*")


def span_ns(text: str) -> int | None:
    """A time span as systemd.time(7) writes it, "34min 8s"; plain numbers are seconds. None if the text is
    not one."""
    total, at, text = Fraction(0), 0, text.strip()
    while at < len(text):
        match = _SPAN.match(text, at)
        if match is None or match[2] not in _UNITS:
            return None
        total += (real(match[1]) or 0) * _UNITS[match[2]]
        at = match.end()
    return round(total) if text else None


def most_ns(config: str) -> int:
    """The longest polling interval. A value that systemd refuses leaves the default; it is never shorter than
    the minimum."""
    found, section = {}, ""
    for line in words(config, "#;"):
        text = " ".join(line)
        if text.startswith("["):
            section = text
        elif section == "[Time]" and "=" in text:
            name, value = text.split("=", 1)
            found[name.strip()] = span_ns(value)
    least = found.get("PollIntervalMinSec") or LEAST_S * NS_PER_S
    if least < SMALLEST_S * NS_PER_S:
        least = LEAST_S * NS_PER_S
    most = found.get("PollIntervalMaxSec") or MOST_S * NS_PER_S
    return most if most >= least else max(MOST_S * NS_PER_S, least)


def _next_poll(setup: Setup, most: int) -> Interval:
    """The time of its next poll after the resume. Its state was read some time before the freeze."""
    reported = setup.status.get("PollIntervalUSec", "").strip()
    now = int(reported) * NS_PER_US if reported.isdecimal() else span_ns(reported)
    if not now:
        return Interval(0, most + RETRY_NS)
    now, since = min(now, most), number(setup.status, "since_poll_s")
    earliest = 0 if since is None else now - since * NS_PER_S - STALE_NS
    return Interval(min(now, max(0, earliest)), now + RETRY_NS)


def forecast(setup: Setup, at: Situation) -> Forecast:
    most = most_ns(setup.config)
    told = setup.mechanism.means is Means.TIMESYNCD_RESYNC
    polled = Interval(0, POLLED_NS + REGAINED_NS * at.cut) if told else _next_poll(setup, most)
    which = "the poll that it is told to make" if told else "its next poll"
    if at.right:
        # What it corrects all the time: some error of its own that a slew of up to 500 ppm made.
        left = Interval(-SOURCE_NS, SOURCE_NS)
        return Forecast(True, Correction.NONE, None, left, "nothing to repair", SOURCES)
    if at.off.low_ns >= STEP_NS:
        text = f"stepped at {which}{at.until(polled)}"
        left = Interval(-SOURCE_NS, SOURCE_NS)
        return Forecast(True, Correction.STEP, polled, left, text, SOURCES, once=True)
    # What it slews by is at most twice the interval that was over.
    interval = min(most, LEAST_S * NS_PER_S if told else 2 * (polled.high_ns - RETRY_NS))
    constant = min(MAXTC, max(0, (interval // NS_PER_S).bit_length() - 1 - 4))
    slewed = TIME_CONSTANTS * (NS_PER_S << SHIFT_PLL + constant)
    within = Interval(polled.low_ns, polled.high_ns + slewed)
    over = max(SOURCE_NS, at.off.high_ns // 2)
    left = Interval(-over, over)
    if at.off.high_ns < STEP_NS:
        text = f"slewed by the kernel's PLL after {which}{at.until(within)}"
        return Forecast(True, Correction.SLEW, within, left, text, (*SOURCES, KERNEL))
    text = f"stepped or slewed (about {format_about(STEP_NS)}) after {which}{at.until(within)}"
    return Forecast(True, None, within, left, text, (*SOURCES, KERNEL))
