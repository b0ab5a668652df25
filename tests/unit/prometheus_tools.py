"""Debian's Prometheus and node_exporter, downloaded and unpacked for tests, installed nowhere.

They are kept in .pytest_cache, so that they are downloaded once. Without apt or its archive, tests that need
them are skipped with the reason.
"""

from __future__ import annotations

import functools
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PACKAGES = ("prometheus", "prometheus-node-exporter")
CACHE = Path(__file__).parents[2] / ".pytest_cache" / "prometheus"


@functools.cache
def _unpacked() -> tuple[Path, str]:
    """The folder that they are unpacked in, and why there is none."""
    done = CACHE / "usr/bin/promtool"
    if done.exists():
        return CACHE, ""
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        return CACHE, "no apt-get and dpkg here"
    making = CACHE.with_name(CACHE.name + ".new")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    got = subprocess.run(
        ["apt-get", "-q", "download", *PACKAGES],
        cwd=making, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    if got.returncode:
        return CACHE, (got.stderr.strip().splitlines() or ["apt-get failed"])[-1]
    for archive in making.glob("*.deb"):
        subprocess.run(["dpkg", "-x", archive, making], check=True, timeout=120)
        archive.unlink()
    shutil.rmtree(CACHE, ignore_errors=True)
    making.rename(CACHE)
    return CACHE, ""


def program(name: str) -> Path:
    """The program of this name: promtool, prometheus, prometheus-node-exporter. Skips where it cannot be
    had."""
    folder, why = _unpacked()
    if why:
        pytest.skip(f"Debian's prometheus cannot be downloaded: {why}")
    return folder / "usr/bin" / name


def lint(metrics: bytes) -> str:
    """What `promtool check metrics` has to say of them; "" when nothing."""
    argv = [str(program("promtool")), "check", "metrics"]
    done = subprocess.run(argv, input=metrics, capture_output=True, check=False, timeout=60)
    text = (done.stdout + done.stderr).decode().strip()
    return text or (f"promtool ended with {done.returncode}" if done.returncode else "")


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetched(url: str, accept: str = "") -> tuple[str, str]:
    """The body and the content type of the answer. Loopback only, past any proxy."""
    request = urllib.request.Request(url, headers={"Accept": accept} if accept else {})  # noqa: S310
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=20) as answer:
        return answer.read().decode(), str(answer.headers["Content-Type"])


@contextmanager
def running(argv: list[str | Path], url: str, folder: Path) -> Iterator[None]:
    """The program, until the context is left, once `url` answers."""
    with (folder / f"{Path(argv[0]).name}.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 60
        while True:
            try:
                fetched(url)
                break
            except OSError:
                assert process.poll() is None, Path(log.name).read_text()
                assert time.monotonic() < until, Path(log.name).read_text()
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(20)
