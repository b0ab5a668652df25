"""Any matrix at all: each cell is the document with its values put in, and nothing is lost in silence."""

from __future__ import annotations

import re
from datetime import timedelta
from itertools import product

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from lab.core.plan import Cell, Plan
from lab.errors import PlaybookError
from lab.playbook import parse, schema

VALIDATOR = Draft202012Validator(schema())

AXES: dict[str, list[str]] = {
    "method": ["suspend", "sigstop", "save-restore", "in-place", "guest-sleep", "reboot", "none"],
    "memory": ["512 MiB", "1 GiB", "4096 MiB"],
    "vcpus": ["1", "2"],
    "patch": [
        "{hold: 5s}", "microcode", "{replace-hypervisor: backports}", "{livepatch: a.ko}", "restart-libvirt",
        "{command: [a, b], deadline: 5s, impact: reboot}", "{command: [a], deadline: 5s}",
    ],
    "resync": ["none", "agent", "chrony"],
    "hold": ["0s", "5 s", "250ms"],
    "save_to": ["/dev/shm/a", "/x/a", "/y/a"],
    "fill": ["0%", "12.5%"],
    "image": ["debian", "other_one"],
    "prove_memory": ["true", "false"],
}  # fmt: skip
SECTION = {"method": "cycle", "patch": "cycle", "hold": "cycle", "save_to": "cycle", "prove_memory": "cycle"}


@st.composite
def matrices(draw: st.DrawFn) -> dict[str, list[str]]:
    axes = draw(st.lists(st.sampled_from(sorted(AXES)), min_size=1, max_size=4, unique=True))
    if "hold" in axes and "patch" in axes:
        axes.remove("hold")
    return {
        axis: draw(st.lists(st.sampled_from(AXES[axis]), min_size=1, max_size=3, unique=True))
        for axis in axes
    }


def plain(values: dict[str, str]) -> str:
    """The playbook without a matrix that has these values in their sections."""
    cycle = {axis: value for axis, value in values.items() if SECTION.get(axis) == "cycle"}
    if "hold" in cycle:
        cycle["patch"] = f"{{hold: {cycle.pop('hold')}}}"
    cycle.setdefault("patch", "{hold: 1s}")
    guest = {axis: value for axis, value in values.items() if axis not in SECTION and axis != "resync"}

    def flow(pairs: dict[str, str]) -> str:
        return "{" + ", ".join(f"{key}: {value}" for key, value in pairs.items()) + "}"

    return (
        f"name: a\nresync: {values.get('resync', 'agent')}\ncycle: {flow(cycle)}\n"
        f"guests: [{flow({'name': 'x', **guest})}, {flow({'name': 'y', 'count': '2', **guest})}]\nrepeat: 2\n"
    )


def matrix_text(matrix: dict[str, list[str]], exclude: list[dict[str, str]]) -> str:
    lines = ["name: a", "guests: [{name: x}, {name: y, count: 2}]", "repeat: 2", "matrix:"]
    lines += [f"  {axis}: [{', '.join(values)}]" for axis, values in matrix.items()]
    entries = ["{" + ", ".join(f"{axis}: {value}" for axis, value in one.items()) + "}" for one in exclude]
    lines += [f"  exclude: [{', '.join(entries)}]"] if entries else []
    lines += [] if "resync" in matrix else ["resync: agent"]
    lines += [] if {"patch", "hold"} & matrix.keys() else ["cycle: {patch: {hold: 1s}}"]
    return "\n".join(lines) + "\n"


def answer(text: str) -> Plan | None:
    try:
        return parse(text.encode(), "p.yaml")
    except PlaybookError:
        return None


def alone(values: dict[str, str]) -> Plan | None:
    return answer(plain(values))


@settings(max_examples=150, deadline=timedelta(seconds=10), suppress_health_check=[HealthCheck.too_slow])
@given(matrix=matrices(), data=st.data())
def test_each_cell_is_the_document_with_its_values_put_in(
    matrix: dict[str, list[str]], data: st.DataObject
) -> None:
    combinations = [dict(zip(matrix, chosen, strict=True)) for chosen in product(*matrix.values())]
    exclude: list[dict[str, str]] = []
    for _ in range(data.draw(st.integers(0, 2))):
        some = data.draw(st.sampled_from(combinations))
        axes = data.draw(st.lists(st.sampled_from(sorted(some)), min_size=1, unique=True))
        exclude.append({axis: some[axis] for axis in axes})
    text = matrix_text(matrix, exclude)
    assert VALIDATOR.is_valid(yaml.safe_load(text))
    plan = answer(text)
    if plan is None:
        useful = [one for one in combinations if not any(_covers(each, one) for each in exclude)]
        # A value of save_to is good alone only with save-restore, and is asked for to be used.
        assert not any(alone(one) for one in useful)
        return
    assert len(plan.cells) + len(plan.left_out) == len(combinations)
    assert len({cell.id for cell in plan.cells}) == len(plan.cells)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", cell.id) for cell in plan.cells)
    for cell in plan.cells:
        _is(cell, alone(_written(cell.values)))
    kept = [_written(cell.values) for cell in plan.cells]
    for out in plan.left_out:
        values = _written(out.values)
        merged = {axis: value for axis, value in values.items() if axis != "save_to"}
        excluded = any(_covers(one, values) for one in exclude)
        assert (out.why == "excluded by the playbook") is excluded
        # What could have been run is left out only by the playbook, or runs already.
        assert excluded or alone(values) is None
        if "is run once for all" in out.why:
            assert merged in kept


def _covers(exclusion: dict[str, str], values: dict[str, str]) -> bool:
    return all(values[axis] == value for axis, value in exclusion.items())


def _written(values: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """A cell's values as YAML: a patch is without its braces."""
    return {axis: f"{{{value}}}" if ":" in value else value for axis, value in values}


def _is(cell: Cell, other: Plan | None) -> None:
    assert other is not None
    assert (cell.guests, cell.resync, cell.cycle) == (other.guests, other.resync, other.cycle)
    assert (cell.expectations, cell.repeat, cell.control) == (other.expectations, other.repeat, other.control)
