"""A guest on a bridge, in a network namespace of the test's own, handed over under load: TCP connections,
memory and disk writes go on, and nothing piles up. FREEZELAB_HANDOVERS=50 does it more often, and -s shows
what was seen."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.conftest import Cli, remove_home
from tests.mounts import need_namespaces

COUNT = int(os.environ.get("FREEZELAB_HANDOVERS", "5"))
ROOT = Path(__file__).parents[3]


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace with a bridge br0, 10.77.0.1/24."""
    if os.geteuid() != 0 or shutil.which("ip") is None or not Path("/dev/net/tun").exists():
        pytest.skip("needs root, ip and /dev/net/tun")
    need_namespaces()  # ip -n mounts a /sys of its own
    name = f"fl-{os.getpid()}"
    _ip("netns", "add", name)
    try:
        for words in (
            ("link", "set", "lo", "up"),
            ("link", "add", "br0", "type", "bridge"),
            ("addr", "add", "10.77.0.1/24", "dev", "br0"),
            ("link", "set", "br0", "up"),
        ):
            _ip("-n", name, *words)
        yield name
    finally:
        _ip("netns", "delete", name)


@pytest.fixture
def there() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="fl-"))
    yield path
    for process in Cli(path).qemu():
        process.kill()
    remove_home(path)


@pytest.mark.timeout(300 + 20 * COUNT)
def test_handed_over_again_and_again_under_load(namespace: str, there: Path) -> None:
    done = subprocess.run(
        [
            "ip",
            "netns",
            "exec",
            namespace,
            sys.executable,
            "-m",
            "tests.guest.runs.under_load",
            str(there),
            str(COUNT),
        ],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    sys.stdout.write(f"{seen}\n")
    assert seen["called_off"] == []
    assert len(seen["pauses_ns"]) == COUNT
    assert seen["same_boot"]
    assert seen["echo_failed"] == ""
    assert seen["echoed"] > COUNT
    assert seen["reconnects"] == 0
    assert seen["written"].endswith(" 0 bad")
    assert seen["memory_ok"]
    assert seen["domains"] == 1
    assert seen["before"] == seen["after"]
    assert not Cli(there).qemu()
