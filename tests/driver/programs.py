"""Programs with libvirt's embedded driver open: it stays in a process, with its first root, until the process
ends, so each test has a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]


def source_of(home: Path, body: str, before: str = "") -> str:
    """A program that runs `body` with `lab` open on `home`, after `before`."""
    head = f"""
import dataclasses, sys
from pathlib import Path
from lab.errors import HypervisorError
from lab.process.clock import HostClock
from lab.hypervisor.connection import connect
home = Path({str(home)!r})
{textwrap.dedent(before)}
with connect(None, home, clock=HostClock()) as lab:
"""
    return head + textwrap.indent(textwrap.dedent(body).strip("\n"), "    ")


def embedded(home: Path, body: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """What came of that program."""
    return subprocess.run(
        [sys.executable, "-c", source_of(home, body, before)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
