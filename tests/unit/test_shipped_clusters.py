"""The clusters of the lab's own: what their configuration lets one expect, and which options are refused."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lab.core.clock import Stamp
from lab.core.method import Regime
from lab.core.units import NS_PER_MS
from lab.core.workload.sample import SampleReader, StateLook, WorkloadEvent, WorkloadRequest
from lab.core.workload.shipped import SHIPPED
from lab.core.workload.shipped.etcd import PORT
from lab.core.workload.shipped.state_server import state_files
from lab.host.clients.etcd import ANSWER_S, GIVE_UP_S, EtcdCluster, EtcdMember
from tests.unit.playbooks import mistakes_in
from tests.unit.shipped_workloads import file_of, guests_of, ms, predicted


def etcd_config(**options: str) -> dict[str, str]:
    return {name: file_of(guest, "/etc/default/etcd") for name, guest in guests_of("etcd", **options).items()}


@pytest.mark.parametrize("regime", [Regime.RESUMED, Regime.JUMPED])
def test_etcds_leader_changes_by_its_peers_timers(regime: Regime) -> None:
    config = etcd_config(heartbeat="100", election="1000")
    config["etcd-0"] = config["etcd-0"].replace("=1000", "=90000")  # the frozen one's own do not matter
    found = predicted("etcd", config, regime)
    assert found["leader"].pause == found["term"].pause == ms(800, 2100)
    assert found["lost"].pause is None
    assert "election timeout 1000 ms" in found["leader"].because


def test_a_frozen_follower_changes_nothing() -> None:
    found = predicted("etcd", etcd_config(), Regime.JUMPED, frozen="follower")
    assert {one.pause for one in found.values()} == {None}
    assert {"leader", "term", "lease-lost"} <= set(found)


def test_a_lease_may_end_while_a_jumped_leader_leads_still() -> None:
    config = etcd_config(election="5000", heartbeat="500")
    assert predicted("etcd", config, Regime.RESUMED, lease="10")["lease-lost"].pause is None
    assert "lease-lost" not in predicted("etcd", config, Regime.JUMPED, lease="10")
    assert predicted("etcd", config, Regime.JUMPED, lease="30")["lease-lost"].pause is None


def test_etcd_without_its_timers_predicts_no_leader() -> None:
    assert "leader" not in predicted("etcd", dict.fromkeys(etcd_config(), ""), Regime.RESUMED)
    assert "leader" not in predicted("etcd", etcd_config(), Regime.RESUMED, frozen="any")


def test_keepaliveds_backup_waits_for_three_advertisements_and_its_skew() -> None:
    guests = guests_of("keepalived")
    config = {name: file_of(guest, "/etc/keepalived/keepalived.conf") for name, guest in guests.items()}
    found = predicted("keepalived", config, Regime.RESUMED)
    # Priority 100: a skew of 156/256 s. The last advertisement is up to 1 s old; 0.5 s until it is seen.
    down_ms = 3000 + 1000 * 156 / 256
    for what in ("holder", "two master", "two address"):
        pause = found[what].pause
        assert pause is not None
        assert pause.low_ns / NS_PER_MS == pytest.approx(down_ms - 1000, abs=0.001)
        assert pause.high_ns / NS_PER_MS == pytest.approx(down_ms + 500, abs=0.001)
    assert predicted("keepalived", {}, Regime.RESUMED) == {}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("etcd, options: {frozen: both}", "frozen is leader, follower or any"),
        ("etcd, options: {election: 400, heartbeat: 100}", "less than 5 heartbeats"),
        ("etcd, options: {lease: 0}", "lease is a whole number of seconds"),
        ("keepalived, options: {advert: 100}", "advert is 1 to 99"),
    ],
)
def test_options_that_cannot_be_are_told(options: str, says: str) -> None:
    text = "name: a\nresync: agent\ncycle: {patch: {hold: 5s}}\n"
    assert says in " ".join(mistakes_in(f"{text}workload: {{name: {options}}}\n"))


def test_programs_for_guests_are_python() -> None:
    for name, shipped in SHIPPED.items():
        for guest in shipped.guests(dict(shipped.options)):
            for file in guest.setup.files:
                if file.to.endswith(".py"):
                    compile(file.content, f"{name}: {file.to}", "exec")


STATE = """\
asked = 0
def state():
    global asked
    asked += 1
    return {"running": asked % 2 == 0, "events": {"would-fence": asked // 10}}
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[None]:
    """The server of states, as in a guest, on loopback."""
    (program, _) = state_files(STATE)
    path = tmp_path / "server.py"
    path.write_text(program.content)
    with subprocess.Popen([sys.executable, "-u", str(path)]) as running:
        yield
        running.kill()


def test_states_are_asked_for_and_counted_events_told(server: None) -> None:
    program = "from lab.host.clients.state_poll import StatePoller\n"
    program += "StatePoller({'a': '127.0.0.1'}, '127.0.0.1', 20_000_000, 120_000_000).run()"
    reader = SampleReader()
    requests, looks, events = [], [], []
    until = time.monotonic() + 20
    with subprocess.Popen(
        [sys.executable, "-P", "-c", program], stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            now = Stamp(time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW), time.time_ns())
            for sample in reader.read(line, now):
                match sample:
                    case WorkloadRequest():
                        requests.append(sample)
                    case StateLook():
                        looks.append(sample)
                    case WorkloadEvent():
                        events.append(sample)
            if (len(looks) > 6 and events) or time.monotonic() > until:
                running.kill()
                break
    answered = [one for one in requests if one.ok]
    assert answered
    assert all(one.stamp_ns is not None and abs(one.stamp_ns - time.time_ns()) < 60e9 for one in answered)
    assert {json.dumps(dict(look.values)) for look in looks} == {'{"running": true}', '{"running": false}'}
    assert {look.by for look in looks} == {"a"}
    assert {(event.name, event.by) for event in events} == {("would-fence", "a")}


class Gateway(BaseHTTPRequestHandler):
    """A member that acknowledges everything."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"path":"%s"}' % self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_write_that_a_frozen_member_does_not_answer_goes_to_the_next_one() -> None:
    # A socket that listens and never accepts is what a frozen member's kernel looks like.
    with (
        socket.create_server(("127.7.0.2", PORT)),
        ThreadingHTTPServer(("127.7.0.3", PORT), Gateway) as server,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        members = [EtcdMember("frozen", "127.7.0.2"), EtcdMember("other", "127.7.0.3")]
        cluster = EtcdCluster(members)
        begun = time.monotonic()
        assert cluster.ask("kv/put") == ("other", {"path": "/v3/kv/put"})
        assert ANSWER_S <= time.monotonic() - begun < GIVE_UP_S
        begun = time.monotonic()
        assert cluster.ask("kv/put")[0] == "other"  # which has answered last
        assert time.monotonic() - begun < ANSWER_S
        with pytest.raises(OSError, match="timed out"):
            EtcdCluster(members[:1]).ask("kv/put", within_s=0.3)
        server.shutdown()
