"""Baselines on disk: which runs a playbook's nights are compared with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.errors import MachineError, RecordError
from lab.record.baselines import BASELINES, baseline_runs, read_baselines, write_baselines
from tests.mounts import need_namespaces

ROOT = Path(__file__).parents[2]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    assert read_baselines(tmp_path / "no folder") == {}
    given = {"first-freeze": ("a", "b"), "мой \u202e плейбук": ("c",)}
    write_baselines(tmp_path / "new", given)
    assert read_baselines(tmp_path / "new") == given
    assert baseline_runs(tmp_path / "new") == {"a", "b", "c"}
    assert [path.name for path in (tmp_path / "new").iterdir()] == [BASELINES]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"a": []}', '{"a": "b"}', '{"a": [1]}', '{"a": {}}', "[" * 100_000],
    ids=lambda text: text[:8],
)
def test_a_damaged_file_is_told_of_with_its_name(tmp_path: Path, text: str) -> None:
    (tmp_path / BASELINES).write_text(text)
    with pytest.raises(RecordError) as caught:
        read_baselines(tmp_path)
    assert caught.value.where == str(tmp_path / BASELINES) and caught.value.hint.startswith("remove")


FULL = """
from pathlib import Path
from lab.errors import MachineError
from lab.record.baselines import read_baselines, write_baselines
folder = Path("small")
write_baselines(folder, {"a": ("one",)})
try:
    write_baselines(folder, {f"playbook {number}": ("x" * 200,) for number in range(9000)})
except MachineError as error:
    print(error)
print(read_baselines(folder), sorted(path.name for path in folder.iterdir()))
"""


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    need_namespaces()
    (tmp_path / "small").mkdir()
    inside = 'mount -t tmpfs -o size=256k small small && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", inside, sys.executable, FULL],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    why, rest = done.stdout.splitlines()
    assert why == f"small/{BASELINES}: cannot be written: No space left on device"
    assert rest == f"{{'a': ('one',)}} ['{BASELINES}']"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="cannot be written: Not a directory"):
        write_baselines(tmp_path / "file" / "home", {"a": ("one",)})
