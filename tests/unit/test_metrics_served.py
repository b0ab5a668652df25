"""`freezelab metrics serve`: a run in progress, the last run and the metadata service, over HTTP."""

from __future__ import annotations

import fcntl
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics

from lab.cli.metrics import PATH, served
from lab.core.scheduled.cloud_answers import CloudAnswers
from lab.core.scheduled.requests import Answer, Request
from lab.errors import MachineError
from lab.events.request_counts import RequestCounts
from lab.record.journal import EVENTS
from lab.session.live_state import LiveState
from tests.unit.prometheus_samples import samples
from tests.unit.prometheus_tools import fetched, lint
from tests.unit.real_histories import unpacked
from tests.unit.replayed import replayed

ROOT = Path(__file__).parents[2]
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def run_in(home: Path, name: str, history: str) -> Path:
    folder = home / "runs" / name
    folder.mkdir(parents=True)
    return unpacked(history, folder)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with served(LiveState(tmp_path), "127.0.0.1", 0) as at:
        yield at


def values(url: str, name: str) -> dict[str, float]:
    """The values of a metric, by those of their labels that are not the playbook."""
    found = samples(fetched(url)[0])
    return {
        " ".join(value for key, value in labels if key != "playbook" and value): number
        for (each, labels), number in found.items()
        if each == name
    }


def test_both_formats_by_what_is_accepted(tmp_path: Path, url: str) -> None:
    run_in(tmp_path, "20261128-1", "announced")
    classic, kind = fetched(url)
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    assert lint(classic.encode()) == ""
    text, kind = fetched(url, OPENMETRICS)
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")
    families = list(read_openmetrics(text))  # type: ignore[no-untyped-call]
    assert {s.name for f in families for s in f.samples} == {name for name, _ in samples(classic)}


def test_the_last_run_that_can_be_read(tmp_path: Path, url: str) -> None:
    assert fetched(url)[0] == ""
    run_in(tmp_path, "20261128-1", "suspend")
    assert values(url, "freezelab_run_in_progress") == {"": 0}
    run_in(tmp_path, "20261128-2", "called-off")
    assert values(url, "freezelab_run_outcome") == {"failed": 1, "passed": 0, "inconclusive": 0}
    (tmp_path / "runs" / "20261128-3").mkdir()
    (tmp_path / "runs" / "20261128-4").mkdir()
    (tmp_path / "runs" / "20261128-4" / EVENTS).write_text("no history\n")
    assert values(url, "freezelab_run_outcome")["failed"] == 1


def test_a_run_in_progress(tmp_path: Path, url: str) -> None:
    run_in(tmp_path, "20261128-1", "suspend")
    folder, cycles, frozen = tmp_path / "runs" / "20261128-2", [0.0], set()
    whole = replayed("control-cycles", folder)
    next(whole)
    with (folder / EVENTS).open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as its run does
        for number, entry in enumerate(whole):
            if entry.kind in ("cycle-end", "freeze", "resume") or number % 60 == 0:
                assert values(url, "freezelab_run_in_progress") == {"": 1}
                frozen.add(values(url, "freezelab_guests_frozen")[""])
                cycles.append(sum(values(url, "freezelab_cycles_total").values()))
        assert "freezelab_run_outcome" not in fetched(url)[0]
        assert lint(fetched(url)[0].encode()) == ""
    assert cycles == sorted(cycles)
    assert set(cycles) == {0, 1, 2, 3, 4}
    assert frozen == {0, 1}
    assert values(url, "freezelab_run_in_progress") == {"": 0}
    assert sum(values(url, "freezelab_run_outcome").values()) == 1


def test_only_some_metrics_may_be_asked_for(tmp_path: Path, url: str) -> None:
    run_in(tmp_path, "20261128-1", "suspend")
    text, _ = fetched(f"{url}?name[]=freezelab_pause_seconds&name[]=freezelab_cycles_total")
    assert {name for name, _ in samples(text)} == {"freezelab_pause_seconds", "freezelab_cycles_total"}


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/metrics/", 404),
        ("GET", "/..%2f", 404),
        ("POST", PATH, 405),
        ("HEAD", PATH, 405),
    ],
)
def test_nothing_else_is_served(url: str, verb: str, path: str, status: int) -> None:
    host = url.split("/")[2]
    with closing(http.client.HTTPConnection(host, timeout=20)) as client:
        client.request(verb, path)
        assert client.getresponse().status == status


@pytest.mark.parametrize(
    "accept", ["", "*/*", "application/openmetrics-text", "text/html;q=1,,;", "a" * 3000]
)
def test_any_header_is_answered(tmp_path: Path, url: str, accept: str) -> None:
    run_in(tmp_path, "20261128-1", "suspend")
    assert "freezelab_pause_seconds" in fetched(url, accept)[0]


def test_clients_that_say_nothing_hold_nobody_up(tmp_path: Path, url: str) -> None:
    run_in(tmp_path, "20261128-1", "suspend")
    host, port = url.split("/")[2].split(":")
    silent = [socket.create_connection((host, int(port)), timeout=20) for _ in range(30)]
    silent[0].sendall(b"GET /met")
    silent[1].sendall(b"\x00\xff" * 100 + b"\r\n\r\n")
    assert "freezelab_pause_seconds" in fetched(url)[0]
    for one in silent:
        one.close()


