"""The metadata service, handlers of its events, and questions of health, in a real guest."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lab.core.method import FreezeMethod
from lab.core.plan import Announcement, CycleSpec, Gate, GateKind, HoldPatch
from lab.core.scheduled.cloud import Cloud
from lab.core.scheduled.cloud_answers import CloudAnswers
from lab.core.scheduled.instance import InstanceInfo
from lab.core.scheduled.model import Rules, State
from lab.core.secret_values import SecretValues
from lab.core.units import NS_PER_S
from lab.errors import GuestError
from lab.events.service import MetadataService
from lab.guest.forward import MetadataForward
from lab.guest.handler import GuestHandler
from lab.guest.health import GuestDoctor
from lab.guest.host_names import MetadataHostNames
from lab.guest.ssh import SSH
from lab.ports import Freezing, Health
from tests.guest.conftest import Lab

CYCLE = CycleSpec(FreezeMethod.SUSPEND, HoldPatch(NS_PER_S))
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAME = "http://169.254.169.254/metadata/instance/compute/name?api-version=2021-02-01&format=text"
ASK = f"curl -s -H Metadata:true '{NAME}'"
LEFT = "ip -o a show lo | grep 169; ss -Hltn 'sport = :80'; ls /run/freezelab/handlers; pgrep -f [d]rain"
IDLE = """\
import http.client, sys
line = http.client.HTTPConnection("169.254.169.254")
line.connect()
first = line.sock
for _ in range(2):
    line.request("GET", "/metadata/versions", headers={"Metadata": "true"})
    answer = line.getresponse()
    answer.read()
    print(answer.status, line.sock is first, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def service(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MetadataService]:
    """With doors for two guests. Nothing is left in the guest in the end."""
    instances = [
        InstanceInfo(guest, f"web_{guest}", "", "", availability_set="web") for guest in ("web-0", "web-1")
    ]
    with MetadataService(instances, Rules(), lab.clock, lab.folder / "doors") as made:
        yield made
    assert lab.probe.ssh.run(LEFT).out == ""


@pytest.fixture
def line(lab: Lab) -> Iterator[list[SSH]]:
    """A connection of the test's own, which it may cut and replace."""
    address = lab.probe.ssh.address
    made = [SSH.connect(address, lab.clock, 120)]
    yield made
    for one in made:
        one.close()


def forward(service: MetadataService, line: list[SSH], door: str = "web-0") -> MetadataForward:
    return MetadataForward("web-0", lambda: line[-1], lambda: service.connect(door))


def test_a_guest_is_who_its_door_says(service: MetadataService, line: list[SSH]) -> None:
    for door in ("web-0", "web-1"):
        with forward(service, line, door):
            assert line[-1].check(ASK) == f"web_{door}"


def test_an_idle_connection_outlives_a_freeze(lab: Lab, service: MetadataService, line: list[SSH]) -> None:
    with forward(service, line) as made:
        channel = line[-1].channel(f"python3 -c '{IDLE}'")
        channel.settimeout(60)
        assert channel.recv(100) == b"200 True\n"
        freezing = Freezing(FreezeMethod.SUSPEND)
        now = lab.clock.now().raw_ns
        lab.hypervisor.prepare("web-0", freezing)
        lab.hypervisor.freeze("web-0", freezing, now + 60 * NS_PER_S)
        try:
            lab.clock.sleep_until(lab.clock.now().raw_ns + 3 * NS_PER_S)
        finally:
            lab.hypervisor.resume("web-0", freezing)
            lab.hypervisor.finish("web-0")
        channel.sendall(b"\n")
        assert channel.recv(100) == b"200 True\n"
        assert made.times == 1
        channel.close()


class LostConnection(SSH):
    """One that the host knows to be gone and the guest does not, as after an exchange of QEMU."""

    alive = property(lambda _: False)


def test_it_comes_back_with_another_connection(
    lab: Lab, service: MetadataService, line: list[SSH], eventually: Callable[[Callable[[], Any], float], Any]
) -> None:
    with forward(service, line) as made:
        line.append(line[-1].again(120))
        line[-2].__class__ = LostConnection
        eventually(lambda: made.times == 2, 200)  # although the guest's sshd listens for the lost one still
        assert line[-1].check(ASK) == "web_web-0"
        line[-1].close()
        line.append(line[-1].again(120))
        eventually(lambda: made.times == 3, 200)
        assert line[-1].check(ASK) == "web_web-0"


def test_why_it_cannot_be(lab: Lab, service: MetadataService, line: list[SSH]) -> None:
    """The settings of a guest that is not the lab's own, and a server of its own on all addresses."""
    ssh = line[0]
    ssh.check("sed -i '1i GatewayPorts no' /etc/ssh/sshd_config; kill -HUP $(cat /run/sshd.pid); sleep 1")
    try:
        line.append(ssh.again(120))
        with pytest.raises(GuestError, match="GatewayPorts clientspecified"), forward(service, line):
            pass
    finally:
        ssh.run("sed -i 1d /etc/ssh/sshd_config; kill -HUP $(cat /run/sshd.pid)")
    server = ssh.channel("echo $$; exec busybox nc -l -p 80")
    pid = server.recv(100).decode().strip()
    ssh.check("for _ in $(seq 50); do ss -Hltn 'sport = :80' | grep -q . && exit; sleep 0.1; done; exit 1")
    with (
        pytest.raises(GuestError, match="is taken there, by busybox"),
        MetadataForward("web-0", lambda: ssh, lambda: service.connect("web-0")),
    ):
        pass
    ssh.check(f"kill {pid}")


def test_handlers_drain_and_come_back(
    lab: Lab,
    service: MetadataService,
    line: list[SSH],
    tmp_path: Path,
    eventually: Callable[[Callable[[], Any], float], Any],
) -> None:
    """Both examples, as they are, in the guest, by way of the forward; they do not notice that SSH is cut."""
    logs = [tmp_path / "py", tmp_path / "sh"]
    with (
        forward(service, line) as made,
        GuestHandler(
            "web-0", lambda: line[-1], EXAMPLES / "drain.py", ["--for-all"], "py", logs[0]
        ) as python,
        GuestHandler(
            "web-0",
            lambda: line[-1],
            EXAMPLES / "drain.sh",
            ["--drain", 'echo "$FREEZELAB_GUEST\'s $THING"', "--undrain", "exit 0"],
            "sh",
            logs[1],
            {"THING": "50% $off"},
        ) as shell,
    ):

        def both(text: str) -> bool:
            time.sleep(0.5)  # to ask is work for the guest, too
            for handler in (python, shell):
                handler.fetch_log()
            return all(log.exists() and text in log.read_text() for log in logs)

        eventually(lambda: both("this is web_web-0"), 200)
        spec = Announcement(notice_ns=3600 * NS_PER_S, time_factor=1.0)
        eventually(lambda: service.has_asked("web-0"), 200)
        (event,) = service.announcer.announce(["web-0", "web-1"], spec, CYCLE)
        eventually(lambda: service.announcer.state([event]) is State.STARTED, 200)
        eventually(lambda: both("drained"), 200)
        line[-1].close()
        line.append(line[-1].again(120))
        eventually(lambda: made.times == 2, 200)
        service.announcer.all_clear([event])
        eventually(lambda: both("back in service"), 200)
        assert python.look() is shell.look() is None
    assert python.end is shell.end is None
    assert "web-0's 50% $off\n" in logs[1].read_text()
    assert f"{event} acknowledged" in logs[0].read_text() and "acknowledged" not in logs[1].read_text()


DIES = """\
#!/usr/bin/python3
import datetime, json, time, urllib.request
URL = "http://169.254.169.254/metadata/scheduledevents?api-version=2020-07-01"
while True:
    request = urllib.request.Request(URL, headers={"Metadata": "true"})
    for event in json.load(urllib.request.urlopen(request))["Events"]:
        datetime.datetime.fromisoformat(event["NotBefore"])
    time.sleep(0.2)
"""


def test_a_handler_that_dies_of_its_first_event(
    service: MetadataService,
    line: list[SSH],
    tmp_path: Path,
    eventually: Callable[[Callable[[], Any], float], Any],
) -> None:
    program = tmp_path / "dies"
    program.write_text(DIES)
    mask = SecretValues({"SECRET": b"isoformat"}).mask
    with (
        forward(service, line),
        GuestHandler("web-0", lambda: line[-1], program, [], "dies", tmp_path / "log", mask=mask) as handler,
    ):
        eventually(lambda: service.has_asked("web-0"), 200)
        assert handler.look() is None
        (event,) = service.announcer.announce(["web-0"], Announcement(), CYCLE)
        end = eventually(handler.look, 200)
        service.announcer.all_clear([event])
    assert end == handler.end
    assert (end.program, end.result, end.code, end.status) == ("dies", "exit-code", "exited", "1")
    assert end.last_line.startswith("ValueError: Invalid [SECRET] string: ")
    assert end.last_line in (tmp_path / "log").read_text()


def test_a_handler_that_does_not_start(lab: Lab, line: list[SSH], tmp_path: Path) -> None:
    for name, text, said in [
        (
            "ends",
            "#!/bin/sh\necho so; echo not so, hunter2 >&2; exit 4\n",
            r"ended at once: not so, \[SECRET\]",
        ),
        ("nothing", "#!/no/such\n", "does not start: the guest cannot execute it"),
    ]:
        (tmp_path / name).write_text(text)
        mask = SecretValues({"SECRET": b"hunter2"}).mask
        handler = GuestHandler(
            "web-0", lambda: line[-1], tmp_path / name, [], name, tmp_path / "log", mask=mask
        )
        with pytest.raises(GuestError, match=said), handler:
            pass


def test_a_doctor(lab: Lab, line: list[SSH]) -> None:
    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/well" else 503)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    masks = {"web-0": SecretValues({"SECRET": b"hunter2"}).mask}
    doctor = GuestDoctor({"web-0": lambda: line[-1]}, lab.clock, masks)

    def ask(kind: GateKind, text: str, within_s: float = 30) -> Health:
        return doctor.ask("web-0", Gate(kind, text), lab.clock.now().raw_ns + round(within_s * NS_PER_S))

    assert ask(GateKind.COMMAND, "test $((1 + 1)) = 2") == Health(True)
    assert ask(GateKind.COMMAND, 'echo a; echo "it\'s ill, hunter2"; exit 3') == Health(
        False, "exited with 3: it's ill, [SECRET]"
    )
    begun = time.monotonic()
    assert not ask(GateKind.COMMAND, "sleep 41", within_s=1).ok
    assert time.monotonic() < begun + 20
    assert line[-1].run("sleep 3; pgrep -f [s]leep.41").out == ""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        port = server.server_port
        with MetadataForward(
            "web-0", lambda: line[-1], lambda: socket.create_connection(("127.0.0.1", port))
        ):
            assert ask(GateKind.HTTP, "http://169.254.169.254/well") == Health(True)
            assert ask(GateKind.HTTP, "http://169.254.169.254/ill") == Health(False, "answered 503")
        server.shutdown()
    assert "connect" in ask(GateKind.HTTP, "http://127.0.0.1:81/").why
    line[-1].close()
    assert ask(GateKind.COMMAND, "true") == Health(False, "SSH is gone")


# -- other clouds ------------------------------------------------------------------------------------

EVENT = "http://metadata.google.internal/computeMetadata/v1/instance/maintenance-event"


def test_a_change_on_compute_engine_is_waited_for_by_name(lab: Lab, line: list[SSH]) -> None:
    """The name is in the guest as long as the service, and the waiting request is answered at the change."""
    about = InstanceInfo("web-0", "web-0", "", "")
    rules = Rules(enabling=Cloud.GCE.traits.enabling)
    ask = f"curl -s -H Metadata-Flavor:Google '{EVENT}"
    with (
        MetadataService([about], rules, lab.clock, lab.folder / "gce", CloudAnswers(Cloud.GCE)) as service,
        MetadataForward("web-0", lambda: line[-1], lambda: service.connect("web-0")),
        MetadataHostNames(lambda: line[-1], Cloud.GCE.traits.host_names),
    ):
        assert lab.probe.ssh.run(f"{ask}'", 60).out == "NONE"
        waiting = ThreadPoolExecutor(1).submit(
            line[-1].run, f"{ask}?wait_for_change=true&timeout_sec=50'", 60
        )
        time.sleep(0.5)  # most likely it waits by then; if not, it is answered all the same by its timeout
        announced = Announcement(cloud=Cloud.GCE, notice_ns=600 * NS_PER_S)
        (event,) = service.announcer.announce(["web-0"], announced, CYCLE)
        assert waiting.result(60).out == "MIGRATE_ON_HOST_MAINTENANCE"
        service.announcer.cancel([event])
        assert lab.probe.ssh.run(f"{ask}'", 60).out == "NONE"
    assert lab.probe.ssh.run("grep -c google /etc/hosts").out.strip() == "0"
