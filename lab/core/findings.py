"""Expectations held against measurements, one Finding each. What cannot be decided is inconclusive,
and so is what was not measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lab.core.clock import Interval
from lab.core.effects import Effects, backward, rtc_around, rtc_moved
from lab.core.kernel_log import sorted_out
from lab.core.method import FreezeMethod
from lab.core.plan import Expectations, Regime, ResyncMechanism
from lab.core.predictions import compared
from lab.core.rescue import CUT_OFF, RAN
from lab.core.result import CycleResult
from lab.core.resync import SyncOutcome
from lab.core.trouble import delay_ns
from lab.core.units import NS_PER_MS, NS_PER_S, format_about, format_bounded, format_duration
from lab.core.verdict import Finding, Outcome, at_least, at_most, worst

AS_PREDICTED = "resync"
"""The metric of a finding that holds a resync against its forecast."""

CPU_SHARE = 0.05
CPU_SLACK_NS = 20 * NS_PER_MS
"""vCPU threads at rest use no CPU time; the kernel accounts it by ticks, so a tick or two may show."""


def shown(interval: Interval | None, *, signed: bool = False) -> str:
    """An interval for people: "5 006.4 ± 0.6 ms"."""
    if interval is None:
        return "not measured"
    return format_bounded(interval.mid_ns, interval.low_ns, interval.high_ns, signed=signed)


def _seconds(interval: Interval) -> str:
    return f"{interval.high_ns / NS_PER_S:.2f} s"


class _Judge:
    def __init__(self, result: CycleResult, expect: Expectations) -> None:
        self.result, self.expect, self.obs = result, expect, result.observation

    def _finding(
        self, metric: str, expectation: str, measured: str, outcome: Outcome, why: str = ""
    ) -> Finding:
        return Finding(
            self.obs.guest, self.obs.cycle, metric, expectation, measured, outcome, why, self.obs.cell
        )

    def observed(self) -> Iterator[Finding]:
        for problem in self.result.problems:
            yield self._finding("observation", "uninterrupted", problem, Outcome.INCONCLUSIVE, problem)

    def patch(self) -> Iterator[Finding]:
        if self.obs.patch_ok is None:
            spec = self.result.spec
            spared = self.result.control and spec is not None and spec.announce is not None
            if not self.obs.problems and not spared:  # what was called off need not be patched
                yield self._finding(
                    "patch", "succeeds", "not run", Outcome.INCONCLUSIVE, "the patch was not run"
                )
            return
        said = "succeeded" if self.obs.patch_ok else "failed"
        outcome = Outcome.PASSED if self.obs.patch_ok else Outcome.FAILED
        why = "" if self.obs.patch_ok else f"host patch ({self.obs.patch}): {self.obs.patch_why}"
        if self.obs.called_off and self.obs.called_off in self.obs.patch_why:
            why = f"host patch ({self.obs.patch}): not applied, for the freeze was called off"
            outcome = self._called_off
        yield self._finding("patch", "succeeds", said, outcome, why)

    @property
    def _called_off(self) -> Outcome:
        """What a freeze that was called off is: the guest's or the method's failure, or the dead-man's
        doing."""
        return Outcome.INCONCLUSIVE if self.result.resumed_by else Outcome.FAILED

    def freeze(self) -> Iterator[Finding]:
        """Whether the guest went on where it should. Only an exchange, or a freeze called off, can tell."""
        if not self.obs.frozen or self.obs.stop is None:
            return
        if self.obs.called_off:
            why = f"the freeze was called off, and the guest put back: {self.obs.called_off}"
            yield self._finding("freeze", "goes through", "called off", self._called_off, why)
        elif not self.obs.method.keeps_process and self.obs.resume is not None:
            yield self._finding("freeze", "goes through", "it did", Outcome.PASSED)

    def memory(self) -> Iterator[Finding]:
        proof, expectation = self.obs.proof, "the same, page by page"
        if proof is None:
            spec = self.result.spec
            if spec is not None and spec.prove_memory and self.obs.frozen:
                why = "the guest's memory was to be proven, and was not"
                yield self._finding("memory", expectation, "not proven", Outcome.INCONCLUSIVE, why)
            return
        text = f"{proof.pages} pages, {proof.held} held, {proof.differ} differ"
        if proof.pages == 0:
            yield self._finding("memory", expectation, text, Outcome.INCONCLUSIVE, "no page was looked at")
        elif proof.differ == 0 and proof.before == proof.after:
            yield self._finding("memory", expectation, f"{text}, {proof.after[:16]}", Outcome.PASSED)
        else:
            first = f", the first is page {proof.differing[0]}" if proof.differing else ""
            pages = f"{proof.differ} of {proof.pages} pages" if proof.differ else "the digest"
            why = f"the guest's memory changed while it stood still: {pages}{first}"
            yield self._finding("memory", expectation, text, Outcome.FAILED, why)

    def back(self) -> Iterator[Finding]:
        """A guest that was rebooted has no pause; it has an outage."""
        if self.obs.method is not FreezeMethod.REBOOT or self.obs.stop is None:
            return
        outage = self.result.outage_ns
        if outage is None:
            why = "nothing was heard of the guest after its start"
            yield self._finding("outage", "ends", "not measured", Outcome.INCONCLUSIVE, why)
        else:
            yield self._finding("outage", "ends", f"{outage / NS_PER_S:.1f} s", Outcome.PASSED)

    def budget(self) -> Iterator[Finding]:
        used = self.result.used
        if used is None:
            return
        text = f"{used.low_ns / NS_PER_S:.2f} s"
        if used.high_ns > used.low_ns:
            text += f" to {used.high_ns / NS_PER_S:.2f} s"
        outcome, why = at_most(self.obs.budget_ns, used.low_ns, used.high_ns), ""
        if outcome is Outcome.FAILED:
            why = f"frozen for {text}, over the budget"
        elif outcome is Outcome.INCONCLUSIVE:
            why = f"frozen for {text}: the bounds do not tell whether it was over the budget"
        yield self._finding("budget", f"at most {format_duration(self.obs.budget_ns)}", text, outcome, why)

    def closure(self) -> Iterator[Finding]:
        pause = self.result.pause
        if pause is None:
            return
        expectation = "hypervisor = lag + gap"
        if pause.closure is None:
            missing = [w for w in ("lag", "gap") if w not in pause.witnesses]
            why = f"the pause cannot be checked: no {' and no '.join(missing)} witness"
            yield self._finding("closure", expectation, "not measured", Outcome.INCONCLUSIVE, why)
            return
        text = shown(pause.closure, signed=True)
        if pause.closes:
            yield self._finding("closure", expectation, text, Outcome.PASSED)
        else:
            why = f"unaccounted: {pause.unaccounted_ns / NS_PER_MS:.1f} ms"
            yield self._finding("closure", expectation, text, Outcome.INCONCLUSIVE, why)

    def regime(self) -> Iterator[Finding]:
        wanted = Regime.RUNNING if not self.obs.frozen else self.expect.regime
        if self.obs.method is FreezeMethod.REBOOT:
            return
        pause = self.result.pause
        if wanted is None:
            return
        seen = pause.regime if pause is not None else None
        if seen is None:
            yield self._finding(
                "regime", wanted, "undecided", Outcome.INCONCLUSIVE, "the bounds do not tell the regime"
            )
        else:
            outcome = Outcome.PASSED if seen is wanted else Outcome.FAILED
            why = "" if seen is wanted else f"regime {seen} instead of {wanted}"
            yield self._finding("regime", wanted, seen, outcome, why)

    def pause(self) -> Iterator[Finding]:
        value = self.result.reported
        if value is None or not self.obs.frozen:
            return
        for limit, name, compare in (
            (self.expect.pause_at_least_ns, "at least", at_least),
            (self.expect.pause_at_most_ns, "at most", at_most),
        ):
            if limit is None:
                continue
            outcome = compare(limit, value.low_ns, value.high_ns)
            text = f"{name} {format_duration(limit)}"
            why = "" if outcome is Outcome.PASSED else f"pause {shown(value)}, expected {text}"
            yield self._finding("pause", text, shown(value), outcome, why)

    def vcpus_at_rest(self) -> Iterator[Finding]:
        stop, resume, used = self.obs.stop, self.obs.resume, self.obs.cpu_ns
        if used is None or stop is None or resume is None or not self.obs.frozen or self.result.resumed_by:
            return
        frozen_ns = max(0, resume.called.raw_ns - stop.returned.raw_ns)
        outcome = Outcome.PASSED if used <= frozen_ns * CPU_SHARE + CPU_SLACK_NS else Outcome.INCONCLUSIVE
        text = f"{used / NS_PER_MS:.0f} ms of CPU time"
        why = "" if outcome is Outcome.PASSED else f"the vCPU threads used {text} while frozen"
        yield self._finding("vcpus", "at rest while frozen", text, outcome, why)

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
            why = "" if outcome is Outcome.PASSED else f"in time only after {_seconds(resync.time)}"
            outcome, why = self._held_up(outcome, why, resync.time.low_ns - within)
            yield self._finding("in time", text, _seconds(resync.time), outcome, why)
        elif resync.outcome is SyncOutcome.NOT_SYNCED and self._last_seen_ns() > within:
            off = self.result.final.smallest_ns - self.expect.tolerance_ns if self.result.final else 0
            outcome, why = self._held_up(Outcome.FAILED, self._not_in_time(), max(1, off))
            yield self._finding("in time", text, "never", outcome, why)
        elif resync.outcome is SyncOutcome.NOT_SYNCED:
            why = f"{self._not_in_time()}; it was not watched for {format_duration(within)}"
            yield self._finding("in time", text, "not yet", Outcome.INCONCLUSIVE, why)
        else:
            yield self._finding("in time", text, "undecided", Outcome.INCONCLUSIVE, resync.why)

    def _held_up(self, outcome: Outcome, why: str, over_ns: int) -> tuple[Outcome, str]:
        """A clock that was brought back, and misses a limit by no more than the busy host held things up,
        tells nothing of the guest."""
        delay = delay_ns(self.obs)
        if outcome is not Outcome.FAILED or over_ns > delay or self.result.mechanism is ResyncMechanism.NONE:
            return outcome, why
        held = f"the busy host held readings up by as much as {format_about(delay)}"
        return Outcome.INCONCLUSIVE, f"{why}; {held}"

    def _not_in_time(self) -> str:
        final = self.result.final
        watched = format_duration(round(self._watched_ns(), -8))
        if final is None:
            return f"not in time after {watched}"
        where = "behind" if final.mid_ns < 0 else "ahead"
        size = shown(final if final.mid_ns >= 0 else -final)
        by = "" if self.result.mechanism is not ResyncMechanism.NONE else ", and nothing was to repair it"
        return f"still {size} {where} {watched} after the resume{by}"

    def _last_seen_ns(self) -> int:
        """The time since the resume at which the clock was certainly seen last."""
        curve = self.result.resync.curve if self.result.resync else ()
        return curve[-1].from_ns if curve else 0

    def _watched_ns(self) -> int:
        curve = self.result.resync.curve if self.result.resync else ()
        return curve[-1].at_ns if curve else 0

    def as_predicted(self) -> Iterator[Finding]:
        """The mechanism's forecast. What was not watched for long enough to tell has not passed."""
        if not self.expect.as_predicted or not self.obs.frozen or self.result.control:
            return
        agrees, words = compared(self.result)
        known = {True: Outcome.PASSED, False: Outcome.FAILED, None: Outcome.INCONCLUSIVE}
        said = self.result.forecast
        why = "" if agrees else f"{words or 'nothing was predicted'}{f' ({said.text})' if said else ''}"
        yield self._finding(AS_PREDICTED, "as predicted", words or "not told", known[agrees], why)

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
            "" if outcome is Outcome.PASSED else f"final offset {shown(final, signed=True)}, expected {text}"
        )
        outcome, why = self._held_up(outcome, why, final.smallest_ns - limit)
        yield self._finding("final offset", text, shown(final, signed=True), outcome, why)

    def drift(self) -> Iterator[Finding]:
        limit, seen = self.expect.drift_ppm, self.result.drift_after
        if limit is None or self.result.control:
            return
        text = f"at most {limit:g} ppm"
        if seen is None:
            why = "the offset after the resync followed no straight line"
            yield self._finding("drift", text, "not measured", Outcome.INCONCLUSIVE, why)
            return
        smallest = 0.0 if seen.low <= 0 <= seen.high else min(abs(seen.low), abs(seen.high))
        outcome = at_most(limit, smallest, seen.largest_ppm)
        measured = f"{seen.ppm:+.0f} ± {seen.bound_ppm:.0f} ppm"
        why = ""
        if outcome is Outcome.INCONCLUSIVE:
            window = seen.window_for_ns(max(1.0, limit / 2)) / NS_PER_S
            why = f"drift {measured}: the window is too short, about {window:.0f} s would do"
        elif outcome is Outcome.FAILED:
            why = f"drift {measured}"
        yield self._finding("drift", text, measured, outcome, why)

    def same_boot(self) -> Iterator[Finding]:
        unchanged, rebooted = self.result.boot_id_unchanged, self.obs.method is FreezeMethod.REBOOT
        expectation = "another" if rebooted else "the same"
        if unchanged is None:
            why = "the boot_id was not read on both sides"
            yield self._finding("boot id", expectation, "not measured", Outcome.INCONCLUSIVE, why)
            return
        measured, why = "the same" if unchanged else "another", ""
        if measured != expectation and rebooted:
            why = "the guest was to be rebooted and was not: the same boot_id"
        elif measured != expectation:
            resume, readings = self.obs.resume, self.obs.readings
            went_on = resume is not None and any(r.t1.raw_ns >= resume.returned.raw_ns for r in readings)
            why = "the guest was rebooted instead of resumed: another boot_id"
            if went_on:
                why = "the guest went on after the resume, and rebooted by itself: another boot_id"
        outcome = Outcome.FAILED if why else Outcome.PASSED
        yield self._finding("boot id", expectation, measured, outcome, why)

    def kernel_log(self) -> Iterator[Finding]:
        first, last = self.obs.facts_before, self.obs.facts_after
        if not self.expect.clean_kernel_log:
            return
        if first is None or last is None or last.kernel_lines is None:
            why = "the guest's kernel log was not read after the freeze"
            yield self._finding("kernel log", "clean", "not read", Outcome.INCONCLUSIVE, why)
            return
        trouble, notes, unknown = sorted_out(last.kernel_lines)
        if first.clocksource != last.clocksource:
            trouble += (f"clocksource {first.clocksource} became {last.clocksource}",)
        outcome, why = Outcome.PASSED, ""
        if trouble:
            outcome, why = Outcome.FAILED, trouble[0]
        elif unknown:
            outcome, why = Outcome.INCONCLUSIVE, f"a message that the lab does not know: {unknown[0]}"
        lines = len(trouble) + len(unknown)
        measured = f"{lines} lines" + (f", {len(notes)} harmless" if notes else "")
        yield self._finding("kernel log", "clean", measured, outcome, why)

    def effects(self) -> Iterator[Finding]:
        """What else the pause did. Timers, BOOTTIME and RTC are told; only a monotonic clock that went
        backward is a failure."""
        seen, spec = self.obs.effects, self.result.spec
        if seen is None:
            if spec is not None and spec.effects and self.obs.method is not FreezeMethod.REBOOT:
                why = "the guest was to be watched for effects of the pause, and was not"
                yield self._finding("monotonic", "never backward", "not watched", Outcome.INCONCLUSIVE, why)
            return
        yield self._monotonic(seen)
        if seen.timers:
            worst_of = max(seen.timers, key=lambda kind: kind.worst_ns)
            fired = sum(kind.count for kind in seen.timers)
            text = f"{fired} fired, at worst {format_about(worst_of.worst_ns)} late"
            text += f" ({worst_of.kind}); at most {max(k.at_once for k in seen.timers)} of a kind at once"
            early = sum(kind.early for kind in seen.timers)
            why = f"{early} timers fired before they were due" if early else ""
            yield self._finding("timers", "told", text, Outcome.PASSED, why)
        if seen.boot_minus_mono_ns is not None:
            text = f"{seen.boot_minus_mono_ns / NS_PER_MS:+.3f} ms on MONOTONIC"
            yield self._finding("boottime", "told", text, Outcome.PASSED)
        yield from self._rtc(seen)

    def _monotonic(self, seen: Effects) -> Finding:
        looks = sum(one.looks for one in seen.backward if one.clock != "realtime")
        bad = backward(seen.backward)
        text, expectation = f"{looks} looks", "never backward"
        if bad:
            one = max(bad, key=lambda each: each.worst_ns)
            between = f"from vCPU {one.from_cpu} to {one.to_cpu}"
            where = f"on vCPU {one.to_cpu}" if one.from_cpu == one.to_cpu else between
            times = sum(each.backward for each in bad)
            clock = f"CLOCK_{one.clock.upper().replace(' ', '_')}"
            why = f"{clock} went back by {format_about(one.worst_ns)} {where}"
            return self._finding("monotonic", expectation, f"{times} of {text}", Outcome.FAILED, why)
        if not looks:
            why = "nobody looked at the guest's clocks in order"
            return self._finding("monotonic", expectation, "not watched", Outcome.INCONCLUSIVE, why)
        return self._finding("monotonic", expectation, text, Outcome.PASSED)

    def _rtc(self, seen: Effects) -> Iterator[Finding]:
        one, two = rtc_around(seen.rtc, self.result.resumed_guest)
        if one is None or two is None:
            return
        shown_at = [
            shown(
                Interval(at.rtc_minus_real_ns - at.bound_ns, at.rtc_minus_real_ns + at.bound_ns), signed=True
            )
            for at in (one, two)
        ]
        text, lag = f"RTC - REALTIME {shown_at[0]} before, {shown_at[1]} after", self.result.lag
        real = self._offset_at(two.raw_ns)
        if self.result.before is not None and real is not None and lag is not None and lag.low_ns > 0:
            moved = rtc_moved(one, two, self.result.before, real)
            if 0 in moved and not moved.meets(-lag):
                text += ": it went on through the pause"
            elif moved.meets(-lag) and 0 not in moved:
                text += ": it stood still with the guest"
        yield self._finding("rtc", "told", text, Outcome.PASSED)

    def _offset_at(self, guest_raw_ns: int) -> Interval | None:
        """The offset of REALTIME some time after the resume, from the points of the curve around it."""
        resumed, curve = self.result.resumed_guest, self.result.resync.curve if self.result.resync else ()
        if resumed is None or not curve:
            return None
        at = guest_raw_ns - resumed.mid_ns
        near = [max((p for p in curve if p.at_ns <= at), key=lambda p: p.at_ns, default=curve[0])]
        near.append(min((p for p in curve if p.at_ns > at), key=lambda p: p.at_ns, default=curve[-1]))
        return Interval(min(p.offset.low_ns for p in near), max(p.offset.high_ns for p in near))


