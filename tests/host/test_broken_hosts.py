"""Fleets over hosts that are namespaces, broken: two of the scenes of tests.campaign.hosts."""

from __future__ import annotations

import pytest

from tests.campaign.hosts import played
from tests.campaign.hosts_scenes import ALL_KILLED, ALONE

pytestmark = pytest.mark.guest


def test_a_host_that_is_cut_off_resumes_its_guest_within_the_budget_by_its_dead_man() -> None:
    """Its child is stopped as well, for longer than the budget, and its patch takes longer."""
    found = played(ALONE)
    assert not found["wrong"], found
    assert found["record"]["cut_off"] == [True]


def test_a_guest_that_a_killed_run_left_frozen_is_freed_by_hosts_recover() -> None:
    """All that would have resumed it is killed."""
    found = played(ALL_KILLED)
    assert any("qemu" in line for line in found["left"]), found
    assert not found["wrong"] and found["recover"][0] == 0, found
    assert found["record"]["cut_off"] == [False]
