"""The client of a workload: a real program on this host, whatever it prints."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.core.clock import Interval
from lab.core.history import WorkloadSampled
from lab.errors import GuestError, MachineError
from lab.host import workload_client
from lab.host.workload_client import HostClient
from lab.process.clock import HostClock

CLOCK = HostClock()


@contextmanager
def client(folder: Path, text: str) -> Iterator[HostClient]:
    """The Python program `text`, as a client."""
    program = folder / "client.py"
    program.write_text(text, encoding="utf-8")
    with HostClient("mine", [sys.executable, str(program)], folder / "client.log", CLOCK) as started:
        yield started


def collected(running: HostClient, requests: int = 1, within_s: float = 20.0) -> WorkloadSampled:
    """What it reports until it has reported so many requests, or has a problem."""
    found: list[WorkloadSampled] = []
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        found.append(running.collect(3))
        if sum(len(one.requests) for one in found) >= requests or found[-1].problems:
            break
        time.sleep(0.05)
    last = found[-1]
    every = tuple(request for one in found for request in one.requests)
    return WorkloadSampled(
        last.cycle, last.workload, last.began_raw_ns, last.ended_raw_ns, every, problems=last.problems
    )


TICKS = """
import json, time, sys
print(json.dumps({"freezelab": 1, "clock": "CLOCK", "period_ns": 1000}), flush=True)
for number in range(100000):
    now = time.clock_gettime_ns(time.CLOCK_UPPER)
    print(json.dumps({"seq": number, "sent": now, "ok": True}), flush=True)
    time.sleep(0.01)
"""


@pytest.mark.parametrize("clock", ["realtime", "monotonic", "monotonic_raw"])
def test_times_of_each_clock_become_raw(tmp_path: Path, clock: str) -> None:
    text = TICKS.replace("CLOCK_UPPER", f"CLOCK_{clock.upper()}").replace('"CLOCK"', f'"{clock}"')
    before = CLOCK.now().raw_ns
    with client(tmp_path, text) as running:
        told = collected(running, 5)
    after = CLOCK.now().raw_ns
    assert not told.problems
    # The step between two clocks is read with each chunk; a busy host may stop a program in between.
    assert all(before - 5_000_000 <= one.sent_ns <= one.done_ns <= after for one in told.requests)
    assert [one.seq for one in told.requests] == sorted({one.seq for one in told.requests})


def test_a_cycle_has_only_its_own_samples(tmp_path: Path) -> None:
    text = TICKS.replace("CLOCK_UPPER", "CLOCK_MONOTONIC_RAW").replace('"CLOCK"', '"monotonic_raw"')
    with client(tmp_path, text) as running:
        first = collected(running, 3)
        running.start_cycle()
        second = collected(running, 3)
    assert max(one.seq for one in first.requests) < min(one.seq for one in second.requests)
    assert second.began_raw_ns >= first.ended_raw_ns


def test_garbage_is_a_problem_and_the_rest_counts(tmp_path: Path) -> None:
    text = """
import time
print('{"freezelab": 1}')
print("what is this")
print('{"seq": 1, "ok": true}')
print('{"seq": 2}', flush=True)
time.sleep(60)
"""
    with client(tmp_path, text) as running:
        time.sleep(0.5)
        told = running.collect(0)
    assert [one.seq for one in told.requests] == [1]
    assert len(told.problems) == 2
    assert "not JSON: what is this" in told.problems[0]
    assert "seq 2: ok is true or false" in told.problems[1]


def test_much_garbage_is_told_in_few_lines(tmp_path: Path) -> None:
    text = "import time\nfor n in range(1000): print('no')\nprint('', flush=True)\ntime.sleep(60)"
    with client(tmp_path, text) as running:
        time.sleep(0.5)
        told = running.collect(0)
    assert told.problems == ("1000 lines are no samples: not JSON: no",)


def test_different_garbage_is_told_in_few_lines(tmp_path: Path) -> None:
    text = "import time\nfor n in range(1000): print('no', n)\nprint('', flush=True)\ntime.sleep(60)"
    with client(tmp_path, text) as running:
        time.sleep(0.5)
        told = running.collect(0)
    assert len(told.problems) == workload_client.MOST_PROBLEMS + 1
    assert told.problems[-1] == "1000 lines in all are no samples"


@pytest.mark.parametrize(("limit", "most"), [("MOST_BYTES", 1 << 16), ("MOST_LINES", 2_000)])
def test_a_flood_has_to_wait_and_loses_nothing(
    limit: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workload_client, limit, most)
    text = "import json\nn = 0\nwhile True:\n    print(json.dumps({'seq': n, 'ok': True}))\n    n += 1"
    numbers: list[int] = []
    with client(tmp_path, text) as running:
        for _ in range(3):
            time.sleep(0.5)
            told = running.collect(0)
            assert [one for one in told.problems if "had to wait" in one] == list(told.problems) != []
            numbers += [one.seq for one in told.requests]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) < 3 * (1 << 17) // len('{"seq": 1, "ok": true}'), "at most the limit and a chunk each"


def test_a_line_without_an_end_costs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload_client, "MOST_BYTES", 1 << 20)
    text = """
