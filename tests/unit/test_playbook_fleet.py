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

ROOT = Path(__file__).parents[2]
MINUTE = 60 * NS_PER_S

HEAD = "name: a\nresync: push\ncycle: {patch: {hold: 2s}}\n"
FLEET = "fleet:\n  guests: [{name: web, count: 3}, {name: db}]\n"
SET = FLEET + "  availability_sets:\n    - "
SCALE = "fleet:\n  scale_sets:\n    - "
SETS = SET + "{name: w, guests: [web, db]}\n"
HANDLED = "announce: {handler: [./handler.py]}\n"

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
    answers: [404, 410, 429, 500, hang, empty, plain, no-events, truncated, 200, late 5s, document d.json]
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
    (tmp_path / "handler.py").touch()
    (tmp_path / "d.json").write_text("{}")
    (tmp_path / "binary").write_bytes(b"\xff")
    return tmp_path


def answer(text: str, folder: Path) -> str:
    with pytest.raises(PlaybookError) as raised:
        parse(text.encode(), "p", folder)
    return str(raised.value)


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
    assert (plain.golden, plain.rollout, plain.cycle.announce) == (False, None, None)
    assert [g.availability_set for g in plain.guests] == [""]


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


MISTAKES = [
    # fleets
    (FLEET + "guests: [{name: a}]", "4:1: fleet: guests and fleet cannot both be given; move"),
    (SET + "{name: w, guests: [web], update_domains: 4}", "7:48: fleet: 4 update domains for 3 guests, so"),
    (SET + "{name: w, guests: [db], fault_domains: 2}", "7:46: fleet: 2 fault domains for 1 guest, so some"),
    (SET + "{name: w, guests: [web], update_domains: 21}", "7:48: fleet.availability_sets[0].update_domains"),
    (SET + "{name: w, guests: [web], fault_domains: 4}", "7:47: fleet.availability_sets[0].fault_domains: 4"),
    (SET + "{name: w, guests: [wob]}", "7:26: fleet: no guest and no entry of guests is named 'wob'; did"),
    (SET + "{name: w, guests: [x]}", "7:26: fleet: no guest and no entry of guests is named 'x'; there ar"),
    (SET + "{name: w, guests: []}", "7:25: fleet.availability_sets[0].guests: the list of guests is empty;"),
    (SET + "{name: w}", "7:7: fleet.availability_sets[0]: guests is missing; add guests: [web]"),
    (SET + "{name: w, guests: [db]}\n    - {name: w, guests: [web]}", "8:14: fleet: two sets are named w, e"),
    (SET + "{name: w, guests: [web]}\n    - {name: x, guests: [web-1]}", "8:26: fleet: web-1 is already in"),
    (FLEET + "  boot: warm", "6:9: fleet.boot: 'warm' is not a kind of boot; write golden or cold"),
    # scale sets, names and metadata
    (SCALE + "{name: web, update_domains: 2}", "6:35: fleet.scale_sets[0]: 2 update domains for 1 guest, s"),
    (SCALE + "{name: web, fault_domains: 6}", "6:34: fleet.scale_sets[0].fault_domains: 6 domains are too"),
    (SCALE + "{name: web, compute_name: x}", "6:33: fleet.scale_sets[0]: the instances of a scale set are"),
    (SCALE + "{name: web}\n    - {name: web}", "7:14: fleet: two guests are named web000000, entries 1 and"),
    (SCALE + "{name: web}\n  guests: [{name: web000000}]", "6:14: fleet: two guests are named web000000, en"),
    (
        SCALE + "{name: web}\n  guests: [{name: db}]\n  availability_sets: [{name: web, guests: [db]}]",
        "6:14: fleet: two sets are named web, entry 1 of availability_sets and entry 1 of scale_sets; rename",
    ),
    (
        SCALE + "{name: web}\n  availability_sets: [{name: w, guests: [web]}]",
        "7:42: fleet: web000000 is already in the set web; a guest belongs to one set; delete it here or the",
    ),
    ("guests: [{name: a, compute_name: _x}]", "4:34: guests[0].compute_name: '_x' is not a valid compute.na"),
    ("guests: [{name: a}, {name: b, compute_name: a}]", "4:45: guests: two guests are named a in events, en"),
    ("guests: [{name: a, instance: x}]", "4:30: guests[0].instance: a mapping is expected here, not the"),
    (
        "announce: {instance: {compute: {zones: 1}}}",
        "4:40: announce.instance: compute.zones: the documentation has no such field; did you mean zone?",
    ),
    ("announce: {instance: {compute: {name: x}}}", "4:39: announce.instance: compute.name: it is given by"),
    ("announce: {instance: {compute: {zone: }}}", "4:38: announce.instance: a value is expected here, not"),
    ("announce: {instance: {compute: x}}", "4:32: announce.instance: compute: it has parts: give these"),
    # rollouts
    (SET + "{name: w, guests: [web]}\nrollout: {}", "5:35: fleet.guests[1]: db is in no availability set, s"),
    ("rollout: {}", "4:1: rollout: there are no availability sets; add fleet, with availability_sets"),
    (FLEET + "rollout: {}", "6:1: rollout: the fleet has no availability sets; add fleet.availability_sets"),
    (SETS + "rollout: {}\nmatrix: {memory: [1 GiB]}", "9:1: matrix: a rollout cannot have a matrix; delete"),
    (SETS + "rollout: {by: rack}", "8:15: rollout.by: 'rack' is not a unit of a rollout; write upda"),
    (SETS + "rollout: {seed: 5}", "8:17: rollout: a seed has no meaning without a shuffled order; set order"),
    (SETS + "rollout: {order: shuffled, seed: -1}", "8:34: rollout.seed: a seed is a whole number, not the"),
    (SETS + "rollout: {gates: [{clok: in-time}]}", "8:20: rollout.gates[0]: unknown key 'clok'; did you mea"),
    (SETS + "rollout: {gates: [{}]}", "8:19: rollout.gates[0]: the gate has no condition; write {clock: in-"),
    (SETS + "rollout: {gates: [{clock: in-time, members: healthy}]}", "8:45: rollout.gates[0]: a gate has o"),
    (SETS + "rollout: {gates: [{command: [a]}]}", "8:29: rollout.gates[0].command: a command is expected he"),
    (SETS + "rollout: {gates: [{http: 127.0.0.1/x}]}", "8:26: rollout.gates[0].http: '127.0.0.1/x' is not t"),
    (SETS + "rollout: {gates: [{http: 'http://a:99999/'}]}", "8:26: rollout.gates[0].http: 'http://a:99999/"),
    (SETS + "rollout: {gates: [{clock: in-time, on: [wbe]}]}", "8:41: rollout: no guest and no entry of gue"),
    ("expect: {rollout: stopped}", "4:19: expect: there is no rollout to check; add rollout:"),
    (SETS + "rollout: {}\nexpect: {rollout: stopped}", "9:19: expect: a rollout without gates never stops;"),
    # announcements
    ("announce:", "4:10: announce: keys and values are expected here, not nothing; write it like {notice: 1"),
    ("announce: {notice: 5min, cancel_after: 5min}", "4:40: announce: the event cannot be called off after"),
    ("announce: {notice: 0s, cancel_after: 1s}", "4:38: announce: the event cannot be called off after 1 s:"),
    ("announce: {type: preempt, cancel_after: 1min}", "4:41: announce: the event cannot be called off after"),
    ("announce: {duration: 2500ms}", "4:22: announce.duration: announced durations are whole seconds; wr"),
    ("announce: {type: Freeze}", "4:18: announce.type: 'Freeze' is not a type of event; did you mean freeze"),
    ("announce: {type: reboot, duration: 5s}", "4:36: announce: a reboot is announced without"),
    ("announce: {time_factor: 0}", "4:25: announce.time_factor: the service's time cannot pass 0 times as f"),
    ("announce: {time_factor: -5}", "4:25: announce.time_factor: the service's time cannot pass -5 times as"),
    ("announce: {time_factor: 99999}", "4:25: announce.time_factor: 99999 times as fast leaves no time to o"),
    ("announce: {time_factor: 1e2}", "4:25: announce.time_factor: not a factor: '1e2'; write a number from"),
    ("announce: {handler: ./handler.py}", "4:21: announce.handler: a command is a list of arguments, run wi"),
    ("announce: {handler: [./nope.py]}", "4:22: announce.handler: no file './nope.py' in the playbook's"),
    ("announce: {handler: [.]}", "4:22: announce.handler: no file '.' in the playbook's folder; write"),
    (f"announce: {{handler: [{'x' * 999}]}}", "4:22: announce.handler: no file 'xxx"),
    ("announce: {service: {answers: [410, 418]}}", "4:37: announce.service.answers[1]: '418' is not an answ"),
    ("announce: {service: {answers: [late 0s]}}", "4:32: announce.service.answers[0]: zero is not allowed"),
    ("announce: {service: {answers: [late 5]}}", "4:32: announce.service.answers[0]: 'late 5' is not an a"),
    ("announce: {service: {answers: [200, document no]}}", "4:37: announce.service.answers: no file 'no' in"),
    ("announce: {service: {answers: [document binary]}}", "4:32: announce.service.answers: 'binary' is no"),
    ("announce: {others: [{notice: 1h}]}", "4:21: announce.others[0]: type is missing; add type: reboot"),
    ("announce: {others: {type: reboot}}", "4:12: announce.others: a list of events is expected here; wri"),
    ("announce: {service: {answers: 410}}", "4:31: announce.service.answers: a list of answers is expected"),
    # what is expected of them
    ("expect: {notice: {seen: true}}", "4:10: expect: nothing is announced, so there is no notice to check;"),
    ("announce: {}\nexpect: {notice: {acknowledged: true}}", "5:33: expect: acknowledged: announce has no h"),
    ("announce: {}\nexpect: {notice: {}}", "5:10: expect.notice: no expectation is given; writ"),
    ("announce: {}\nexpect: {notice: {cancelled: true}}", "5:30: expect: announce has no cancel_after; add"),
    ("announce: {}\nexpect: {notice: {at_least: 16s}}", "5:29: expect: the notice is 15 s of real time (ann"),
    (HANDLED + "expect: {notice: {at_least: 9s, at_most: 5s}}", "5:42: expect.notice: at_most (5 s) is less"),
    (HANDLED + "expect: {notice: {seen: false, acknowledged: true}}", "5:46: expect.notice: an event that n"),
    ("announce: {duration: unknown}\nexpect: {notice: {kept: true}}", "5:25: expect: an unknown duration is"),
    ("announce: {type: preempt}\nexpect: {notice: {kept: true}}", "5:25: expect: only a freeze has an annou"),
    (
        "announce: {duration: 2s}\nexpect: {notice: {kept: true}}",
        "5:25: expect: the patch alone takes 2 s, and 2 s are announced, so it could never pass; set announ",
    ),
    (
        "announce: {duration: 30s}\nexpect: {notice: {kept: false}}",
        "5:25: expect: cycle.budget ends every pause after 30 s, and 30 s are announced, so it could never",
    ),
    ("expect: {pause: {at_most: 2s}}", "4:27: expect: the patch alone takes 2 s, so every pause would"),
    ("expect: {pause: {at_least: 31s}}", "4:28: expect: cycle.budget ends every pause after 30 s, so"),
    (
        "announce: {cancel_after: 5min}\nexpect: {notice: {cancelled: true}, pause: {at_least: 2s}}",
        "5:37: expect: when the event is called off no guest is frozen, so pause has no meaning; delete it,",
    ),
    (
        "announce: {cancel_after: 5min}\nexpect: {notice: {cancelled: true, kept: true}}",
        "5:42: expect.notice: an event that is called off never starts, so kept has no meaning beside cancel",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), MISTAKES, ids=lambda value: repr(value[-50:]))
def test_one_mistake_one_line(text: str, said: str, folder: Path) -> None:
    [line] = answer(f"{HEAD}{text}\n", folder).splitlines()
    assert line.removeprefix("p:").startswith(said)
    assert "; " in line or "?" in line, "says what to do"


def test_a_reboot_is_announced_without_a_duration(folder: Path) -> None:
    patch = "{command: [flash], deadline: 1min, impact: reboot}"
    text = HEAD.replace("{hold: 2s}", patch) + "announce: {duration: 5s}\n"
    assert answer(text, folder).startswith(
        "p:4:22: announce: the patch is announced as a reboot; only a freeze"
    )


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
