"""What the watcher does now and then: a part of it."""

from lab.guest.inside.clocks import RAW, REAL, gettime


def look() -> "tuple[int, int, int, int]":
    """MONOTONIC_RAW before and after a look at REALTIME; REALTIME less MONOTONIC_RAW, least and most."""
    one, real, two = gettime(RAW), gettime(REAL), gettime(RAW)
    return one, two, real - two, real - one


class Asker:
    """Asks something now and then, and never waits for an answer.

    next: MONOTONIC_RAW, when it wants to act. files: descriptors from which it wants to read."""

    def __init__(self, now: int) -> None:
        self.next = now
        self.files = []  # type: list[int]

    def act(self, now: int) -> None:
        """`next` has come, and has to be set anew."""
        raise NotImplementedError

    def ready(self) -> None:
        """There is something to read from one of `files`."""

    def close(self) -> None:
        """End what it has started."""
