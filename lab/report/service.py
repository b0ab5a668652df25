"""Output of `freezelab events`: a service that runs alone, its log, and its events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from lab.core.scheduled.cloud import Cloud
from lab.core.scheduled.instance import InstanceInfo
from lab.core.scheduled.model import Event, Happening, Kind
from lab.core.units import NS_PER_S
from lab.core.verdict import Finding, Outcome
from lab.report.page import Page
from lab.report.table import Column, Piece, Table, forms
from lab.report.text import cleaned, names

QUIET_NS = NS_PER_S
SILENT_S = 10
"""Clients poll once a second; some every few seconds."""

_STYLES = {
    "published": "bold", "started": "yellow", "approved": "green", "refused": "red", "unheard": "yellow",
    "cancelled": "yellow", "gone": "green", "seen": "", "scheduled": "", "over": "green",
}  # fmt: skip


class Log:
    """Prints one line for each entry. Repeated refusals are printed once a second."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._refused: dict[tuple[str, str], tuple[int, int]] = {}

    def show(self, one: Happening, event: Event | None) -> None:

        text = self._text(one, event)
        if one.kind is Kind.REFUSED:
            key = (one.guest, one.text)
            last_ns, more = self._refused.get(key, (-QUIET_NS, 0))
            if one.at.raw_ns - last_ns < QUIET_NS:
                self._refused[key] = (last_ns, more + 1)
                return
            self._refused[key] = (one.at.raw_ns, 0)
            text += f" ({more} more before)" if more else ""
        word = one.kind.value.partition("-")[0]
        short = event.id[:8] if event is not None else ""
        before: list[Piece] = [(f"{word:<11}", _STYLES.get(word, "")), (f"{short:<8}  ", "bold")]
        self._page.labelled(_clock(one.at.real_ns), text, before=before, width=8)

    def _text(self, one: Happening, event: Event | None) -> str:

        if event is not None and one.kind in (Kind.PUBLISHED, Kind.NOT_ENABLED):
            notice = event.notice
            what = f"{notice.type} of {', '.join(notice.resources)}"
            if one.kind is Kind.NOT_ENABLED:
                return f"{what}: no guest has asked for events, so none gets it"
            wait = f"not before {_clock(event.not_before.real_ns)}, in {seconds(notice.notice_ns / 1e9)}"
            takes = f"takes {notice.duration_s} s" if notice.duration_s > 0 else ""
            return " · ".join(filter(None, [what, wait if notice.notice_ns > 0 else "no notice", takes]))
        if event is not None and one.kind is Kind.STARTED:
            if event.notice.notice_ns <= 0:
                return "at once"
            return f"{seconds((one.at.raw_ns - event.published.raw_ns) / 1e9)} after it was published"
        group = one.group if " " in one.group else f"set {one.group}"
        texts = {
            Kind.ENABLED: f"first request of {one.guest} enables events for {group}",
            Kind.DISABLED: f"events are disabled for {group} until it asks again",
            Kind.SEEN: f"by {one.guest}",
            Kind.SEEN_STARTED: f"by {one.guest}, as Started",
            Kind.SEEN_GONE: f"by {one.guest} that it is gone",
            Kind.APPROVED: f"by {one.guest}",
            Kind.RESTARTED: f"the incarnation of {group} restarts at 1",
            Kind.REFUSED: f"{one.guest}: {one.text}",
        }
        return one.text if one.kind is Kind.APPROVED and not one.guest else texts.get(one.kind, one.text)


def show_service(
    page: Page,
    name: str,
    factor: float,
    bound: Sequence[tuple[str, int, str]],
    instances: Sequence[InstanceInfo],
    path: Callable[[str], Path],
    inside: Sequence[str] = (),
    cloud: Cloud = Cloud.AZURE,
) -> None:
    """Print how to reach the service. bound: address, port and guest of each listener. inside: guests that
    reach it at its usual address."""
    page.parts(
        [
            f"metadata service {name}" if name != "default" else "metadata service",
            "real time" if factor == 1 else f"time factor {factor:g}: 15 min pass in {seconds(900 / factor)}",
            "Ctrl-C ends it",
        ],
        first_style="bold",
    )
    show_listeners(page, bound, instances, path, inside)
    page.parts([cloud.traits.document, f"header {cloud.traits.header}"], "dim")
    page.parts(["freezelab events announce --for 10s shows all states of an event"], "dim")
    page.blank()


def show_listeners(
    page: Page,
    bound: Sequence[tuple[str, int, str]],
    instances: Sequence[InstanceInfo],
    path: Callable[[str], Path],
    inside: Sequence[str] = (),
) -> None:
    """Print a line for each guest, with the way to its service."""
    width = max(len(about.guest) for about in instances)
    for about in instances:
        urls = [
            f"http://{f'[{host}]' if ':' in host else host}:{port}"
            for host, port, guest in bound
            if guest == about.guest
        ]
        if about.guest in inside:
            urls.insert(0, "http://169.254.169.254, in the guest")
        kind = "scale set" if about.scale_set else "set"
        where = f"  {kind} {about.availability_set}" if about.availability_set else ""
        where += f"  named {about.name} in events" if about.name != about.guest else ""
        for url in urls or [f"no TCP address; socket {path(about.guest)}"]:
            page.put((f"{about.guest:<{width}}  ", "bold"), (url, ""), (where, "dim"))


