"""Streams, TLS, HAProxy and media: what their configuration predicts, and options that are none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.clock import Interval
from lab.core.method import Regime
from lab.core.network import HOST
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.workload.judge import WorkloadWindow, measure_workload
from lab.core.workload.prediction import EVER_NS, CatchUp, Threshold, predictions
from lab.core.workload.shipped import SHIPPED
from lab.core.workload.shipped.haproxy import check_of
from lab.core.workload.spec import WorkloadSpec

MINE = ["tcp-stream", "udp-stream", "tls", "haproxy", "hls", "rtp", "transcoding"]


def _config(name: str, **options: str) -> dict[str, str]:
    """What lies in the guests, by guest: all that is copied there."""
    shipped = SHIPPED[name]
    guests = shipped.guests(dict(shipped.options) | options)
    return {guest.name: "\n".join(file.content for file in guest.setup.files) for guest in guests}


def _predicted(name: str, regime: Regime, more: str = "", **options: str) -> dict[str, Threshold]:
    shipped = SHIPPED[name]
    config = {guest: text + more for guest, text in _config(name, **options).items()}
    found = shipped.predict(config, dict(shipped.options) | options, regime)
    return {one.what: one for one in found if isinstance(one, Threshold)}


@pytest.mark.parametrize("name", MINE)
def test_each_predicts_from_what_it_puts_into_its_guests(name: str) -> None:
    for regime in (Regime.RESUMED, Regime.JUMPED):
        assert _predicted(name, regime, more="\nfps=20\n")


@pytest.mark.parametrize("name", MINE)
def test_without_its_configuration_nothing_fails(name: str) -> None:
    shipped = SHIPPED[name]
    shipped.predict({}, dict(shipped.options), Regime.RESUMED)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("tcp-stream", "direction", "sideways"), ("tcp-stream", "rate", "fast"),
        ("tcp-stream", "rate", "1Gbps"), ("udp-stream", "size", "9000"), ("udp-stream", "rate", "1bit"),
        ("tls", "backdate", "soon"), ("tls", "backdate", "48h"), ("haproxy", "fall", "0"),
        ("haproxy", "inter", "2"), ("haproxy", "frozen", "all"), ("hls", "buffer", "-1"),
        ("hls", "listed", "2"), ("rtp", "jitter", "0s"), ("transcoding", "late", "1h"),
        ("udp-echo", "target", "all"),
    ],
)  # fmt: skip
def test_a_value_that_is_none(name: str, option: str, value: str) -> None:
    shipped = SHIPPED[name]
    with pytest.raises(ValueError, match=f"^{option}: .*{value}") as error:
        shipped.guests(dict(shipped.options) | {option: value})
    assert "\n" not in str(error.value)


def test_a_player_buffers_no_more_than_is_listed() -> None:
    with pytest.raises(ValueError, match="listed: 3 is less than the player's buffer of 5"):
        SHIPPED["hls"].guests({"buffer": "5", "segment_s": "2", "listed": "3"})


def test_a_player_stalls_between_one_segment_less_and_one_more() -> None:
    stall = _predicted("hls", Regime.RESUMED)["stall"]
    assert stall.pause == Interval(3500 * NS_PER_MS, 8500 * NS_PER_MS)
    longer = _predicted("hls", Regime.JUMPED, segment_s="4", buffer="2")["stall"]
    assert longer.pause == Interval(3500 * NS_PER_MS, 12500 * NS_PER_MS)


def test_a_new_certificate_is_refused_only_by_a_guest_that_is_behind() -> None:
    assert _predicted("tls", Regime.JUMPED)["not yet valid"].pause is None
    at_once = _predicted("tls", Regime.RESUMED)["not yet valid"].pause
    assert at_once is not None
    assert at_once.low_ns == 0
    backdated = _predicted("tls", Regime.RESUMED, backdate="10s")["not yet valid"].pause
    assert backdated is not None
    assert backdated == Interval(10 * NS_PER_S, EVER_NS)  # a step comes before the next connection, or not


def test_haproxys_check_as_its_configuration_has_it() -> None:
    assert check_of("  server a 10.0.0.1:80 check", "a") == (2 * NS_PER_S, 3, 2, 2 * NS_PER_S)
    text = """\
defaults
    timeout connect 500
    timeout check 3s
backend b
    server a 10.0.0.1:80 check inter 1m fall 5 rise 1
    server ab 10.0.0.1:80 check inter 7s
