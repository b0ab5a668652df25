"""The project as `pipx install` leaves it: a wheel, in a virtual environment outside the clone."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class InstalledWheel:
    """The wheel of a tree (this one), built into `folder`/wheel and installed into `folder`/venv. What the
    project depends on is the present environment's: neither step needs a network."""

    def __init__(self, folder: Path, tree: Path = ROOT) -> None:
        if importlib.util.find_spec("pip") is None:
            pytest.skip("there is no pip to build and install a wheel with")  # as in a lab host
        self.elsewhere, self.prefix = folder / "elsewhere", folder / "venv"
        self.elsewhere.mkdir()
        options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
        wheels = folder / "wheel"
        self._do(sys.executable, "-m", "pip", "wheel", *options, "--no-build-isolation", "-w", wheels, tree)
        [self.wheel] = wheels.glob("freezelab-*.whl")
        self._do(sys.executable, "-m", "venv", "--without-pip", self.prefix)
        self.python = self.prefix / "bin/python"
        self._do(sys.executable, "-m", "pip", "--python", self.python, "install", *options, self.wheel)
        [packages] = self.prefix.glob("lib/python*/site-packages")
        self.site_packages = packages
        (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")

    def freezelab(
        self, *arguments: str, environment: dict[str, str] | None = None, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run the installed command, in a folder that is not the clone."""
        return self._run([self.prefix / "bin/freezelab", *arguments], timeout_s, environment or {})

    def evaluate(self, source: str) -> str:
        """What a program prints in the wheel's environment."""
        done = self._run([self.python, "-c", source], 60, {})
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _run(
        self, argv: list[str | Path], timeout_s: float, environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return subprocess.run(
            argv,
            env={**plain, **environment},
            cwd=self.elsewhere,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def _do(self, *argv: str | Path) -> None:
        done = self._run(list(argv), 120, {})
        assert done.returncode == 0, done.stdout + done.stderr
