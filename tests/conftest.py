"""What the machine has once only, one worker uses: everything with guests, libvirt and host programs, in the
order in which it is collected. The other worker has the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

MACHINE = ("driver", "guest", "host")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).parts[0] in MACHINE:
            item.add_marker(pytest.mark.xdist_group("machine"))
