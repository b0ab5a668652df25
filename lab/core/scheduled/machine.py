"""What the metadata service knows of its guests' events, and how that changes: by announcements, by requests,
and with time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lab.core.clock import Stamp
from lab.core.scheduled.model import Event, Fault, Happening, Notice, Rules, State


class Machine:
    """All delivery groups of one service. It reads no clock: every call says when it is. Not thread-safe.

    groups: each guest's delivery group; a guest that is in no availability set is a group of its own.
    """

    def __init__(self, groups: Mapping[str, str], rules: Rules = Rules()) -> None:  # noqa: B008 - frozen
        raise NotImplementedError

    # -- what the host does ------------------------------------------------------------------------

    def announce(self, now: Stamp, notice: Notice, event_id: str) -> State:
        """Publish an event under this id (an upper-case GUID, new). UNHEARD when the group is not switched
        on: it is never shown then. STARTED at once when there is no notice. KeyError: no such group, or a
        resource that is not in it."""
        raise NotImplementedError

    def start(self, now: Stamp, event_id: str) -> None:
        """Started, whether it was approved or is due, or not."""
        raise NotImplementedError

    def cancel(self, now: Stamp, event_id: str) -> None:
        """Gone without having started; nothing happens when it has. KeyError: no such event."""
        raise NotImplementedError

    def finish(self, now: Stamp, event_id: str) -> None:
        """All clear: gone."""
        raise NotImplementedError

    def restart(self, now: Stamp, group: str) -> None:
        """The group's incarnation starts at 1 again, as after a move of the service; events stay."""
        raise NotImplementedError

    def reorder(self, now: Stamp, group: str, order: Sequence[int]) -> None:
        """Show the group's events in another order (a permutation of their indices). Order means nothing."""
        raise NotImplementedError

    def fail(self, now: Stamp, guests: Sequence[str], answers: Sequence[Fault]) -> None:
        """Answer the next requests of each of these guests so, one after another, and then truly again."""
        raise NotImplementedError

    # -- what guests do ----------------------------------------------------------------------------

    def admit(self, now: Stamp, guest: str) -> tuple[Fault | None, int]:
        """A request of the guest's has come: the fault that it is answered with, if any, and how late the
        answer is, in real nanoseconds. Switches the guest's group on."""
        raise NotImplementedError

    def poll(self, now: Stamp, guest: str) -> tuple[int, tuple[Event, ...]]:
        """The incarnation and the events that the guest's group is shown now, in their order."""
        raise NotImplementedError

    def approve(self, now: Stamp, guest: str, event_ids: Sequence[str]) -> bool:
        """Approve for all of the group: what was Scheduled is Started. Case of ids does not matter; one that
        has started may be approved again. False, and nothing is done, when any id is none of the group's."""
        raise NotImplementedError

    # -- what time does, and what is known ---------------------------------------------------------

    def advance(self, now: Stamp) -> None:
        """Start what is due, switch off groups that have not asked for long. Every other call does it
        first."""
        raise NotImplementedError

    def state(self, event_id: str) -> State:
        """KeyError: no such event."""
        raise NotImplementedError

    def event(self, event_id: str) -> Event:
        """As it is now, or last was. KeyError: no such event."""
        raise NotImplementedError

    def group_of(self, guest: str) -> str:
        """KeyError: no such guest."""
        raise NotImplementedError

    def heard(self, guest: str) -> bool:
        """Whether the guest has asked since its group was switched on."""
        raise NotImplementedError

    def happened(self) -> tuple[Happening, ...]:
        """All since it was asked last, in order."""
        raise NotImplementedError