import sys, time
print('{"freezelab": 1}', flush=True)
sys.stdout.write("x" * 900_000 + "\\n" + '{"seq": 1, "ok": true}\\n')
sys.stdout.flush()
time.sleep(60)
"""
    with client(tmp_path, text) as running:
        told = collected(running)
    assert [one.seq for one in told.requests] == [1]
    assert len(told.problems) == 1
    assert "characters; at most" in told.problems[0]


def test_one_that_dies_is_told_with_its_last_words(tmp_path: Path) -> None:
    text = "import sys\nprint('{\"seq\": 1, \"ok\": true}', flush=True)\nsys.exit('no such host')"
    with client(tmp_path, text) as running:
        deadline = time.monotonic() + 20
        told = running.collect(0)
        while not told.problems and time.monotonic() < deadline:
            time.sleep(0.05)
            told = running.collect(0)
    assert told.problems == ("its client has ended: exit status 1: no such host",)


def test_one_that_was_killed_is_told_by_the_signals_name(tmp_path: Path) -> None:
    text = 'import os\nprint(\'{"seq": 1, "ok": true}\', flush=True)\nos.kill(os.getpid(), 11)'
    with client(tmp_path, text) as running:
        deadline = time.monotonic() + 20
        told = running.collect(0)
        while not told.problems and time.monotonic() < deadline:
            time.sleep(0.05)
            told = running.collect(0)
        assert told.problems == ("its client has ended: ended by SIGSEGV",)
        with pytest.raises(MachineError, match="its client has ended: ended by SIGSEGV"):
            running.start_cycle()


def test_one_that_ends_at_once_is_not_started(tmp_path: Path) -> None:
    text, why = "import sys\nsys.exit('no such host')", "ended at once: exit status 1: no such host"
    with pytest.raises(MachineError, match=why), client(tmp_path, text):
        pass


def test_one_that_says_nothing_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload_client, "STARTS_NS", 300_000_000)
    begun = time.monotonic()
    why = "has printed no line within 300 ms"
    with pytest.raises(MachineError, match=why), client(tmp_path, "import time\ntime.sleep(60)"):
        pass
    assert time.monotonic() - begun < 10


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    missing = HostClient("mine", ["no-such-program-here"], tmp_path / "log", CLOCK)
    with pytest.raises(MachineError, match="no such program"), missing:
        pass


@pytest.mark.parametrize("own_session", [False, True])
@pytest.mark.parametrize("ends", ["time.sleep(600)", "sys.exit()"])
def test_it_is_ended_with_its_children(tmp_path: Path, ends: str, own_session: bool) -> None:
    text = f"""
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "600"], start_new_session={own_session})
print('{{"event": "%d"}}' % child.pid, flush=True)
{ends}
"""
    with client(tmp_path, text) as running:
        (event,) = running.collect(0).events or (None,)
        deadline = time.monotonic() + 20
        while event is None and time.monotonic() < deadline:
            (event,) = running.collect(0).events or (None,)
        while "exit" in ends and not running.collect(0).problems and time.monotonic() < deadline:
            time.sleep(0.05)
    assert event is not None
    pid = int(event.name)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}/status").exists() and time.monotonic() < deadline:
        if "zombie" in Path(f"/proc/{pid}/status").read_text(encoding="utf-8"):
            break
        time.sleep(0.05)
    status = Path(f"/proc/{pid}/status")
    assert not status.exists() or "zombie" in status.read_text(encoding="utf-8")


def test_times_of_a_guest_are_moved_to_the_hosts_clock(tmp_path: Path) -> None:
    """Its realtime is 5 s ahead, and known to 10 ms."""
    text = TICKS.replace("time.clock_gettime_ns(time.CLOCK_UPPER)", "time.time_ns() + 5_000_000_000")
    (tmp_path / "client.py").write_text(text.replace('"CLOCK"', '"realtime"'), encoding="utf-8")
    ahead = Interval(4_990_000_000, 5_010_000_000)
    argv = [sys.executable, str(tmp_path / "client.py")]
    with HostClient("mine", argv, tmp_path / "log", CLOCK, ahead=lambda: ahead) as running:
        before = CLOCK.now().raw_ns
        running.start_cycle()
        time.sleep(1.0)
        told = running.collect(0)
    assert not told.problems
    assert told.clock_bound_ns == 10_000_000
    inside = [one for one in told.requests if one.sent_ns >= before]
    assert len(inside) > 5
    assert all(one.done_ns - one.sent_ns < 500_000_000 for one in inside)


def test_a_client_in_a_guest_has_no_clock_of_the_hosts(tmp_path: Path) -> None:
    (tmp_path / "client.py").write_text(TICKS.replace("CLOCK_UPPER", "CLOCK_MONOTONIC").replace(
        '"CLOCK"', '"monotonic"'), encoding="utf-8")  # fmt: skip
    argv = [sys.executable, str(tmp_path / "client.py")]
    with HostClient("mine", argv, tmp_path / "log", CLOCK, ahead=lambda: Interval(0, 0)) as running:
        running.start_cycle()
        time.sleep(0.3)
        told = running.collect(0)
    assert "a client in a guest has realtime" in told.problems[0]


def test_its_cycle_begins_when_its_guests_are_ready(tmp_path: Path) -> None:
    ready: list[int] = []
    argv = ["sh", "-c", 'echo "{\\"freezelab\\": 1}"; sleep 600']

    def prepare() -> None:
        if ready:
            raise GuestError("it does not lead", where="guest db-0")
        ready.append(CLOCK.now().raw_ns)

    with HostClient("mine", argv, tmp_path / "log", CLOCK, prepare=prepare) as running:
        running.start_cycle()
        assert running.collect(0).began_raw_ns >= ready[0]
        with pytest.raises(GuestError, match="it does not lead"):
            running.start_cycle()


def test_what_it_depends_on_is_a_problem_when_it_fails(tmp_path: Path) -> None:
    def gone() -> None:
        raise GuestError("it is shut off, and was not frozen", where="guest db-1")

    argv = ["sh", "-c", 'echo "{\\"freezelab\\": 1}"; sleep 600']
    with HostClient("mine", argv, tmp_path / "log", CLOCK, check=gone) as running:
        assert running.collect(0).problems == ("guest db-1: it is shut off, and was not frozen",)
