"""What holds for all tests."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """SIGINT works. Who is started by a shell in its background ignores it, and so do all that it starts
    (POSIX, 2.11 Signals and Error Handling)."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
