"""Findings on the freeze itself: whether it was carried out as planned, and how long the pause was."""

from __future__ import annotations

from collections.abc import Iterator

from lab.core import clocksource
from lab.core.clock_disturbance import starved
from lab.core.cycle_findings import CycleFindings
from lab.core.patch import ran_out_of_time
from lab.core.plan import Regime
from lab.core.quantities import format_interval, format_pages, format_seconds
from lab.core.rates import is_slewed
from lab.core.units import NS_PER_MS, format_duration
from lab.core.verdict import Finding, Outcome, at_least, at_most

STARVED = "the busy host gave the guest no CPU for most of the stop"

CPU_SHARE = 0.05
CPU_SLACK_NS = 20 * NS_PER_MS
"""The CPU time that the vCPU threads of a frozen guest may show: CPU_SHARE of the pause plus CPU_SLACK_NS.
They use none, but a kernel that accounts CPU time by ticks may count a tick or two."""


class PauseFindings(CycleFindings):
    """The findings `patch`, `freeze`, `memory`, `outage`, `budget`, `closure`, `regime`, `pause` and
    `vcpus`."""

    def observed(self) -> Iterator[Finding]:
        for problem in self.result.problems:
            yield self._finding("observation", "uninterrupted", problem, Outcome.INCONCLUSIVE, problem)

    def patch(self) -> Iterator[Finding]:
        if self.obs.patch_ok is None:
            spec = self.result.spec
            spared = self.result.control and spec is not None and spec.announce is not None
            if not self.obs.problems and not spared:  # a cancelled cycle has no patch
                yield self._finding(
                    "patch", "succeeds", "not run", Outcome.INCONCLUSIVE, "the patch was not run"
                )
            return
        text = "succeeded" if self.obs.patch_ok else "failed"
        outcome = Outcome.PASSED if self.obs.patch_ok else Outcome.FAILED
        why = "" if self.obs.patch_ok else f"host patch ({self.obs.patch}): {self.obs.patch_why}"
        if self.obs.called_off and self.obs.called_off in self.obs.patch_why:
            why = f"host patch ({self.obs.patch}): not applied, because the freeze was called off"
            outcome = self._called_off
        elif not self.obs.patch_ok and ran_out_of_time(self.obs.patch_why) and starved(self.obs):
            why, outcome = f"{why}; {STARVED}", Outcome.INCONCLUSIVE
        yield self._finding("patch", "succeeds", text, outcome, why)

    @property
    def _called_off(self) -> Outcome:
        """The outcome of a freeze that was called off: inconclusive when the dead-man or a busy host caused
        it, else failed."""
        spared = self.result.resumed_by or starved(self.obs)
        return Outcome.INCONCLUSIVE if spared else Outcome.FAILED

    def freeze(self) -> Iterator[Finding]:
        """Whether the hand-over to another process was completed. Methods that keep the process have this
        finding only when the freeze was called off."""
        if not self.obs.method.needs_resume or self.obs.stop is None:
            return
        if self.obs.called_off:
            why = f"the freeze was called off and the guest returned: {self.obs.called_off}"
            if starved(self.obs):
                why += f"; {STARVED}"
            yield self._finding("freeze", "completes", "called off", self._called_off, why)
        elif not self.obs.method.keeps_process and self.obs.resume is not None:
            yield self._finding("freeze", "completes", "completed", Outcome.PASSED)

    def memory(self) -> Iterator[Finding]:
        proof, expectation = self.obs.proof, "the same, page by page"
        if proof is None:
            spec = self.result.spec
            if spec is not None and spec.prove_memory and self.obs.frozen:
                why = "there is no memory proof"
                yield self._finding("memory", expectation, "not proven", Outcome.INCONCLUSIVE, why)
            return
        text = format_pages(proof.pages, proof.held, proof.differ, proof.rewritten)
        if proof.pages == 0:
            yield self._finding("memory", expectation, text, Outcome.INCONCLUSIVE, "no page was read")
        elif proof.differ == 0 and proof.before == proof.after:
            yield self._finding("memory", expectation, f"{text}, {proof.after[:16]}", Outcome.PASSED)
        else:
            first = f", the first is page {proof.differing[0]}" if proof.differing else ""
            pages = f"{proof.differ} of {proof.pages} pages" if proof.differ else "the digest"
            why = f"the guest's memory changed during the freeze: {pages}{first}"
            yield self._finding("memory", expectation, text, Outcome.FAILED, why)

    def back(self) -> Iterator[Finding]:
        """Whether a rebooted guest came back. It has an outage instead of a pause."""
        if not self.obs.method.boots_anew or self.obs.stop is None:
            return
        outage = self.result.outage_ns
        if outage is None:
            why = "the guest did not answer after its start"
            yield self._finding("outage", "ends", "not measured", Outcome.INCONCLUSIVE, why)
        else:
            yield self._finding("outage", "ends", format_seconds(outage, 1), Outcome.PASSED)

    def budget(self) -> Iterator[Finding]:
        used = self.result.used
        if used is None:
            return
        text = format_seconds(used.low_ns)
        if used.high_ns > used.low_ns:
            text += f" to {format_seconds(used.high_ns)}"
        outcome, why = at_most(self.obs.budget_ns, used.low_ns, used.high_ns), ""
        if outcome is Outcome.FAILED:
            why = f"frozen for {text}, over the budget"
        elif outcome is Outcome.INCONCLUSIVE:
            why = f"frozen for {text}: the bounds do not decide whether that is over the budget"
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
        text = format_interval(pause.closure, signed=True)
        if pause.closes and is_slewed(self.obs) and 2 * pause.closure.half_width_ns > pause.pause.low_ns:
            why = "the pause cannot be checked: the bounds of a clock that may be slewed are too wide"
            yield self._finding("closure", expectation, text, Outcome.INCONCLUSIVE, why)
        elif pause.closes:
            yield self._finding("closure", expectation, text, Outcome.PASSED)
        else:
            why = f"unaccounted: {pause.unaccounted_ns / NS_PER_MS:.1f} ms"
            facts = self.obs.facts_before
            if facts is not None and clocksource.stands(facts.clocksource, pause.pause, facts.kernel):
                wraps = clocksource.why(facts.clocksource)
                why += f"; {wraps}: the clocks may stand until it does or they are set"
            yield self._finding("closure", expectation, text, Outcome.INCONCLUSIVE, why)

    def regime(self) -> Iterator[Finding]:
        wanted = Regime.RUNNING if not self.obs.frozen else self.expect.regime
        if self.obs.method.boots_anew:
            return
        pause = self.result.pause
        if wanted is None:
            return
        regime = pause.regime if pause is not None else None
        if regime is None:
            yield self._finding(
                "regime", wanted, "undecided", Outcome.INCONCLUSIVE, "the bounds do not decide the regime"
            )
        else:
            outcome = Outcome.PASSED if regime is wanted else Outcome.FAILED
            why = "" if regime is wanted else f"regime {regime} instead of {wanted}"
            yield self._finding("regime", wanted, regime, outcome, why)

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
            why = "" if outcome is Outcome.PASSED else f"pause {format_interval(value)}, expected {text}"
            yield self._finding("pause", text, format_interval(value), outcome, why)

    def vcpus_at_rest(self) -> Iterator[Finding]:
        stop, resume, used = self.obs.stop, self.obs.resume, self.obs.cpu_ns
        if used is None or stop is None or resume is None or not self.obs.frozen or self.result.resumed_by:
            return
        frozen_ns = max(0, resume.called.raw_ns - stop.returned.raw_ns)
        outcome = Outcome.PASSED if used <= frozen_ns * CPU_SHARE + CPU_SLACK_NS else Outcome.INCONCLUSIVE
        text = f"{used / NS_PER_MS:.0f} ms of CPU time"
        why = "" if outcome is Outcome.PASSED else f"the vCPU threads used {text} while frozen"
        yield self._finding("vcpus", "at rest while frozen", text, outcome, why)
