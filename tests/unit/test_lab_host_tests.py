"""freezelab's tests in a lab host, with this machine in its place and real files of tests."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from lab.errors import Interrupted, MachineError
from lab.session import lab_host_code
from lab.session.lab_host_shell import LabHostShell
from lab.session.lab_host_tests import FileOutcome, FileTested, LabHostTests, exit_code, files_of
from lab.session.paths import CLONE
from tests.unit.here_shell import HereShell

PASSED, FAILED, SKIPPED, NOT_RUN = FileOutcome
FILES = {
    "good": "def test_it(): pass",
    "bad": "def test_it(): assert 1 == 2",
    "none": "",
    "once": "from pathlib import Path\ndef test_it():\n    there = Path('../once').exists()\n"
    "    Path('../once').touch()\n    assert there\ndef test_other(): pass",
    "skipped": "import pytest\ndef test_it(): pytest.skip('no KVM')",
    "ill": "from pathlib import Path\ndef test_it():\n    there = Path('../ill').exists()\n"
    "    Path('../ill').touch()\n    assert there, 'the first time'",
    "worse": "from pathlib import Path\ndef test_it():\n    Path('../worse').touch()\n    assert 0",
}


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with these files, and the lab that pytest needs there."""
    root = tmp_path / "clone"
    (root / "tests/guest/runs").mkdir(parents=True)
    for name, text in FILES.items():
        (root / f"tests/guest/test_{name}.py").write_text(text)
    (root / "tests/guest/runs/test_last.py").write_text("def test_it(): pass" + "\n" * 1000)
    for name in ("srv/freezelab", "run", "bin"):
        (tmp_path / name).mkdir(parents=True)
    python = tmp_path / "bin/python3"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # freezelab's would be there twice
    monkeypatch.setattr(lab_host_code, "CLONE", root)
    there = lab_host_code.WITH_CODE.replace(lab_host_code.PACKAGES, str(CLONE))
    monkeypatch.setattr("lab.session.lab_host_tests.WITH_CODE", there)
    return root


def test_files_are_run_one_by_one_and_a_lab_host_that_fails_is_started_again(
    clone: Path, tmp_path: Path
) -> None:
    """The lab host is ill when a test has left a sign of it."""
    said, starts = list[str](), list[int]()

    def ill(_shell: LabHostShell) -> str:
        found = [name for name in ("ill", "worse") if (tmp_path / "srv/freezelab" / name).exists()]
        return "no kernel boots" if found and len(starts) < 3 else ""

    def start() -> HereShell:
        starts.append(1)
        (tmp_path / "srv/freezelab/worse").unlink(missing_ok=True)
        return HereShell(tmp_path)

    files = [
        f"tests/guest/test_{name}.py" for name in ("good", "bad", "once", "none", "skipped", "ill", "worse")
    ]
    tests = LabHostTests(HereShell(tmp_path), start, said.append, ill)
    tested = list(tests.run(files, ["-q"]))
    assert [one.outcome for one in tested] == [
        PASSED,
        FAILED,
        PASSED,
        SKIPPED,
        SKIPPED,
        PASSED,
        NOT_RUN,
    ], "\n".join(said)
    assert [one.name for one in tested] == files
    assert "1 passed" in tested[0].why
    assert "1 failed" in tested[1].why
    assert re.search(r"1 failed, 1 passed.*; what had failed, once more: 1 passed", tested[2].why)
    assert "1 skipped" in tested[4].why
    assert tested[6].why == "the lab host failed twice: no kernel boots"
    assert len(starts) == 3
    assert "assert 1 == 2" in "\n".join(said)
    assert exit_code(tested) == 1
    assert exit_code(tested[3:]) == 4
    assert exit_code(tested[3:5]) == 4
    assert exit_code(tested[2:6]) == 0


def test_without_a_lab_host_the_other_files_are_not_run(clone: Path, tmp_path: Path) -> None:
    del clone

    def start() -> HereShell:
        raise MachineError("QEMU does not start", where="lab host", hint="h")

    tests = LabHostTests(HereShell(tmp_path), start, lambda _line: None, lambda _shell: "it does not answer")
    tested = list(
        tests.run(["tests/guest/test_good.py", "tests/guest/test_bad.py", "tests/guest/test_none.py"], [])
    )
    assert [one.outcome for one in tested] == [PASSED, NOT_RUN, NOT_RUN]
    assert {one.why for one in tested[1:]} == {"no lab host: lab host: QEMU does not start"}


def test_what_has_failed_and_cannot_be_found_again_has_failed(clone: Path, tmp_path: Path) -> None:
    """As when pytest cannot note what has failed."""
    del clone
    tests = LabHostTests(HereShell(tmp_path), lambda: HereShell(tmp_path), lambda _line: None, lambda _: "")
    (tested,) = tests.run(["tests/guest/test_once.py"], ["-q", "-o", "cache_dir=/proc/none"])
    assert tested.outcome is FAILED, tested.why


def test_what_is_known_at_an_interrupt_is_kept(clone: Path, tmp_path: Path) -> None:
    del clone

    def ill(_shell: LabHostShell) -> str:
        raise Interrupted("interrupted by SIGINT")

    tests = LabHostTests(HereShell(tmp_path), lambda: HereShell(tmp_path), lambda _line: None, ill)
    tested: list[FileTested] = []
    with pytest.raises(Interrupted):
        tested.extend(tests.run([f"tests/guest/test_{name}.py" for name in ("good", "bad", "none")], ["-q"]))
    assert [(one.name, one.outcome) for one in tested] == [("tests/guest/test_good.py", PASSED)]


def test_the_smallest_file_of_a_folder_is_first(clone: Path) -> None:
    everything, options = files_of(["-k", "it"], clone)
    assert everything[0] == "tests/guest/test_none.py"
    assert everything[-1] == "tests/guest/runs/test_last.py"
    assert (len(everything), options) == (8, ["-k", "it"])
    assert files_of(["tests/guest/test_bad.py::test_it", "-x", "tests/guest/runs"], clone) == (
        ["tests/guest/test_bad.py::test_it", "tests/guest/runs/test_last.py"],
        ["-x"],
    )
