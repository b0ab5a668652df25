"""`freezelab events`: a service in a process of its own, a client of it, and the commands that drive it."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from lab.cli.main import app
from lab.core.clock import Stamp
from lab.core.scheduled.model import Happening, Kind
from lab.report.page import Page
from lab.report.service import Log, show_events, waits_for

EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
FREEZELAB = ("-m", "lab.cli.main", "events")
PATIENCE_S = 30


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@dataclass
class Place:
    """A state folder, with a short path, and what runs over it."""

    home: Path
    processes: list[subprocess.Popen[str]]

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"}
        return kept | {"FREEZELAB_HOME": str(self.home), "NO_COLOR": "1"}

    def serve(self, *arguments: str, program: Sequence[str] = FREEZELAB) -> Serving:
        process = subprocess.Popen(
            [sys.executable, *program, "serve", *arguments], env=self.environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.processes.append(process)
        return Serving(process)

    def run(self, *arguments: str) -> Done:
        """A command, in this process: starting an interpreter for each takes longer than they do."""
        made = CliRunner().invoke(app, ["events", *arguments], env=self.environment)
        assert made.exception is None or isinstance(made.exception, SystemExit), made.exception
        return Done(made.exit_code, made.stdout, made.stderr)

    def parsed(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


class Serving:
    """A running service. lines: what it has printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.ports: dict[str, int] = {}
        while line := self._next():
            if "http://" in line:
                guest, url = line.split()[:2]
                self.ports[guest] = int(url.split(":")[2].split("/")[0])

    def _next(self) -> str:
        assert self.process.stdout is not None
        self.lines.append(self.process.stdout.readline().rstrip("\n"))
        return self.lines[-1]

    def until(self, *words: str) -> str:
        """The next line with all of these words."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and self.process.poll() is None:
            line = self._next()
            if all(word in line for word in words):
                return line
        pytest.fail(f"no line with {words}: {self.lines}")

    def ask(self, guest: str, body: object = None) -> tuple[int, Any]:
        connection = HTTPConnection("127.0.0.1", self.ports[guest], timeout=PATIENCE_S)
        verb = "GET" if body is None else "POST"
        connection.request(verb, EVENTS, None if body is None else json.dumps(body), {"Metadata": "True"})
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response.status, json.loads(text) if text else None

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=PATIENCE_S)
        self.lines += out.splitlines()
        return self.process.returncode


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place(Path(tempfile.mkdtemp(prefix="fl-")), [])
    yield made
    for process in made.processes:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()
    shutil.rmtree(made.home)


def approval(event: str) -> object:
    return {"StartRequests": [{"EventId": event}]}


def test_a_life_from_announcement_to_the_end(place: Place) -> None:
    serving = place.serve(
        "--listen", "127.0.0.1:0=web-0", "--listen", "127.0.0.1:0=db-0", "--set", "web=web-0,web-1",
        "--time-factor", "600",
    )  # fmt: skip
    unheard = place.run("announce", "web-0", "--wait")
    assert unheard.returncode == 1  # nobody has asked, so nobody is told, and nobody is waited for
    assert "unheard: no guest has asked for events yet" in unheard.stdout
    what, how = unheard.stderr.splitlines()
    assert what == "start web-0's client first, or request events once in its place, and announce again:"
    assert how == f"curl -H Metadata:true 'http://127.0.0.1:{serving.ports['web-0']}{EVENTS}'"
    socket = place.parsed("list")["guests"][-1]["socket"]  # web-1's, which has no address
    assert f"--unix-socket {socket} 'http://169.254.169.254{EVENTS}'" in place.run("announce", "web-1").stderr
    serving.until("unheard", "none gets it")
    assert serving.ask("web-0") == (200, {"DocumentIncarnation": 1, "Events": []})
    serving.until("enabled", "web-0")
    assert place.run("list").stdout.startswith("no events")

    made = place.run("announce", "web-0", "--duration", "9", "--notice", "10h", "--description", "a patch")
    assert (made.returncode, made.stderr) == (0, "")
    event = made.stdout.split()[0]
    serving.until("published", event[:8], "Freeze of web-0")
    status, document = serving.ask("web-0")
    (told,) = document["Events"]
    assert (status, told["EventId"], told["DurationInSeconds"], told["Description"]) == (
        200,
        event,
        9,
        "a patch",
    )
    assert told["Resources"] == ["web-0"]
    serving.until("seen", event[:8], "by web-0")
    assert serving.ask("db-0")[1]["Events"] == []
    assert serving.ask("db-0", approval(event))[0] == 400
    serving.until("refused", "db-0", "400")

    (listed,) = place.parsed("list")["events"]
    assert (listed["id"], listed["state"], listed["seen"], listed["approved"]) == (
        event,
        "scheduled",
        ["web-0"],
        [],
    )
    assert serving.ask("web-0", approval(event)) == (200, None)
    serving.until("approved", event[:8], "by web-0")
    serving.until("started", event[:8])
    early = place.run("cancel", event[:6])
    assert early.returncode == 2
    assert "has started" in early.stderr
    assert place.run("finish", event[:6].lower()).returncode == 0
    serving.until("gone", event[:8])
    assert serving.ask("web-0")[1]["Events"] == []
    again = place.run("finish", event)
    assert again.returncode == 2
    assert "already over" in again.stderr
    assert [one["state"] for one in place.parsed("list", "--all")["events"]] == [
        "unheard",
        "unheard",
        "over",
    ]
    assert serving.end() == 0
    assert list(place.home.iterdir()) == []


def test_answers_on_purpose_come_in_the_order_given(place: Place) -> None:
    serving = place.serve("--listen", "127.0.0.1:0", "--time-factor", "1")
    serving.ask("web-0")
    document = place.home / "Recorded.json"
    document.write_text('{"Events": ["$NAME"]}')
    given = ("empty", "late 50ms", "200", f"document {document}", "NO-EVENTS", "410")
    options = [word for one in given for word in ("--answer", one)]
    event = place.run("announce", *options).stdout.split()[0]
    empty, late, true, recorded, without, gone, after = [serving.ask("web-0") for _ in range(7)]
    assert empty == (200, None)
    assert [one["EventId"] for one in late[1]["Events"]] == [event]
    assert late == true == after
    assert recorded == (200, {"Events": ["web-0"]})
    assert without == (200, {"DocumentIncarnation": late[1]["DocumentIncarnation"]})
    assert gone[0] == 410
    document.unlink()
    for wrong in ("418", "late", "late 5", f"document {document}"):
        refused = place.run("announce", "--answer", wrong)
        assert refused.returncode == 2
        assert len(refused.stderr.splitlines()) <= 2
    assert serving.end() == 0


def test_a_whole_life_in_one_command(place: Place) -> None:
    """Started by NotBefore, over by itself; and what an operator may do with those that wait."""
    serving = place.serve("--listen", "127.0.0.1:0", "--time-factor", "300", "--name", "lab")
    serving.ask("web-0")
    lived = place.run("announce", "--type", "reboot", "--for", "200ms", "--wait", "--name", "lab")
    assert lived.returncode == 0
    event = lived.stdout.split()[0]
    assert [line.split()[1] for line in lived.stderr.splitlines() if "seen" not in line] == [
        "waits",
        "started",
        "over",
    ]
    assert re.search(
        rf"^{event[:8]}  waits for an approval, or for NotBefore in [\d.]+ s$", lived.stderr, re.M
    )
    for word in ("published", "started", "gone"):
        serving.until(word, event[:8])

    ids = [place.run("announce", "--notice", "100h").stdout.split()[0] for _ in range(3)]
    assert [one["type"] for one in place.parsed("list")["events"]] == ["Freeze"] * 3
    assert place.run("approve", ids[0]).returncode == 0
    serving.until("approved", ids[0][:8], "by the operator")
    assert place.run("start", ids[1]).returncode == 0
    assert place.run("cancel", ids[2]).returncode == 0
    serving.until("cancelled", ids[2][:8])
    assert [one["state"] for one in place.parsed("list", "--all")["events"]] == [
        "over",
        "started",
        "started",
        "cancelled",
    ]
    vague, unknown, odd = (place.run("finish", text) for text in ("", "F" * 36, "../../x"))
    for done in (vague, unknown, odd):
        assert done.returncode == 2
        assert "no event" in done.stderr
    assert serving.end(signal.SIGINT) == 0
    assert list(place.home.iterdir()) == []


GUESTS_ONLY = ("libvirt", "libvirt_qemu", "paramiko", "cryptography", "psutil", "yaml", "prometheus_client")
"""Imported for guests, playbooks and metrics."""


def test_a_service_without_guests_starts_without_what_guests_need(place: Place) -> None:
    """It works where libvirt-python is not installed, and starts in a fraction of a second."""
    source = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({GUESTS_ONLY}))  # importing one of them fails\n"
        "sys.argv[1:] = ['events', *sys.argv[1:]]\n"
        "from lab.cli.entry import main; main()\n"
    )
    serving = place.serve("--listen", "127.0.0.1:0", "--time-factor", "900", program=["-c", source])
    assert serving.ask("web-0")[0] == 200
    for arguments in (["announce", "--notice", "1h"], ["list"], ["list", "--json"]):
        done = subprocess.run(
            [sys.executable, "-c", source, *arguments],
            env=place.environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert "Freeze" in done.stdout
    assert serving.end() == 0


def test_services_do_not_get_in_each_other_s_way(place: Place) -> None:
    none = place.run("list")
    assert none.returncode == 2
    assert "no service is running\nstart one: freezelab events serve" in none.stderr
    first = place.serve("--listen", "127.0.0.1:0")
    same, taken = (
        place.run("serve", *arguments)
        for arguments in (
            ["--listen", "127.0.0.1:0"],
            ["--name", "b", "--listen", f"127.0.0.1:{first.ports['web-0']}"],
        )
    )
    assert (same.returncode, taken.returncode) == (2, 4)
    assert "a service named 'default' is running already" in same.stderr
    assert "address already in use" in taken.stderr
    second = place.serve("--listen", "127.0.0.1:0=web-0", "--listen", "127.0.0.1:0=web-1", "--name", "b")
    which = place.run("list")
    assert which.returncode == 2
    assert "which service? Running: b, default" in which.stderr
    many = place.run("announce", "--name", "b")
    assert (many.returncode, many.stdout) == (2, "")
    assert "name the guests, or use --all\nguests of this service: web-0, web-1" in many.stderr
    assert "no guest 'nobody'" in place.run("announce", "nobody", "--name", "b").stderr
    for done in (none, same, taken, which, many):
        assert len(done.stderr.splitlines()) <= 2

    first.process.kill()
    first.process.wait()
    assert (place.home / "events" / "default" / "control").is_socket()
    assert place.parsed("list")["name"] == "b"  # what was killed does not count
    assert "no service named 'default'" in place.run("list", "--name", "default").stderr
    third = place.serve("--listen", "127.0.0.1:0")
    assert third.ask("web-0")[0] == 200
    assert [third.end(), second.end()] == [0, 0]
    assert list(place.home.iterdir()) == []


def test_an_operator_who_waits_learns_that_the_guest_no_longer_polls() -> None:
    def waiting(silent_s: float | None, cloud: str = "azure") -> list[str]:
        service = {"cloud": cloud, "guests": [{"guest": "web-0", "silent_s": silent_s}]}
        event = {"id": "A" * 36, "state": "scheduled", "left_s": 900.0, "resources": ["web-0"]}
        return list(waits_for(service, [event, event | {"state": "started"}]))

    plain = "AAAAAAAA  waits for an approval, or for NotBefore in 15 min"
    assert waiting(2.0) == [plain]
    assert waiting(40.0, "gce") == ["AAAAAAAA  waits for NotBefore in 15 min"]
    assert waiting(40.0) == [f"{plain}; no guest has asked for 40 s, so an approval is unlikely"]


# -- what is shown -----------------------------------------------------------------------------------


def shown(width: int, work: Callable[[Page], None]) -> list[str]:
    out = io.StringIO()
    # _environ: on a terminal that is called dumb rich's lines are 80 columns, whatever it is told.
    work(Page(Console(file=out, width=width, force_terminal=True, color_system=None, _environ={})))
    return out.getvalue().splitlines()


def entry(number: int, state: str) -> dict[str, Any]:
    guests, at = [f"web-{n}" for n in range(number + 1)], "2026-11-20T10:00:00.000Z"
    return {
        "id": f"{number:08X}-0000-4000-8000-000000000000", "type": "Freeze", "state": state,
        "resources": guests, "left_s": 7.25, "not_before": at, "started": at, "gone": None,
        "duration_s": 5 * number - 1, "seen": guests[:number], "approved": ["the operator"] * (number % 2),
    }  # fmt: skip


@pytest.mark.parametrize("width", [40, 80, 100, 120, 200])
def test_the_list_fits(width: int) -> None:
    given = [entry(number, state) for number, state in enumerate(["scheduled", "started", "scheduled"])]
    lines = shown(width, lambda page: show_events(page, given, [{"guest": "web-9", "asks": False}]))
    assert max(map(len, lines)) <= width
    assert sum("Freeze" in line or "Fre" in line for line in lines) == 3
    assert "web-9" in lines[-1]
    assert (given[0]["id"] in "".join(lines)) == (width >= 200)


def test_repeated_refusals_are_printed_once_a_second() -> None:
    def work(page: Page) -> None:
        log = Log(page)
        for ms in range(0, 2500, 10):
            log.show(
                Happening(Stamp(ms * 1_000_000, 0), Kind.REFUSED, "g", guest="web-0", text="400: no"), None
            )

    lines = shown(80, work)
    assert len(lines) == 3
    assert lines[1].endswith("web-0: 400: no (99 more before)")
