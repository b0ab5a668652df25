"""`freezelab events play`: the announcements of a playbook without its guests, for clients on this machine.

Each guest of the playbook is a listener, and what asks there is its client. The events have the same course
as in a run, and the same checks. While a guest would be frozen, a client that was started here is stopped by
SIGSTOP, with its process group; one that somebody else has started runs on.
"""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lab.controller.event_lifecycle import EventLifecycle
from lab.core.announcement import answers_of, rules_of
from lab.core.clock import Stamp
from lab.core.event_timeline import Announced, EventTimeline
from lab.core.handlers import HandlerEnd, handler_findings
from lab.core.plan import Announcement, CycleSpec, GuestSpec, Plan
from lab.core.played_events import PlayedFreeze, played, played_findings
from lab.core.rollout import waves
from lab.core.scheduled.instance import InstanceInfo
from lab.core.scheduled.model import Event, Happening, Kind, State
from lab.core.timeline import Call
from lab.core.units import NS_PER_MS, NS_PER_S, format_duration
from lab.core.verdict import Finding, Outcome, worst
from lab.errors import GuestError, UsageError
from lab.events.announcer import ServiceAnnouncer
from lab.events.control import claimed
from lab.events.service import MetadataService
from lab.ports import Clock, NullView
from lab.process import runner
from lab.process.child import Started
from lab.record.journal import NullJournal
from lab.session.listeners import Listener, listeners_of, made_up

SCHEMA = "freezelab.play/1"
PORT = 8169
LOOK_NS = 20 * NS_PER_MS
END_S = 2.0
STDERR = 2

Heard = Callable[[Happening, Event | None], None]
"""Called with everything that happens, and its event."""


@dataclass(frozen=True)
class PlayOptions:
    """Options of `events play`. listen: ADDRESS:PORT=GUEST; without, ports from 8169 on. client: the command
    line of a client that is started for each guest; "": somebody else starts them. {url}, {guest} and
    {handler} (the playbook's, with its arguments) in it are replaced. wait_ns: how long the first requests
    may take."""

    listen: Sequence[str] = ()
    client: str = ""
    wait_ns: int = 60 * NS_PER_S


