"""Work that is mostly waiting for guests, done for several of them at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from typing import TypeVar

from lab.errors import Interrupted
from lab.session.signals import shield

AT_ONCE = (os.cpu_count() or 1) + 1
"""Guests share the host's CPUs: more of them at once only keep each other waiting."""

Item = TypeVar("Item")
Made = TypeVar("Made")


def nothing() -> None:
    """There is nothing that those at work could be waiting for."""


def together(
    items: Sequence[Item], do: Callable[[Item], Made], call_off: Callable[[], None] = nothing
) -> list[Made]:
    """What comes of each, in their order. The first one's error is raised when none is at work any more.

    call_off: called when this is interrupted: it has those at work come to an end."""
    pool = ThreadPoolExecutor(min(AT_ONCE, len(items)) or 1)
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
    """Enter all of them; those that were entered are left together as well, when `stack` is. Raises as
    together() does."""
    entered: list[AbstractContextManager[object]] = []

    def enter(context: AbstractContextManager[object]) -> None:
        context.__enter__()
        entered.append(context)

    stack.callback(lambda: together(entered, lambda context: context.__exit__(None, None, None)))
    together(contexts, enter, call_off)
