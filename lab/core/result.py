"""The measured result of one guest's cycle."""

from __future__ import annotations

from dataclasses import dataclass

from lab.core.claims import Audit
from lab.core.clock import PHI_PPM, Interval
from lab.core.cross_timestamps import CrossTimestamps
from lab.core.drift import Drift
from lab.core.file_stall import FileStall, stall_of
from lab.core.pause import Pause
from lab.core.plan import CycleSpec, ResyncMechanism
from lab.core.resync import ResyncResult
from lab.core.steps import Part
from lab.core.timeline import Observation
from lab.core.timesync.forecast import Forecast
from lab.core.witnesses import Witness


@dataclass(frozen=True)
class CycleResult:
    """One guest's cycle as measured. None: not measured.

    before, at_resume, final: guest REALTIME minus host REALTIME at the last reading before the stop, at the
    resume (or the first reading after it, where that is known better) before anything repaired it, and at the
    last reading of the watch. drift_before, drift_after: drift of REALTIME. phi_ppm: the drift bound that
    extrapolations used. spec: the planned cycle. steps: the parts of the pause. resumed_guest: the guest's
    MONOTONIC_RAW at the resume. forecast: the mechanism's forecast for this pause, from its set-up before it;
    None without a freeze. audits: the guest's own claims, source by source. lag: for how long the guest's
    MONOTONIC_RAW stood still. outage_ns: for a rebooted guest, from the call that shut it down to the arrival
    of the new boot's first bytes at the host. disturbed: why the cycle did not go as planned; "" when it did.
    A disturbed cycle is not failed by what was not done. resumed_by: who resumed the guest, "" for the
    controller. another_boot: the guest was certainly seen in another boot than before.
    cross_timestamps: None without any.
    """

    observation: Observation
    mechanism: ResyncMechanism
    problems: tuple[str, ...]
    phi_ppm: float = PHI_PPM
    pause: Pause | None = None
    before: Interval | None = None
    at_resume: Interval | None = None
    final: Interval | None = None
    resync: ResyncResult | None = None
    drift_before: Drift | None = None
    drift_after: Drift | None = None
    spec: CycleSpec | None = None
    steps: tuple[Part, ...] = ()
    outage_ns: int | None = None
    resumed_guest: Interval | None = None
    forecast: Forecast | None = None
    audits: tuple[Audit, ...] = ()
    disturbed: str = ""
    resumed_by: str = ""
    another_boot: bool = False
    cross_timestamps: CrossTimestamps | None = None

    @property
    def control(self) -> bool:
        """A cycle without the freeze that the plan is about."""
        wanted = self.spec.method if self.spec is not None else None
        return self.observation.method.runs_on and self.observation.method is not wanted

    @property
    def used(self) -> Interval | None:
        """The used part of the budget: from the stop call to the resume's return, as recorded. If nothing
        shows that the guest was stopped for all of that time, the lower bound is the time for which it
        certainly was."""
        stop, resume, pause = self.observation.stop, self.observation.resume, self.pause
        if stop is None or resume is None or not self.observation.frozen:
            return None
        most = max(0, resume.returned.raw_ns - stop.called.raw_ns)
        if pause is None:
            return Interval(0, most)
        whole = pause.pause.low_ns >= pause.witnesses[Witness.HYPERVISOR].low_ns
        if whole and not self.resumed_by and not self.observation.stop_inferred:
            return Interval(most, most)
        return Interval(min(most, pause.pause.low_ns), most)

    @property
    def predicted(self) -> str:
        return self.forecast.text if self.forecast is not None else ""

    @property
    def lag(self) -> Interval | None:
        return None if self.pause is None else self.pause.witnesses.get(Witness.LAG)

    @property
    def stall(self) -> FileStall | None:
        """How long its file systems stood still; None when they were not frozen."""
        obs, pause = self.observation, self.pause
        if pause is None:
            return stall_of(obs.steps, None, None, None, None)
        # A clock that ran on has a lag of its drift alone.
        lag = Interval(0, 0) if not obs.frozen else self.lag
        return stall_of(obs.steps, obs.writes, pause.edges.stop, pause.edges.resume, lag)

    @property
    def reported(self) -> Interval | None:
        """The pause without the cost of proving the memory, which is not part of the method."""
        if self.pause is None:
            return None
        felt, proof = self.pause.pause, self.observation.proof
        cost = proof.cost_ns if proof is not None and self.observation.frozen else 0
        return Interval(max(0, felt.low_ns - cost), max(0, felt.high_ns - cost))

    @property
    def boot_id_unchanged(self) -> bool | None:
        first, last = self.observation.facts_before, self.observation.facts_after
        if self.another_boot:
            return False
        if first is None or last is None or not (first.boot_id and last.boot_id):
            return None
        return first.boot_id == last.boot_id
