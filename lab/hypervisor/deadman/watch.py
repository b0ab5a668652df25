"""The dead-man's process: waits, and acts in place of a controller that does not.

Messages are always read before the time is checked, so that a dead-man that was itself stopped for a while
does not act on an old state. After it has acted for a controller that still exists, it keeps watching the
guests, because such a controller may continue in the middle of its own freeze.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.core.history import DeadManActed
from lab.core.history.encoding import line_of
from lab.core.timeline import Call
from lab.core.units import NS_PER_S
from lab.errors import HypervisorError
from lab.hypervisor.deadman.channel import BEAT_S, SILENT_S, receive, send
from lab.hypervisor.deadman.messages import from_message
from lab.hypervisor.deadman.rescue import TRY_S, Opened, Rescued, now
from lab.hypervisor.process import QemuProcess, set_oom_score
from lab.hypervisor.qmp import MonitorError

_AGAIN_S = 0.5
"""How soon a guest is checked again after a rescue, in seconds."""

_LATE_S = 1.0
"""A rescue that takes longer than rescue.TRY_S by this counts as hanging."""

_GRACE_S = 15.0
"""How much more time a live controller gets when the resume is a restore."""

_INSIST_S = 300.0
"""How long it keeps trying, without its controller, when QEMU exists but does not answer."""

_LINGER_S = 20.0
"""How long a guest that was told to sleep may take to fall asleep (_SLEEP_S of freeze.guest_sleep)."""


@dataclass
class Guarded:
    """One guest that may be frozen. again: when to check it next after a rescue (time.monotonic). anew: the
    guest runs in a new process that the rescue has started, because the known one is gone. failure: why the
    last rescue failed; "" when it did not. attempt: the thread of the rescue; late: when to report that it
    hangs (time.monotonic)."""

    opened: Opened
    cycle: int
    until_raw_ns: int
    again: float = float("inf")
    anew: bool = False
    failure: str = ""
    attempt: threading.Thread | None = None
    late: float = float("inf")

    @property
    def hangs(self) -> bool:
        return self.attempt is not None and self.attempt.is_alive()

    @property
    def guest(self) -> str:
        return self.opened.plan.guest


class Watch:
    """The dead-man's main loop, `run`. end: its end of the socket pair. controller: the controller's process.
    history: the run's events.jsonl, or None."""

    def __init__(self, end: socket.socket, controller: QemuProcess, history: Path | None) -> None:
        self._end, self._controller, self._history = end, controller, history
        self._guarded: dict[str, Guarded] = {}
        self._connected = True
        self._last_line_s = time.monotonic()
        self._why_left = "the controller has ended"
        self._writing = threading.Lock()

    def run(self) -> None:
        """Guard until the controller has ended and no guest is frozen."""
        beat = 0.0
        while True:
            self._wait()
            self._listen()
            if not self._connected:
                left = [guarded for guarded in self._guarded.values() if not guarded.anew]
                self._act(left, self._why_left)
                self._insist()
                self._linger()
                return
            if self._guarded and time.monotonic() >= beat:
                beat = time.monotonic() + BEAT_S
                self._emit("beat")
            self._look()

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        ends = [guarded.until_raw_ns for guarded in self._guarded.values() if guarded.again == float("inf")]
        left_s = (min(ends) - now().raw_ns) / NS_PER_S if ends else BEAT_S
        poll.poll(1000 * max(0.001, min(BEAT_S, left_s)) if self._guarded else None)

    def _listen(self) -> None:
        """Process all messages that have arrived."""
        while True:
            try:
                message = receive(self._end)
            except BlockingIOError:
                return
            if message is None:
                self._connected = False
                return
            (data, files) = message
            if data["kind"] == "guard":
                self._guard(data, files)
            elif data["kind"] == "give up":
                self._why_left = "the controller could not resume it"
            elif data["kind"] == "release" and (guarded := self._guarded.pop(data["guest"], None)):
                guarded.opened.close()
            # Only from now on: the controller is silent while it waits for its guests to be guarded.
            self._last_line_s = time.monotonic()

    def _guard(self, data: dict[str, Any], files: list[int]) -> None:
        rescue = from_message(data["rescue"])
        why = ""
        try:
            if rescue.needs_libvirt or not rescue.monitor.socket:
                from lab.hypervisor.deadman import libvirt_monitor  # noqa: F401 - loaded before the freeze
            opened = rescue.open(files)
            self._guarded[rescue.guest] = Guarded(opened, data["cycle"], data["until_raw_ns"])
        except (MonitorError, OSError) as error:
            why = str(error) or type(error).__name__
        self._emit("armed", guest=rescue.guest, why=why)

    def _look(self) -> None:
        """Rescue the guests whose time is over."""
        moment, silent_s = now().raw_ns, time.monotonic() - self._last_line_s
        fresh = [guarded for guarded in self._guarded.values() if guarded.again == float("inf")]
        if silent_s >= SILENT_S:
            stopped = self._controller.is_stopped()
            self._act(
                [each for each in fresh if stopped or not each.opened.plan.needs_libvirt],
                f"the controller was silent for {silent_s:.1f} s",
            )
        over = [each for each in fresh if moment >= self._limit(each) and each.again == float("inf")]
        self._act(over, "the budget was over")
        for guarded in self._guarded.values():
            if guarded.hangs:
                self._write_late(guarded)
            elif time.monotonic() >= guarded.again:
                guarded.again = time.monotonic() + _AGAIN_S
                if guarded.opened.stands_still():
                    self._act([guarded], "it stood still again")

    def _limit(self, guarded: Guarded) -> int:
        """Until when a live controller may keep the guest frozen, host MONOTONIC_RAW. A restore takes
        seconds, and ending the controller in the middle of one would only make it longer."""
        grace_s = _GRACE_S if guarded.opened.plan.needs_libvirt else 0
        return guarded.until_raw_ns + round(grace_s * NS_PER_S)

    def _act(self, guarded: list[Guarded], why: str) -> None:
        """Resume these guests in parallel: one that hangs, because libvirt's calls have no time limit, must
        not delay the others, nor this process while its controller listens."""
        if not guarded:
            return
        if self._connected and any(each.opened.plan.needs_libvirt for each in guarded):
            # Before a guest is restored through libvirt, the controller must have ended. One that hangs in
            # the kernel does not end; guests that do not need libvirt are rescued anyway.
            with contextlib.suppress(HypervisorError):
                self._controller.kill(_AGAIN_S * 10)
        for each in guarded:
            if each.hangs:
                continue
            each.again = time.monotonic() + _AGAIN_S
            each.late = time.monotonic() + TRY_S + _LATE_S
            each.attempt = threading.Thread(target=self._rescue, args=(each, why))
            each.attempt.start()
        end = time.monotonic() + (BEAT_S if self._connected else TRY_S + _LATE_S)
        for each in guarded:
            if each.attempt is not None:
                each.attempt.join(max(0.0, end - time.monotonic()))
            if not self._connected and each.hangs:
                self._write_late(each)

    def _write_late(self, guarded: Guarded) -> None:
        """Record once that a rescue hangs. Its thread goes on, and keeps this process alive."""
        if time.monotonic() >= guarded.late:
            guarded.late = float("inf")
            text = "libvirt does not answer; it is resumed as soon as that does"
            self._write(guarded, Rescued("failed", text), f"tried for {TRY_S + _LATE_S:g} s")

    def _rescue(self, guarded: Guarded, why: str) -> None:
        rescued = guarded.opened.rescue()
        guarded.again = time.monotonic() + _AGAIN_S
        plan, process = guarded.opened.plan, guarded.opened.process
        guarded.anew = rescued.act == "resumed" and plan.needs_libvirt and not process.alive
        before, guarded.failure = (
            guarded.failure,
            rescued.text if rescued.act == "failed" and not rescued.final else "",
        )
        if rescued.act == "running" or (guarded.failure and guarded.failure == before):
            return
        if self._connected:
            self._emit("acted", guest=guarded.guest, act=rescued.act, why=why)
        self._write(guarded, rescued, why)

    def _insist(self) -> None:
        """Keep trying, because nobody else will: on an overloaded host QEMU may not answer during one try."""
        end = time.monotonic() + _INSIST_S
        while time.monotonic() < end:
            left = [
                guarded
                for guarded in self._guarded.values()
                if guarded.failure and any(process.alive for process in guarded.opened.processes)
            ]
            if not left:
                return
            time.sleep(_AGAIN_S)
            self._act(left, self._why_left)

    def _linger(self) -> None:
        """Wake guests that fall asleep after the controller, which told them to, has ended."""
        end = time.monotonic() + _LINGER_S
        while time.monotonic() < end:
            sleepy = [
                guarded
                for guarded in self._guarded.values()
                if guarded.opened.plan.lingers and guarded.opened.process.alive
            ]
            if not sleepy:
                return
            time.sleep(BEAT_S)
            for guarded in sleepy:
                if not guarded.hangs and guarded.opened.stands_still():
                    self._act([guarded], "the controller has ended")

    def _emit(self, kind: str, **data: Any) -> None:
        try:
            send(self._end, kind, **data)
        except OSError:
            return  # the controller hangs, or has ended, which the end of file will show

    def _write(self, guarded: Guarded, rescued: Rescued, why: str) -> None:
        """Append an action to the history. This comes after the action, so a full disk does not prevent a
        resume."""
        if self._history is None:
            return
        stamp = now()
        event = DeadManActed(
            rescued.act, why, _call(rescued), rescued.text, guest=guarded.guest, cycle=guarded.cycle
        )
        with self._writing:
            try:
                handle = os.open(self._history, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            except OSError:
                return
            try:
                size = os.fstat(handle).st_size
                # The controller may have been killed in the middle of a line.
                cut = b"" if not size or os.pread(handle, 1, size - 1) == b"\n" else b"\n"
                line = cut + line_of(event, None, stamp).encode("utf-8", "replace") + b"\n"
                if os.write(handle, line) < len(line):  # the disk is full: begin the next entry on a new line
                    os.ftruncate(handle, size)
                os.fsync(handle)
            except OSError:
                return
            finally:
                os.close(handle)


def _call(rescued: Rescued) -> Call | None:
    if rescued.called is None or rescued.returned is None:
        return None
    return Call(rescued.called, rescued.returned, rescued.event_real_ns)


def main(end: int, controller_pid: int, controller: int, history: str) -> None:
    """The process's main function. end, controller: inherited descriptors, of the socket pair and the
    controller's pidfd."""
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGTSTP,
        signal.SIGTTOU,
        signal.SIGTTIN,
    ):
        signal.signal(number, signal.SIG_IGN)  # it ends only when nothing is left to guard
    set_oom_score(-900)  # the kernel kills other processes first
    with socket.socket(fileno=end) as channel, QemuProcess(controller_pid, controller) as process:
        channel.setblocking(False)
        Watch(channel, process, Path(history) if history else None).run()
