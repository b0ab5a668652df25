"""Checks of a pause's effects on the guest besides its clock: boot, kernel log, timers, monotonic clocks,
RTC."""

from __future__ import annotations

from collections.abc import Iterator

from lab.core.clock import Interval
from lab.core.clock_disturbance import explained_by_busy_host
from lab.core.cycle_findings import CycleFindings
from lab.core.effects import Effects, backward, rtc_around, rtc_moved
from lab.core.kernel_log import CLOCKSOURCE_READ_NS, busy_ns, sorted_out
from lab.core.quantities import format_about, format_interval
from lab.core.units import NS_PER_MS
from lab.core.verdict import Finding, Outcome


class GuestFindings(CycleFindings):
    """Checks boot id, kernel log and effects."""

    def same_boot(self) -> Iterator[Finding]:
        unchanged, rebooted = self.result.boot_id_unchanged, self.obs.method.boots_anew
        expectation = "another" if rebooted else "the same"
        if unchanged is None:
            why = "the boot_id was not read before and after"
            yield self._finding("boot id", expectation, "not measured", Outcome.INCONCLUSIVE, why)
            return
        measured, why = "the same" if unchanged else "another", ""
        if measured != expectation and rebooted:
            why = "the guest did not reboot: the same boot_id"
        elif measured != expectation:
            resume, readings = self.obs.resume, self.obs.readings
            went_on = resume is not None and any(r.t1.raw_ns >= resume.returned.raw_ns for r in readings)
            why = "the guest rebooted instead of resuming: another boot_id"
            if went_on:
                why = "the guest ran after the resume and then rebooted by itself: another boot_id"
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
        least = [busy_ns(line) for line in trouble]
        if first.clocksource != last.clocksource:
            # A new boot chooses anew. Its own messages about that were written before the probe started.
            if not trouble:
                least.append(CLOCKSOURCE_READ_NS if self.obs.method.boots_anew else None)
            trouble += (f"clocksource {first.clocksource} became {last.clocksource}",)
        explained = bool(least) and all(explained_by_busy_host(self.obs, each) for each in least)
        outcome, why = Outcome.PASSED, ""
        if explained:
            outcome, why = Outcome.INCONCLUSIVE, f"{trouble[0]}; the busy host kept its CPUs from the guest"
        elif trouble:
            outcome, why = Outcome.FAILED, trouble[0]
        elif unknown:
            outcome, why = Outcome.INCONCLUSIVE, f"unknown message: {unknown[0]}"
        lines = len(trouble) + len(unknown)
        measured = f"{lines} lines" + (f", {len(notes)} harmless" if notes else "")
        yield self._finding("kernel log", "clean", measured, outcome, why)

    def effects(self) -> Iterator[Finding]:
        """The pause's other effects. Timers, BOOTTIME and RTC are only reported; a monotonic clock that went
        backward is a failure."""
        effects, spec = self.obs.effects, self.result.spec
        if effects is None:
            if spec is not None and spec.effects and not self.obs.method.boots_anew:
                why = "the effects of the pause were not recorded"
                yield self._finding("monotonic", "never backward", "not recorded", Outcome.INCONCLUSIVE, why)
            return
        yield self._monotonic(effects)
        if effects.timers:
            worst_of = max(effects.timers, key=lambda kind: kind.worst_ns)
            fired = sum(kind.count for kind in effects.timers)
            text = f"{fired} fired, at most {format_about(worst_of.worst_ns)} late"
            text += f" ({worst_of.kind}); at most {max(k.at_once for k in effects.timers)} of a kind at once"
            early = sum(kind.early for kind in effects.timers)
            why = f"{early} timers fired before they were due" if early else ""
            yield self._finding("timers", "reported", text, Outcome.PASSED, why)
        if effects.boot_minus_mono_ns is not None:
            text = f"{effects.boot_minus_mono_ns / NS_PER_MS:+.3f} ms compared with MONOTONIC"
            yield self._finding("boottime", "reported", text, Outcome.PASSED)
        yield from self._rtc(effects)

    def _monotonic(self, effects: Effects) -> Finding:
        looks = sum(one.looks for one in effects.backward if one.clock != "realtime")
        bad = backward(effects.backward)
        text, expectation = f"{looks} checks", "never backward"
        if bad:
            one = max(bad, key=lambda each: each.worst_ns)
            between = f"from vCPU {one.from_cpu} to {one.to_cpu}"
            where = f"on vCPU {one.to_cpu}" if one.from_cpu == one.to_cpu else between
            times = sum(each.backward for each in bad)
            clock = f"CLOCK_{one.clock.upper().replace(' ', '_')}"
            why = f"{clock} went back by {format_about(one.worst_ns)} {where}"
            return self._finding("monotonic", expectation, f"{times} of {text}", Outcome.FAILED, why)
        if not looks:
            why = "no sequence of clock readings"
            return self._finding("monotonic", expectation, "not recorded", Outcome.INCONCLUSIVE, why)
        return self._finding("monotonic", expectation, text, Outcome.PASSED)

    def _rtc(self, effects: Effects) -> Iterator[Finding]:
        one, two = rtc_around(effects.rtc, self.result.resumed_guest)
        if one is None or two is None:
            return
        shown_at = [
            format_interval(
                Interval(at.rtc_minus_real_ns - at.bound_ns, at.rtc_minus_real_ns + at.bound_ns), signed=True
            )
            for at in (one, two)
        ]
        text, lag = f"RTC - REALTIME {shown_at[0]} before, {shown_at[1]} after", self.result.lag
        real = self._offset_at(two.raw_ns)
        if self.result.before is not None and real is not None and lag is not None and lag.low_ns > 0:
            moved = rtc_moved(one, two, self.result.before, real)
            if 0 in moved and not moved.meets(-lag):
                text += ": the RTC ran on during the pause"
            elif moved.meets(-lag) and 0 not in moved:
                text += ": the RTC stood still during the pause"
        yield self._finding("rtc", "reported", text, Outcome.PASSED)

    def _offset_at(self, guest_raw_ns: int) -> Interval | None:
        """The offset of REALTIME at a time after the resume, from the nearest points of the curve."""
        resumed, curve = self.result.resumed_guest, self.result.resync.curve if self.result.resync else ()
        if resumed is None or not curve:
            return None
        at = guest_raw_ns - resumed.mid_ns
        near = [max((p for p in curve if p.at_ns <= at), key=lambda p: p.at_ns, default=curve[0])]
        near.append(min((p for p in curve if p.at_ns > at), key=lambda p: p.at_ns, default=curve[-1]))
        return Interval(min(p.offset.low_ns for p in near), max(p.offset.high_ns for p in near))
