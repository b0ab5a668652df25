"""The tests leave nothing behind, whatever happens in them."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.host.clients.namespaces import Namespace, namespace


def lives(pid: int) -> bool:
    """Not one that has ended and that nobody has taken note of."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_failing_test_leaves_nothing(able: None) -> None:
    left: list[Namespace] = []
    pids: list[int] = []

    def fail() -> None:
        with namespace() as made:
            left.append(made)
            made.run("sh", "-c", "setsid sleep 600 >/dev/null 2>&1 &")
            pids.extend(made.processes())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert pids
    assert not any(lives(pid) for pid in pids)
    assert not Path("/run/netns", left[0].name).exists()