"""
    assert check_of(text, "a") == (60 * NS_PER_S, 5, 1, 3500 * NS_PER_MS)
    assert check_of(text, "ab")[0] == 7 * NS_PER_S


def test_a_frozen_balancer_finds_nobody_down() -> None:
    frozen = SHIPPED["haproxy"].guests(dict(SHIPPED["haproxy"].options) | {"frozen": "balancer"})
    assert [(guest.name, guest.is_peer) for guest in frozen] == [("lb-0", False), ("app-0", True)]
    found = _predicted("haproxy", Regime.JUMPED, frozen="balancer")
    assert [one.pause for one in found.values()] == [None, None]
    server = _predicted("haproxy", Regime.JUMPED)["app-0"].pause
    assert server is not None
    # Three time-outs of 2 s, two of 2 s between them, and up to 2 s until the first begins.
    assert (server.low_ns, server.high_ns) == (8 * NS_PER_S, 13 * NS_PER_S)


def test_transcoding_catches_up_with_the_power_that_was_measured() -> None:
    outage, back = _rules("transcoding", "\nfps=0.00\nfps=20.0\n")
    assert isinstance(outage, Threshold)
    assert isinstance(back, CatchUp)
    assert outage.pause is not None  # 4 times the rate: of 4 s, the 3 s that are too late go in 1 s
    assert 4 * NS_PER_S in outage.pause
    in_time = back.back(Interval(4 * NS_PER_S, 4 * NS_PER_S))
    assert in_time is not None
    assert NS_PER_S in in_time
    perhaps = _rules("transcoding", "\nfps=4\n")[1]
    assert isinstance(perhaps, CatchUp)
    assert perhaps.back(Interval(4 * NS_PER_S, 4 * NS_PER_S)) == Interval(15 * NS_PER_S, EVER_NS)
    hopeless, never = _rules("transcoding", "\nfps=3\n")
    assert isinstance(hopeless, Threshold)
    assert isinstance(never, CatchUp)
    assert hopeless.pause == Interval(NS_PER_S, NS_PER_S)
    assert never.back(Interval(5 * NS_PER_S, 5 * NS_PER_S)) is None
    assert _rules("transcoding", "") == ()


def _rules(name: str, more: str) -> tuple[Threshold | CatchUp, ...]:
    shipped = SHIPPED[name]
    config = {guest: text + more for guest, text in _config(name).items()}
    return shipped.predict(config, dict(shipped.options), Regime.JUMPED)


@given(
    st.integers(5 * NS_PER_MS, 20 * NS_PER_S),
    st.floats(1.05, 20),
    st.integers(50 * NS_PER_MS, 3 * NS_PER_S),
    st.integers(20, 400),
)
def test_what_waits_is_in_time_again_when_the_arithmetic_has_it(
    pause: int, speed: float, late: int, period_ms: int
) -> None:
    """Frames come each period, and are done one after another, `speed` times as fast as they come."""
    period = period_ms * NS_PER_MS
    due, free = 0, pause
    while True:
        done = max(due, free) + round(period / speed)
        if done - due <= late + round(period / speed):
            break
        due, free = due + period, done
    back = CatchUp((speed, speed), late, "").back(Interval(pause, pause))
    assert back is not None
    step = 2 * period + round(period / (speed - 1))
    assert back.low_ns - step <= done - pause <= back.high_ns + step


@pytest.mark.parametrize(
    ("recovery", "unended", "agrees"),
    [(2 * NS_PER_S, False, True), (9 * NS_PER_S, False, False), (None, True, False), (None, False, None)],
)
def test_the_way_back_beside_what_happened(recovery: int | None, unended: bool, agrees: bool | None) -> None:
    pause = Interval(5 * NS_PER_S, 5 * NS_PER_S)
    window = WorkloadWindow(0, 0, 99 * NS_PER_S, frozen=True, paused=pause, pause=pause)
    (result,) = measure_workload([window], WorkloadSpec("it"), NS_PER_MS)
    result = replace(result, recovery_ns=recovery, unended=unended)
    (found,) = predictions([CatchUp((3.0, 3.0), NS_PER_S, "20 frames/s")], result)
    assert (found.what, found.happens, found.agrees) == ("back", True, agrees)
    assert found.text == "back: 2 s to 3 s after the resume; 20 frames/s"
    (perhaps,) = predictions([CatchUp((0.5, 2.0), NS_PER_S, "slow")], result)
    assert perhaps.text == "back: 4 s after the resume or later, if at all; slow"
    assert perhaps.agrees == (None if recovery is None else recovery >= 4 * NS_PER_S)
    (never,) = predictions([CatchUp((0.5, 1.0), NS_PER_S, "slow")], result)
    assert (never.happens, never.happened) == (False, None if agrees is None else recovery is not None)


def test_a_connection_outlives_a_pause_that_tcp_retransmits_through() -> None:
    sysctl = "\nnet.ipv4.tcp_retries2 = 15\n"
    lost = _predicted("tcp-stream", Regime.RESUMED, more=sysctl, direction="up")["connection lost"].pause
    assert lost is not None
    assert lost.low_ns == pytest.approx(924.6 * NS_PER_S, rel=1e-4)  # ip-sysctl: "924.6 seconds"
    assert _predicted("tcp-stream", Regime.RESUMED, more=sysctl)["connection lost"].pause is None
    jumped = _predicted("tcp-stream", Regime.JUMPED, more=sysctl, direction="up")["connection lost"].pause
    assert jumped is not None
    assert jumped.low_ns == 120 * NS_PER_S


@pytest.mark.parametrize(
    ("network", "possible_from"),
    [("queue 0", 1400), ("port of a bridge", 1400), ("queue 1000", None), ("queue 10", None)],
)
def test_frames_that_are_not_kept_cost_a_retransmission(network: str, possible_from: int | None) -> None:
    config = {"stream-0": "", HOST: f"stream-0: {network}"}
    options = dict(SHIPPED["tcp-stream"].options)
    up = SHIPPED["tcp-stream"].predict(config, {**options, "direction": "up"}, Regime.RESUMED)[0]
    down = SHIPPED["tcp-stream"].predict(config, options, Regime.RESUMED)[0]
    assert isinstance(up, Threshold)
    assert isinstance(down, Threshold)
    expected = None if possible_from is None else Interval(possible_from * NS_PER_MS, EVER_NS)
    assert (up.what, up.pause) == ("outage", expected)
    assert down.pause is None