def show_played(page: Page, name: str, findings: Sequence[Finding], outcome: Outcome) -> None:
    """Print the verdict on the events of a playbook that was played without guests."""
    page.blank()
    page.table(Table(_FINDINGS, [cleaned(one) for one in findings]))
    for one in findings:
        if one.outcome is not Outcome.PASSED:
            page.put((f"{one.outcome}: ", _OUTCOMES[one.outcome]), (cleaned(one).why, ""))
    page.put((f"{name}: ", "bold"), (outcome.value, _OUTCOMES[outcome]))


def show_events(page: Page, shown: Sequence[Mapping[str, Any]], guests: Sequence[Mapping[str, Any]]) -> None:

    if not shown:
        page.parts(["no events", "freezelab events announce creates one"])
    else:
        page.table(Table(_EVENTS, [cleaned(one) for one in shown]))
    if silent := [one["guest"] for one in guests if not one["asks"]]:
        page.blank()
        page.parts([f"no request yet from {names(silent)}"], "dim")


def announced_line(one: Mapping[str, Any]) -> str:
    """An event that was just announced, and its state."""
    text = one["state"]
    if text == "scheduled":
        text += f", not before {local_time(one['not_before'])}, in {seconds(one['left_s'])}"
    elif text == "unheard":
        text += ": no guest has asked for events yet, so none gets this one"
    return f"{one['id']}  {one['type']} of {', '.join(one['resources'])}: {text}"


def how_to_enable(service: Mapping[str, Any], guest: str) -> str:
    """How to enable events for a guest that has never asked: by a request such as its client's."""
    listeners = [
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        for host, port, who in service["doors"]
        if who == guest
    ]
    (socket,) = [one["socket"] for one in service["guests"] if one["guest"] == guest]
    way, host = ("", listeners[0]) if listeners else (f"--unix-socket {socket} ", "169.254.169.254")
    traits = Cloud(service["cloud"]).traits
    ask = f"curl -H {traits.header.replace(' ', '')} {way}'http://{host}{traits.document}'"
    return f"start {guest}'s client first, or request events once in its place, and announce again:\n{ask}"


def waits_for(service: Mapping[str, Any], made: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each event that --wait waits for: an approval, or NotBefore."""
    silences = {one["guest"]: one["silent_s"] for one in service["guests"]}
    for one in made:
        if one["state"] == "scheduled":
            text = f"{one['id'][:8]}  waits for NotBefore in {seconds(one['left_s'])}"
            if not Cloud(service["cloud"]).traits.approvals:
                yield text
                continue
            text = text.replace("for NotBefore", "for an approval, or for NotBefore")
            silence = silences.get(one["resources"][0])
            if silence is not None and silence > SILENT_S:
                text += f"; no guest has asked for {seconds(silence)}, so an approval is unlikely"
            yield text


def _when(one: Mapping[str, Any]) -> str:
    if one["state"] == "scheduled":
        return f"in {seconds(one['left_s'])}"
    if one["state"] == "started":
        return f"since {local_time(one['started'])}"
    return f"at {local_time(one['gone'])}" if one["gone"] else "–"


_OUTCOMES = {Outcome.PASSED: "green", Outcome.FAILED: "bold red", Outcome.INCONCLUSIVE: "yellow"}

_FINDINGS: Sequence[Column[Finding]] = (
    Column("outcome", lambda one: (one.outcome.value, _OUTCOMES[one.outcome])),
    Column("what", lambda one: (one.metric, "bold")),
    Column("guest", lambda one: (one.guest or "–", ""), rank=2),
    Column("expected", lambda one: (one.expectation, ""), rank=1),
    Column("seen", lambda one: (one.measured, "")),
)

_EVENTS: Sequence[Column[Mapping[str, Any]]] = (
    forms(
        Column("event", lambda one: (one["id"], "bold"), rank=1),
        Column("event", lambda one: (one["id"][:8], "bold")),
    ),
    Column("type", lambda one: (one["type"], "")),
    Column("state", lambda one: (one["state"], _STYLES.get(one["state"], ""))),
    Column("guests", lambda one: (names(one["resources"]), "")),
    Column("when", lambda one: (_when(one), "")),
    Column(
        "takes",
        lambda one: (f"{one['duration_s']} s" if one["duration_s"] >= 0 else "?", ""),
        right=True,
        rank=2,
    ),
    Column("seen by", lambda one: (names(one["seen"]) or "–", ""), rank=3),
    Column("approved by", lambda one: (names(one["approved"]) or "–", "")),
)


def seconds(value: float) -> str:
    if value >= 120:
        return f"{value / 60:.3g} min"
    return f"{value:.1f} s" if value < 10 and round(value, 1) % 1 else f"{value:.0f} s"


def _clock(real_ns: int) -> str:

    return datetime.fromtimestamp(real_ns / 1e9).astimezone().strftime("%H:%M:%S")


def local_time(iso: str) -> str:

    return datetime.fromisoformat(iso).astimezone().strftime("%H:%M:%S")
