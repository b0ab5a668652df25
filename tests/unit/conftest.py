"""What holds for the unit tests."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
import pytest

from lab.errors import MachineError
from lab.host import chronyd


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
