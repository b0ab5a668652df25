"""libvirt's event loop: started and stopped with events on their way, and in a process that is busy."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

from lab.hypervisor.binding import libvirt
from lab.hypervisor.events import EventLog
from lab.hypervisor.loop import LOOP
from lab.process.clock import HostClock

ROOT = Path(__file__).parents[2]


def loops() -> int:
    return sum(thread.name == "libvirt-events" for thread in threading.enumerate())


class Listening:
    """A connection to the test driver, and its events."""

    def __init__(self) -> None:
        LOOP.acquire()
        self.connection: Any = libvirt.open("test:///default")
        self.log = EventLog(HostClock().now, migrations=True)
        self.log.register(self.connection)
        self.domain = self.connection.lookupByName("test")

    def raise_events(self, count: int) -> None:
        for _ in range(count):
            self.domain.suspend()
            self.domain.resume()

    def resumed(self) -> bool:
        """Whether an event of that came, in a minute."""
        uuid = self.domain.UUIDString()
        return self.log.wait_lifecycle(uuid, lambda event: event.kind == "resumed", 60) is not None

    def close(self, patience_s: float = 60) -> bool:
        self.log.unregister(self.connection)
        self.connection.close()
        return LOOP.release(patience_s)


def test_it_stops_200_times_with_events_on_their_way_in_a_busy_process() -> None:
    over = threading.Event()

    def compute() -> None:
        while not over.is_set():
            sum(range(1000))

    busy = [threading.Thread(target=compute) for _ in range(2)]
    for thread in busy:
        thread.start()
    try:
        for _ in range(200):
            listening = Listening()
            listening.raise_events(3)
            assert listening.close()
            assert loops() == 0
    finally:
        over.set()
        for thread in busy:
            thread.join()


def test_a_sleeping_loop_is_woken_at_once() -> None:
    listening = Listening()
    time.sleep(0.3)  # in poll(), with nothing to do
    begun = time.monotonic()
    assert listening.close()
    assert time.monotonic() - begun < 2.5


def test_a_loop_that_is_late_is_left_and_taken_over() -> None:
    """A callback that does not return holds the thread."""
    first = Listening()
    entered, go_on = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        entered.set()
        go_on.wait(60)

    timer = libvirt.virEventAddTimeout(0, slow, None)
    try:
        assert entered.wait(60)
        assert not first.close(patience_s=0.05)
        assert loops() == 1
        second = Listening()
        assert loops() == 1
        second.raise_events(1)
    finally:
        libvirt.virEventRemoveTimeout(timer)
        go_on.set()
    assert second.resumed()
    assert second.close()
    assert loops() == 0


def test_a_process_ends_well_whose_loop_is_late() -> None:
    body = """
        import threading
        from lab.hypervisor.binding import libvirt
        from lab.hypervisor.loop import LOOP
        LOOP.acquire()
        entered = threading.Event()
        def slow(*_):
            entered.set()
            threading.Event().wait()
        libvirt.virEventAddTimeout(0, slow, None)
        assert entered.wait(60)
        print("stopped:", LOOP.release(0.05))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(body)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped: False\n", "")


def test_events_of_another_connection_than_the_domains_are_left_out() -> None:
    here = Listening()
    there = libvirt.open("test:///default")  # the same domain, as both ends of a migration have it
    here.log.register(there)
    uuid, log = here.domain.UUIDString(), here.log
    try:
        log.is_at(uuid, there)
        here.raise_events(1)
        assert here.resumed()
        log.unregister(there)  # so nothing comes from where it is
        before = len(log.lifecycle(uuid))
        log.is_at(uuid, there)
        here.raise_events(1)
        assert log.wait_lifecycle(uuid, bool, 0.5, before) is None
        log.is_at(uuid, here.connection)
        here.raise_events(1)
        assert log.wait_lifecycle(uuid, lambda event: event.kind == "resumed", 60, before) is not None
    finally:
        there.close()
        assert here.close()
