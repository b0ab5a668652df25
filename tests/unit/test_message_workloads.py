"""The workloads nats, redis-sentinel, mosquitto, systemd-watchdog and hardware-watchdog: what their clients
read, what they predict from the configuration as it lies in a guest, and their options."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.clock import Interval
from lab.core.method import Regime
from lab.core.plan import WatchdogAction
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.workload.judge import WorkloadWindow, measure_workload
from lab.core.workload.prediction import EVER_NS, Threshold, predictions
from lab.core.workload.sample import WorkloadEvent, WorkloadRequest
from lab.core.workload.shipped import SHIPPED
from lab.core.workload.shipped.journal_server import JOURNAL_PORT, JOURNAL_SERVER
from lab.core.workload.shipped.systemd_watchdog import CRON_NS
from lab.core.workload.spec import WorkloadSpec
from lab.host.clients.guest_journals import PeriodicJob
from lab.host.clients.mqtt import MqttKind, MqttPacket, MqttReader
from lab.host.clients.nats import NatsMessage, NatsReader, stored_ns, stream_state
from lab.host.clients.resp import RespError, RespReader, RespValue
from lab.host.clients.wire import ClientLoop, ClientPort
from lab.playbook import parse
from tests.unit.playbooks import mistakes_in

HEAD = "name: a\nresync: agent\nnetwork: lab\ncycle: {patch: {hold: 5s}}\n"

REDIS = "name\nmymaster\nip\n10.77.0.10\ndown-after-milliseconds\n5000\ninfo-refresh\n7905\n"
NATS = (
    "server_name: nats-0\nnats-server: v2.9.10\n"
    '{\n  "account_details": [{"stream_detail": [{"consumer_detail": [{"config": {"ack_wait": 3000000000,'
)
SYSTEMD = (
    "[Service]\nType=notify\nWatchdogSec=5s\n[Timer]\nOnCalendar=*:*:0/10\n* * * * * root date\nsystemd 252\n"
)
HARDWARE = "identity i6300ESB timer\nstate active\ntimeout 10\nRuntimeWatchdogUSec=10s\n"


def thresholds(name: str, config: str, regime: Regime, **options: str) -> dict[str, Threshold]:
    """The workload's predictions by what they are of."""
    shipped = SHIPPED[name]
    given = dict(shipped.options) | {key.replace("_", "-"): value for key, value in options.items()}
    found = shipped.predict({"a-0": config}, given, regime)
    return {one.what: one for one in found if isinstance(one, Threshold)}


