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


def test_programs_for_guests_need_no_more_than_python_3_6(tools: Tools) -> None:
    tools.check(["vermin", "--target=3.6-", "--no-tips", "--violations", "lab/guest/inside"])


def test_imports_point_inwards(tools: Tools) -> None:
    tools.check(["lint-imports", "--no-cache"])


def test_codespell(tools: Tools) -> None:
    tools.check(["codespell", "--toml", "pyproject.toml", "."])


def shell_of(path: Path) -> str | None:
    """The dialect a file is written in; None when it is no shell script."""
    with path.open("rb") as file:
        shebang = re.match(rb"#!\s*\S*/(?:env |busybox )?(ba|da)?sh\b", file.readline())
    if shebang:
        return (shebang[1] or b"").decode() + "sh"
    # What is sourced, or handed to sh by name, has no first line of its own.
    return "sh" if path.suffix == ".sh" else None


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_shellcheck(tools: Tools, own_files: list[Path], shell: str) -> None:
    scripts = [path.relative_to(ROOT) for path in own_files if shell_of(path) == shell]
    assert scripts, "the launcher is written in sh and .ci/run in bash"
    # SC1091: files that are sourced inside a guest are not here to be read.
    tools.check(["shellcheck", f"--shell={shell}", "--exclude=SC1091", *scripts])


@pytest.mark.skipif(not shutil.which("vagrant"), reason="vagrant is not installed")
def test_vagrantfile(tools: Tools) -> None:
    tools.check(["vagrant", "validate"])