def test_a_port_that_is_taken_is_told_in_two_lines(tmp_path: Path, url: str) -> None:
    port = int(url.split("/")[2].split(":")[1])
    with (
        pytest.raises(MachineError, match=rf"127.0.0.1:{port}: cannot listen here: address already in use\n"),
        served(LiveState(tmp_path), "127.0.0.1", port),
    ):
        pass
    unknown = served(LiveState(tmp_path), "nowhere.invalid", 0)
    with pytest.raises(MachineError, match=r"nowhere\.invalid:0: cannot listen here"), unknown:
        pass


def test_ipv6(tmp_path: Path) -> None:
    try:
        with served(LiveState(tmp_path), "::1", 0) as at:
            assert at.startswith("http://[::1]:")
            assert fetched(at)[0] == ""
    except MachineError as error:
        pytest.skip(str(error))


# -- the metadata service ---------------------------------------------------------------------------------


def request(verb: str, path: str = "/metadata/scheduledevents") -> Request:
    return Request(verb, path)


def test_requests_are_counted_by_what_became_of_them() -> None:
    counts = RequestCounts()
    for given, answer in [
        (request("GET"), Answer(200, ())),
        (request("GET", "/metadata/scheduledevents/"), Answer(200, (), cut_at=5)),
        (request("GET"), Answer(304, ())),
        (request("GET"), Answer(200, (), never=True)),
        (request("GET"), Answer(429, ())),
        (request("POST"), Answer(200, ())),
        (request("POST"), Answer(400, ())),
        (request("PUT"), Answer(405, ())),
        (request("GET", "/metadata/instance"), Answer(200, ())),
        (None, Answer(400, ())),
    ]:
        counts.add(given, answer, poll=given is not None and CloudAnswers().is_poll(given.path))
    assert counts == RequestCounts(10, 5, 2, 1, {429: 1, 400: 2, 405: 1})


@pytest.fixture
def short_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a path that is short enough for sockets."""
    home = Path("/tmp") / f"fl-m{os.getpid()}"
    home.mkdir(mode=0o700)
    yield home
    shutil.rmtree(home)


def started(home: Path, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "lab.cli.main", *argv],
        cwd=ROOT, env={**os.environ, "FREEZELAB_HOME": str(home)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def command(home: Path, *argv: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "lab.cli.main", *argv],
        cwd=ROOT, env={**os.environ, "FREEZELAB_HOME": str(home)}, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    return done.stdout


def test_a_metadata_service_and_the_command(short_home: Path) -> None:
    """Both as a user starts them: a client polls, an event is announced, approved and finished."""
    service = started(
        short_home, "events", "serve", "--listen", "127.0.0.1:0=web-0", "--listen", "127.0.0.1:0=web-1"
    )
    metrics = started(short_home, "metrics", "serve", "--port", "0")
    try:
        assert metrics.stdout is not None
        at = metrics.stdout.readline().split()[2].rstrip(";")
        until = time.monotonic() + 60
        while not values(at, "freezelab_events_service_info"):
            assert time.monotonic() < until
            time.sleep(0.1)
        (socket_path,) = {
            str(path) for path in (short_home / "events" / "default" / "doors").iterdir() if path.name == "0"
        }
        ask = ["curl", "-s", "--unix-socket", socket_path, "-H", "Metadata: true"]
        poll = [*ask, "http://x/metadata/scheduledevents?api-version=2020-07-01"]
        subprocess.run(poll, check=True, capture_output=True, timeout=20)
        event = command(short_home, "events", "announce", "web-0", "--notice", "1h").split()[0]
        subprocess.run(poll, check=True, capture_output=True, timeout=20)
        subprocess.run(
            [*ask[:-2], poll[-1]], check=True, capture_output=True, timeout=20
        )  # without its header
        text, _ = fetched(at)
        assert lint(text.encode()) == ""
        assert values(at, "freezelab_scheduled_events_polls_total") == {
            "web-0 default": 3,
            "web-1 default": 0,
        }
        assert values(at, "freezelab_scheduled_events_documents_total")["web-0 default"] == 2
        assert values(at, "freezelab_metadata_refused_requests_total") == {"400 web-0 default": 1}
        assert values(at, "freezelab_scheduled_events")["default scheduled Freeze"] == 1
        assert values(at, "freezelab_scheduled_events_enabled") == {"web-0 default": 1, "web-1 default": 0}
        command(short_home, "events", "approve", event)
        assert values(at, "freezelab_scheduled_events")["default started Freeze"] == 1
        command(short_home, "events", "finish", event)
        states = values(at, "freezelab_scheduled_events")
        assert (states["default started Freeze"], states["default over Freeze"]) == (0, 1)
        service.send_signal(signal.SIGINT)
        service.wait(30)
        assert values(at, "freezelab_events_service_info") == {}
    finally:
        for process in (service, metrics):
            process.send_signal(signal.SIGINT)
        rest, _ = metrics.communicate(timeout=30)
        service.communicate(timeout=30)
    assert rest == "the metrics are no longer served\n"
    assert (metrics.returncode, service.returncode) == (0, 0)
