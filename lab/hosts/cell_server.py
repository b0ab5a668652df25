"""Runs cells on a host, each in a child process that is forked from one with everything imported: imports and
what is computed once take some 0.9 s of CPU time, which each cell would spend anew.

The server is a process of one thread with one child at a time. It is told in lines on its standard input,
which ends when whoever started it has gone: then it has the child end, and ends.

    {"words": […], "said": PATH}    run the command with these words, its stderr in this file
    end                             have the child end

Its answer is a line with the child's exit status, negative for a signal.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from lab.errors import MachineError
from lab.process import runner

SERVER: tuple[str, ...] = (sys.executable, "-P", "-c", "from lab.cli.cell_children import main; main()")
"""The command of the server. Not `python -m`, which puts the current folder and a `lab` in it first."""

CLEAN_UP_S = 180.0
"""How long a child may take to resume and remove its guests once it is told to end."""

END = "end"
NAME = "freezelab-cell"
"""The name of a child in ps -o comm. Its command line is the server's."""

_EXIT_S = 5.0
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15  # linux/prctl.h
_LAB = Path(__file__).resolve().parents[1]


class CellServer:
    """A server, started. It can be used again when a child has ended."""

    def __init__(self) -> None:
        there, self._orders = os.pipe()
        self._answers, back = os.pipe()
        environment = runner.environment(PYTHONPATH=str(_LAB.parent))
        try:
            self._process = runner.start(SERVER, stdin=there, stdout=back, env=environment)
        except BaseException:
            os.close(self._orders)
            os.close(self._answers)
            raise
        finally:
            os.close(there)
            os.close(back)
        self._lock, self._unread = threading.Lock(), b""

    def begin(self, words: Sequence[str], said: Path) -> None:
        """Start a child. words: of the command. said: the file for its stderr. MachineError when the server
        has gone."""
        self._tell(json.dumps({"words": [*words], "said": str(said)}))

    def ended(self, patience_s: float) -> int | None:
        """The child's exit status, when it ends within so many seconds. MachineError when the server has
        gone."""
        deadline = time.monotonic() + patience_s
        while b"\n" not in self._unread:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._answers], [], [], left)[0]:
                return None
            if not (data := os.read(self._answers, 4096)):
                raise _gone()
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return int(line)

    def end(self) -> None:
        """Have the child resume and remove its guests, and end. Safe from any thread."""
        self._tell(END)

    def close(self) -> None:
        """End the server, and its child."""
        with self._lock:
            if self._orders < 0:
                return
            os.close(self._orders)
            self._orders = -1
        self._process.wait(CLEAN_UP_S + _EXIT_S)
        self._process.stop(_EXIT_S)
        os.close(self._answers)

    def _tell(self, line: str) -> None:
        with self._lock:
            try:
                os.write(self._orders, f"{line}\n".encode())
            except OSError as error:
                raise _gone() from error


def _gone() -> MachineError:
    return MachineError("the process that starts cells has gone", where="worker")


def serve(run: Callable[[Sequence[str]], int | None]) -> NoReturn:
    """Be a server until standard input ends. run: the command, called in each child with its words; it may
    return its exit status."""
    gc.freeze()  # or each child would copy all pages as soon as it looks for garbage
    orders = _Orders()
    while (line := orders.next()) is not None:
        if line != END:
            order = json.loads(line)
            server = os.getpid()
            if not (child := os.fork()):
                _become_child(server, order["said"])
                sys.exit(run(order["words"]))
            status = _awaited(child, orders)
            with os.fdopen(os.dup(1), "w") as answers:
                answers.write(f"{status}\n")
    sys.exit()


class _Orders:
    """The lines on standard input."""

    def __init__(self) -> None:
        self._unread, self.over = b"", False

    @property
    def is_next(self) -> bool:
        """Whether a line has been read that next() has not returned."""
        return b"\n" in self._unread

    def next(self) -> str | None:
        """The next line; None when there is none any more."""
        while b"\n" not in self._unread:
            if not (data := os.read(0, 4096)):
                self.over = True
                return None
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()


def _become_child(server: int, said: str) -> None:
    """Be a process of its own session, which is told to end when the server is killed."""
    os.setsid()
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    prctl(_PR_SET_NAME, NAME.encode(), 0, 0, 0)
    nothing = os.open(os.devnull, os.O_RDWR)
    errors = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for number, file in enumerate((nothing, nothing, errors)):
        os.dup2(file, number)
    os.close(nothing)
    os.close(errors)
    if os.getppid() != server:
        os._exit(1)


def _awaited(child: int, orders: _Orders) -> int:
    """The child's exit status when it has ended. It is told to end when an order says so, or when there are
    no orders any more, and killed when it has not in CLEAN_UP_S."""
    ended = os.pidfd_open(child)
    deadline: float | None = None
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(0, select.POLLIN)
    try:
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            ready = {file for file, _ in poll.poll(0 if orders.is_next else left)}
            if ended in ready:
                return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if not ready and not orders.is_next:
                os.killpg(child, signal.SIGKILL)
                deadline = None
            else:
                orders.next()
                os.kill(child, signal.SIGTERM)
                deadline = deadline or time.monotonic() + CLEAN_UP_S
                if orders.over:
                    poll.unregister(0)
    finally:
        os.close(ended)
