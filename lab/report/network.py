"""The lab's own network in words: its limits in a plan, and what passed it in a report."""

from __future__ import annotations

from lab.core.network import HOST, FrameCounts, MoveCause, NetworkLimits
from lab.core.plan import Plan
from lab.core.quantities import format_at_latest, format_between
from lab.core.units import format_duration
from lab.record.model import Run
from lab.record.model_clock import Measure
from lab.record.model_network import MoveRecord
from lab.report.page import Page
from lab.report.text import counted

MOST_PLACES = 4
MOST_MOVES = 8

_UNITS = ((10**9, "Gbit/s"), (10**6, "Mbit/s"), (10**3, "kbit/s"))


def limits_text(limits: NetworkLimits) -> str:
    """ "delay 1 ms, loss 1 %, 100 Mbit/s, queue 1000"."""
    parts = [
        f"delay {format_duration(limits.delay_ns)}" if limits.delay_ns else "",
        f"loss {limits.loss * 100:g} %" if limits.loss else "",
        _rate(limits.bits_per_s) if limits.bits_per_s else "",
        f"queue {limits.queue}",
    ]
    return ", ".join(filter(None, parts))


def _rate(bits_per_s: int) -> str:
    factor, unit = next(((f, u) for f, u in _UNITS if bits_per_s >= f), (1, "bit/s"))
    return f"{bits_per_s / factor:g} {unit}"


def network_line(plan: Plan) -> str:
    """A plan's network, in one line; "" without one."""
    if plan.network is None:
        return ""
    guests = [guest for cell in plan.parts for guest in cell.guests if guest.lab is not None]
    own = {g.name: limits_text(g.lab.limits) for g in guests if g.lab and g.lab.limits != plan.network.limits}
    seed = "" if plan.network.seed is None else f", seed {plan.network.seed}"
    shown = [f"{name}: {text}" for name, text in list(own.items())[:MOST_PLACES]]
    more = [f"{len(own) - MOST_PLACES} more with limits of their own"] if len(own) > MOST_PLACES else []
    first, last = guests[0].lab, guests[-1].lab
    ips = (
        "" if first is None or last is None else f" {first.ip}" + (f" to {last.ip}" if last != first else "")
    )
    if plan.network.bridge:
        return f"lab{ips}, on a Linux bridge of its own"
    return "; ".join([f"lab{ips}, {limits_text(plan.network.limits)}{seed}", *shown, *more])


def show_network(page: Page, run: Run) -> None:
    """Print what passed the network, place by place, in one line."""
    if run.network is None:
        return
    places = [place for place in run.network.places if place.name != HOST or not run.network.no_host]
    shown = [f"{place.name} {_counts(place.counts)}" for place in places if place.counts is not None]
    more = [f"{len(shown) - MOST_PLACES - 1} more"] if len(shown) > MOST_PLACES + 1 else []
    parts = shown[: MOST_PLACES + 1] if shown else ["not known what passed it"]
    if run.network.no_host:
        more.append(f"no clients on the host ({run.network.no_host})")
    how = "a Linux bridge" if run.network.bridge else limits_text(run.network.places[0].limits)
    page.labelled("network", f"{run.network.kind}, {how}: {'; '.join([*parts, *more])}", style="dim")
    label, most = "moved", page.most(MOST_MOVES)
    for move in run.network.moves[:most]:
        page.labelled(label, _move(move))
        label = ""
    if len(run.network.moves) > most:
        page.labelled("", f"{len(run.network.moves) - most} more: freezelab report --json")


_CAUSES = {
    MoveCause.ANNOUNCEMENT: "by QEMU's announcement",
    MoveCause.GRATUITOUS_ARP: "by a gratuitous ARP",
    MoveCause.ARP: "by an ARP request or reply",
    MoveCause.TRAFFIC: "by the guest's first other frame",
    MoveCause.UNKNOWN: "for an unknown reason",
}


def _move(move: MoveRecord) -> str:
    """ "cycle 1: 10.77.0.100 from vip-0 to vip-1, 3.5-3.6 s after the stop, by a gratuitous ARP"."""
    when = ""
    if move.since_resume is not None and move.since_resume.high_ns >= 0:
        when = f", {_after(move.since_resume)} after the resume"
    elif move.since_stop is not None:
        when = f", {_after(move.since_stop)} after the stop"
    cycle = "" if move.cycle is None else f"cycle {move.cycle}: "
    whose = f"{move.guest} ({move.address})" if move.guest else move.address
    return f"{cycle}{whose} from {move.before} to {move.after}{when}, {_CAUSES[move.cause]}"


def _after(measure: Measure) -> str:
    if measure.low_ns <= 0:
        return format_at_latest(measure.high_ns)
    return format_between(measure.low_ns, measure.high_ns)


def _counts(counts: FrameCounts) -> str:
    """ "sent 12 frames, took 10, 2 lost"."""
    parts = [
        f"sent {counted(counts.sent, 'frame')}",
        f"took {counts.received}",
        f"{counts.lost} lost on purpose" if counts.lost else "",
        f"{counts.overflowed} over its queue" if counts.overflowed else "",
        f"{counts.absent} for a QEMU that was not there" if counts.absent else "",
    ]
    return ", ".join(filter(None, parts))
