"""A fleet over hosts in a report: how far apart its hosts froze their guests, and who was cut off.

lab.hosts.fleet_run has put that into the details of each part's host, as `fleet`.
"""

from __future__ import annotations

from lab.core.clock import Interval
from lab.core.fleet_placement import skew
from lab.core.quantities import format_between
from lab.record.model import Run
from lab.report.text import names


def fleet_text(run: Run) -> str:
    """ "3 hosts, frozen within 0–3 ms of each other; cut off: rack-2"; "" for any other run."""
    known = {
        str(part.host.details.get("host", "")): part.host.details["fleet"]
        for part in run.parts
        if isinstance(part.host.details.get("fleet"), dict)
    }
    if not known:
        return ""
    cycles: dict[int, list[Interval]] = {}
    for fleet in known.values():
        for stop in fleet["stops"]:
            cycles.setdefault(stop["cycle"], []).append(Interval(stop["low_ns"], stop["high_ns"]))
    apart = [skew(stops) for stops in cycles.values() if len(stops) > 1]
    text = f"{len(known)} hosts"
    if apart:
        worst = max(apart, key=lambda one: one.high_ns)
        text += f", frozen within {format_between(worst.low_ns, worst.high_ns)} of each other"
    lost = [name for name, fleet in known.items() if fleet["cut_off"]]
    return f"{text}; cut off: {names(lost)}" if lost else text
