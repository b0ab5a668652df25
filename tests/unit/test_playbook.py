"""Playbooks that are right: what they mean, the ones that ship, their schema and their docs."""

from __future__ import annotations

import hashlib
import json
import re
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from lab.core.expected_failure import Failure, MustFail
from lab.core.plan import (
    CommandPatch,
    CycleSpec,
    Expectations,
    FreezeMethod,
    GuestSpec,
    HoldPatch,
    Plan,
    Regime,
    ResyncMechanism,
)
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import PlaybookError
from lab.playbook import load, parse, schema, schema_text

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "playbooks").glob("*.yaml"))
SCHEMA_FILE = ROOT / "docs" / "playbook.schema.json"
REFERENCE = ROOT / "docs" / "playbooks.md"

LEAST = "name: a\nresync: none\ncycle: {patch: {hold: 5s}}\n"
FULL = """\
name: everything
about: Every key there is.
start: cold
guests:
  - {name: web, count: 3, image: debian-13, vcpus: 2, memory: 1 GiB, fill: 12.5%, huge_pages: true}
  - {name: db, network: {bridge: br0, address: 10.7.0.10/24}}
resync: push
cycle:
  method: sigstop
  patch: {command: [sh, -c, "sleep 2; true", 5, no, ''], deadline: 10s}
  settle: 0s
  before: 2 s
  budget: 1.5min
  watch: 40s
  prove_memory: true
expect:
  regime: jumped
  pause: {at_least: 0s, at_most: 250ms}
  in_time: {within: 30s, tolerance: 50 µs, hold: 10s}
  final_offset: {within: 1ms}
  drift: {within: 12.5 ppm}
  kernel_log: any
repeat: 20
control: 5
"""


def validator() -> Draft202012Validator:
    return Draft202012Validator(schema())


def test_what_is_left_out_has_the_defaults_of_the_plan() -> None:
    assert parse(LEAST.encode(), "a.yaml") == Plan(
        name="a",
        about="",
        digest=hashlib.sha256(LEAST.encode()).hexdigest(),
        guests=(GuestSpec("web-0"),),
        resync=ResyncMechanism.NONE,
        cycle=CycleSpec(FreezeMethod.SUSPEND, HoldPatch(5 * NS_PER_S)),
        expectations=Expectations(),
        golden=True,
    )


def test_every_key_reaches_the_plan() -> None:
    assert parse(FULL.encode(), "a.yaml") == Plan(
        name="everything",
        about="Every key there is.",
        digest=hashlib.sha256(FULL.encode()).hexdigest(),
        guests=(
            *(GuestSpec(f"web-{n}", "debian-13", 2, 1 << 30, fill=0.125, huge_pages=True) for n in range(3)),
            GuestSpec("db", bridge="br0", address="10.7.0.10/24"),
        ),
        resync=ResyncMechanism.PUSH,
        cycle=CycleSpec(
            method=FreezeMethod.SIGSTOP,
            patch=CommandPatch(("sh", "-c", "sleep 2; true", "5", "no", ""), 10 * NS_PER_S),
            settle_ns=0,
            before_ns=2 * NS_PER_S,
            budget_ns=90 * NS_PER_S,
            watch_ns=40 * NS_PER_S,
            prove_memory=True,
        ),
        expectations=Expectations(
            regime=Regime.JUMPED,
            pause_at_least_ns=0,
            pause_at_most_ns=250 * NS_PER_MS,
            in_time_within_ns=30 * NS_PER_S,
            tolerance_ns=50_000,
            hold_ns=10 * NS_PER_S,
            final_offset_ns=NS_PER_MS,
            drift_ppm=12.5,
            clean_kernel_log=False,
        ),
        repeat=20,
        control=5,
    )


def test_a_patch_may_outlast_the_budget() -> None:
    plan = parse(b"name: a\nresync: none\ncycle: {patch: {hold: 60s}, budget: 5s}\n", "a.yaml")
    assert plan.cycle.patch == HoldPatch(60 * NS_PER_S)
    assert plan.cycle.budget_ns == 5 * NS_PER_S


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + LEAST.encode(),  # as Windows' Notepad saves it
        LEAST.replace("\n", "\r\n").encode(),
        ("---\n" + LEAST + "...\n").encode(),
        LEAST.replace("hold: 5s", "hold: '5s'").encode(),
        LEAST.replace("none", '"none"').encode(),
        json.dumps(yaml.safe_load(LEAST)).encode(),
    ],
)
def test_other_ways_to_write_the_same(data: bytes) -> None:
    plan = parse(data, "a.yaml")
    assert (plan.name, plan.cycle.patch) == ("a", HoldPatch(5 * NS_PER_S))


def test_sixty_four_guests_are_fine() -> None:
    plan = parse((LEAST + "guests: [{name: web, count: 63}, {name: db}]\n").encode(), "a.yaml")
    assert len({guest.name for guest in plan.guests}) == 64


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_playbooks_load_and_fit_the_schema(path: Path) -> None:
    plan = load(path)
    assert plan.name == path.stem
    assert plan.about
    assert plan.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    validator().validate(yaml.safe_load(path.read_text()))
    assert path.read_text().startswith("# yaml-language-server: $schema=../docs/playbook.schema.json\n")


