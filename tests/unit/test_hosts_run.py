"""Runs over hosts: a real Dask scheduler and real workers on the loopback, with cell_stand_in.py in place of
`freezelab run --cell` on each."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from cryptography import x509
from typer.testing import CliRunner, Result

from lab.cli.main import app
from lab.errors import UsageError
from lab.hosts import cell_server, cell_task
from lab.hosts.cluster import check_address
from lab.hosts.machines import same
from lab.hosts.ssh_cluster import made_certificate
from lab.playbook import load
from tests.unit.cell_stand_in import playbook
from tests.unit.cell_worker import WAIT_S, LoopbackCluster, loopback_cluster

THREE = "128MiB, 192MiB, 256MiB"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackCluster]:
    """A cluster of two machines, with TLS, which no test harms."""
    with loopback_cluster(tmp_path_factory.mktemp("two"), ["rack-1", "rack-2"], tls=True) as cluster:
        yield cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LoopbackCluster]:
    """A cluster of a test's own, without workers."""
    (tmp_path / "machines").mkdir()
    with loopback_cluster(tmp_path / "machines") as made:
        yield made


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FREEZELAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(cluster: LoopbackCluster, file: Path, *options: str) -> Result:
    with dask.config.set(cluster.settings):
        return CliRunner().invoke(app, ["run", str(file), "--hosts", cluster.address, *options])


def failure(done: Result) -> str:
    """What it ended with on stderr."""
    return done.stderr[done.stderr.index("freezelab: ") :]