def findings(result: CycleResult, expect: Expectations) -> list[Finding]:
    """Everything that one guest's cycle was held against."""
    judge = _Judge(result, expect)
    checks = (
        judge.observed, judge.patch, judge.freeze, judge.memory, judge.back, judge.budget, judge.closure,
        judge.regime, judge.pause, judge.vcpus_at_rest, judge.in_time, judge.as_predicted, judge.final_offset,
        judge.drift, judge.same_boot, judge.kernel_log, judge.effects,
    )  # fmt: skip
    found = [finding for check in checks for finding in check()]
    return [undone(finding, result.disturbed) for finding in found] if result.disturbed else found


CERTAIN = frozenset({"budget", "memory", "freeze", "patch", "monotonic", "boot id", "kernel log"})
"""What a cycle that did not go its way is failed by all the same: these saw something happen. Not by the
patch, where the guest was resumed before its time: it may have been ended for that."""


def undone(finding: Finding, why: str) -> Finding:
    """The finding of a cycle that did not go its way, because of `why`: never failed by what was not done."""
    certain = CERTAIN if why in (CUT_OFF, RAN) else CERTAIN - {"patch"}
    if finding.outcome is not Outcome.FAILED or finding.metric in certain:
        return finding
    return replace(finding, outcome=Outcome.INCONCLUSIVE, why=f"{why}; {finding.why}")


def outcome_of(given: list[Finding]) -> Outcome:
    """The worst outcome of a cycle's or a run's findings."""
    return worst(f.outcome for f in given)
