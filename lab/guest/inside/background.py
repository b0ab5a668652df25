"""How a program goes on without the shell that started it: a part of those that are asked later."""

import os
import signal

from lab.guest.inside.host_streams import drop_streams


def enter_background() -> int:
    """Go on as a child in a session of its own, which no hang-up ends. The parent waits until its end of the
    pipe that is returned is closed: when the child has answered (leave_parent), or has ended."""
    wait, release = os.pipe()
    if os.fork():
        os.close(release)
        os.read(wait, 1)
        os._exit(0)
    os.close(wait)
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return release


def leave_parent(release: int) -> None:
    """The host has its answer: let the parent, and so the shell's command, end."""
    drop_streams()
    os.close(release)
