"""One test for each linter; its output is the failure."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.lint.conftest import ROOT, Tools


def test_ruff_check(tools: Tools) -> None:
    tools.check(["ruff", "check", "--no-fix", "."])


def test_ruff_format(tools: Tools) -> None:
    tools.check(["ruff", "format", "--check", "--diff", "."])


def test_mypy(tools: Tools) -> None:
    tools.check(["mypy", "--strict", "lab", "tests"])


def test_imports_point_inwards(tools: Tools) -> None:
    tools.check(["lint-imports", "--no-cache"])


def test_codespell(tools: Tools) -> None:
    tools.check(["codespell", "--toml", "pyproject.toml", "."])


def test_shellcheck(tools: Tools, own_files: list[Path]) -> None:
    scripts = [
        path
        for path in own_files
        if path.suffix == ".sh" or re.match(rb"#!\s*/\S*[ /](ba|da)?sh\b", path.read_bytes()[:40])
    ]
    assert ROOT / "freezelab" in scripts
    tools.check(["shellcheck", *scripts])


@pytest.mark.skipif(not shutil.which("vagrant"), reason="vagrant is not installed")
def test_vagrantfile(tools: Tools) -> None:
    tools.check(["vagrant", "validate"])
