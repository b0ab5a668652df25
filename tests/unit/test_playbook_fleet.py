"""Fleets, announcements and rollouts as people write them."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from lab.core.plan import (
    Announcement,
    DomainKind,
    Expectations,
    Gate,
    GateKind,
    NoticeExpectations,
    OtherEvent,
    Plan,
    Rollout,
    RolloutEnd,
    ServiceFaults,
)
from lab.core.rollout import waves
from lab.core.scheduled.model import UNKNOWN_S, EventSource, EventType, Fault, Late, Recorded
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import PlaybookError
from lab.playbook import load, parse
from tests.unit.fleet_playbooks import FLEET, HANDLED, HEAD, SETS, answer, filled

ROOT = Path(__file__).parents[2]
MINUTE = 60 * NS_PER_S

FULL = """\
name: all
resync: push
fleet:
  guests: [{name: web, count: 8}, {name: db, count: 3}]
  availability_sets:
    - {name: web, guests: [web], fault_domains: 3, update_domains: 4}
    - {name: base, guests: [db-2, db-0, db-1]}
  boot: cold
cycle: {patch: {hold: 2s}}
announce:
  type: freeze
  notice: 10min
  duration: 5s
  source: user
  description: A word to the guests.
  time_factor: 30
  started_for: 3s
  cancel_after: 5min
  handler: [handler.py, --watch-only]
  others:
    - {type: reboot, notice: 1h, source: user, description: Later.}
    - {type: preempt}
  service:
    first_answer: 2min
    answers: [404, 410, 429, 500, 503, hang, empty, plain, no-events, truncated, 200, late 5s,
              document d.json]
    restart_incarnation: true
    rate_limit: true
rollout:
  by: fault-domain
  order: shuffled
  seed: 7
  between: 5s
  gates:
    - {clock: in-time}
    - {command: "systemctl is-active x", on: [db]}
    - {http: "http://127.0.0.1:8080/health", on: [web-1, web-0]}
    - {members: healthy}
  gate_within: 20s
  sets: one-after-another
expect:
  notice: {acknowledged: false, seen: true, started_seen: true, kept: true, at_least: 10s, at_most: 20s}
  rollout: stopped
  skew: {within: 100ms}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return filled(tmp_path)


def test_every_key_reaches_the_plan(folder: Path) -> None:
    plan = parse(FULL.encode(), "a.yaml", folder)
    assert [(g.name, g.availability_set, g.fault_domain, g.update_domain) for g in plan.guests] == [
        *((f"web-{n}", "web", n % 3, n % 4) for n in range(8)),
        ("db-0", "base", 1, 1),
        ("db-1", "base", 0, 2),
        ("db-2", "base", 0, 0),
    ]
    assert not plan.golden
    assert plan.cycle.announce == Announcement(
        type=EventType.FREEZE,
        notice_ns=10 * MINUTE,
        duration_s=5,
        source=EventSource.USER,
        description="A word to the guests.",
        time_factor=30.0,
        started_ns=3 * NS_PER_S,
        cancel_after_ns=5 * MINUTE,
        handler=(str(folder / "handler.py"), "--watch-only"),
        others=(
            OtherEvent(EventType.REBOOT, 60 * MINUTE, EventSource.USER, "Later."),
            OtherEvent(EventType.PREEMPT),
        ),
        service=ServiceFaults(
            2 * MINUTE, (*Fault, Late(5 * NS_PER_S), Recorded("d.json", "{}")), restarts=True, rate_limit=True
        ),
    )
    assert plan.rollout == Rollout(
        by=DomainKind.FAULT,
        shuffled=True,
        seed=7,
        between_ns=5 * NS_PER_S,
        gates=(
            Gate(GateKind.CLOCK),
            Gate(GateKind.COMMAND, "systemctl is-active x", ("db-0", "db-1", "db-2")),
            Gate(GateKind.HTTP, "http://127.0.0.1:8080/health", ("web-1", "web-0")),
            Gate(GateKind.MEMBERS),
        ),
        gate_within_ns=20 * NS_PER_S,
        together=False,
    )
    assert plan.expectations == Expectations(
        notice=NoticeExpectations(
            acknowledged=False,
            seen=True,
            started_seen=True,
            kept=True,
            at_least_ns=10 * NS_PER_S,
            at_most_ns=20 * NS_PER_S,
        ),
        rollout=RolloutEnd.STOPPED,
        skew_ns=100 * NS_PER_MS,
    )


def test_what_is_left_out_has_the_defaults_of_the_plan(folder: Path) -> None:
    plan = parse((HEAD + SETS + "announce: {}\nrollout: {}\n").encode(), "a.yaml", folder)
    assert plan.cycle.announce == Announcement()
    assert plan.rollout == Rollout()
    assert plan.golden
    # As many update domains as guests, and two fault domains.
    assert [(g.fault_domain, g.update_domain) for g in plan.guests] == [(0, 0), (1, 1), (0, 2), (1, 3)]
    plain = parse(HEAD.encode(), "a.yaml")
    assert (plain.golden, plain.rollout, plain.cycle.announce) == (True, None, None)
    assert [g.availability_set for g in plain.guests] == [""]