def record(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


def reasons(run: dict[str, Any]) -> dict[str, str]:
    """Why cells were not run, by the cell."""
    found = [one for one in run["findings"] if one["cell"] and one["outcome"] == "inconclusive"]
    return {one["cell"]: one["why"] for one in found}


def until(happened: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def begun(cluster: LoopbackCluster, book: Path) -> subprocess.Popen[str]:
    """A run in a process of its own."""
    command = [sys.executable, "-m", "lab.cli.main", "run", str(book), "--hosts", cluster.address, "--json"]
    env = {**os.environ, **cluster.env}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextmanager
def hanging(cluster: LoopbackCluster, name: str = "rack-1") -> Iterator[int]:
    """The process of the cell that hangs on a host."""
    path = cluster.home(name) / "hangs"
    until(lambda: path.exists() and path.read_text())
    yield int(path.read_text())
    path.unlink()


def test_cells_go_to_all_hosts_and_one_record_comes_back(
    two: LoopbackCluster, home: Path, tmp_path: Path
) -> None:
    began = time.time()
    done = run(two, playbook(tmp_path / "book", THREE), "--json", "--repeat", "2")
    assert done.exit_code == 0, done.output
    found = record(done.stdout)
    # By this machine's clock. What stands in for cells has another.
    times = [datetime.fromisoformat(found[at]).timestamp() for at in ("started", "ended")]
    assert began - 0.001 <= times[0] < times[1] <= time.time()
    assert [(cell["id"], cell["outcome"]) for cell in found["cells"]] == [
        (size, "passed") for size in THREE.split(", ")
    ]
    assert len(found["findings"]) > 0 and [len(guest["cycles"]) for guest in found["guests"]] == [2] * 3
    parts = found["parts"]
    assert {part["host"]["details"]["host"] for part in parts} == {"rack-1", "rack-2"}
    assert [len(part["cells"]) for part in parts] == [1] * 3
    assert all(part["complete"] for part in parts)
    # Slopes are of one host each.
    assert all("machine" in one["of"] for one in found["comparisons"])
    # The parts are kept with the record, and nothing is left on the hosts.
    (folder,) = (home / "runs").iterdir()
    assert folder.name == found["id"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(list((folder / "parts").iterdir())) == 3
    assert not [*two.home("rack-1").glob("runs/*"), *two.home("rack-2").glob("runs/*")]
    again = CliRunner().invoke(app, ["report", folder.name, "--json"])
    assert record(again.stdout) == found
    shown = CliRunner().invoke(app, ["report", folder.name, "-v"]).stdout
    assert sorted(re.findall(r"(?m)^host +(rack-\d): (\d cells?) · ", shown)) in (
        [("rack-1", "2 cells"), ("rack-2", "1 cell")],
        [("rack-1", "1 cell"), ("rack-2", "2 cells")],
    )


def test_a_cell_that_fails_is_told_with_its_host_and_the_others_go_on(
    two: LoopbackCluster, tmp_path: Path
) -> None:
    (two.home("rack-1") / "lacking").write_text("192MiB 256MiB 320MiB")
    book = playbook(
        *(tmp_path / "book", "128MiB, 192MiB, 256MiB, 320MiB"),
        m192MiB="refuse", m256MiB="raise", m320MiB="die",
    )  # fmt: skip
    done = run(two, book, "--json")
    (two.home("rack-1") / "lacking").unlink()
    assert done.exit_code == 3, done.output
    assert "cell 192MiB: not on rack-1: no such emulator: /opt/qemu" in done.stderr
    found = record(done.stdout)
    assert [cell["outcome"] for cell in found["cells"]] == ["passed", *["inconclusive"] * 3]
    assert reasons(found) == {
        "192MiB": "not run: host rack-2: image debian: cannot be built; freezelab doctor",
        "256MiB": "not run: host rack-2: TypeError: unhashable",
        "320MiB": "not run: host rack-2: the run was cut off before its end",
    }
    hosts = {part["cells"][0]: part["host"]["details"]["host"] for part in found["parts"]}
    assert hosts == {"128MiB": "rack-1", **dict.fromkeys(("192MiB", "256MiB", "320MiB"), "rack-2")}


def test_a_run_goes_on_with_the_cells_that_an_earlier_one_lacks(
    two: LoopbackCluster, home: Path, tmp_path: Path
) -> None:
    book = playbook(tmp_path / "book", THREE, m192MiB="die once")
    begun = record(run(two, book, "--json").stdout)
    assert reasons(begun).keys() == {"192MiB"}
    done = run(two, book, "--json", "--resume", begun["id"])
    (two.folder / "died").unlink()
    assert done.exit_code == 0, done.output
    found = record(done.stdout)
    assert [cell["outcome"] for cell in found["cells"]] == ["passed"] * 3
    kept = {part["cells"][0]: part for part in begun["parts"]}
    for part in found["parts"]:
        (cell,) = part["cells"]
        assert (part == kept[cell]) == (cell != "192MiB")
        assert part["run"].startswith(found["id"] if cell == "192MiB" else begun["id"])
    assert len(list((home / "runs" / found["id"] / "parts").iterdir())) == 3
    assert record(CliRunner().invoke(app, ["report", found["id"], "--json"]).stdout) == found
    more = playbook(tmp_path / "more", f"{THREE}, 320MiB", m192MiB="die once")
    part = home / "runs" / begun["id"] / "parts" / kept["128MiB"]["run"]
    for words, says in [
        ([str(book), "--resume", found["id"]], f"{found['id']}: it lacks no cell"),
        ([str(book), "--resume", begun["id"], "--repeat", "2"], "or has other counts of cycles"),
        ([str(more), "--resume", begun["id"]], f"{begun['id']}: it is of another playbook"),
        ([str(book), "--resume", str(part)], "it is of another playbook"),
        (["--resume", begun["id"]], "--resume with --hosts needs the playbook as well"),
        ([str(book), "--resume", "no-such-run"], "no-such-run"),
    ]:
        refused = CliRunner().invoke(app, ["run", *words, "--hosts", two.address])
        assert refused.exit_code == 2, refused.output
        assert says in failure(refused)
        assert len(failure(refused).splitlines()) <= 2


def test_a_cell_that_no_host_can_run_is_refused(two: LoopbackCluster, home: Path, tmp_path: Path) -> None:
    for name in two.workers:
        (two.home(name) / "lacking").write_text("192MiB")
    done = run(two, playbook(tmp_path / "book", THREE))
    for name in two.workers:
        (two.home(name) / "lacking").unlink()
    assert done.exit_code == 4
    assert failure(done) == (
        "freezelab: cell 192MiB: no host can run it: rack-1: no such emulator: /opt/qemu\n"
    )
    assert not list((home / "runs").glob("*"))


def test_an_interrupt_has_the_cells_clean_up_and_record(two: LoopbackCluster, tmp_path: Path) -> None:
    controller = begun(two, playbook(tmp_path / "book", "128MiB", m128MiB="hang"))
    with hanging(two) as pid:
        controller.send_signal(signal.SIGINT)
        _, err = controller.communicate(timeout=WAIT_S)
        assert controller.returncode == 130, err
        assert err.endswith("freezelab: interrupted by SIGINT\n")
        assert not psutil.pid_exists(pid)
    (folder,) = (tmp_path / "home" / "runs").iterdir()
    found = record((folder / "run.json").read_text())
    assert found["interrupted"]
    assert [part["cells"] for part in found["parts"]] == [["128MiB"]]


def test_a_cell_that_begins_after_the_end_was_called_for_ends_too(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cell_server, "SERVER", (sys.executable, "-m", "tests.unit.cell_stand_in"))
    monkeypatch.setattr(cell_task, "_is_abandoned", lambda: False)  # there is no worker
    book = playbook(tmp_path / "book", "128MiB", m128MiB="hang")
    cell_task.pack(book.parent, ".", tmp_path / "book.tar.gz")
    cell_task.receive("r", (tmp_path / "book.tar.gz").read_bytes())
    cell_task.end("r")
    ended = cell_task.run_cells("r", "r-1", book.name, ["128MiB"], [])
    assert ended["status"] in (130, -signal.SIGTERM)
    cell_task.forget("r")
    assert not list((home / "runs").glob(".of-*"))


def test_a_controller_that_is_killed_leaves_no_cell(two: LoopbackCluster, tmp_path: Path) -> None:
    book = playbook(tmp_path / "book", "128MiB", m128MiB="hang")
    controller = begun(two, book)
    with hanging(two) as pid:
        controller.kill()
        controller.communicate(timeout=WAIT_S)
        until(lambda: not psutil.pid_exists(pid))


def test_a_host_that_is_lost_fails_its_cell_alone_and_a_lost_scheduler_all_that_are_left(
    cluster: LoopbackCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "3s")
    for name in ("rack-1", "rack-2"):
        cluster.add(name)
    book = playbook(tmp_path / "book", f"{THREE}, 320MiB", m128MiB="hang", m256MiB="hang")
    controller = begun(cluster, book)
    with hanging(cluster, "rack-1") as pid:
        cluster.workers["rack-1"].kill()
        until(lambda: not psutil.pid_exists(pid))  # it was told that its worker has gone
    with hanging(cluster, "rack-2") as pid:
        cluster.scheduler.kill()
        out, err = controller.communicate(timeout=WAIT_S)
        until(lambda: not psutil.pid_exists(pid))
    assert controller.returncode == 3, err
    found = record(out)
    assert reasons(found) == {
        "128MiB": "not run: host rack-1: it was lost while the cell ran",
        "256MiB": "not run: host rack-2: it was lost while the cell ran",
        "320MiB": "not run: no host that could run it is left",
    }
    assert [cell["outcome"] for cell in found["cells"]][1] == "passed"
    assert [part["host"]["details"].get("host") for part in found["parts"]] == [
        "rack-1", "rack-2", "rack-2", None
    ]  # fmt: skip


def test_what_is_no_cluster_of_distinct_hosts_is_refused_in_a_line_or_two(
    cluster: LoopbackCluster, tmp_path: Path
) -> None:
    book = playbook(tmp_path / "book", "128MiB, 192MiB")
    done = run(cluster, book)
    assert done.exit_code == 4
    assert failure(done).startswith(
        f"freezelab: {cluster.address}: it has no workers\nstart one on each host: "
    )
    cluster.add("rack-0", "--resources", "gpu=1")
    assert "none of its 1 workers has the resource lab\n" in run(cluster, book).stderr
    cluster.add("rack-1")
    cluster.add("rack-2", machine="rack-1")
    done = run(cluster, book)
    assert done.exit_code == 4
    assert failure(done).startswith(
        "freezelab: hosts rack-1, rack-2: are one machine: one kernel runs them\n"
    )
    assert len(failure(done).splitlines()) == 2


@pytest.mark.parametrize(
    ("hosts", "words", "code", "says"),
    [
        ("tcp://127.0.0.1:1", [], 4, "tcp://127.0.0.1:1: no scheduler answers there\n"),
        ("tcp://10.0.0.1:8786", [], 2, "tcp://10.0.0.1:8786: it is open: without TLS, whoever reaches it"),
        ("tcp://127.0.0.1", [], 2, "--hosts tcp://127.0.0.1: not a scheduler's address\n"),
        ("http://127.0.0.1:80", [], 2, "not a scheduler's address\n"),
        ("nothing.yaml", [], 2, "nothing.yaml: "),
        ("tcp://127.0.0.1:1", ["--shard", "1/2"], 2, "run: --shard cannot be used with --hosts"),
        (
            "tcp://127.0.0.1:1",
            ["--connect", "qemu:///session"],
            2,
            "run: --connect cannot be used with --hosts",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, hosts: str, words: list[str], code: int, says: str
) -> None:
    book = playbook(tmp_path / "book", "128MiB, 192MiB")
    done = CliRunner().invoke(app, ["run", str(book), "--hosts", hosts, *words])
    assert done.exit_code == code, done.output
    assert says in done.stderr
    assert len(failure(done).splitlines()) <= 2


def test_a_scheduler_with_certificates_of_its_own_is_not_reached_without(
    two: LoopbackCluster, tmp_path: Path
) -> None:
    book = playbook(tmp_path / "book", "128MiB, 192MiB")
    done = CliRunner().invoke(app, ["run", str(book), "--hosts", two.address])
    assert done.exit_code == 4, done.output
    assert failure(done).startswith(f"freezelab: {two.address}: no connection: ")
    assert failure(done).splitlines()[1].startswith("certificates: DASK_DISTRIBUTED__COMM__TLS__CA_FILE")


def test_a_playbook_without_cells_is_refused() -> None:
    done = CliRunner().invoke(app, ["run", "first-freeze", "--hosts", "tcp://127.0.0.1:1"])
    assert done.exit_code == 2
    assert (
        failure(done) == "freezelab: --hosts: first-freeze is no matrix: it has no cells for several hosts\n"
    )


def test_without_the_extra_a_line_says_how_to_get_it(tmp_path: Path) -> None:
    book = playbook(tmp_path / "book", "128MiB, 192MiB")
    code = "import sys; sys.modules['distributed'] = None; from lab.cli.main import app; app()"
    command = [sys.executable, "-c", code, "run", str(book), "--hosts", "tcp://127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 4
    what, how = done.stderr[done.stderr.index("freezelab: ") :].splitlines()
    assert what == "freezelab: --hosts needs Dask distributed, which is not installed"
    assert how.endswith("pip install distributed")


def test_one_kernel_is_one_machine_and_a_copied_machine_id_is_refused_too() -> None:
    def found(*ids: tuple[str, str]) -> list[tuple[str, ...]]:
        return [one.hosts for one in same(dict(zip("abcd", ids, strict=False)))]

    assert found(("1", "x"), ("2", "y")) == []
    assert found(("1", "x"), ("2", "x"), ("3", "z")) == [("a", "b")]
    assert found(("1", "x"), ("1", "x")) == [("a", "b")]
    assert found(("1", "x"), ("2", "y"), ("1", "z")) == [("a", "c")]
    assert found(("1", "x"), ("1", "x"), ("1", "z")) == [("a", "b"), ("a", "b", "c")]


def test_another_version_is_refused(
    two: LoopbackCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {**cell_task.versions(), "freezelab": "0.0.9 (00000000)"}
    monkeypatch.setattr(cell_task, "versions", lambda: here)
    done = run(two, playbook(tmp_path / "book", "128MiB, 192MiB"))
    assert done.exit_code == 4
    assert "freezelab is" in done.stderr and "there and 0.0.9 (00000000) here" in done.stderr


def test_a_host_says_what_it_lacks_for_which_cells(home: Path, tmp_path: Path) -> None:
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "p.yaml").write_text(
        "name: p\nresync: none\ncycle: {method: in-place}\n"
        "matrix: {patch: [{hold: 1s}, {replace-hypervisor: /opt/none/qemu}]}\n"
    )
    cell_task.pack(tmp_path / "book", ".", tmp_path / "book.tar.gz")
    left = home / "runs" / ".of-lost"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    cell_task.receive("r", (tmp_path / "book.tar.gz").read_bytes())
    assert not left.exists()
    ids = [[cell.id] for cell in load(tmp_path / "book" / "p.yaml").cells]
    here, there = cell_task.obstacles("r", "p.yaml", [None, None], ids)
    assert "/opt/none/qemu" not in here
    assert "/opt/none/qemu" in there
    cell_task.forget("r")
    assert not list((home / "runs").iterdir())


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:8786", "tcp://[::1]:8786", "tls://rack.example.org:8786"]
)
def test_closed_addresses_are_taken(address: str) -> None:
    check_address(address)


def test_an_address_with_a_path_is_none() -> None:
    with pytest.raises(UsageError, match="not a scheduler's address"):
        check_address("tls://rack:8786/status")


def test_the_certificate_of_a_run_does_not_depend_on_a_hosts_clock() -> None:
    """Of one that begins in 1970, as it has no clock of its own, or is years ahead."""
    made = x509.load_pem_x509_certificate(made_certificate()[1].encode())
    assert made.not_valid_before_utc.timestamp() == 0
    assert made.not_valid_after_utc.year == 9999
    made.verify_directly_issued_by(made)
