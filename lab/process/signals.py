"""SIGINT, SIGTERM and SIGHUP: the first one ends the work through the normal clean-up, so that guests are
resumed and removed; further ones only print that this is in progress.

The first one is raised as Interrupted wherever the main thread is. So code that must not be interrupted,
above all clean-up, holds it back: shield(), @whole, Teardown. Other threads are never interrupted and need no
protection.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import CodeType, FrameType, TracebackType
from typing import Any, ParamSpec, TypeVar

from lab.errors import FreezelabError, Interrupted, MachineError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PATIENCE = b"\nfreezelab: still cleaning up, so that nothing stays frozen or behind; a moment\n"

_NEAR = 8
"""The most frames between a function of @whole and the raised shield: those of two context managers."""

_AGAIN_S = 0.02

P = ParamSpec("P")
T = TypeVar("T")


class Signals:
    """Turns the first signal into Interrupted, raised in the main thread. A context manager."""

    _present: Signals | None = None
    _tell: Callable[[str], None] | None = None

    def __init__(self) -> None:
        self._shields = 0
        self._pending: int | None = None
        self._raised = False
        self._before: dict[int, Any] = {}
        self._outer: Signals | None = None

    def __enter__(self) -> Signals:
        self._outer, Signals._present = Signals._present, self
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
                self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        Signals._present = self._outer

    @classmethod
    def notes_to(cls, tell: Callable[[str], None] | None) -> None:
        """Have the line for further signals printed by `tell`, which has a display on the terminal; None: by
        nobody but this module. `tell` is called in a signal handler, and must not take a lock."""
        cls._tell = tell

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if self._raised:
            if Signals._tell is not None:
                Signals._tell(_PATIENCE.decode().strip())
            else:  # not print(): the signal may have come in the middle of one
                os.write(2, _PATIENCE)
        elif self._shields:
            self._pending = number
        elif _at_the_shield(frame):
            # On the way into a shield, or out of it: a little later it is one thing or the other.
            threading.Timer(_AGAIN_S, signal.pthread_kill, (threading.get_ident(), number)).start()
        else:
            self._raise(number)

    def _raise(self, number: int) -> None:
        self._raised, self._pending = True, None
        raise Interrupted(f"interrupted by {signal.Signals(number).name}")

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Hold signals back until the block is left. For the main thread."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
            if self._pending is not None and not self._shields and not self._raised:
                self._raise(self._pending)


@contextmanager
def shield() -> Iterator[None]:
    """Hold signals back until the block is left, whatever Signals are in place. Interrupted comes then."""
    present = Signals._present
    if present is None or threading.current_thread() is not threading.main_thread():
        yield
    else:
        with present.shield():
            yield


def whole(function: Callable[P, T]) -> Callable[P, T]:
    """The function, under a shield from its first instruction to its last: even a signal that arrives before
    the shield is set up is held back."""

    def shielded(*args: P.args, **kwargs: P.kwargs) -> T:
        with shield():
            return function(*args, **kwargs)

    _SHIELDED.add(shielded.__code__)
    return functools.wraps(function)(shielded)


_SHIELDED: set[CodeType] = set()


def _at_the_shield(frame: FrameType | None) -> bool:
    for _ in range(_NEAR):
        if frame is None:
            return False
        if frame.f_code in _SHIELDED:
            return True
        frame = frame.f_back
    return False


class Teardown(ExitStack):
    """An ExitStack that is left completely: no signal interrupts it, and a failure does not prevent the other
    callbacks. Each failure is reported; the first is raised when no other error is being raised.

    report: called with a line or two for everything that could not be undone. again: the command that retries
    it.
    """

    def __init__(self, report: Callable[[str], None], again: str) -> None:
        super().__init__()
        self._report, self._again = report, again
        self._failed: list[FreezelabError] = []

    def callback(self, undo: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Callable[P, T]:
        super().callback(self._try, functools.partial(undo, *args, **kwargs))
        return undo

    def enter_context(self, context: AbstractContextManager[T]) -> T:
        entered = context.__enter__()
        self.push(lambda *raised: self._try(functools.partial(context.__exit__, *raised)))
        return entered

    def _try(self, undo: Callable[[], T]) -> T | None:
        try:
            return undo()
        except FreezelabError as error:
            failed = error
        except OSError as error:  # a disk that is full, or takes nothing any more
            failed = MachineError(error.strerror or str(error), where=str(error.filename or ""))
        self._failed.append(failed)
        self._report(f"not undone: {failed}\ntry again: {self._again}")
        return None

    @whole
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> bool:
        handled = bool(super().__exit__(kind, value, trace))
        failed, self._failed = self._failed, []
        if failed and value is None:
            raise failed[0]
        return handled

    def close(self) -> None:
        self.__exit__(None, None, None)