def test_start_is_for_all_and_boot_the_same_for_a_fleet() -> None:
    assert not parse((HEAD + "start: cold\n").encode(), "a.yaml").golden
    assert not parse((HEAD + "start: cold\n" + SETS).encode(), "a.yaml").golden
    with pytest.raises(PlaybookError, match="fleet says boot: golden; delete one of the two"):
        parse((HEAD + "start: cold\n" + SETS + "  boot: golden\n").encode(), "a.yaml")


def test_the_sixth_guest_is_where_the_first_is(folder: Path) -> None:
    text = HEAD + "fleet: {guests: [{name: web, count: 7}], availability_sets: [{name: w, guests: [web]}]}\n"
    plan = parse(text.encode(), "a.yaml", folder)
    assert [guest.update_domain for guest in plan.guests] == [0, 1, 2, 3, 4, 0, 1]


def test_a_scale_set_names_its_guests_as_azure_does(folder: Path) -> None:
    text = HEAD + "fleet:\n  scale_sets: [{name: web, count: 11, memory: 256 MiB}]\n"
    plan = parse((text + "announce: {}\nrollout: {}\n").encode(), "a.yaml", folder)
    assert [(g.name, g.event_name) for g in plan.guests][::10] == [
        ("web000000", "web_0"),
        ("web00000a", "web_10"),
    ]
    assert [(g.availability_set, g.scale_set, g.fault_domain, g.update_domain) for g in plan.guests] == [
        ("web", True, n % 5, n % 5) for n in range(11)
    ]
    assert {guest.memory_bytes for guest in plan.guests} == {256 << 20}
    assert len(waves(plan.guests, plan.rollout or Rollout())) == 5
    beside = "  guests: [{name: db}]\n  availability_sets: [{name: d, guests: [db]}]\n"
    plan = parse((text.replace("11", "2, update_domains: 1") + beside).encode(), "a.yaml", folder)
    assert [(g.name, g.availability_set, g.scale_set, g.update_domain) for g in plan.guests] == [
        ("db", "d", False, 0),
        ("web000000", "web", True, 0),
        ("web000001", "web", True, 0),
    ]


def test_a_matrix_fills_scale_sets_and_adds_no_guest(folder: Path) -> None:
    text = "name: a\nresync: push\ncycle: {patch: {hold: 1s}}\nfleet: {scale_sets: [{name: web, count: 2}]}\n"
    plan = parse((text + "matrix: {memory: [1 GiB, 2 GiB]}\n").encode(), "a.yaml", folder)
    assert [[(g.name, g.memory_bytes >> 30) for g in cell.guests] for cell in plan.cells] == [
        [("web000000", 1), ("web000001", 1)],
        [("web000000", 2), ("web000001", 2)],
    ]


def test_names_and_metadata_of_one_s_own(folder: Path) -> None:
    text = HEAD + (
        "guests:\n  - {name: web, count: 2, compute_name: lab_web}\n"
        "  - name: db\n"
        "    instance: {compute: {zone: 1, tags: {role: db}, storageProfile: {dataDisks: [{lun: 0}]}}}\n"
        "announce: {instance: {compute: {azEnvironment: AzureUSGovernmentCloud, licenseType: ''}}}\n"
    )
    plan = parse(text.encode(), "a.yaml", folder)
    assert [(g.name, g.event_name) for g in plan.guests] == [
        ("web-0", "lab_web-0"),
        ("web-1", "lab_web-1"),
        ("db", "db"),
    ]
    assert [g.instance for g in plan.guests] == [
        (),
        (),
        (
            (("compute", "zone"), "1"),
            (("compute", "tags", "role"), "db"),
            (("compute", "storageProfile", "dataDisks", "0", "lun"), "0"),
        ),
    ]
    assert plan.cycle.announce == Announcement(
        instance=(
            (("compute", "azEnvironment"), "AzureUSGovernmentCloud"),
            (("compute", "licenseType"), ""),
        )
    )
    history = json.loads(json.dumps(asdict(plan)))
    assert TypeAdapter(Plan).validate_python(history) == plan


def test_an_unknown_duration(folder: Path) -> None:
    plan = parse((HEAD + "announce: {duration: unknown}\n").encode(), "a.yaml", folder)
    assert plan.cycle.announce == Announcement(duration_s=UNKNOWN_S)