def test_what_ships() -> None:
    assert {path.stem for path in SHIPPED} >= {
        "first-freeze",
        "no-resync",
        "chrony",
        "methods",
        "in-place-vs-save",
        "hypervisor-upgrade",
    }
    first, control = (load(ROOT / "playbooks" / f"{name}.yaml") for name in ("first-freeze", "no-resync"))
    assert first.resync is ResyncMechanism.AGENT
    assert first.cycle.patch == HoldPatch(5 * NS_PER_S)
    assert first.cycle.budget_ns == 30 * NS_PER_S
    # A negative control differs from what it controls in one thing.
    assert control.resync is ResyncMechanism.NONE
    assert (control.guests, control.cycle) == (first.guests, first.cycle)
    must_fail = MustFail((Failure.IN_TIME, Failure.FINAL_OFFSET))
    assert control.expectations == replace(first.expectations, must_fail=must_fail)


def test_each_way_to_freeze_is_shown_once() -> None:
    plan = load(ROOT / "playbooks" / "methods.yaml")
    own = (FreezeMethod.HOST_SLEEP, FreezeMethod.SNAPSHOT_STATE)  # they have playbooks of their own
    everywhere = [method for method in FreezeMethod if method.freezes and method not in own]
    assert [cell.cycle.method for cell in plan.cells] == everywhere
    assert plan.expectations.regime is None, "each method has its own"


def test_the_benchmark_compares_the_same_guests() -> None:
    plan = load(ROOT / "playbooks" / "in-place-vs-save.yaml")
    seen: dict[tuple[FreezeMethod, str], list[int]] = {}
    for cell in plan.cells:
        [guest] = cell.guests
        seen.setdefault((cell.cycle.method, cell.cycle.save_to), []).append(guest.memory_bytes)
        assert (guest.fill, cell.repeat, cell.cycle.patch) == (0.75, 10, HoldPatch(0))
    sizes = [256 << 20 << n for n in range(6)]
    assert set(map(tuple, seen.values())) == {tuple(sizes)}
    assert [method for method, _ in seen] == [
        FreezeMethod.IN_PLACE,
        FreezeMethod.SAVE_RESTORE,
        FreezeMethod.SAVE_RESTORE,
    ]


def test_the_published_schema_is_current() -> None:
    assert SCHEMA_FILE.read_text() == schema_text(), (
        "docs/playbook.schema.json is out of date; regenerate it with\n"
        "  freezelab schema playbook > docs/playbook.schema.json\n"
        "or, without the command,\n"
        "  python -c 'from lab.playbook import schema_text; print(schema_text(), end=\"\")'"
        " > docs/playbook.schema.json"
    )


def test_the_schema_describes_every_key() -> None:
    Draft202012Validator.check_schema(schema())
    sections = [schema(), *schema()["$defs"].values()]
    for section in sections:
        assert section["additionalProperties"] is False
        for key, value in section["properties"].items():
            assert value.get("description"), key
            assert "title" not in value, key


@pytest.mark.parametrize("text", [LEAST, FULL])
def test_the_schema_accepts_what_is_accepted(text: str) -> None:
    validator().validate(yaml.safe_load(text.replace(" no,", " 'no',")))


@pytest.mark.parametrize(
    "change",
    [
        {"nsme": "b"},
        {"name": 5},
        {"name": "Web_0"},
        {"resync": "no"},
        {"repeat": 0},
        {"repeat": "1"},
        {"guests": []},
        {"guests": [{"name": "web", "count": 10_000}]},
        {"guests": [{"name": "web", "memory": 512}]},
        {"cycle": {}},
        {"cycle": {"patch": {}}},
        {"cycle": {"patch": {"hold": 5}}},
        {"cycle": {"patch": {"hold": "-5s"}}},
        {"cycle": {"patch": {"hold": "5s", "deadline": "5s"}}},
        {"cycle": {"patch": {"hold": "5s", "command": ["true"], "deadline": "5s"}}},
        {"cycle": {"patch": {"command": ["true"]}}},
        {"expect": {"pause": {}}},
        {"expect": {"pause": None}},
        {"expect": {"drift": {"within": "200"}}},
    ],
    ids=json.dumps,
)
def test_the_schema_refuses_what_is_refused(change: dict[str, Any]) -> None:
    document = {**yaml.safe_load(LEAST), **change}
    assert not validator().is_valid(document)
    with pytest.raises(PlaybookError):
        parse(json.dumps(document).encode(), "a.yaml")


def test_the_reference_explains_every_key() -> None:
    text = REFERENCE.read_text()
    for section in [schema(), *schema()["$defs"].values()]:
        for key in section["properties"]:
            assert f"`{key}`" in text, key


def test_the_playbook_in_the_readme_loads() -> None:
    block = re.search(r"^    name: .*\n(?:    .*\n)+", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert block
    assert parse(textwrap.dedent(block.group()).encode(), "README.md").name == "my-app"


def test_examples_in_the_reference_load() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", REFERENCE.read_text(), re.DOTALL)
    whole = [example for example in examples if example.startswith("name:")]
    assert whole
    for example in whole:
        parse(example.encode(), "docs/playbooks.md")
