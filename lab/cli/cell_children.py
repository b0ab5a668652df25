"""The process from which a host's cells are forked: it has imported what `freezelab run` needs
(lab.hosts.cell_server)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from lab.cli.entry import main as freezelab

_IMPORTED = (
    "lab.cli.main", "lab.cli.live_outputs", "lab.cli.views", "lab.core.announcement", "lab.playbook",
    "lab.report.terminal", "lab.session.run",
)  # fmt: skip
"""What a run imports in any case. What is missing here each child imports for itself."""


def main() -> NoReturn:
    """Serve until standard input ends."""
    from lab.guest import identity
    from lab.hosts.cell_server import serve
    from lab.hypervisor import domain
    from lab.record import events

    for module in _IMPORTED:
        import_module(module)
    identity.source()
    domain.prepare()
    events.prepare()
    serve(_run)


def _run(words: Sequence[str]) -> None:
    sys.argv = ["freezelab", *words]
    freezelab()
