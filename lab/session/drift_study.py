"""`freezelab drift`: a kept guest's clocks over minutes, over SSH alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.core.drift_study import Course, DriftPoint, Look, look, point
from lab.core.timeline import SamplerReport
from lab.core.units import NS_PER_MS, parse_duration
from lab.errors import GuestError, Interrupted, UsageError
from lab.guest.discipline import discipline
from lab.guest.local import host_probe
from lab.guest.probe import GuestProbe
from lab.guest.ssh import SSH
from lab.process.clock import HostClock
from lab.session import kept_guests

SCHEMA = "freezelab.drift/1"
BURST = 8
CONNECT_S = 30
LEAST_NS = 50 * NS_PER_MS


@dataclass(frozen=True)
class Times:
    """Times of a study. length_ns: its length; every_ns: from one burst to the next."""

    length_ns: int
    every_ns: int


def times(length: str, every: str) -> Times:
    """The times from the command line. UsageError when they are not durations, or do not fit together."""
    found = []
    for option, text in (("--for", length), ("--every", every)):
        try:
            found.append(parse_duration(text))
        except ValueError as error:
            raise UsageError(str(error), where=option) from None
    length_ns, every_ns = found
    if every_ns < LEAST_NS:
        raise UsageError(
            "too short: a burst of readings takes some 30 ms", where="--every", hint="at least 50ms"
        )
    if length_ns < 2 * every_ns:
        raise UsageError("too short: a drift needs at least two bursts", where="--for")
    return Times(length_ns, every_ns)


def which(home: Path, name: str | None) -> kept_guests.KeptGuest:
    """The guest to observe. UsageError without a name, with the names of kept guests."""
    if name is not None:
        return kept_guests.find(home, name)
    there = [guest.name for guest in kept_guests.read_all(home)]
    if there:
        raise UsageError(
            f"which guest? The kept ones are {', '.join(there)}", hint=f"freezelab drift {there[0]}"
        )
    raise UsageError("there is no kept guest", hint=f"start one: {kept_guests.START}")


def watch(
    guest: kept_guests.KeptGuest,
    wanted: Times,
    on_point: Callable[[int, DriftPoint, DriftPoint | None], None],
) -> Look:
    """Observe until the time is over or a signal comes. on_point: called after each burst with the
    nanoseconds since the beginning, the guest's point and this host's own.

    GuestError when the guest cannot be reached, Interrupted when a signal came before the first burst.
    """
    clock = HostClock()
    points: list[DriftPoint] = []
    noise: list[DriftPoint] = []
    sampler: SamplerReport | None = None

    def connect() -> SSH:
        return SSH.connect(guest.address, clock, CONNECT_S)

    with GuestProbe(guest.name, connect) as probe, host_probe(clock) as local:
        before = discipline(probe.ssh)
        probe.start_cycle()
        begun = clock.now().raw_ns
        failure: GuestError | Interrupted | None = None
        try:
            while (since := clock.now().raw_ns - begun) <= wanted.length_ns:
                here = point([local.read() for _ in range(BURST)])
                there = point([probe.read() for _ in range(BURST)])
                if there is not None:
                    points.append(there)
                    if here is not None:
                        noise.append(here)
                    on_point(since, there, here)
                clock.sleep_until(begun + (since // wanted.every_ns + 1) * wanted.every_ns)
        except (GuestError, Interrupted) as error:
            failure = error
        after = None
        with suppress(GuestError):
            sampler = probe.samples()
            after = discipline(probe.ssh)
        # What its sampler knew before it was started anew is lost.
        result = look(points, noise, sampler, probe.restarts, before, after)
    if result is None or len(points) < 2 or isinstance(failure, GuestError):
        raise failure or GuestError("no reading succeeded", where=f"guest {guest.name}")
    return result


def _course(course: Course | None) -> dict[str, Any] | None:
    if course is None:
        return None
    return {**asdict(course), "resolves_1_ppm": course.resolves, "window_for_1_ppm_ns": course.window_ns}


def as_data(guest: kept_guests.KeptGuest, result: Look) -> dict[str, Any]:
    """Output of --json. Offsets are guest minus host; drift in ppm, positive: the guest's clock gains."""
    return {
        "schema": SCHEMA,
        "guest": guest.name,
        "length_ns": result.length_ns,
        "points": result.points,
        "raw": _course(result.raw),
        "real": _course(result.real),
        "host": _course(result.host),
        "noise": _course(result.noise),
        "steps": [asdict(step) for step in result.steps],
        "restarts": result.restarts,
        "discipline": {
            name: None if each is None else {**asdict(each), "held": each.disciplined}
            for name, each in (("before", result.before), ("after", result.after))
        },
    }
