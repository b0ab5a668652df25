"""Network namespaces of the tests' own, in which 169.254.169.254 is a loopback address. The host's network is
not touched."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import psutil

SERVICE = "169.254.169.254"
STOP_S = 20
PREFIX = "fl-client-"
"""Of names; the process that made it follows, so that what a killed one has left can be told."""


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=20).stdout


@dataclass(frozen=True)
class Namespace:
    """name: as ip netns knows it."""

    name: str

    def argv(self, argv: Sequence[str], *, host: str = "") -> list[str]:
        """The program inside, on a machine of this host name if one is given. It dies with who starts it."""
        named = ["unshare", "--uts", "sh", "-c", 'echo "$0" >/proc/sys/kernel/hostname && exec "$@"', host]
        inside = [*(named if host else ()), "setpriv", "--pdeathsig", "KILL", *argv]
        return ["ip", "netns", "exec", self.name, *inside]

    def run(
        self, *argv: str, host: str = "", env: Mapping[str, str] | None = None, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(argv, host=host),
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def processes(self) -> list[int]:
        return [int(pid) for pid in ip("netns", "pids", self.name).split()]


@contextlib.contextmanager
def namespace() -> Iterator[Namespace]:
    """With loopback up. Nothing that was started inside outlives it."""
    made = Namespace(f"{PREFIX}{os.getpid()}-{secrets.token_hex(2)}")
    ip("netns", "add", made.name)
    try:
        ip("-n", made.name, "link", "set", "lo", "up")
        ip("-n", made.name, "address", "add", f"{SERVICE}/32", "dev", "lo")
        yield made
    finally:
        _end(made)
        ip("netns", "delete", made.name)


def sweep() -> None:
    """Remove what test runs have left that were killed; their programs went with them."""
    for line in ip("netns", "list").splitlines():
        name = line.split()[0]
        maker = name.removeprefix(PREFIX).partition("-")[0]
        if name.startswith(PREFIX) and not psutil.pid_exists(int(maker)):
            ip("netns", "delete", name)


def _end(inside: Namespace) -> None:
    """Whatever still is in a namespace that only this test can have put it into."""
    deadline = time.monotonic() + 10
    while (left := inside.processes()) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


@contextlib.contextmanager
def running(argv: Sequence[str], **settings: object) -> Iterator[subprocess.Popen[str]]:
    """A program for as long as the block lasts; then it is asked to end, and made to. AssertionError when it
    had to be."""
    process = subprocess.Popen(argv, text=True, start_new_session=True, **settings)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)
            raise AssertionError(f"not ended {STOP_S} s after SIGTERM: {' '.join(argv)}") from None
        finally:
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
