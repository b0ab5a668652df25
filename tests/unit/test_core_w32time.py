"""The forecast of the Windows Time service, beside the rules of Microsoft's documentation and its examples.
None of it was seen on Windows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.clock import Interval
from lab.core.mechanism import UNSEEN, ResyncMechanism
from lab.core.resync import Correction
from lab.core.timesync import w32time
from lab.core.timesync.forecast import Forecast
from lab.core.timesync.rules import forecast
from lab.core.timesync_setup import WINDOWS_NAME, Setup
from tests.unit.simulation import MS, S

M = ResyncMechanism
SETUPS = [mechanism for mechanism in M if mechanism.is_of_windows]
H = 3600 * S


def of(
    mechanism: M, pause_ns: int, config: str = "", *, stopped: bool = True, before_ns: int = 0
) -> Forecast:
    setup = Setup(mechanism, config=config or mechanism.config())
    before = Interval(before_ns, before_ns)
    return forecast(setup, Interval(pause_ns, pause_ns), stopped, 60 * S, before=before)


def test_the_set_ups_are_the_documented_ones() -> None:
    found = {one: w32time.values(one.config()) for one in SETUPS}
    assert list(found) == [M.W32TIME, M.W32TIME_DOMAIN, M.W32TIME_ACCURATE]
    assert [value["MaxAllowedPhaseOffset"] for value in found.values()] == [1, 300, 1]
    polls = [w32time.poll_ns(value) for value in found.values()]
    assert polls == [
        Interval(32768 * S, 604_800 * S),  # since Windows 10 1703, and before
        Interval(1024 * S, 32768 * S),
        Interval(64 * S, 64 * S),
    ]
    assert found[M.W32TIME] == {**w32time.values(""), "special": 1}


@pytest.mark.parametrize(
    ("mechanism", "pause_ns", "correction", "latest_ns"),
    [
        (M.W32TIME, 999 * MS, Correction.SLEW, None),
        (M.W32TIME, 3 * S, Correction.STEP, 604_800 * S),
        (M.W32TIME, 30 * S, Correction.STEP, (2 * 604_800 + 900) * S),
        (M.W32TIME_DOMAIN, 3 * S, Correction.SLEW, None),
        (M.W32TIME_DOMAIN, 128 * S, Correction.SLEW, None),
        (M.W32TIME_DOMAIN, 200 * S, None, None),  # 128 s from Windows Server 2016 on, 234 s before
        (M.W32TIME_DOMAIN, 301 * S, Correction.STEP, (2 * 32768 + 900) * S),
        (M.W32TIME_ACCURATE, 1 * S, Correction.SLEW, None),
        (M.W32TIME_ACCURATE, 3 * S, Correction.STEP, 64 * S),
        (M.W32TIME_ACCURATE, 5 * S, Correction.STEP, (2 * 64 + 900) * S),
    ],
)
def test_when_and_how_it_corrects(
    mechanism: M, pause_ns: int, correction: Correction | None, latest_ns: int | None
) -> None:
    said = of(mechanism, pause_ns)
    assert (said.repaired, said.correction) == (True, correction)
    assert said.within is not None
    if latest_ns is not None:
        assert said.within == Interval(0, latest_ns)
    assert said.text.endswith(UNSEEN)
    assert ("is a spike to it" in said.text) == (pause_ns >= 5 * S)
    assert UNSEEN in mechanism.about


@pytest.mark.parametrize(("off_s", "is_gradual"), [(180, True), (240, False)])
def test_the_documentations_examples_for_2012_r2(off_s: int, is_gradual: bool) -> None:
    """Three and four minutes, at a SystemClockRate of 156,000."""
    config = "MaxAllowedPhaseOffset: 600\nPhaseCorrectRate: 1\nUpdateInterval: 30000 (Local)"
    divisor = w32time._divisors(w32time.values(config), 1024)[1]
    assert (off_s * S // 100 / divisor <= 156_000 / 2) is is_gradual


def test_what_is_off_by_more_than_it_may_correct_is_left() -> None:
    assert of(M.W32TIME, 54_000 * S).repaired is True
    behind, ahead = of(M.W32TIME, 54_001 * S), of(M.W32TIME, 0, before_ns=54_001 * S)
    for said in (behind, ahead):
        assert (said.repaired, said.correction) == (False, Correction.NONE)
        assert "logged, and not corrected" in said.text
    assert behind.residual == Interval(-54_001 * S, -54_001 * S)
    assert of(M.W32TIME_DOMAIN, 54_001 * S).repaired is True  # 0xFFFFFFFF: no limit
    near = forecast(Setup(M.W32TIME), Interval(53_999 * S, 54_001 * S), True, None)
    assert near.repaired is None


def test_a_right_clock_is_left_alone() -> None:
    said = of(M.W32TIME, 5 * S, stopped=False)
    assert (said.repaired, said.correction) == (True, Correction.NONE)


NUMBERS = st.fixed_dictionaries(
    {},
    optional={
        "SpecialPollInterval": st.integers(0, 10**7),
        "MinPollInterval": st.integers(0, 17),
        "MaxPollInterval": st.integers(0, 17),
        "MaxAllowedPhaseOffset": st.integers(0, 3600),
        "MaxNegPhaseCorrection": st.sampled_from([172_800, 0xFFFFFFFF]),
        "MaxPosPhaseCorrection": st.sampled_from([172_800, 0xFFFFFFFF]),
        "LargePhaseOffset": st.integers(1, 10**9),
        "SpikeWatchPeriod": st.integers(0, 10_000),
        "PhaseCorrectRate": st.integers(0, 100),
        "UpdateInterval": st.integers(0, 10**6),
        "NtpServer": st.sampled_from(["a,0x1", "a,0x8", "a", "a,0x2 b,0x9", "a,"]),
    },
)


@given(NUMBERS, st.integers(1, 36_000_000), st.integers(0, 10_000))
def test_any_configuration(numbers: dict[str, object], pause_ms: int, wider_ms: int) -> None:
    config = "\n".join(f"{name}: {value} (Local)" for name, value in numbers.items())
    value = w32time.values(config)
    gradual = w32time.gradual_ns(value)
    assert 0 <= gradual.low_ns <= gradual.high_ns <= value["MaxAllowedPhaseOffset"] * S
    pause = Interval(pause_ms * MS, (pause_ms + wider_ms) * MS)
    said = forecast(Setup(M.W32TIME, config=config), pause, True, None)
    assert (said.repaired, said.text.endswith(UNSEEN)) == (True, True)
    assert said.within is not None and 0 <= said.within.low_ns <= said.within.high_ns
    # The kind of correction is told just where every Windows does the same over all of the pause's bounds.
    step, slew = pause.low_ns > gradual.high_ns, pause.high_ns <= gradual.low_ns
    assert said.correction is (Correction.STEP if step else Correction.SLEW if slew else None)
    # A longer pause is never corrected earlier, but where it is stepped instead.
    poll = w32time.poll_ns(value).high_ns
    assert said.within.high_ns >= poll
    if pause.high_ns >= value["LargePhaseOffset"] * 100:
        assert said.within.high_ns >= 2 * poll + value["SpikeWatchPeriod"] * S
    if slew:
        assert said.within.low_ns >= 2 * (pause.low_ns - w32time.SOURCE_NS)
    longer = Interval(pause.low_ns, pause.high_ns + 10 * S)
    assert w32time.latest_ns(value, longer) >= w32time.latest_ns(value, pause)


@given(st.text(max_size=200))
def test_no_text_is_too_strange(text: str) -> None:
    assert of(M.W32TIME, 3 * S, text or " ").text


@pytest.mark.parametrize("mechanism", [M.AGENT, M.DOMTIME_NOW])
def test_the_agent_of_windows(mechanism: M) -> None:
    """SetSystemTime has whole milliseconds."""
    pause = Interval(3 * S, 3 * S)
    linux = forecast(Setup(mechanism), pause, True, 30 * S)
    windows = forecast(Setup(mechanism, status={WINDOWS_NAME: "Windows Server"}), pause, True, 30 * S)
    assert linux.residual is not None
    assert windows.residual == Interval(linux.residual.low_ns - MS, linux.residual.high_ns)
    assert windows.text == f"{linux.text}; {UNSEEN}"
    assert not any("hwclock" in source or "posix" in source for source in windows.sources)
