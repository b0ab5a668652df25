"""What holds for all tests."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

# By itself pytest explains the failed assertions of test modules only, and helpers have some too.
pytest.register_assert_rewrite("tests.unit")


def pytest_configure(config: pytest.Config) -> None:
    """No case of hypothesis's has a deadline: the machine may be busy with guests. SIGINT works. Who is
    started by a shell in its background ignores it, and so do all that it starts (POSIX, 2.11 Signals and
    Error Handling). The terminal is one that can do nothing: who needs another says so. On
    GitHub and GitLab, too, commands print no workflow commands and write no report, but where that is tested.
    Where tests are only collected, syrupy takes all snapshots for unused, and fails."""
    os.environ["TERM"] = "dumb"
    os.environ.pop("GITHUB_ACTIONS", None)
    os.environ.pop("GITLAB_CI", None)
    settings.register_profile("lab", deadline=None)
    settings.load_profile("lab")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.collectonly:
        config.option.warn_unused_snapshots = True