def test_a_handler_is_found_from_the_playbook(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    playbook = folder / "a.yaml"
    playbook.write_text(HEAD + HANDLED)
    monkeypatch.chdir("/")
    for path in (playbook, playbook.relative_to("/")):
        assert load(path).cycle.announce == Announcement(handler=(str(folder / "handler.py"),))


def test_all_cells_of_a_matrix_are_announced(folder: Path) -> None:
    head = "name: a\nresync: push\ncycle: {}\n"
    text = head + FLEET + HANDLED + "matrix: {memory: [1 GiB, 2 GiB], patch: [microcode, {hold: 1s}]}\n"
    plan = parse(text.encode(), "a.yaml", folder)
    assert len(plan.cells) == 4
    assert {cell.cycle.announce for cell in plan.cells} == {
        Announcement(handler=(str(folder / "handler.py"),))
    }
    assert {guest.memory_bytes for guest in plan.cells[-1].guests} == {2 << 30}
    assert [guest.name for guest in plan.guests] == ["web-0", "web-1", "web-2", "db"]
    given = text.replace("{name: db}", "{name: db, memory: 1 GiB}")
    assert answer(given, folder).startswith("p:5:46: fleet.guests[1].memory is given here and by matrix.me")


def test_sections_of_the_reference_go_together(tmp_path: Path) -> None:
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "drain.py").touch()
    parts = re.findall(
        r"```yaml\n((?:fleet|announce|rollout):\n.*?)```", (ROOT / "docs/playbooks.md").read_text(), re.DOTALL
    )
    assert len(parts) == 3
    plan = parse((HEAD + "".join(parts)).encode(), "docs/playbooks.md", tmp_path / "playbooks")
    assert plan.rollout is not None
    assert len(waves(plan.guests, plan.rollout)) == 4


INCIDENTS = {
    "acknowledged-early",
    "nobody-acknowledges",
    "short-notice",
    "no-notice",
    "straight-to-started",
    "cancelled",
    "longer-than-announced",
    "late-first-answer",
    "nobody-polls",
    "incarnation-restart",
    "bad-answers",
    "bad-documents",
    "several-events",
    "two-sets",
    "failing-gate",
}


@pytest.mark.parametrize("name", sorted(INCIDENTS))
def test_an_incident_is_small_and_short_and_expects_something(name: str) -> None:
    plan = load(ROOT / "playbooks" / f"{name}.yaml")
    assert len(plan.guests) <= 3
    assert plan.golden
    assert "Watch" in plan.about or name in ("no-notice", "nobody-polls")
    assert plan.cycle.announce is not None
    asked = plan.expectations
    assert asked.notice != NoticeExpectations() or asked.rollout is not RolloutEnd.COMPLETE
    text = (ROOT / "playbooks" / f"{name}.yaml").read_text()
    assert text.count("Watch") + text.count("expected") >= 1


def test_the_large_rollout_is_what_it_says() -> None:
    plan = load(ROOT / "playbooks" / "rollout.yaml")
    assert plan.rollout is not None
    gone = waves(plan.guests, plan.rollout)
    assert [len(wave.guests) for wave in gone] == [2, 2, 2, 2]
    assert {guest.memory_bytes for guest in plan.guests} == {512 << 20}
    assert {guest.fault_domain for guest in plan.guests} == {0, 1}


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    updates=st.integers(1, 20),
    faults=st.integers(1, 3),
    by=st.sampled_from(DomainKind),
    together=st.booleans(),
)
def test_domains_are_even_and_every_guest_is_gone_through_once(
    sizes: list[int], updates: int, faults: int, by: DomainKind, together: bool
) -> None:
    updates, faults = min(updates, *sizes), min(faults, *sizes)
    guests = ", ".join(f"{{name: g{n}, count: {size}}}" for n, size in enumerate(sizes))
    sets = ", ".join(
        f"{{name: s{n}, guests: [g{n}], update_domains: {updates}, fault_domains: {faults}}}"
        for n in range(len(sizes))
    )
    way = "together" if together else "one-after-another"
    fleet = f"fleet: {{guests: [{guests}], availability_sets: [{sets}]}}\n"
    plan = parse(f"{HEAD}{fleet}rollout: {{by: {by}, sets: {way}}}\n".encode(), "p")
    for name, size in ((f"s{n}", size) for n, size in enumerate(sizes)):
        members = [guest for guest in plan.guests if guest.availability_set == name]
        assert len(members) == size
        for domains, count in (
            ([g.update_domain for g in members], updates),
            ([g.fault_domain for g in members], faults),
        ):
            held = [domains.count(number) for number in range(count)]
            assert sum(held) == size
            assert min(held) >= 1
            assert max(held) - min(held) <= 1
    assert plan.rollout is not None
    gone = waves(plan.guests, plan.rollout)
    assert sorted(guest for wave in gone for guest in wave.guests) == sorted(g.name for g in plan.guests)
    assert all(first.number + 1 == second.number for first, second in pairwise(gone))
