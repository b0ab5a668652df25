"""What holds for the unit tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import platformdirs
import pytest

from lab.errors import MachineError
from lab.host import chronyd
from lab.record.journal import read_history
from lab.record.run import Run, judge
from tests.unit import fleets, histories


@pytest.fixture(scope="session")
def chronyd_program() -> Path:
    """chronyd as the lab itself finds it; what CI declares must be there."""
    state = Path(os.environ.get("FREEZELAB_HOME") or platformdirs.user_state_path("freezelab"))
    try:
        return chronyd.find(state)
    except MachineError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


def judged(makers: Mapping[str, Callable[[Path], Path]], folder: Path) -> dict[str, Run]:
    return {name: judge(read_history(make(folder)))[0] for name, make in makers.items()}


@pytest.fixture(scope="session")
def matrix_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The runs of tests.unit.histories, judged."""
    return judged(histories.ALL, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def fleet_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The runs of tests.unit.fleets, judged."""
    return judged(fleets.ALL, tmp_path_factory.mktemp("runs"))
