"""Runs work that is mostly waiting, for several guests at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from typing import TypeVar

from lab.errors import Interrupted
from lab.process.signals import shield

AT_ONCE = (os.cpu_count() or 1) + 1
"""The most guests at once: they share the host's CPUs, and more would only delay each other."""

Item = TypeVar("Item")
Made = TypeVar("Made")


def nothing() -> None:
    """The default of call_off: nothing to interrupt."""


def together(
    items: Sequence[Item],
    do: Callable[[Item], Made],
    call_off: Callable[[], None] = nothing,
    at_once: int = AT_ONCE,
) -> list[Made]:
    """The result for each item, in their order. The first error is raised when all threads have ended.

    call_off: called when this is interrupted; it makes the running work end."""
    pool = ThreadPoolExecutor(min(at_once, len(items)) or 1)
    try:
        return [begun.result() for begun in [pool.submit(do, item) for item in items]]
    except Interrupted:
        call_off()
        raise
    finally:
        with shield():
            pool.shutdown(cancel_futures=True)


def enter_together(
    stack: ExitStack,
    contexts: Sequence[AbstractContextManager[object]],
    call_off: Callable[[], None] = nothing,
) -> None:
    """Enter all contexts in parallel; those that were entered are left in parallel as well, with `stack`.
    Raises as together() does."""
    entered: list[AbstractContextManager[object]] = []

    def enter(context: AbstractContextManager[object]) -> None:
        context.__enter__()
        entered.append(context)

    stack.callback(lambda: together(entered, lambda context: context.__exit__(None, None, None)))
    together(contexts, enter, call_off)
