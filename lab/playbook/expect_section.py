"""The `expect` section: what a cycle has to show to pass."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, model_validator

from lab.core.expected_failure import Failure, MustFail
from lab.core.plan import Expectations, NoticeExpectations, Regime, RolloutEnd
from lab.core.units import format_duration
from lab.core.verdict import Outcome
from lab.playbook.announce_section import Announce
from lab.playbook.cycles import CycleSection
from lab.playbook.fields import Duration, DurationOrZero, default, needed, section, time
from lab.playbook.mistakes import Clash, Wrong
from lab.playbook.notice_section import NoticeSection
from lab.playbook.rollouts import RolloutSection
from lab.playbook.scalars import one_of, ppm


class KernelLog(StrEnum):
    """What the guest's kernel log may hold."""

    CLEAN = "clean"
    ANY = "any"


class Repair(StrEnum):
    """What has to become of the clock."""

    AS_PREDICTED = "as-predicted"
    ANY = "any"


PartsPerMillion = Annotated[float, ppm()]
ExpectedRegime = Annotated[Regime, one_of(Regime.RESUMED, Regime.JUMPED, Regime.MIXED, hint="a regime")]
ExpectedOutcome = Annotated[Outcome, one_of(Outcome.PASSED, Outcome.FAILED, hint="an expectation")]
MustBeFailing = Annotated[Failure, one_of(*Failure, hint="a check that can fail")]
Repaired = Annotated[Repair, one_of(*Repair, hint="an expected resync")]
End = Annotated[RolloutEnd, one_of(*RolloutEnd, hint="an end of a rollout")]
LogState = Annotated[KernelLog, one_of(*KernelLog, hint="a state of the kernel log")]


