"""Findings on the guest's clock after a pause: when it was in time again, its final offset, its drift."""

from __future__ import annotations

from collections.abc import Iterator

from lab.core.clock import Interval
from lab.core.clock_disturbance import Delay, delay_of
from lab.core.cycle_findings import CycleFindings
from lab.core.predictions import compared
from lab.core.quantities import format_interval, format_seconds
from lab.core.resync import RUNAWAY_PPM, SyncOutcome, runs_wild
from lab.core.units import NS_PER_S, format_duration
from lab.core.verdict import Finding, Outcome, at_most

AS_PREDICTED = "resync"
"""The metric of the finding that compares a resync with its forecast."""


class ResyncFindings(CycleFindings):
    """The findings `in time`, `as predicted`, `final offset` and `drift` of one cycle."""

    def in_time(self) -> Iterator[Finding]:
        within, resync = self.expect.in_time_within_ns, self.result.resync
        if within is None or self.result.control:
            return
        text = f"within {format_duration(within)}, ± {format_duration(self.expect.tolerance_ns)}"
        if resync is None:
            yield self._finding(
                "in time", text, "not measured", Outcome.INCONCLUSIVE, "no readings after the resume"
            )
        elif resync.time is not None:
            outcome = at_most(within, resync.time.low_ns, resync.time.high_ns)
            why = (
                ""
                if outcome is Outcome.PASSED
                else f"in time only after {format_seconds(resync.time.high_ns)}"
            )
            outcome, why = self._delayed(outcome, why, resync.time.low_ns - within)
            yield self._finding("in time", text, format_seconds(resync.time.high_ns), outcome, why)
        elif resync.outcome is SyncOutcome.NOT_SYNCED and self._last_point_ns() > within:
            outcome, why = self._delayed_offset(Outcome.FAILED, self._not_in_time(), self.expect.tolerance_ns)
            yield self._finding("in time", text, "never", outcome, why)
        elif resync.outcome is SyncOutcome.NOT_SYNCED:
            why = f"{self._not_in_time()}; the watch was shorter than {format_duration(within)}"
            yield self._finding("in time", text, "not yet", Outcome.INCONCLUSIVE, why)
        else:
            yield self._finding("in time", text, "undecided", Outcome.INCONCLUSIVE, resync.why)

    def _delayed(self, outcome: Outcome, why: str, over_ns: int) -> tuple[Outcome, str]:
        """The outcome of a time limit that was missed by `over_ns`. It is inconclusive when a mechanism
        corrects the clock and the busy host may have delayed the correction by as much."""
        return self._explained(outcome, why, over_ns <= self._delay.longest_ns)

    def _delayed_offset(self, outcome: Outcome, why: str, limit_ns: int) -> tuple[Outcome, str]:
        """The outcome of a limit on the final offset, by the same rule."""
        final, within = self.result.final, Interval(-limit_ns, limit_ns)
        off = self._delay.off(self.result.at_resume)
        return self._explained(outcome, why, final is None or final.meets(within + off))

    def _explained(self, outcome: Outcome, why: str, by_delay: bool) -> tuple[Outcome, str]:
        delay = self._delay.longest_ns
        if outcome is not Outcome.FAILED or not (delay and by_delay and self.result.mechanism.repairs):
            return outcome, why
        return Outcome.INCONCLUSIVE, f"{why}; {self._delay.text}"

    @property
    def _delay(self) -> Delay:
        resync = self.result.resync
        return delay_of(self.obs, resync.time if resync is not None else None)

    def _not_in_time(self) -> str:
        final = self.result.final
        watched = format_duration(round(self._watched_ns(), -8))
        if final is None:
            return f"not in time after {watched}"
        where = "behind" if final.mid_ns < 0 else "ahead"
        size = format_interval(final if final.mid_ns >= 0 else -final)
        by = "" if self.result.mechanism.repairs else ", and no mechanism was to correct it"
        return f"still {size} {where} {watched} after the resume{by}"

    def _last_point_ns(self) -> int:
        """The earliest time after the resume at which the last reading can have been taken; 0 without one."""
        curve = self.result.resync.curve if self.result.resync else ()
        return curve[-1].from_ns if curve else 0

    def _watched_ns(self) -> int:
        curve = self.result.resync.curve if self.result.resync else ()
        return curve[-1].at_ns if curve else 0

    def as_predicted(self) -> Iterator[Finding]:
        """Whether the resync agrees with the mechanism's forecast; inconclusive when the watch was too
        short."""
        if not self.expect.as_predicted or not self.obs.frozen or self.result.control:
            return
        agrees, words = compared(self.result)
        known = {True: Outcome.PASSED, False: Outcome.FAILED, None: Outcome.INCONCLUSIVE}
        forecast = self.result.forecast
        why = (
            "" if agrees else f"{words or 'there was no forecast'}{f' ({forecast.text})' if forecast else ''}"
        )
        yield self._finding(AS_PREDICTED, "as predicted", words or "undecided", known[agrees], why)

    def final_offset(self) -> Iterator[Finding]:
        limit, final = self.expect.final_offset_ns, self.result.final
        if limit is None or self.result.control:
            return
        text = f"at most {format_duration(limit)}"
        if final is None:
            why = "the final offset was not measured"
            yield self._finding("final offset", text, "not measured", Outcome.INCONCLUSIVE, why)
            return
        outcome = at_most(limit, final.smallest_ns, final.largest_ns)
        why = (
            ""
            if outcome is Outcome.PASSED
            else f"final offset {format_interval(final, signed=True)}, expected {text}"
        )
        outcome, why = self._delayed_offset(outcome, why, limit)
        yield self._finding("final offset", text, format_interval(final, signed=True), outcome, why)

    def drift(self) -> Iterator[Finding]:
        limit, drift = self.expect.drift_ppm, self.result.drift_after
        if limit is None or self.result.control:
            return
        text = f"at most {limit:g} ppm"
        if drift is None:
            why = "no straight line fits the offset after the resync"
            yield self._finding("drift", text, "not measured", Outcome.INCONCLUSIVE, why)
            return
        smallest = 0.0 if drift.low <= 0 <= drift.high else min(abs(drift.low), abs(drift.high))
        outcome = at_most(limit, smallest, drift.largest_ppm)
        measured = f"{drift.ppm:+.0f} ± {drift.bound_ppm:.0f} ppm"
        why = ""
        if drift.high < -RUNAWAY_PPM and not runs_wild(self.result.drift_before):
            outcome, why = Outcome.INCONCLUSIVE, f"drift {measured}: its clock, or it, was stopped meanwhile"
        elif outcome is Outcome.INCONCLUSIVE:
            window = drift.window_for_ns(max(1.0, limit / 2)) / NS_PER_S
            why = f"drift {measured}: the window is too short; about {window:.0f} s are enough"
        elif outcome is Outcome.FAILED:
            why = f"drift {measured}"
        yield self._finding("drift", text, measured, outcome, why)
