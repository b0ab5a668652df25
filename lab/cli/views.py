"""Which view a person gets: live on a terminal, lines elsewhere, none when asked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lab.core.plan import Plan
from lab.host.clocks import HostClock
from lab.image.build import Progress
from lab.ports import View


class _Plain:
    def phase(self, name: str, *, guest: str = "", length_ns: int | None = None) -> None:
        print("phase", name, guest, length_ns, file=sys.stderr)

    def note(self, text: str) -> None:
        print(text, file=sys.stderr)

    def frozen(self, since_raw_ns: int, budget_ns: int) -> None:
        print("frozen", file=sys.stderr)

    def resumed(self) -> None:
        print("resumed", file=sys.stderr)


@contextmanager
def view_for(plan: Plan, *, quiet: bool) -> Iterator[tuple[View, Progress]]:
    yield _Plain(), lambda s, f: print(s, f, file=sys.stderr)
