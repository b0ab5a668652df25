"""Both examples of handlers, as they are, against the lab's metadata service over real HTTP."""

from __future__ import annotations

import ast
import http.server
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from lab.core.plan import Announcement, CycleSpec, FreezeMethod, HoldPatch, ServiceFaults
from lab.core.scheduled.instance import InstanceInfo
from lab.core.scheduled.model import Fault, Kind, Rules, State
from lab.core.units import NS_PER_S
from lab.events.announcer import ServiceAnnouncer
from lab.events.service import MetadataService
from lab.process.clock import HostClock

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MINE, OTHER = "web_0", "web_1"
LONG = Announcement(notice_ns=3600 * NS_PER_S, time_factor=1.0)
NOW = Announcement(notice_ns=0)
CYCLE = CycleSpec(FreezeMethod.SUSPEND, HoldPatch(NS_PER_S))


def until(holds: Callable[[], object], what: Callable[[], object] = lambda: "") -> None:
    """Wait until something is so. what: shown when it does not come."""
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, what()
        time.sleep(0.01)


@dataclass
class Handler:
    """A handler that runs. DRAIN and UNDRAIN write to `acts`."""

    program: str
    folder: Path
    url: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def acts(self) -> list[str]:
        path = self.folder / "acts"
        return path.read_text().split() if path.exists() else []

    def start(self, *options: str, **environment: str) -> Handler:
        acts = self.folder / "acts"
        command = [str(EXAMPLES / self.program), "--url", self.url, "--every", "0.02", "--timeout", "3"]
        if self.program.endswith(".py"):
            command = [sys.executable, "-I", "-S", *command]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *options],
                env={
                    **os.environ,
                    "DRAIN": f'echo "drain/$EVENT_TYPE" >> {acts}',
                    "UNDRAIN": f"echo undrain >> {acts}",
                    "http_proxy": "http://127.0.0.1:9",  # nobody is there
                    **environment,
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait()

    def says(self, text: str) -> None:
        until(lambda: text in self.log, lambda: f"{text!r} is not in\n{self.log}")

    def does(self, *acts: str) -> None:
        until(lambda: self.acts == list(acts), lambda: f"{self.acts}\n{self.log}")


@pytest.fixture(params=["drain.py", "drain.sh"])
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@dataclass
class Site:
    """Two guests of one availability set, the service, and the handler of the first one."""

    service: MetadataService
    handler: Handler

    @property
    def announcer(self) -> ServiceAnnouncer:
        return self.service.announcer

    def start(self, *options: str, **environment: str) -> None:
        """Start the handler, and wait until the service is switched on by it."""
        self.handler.start(*options, **environment)
        until(lambda: self.service.has_asked("web-0"), lambda: self.handler.log)

    def announce(self, *guests: str, spec: Announcement = LONG) -> str:
        return self.announcer.announce(guests, spec, CYCLE)[0]

    def becomes(self, event: str, state: State) -> None:
        until(lambda: self.announcer.state([event]) is state, lambda: self.handler.log)

    def wait_for(self, event: str, kind: Kind) -> None:
        """Wait until the service has noted that of the handler."""
        seen: list[Kind] = []

        def happened() -> bool:
            seen.extend(h.kind for h in self.announcer.happened() if h.event == event and h.guest == "web-0")
            return kind in seen

        until(happened, lambda: self.handler.log)


@contextmanager
def running(program: str, folder: Path, rules: Rules = Rules()) -> Iterator[Site]:  # noqa: B008 - frozen
    names = {"web-0": MINE, "web-1": OTHER}
    instances = [InstanceInfo(guest, name, "", "", availability_set="web") for guest, name in names.items()]
    with (
        tempfile.TemporaryDirectory() as doors,
        MetadataService(instances, rules, HostClock(), Path(doors) / "d") as service,
    ):
        address, port = service.listen("127.0.0.1", 0, "web-0")
        handler = Handler(program, folder, f"http://{address}:{port}")
        try:
            yield Site(service, handler)
        finally:
            handler.stop()


@pytest.fixture
def site(program: str, tmp_path: Path) -> Iterator[Site]:
    with running(program, tmp_path) as made:
        yield made


def test_it_drains_acknowledges_and_comes_back(site: Site) -> None:
    site.start()
    other = site.announce("web-1")
    site.handler.says(f"{other} Freeze Scheduled, not before ")
    site.handler.says(f"for {OTHER} (others)")
    assert site.handler.acts == []
    event = site.announce("web-0")
    site.becomes(event, State.STARTED)
    assert site.handler.acts == ["drain/Freeze"]  # before it was acknowledged
    site.handler.says(f"{event} Freeze Started for {MINE}\n")
    site.announcer.all_clear([event])
    site.handler.does("drain/Freeze", "undrain")
    site.handler.says("back in service\n")
    assert site.announcer.state([other]) is State.SCHEDULED
    assert site.handler.log.count("\n") == 8, site.handler.log  # one line for each change


def test_it_comes_back_from_what_was_cancelled_and_never_started(site: Site) -> None:
    site.start()
    event = site.announce("web-0", "web-1")  # two domains: that is not for one of them to acknowledge
    site.handler.does("drain/Freeze")
    site.handler.says(f"for {MINE} {OTHER}\n")
    site.wait_for(event, Kind.SEEN)
    site.announcer.cancel([event])
    site.handler.does("drain/Freeze", "undrain")
    assert "Started" not in site.handler.log and "acknowledged" not in site.handler.log


def test_the_handler_acknowledges_for_other_guests_only_with_for_all(site: Site) -> None:
    site.start("--for-all")
    site.becomes(site.announce("web-0", "web-1"), State.STARTED)
    assert site.handler.acts == ["drain/Freeze"]


def test_without_notice_it_drains_at_once(site: Site) -> None:
    site.start()
    event = site.announce("web-0", spec=NOW)
    site.handler.does("drain/Freeze")
    site.announcer.all_clear([event])
    site.handler.does("drain/Freeze", "undrain")
    assert "not before" not in site.handler.log and "acknowledged" not in site.handler.log


def test_errors_and_restarts_change_nothing(site: Site) -> None:
    """A drained machine stays so while there are no answers, and when the incarnation is 1 again."""
    site.start("--timeout", "0.4")
    event = site.announce("web-0")
    site.handler.says("acknowledged")
    faults = ServiceFaults(answers=(Fault.GONE, Fault.TOO_MANY, Fault.BROKEN, Fault.HANG), restarts=True)
    other = site.announce("web-1", spec=Announcement(notice_ns=0, service=faults))
    site.handler.says(f"{other} Freeze Started")
    for told in ("service: HTTP 410", "service: HTTP 429", "service: HTTP 500", "timed out", "works again"):
        assert told in site.handler.log
    assert site.handler.acts == ["drain/Freeze"]
    site.announcer.all_clear([event])
    site.handler.does("drain/Freeze", "undrain")


def test_the_first_answer_may_be_late(program: str, tmp_path: Path) -> None:
    with running(program, tmp_path, Rules(time_factor=60.0, first_answer_s=60.0)) as site:
        site.start("--timeout", "0.5")
        until(lambda: "this is" in site.handler.log)
        site.announce("web-0")
        site.handler.does("drain/Freeze")
        assert "service:" not in site.handler.log  # it has not given up and asked again


def test_what_fails_is_not_acknowledged(site: Site, tmp_path: Path) -> None:
    site.start(DRAIN=f"[ -e {tmp_path}/ready ] && echo drain >> {tmp_path}/acts")
    event = site.announce("web-0")
    site.handler.says("DRAIN: exit status 1, will be retried")
    assert site.announcer.state([event]) is State.SCHEDULED
    (tmp_path / "ready").touch()
    site.becomes(event, State.STARTED)
    assert site.handler.acts == ["drain"]


def test_a_handler_that_was_frozen_goes_on(site: Site) -> None:
    site.start()
    for pause in (0.01, 0.02, 0.3):  # in the middle of a request, or of waiting
        site.handler.signal(signal.SIGSTOP)
        time.sleep(pause)
        site.handler.signal(signal.SIGCONT)
        time.sleep(0.02)
    event = site.announce("web-0")
    site.becomes(event, State.STARTED)
    site.handler.signal(signal.SIGSTOP)  # it does not see Started end
    site.announcer.all_clear([event])
    site.handler.signal(signal.SIGCONT)
    site.handler.does("drain/Freeze", "undrain")


def test_it_remembers_that_it_has_drained(site: Site, tmp_path: Path) -> None:
    state = tmp_path / "drained"
    site.start("--state", str(state))
    event = site.announce("web-0")
    site.becomes(event, State.STARTED)
    assert state.exists()
    site.handler.stop()  # as in a reboot
    site.announcer.all_clear([event])
    site.handler.start("--state", str(state))
    site.handler.does("drain/Freeze", "undrain")
    until(lambda: not state.exists())


def test_with_watch_only_the_handler_logs_and_does_nothing(site: Site) -> None:
    site.start("--watch-only")
    event = site.announce("web-0")
    site.handler.says(f"{event} Freeze Scheduled")
    site.announcer.cancel([event])
    site.handler.says(f"{event} gone")
    assert site.handler.acts == []


def test_once(site: Site) -> None:
    assert site.handler.start("--once").process is not None
    assert site.handler.process is not None and site.handler.process.wait(30) == 0
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        site.handler.start("--once", "--url", f"http://127.0.0.1:{closed.getsockname()[1]}")
        assert site.handler.process.wait(30) == 1


EVENT = (
    '{"EventId": "A-1", "EventType": "Freeze", "EventStatus": "Started", "ResourceType": "VirtualMachine", '
    '"Resources": ["x", "%s"], "NotBefore": "", "Description": "\\"}]}, \\\\", "DurationInSeconds": 9}'
)


def test_strange_documents_change_nothing(program: str, tmp_path: Path) -> None:
    good = f'{{\n  "Events" : [{EVENT % "y"}, {EVENT % "me"}],\r\n\t"DocumentIncarnation":2}}'
    strange = [
        "",
        "<html>",
        "[]",
        '{"Events": 1}',
        '{"Events": [1]}',
        '{"Events": [{}]}',
        good[:-1],
        good[:60],
    ]
    bodies = iter([good, *strange])
    sent: list[str] = []

    class Strange(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = "me" if "/name" in self.path else '{"compute": {"name": "me"}}'
            if "scheduledevents" in self.path:
                body = next(bodies, '{"DocumentIncarnation": 3, "Events": []}')
                sent.append(body)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    def has_sent(count: int) -> bool:
        return len(sent) >= count

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Strange) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        handler = Handler(program, tmp_path, f"http://127.0.0.1:{server.server_address[1]}").start(
            "--every", "0.01"
        )
        try:
            for count in range(1, len(strange) + 3):  # each is asked for anew
                until(partial(has_sent, count), lambda: handler.log)
            handler.does("drain/Freeze", "undrain")
        finally:
            handler.stop()
            server.shutdown()
    assert sent[1 : len(strange) + 1] == strange
    assert "A-1 Freeze Started for x me\n" in handler.log
    assert "Traceback" not in handler.log and "drain.sh:" not in handler.log


def test_the_handler_in_python_runs_on_3_6() -> None:
    ast.parse((EXAMPLES / "drain.py").read_text(), feature_version=(3, 6))
