"""The controller's end: starts the dead-man, tells it which guests to guard, and notices when it is lost."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import HypervisorError, MachineError
from lab.hypervisor.deadman.channel import BEAT_S, SILENT_S, pair, receive, send
from lab.hypervisor.deadman.messages import to_message
from lab.hypervisor.deadman.rescue import ResumePlan
from lab.process import runner
from lab.process.child import Started
from lab.process.pace import paced
from lab.threads import Worker

_ARM_S = 10.0
"""Time limit for the dead-man to connect to the guests' monitors; each takes milliseconds on an idle host."""

_RESCUE_S = 12.0
"""How long close() waits for guests that are still guarded; a rescue is tried for rescue.TRY_S."""

_SCOPE_S = 3.0
_END_S = 5.0


@dataclass(frozen=True)
class Charge:
    """One guest to guard, and the file descriptors that its rescue needs."""

    rescue: ResumePlan
    files: tuple[int, ...]


class DeadMan:
    """The dead-man of one run. It is started when it is first needed, and again after it was lost. history:
    the run's events.jsonl; None: nothing is written. Close it, to end the process."""

    def __init__(self) -> None:
        self.history: Path | None = None
        self._process: Started | None = None
        self._end: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._lost = ""
        self._on_lost: Callable[[], None] = lambda: None
        self._guarded: set[str] = set()

    @property
    def pid(self) -> int | None:
        """The pid of the dead-man's process; None when it does not run."""
        return self._process.pid if self._process is not None else None

    @property
    def lost(self) -> str:
        """Why the dead-man was lost; "" while it runs."""
        return self._lost

    def guard(
        self, charges: Sequence[Charge], cycle: int, until_raw_ns: int, on_lost: Callable[[], None]
    ) -> None:
        """Guard these guests until their release; the dead-man acts at CLOCK_MONOTONIC_RAW `until_raw_ns`.
        on_lost: called once, from another thread, when the dead-man is lost before that. HypervisorError when
        it cannot guard them; they must not be frozen then."""
        end = self._start()
        try:
            for charge in charges:
                message = to_message(charge.rescue)
                send(end, "guard", list(charge.files), rescue=message, cycle=cycle, until_raw_ns=until_raw_ns)
            self._await_armed(end, {charge.rescue.guest for charge in charges})
        except HypervisorError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise HypervisorError(f"the dead-man cannot be reached, so nothing is frozen: {error}") from error
        self._on_lost = on_lost
        self._guarded |= {charge.rescue.guest for charge in charges}
        if self._thread is not None:
            return  # other guests are still guarded
        self._stop.clear()
        self._thread = Worker(target=self._watch, args=(end,), name="dead-man", daemon=True)
        self._thread.start()

    def release(self, guests: Sequence[str]) -> None:
        """Stop guarding these guests, because they run. Does nothing for guests that are not guarded."""
        if self._end is not None and not self._lost:
            with contextlib.suppress(OSError):
                for guest in self._guarded.intersection(guests):
                    send(self._end, "release", guest=guest)
        self._guarded.difference_update(guests)
        if self._guarded and not self._lost:
            return
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._lost:
            self.close()  # the next freeze starts another

    def close(self) -> None:
        """End the dead-man. It first resumes guests that were not released, for which this waits up to
        _RESCUE_S seconds; after that it is left running. Safe to call at any time."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        guards, self._guarded = bool(self._guarded) and not self._lost, set()
        if self._end is not None:
            if guards:
                with contextlib.suppress(OSError):
                    send(self._end, "give up")
            self._end.close()  # which the dead-man sees as the end of file
            self._end = None
        process, self._process = self._process, None
        if process is not None and guards:
            process.wait(_RESCUE_S)
        elif process is not None:
            process.stop(_END_S, first=None)  # it may be stopped (SIGSTOP), and no longer guards anything

    def start(self) -> None:
        """Start the dead-man, so that guard() need not. HypervisorError when that fails."""
        self._start()

    def _start(self) -> socket.socket:
        if self._end is not None and self._process is not None and self._process.status is None:
            return self._end
        self.close()
        self._lost = ""
        ours, its = pair()
        controller = os.pidfd_open(os.getpid())
        command = [
            *_scope(),
            *(sys.executable, "-P", "-m", "lab.hypervisor.deadman"),
            *(str(its.fileno()), str(os.getpid()), str(controller), str(self.history or "")),
        ]
        try:
            self._process = runner.start(command, cwd=Path("/"), pass_fds=(its.fileno(), controller))
        except MachineError as error:
            ours.close()
            raise HypervisorError(f"the dead-man cannot be started, so nothing is frozen: {error}") from error
        finally:
            its.close()
            os.close(controller)
        self._end = ours
        return ours

    def _await_armed(self, end: socket.socket, guests: set[str]) -> None:
        deadline = time.monotonic() + paced(_ARM_S)
        while guests:
            if not _readable(end, deadline - time.monotonic()):
                raise HypervisorError("the dead-man does not answer, so nothing is frozen")
            message = receive(end)
            if message is None:
                raise HypervisorError("the dead-man has ended, so nothing is frozen")
            data, _files = message
            if data["kind"] != "armed":
                continue
            if data["why"]:
                raise HypervisorError(
                    f"the dead-man could not resume it, so it is not frozen: {data['why']}",
                    where=data["guest"],
                )
            guests.discard(data["guest"])

    def _watch(self, end: socket.socket) -> None:
        """Send the controller's beats, and receive the dead-man's."""
        last_s = time.monotonic()
        while not self._stop.is_set():
            try:
                send(end, "beat")
                if _readable(end, BEAT_S):
                    while receive(end) is not None:
                        last_s = time.monotonic()
                    self._lose("the dead-man has ended")
                    return
            except BlockingIOError:
                pass  # no more messages
            except OSError:
                self._lose("the dead-man has ended")
                return
            if time.monotonic() - last_s > SILENT_S:
                self._lose(f"the dead-man was silent for {SILENT_S:g} s")
                return
            self._stop.wait(BEAT_S / 2)

    def _lose(self, why: str) -> None:
        self._lost = why
        self._on_lost()


def _readable(end: socket.socket, wait_s: float) -> bool:
    poll = select.poll()
    poll.register(end, select.POLLIN)
    return bool(poll.poll(max(0.0, wait_s) * 1000))


def _scope() -> list[str]:
    """The command line prefix that puts a process into its own scope, which outlives the session's
    (systemd-run(1), --scope). [] when no user manager answers, and for root."""
    if runner.which("systemd-run") is None or not os.environ.get("XDG_RUNTIME_DIR"):
        return []
    command = ["systemd-run", "--user", "--scope", "--quiet", "--collect"]
    with contextlib.suppress(MachineError):
        runner.run([*command, "true"], _SCOPE_S)
        return command
    return []