@dataclass(frozen=True)
class Played:
    """What has become of a playbook's events."""

    plan: Plan
    timelines: Sequence[EventTimeline]
    findings: Sequence[Finding]

    @property
    def outcome(self) -> Outcome:
        return worst(finding.outcome for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """As JSON values; times are in seconds since the event was published."""
        return {
            "schema": SCHEMA,
            "playbook": self.plan.name,
            "digest": self.plan.digest,
            "outcome": self.outcome.value,
            "findings": [asdict(finding) for finding in self.findings],
            "events": [_event(timeline) for timeline in self.timelines],
        }


class _HeardAnnouncer:
    """ports.Announcer that passes everything on as soon as it is known, and keeps it. announced: the ids of
    each call."""

    def __init__(self, announcer: ServiceAnnouncer, heard: Heard) -> None:
        self._announcer, self._heard = announcer, heard
        self.happenings: list[Happening] = []
        self.announced: list[tuple[str, ...]] = []

    def announce(self, guests: Sequence[str], spec: Announcement, cycle: CycleSpec) -> tuple[str, ...]:
        made = self._announcer.announce(guests, spec, cycle)
        self.announced.append(made)
        self.learn()
        return made

    def published(self, events: Sequence[str]) -> Sequence[Event]:
        return self._announcer.published(events)

    def state(self, events: Sequence[str]) -> State:
        state = self._announcer.state(events)
        self.learn()
        return state

    def cancel(self, events: Sequence[str]) -> None:
        self._announcer.cancel(events)

    def all_clear(self, events: Sequence[str]) -> None:
        self._announcer.all_clear(events)

    def happened(self) -> Sequence[Happening]:
        self.learn()
        return ()

    def learn(self) -> None:
        for one in self._announcer.happened():
            self.happenings.append(one)
            self._heard(one, self._announcer.published([one.event])[0] if one.event else None)


@dataclass(eq=False)
class _Clients:
    """The clients that were started here, by guest. ended: those that have ended by themselves."""

    running: dict[str, Started] = field(default_factory=dict)
    program: str = ""
    ended: dict[str, tuple[int, HandlerEnd]] = field(default_factory=dict)

    def look(self, cycle: int) -> None:
        """Note the clients that have ended."""
        for guest, client in self.running.items():
            if guest not in self.ended and (status := client.status) is not None:
                code, text = (
                    ("killed", signal.Signals(-status).name[3:]) if status < 0 else ("exited", str(status))
                )
                result = "exit-code" if status else "success"
                end = HandlerEnd(self.program, result, code, text, "its output is above")
                self.ended[guest] = (cycle, end)

    def send(self, guests: Sequence[str], number: signal.Signals) -> None:
        for guest in guests:
            if guest in self.running:
                self.running[guest].send(number)

    def stop(self) -> None:
        """End all of them, stopped ones as well."""
        for client in self.running.values():
            client.send(signal.SIGCONT)
            client.stop(END_S)


class Player:
    """A playbook's service. instances, bound: its guests and their listeners; path: of a guest's socket."""

    def __init__(
        self,
        plan: Plan,
        options: PlayOptions,
        service: MetadataService,
        bound: Sequence[Listener],
        clock: Clock,
    ) -> None:
        self.plan, self.bound = plan, bound
        self.instances: Sequence[InstanceInfo] = list(service.instances.values())
        self.path = service.path
        self._options, self._service, self._clock = options, service, clock

    def play(self, heard: Heard) -> Played:
        """Play all cycles. heard: see Heard. GuestError when a client does not ask, MachineError when one
        cannot be started."""
        spec = self.plan.cycle.announce
        assert spec is not None  # noqa: S101 - for the type checker; playing() has looked
        heard_by = _HeardAnnouncer(self._service.announcer, heard)
        clients, timelines = _Clients(), list[EventTimeline]()
        affected = [guest for guest in self.plan.guests if not guest.is_peer]
        rollout = self.plan.rollout
        groups = [wave.guests for wave in waves(affected, rollout)] if rollout else [_names(affected)]
        with ExitStack() as stack:
            if spec.handler:
                if self._options.client:
                    stack.callback(clients.stop)
                    self._start(clients, spec.handler)
                self._await(heard_by, clients)
            for guests in groups * self.plan.repeat:
                timelines += self._cycle(len(heard_by.announced), guests, spec, heard_by, clients)
            clients.look(len(heard_by.announced) - 1)
        found = played_findings(timelines, self.plan.cycle, self.plan.expectations.notice)
        ends = [(guest, cycle, end) for guest, (cycle, end) in clients.ended.items()]
        return Played(self.plan, timelines, [*found, *handler_findings(ends)])

    def _start(self, clients: _Clients, handler: Sequence[str]) -> None:
        command = self._options.client.replace("{handler}", runner.quote(handler))
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise UsageError(f"no command line: {error}", where="--client") from None
        if not words:
            raise UsageError("no command line: it is blank", where="--client")
        clients.program = Path(words[0]).name
        for about in self.instances:
            values = {"{url}": self.url(about.guest), "{guest}": about.guest}
            argv = [_filled(word, values) for word in words]
            clients.running[about.guest] = runner.start(
                argv, stdout=STDERR, stderr=STDERR, parent_death=signal.SIGKILL
            )

    def url(self, guest: str) -> str:
        """The address of the guest's listener."""
        host, port = next((host, port) for host, port, who in self.bound if who == guest)
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def _await(self, heard_by: _HeardAnnouncer, clients: _Clients) -> None:
        deadline = self._clock.now().raw_ns + self._options.wait_ns
        while silent := [one.guest for one in self.instances if not self._service.has_asked(one.guest)]:
            now = self._clock.now().raw_ns
            clients.look(0)
            if gone := clients.ended.get(silent[0]):
                raise GuestError(f"its client {gone[1].program} {gone[1].text}", where=f"guest {silent[0]}")
            if now >= deadline:
                what = f"its client has not asked for events within {format_duration(self._options.wait_ns)}"
                hint = f"it has to use {self.url(silent[0])}"
                raise GuestError(what, where=f"guest {silent[0]}", hint=hint)
            self._pass(now + LOOK_NS, heard_by)

    def _cycle(
        self,
        index: int,
        guests: Sequence[str],
        spec: Announcement,
        heard_by: _HeardAnnouncer,
        clients: _Clients,
    ) -> Iterator[EventTimeline]:
        """One cycle of these guests, and the timelines of its events."""
        first, freezes = len(heard_by.happenings), dict[str, PlayedFreeze]()
        expect = self.plan.expectations
        life = EventLifecycle(
            heard_by, self._clock, NullJournal(), NullView(),
            index=index, guests=guests, tolerance_ns=expect.tolerance_ns, hold_ns=expect.hold_ns,
        )  # fmt: skip
        try:
            if life.announce(spec, self.plan.cycle):
                self._pass(life.not_before_raw_ns, heard_by)
                clients.look(index)
                freezes = self._freeze(guests, heard_by, clients)
        finally:
            life.over()
        self._watch(first, heard_by)
        clients.look(index)
        happened = heard_by.happenings[first:]
        for event in heard_by.published(heard_by.announced[index]):
            own = [
                one
                for one in happened
                if one.event == event.id or (not one.event and one.group == event.notice.group)
            ]
            announced = Announced(event, index, spec.time_factor, tuple(own))
            yield played(
                announced, {guest: freezes[guest] for guest in event.notice.resources if guest in freezes}
            )

    def _freeze(
        self, guests: Sequence[str], heard_by: _HeardAnnouncer, clients: _Clients
    ) -> dict[str, PlayedFreeze]:
        called = self._clock.now()
        try:
            clients.send(guests, signal.SIGSTOP)
            stop = Call(called, self._clock.now())
            self._pass(stop.returned.raw_ns + self.plan.cycle.patch.shortest_ns, heard_by)
        finally:
            called = self._clock.now()
            clients.send(guests, signal.SIGCONT)
        resume = Call(called, self._clock.now())
        return dict.fromkeys(guests, PlayedFreeze(stop, resume))

    def _watch(self, first: int, heard_by: _HeardAnnouncer) -> None:
        """Wait until all that have seen the events have seen that they are gone, at most for the playbook's
        watch."""
        until = self._clock.now().raw_ns + self.plan.cycle.watch_ns
        while (now := self._clock.now().raw_ns) < until:
            since = heard_by.happenings[first:]
            saw = {(one.guest, one.event) for one in since if one.kind in (Kind.SEEN, Kind.SEEN_STARTED)}
            if saw <= {(one.guest, one.event) for one in since if one.kind is Kind.SEEN_GONE}:
                return
            self._pass(now + LOOK_NS, heard_by)

    def _pass(self, until_raw_ns: int, heard_by: _HeardAnnouncer) -> None:
        """Let the time pass, and everything that happens be heard."""
        while (now := self._clock.now().raw_ns) < until_raw_ns:
            self._clock.sleep_until(min(until_raw_ns, now + LOOK_NS))
            heard_by.learn()


@contextmanager
def playing(plan: Plan, options: PlayOptions, home: Path, name: str, clock: Clock) -> Iterator[Player]:
    """The service of a playbook, until the context is left. name: of its folder. UsageError for a playbook
    that announces nothing or is a matrix, and for invalid options."""
    spec = plan.cycle.announce
    if plan.cells or plan.tolerance is not None:
        raise UsageError(f"{plan.name} has many cells; only a playbook of one can be played without guests")
    if spec is None:
        raise UsageError(f"{plan.name} announces nothing", hint="add an announce section, or: freezelab run")
    names = _names(plan.guests)
    text = [f"127.0.0.1:{PORT + number}={name}" for number, name in enumerate(names)]
    listeners = listeners_of(options.listen or text)
    if wrong := sorted({guest for *_, guest in listeners} ^ set(names)):
        hint = f"give each of them one address: {', '.join(names)}"
        raise UsageError(
            f"{wrong[0]} has no listener, or is no guest of {plan.name}", where="--listen", hint=hint
        )
    instances = [_about(guest, number, spec) for number, guest in enumerate(plan.guests)]
    with (
        claimed(home, name) as folder,
        MetadataService(instances, rules_of(spec), clock, folder / "doors", answers_of(spec)) as service,
    ):
        bound = [(*service.listen(host, port, guest), guest) for host, port, guest in listeners]
        yield Player(plan, options, service, bound, clock)


def _event(timeline: EventTimeline) -> dict[str, Any]:
    event, began = timeline.event, timeline.event.published.raw_ns

    def after(stamp: Stamp | None) -> float | None:
        return None if stamp is None else round((stamp.raw_ns - began) / NS_PER_S, 3)

    return {
        "id": event.id,
        "type": event.notice.type.value,
        "resources": list(event.notice.resources),
        "state": timeline.state.value,
        "started_s": after(timeline.started),
        "cancelled_s": after(timeline.cancelled),
        "gone_s": after(timeline.gone),
        "refused": dict(timeline.refused),
        "guests": [
            {
                "guest": one.guest,
                "seen_s": after(one.seen),
                "seen_started_s": after(one.seen_started),
                "approved_s": after(one.approved),
                "seen_gone_s": after(one.seen_gone),
            }
            for one in timeline.members
        ],
    }


def _filled(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word


def _names(guests: Sequence[GuestSpec]) -> tuple[str, ...]:
    return tuple(guest.name for guest in guests)


def _about(guest: GuestSpec, number: int, spec: Announcement) -> InstanceInfo:
    return replace(
        made_up(guest.name, number),
        name=guest.event_name,
        availability_set=guest.availability_set,
        scale_set=guest.scale_set,
        fault_domain=guest.fault_domain,
        update_domain=guest.update_domain,
        given=spec.instance + guest.instance,
    )
