"""Matrices: each cell is the document with one combination put in, and nothing is lost in silence."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter

from lab.core.plan import FreezeMethod, HoldPatch, Plan
from lab.core.units import NS_PER_S
from lab.playbook import load, parse, schema
from tests.unit.playbooks import mistakes_in

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
HEAD = "name: a\nresync: agent\n"
OK = HEAD + "cycle: {patch: {hold: 5s}}\n"
FREE = HEAD + "cycle: {}\n"


def planned(text: str) -> Plan:
    return parse(text.encode(), "p.yaml")


def ids(text: str) -> list[str]:
    return [cell.id for cell in planned(text).cells]


def good(document: object) -> bool:
    return Draft202012Validator(schema()).is_valid(document)


def test_the_first_axis_changes_slowest() -> None:
    plan = planned(OK + "matrix: {memory: [4 GiB, 512MiB], method: [in-place, suspend]}\n")
    assert [cell.id for cell in plan.cells] == [
        "4GiB-in-place",
        "4GiB-suspend",
        "512MiB-in-place",
        "512MiB-suspend",
    ]
    assert plan.cells[0].values == (("memory", "4 GiB"), ("method", "in-place"))
    assert plan.cells[3].guests[0].memory_bytes == 512 << 20
    assert plan.left_out == ()


def test_the_plans_own_members_are_those_of_the_first_cell() -> None:
    plan = planned(OK + "repeat: 3\nmatrix: {method: [in-place, suspend]}\n")
    first = plan.cells[0]
    assert (plan.guests, plan.resync, plan.cycle) == (first.guests, first.resync, first.cycle)
    assert (plan.expectations, plan.repeat, plan.control) == (first.expectations, first.repeat, first.control)
    assert plan.cycle.method is FreezeMethod.IN_PLACE
    assert [cell.repeat for cell in plan.cells] == [3, 3]


def test_a_plan_without_a_matrix_has_no_cells() -> None:
    assert planned(OK).cells == ()


def test_a_matrix_may_bring_all_that_is_needed() -> None:
    text = "name: a\nmatrix: {hold: [1s, 0s], resync: [none, chrony]}\n"
    assert ids(text) == ["hold-1s-none", "hold-1s-chrony", "hold-0s-none", "hold-0s-chrony"]
    assert planned(text).cycle.patch == HoldPatch(NS_PER_S)
    assert good(yaml.safe_load(text))


@pytest.mark.parametrize(
    ("axis", "value", "word"),
    [
        ("memory", "1536 MiB", "1536MiB"),
        ("vcpus", "4", "4vcpu"),
        ("fill", "12.5%", "fill-12.5"),
        ("image", "debian_13", "debian-13"),
        ("method", "guest-sleep", "guest-sleep"),
        ("resync", "chrony", "chrony"),
        ("prove_memory", "true", "proved"),
        ("prove_memory", "false", "unproved"),
        ("hold", "1500ms", "hold-1.5s"),
        ("hold", "7us", "hold-7us"),
        ("patch", "{hold: 5s}", "hold-5s"),
        ("patch", "{command: [/usr/bin/my_tool, -x], deadline: 1s}", "command-my-tool"),
        ("patch", "{command: ['@@'], deadline: 1s}", "command"),
        ("patch", "{replace-hypervisor: backports}", "replace-hypervisor-backports"),
        ("patch", "{replace-hypervisor: same}", "replace-hypervisor-same"),
        ("patch", "{replace-hypervisor: /o/qemu-system-x86_64}", "replace-hypervisor-qemu-system-x"),
        ("patch", "reload-kvm", "reload-kvm"),
        ("patch", "{livepatch: ./cve-1.ko}", "livepatch-cve-1"),
        ("patch", "{ansible: ./site.yml, deadline: 1s}", "ansible-site"),
    ],
)
def test_an_id_is_made_of_values(axis: str, value: str, word: str) -> None:
    text = f"name: a\nmatrix:\n  {axis}: [{value}]\n"
    text += "" if axis == "resync" else "resync: none\n"
    text += "" if axis in ("patch", "hold") else "cycle: {patch: {hold: 1s}}\n"
    assert ids(text) == [word]


def test_folders_that_are_saved_to() -> None:
    text = OK.replace("}}", "}, method: save-restore}")
    assert ids(text + "matrix: {save_to: [/dev/shm/x/y, /srv/save_a, /var/save a]}\n") == [
        "shm",
        "save-a",
        "save-a-2",
    ]


def test_equal_words_are_told_apart() -> None:
    # hold-1s + hold... cannot clash by itself: two commands of one name can.
    text = FREE + "matrix: {patch: [{command: [a, b], deadline: 1s}, {command: [a, c], deadline: 1s}]}\n"
    assert ids(text) == ["command-a", "command-a-2"]


def test_excluded_is_what_has_all_the_values() -> None:
    plan = planned(
        OK + "matrix:\n  method: [in-place, suspend]\n  memory: [1GiB, 2GiB]\n  vcpus: [1, 2]\n"
        "  exclude:\n    - {method: in-place, memory: 2048MiB}\n    - {vcpus: 2, method: suspend}\n"
    )
    assert [cell.id for cell in plan.cells] == [
        "in-place-1GiB-1vcpu",
        "in-place-1GiB-2vcpu",
        "suspend-1GiB-1vcpu",
        "suspend-2GiB-1vcpu",
    ]
    assert {one.why for one in plan.left_out} == {"excluded by the playbook"}
    assert len(plan.left_out) == 4


def test_what_makes_no_sense_is_left_out_and_told() -> None:
    plan = planned(
        FREE + "matrix:\n  patch: [reload-kvm, {command: [a], deadline: 1s, impact: reboot}, {hold: 1s}]\n"
        "  method: [suspend, in-place, reboot]\n"
    )
    assert [cell.id for cell in plan.cells] == [
        "reload-kvm-in-place",
        "command-a-reboot",
        "hold-1s-suspend",
        "hold-1s-in-place",
        "hold-1s-reboot",
    ]
    whys = {tuple(value for _, value in one.values): one.why for one in plan.left_out}
    assert whys["reload-kvm", "suspend"].startswith("reload-kvm cannot be applied under suspend")
    assert whys["command: [a], deadline: 1s, impact: reboot", "in-place"].startswith(
        "command is a patch of class reboot: it cannot be applied"
    )
    assert len(whys) == 4


def test_a_proof_that_is_not_possible_is_left_out_and_told() -> None:
    text = OK.replace("}}", "}, prove_memory: true}") + "matrix: {method: [save-restore, in-place]}\n"
    plan = planned(text)
    assert [(cell.id, cell.cycle.prove_memory) for cell in plan.cells] == [("in-place", True)]
    [out] = plan.left_out
    assert "memory does not stay in place" in out.why


def test_only_save_restore_has_a_use_for_save_to() -> None:
    plan = planned(OK + "matrix: {save_to: [/x, /y], method: [in-place, save-restore]}\n")
    assert [(cell.id, cell.cycle.save_to) for cell in plan.cells] == [
        ("in-place", ""),
        ("x-save-restore", "/x"),
        ("y-save-restore", "/y"),
    ]
    assert plan.cells[0].values == (("method", "in-place"),)
    [out] = plan.left_out
    assert out.values == (("save_to", "/y"), ("method", "in-place"))
    assert out.why == "save_to is not for in-place, which runs once for all of its values"


def test_a_sections_save_to_goes_where_it_is_of_use() -> None:
    text = OK.replace("}}", "}, save_to: /x}") + "matrix: {method: [in-place, save-restore]}\n"
    plan = planned(text)
    assert [(cell.id, cell.cycle.save_to) for cell in plan.cells] == [
        ("in-place", ""),
        ("save-restore", "/x"),
    ]
    assert plan.left_out == ()


def test_guests_that_are_left_out_are_the_default_one() -> None:
    plan = planned(OK + "matrix: {memory: [1GiB], fill: [50%], image: [x], vcpus: [3]}\n")
    [guest] = plan.cells[0].guests
    assert (guest.name, guest.memory_bytes, guest.fill, guest.image, guest.vcpus) == (
        "web-0",
        1 << 30,
        0.5,
        "x",
        3,
    )


def test_five_hundred_cells_are_fine() -> None:
    holds = ", ".join(f"{n}ms" for n in range(250))
    plan = planned(FREE + f"matrix: {{hold: [{holds}], vcpus: [1, 2]}}\n")
    assert len({cell.id for cell in plan.cells}) == 500


@pytest.mark.parametrize("path", sorted(PLAYBOOKS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_plan_survives_the_record(path: Path) -> None:
    plan = load(path)
    again = json.loads(json.dumps(asdict(plan)))
    assert TypeAdapter(Plan).validate_python(again) == plan


MATRIX = OK + "matrix: "
WRONG: list[tuple[str, str]] = [
    (MATRIX + "\n", "4:8: matrix: keys and values are expected here, not nothing; write it like {method: "),
    (MATRIX + "[a]\n", "4:9: matrix: keys and values are expected here, not a list; write it like {method"),
    (MATRIX + "{}\n", "4:1: matrix: a matrix without an axis; add one, such as method, or delete it"),
    (MATRIX + "{exclude: []}\n", "4:1: matrix: a matrix without an axis; add one, such as method, or dele"),
    (MATRIX + "{methodx: [suspend]}\n", "4:10: matrix: unknown key 'methodx'; did you mean method?"),
    (MATRIX + "{budget: [5s]}\n", "4:10: matrix: unknown key 'budget'; it belongs under cycle"),
    (MATRIX + "{method: suspend}\n", "4:18: matrix.method: a list of values is expected here, not the tex"),
    (MATRIX + "{method: []}\n", "4:18: matrix.method: an axis without values; add some, or delete the key"),
    (MATRIX + "{method: {a: b}}\n", "4:18: matrix.method: a list is expected here, not a mapping; begin eac"),
    (MATRIX + "{method: [suspend, stop]}\n", "4:28: matrix.method[1]: 'stop' is not a freeze method; did "),
    (MATRIX + "{memory: [1GiB, 512]}\n", "4:25: matrix.memory[1]: size without a unit: '512'; write it like"),
    (MATRIX + "{memory: [most]}\n", "4:19: matrix.memory[0]: not a size: 'most'; write it like 512MiB or "),
    (MATRIX + "{vcpus: [1, '2']}\n", "4:21: matrix.vcpus[1]: a number in quotes: '2'; write it without qu"),
    (MATRIX + "{fill: [95%]}\n", "4:17: matrix.fill[0]: '95%' is too large; write it like 75%, at most 90%"),
    (MATRIX + "{save_to: [x]}\n", "4:20: matrix.save_to[0]: 'x' is not the whole path of a folder; write "),
    (MATRIX + "{memory: [1GiB, 1024MiB]}\n", "4:25: matrix.memory: the same value as entry 1 of the list;"),
    (MATRIX + "{resync: [none]}\n", "2:1: resync is given here and by matrix.resync; delete one of the two"),
    (MATRIX + "{patch: [microcode]}\n", "3:9: cycle.patch is given here and by matrix.patch; delete one of"),
    (MATRIX + "{hold: [1s]}\n", "3:9: cycle.patch is given here and by matrix.hold; delete one of the two"),
    (
        MATRIX + "{memory: [1GiB]}\nguests:\n  - {name: a}\n  - {name: b, memory: 1GiB}\n",
        "7:15: guests[1].memory is given here and by matrix.memory; delete one of the two",
    ),
    (
        FREE + "matrix: {patch: [microcode], hold: [1s]}\n",
        "4:36: matrix: patch and hold are the same axis; write [{hold: 5s}, ...]",
    ),
    (FREE + "matrix: {patch: [{hold: 5s, microcode: {}}]}\n", "4:29: matrix.patch[0]: a patch has one kind,"),
    (FREE + "matrix: {patch: [{commandx: [a]}]}\n", "4:19: matrix.patch[0]: unknown key 'commandx'; did you"),
    (FREE + "matrix: {patch: [reload_kvm]}\n", "4:18: matrix.patch[0]: 'reload_kvm' is not a patch; did y"),
    (FREE + "matrix: {vcpus: [1]}\n", "3:1: cycle: patch is missing; add patch: {hold: 5s}"),
    ("name: a\nmatrix: {hold: [1s]}\n", "1:1: resync is missing; add resync: agent"),
    # exclude
    (MATRIX + "{vcpus: [1, 2], exclude: [{}]}\n", "4:35: matrix.exclude[0]: an empty entry means everything"),
    (MATRIX + "{vcpus: [1, 2], exclude: {vcpus: 1}}\n", "4:34: matrix.exclude: a list is expected here, n"),
    (MATRIX + "{vcpus: [1, 2], exclude: [{vcpus: 3}]}\n", "4:43: matrix: exclude[0].vcpus is of no "),
    (MATRIX + "{vcpus: [1, 2], exclude: [{hold: 3s}]}\n", "4:42: matrix: exclude[0].hold is of no "),
    (MATRIX + "{vcpus: [1], may_be_refused: [{vcpus: 3}]}\n", "4:47: matrix: may_be_refused[0].vcpus is of"),
    (MATRIX + "{vcpus: [1], may_be_refused: [{}]}\n", "4:39: matrix.may_be_refused[0]: an empty entry means"),
    (MATRIX + "{may_be_refused: [{vcpus: 3}]}\n", "4:1: matrix: a matrix without an axis; add one, such as"),
    (MATRIX + "{vcpus: [1, 2], exclude: [{vcpu: 2}]}\n", "4:36: matrix.exclude[0]: unknown key 'vcpu'; di"),
    (MATRIX + "{vcpus: [1, 2], exclude: [{vcpus: [1]}]}\n", "4:43: matrix.exclude[0].vcpus: a whole"),
    (
        MATRIX + "{vcpus: [1, 2], exclude: [{vcpus: 1}, {vcpus: 2}]}\n",
        "4:1: matrix: every combination is excluded, the first because: excluded by the playbook; choose val",
    ),
    # what does not go together
    (
        HEAD + "cycle: {method: suspend}\nmatrix: {patch: [reload-kvm, {replace-hypervisor: same}]}\n",
        "4:1: matrix: every combination is excluded, the first because: reload-kvm cannot be applied under s",
    ),
    (
        HEAD + "cycle: {method: suspend, patch: reload-kvm}\nmatrix: {vcpus: [1, 2]}\n",
        "3:17: cycle: reload-kvm cannot be applied under suspend (method: in-place or save-restore); leave m",
    ),
    (
        OK.replace("}}", "}, save_to: /x}") + "matrix: {vcpus: [1, 2]}\n",
        "3:37: cycle: save_to does not go with method suspend; delete it, or set method to save-restore",
    ),
    (
        OK.replace("}}", "}, save_to: /x}") + "matrix: {method: [suspend, in-place]}\n",
        "3:28: save_to: no cell writes a file there; delete it",
    ),
    (MATRIX + "{save_to: [/x]}\n", "4:10: save_to: no cell writes a file there; delete it"),
    (
        MATRIX + "{method: [suspend, reboot]}\nexpect: {pause: {at_least: 1s}}\n",
        "5:10: expect: method reboot: the guest is shut down and started again, so its clocks restart and pa",
    ),
    (
        FREE + "matrix: {hold: [1s, 2s]}\nexpect: {in_time: {within: 20s}}\n",
        "5:28: expect: in_time needs 22 s after the resume (within + hold), but cycle.watch ends after 8 s,",
    ),
    (
        MATRIX + "{vcpus: [1, 2, 3, 4, 5, 6, 7, 8], memory: ["
        + ", ".join(f"{n}MiB" for n in range(128, 191))
        + "]}\n",
        "4:1: matrix: 504 combinations are too many; ask for at most 500",
    ),
    (MATRIX + f"{{vcpus: [{', '.join(['1'] * 501)}]}}\n", "4:17: matrix.vcpus: 501 values are too many; a"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "answer"), WRONG, ids=lambda value: repr(value[-60:]))
def test_one_mistake_one_line(data: str, answer: str) -> None:
    lines = mistakes_in(data)
    assert len(lines) == 1, lines
    assert lines[0].startswith(answer)
    assert "; " in lines[0] or "?" in lines[0], "says what to do"


@pytest.mark.parametrize(
    "matrix",
    [
        "{}",
        "{exclude: [{vcpus: 1}]}",
        "{method: suspend}",
        "{method: []}",
        "{method: [stop]}",
        "{memory: [512]}",
        "{resync: [none]}",
        "{patch: [microcode]}",
        "{hold: [1s]}",
        "{vcpus: [1], exclude: [{}]}",
        "{name: [a]}",
    ],
)
def test_the_schema_refuses_what_is_refused(matrix: str) -> None:
    assert not good(yaml.safe_load(MATRIX + matrix))
    mistakes_in(MATRIX + matrix)
