"""The `expect.notice` section: the announcement's expected course."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, model_validator

from lab.core.plan import NoticeExpectations
from lab.core.scheduled.model import UNKNOWN_S, EventType
from lab.core.units import NS_PER_S, format_duration
from lab.playbook.announce_section import Announce
from lab.playbook.cycles import CycleSection
from lab.playbook.fields import DurationOrZero, Flag, default, section
from lab.playbook.mistakes import Wrong

_BY_GUESTS = ("acknowledged", "seen", "started_seen")


class NoticeSection(BaseModel):
    """What has to become of the announcement. What is left out is not asked."""

    model_config = section("{acknowledged: true}", minProperties=1)

    acknowledged: Flag | None = default(
        None, "true: a guest approves the event before NotBefore. false: none does."
    )
    seen: Flag | None = default(
        None, "true: every affected guest gets the event before the freeze. false: none does."
    )
    started_seen: Flag | None = default(
        None,
        "true: every affected guest gets it as Started before the freeze. false: none does.",
    )
    kept: Flag | None = default(
        None, "true: the pause is no longer than the announced duration. false: it is longer."
    )
    cancelled: Flag | None = default(
        None, "true: the event is called off, and no guest is frozen. false: it is not called off."
    )
    at_least: DurationOrZero | None = default(
        None, "Shortest time from the announcement to Started, in real time."
    )
    at_most: DurationOrZero | None = default(
        None, "Longest time from the announcement to Started, in real time."
    )

    @model_validator(mode="after")
    def _in_itself(self) -> Self:
        if all(getattr(self, key) is None for key in NoticeSection.model_fields):
            raise Wrong("no expectation is given", "write {acknowledged: true}, or delete it")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            least, most = format_duration(self.at_least), format_duration(self.at_most)
            what = f"at_most ({most}) is less than at_least ({least}), so every notice would fail"
            raise Wrong(what, f"raise it to {least} or more", within=("at_most",))
        if self.seen is False:
            for key in ("acknowledged", "started_seen"):
                if getattr(self, key):
                    what = f"an event that no guest gets cannot be {key.replace('_', ' ')}"
                    raise Wrong(what, "set seen to true, or delete one of the two", within=(key,))
        if self.cancelled:
            for key in ("acknowledged", "started_seen", "kept", "at_least", "at_most"):
                if getattr(self, key) not in (None, False):
                    what = (
                        f"an event that is called off never starts, so {key} has no meaning beside cancelled"
                    )
                    raise Wrong(what, "delete one of the two", within=(key,))
        return self

    def fits(self, announce: Announce, cycle: CycleSection) -> None:
        """Wrong when such an announcement can never show this."""
        asked = next((key for key in _BY_GUESTS if getattr(self, key)), None)
        if asked and not announce.handler:
            what = f"{asked}: announce has no handler, so no guest asks for events"
            raise Wrong(what, "add announce.handler, like [../examples/drain.py]", within=(asked,))
        if self.acknowledged and not announce.cloud.traits.approvals:
            what = f"acknowledged: guests cannot approve in {announce.cloud}"
            raise Wrong(what, "delete it, or set announce.cloud to azure", within=("acknowledged",))
        if self.cancelled and announce.cancel_after is None:
            raise Wrong(
                "announce has no cancel_after", "add announce.cancel_after, like 5min", within=("cancelled",)
            )
        if self.kept is not None:
            if announce.type_for(cycle) is not EventType.FREEZE:
                what = "only a freeze has an announced duration"
                raise Wrong(what, "delete it", within=("kept",))
            self._check_duration(self.kept, announce.duration_for(cycle), cycle)
        real = round(announce.notice_for(cycle) / announce.time_factor)
        if self.at_least is not None and self.at_least > real:
            what = f"the notice is {format_duration(real)} of real time (announce.notice by time_factor)"
            todo = f"ask for at most {format_duration(real)}"
            raise Wrong(f"{what}, so it could never pass", todo, within=("at_least",))

    @staticmethod
    def _check_duration(kept: bool, duration_s: int, cycle: CycleSection) -> None:
        """Wrong when no pause could be as expected."""
        if duration_s == UNKNOWN_S:
            what = "an unknown duration is announced, so kept has no meaning"
            raise Wrong(what, "delete it, or set announce.duration", within=("kept",))
        announced, least = duration_s * NS_PER_S, cycle.patch.to_plan().shortest_ns
        words = format_duration(announced)
        if kept and least >= announced:
            what = f"the patch alone takes {format_duration(least)}, and {words} are announced"
            todo = "set announce.duration to more, or leave it out"
            raise Wrong(f"{what}, so it could never pass", todo, within=("kept",))
        if not kept and announced >= cycle.budget:
            what = f"cycle.budget ends every pause after {format_duration(cycle.budget)}, and {words} are"
            todo = "set announce.duration to less, or kept to true"
            raise Wrong(f"{what} announced, so it could never pass", todo, within=("kept",))

    def to_plan(self) -> NoticeExpectations:
        """The expectations as the plan has them."""
        return NoticeExpectations(
            acknowledged=self.acknowledged,
            seen=self.seen,
            started_seen=self.started_seen,
            kept=self.kept,
            cancelled=self.cancelled,
            at_least_ns=self.at_least,
            at_most_ns=self.at_most,
        )
