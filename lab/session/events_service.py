"""`freezelab events serve`: a metadata service without a run, for kept guests and for listeners."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lab.core.scheduled.cloud_answers import CloudAnswers
from lab.core.scheduled.instance import InstanceInfo
from lab.core.scheduled.model import Event, Happening, Rules
from lab.events.client import SOCKET
from lab.events.control import claimed, control_listener
from lab.events.event_operator import EventOperator
from lab.events.service import MetadataService, tcp_socket, unix_socket
from lab.session.listeners import Listener, Wanted, address_of, instances_of, listeners_of

if TYPE_CHECKING:
    from lab.ports import Clock
    from lab.session.kept_guests import KeptGuest

TURN_NS = 50_000_000


@dataclass(frozen=True)
class ServiceOptions:
    """Options of `events serve`. listen: ADDRESS:PORT[=GUEST]. inside: names of kept guests. control:
    ADDRESS:PORT of the control side, "" for the Unix socket alone."""

    name: str
    rules: Rules
    listen: Sequence[str]
    inside: Sequence[str]
    wanted: Wanted
    answers: CloudAnswers = field(default_factory=CloudAnswers)
    control: str = ""


class RunningService:
    """A service that runs. bound: its listeners. instances: its guests. inside: kept guests that reach it.
    control: the URL of the control side, "" for the Unix socket alone."""

    def __init__(
        self,
        service: MetadataService,
        operator: EventOperator,
        clock: Clock,
        bound: Sequence[Listener],
        instances: Sequence[InstanceInfo],
        inside: Sequence[str],
        control: str = "",
    ) -> None:
        self._service, self._operator, self._clock = service, operator, clock
        self.bound, self.instances, self.inside, self.control = bound, instances, inside, control

    def socket(self, guest: str) -> Path:
        """The Unix socket of a guest's listener."""
        return self._service.path(guest)

    def entries(self) -> Iterator[tuple[Happening, Event | None]]:
        """Everything that happens from now on, each with its event; never ends by itself."""
        while True:
            happened = self._operator.turn()
            ids = {one.event: None for one in happened if one.event}
            known = {event.id: event for event in self._service.announcer.published(list(ids))}
            for one in happened:
                yield one, known.get(one.event)
            self._clock.sleep_until(self._clock.now().raw_ns + TURN_NS)


def _kept(home: Path, names: Sequence[str]) -> list[KeptGuest]:
    """The kept guests of these names. UsageError when there is none of one name. Without names, nothing that
    belongs to guests is imported: the service starts in a fifth of a second."""
    if not names:
        return []
    from lab.session.kept_guests import find

    return [find(home, guest) for guest in dict.fromkeys(names)]


@contextmanager
def serving(home: Path, options: ServiceOptions, clock: Clock) -> Iterator[RunningService]:
    """The service, until the context is left. UsageError for invalid options, GuestError when a kept guest
    does not answer."""
    kept = _kept(home, options.inside)
    listeners = listeners_of(options.listen)
    instances = instances_of([guest for *_, guest in listeners], kept, options.wanted)
    with (
        claimed(home, options.name) as folder,
        MetadataService(instances, options.rules, clock, folder / "doors", options.answers) as service,
        ExitStack() as stack,
    ):
        if kept:
            from lab.session.kept_guest_metadata import bring_inside

            bring_inside(stack, service, kept, clock)
        bound: list[Listener] = []
        operator = EventOperator(service, clock, options.rules.time_factor)
        described = {
            "name": options.name,
            "cloud": options.answers.cloud.value,
            "time_factor": options.rules.time_factor,
            "doors": bound,
        }
        # First: whoever finds a guest's listener open may announce.
        control, control_at = control_listener(operator, described), ""
        service.serve(control, unix_socket(folder / SOCKET))
        if options.control:
            listener = tcp_socket(*address_of(options.control, "--control"))
            host, port = listener.getsockname()[:2]
            control_at = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            service.serve(control, listener)
        for host, port, guest in listeners:
            bound.append((*service.listen(host, port, guest), guest))
        inside = [guest.name for guest in kept]
        yield RunningService(service, operator, clock, bound, instances, inside, control_at)
