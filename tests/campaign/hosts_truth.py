"""What is known of a run over hosts that are of one machine, beside what its record says."""

from __future__ import annotations

import json

from lab.record.journal import EVENTS
from tests.host.ssh_hosts import SshHosts


def untrue(lab: SshHosts) -> list[str]:
    """The cycles in which what the record says of how far apart hosts stopped excludes the truth. That is
    known: the hosts have this machine's REALTIME, or are a known time ahead of it."""
    wrong, ahead = [], {host.name: host.real_ahead_ns for host in lab.hosts}
    for path in (lab.folder / "controller-state/runs").glob("2*/run.json"):
        stops: dict[int, list[tuple[int, int, int, int]]] = {}
        for part in json.loads(path.read_text())["parts"]:
            fleet = part["host"]["details"].get("fleet", {"stops": []})
            lines = (path.parent / "parts" / part["run"] / EVENTS).read_text().splitlines()
            calls = [json.loads(line) for line in lines if '"kind":"stop"' in line]
            for stop in fleet["stops"]:
                real = [call["call"] for call in calls if call["cycle"] == stop["cycle"]]
                off = ahead[part["host"]["details"]["host"]]
                began = min(call["called"]["real_ns"] for call in real) - off
                ended = max(call["returned"]["real_ns"] for call in real) - off
                stops.setdefault(stop["cycle"], []).append((stop["low_ns"], stop["high_ns"], began, ended))
        for cycle, hosts in stops.items():
            wrong += [
                f"cycle {cycle}: stopped {low} to {high} ns after the instant, beside {other}"
                for low, high, began, ended in hosts
                for other in hosts
                if high - other[0] < began - other[3] or low - other[1] > ended - other[2]
            ]
    return wrong


def down_together(lab: SshHosts) -> list[str]:
    """The pairs of guests, each a domain, that stood still at the same time, by this machine's REALTIME."""
    spans = [(*span, guest) for (guest, _), span in stood_still(lab).items()]
    return [
        f"{one[2]} and {other[2]} were down together"
        for one in spans
        for other in spans
        if one[2] < other[2] and one[0] < other[1] and other[0] < one[1]
    ]


def stood_still(lab: SshHosts) -> dict[tuple[str, int], tuple[int, int]]:
    """From when to when each guest was stopped in each cycle, at the longest, in this machine's REALTIME, by
    the histories of the hosts' runs, here or there."""
    spans = {}
    for host in lab.hosts:
        of_host = [
            *lab.folder.glob(f"*/runs/*/parts/*-{host.name}/{EVENTS}"),
            *host.state.glob(f"runs/2*/{EVENTS}"),
        ]
        for file in of_host:
            events = [json.loads(line) for line in file.read_text().splitlines()]
            back = {(event["guest"], event["cycle"]): event for event in events if event["kind"] == "resume"}
            frozen = {event["cycle"] for event in events if event["kind"] == "freeze"}
            for stop in (one for one in events if one["kind"] == "stop" and one["cycle"] in frozen):
                if resume := back.get((stop["guest"], stop["cycle"])):
                    began, ended = stop["call"]["called"], resume["call"]["returned"]
                    spans[stop["guest"], stop["cycle"]] = (
                        began["real_ns"] - host.real_ahead_ns,
                        ended["real_ns"] - host.real_ahead_ns,
                    )
    return spans


def untold(lab: SshHosts) -> list[str]:
    """The guests that were stopped before their event had started or after it had ended, by this machine's
    REALTIME, which is the controller's; and the events that have not ended."""
    wrong, spans = [], stood_still(lab)
    for path in (lab.folder / "controller-state/runs").glob("2*/run.json"):
        for event in json.loads(path.read_text())["events"]:
            started, gone = event["started"], event["gone"] or event["cancelled"]
            if event["state"] not in ("over", "cancelled", "unheard"):
                wrong.append(f"the event of {event['resources']} is {event['state']} at the end")
            for guest in event["resources"]:
                if (span := spans.get((guest, event["cycle"]))) is None:
                    continue
                if started is None or span[0] < started["real_ns"]:
                    wrong.append(f"{guest} was stopped before its event had started")
                if gone is not None and gone["real_ns"] < span[0]:
                    wrong.append(f"the event of {guest} had ended before it was stopped")
    return wrong
