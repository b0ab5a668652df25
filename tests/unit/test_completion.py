"""What a shell is offered at TAB, asked by bash itself with the script that `freezelab completion` prints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = f"""#!/bin/sh
exec {sys.executable} -c 'from lab.cli.entry import main; main()' "$@"
"""
ASK = """
eval "$(freezelab completion bash)"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_freezelab_completion freezelab
printf '%s\\n' "${COMPREPLY[@]}"
"""

Offers = Callable[..., list[str]]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A state folder with two kept guests and two runs, a cache with an image; `freezelab` on PATH."""
    for name in (
        "kept/web-0.json",
        "kept/db-0.json",
        "kept/.db-1.json.new",
        "runs/2-b/run.json",
        "runs/1-a/x",
    ):
        path = tmp_path / "home" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("no JSON: nothing reads it")
    (tmp_path / "cache/images/debian-0123456789ab").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/freezelab").write_text(COMMAND)
    (tmp_path / "bin/freezelab").chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "FREEZELAB_HOME": str(tmp_path / "home"),
        "FREEZELAB_CACHE": str(tmp_path / "cache"),
    }


@pytest.fixture
def offers(environment: dict[str, str], tmp_path: Path) -> Offers:
    def ask(*words: str) -> list[str]:
        done = subprocess.run(
            ["bash", "--norc", "-c", ASK, "bash", "freezelab", *words],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stderr == ""
        return done.stdout.split()

    return ask


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_bash_is_offered_what_is_there(offers: Offers, tmp_path: Path) -> None:
    (tmp_path / "first-mine.yaml").touch()
    assert offers("dri") == ["drift"]
    assert offers("run", "fi") == ["first-freeze", "first-mine.yaml"]
    assert offers("check", "chrony", "rol") == ["rollout"]
    assert offers("run", "--accel") == ["--accelerator"]
    assert offers("run", "--accelerator", "") == ["auto", "kvm", "tcg"]
    assert offers("down", "") == ["db-0", "web-0"]
    assert offers("drift", "w") == offers("ssh", "w") == offers("console", "w") == ["web-0"]
    assert offers("freeze", "") == ["db-0", "web-0"]
    ways = ["suspend", "sigstop", "host-sleep", "save-restore", "guest-sleep"]
    ways += ["snapshot", "snapshot-state"]
    assert offers("freeze", "--method", "") == ways
    assert {"agent", "push", "vmclock"} <= set(offers("freeze", "--resync", ""))
    assert offers("freeze", "--probe", "a") == ["auto", "agent"]
    assert offers("cp", "d") == ["db-0:"]
    assert offers("report", "") == ["2-b", "1-a"]
    assert offers("up", "--image", "") == [
        "debian",
        "debian-13",
        "debian-generic",
        "debian-testing",
        "labhost",
        "labhost-newer",
    ]
    alone = offers("up", "--resync", "")
    assert {"none", "chrony-phc"} <= set(alone)
    assert "agent" not in alone
    assert offers("image", "remove", "debian-") == ["debian-0123456789ab"]
    assert offers("completion", "") == ["bash", "zsh", "fish"]
    assert "test" not in offers("")


def test_nothing_is_made_for_an_answer(offers: Offers, environment: dict[str, str], tmp_path: Path) -> None:
    environment["FREEZELAB_HOME"] = str(tmp_path / "new")
    assert offers("down", "") == []
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(environment: dict[str, str], shell: str) -> None:
    command = ["freezelab", "completion", shell]
    script = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert f"complete_{shell}" in script.stdout
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=script.stdout, text=True, check=True, timeout=20)


def test_fish_and_zsh_are_answered_in_their_own_form(environment: dict[str, str]) -> None:
    def answer(**more: str) -> str:
        asked = {**environment, **more}
        return subprocess.run(
            ["freezelab"], env=asked, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    fish = answer(
        _FREEZELAB_COMPLETE="complete_fish",
        _TYPER_COMPLETE_FISH_ACTION="get-args",
        _TYPER_COMPLETE_ARGS="freezelab down ",
    )
    assert fish.split() == ["db-0", "web-0"]
    zsh = answer(_FREEZELAB_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="freezelab down w")
    assert "web-0" in zsh
    assert "db-0" not in zsh


def test_another_shell_is_a_usage_error(environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["freezelab", "completion", "tcsh"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == "freezelab: there is no completion for 'tcsh'\nknown: bash, zsh, fish\n"