def split(data: bytes, cuts: Sequence[int]) -> Iterator[bytes]:
    """The data in pieces."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(places):
        yield data[start:end]


CUTS = st.lists(st.integers(0, 10_000), max_size=8)


@given(CUTS)
def test_what_nats_sends_is_read_in_any_pieces(cuts: list[int]) -> None:
    data = (
        b'INFO {"server_name":"nats-0"}\r\nMSG events 1 2\r\nhi\r\nPING\r\n'
        b"MSG a.b 2 $JS.ACK.E.r.1.7.9.1700000000000000001.0 4\r\n\r\n\r\n\r\n"
        b"HMSG x 1 41 41\r\nNATS/1.0 503 No Responders Available \r\n\r\n\r\n"
    )
    messages: list[NatsMessage] = []
    lines: list[str] = []
    reader = NatsReader(messages.append, lines.append)
    for piece in split(data, cuts):
        reader.feed(piece)
    assert [line.split()[0] for line in lines] == ["INFO", "PING"]
    assert messages == [
        NatsMessage("events", "", b"hi"),
        NatsMessage("a.b", "$JS.ACK.E.r.1.7.9.1700000000000000001.0", b"\r\n\r\n"),
        NatsMessage("x", "", b"", 503),
    ]
    assert stored_ns(messages[1].reply) == 1700000000000000001
    assert stored_ns(messages[0].reply) is None


def test_who_leads_a_stream() -> None:
    def answer(cluster: object) -> dict[str, object]:
        stream = {"name": "EVENTS"} | ({"cluster": cluster} if cluster else {})
        return {"account_details": [{"stream_detail": [{"name": "OTHER"}, stream]}]}

    assert stream_state(answer({"leader": "nats-1"}), "nats-0") == {"leader": "nats-1", "leads": False}
    assert stream_state(answer({"name": "lab"}), "nats-0") == {"leader": None, "leads": False}
    assert stream_state(answer(None), "nats-0") == {"leader": "nats-0", "leads": True}
    assert stream_state({"account_details": None}, "nats-0") is None


def encoded(value: RespValue) -> bytes:
    """The value in RESP 2."""
    if isinstance(value, RespError):
        return b"-" + value.text.encode() + b"\r\n"
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, str):
        return b"$%d\r\n%s\r\n" % (len(value.encode()), value.encode())
    return b"*%d\r\n" % len(value) + b"".join(encoded(item) for item in value)


VALUES: st.SearchStrategy[RespValue] = st.recursive(
    st.one_of(
        st.none(), st.integers(-9, 10**12), st.text(max_size=20), st.builds(RespError, st.just("READONLY no"))
    ),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)


@given(st.lists(VALUES, max_size=4), CUTS)
def test_what_redis_answers_is_read_in_any_pieces(values: list[RespValue], cuts: list[int]) -> None:
    found: list[RespValue] = []
    reader = RespReader(found.append)
    for piece in split(b"".join(map(encoded, values)), cuts):
        reader.feed(piece)
    assert found == values


def test_what_is_not_resp_is_refused() -> None:
    with pytest.raises(ValueError, match="not RESP"):
        RespReader(print).feed(b"HTTP/1.1 400 Bad Request\r\n")


PACKETS = st.builds(
    MqttPacket,
    st.sampled_from(list(MqttKind)),
    st.integers(0, 15),
    st.one_of(st.binary(max_size=20), st.sampled_from([b"x" * 127, b"y" * 128, b"z" * 16_384])),
)


@given(st.lists(PACKETS, max_size=4), CUTS)
def test_what_a_broker_sends_is_read_in_any_pieces(packets: list[MqttPacket], cuts: list[int]) -> None:
    found: list[MqttPacket] = []
    reader = MqttReader(found.append)
    for piece in split(b"".join(packet.encode() for packet in packets), cuts):
        reader.feed(piece)
    assert found == packets


def test_lengths_of_mqtt_are_those_of_the_standard() -> None:
    # MQTT 3.1.1, table 2.4
    for size, length in ((0, "00"), (127, "7f"), (128, "8001"), (16_383, "ff7f"), (16_384, "808001")):
        assert MqttPacket(MqttKind.PUBLISH, 2, b"x" * size).encode()[1:].startswith(bytes.fromhex(length))


def test_a_length_that_mqtt_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="not MQTT"):
        MqttReader(print).feed(b"\x30\xff\xff\xff\xff\xff")


def test_redis_fails_over_after_what_its_sentinels_wait() -> None:
    for regime in (Regime.RESUMED, Regime.JUMPED):
        found = thresholds("redis-sentinel", REDIS, regime)
        pause = found["master"].pause
        assert pause is not None
        assert 5 * NS_PER_S in pause
        assert pause.low_ns >= 4 * NS_PER_S
        assert found["two primary"].pause == found["lost"].pause == pause
        assert "down-after-milliseconds 5000" in found["master"].because
    follows = thresholds("redis-sentinel", REDIS, Regime.RESUMED, client="follows")["lost"].pause
    assert follows is not None
    assert follows.high_ns > 3600 * NS_PER_S  # it may lose what was not yet replicated, and need not


def test_nats_repeats_what_waits_for_its_acknowledgement_only_where_its_clocks_ran_on() -> None:
    assert thresholds("nats", NATS, Regime.RESUMED)["twice"].pause is None
    jumped = thresholds("nats", NATS, Regime.JUMPED, work="1s")["twice"]
    assert jumped.pause == Interval(2 * NS_PER_S, EVER_NS)
    assert "ack_wait 3 s" in jumped.because
    three = thresholds("nats", NATS, Regime.RESUMED, servers="3")
    assert three["leader"].pause is not None
    assert 4 * NS_PER_S in three["leader"].pause
    assert three["lost"].pause == Interval(3 * NS_PER_S, EVER_NS), "a leader that wakes may keep its own copy"
    assert thresholds("nats", NATS, Regime.RESUMED)["lost"].pause is None


def test_a_broker_whose_clocks_stop_drops_nobody() -> None:
    resumed = thresholds("mosquitto", "", Regime.RESUMED, keepalive="8s")
    jumped = thresholds("mosquitto", "", Regime.JUMPED, keepalive="8s")
    assert resumed["dropped"].pause is None
    dropped = jumped["dropped"].pause
    assert dropped is not None
    assert dropped.low_ns == 4 * NS_PER_S
    assert resumed["gave up"].pause == jumped["gave up"].pause == Interval(8 * NS_PER_S, 11 * NS_PER_S)


def test_a_service_is_killed_only_where_its_clocks_ran_on() -> None:
    assert thresholds("systemd-watchdog", SYSTEMD, Regime.RESUMED)["restarts"].pause is None
    jumped = thresholds("systemd-watchdog", SYSTEMD, Regime.JUMPED)
    assert jumped["restarts"].pause is not None
    assert jumped["restarts"].pause.low_ns == 4 * NS_PER_S
    skipped = jumped["timer skipped"].pause
    assert skipped is not None
    assert skipped.low_ns == 10 * NS_PER_S
    assert set(jumped) == {"restarts", "timer skipped", "cron twice", "cron skipped"}
    assert thresholds("systemd-watchdog", "", Regime.JUMPED) == {}


@pytest.mark.parametrize(("first", "skipped"), [(10, 0), (19, 0), (20, 0), (29, 0), (30, 1), (75, 5)])
def test_a_first_run_that_comes_late_leaves_out_those_before_it(first: int, skipped: int) -> None:
    job = PeriodicJob("timer", 10)
    job.begin(15)
    job.begin(99)
    assert job.runs([first]) == ["timer skipped"] * skipped
    assert job.runs([first]) == ["timer twice"]


@given(st.integers(0, 59_999), st.integers(1, 600_000))
def test_cron_catches_up_as_it_is_expected_to(phase_ms: int, pause_ms: int) -> None:
    """A jump of up to 5 minutes is run one by one, a longer one once (cron.c)."""
    stop = 1_790_000_040_000 * NS_PER_MS + phase_ms * NS_PER_MS
    wake = stop + pause_ms * NS_PER_MS
    last, now = stop // CRON_NS, wake // CRON_NS
    missed = now - last
    runs = [last * CRON_NS + NS_PER_MS, *[wake] * (missed if missed <= 5 else 1)]
    runs.append((now + 1) * CRON_NS + NS_PER_MS)
    events = PeriodicJob("cron", CRON_NS).runs(runs)
    pause = Interval(wake - stop, wake - stop)
    window = WorkloadWindow(
        0, 0, 9 * CRON_NS, [WorkloadRequest(1, 0, 0, 1, ok=True)], (), (),
        [WorkloadEvent(name, 2) for name in events], frozen=True, paused=pause, pause=pause,
    )  # fmt: skip
    (result,) = measure_workload([window], WorkloadSpec("it"), NS_PER_MS)
    rules = [
        one for name, one in thresholds("systemd-watchdog", SYSTEMD, Regime.JUMPED).items() if "cron" in name
    ]
    for one in predictions(rules, result):
        assert one.agrees is not False, (one.what, one.happens, events, missed)
    known = [one.happens for one in predictions(rules, result)]
    if 120_000 < pause_ms < 300_000:
        assert known == [True, True]
    if pause_ms < 60_000:
        assert known == [False, False]
    if pause_ms > 360_000:
        assert known == [False, True]


def test_a_hardware_watchdog_counts_by_the_guests_own_clock() -> None:
    for regime in (Regime.RESUMED, Regime.JUMPED):
        found = thresholds("hardware-watchdog", HARDWARE, regime)
        assert found["boot"].pause is None
        assert "timeout 10 s" in found["boot"].because
    plan = parse((HEAD + "workload: hardware-watchdog\n").encode(), "p.yaml", Path("/books"))
    (guest,) = plan.guests
    assert (guest.image, guest.watchdog) == ("debian-generic", WatchdogAction.RESET)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{name: nats, options: {servers: 2}}", "servers: 2 is unknown; known: 1, 3"),
        ("{name: nats, options: {ack-wait: 5}}", "ack-wait: duration without a unit"),
        ("{name: redis-sentinel, options: {client: both}}", "client: both is unknown; known: stays, follows"),
        ("{name: mosquitto, options: {keepalive: 1500ms}}", "keepalive: MQTT has whole seconds"),
        ("{name: systemd-watchdog, options: {every: 7s}}", "every: write whole seconds that divide a minute"),
        ("{name: systemd-watchdog, options: {watchdog: 1s}}", "watchdog: write whole seconds, 2s or more"),
        ("{name: hardware-watchdog, options: {timeout: 1h}}", "timeout: the device has whole seconds"),
    ],
)
def test_an_option_that_cannot_be_is_a_mistake_with_its_place(text: str, said: str) -> None:
    (mistake,) = mistakes_in(HEAD + f"workload: {text}\n")
    assert said in str(mistake)
    assert str(mistake).startswith("5:")


def test_three_servers_are_three_guests_of_which_one_is_frozen() -> None:
    guests = SHIPPED["nats"].guests(dict(SHIPPED["nats"].options) | {"servers": "3"})
    assert [(guest.name, guest.is_peer) for guest in guests] == [
        ("nats-0", False),
        ("nats-1", True),
        ("nats-2", True),
    ]


@given(st.integers(0, 10**6), st.lists(st.integers(0, 3), max_size=30), st.integers(1, 60))
def test_a_job_runs_once_for_each_time_or_is_reported(first: int, steps: list[int], period_s: int) -> None:
    """Runs that are `steps` periods apart: 0 is one too many, 2 leaves one out."""
    period = period_s * NS_PER_S
    times = [first * period]
    for step in steps:
        times.append(times[-1] + step * period)
    events = PeriodicJob("cron", period).runs(times)
    assert events.count("cron twice") == steps.count(0)
    assert events.count("cron skipped") == sum(max(0, step - 1) for step in steps)


def test_a_guests_journals_are_told_once_and_whole(tmp_path: Path) -> None:
    """The server of the guests, as a program on this host."""
    text = JOURNAL_SERVER[0].content.replace("/run/lab-", f"{tmp_path}/lab-")
    lines = [1795982795000000000 + number for number in range(50)]
    journal = tmp_path / "lab-cron"
    journal.write_text("".join(f"{line}\n" for line in lines))
    server = subprocess.Popen([sys.executable, "-c", text])
    answers: list[dict[str, Any]] = []

    def take(data: bytes) -> None:
        """A request is sent again on a busy host, before its answer has come; the second answer is none."""
        if (answer := json.loads(data))["asked"]["number"] == len(answers):
            answers.append(answer)

    try:
        loop = ClientLoop()
        port = ClientPort(loop, ("127.0.0.1", JOURNAL_PORT), take)
        until = time.monotonic() + 20
        have = 0
        while time.monotonic() < until and have < len(lines):
            port.send(json.dumps({"number": len(answers), "have": {"cron": have}}).encode())
            time.sleep(0.05)
            port.read_more()
            have = sum(len(answer["lines"]["cron"]) for answer in answers)
    finally:
        server.kill()
        server.wait()
    told = [line for answer in answers for line in answer["lines"]["cron"]]
    assert told == lines
    assert abs(int(str(answers[-1]["now"])) - time.time_ns()) < 60 * NS_PER_S
