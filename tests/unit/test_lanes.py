"""Cells side by side: who runs with whom, on which guests."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lab.core.parallel_cells import batches, part_of
from lab.core.plan import Plan
from lab.playbook.load import parse

METHODS = ["suspend", "sigstop", "in-place"]
MECHANISMS = ["none", "agent", "push", "hwclock", "chrony", "ntpd", "timesyncd"]


def plan(methods: list[str], mechanisms: list[str], lanes: int, exclude: str = "") -> Plan:
    text = (
        f"name: a\ncycle: {{patch: {{hold: 1s}}}}\nguests: [{{name: web}}, {{name: db, count: 2}}]\n"
        f"matrix: {{method: [{', '.join(methods)}], resync: [{', '.join(mechanisms)}], "
        f"side_by_side: {lanes}{exclude}}}\n"
    )
    return parse(text.encode(), "a.yaml")


@given(
    st.lists(st.sampled_from(METHODS), min_size=1, unique=True),
    st.lists(st.sampled_from(MECHANISMS), min_size=2, unique=True),
    st.integers(1, 8),
)
def test_every_cell_runs_once_on_guests_of_its_own(
    methods: list[str], mechanisms: list[str], lanes: int
) -> None:
    made = plan(methods, mechanisms, lanes)
    together = batches(made)
    assert sorted(cell.id for batch in together for cell in batch) == sorted(c.id for c in made.parts)
    for batch in together:
        assert len(batch) <= lanes
        names = [guest.name for cell in batch for guest in cell.guests]
        assert len(set(names)) == len(names)
        assert len({cell.cycle for cell in batch}) == 1
        assert len({cell.resync for cell in batch}) == len(batch)
    # As full as they can be: a method's mechanisms need no more batches than that.
    assert len(together) == len(methods) * -(-len(mechanisms) // lanes)


@given(st.data(), st.integers(2, 4))
def test_the_cells_of_a_part_keep_their_guests_and_share_none(data: st.DataObject, lanes: int) -> None:
    """Two cells of one lane that were chosen by --cell ran together in one guest, where each installation
    ended the other's program."""
    whole = plan(METHODS[:2], MECHANISMS, lanes)
    ids = data.draw(st.sets(st.sampled_from([cell.id for cell in whole.cells]), min_size=1))
    part = part_of(whole, ids)
    together = batches(part)
    assert sorted(cell.id for batch in together for cell in batch) == sorted(ids)
    assert set(part.cells) <= set(whole.cells)
    for batch in together:
        names = [guest.name for cell in batch for guest in cell.guests]
        assert len(set(names)) == len(names)


def test_lanes_keep_their_guests_through_all_batches() -> None:
    made = plan(METHODS, MECHANISMS[:4], 2)
    assert {tuple(g.name for c in batch for g in c.guests) for batch in batches(made)} == {
        ("web-a", "db-0-a", "db-1-a", "web-b", "db-0-b", "db-1-b")
    }
    assert made.guests == made.cells[0].guests


def test_without_lanes_names_stay() -> None:
    made = plan(METHODS[:1], MECHANISMS[:2], 1)
    assert [len(batch) for batch in batches(made)] == [1, 1]
    assert {guest.name for cell in made.cells for guest in cell.guests} == {"web", "db-0", "db-1"}
