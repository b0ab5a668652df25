"""Clients from npm and PyPI, installed below the user's cache folder by npm and pip themselves. The first
time they are downloaded (npm 4 MB, pip 0.3 MB), afterwards they are just there.

    <cache>/clients/<name>-<version>/
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from lab.errors import MachineError
from lab.image.store import default_cache
from tests.host.clients.packages import place

NPM = ("gcp-metadata", "8.1.4")
PYPI = ("ec2-metadata", "3.0.0")
INSTALL_S = 120


def gcp_metadata() -> Path:
    """The npm package's module. MachineError when it cannot be had."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        raise MachineError("node and npm are not installed")
    name, version = NPM
    flags = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    folder = _installed(*NPM, lambda made: ["npm", "install", *flags, "--prefix", made, f"{name}@{version}"])
    return folder / "node_modules" / name / "build/src/index.js"


def ec2_metadata() -> Path:
    """The folder of the PyPI package and what it needs. MachineError when it cannot be had."""
    name, version = PYPI
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return _installed(*PYPI, lambda made: [*pip, "--target", made, f"{name}=={version}"])


def _installed(name: str, version: str, command: Callable[[str], list[str]]) -> Path:
    shelf = default_cache() / "clients"
    final = shelf / f"{name}-{version}"
    if final.is_dir():
        return final
    shelf.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=shelf) as work:
        made = Path(work) / "made"
        done = subprocess.run(
            command(str(made)), capture_output=True, text=True, timeout=INSTALL_S, check=False
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise MachineError(f"{name} cannot be installed: {last}")
        place(made, final)
    return final