class PauseSection(BaseModel):
    """Limits of the pause, by the host's clock."""

    model_config = section("{at_least: 5s, at_most: 6s}", minProperties=1)

    at_least: DurationOrZero | None = default(None, "The shortest pause that passes.")
    at_most: Duration | None = default(None, "The longest pause that passes.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise Wrong("no limit is given", "write at_least, at_most or both")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            least, most = format_duration(self.at_least), format_duration(self.at_most)
            raise Wrong(
                f"at_most ({most}) is less than at_least ({least}), so every pause would fail",
                f"raise it to {least} or more",
                within=("at_most",),
            )
        return self

    def fits(self, cycle: CycleSection) -> None:
        """Wrong when no pause of such a cycle could pass."""
        least = cycle.patch.to_plan().shortest_ns
        if self.at_most is not None and least >= self.at_most:
            what = f"the patch alone takes {format_duration(least)}, so every pause would fail"
            todo = f"write more than {format_duration(least)}"
            raise Wrong(what, todo, within=("pause", "at_most"))
        if self.at_least is not None and self.at_least > cycle.budget:
            budget = format_duration(cycle.budget)
            what = f"cycle.budget ends every pause after {budget}, so every pause would fail"
            raise Wrong(what, f"write {budget} or less", within=("pause", "at_least"))


class StallSection(BaseModel):
    """The limit of a snapshot's stall, by the host's clock."""

    model_config = section("{at_most: 3s}")

    at_most: Duration = needed("The longest stall that passes.", "3s")

    def fits(self, cycle: CycleSection) -> None:
        """Wrong when no stall of such a cycle could pass; Clash when its method freezes no file systems."""
        if not cycle.way.traits.freezes_files:
            what = f"method {cycle.way} freezes no file systems, so stall has no meaning"
            raise Clash(what, "delete it, or set cycle.method to snapshot", "stall", senseless=False)
        least = cycle.patch.to_plan().shortest_ns
        if least >= self.at_most:
            what = f"the patch alone takes {format_duration(least)}, so every stall would fail"
            raise Wrong(what, f"write more than {format_duration(least)}", within=("stall", "at_most"))


class InTime(BaseModel):
    """When the guest's clock has to be back on the host's, and to stay there."""

    model_config = section("{within: 5s}")

    within: Duration = needed("Longest time from the resume until the offset is inside the tolerance.", "5s")
    tolerance: Duration = time(Expectations.tolerance_ns, "Largest offset that counts as in time.")
    hold: Duration = time(Expectations.hold_ns, "How long the offset has to stay inside the tolerance.")


class FinalOffset(BaseModel):
    """The offset when the watch ends."""

    model_config = section("{within: 50ms}")

    within: Duration = needed("No larger than this, either side.", "50ms")


class DriftSection(BaseModel):
    """The drift after the resync."""

    model_config = section("{within: 200 ppm}")

    within: PartsPerMillion = needed("No larger than this, either side.", "200 ppm")


class SkewSection(BaseModel):
    """How far apart guests of one domain stop, and resume."""

    model_config = section("{within: 100ms}")

    within: Duration = needed("No further than this.", "100ms")


class Expect(BaseModel):
    """What a cycle has to show to pass. What is left out is not asked."""

    model_config = section("{regime: resumed}")

    regime: ExpectedRegime | None = default(
        None,
        "What the guest's clocks did. resumed: they stopped with it. jumped: they ran on. mixed: "
        "some of both.",
    )
    pause: PauseSection | None = default(None, "How long the pause may be.")
    stall: StallSection | None = default(
        None, "How long a snapshot's file systems may stand still, as a writer in the guest feels it."
    )
    in_time: InTime | None = default(None, "How soon the clock is back in time.")
    resync: Repaired = default(
        Repair.ANY,
        "as-predicted: the clock is corrected, or is not, as forecast from the "
        "mechanism's rules and configuration. If that needs a longer watch, the result "
        "is inconclusive.",
    )
    final_offset: FinalOffset | None = default(
        None, "Largest offset at the end of the watch, in either direction."
    )
    drift: DriftSection | None = default(None, "Largest drift after the resync, in either direction.")
    kernel_log: LogState = default(
        KernelLog.CLEAN,
        "clean: no lockup, RCU stall, hung task or clocksource marked unstable. any: not checked.",
    )
    notice: NoticeSection | None = default(None, "The announcement's expected course.")
    rollout: End | None = default(
        None,
        "The rollout's expected end. complete (the default): all domains are done. stopped: a gate stops it.",
    )
    skew: SkewSection | None = default(
        None, "Largest time between the stops of one domain's guests, and between their resumes."
    )
    outcome: ExpectedOutcome = default(
        Outcome.PASSED,
        "failed: a negative control: the run passes when checks fail. Inconclusive stays inconclusive.",
    )
    failures: list[MustBeFailing] = default(
        [],
        "With outcome: failed, the checks that have to fail; all others have to pass. "
        "Default: any check has to fail.",
    )

    @model_validator(mode="after")
    def _fails_as_asked(self) -> Self:
        if self.failures and self.outcome is not Outcome.FAILED:
            raise Wrong(
                "failures are listed, but the run is not expected to fail",
                "add outcome: failed",
                within=("failures",),
            )
        asked = {
            Failure.IN_TIME: (self.in_time is not None, "in_time: {within: 5s}"),
            Failure.FINAL_OFFSET: (self.final_offset is not None, "final_offset: {within: 50ms}"),
            Failure.DRIFT: (self.drift is not None, "drift: {within: 200 ppm}"),
            Failure.REGIME: (self.regime is not None, "regime: resumed"),
            Failure.PAUSE: (self.pause is not None, "pause: {at_most: 6s}"),
            Failure.RESYNC: (self.resync is Repair.AS_PREDICTED, "resync: as-predicted"),
            Failure.STALL: (self.stall is not None, "stall: {at_most: 3s}"),
            Failure.KERNEL_LOG: (self.kernel_log is KernelLog.CLEAN, "kernel_log: clean"),
        }
        for failure in self.failures:
            there, example = asked.get(failure, (True, ""))
            if not there:
                what = f"{failure.value} has to fail, but is not checked"
                raise Wrong(what, f"add {example}, or delete it", within=("failures",))
        return self

    def fits(self, cycle: CycleSection) -> None:
        """Wrong when a cycle like that can never show this."""
        if not cycle.way.freezes:
            for key in ("regime", "pause", "skew"):
                if getattr(self, key) is not None:
                    what = f"method {cycle.way}: {cycle.way.traits.without_pause} {key} has no meaning"
                    raise Clash(what, "delete it", key, senseless=False)
        elif self.pause:
            self.pause.fits(cycle)
        if self.stall:
            self.stall.fits(cycle)
        if self.in_time:
            needed = self.in_time.within + self.in_time.hold
            if cycle.watch < needed:
                raise Wrong(
                    f"in_time needs {format_duration(needed)} after the resume (within + hold), but "
                    f"cycle.watch ends after {format_duration(cycle.watch)}, so it could never pass",
                    f"set cycle.watch to {format_duration(needed)} or more",
                    within=("in_time", "within"),
                )

    def fits_announced(self, announce: Announce | None, cycle: CycleSection) -> None:
        """Wrong when an announcement like that, or none, can never show this."""
        if self.notice is None:
            return
        if announce is None:
            what = "nothing is announced, so there is no notice to check"
            raise Wrong(what, "add announce: {notice: 15min}, or delete it", within=("notice",))
        try:
            self.notice.fits(announce, cycle)
        except Wrong as wrong:
            raise Wrong(wrong.what, wrong.todo, within=("notice", *wrong.within)) from None
        if self.notice.cancelled:
            for key in ("regime", "pause", "skew"):
                if getattr(self, key) is not None:
                    what = f"when the event is called off no guest is frozen, so {key} has no meaning"
                    raise Wrong(what, "delete it, or notice.cancelled", within=(key,))

    def fits_rollout(self, rollout: RolloutSection | None) -> None:
        """Wrong when a rollout like that, or none, can never show this."""
        if self.rollout is None:
            return
        if rollout is None:
            what = "there is no rollout to check"
            raise Wrong(what, "add rollout: {by: update-domain}, or delete it", within=("rollout",))
        if self.rollout is RolloutEnd.STOPPED and not rollout.gates:
            raise Wrong("a rollout without gates never stops", "add rollout.gates", within=("rollout",))

    def to_plan(self) -> Expectations:
        """The expectations as the plan has them."""
        in_time = self.in_time
        return Expectations(
            regime=self.regime,
            pause_at_least_ns=self.pause.at_least if self.pause else None,
            pause_at_most_ns=self.pause.at_most if self.pause else None,
            in_time_within_ns=in_time.within if in_time else None,
            tolerance_ns=in_time.tolerance if in_time else Expectations.tolerance_ns,
            hold_ns=in_time.hold if in_time else Expectations.hold_ns,
            final_offset_ns=self.final_offset.within if self.final_offset else None,
            drift_ppm=self.drift.within if self.drift else None,
            as_predicted=self.resync is Repair.AS_PREDICTED,
            clean_kernel_log=self.kernel_log is KernelLog.CLEAN,
            notice=self.notice.to_plan() if self.notice else NoticeExpectations(),
            rollout=self.rollout or RolloutEnd.COMPLETE,
            skew_ns=self.skew.within if self.skew else None,
            stall_at_most_ns=self.stall.at_most if self.stall else None,
            must_fail=MustFail(tuple(self.failures)) if self.outcome is Outcome.FAILED else None,
        )
