"""Checks of announcements: what always has to happen, and what was expected. What was not seen is
inconclusive; that something did not happen is only reported if the history continues after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from lab.core.clock import Stamp
from lab.core.event_timeline import EventTimeline, Member
from lab.core.plan import CycleSpec, NoticeExpectations
from lab.core.quantities import format_interval, format_short
from lab.core.result import CycleResult
from lab.core.units import format_duration
from lab.core.verdict import Finding, Outcome, at_least, at_most

PASSED, FAILED, OPEN = Outcome.PASSED, Outcome.FAILED, Outcome.INCONCLUSIVE


class _Judge:
    def __init__(self, timeline: EventTimeline, spec: CycleSpec, expect: NoticeExpectations) -> None:
        self.timeline, self.spec, self.expect = timeline, spec, expect
        self.announced, self.notice = timeline.announced, timeline.event.notice
        self.group = self.notice.group
        self.missing = FAILED if self.announced.complete else OPEN
        """The outcome when something that has to happen is not in the history."""

    def _finding(
        self, metric: str, expectation: str, measured: str, outcome: Outcome, why: str = ""
    ) -> Finding:
        resources = self.notice.resources
        guest = resources[0] if len(resources) == 1 else ""
        return Finding(
            guest, self.announced.cycle, metric, expectation, measured, outcome, why, self.announced.cell
        )

    @property
    def _freezes(self) -> bool:
        """True when a freeze is due: not when the event was called off and no guest was frozen."""
        return self.timeline.cancelled is None or bool(self.timeline.to_be_frozen)

    # -- always --------------------------------------------------------------------------------------

    def started_first(self) -> Iterator[Finding]:
        if not self._freezes:
            return
        metric, expectation = "started first", "no guest is frozen before its event is Started"
        timeline = self.timeline
        if not timeline.enabled:
            yield self._finding(metric, expectation, "no guest asked", PASSED)
            return
        if not timeline.to_be_frozen and all(m.has_cycle for m in timeline.affected):
            yield self._finding(metric, expectation, "no guest was frozen", PASSED)
            return
        unseen = [m.guest for m in timeline.affected if m.stop is None]
        stops = [(m.guest, m.stop) for m in timeline.affected if m.stop is not None]
        if timeline.started is None:
            if stops:
                why = f"{stops[0][0]} was frozen, and its event was never Started"
            else:
                why = f"the event of {self.group} was never Started"
            outcome = self.missing if stops else OPEN
            yield self._finding(metric, expectation, "not Started", outcome, why)
            return
        for guest, stop in stops:
            early = timeline.started.raw_ns - stop.called.raw_ns
            if early > 0:
                outcome = FAILED if timeline.started.raw_ns > stop.returned.raw_ns else OPEN
                why = f"{guest} was frozen {format_short(early)} before its event was Started"
                yield self._finding(metric, expectation, f"{format_short(early)} before", outcome, why)
                return
        if unseen:
            why = f"the freeze of {unseen[0]} is not on record"
            yield self._finding(metric, expectation, "not recorded", OPEN, why)
            return
        first = min(stop.called.raw_ns for _, stop in stops) - timeline.started.raw_ns
        yield self._finding(metric, expectation, f"{format_short(first)} after", PASSED)

    def shown_started(self) -> Iterator[Finding]:
        announce, timeline = self.spec.announce, self.timeline
        if not self._freezes or not timeline.enabled or announce is None or timeline.started is None:
            return  # without a start, started_first has said so
        if not timeline.to_be_frozen:
            return
        expectation = f"at least {format_duration(announce.started_ns)} before the freeze"
        frozen = timeline.frozen
        if frozen is None:
            why = "the freeze is not on record"
            yield self._finding("shown as Started", expectation, "not recorded", OPEN, why)
            return
        shown = frozen.shifted(-timeline.started.raw_ns)
        outcome = at_least(announce.started_ns, shown.low_ns, shown.high_ns)
        text = format_short(shown.low_ns)
        why = "" if outcome is PASSED else f"shown as Started for {text}, expected {expectation}"
        yield self._finding("shown as Started", expectation, text, outcome, why)

    def gone(self) -> Iterator[Finding]:
        expectation, timeline = "at the end, and not before the resume", self.timeline
        if not timeline.enabled:
            yield self._finding("gone", expectation, "never shown", PASSED)
            return
        if timeline.cancelled is not None and not timeline.to_be_frozen:
            yield self._finding("gone", expectation, "called off", PASSED)
            return
        gone = timeline.gone or timeline.cancelled
        if gone is None:
            shown = "the event is still shown" if self.announced.complete else "its state is not on record"
            why = f"{shown} at the end ({self.group})"
            yield self._finding("gone", expectation, "not gone", self.missing, why)
            return
        for member in timeline.affected:
            if member.stop is not None and member.resume is None:
                why = f"the resume of {member.guest} is not on record"
                yield self._finding("gone", expectation, "not recorded", OPEN, why)
                return
            if member.resume is not None and gone.raw_ns < member.resume.called.raw_ns:
                early = format_short(member.resume.called.raw_ns - gone.raw_ns)
                why = f"the event was gone {early} before {member.guest} was resumed"
                yield self._finding("gone", expectation, f"{early} before", FAILED, why)
                return
        back = timeline.last_resume
        text = f"{format_short(gone.raw_ns - back.raw_ns)} after the resume" if back is not None else "gone"
        yield self._finding("gone", expectation, text, PASSED)

    def called_off(self) -> Iterator[Finding]:
        """Checks that the event was called off, when that was expected, or was not, when it was not
        planned."""
        wanted, timeline = self.expect.cancelled, self.timeline
        planned = self.spec.announce is not None and self.spec.announce.cancel_after_ns is not None
        frozen = [m.guest for m in timeline.to_be_frozen]
        if wanted is None and (planned or timeline.cancelled is None):
            return
        if wanted:
            expectation = "called off, and no guest is frozen"
            if frozen:
                why = f"{frozen[0]} was frozen although the event was to be called off"
                yield self._finding("cancelled", expectation, "frozen", FAILED, why)
            elif timeline.cancelled is None:
                why = f"the event of {self.group} was not called off"
                yield self._finding("cancelled", expectation, "not called off", self.missing, why)
            elif not all(member.has_cycle for member in timeline.affected):
                why = "it is not on record whether a guest was frozen"
                yield self._finding("cancelled", expectation, "not recorded", OPEN, why)
            else:
                yield self._finding("cancelled", expectation, "called off", PASSED)
            return
        expectation = "not called off"
        if timeline.cancelled is not None:
            outcome = OPEN if wanted is None else self.missing  # an interrupted run takes its events back
            why = f"the event of {self.group} was called off, and there was no freeze"
            yield self._finding("cancelled", expectation, "called off", outcome, why)
        elif timeline.gone is not None or timeline.started is not None or not timeline.enabled:
            yield self._finding("cancelled", expectation, "not called off", PASSED)
        else:
            why = "the end of the event is not on record"
            yield self._finding("cancelled", expectation, "not recorded", OPEN, why)

    # -- as expected ---------------------------------------------------------------------------------

    def acknowledged(self) -> Iterator[Finding]:
        wanted, timeline = self.expect.acknowledged, self.timeline
        if wanted is None:
            return
        expectation = "approved before NotBefore" if wanted else "no approval before NotBefore"
        approval = timeline.approved
        over = timeline.started or timeline.cancelled or timeline.gone or timeline.not_enabled
        if approval is not None:
            who, at = approval
            early = timeline.event.not_before.raw_ns - at.raw_ns
            since = at.raw_ns - timeline.published.raw_ns if timeline.published is not None else None
            text = f"by {who}" if since is None else f"by {who} after {format_short(since)}"
            good = (early >= 0) is wanted
            if good:
                why = ""
            elif wanted:
                why = f"{who} approved only {format_short(-early)} after NotBefore"
            else:
                why = f"{who} approved, {format_short(early)} before NotBefore"
            yield self._finding("acknowledged", expectation, text, PASSED if good else FAILED, why)
        elif not self.announced.complete and (
            over is None or (timeline.enabled and timeline.started is None)
        ):
            # Taken back because the run ended: nobody had to approve any more.
            why = "it is not on record whether a guest approved"
            yield self._finding("acknowledged", expectation, "not recorded", OPEN, why)
        else:
            whom = self.group if timeline.enabled else f"{self.group}, which never asked"
            why = f"no guest of {whom} approved" if wanted else ""
            if wanted and timeline.released is not None:
                why += ": the operator released it"
            yield self._finding("acknowledged", expectation, "no approval", FAILED if wanted else PASSED, why)

    def sightings(self) -> Iterator[Finding]:
        yield from self._shown(
            "seen", self.expect.seen, "the event", [m.first_shown() for m in self.timeline.affected]
        )
        started = [member.seen_started for member in self.timeline.affected]
        yield from self._shown("seen as Started", self.expect.started_seen, "it as Started", started)

    def _shown(
        self, metric: str, wanted: bool | None, what: str, shown: Sequence[Stamp | None]
    ) -> Iterator[Finding]:
        """Checks that every resource gets the event before it is frozen, or that none does."""
        if wanted is None:
            return
        expectation = f"{'every' if wanted else 'no'} guest gets {what} before the freeze"
        judged = [
            (member, self._before_freeze(member, at))
            for member, at in zip(self.timeline.affected, shown, strict=True)
        ]
        count = sum(before is True for _, before in judged)
        text = f"{count} of {len(judged)} guests"
        bad = next((member for member, before in judged if before is not None and before is not wanted), None)
        unclear = next((member for member, before in judged if before is None), None)
        if bad is not None:
            word = "did not get" if wanted else "got"
            why = f"{bad.guest} {word} {what} before its freeze"
            yield self._finding(metric, expectation, text, FAILED, why)
        elif unclear is not None or not judged:
            who = unclear.guest if unclear is not None else "any guest"
            why = f"it is not on record whether {who} got {what} before its freeze"
            yield self._finding(metric, expectation, text, OPEN, why)
        else:
            yield self._finding(metric, expectation, text, PASSED)

    def _before_freeze(self, member: Member, at: Stamp | None) -> bool | None:
        """True when the guest was answered before it was frozen; None where that is not certain. A guest read
        an answer that was sent during its freeze only afterwards."""
        timeline, stop = self.timeline, member.stop
        if stop is None:
            spared = timeline.cancelled is not None or (member.has_cycle and not member.is_to_be_frozen)
            if not spared or (at is None and not self.announced.complete):
                return None
            return at is not None
        if at is None:
            return False if self.announced.complete else None
        if at.raw_ns > stop.returned.raw_ns:
            return False
        return True if at.raw_ns <= stop.called.raw_ns else None

    def pauses_announced(self) -> Iterator[Finding]:
        wanted, timeline = self.expect.kept, self.timeline
        if wanted is None:
            return
        limit = timeline.duration_ns
        if limit is None:
            why = "no duration was announced"
            expectation = "as announced" if wanted else "longer than announced"
            yield self._finding("pause announced", expectation, "unknown", OPEN, why)
            return
        words = format_duration(limit)
        expectation = f"at most {words}" if wanted else f"longer than {words}"
        members = [m for m in timeline.affected if m.is_to_be_frozen or not m.has_cycle]
        if not members:
            yield self._finding("pause announced", expectation, "not measured", OPEN, "no guest was frozen")
        for member in members:
            yield replace(self._pause_finding(member, limit, expectation, wanted), guest=member.guest)

    def _pause_finding(self, member: Member, limit: int, expectation: str, wanted: bool) -> Finding:
        guest, pause = member.guest, member.pause
        if pause is None:
            why = f"the pause of {guest} was not measured"
            return self._finding("pause announced", expectation, "not measured", OPEN, why)
        outcome = at_most(limit, pause.low_ns, pause.high_ns)
        if not wanted:
            outcome = {PASSED: FAILED, FAILED: PASSED, OPEN: OPEN}[outcome]
        text = format_interval(pause)
        announced = format_duration(limit)
        why = "" if outcome is PASSED else f"{guest} paused for {text}, announced were {announced}"
        cut = member.result.disturbed if member.result is not None else ""
        if outcome is FAILED and not wanted and cut:
            outcome, why = OPEN, f"{cut}; {why}"
        return self._finding("pause announced", expectation, text, outcome, why)

    def notice_given(self) -> Iterator[Finding]:
        given = self.timeline.notice_ns
        for limit, words, compare in (
            (self.expect.at_least_ns, "at least", at_least),
            (self.expect.at_most_ns, "at most", at_most),
        ):
            if limit is None:
                continue
            expectation = f"{words} {format_duration(limit)}"
            if given is None:
                why = (
                    f"{self.group} never asked" if not self.timeline.enabled else "its start is not on record"
                )
                yield self._finding("notice", expectation, "none", OPEN, f"no notice to measure: {why}")
                continue
            outcome, text = compare(limit, given, given), format_short(given)
            why = "" if outcome is PASSED else f"notice {text}, expected {expectation}"
            yield self._finding("notice", expectation, text, outcome, why)


def event_findings(timeline: EventTimeline, spec: CycleSpec, expect: NoticeExpectations) -> list[Finding]:
    """All findings of one event."""
    judge = _Judge(timeline, spec, expect)
    checks = (
        judge.started_first, judge.shown_started, judge.gone, judge.called_off, judge.acknowledged,
        judge.sightings, judge.pauses_announced, judge.notice_given,
    )  # fmt: skip
    return [finding for check in checks for finding in check()]


def unannounced(
    results: Sequence[CycleResult], timelines: Sequence[EventTimeline], cell: str = ""
) -> list[Finding]:
    """Guests that were frozen without an event although their cycle was announced: one finding for each
    cycle. results: those of one cell, whose cycles are announced."""
    known = [
        member.result.observation for timeline in timelines for member in timeline.affected if member.result
    ]
    first_shown = {(obs.cell, obs.cycle, obs.guest) for obs in known}
    silent: dict[int, list[str]] = {}
    for result in results:
        spec, obs = result.spec, result.observation
        if spec is None or spec.announce is None or result.control:
            continue
        if (obs.cell, obs.cycle, obs.guest) not in first_shown:
            silent.setdefault(obs.cycle, []).append(obs.guest)
    return [
        Finding(
            "", cycle, "announcement", "before the freeze", "none in the history", OPEN,
            f"{guests[0]} was to be told, and no event of it is in the history", cell,
        )
        for cycle, guests in silent.items()
    ]  # fmt: skip
