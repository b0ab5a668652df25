"""Synthetic cycles and expectations as hypothesis draws them, and how many of them a test tries.

The number of cases is fixed and so is what is drawn (derandomize), by the same code and the same imported
modules: Hypothesis also draws the constants that it finds in them. FREEZELAB_HYPOTHESIS=20000 runs that many
random ones instead, over test_core_simulation.py, test_core_disturbed.py and test_core_edges.py in the
proportion of their usual numbers, and prints how to repeat a failure; pytest's --hypothesis-seed=N fixes what
is drawn.
FREEZELAB_SHRINK=1 makes a failure small, slowly.
"""

from __future__ import annotations

import os
from dataclasses import replace

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from lab.core.plan import Expectations, Regime
from tests.unit.simulation import (
    MS,
    US,
    Move,
    Network,
    Repair,
    S,
    Scenario,
)

HEAVY = int(os.environ.get("FREEZELAB_HYPOTHESIS", "0"))
SHRINK = "FREEZELAB_SHRINK" in os.environ  # a failing case is simulated hundreds of times for that
USUAL = 3050
"""The sum of the counts of `cases` in those three files."""


def cases(count: int) -> settings:
    return settings(
        max_examples=-(-HEAVY * count // USUAL) or count,
        derandomize=not HEAVY,
        deadline=None,
        print_blob=True,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink] if SHRINK else [Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def _either(*several: st.SearchStrategy[int]) -> st.SearchStrategy[int]:
    return st.one_of(*several)


scenarios = st.builds(
    Scenario,
    seed=st.integers(0, 1 << 32),
    regime=st.sampled_from(list(Regime)),
    kvm=st.booleans(),
    crossed=st.booleans(),
    events=st.booleans(),
    before_ns=st.integers(50 * MS, 2500 * MS),
    pause_ns=_either(st.integers(0, 60 * MS), st.integers(60 * MS, 2 * S), st.integers(2 * S, 30 * S)),
    watch_ns=st.integers(100 * MS, 4 * S),
    standing=st.integers(1, 99),
    raw_ppb=st.integers(-500_000, 500_000),
    real_ppb=st.integers(-500_000, 500_000),
    host_ppb=st.integers(-500_000, 500_000),
    start_offset_ns=_either(st.just(0), st.integers(-200 * MS, 200 * MS)),
    network=st.sampled_from(list(Network)),
    rtt_ns=st.integers(1 * MS, 8 * MS),
    loss=st.sampled_from([0, 0, 10, 60]),
    straddle=st.booleans(),
    preempted=st.booleans(),
    late_ns=st.sampled_from([1 * MS, 10 * MS, 40 * MS]),
    stall_ns=st.sampled_from([0, 100 * US, 5 * MS, 50 * MS]),
    call_ns=st.integers(100 * US, 20 * MS),
    repair=st.sampled_from(list(Repair)),
    repair_after_ns=_either(st.integers(0, 20 * MS), st.integers(20 * MS, 2 * S)),
    residual_ns=_either(st.integers(-2 * MS, 2 * MS), st.integers(-150 * MS, 150 * MS)),
    slew_ppb=st.sampled_from([500_000, 10_000_000, 83_333_000]),
    boot_counts=st.booleans(),
)
slewed_before = st.builds(
    lambda s, slew, step: replace(s, slew_before_ppb=slew, step_before_ns=step),
    scenarios,
    st.sampled_from([0, 500_000, -10_000_000, 83_333_000]),
    st.sampled_from([0, 3 * MS, -40 * MS, S]),
)
host_moved = st.builds(
    lambda s, step, at: replace(s, host_step_ns=step, host_step_at=at),
    scenarios,
    st.sampled_from([300 * US, -3 * MS, 40 * MS, -2 * S]),
    st.integers(0, 10 * S),
)
short = st.builds(
    lambda s, pause, call, late, blind, lost, mute: replace(
        s,
        pause_ns=pause,
        call_ns=call,
        return_ns=late,
        blind_ns=blind,
        amnesia=lost and blind > 0,
        mute_ns=mute,
    ),
    scenarios,
    st.integers(10 * MS, 60 * MS),
    st.integers(200 * US, 4 * MS),
    st.sampled_from([0, 3 * MS, 20 * MS]),
    st.sampled_from([0, 0, 700 * MS, 2 * S]),
    st.booleans(),
    st.sampled_from([0, 60 * MS, 500 * MS]),
)
expectations = st.builds(
    Expectations,
    regime=st.sampled_from([None, *Regime]),
    pause_at_least_ns=st.integers(0, 10 * S),
    pause_at_most_ns=st.integers(0, 10 * S),
    in_time_within_ns=_either(st.integers(1, 100 * MS), st.integers(100 * MS, 6 * S)),
    tolerance_ns=_either(st.integers(1 * MS, 12 * MS), st.integers(12 * MS, 300 * MS)),
    hold_ns=st.sampled_from([0, 100 * MS, 500 * MS, 2 * S]),
    final_offset_ns=_either(st.integers(0, 12 * MS), st.integers(12 * MS, 300 * MS)),
    drift_ppm=st.floats(1, 2000),
)
moves = st.lists(
    st.builds(
        Move,
        after_ns=st.integers(0, 3 * S),
        to_ns=st.one_of(
            st.just(0), st.integers(-5 * MS, 5 * MS), st.integers(-S, S),
            st.sampled_from([75 * 60 * S, -2 * 3600 * S]),
        ),
        ppb=st.sampled_from([0, 0, 0, 500_000, 83_333_000]),
    ),
    max_size=4,
).map(lambda given: tuple(sorted(given, key=lambda move: move.after_ns)))  # fmt: skip

busy = st.builds(
    lambda s, given, hole, stretch, offset: replace(
        s, repair=Repair.MOVES, moves=given, hole_ns=hole, busy_ns=stretch, start_offset_ns=offset
    ),
    scenarios,
    moves,
    st.sampled_from([0, 300 * MS, 900 * MS, 3 * S]),
    st.sampled_from([0, 60 * MS, 300 * MS, 2 * S]),
    st.one_of(
        st.just(0), st.integers(-200 * MS, 200 * MS), st.integers(-10 * S, 10 * S),
        st.sampled_from([2 * 3600 * S, -2 * 3600 * S]),
    ),
)  # fmt: skip
short_holds = st.builds(
    lambda expect, hold: replace(expect, hold_ns=hold),
    expectations,
    st.sampled_from([0, 20 * MS, 50 * MS, 100 * MS, 500 * MS]),
)
