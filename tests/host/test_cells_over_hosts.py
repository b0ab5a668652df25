"""Cells over hosts that are namespaces, each with a real sshd. Workers are real; cells are those of
cell_stand_in.py."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.host.other_user import attempts, closed
from tests.host.ssh_hosts import NamespaceHost, SshHosts, in_namespace, ssh_hosts
from tests.unit.cell_stand_in import playbook

WAIT_S = 90.0


@pytest.fixture
def lab() -> Iterator[SshHosts]:
    with ssh_hosts("rack-1", "rack-2") as made:
        made.file(made.file().read_text().replace("lab.cli.main", "tests.unit.cell_worker"))
        yield made


def begun(lab: SshHosts, book: Path) -> subprocess.Popen[str]:
    command = lab.argv("run", str(book), "--hosts", str(lab.folder / "hosts.yaml"), "--json")
    return subprocess.Popen(
        command, env=lab.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def until(happened: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def ended(controller: subprocess.Popen[str], code: int) -> dict[str, Any]:
    out, err = controller.communicate(timeout=WAIT_S)
    assert controller.returncode == code, err
    found: dict[str, Any] = json.loads(out)
    return found


def hangs(host: NamespaceHost) -> Callable[[], object]:
    path = host.state / "hangs"
    return lambda: path.exists() and path.read_text()


def cells_there(lab: SshHosts) -> list[psutil.Process]:
    """The processes of workers and cells on the hosts."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words, environ = process.info["cmdline"] or (), process.info["environ"] or {}
        if environ.get("FREEZELAB_HOME", "").startswith(str(lab.folder)):
            found += [process] if any(word.startswith("tests.unit.cell_") for word in words) else []
    return found


def listeners(process: int) -> list[str]:
    """The addresses of TCP listeners in this process's network namespace."""
    command = [*in_namespace(process), "ss", "-Hltn"]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.split()[3] for line in table.splitlines()]


def test_nothing_listens_beyond_the_loopback_and_nothing_secret_is_shown(
    lab: SshHosts, tmp_path: Path
) -> None:
    controller = begun(lab, playbook(tmp_path / "book", "128MiB, 192MiB", m128MiB="hang"))
    first = lab.hosts[0]
    until(hangs(first))
    for namespace in (first.process.pid, lab.hosts[1].process.pid, controller.pid):
        outward = [place for place in listeners(namespace) if not place.startswith("127.0.0.1:")]
        assert all(place.endswith(":22") for place in outward)
    assert len(cells_there(lab)) >= 3  # two workers, a cell
    for process in cells_there(lab):
        shown = [*process.cmdline(), *process.environ().values()]
        assert not any("BEGIN" in word or "tls_" in word for word in shown)
    controller.terminate()
    assert controller.wait(WAIT_S) == 130
    controller.communicate()
    until(lambda: not cells_there(lab))


def test_another_user_of_these_machines_can_do_nothing_to_a_run(lab: SshHosts, tmp_path: Path) -> None:
    """Read a record or the playbook, signal or look into a process, steer the scheduler or a worker."""
    lab.folder.chmod(0o755)  # so that only freezelab's own folders hide what is in them
    controller = begun(lab, playbook(tmp_path / "book", "128MiB, 192MiB", m128MiB="hang"))
    until(hangs(lab.hosts[0]))
    tried, *could = attempts(
        in_namespace(controller.pid), closed(lab.folder / "controller-state"), [controller.pid]
    )
    assert re.match(r"tried 1 processes, [3-9] ports", tried)  # the scheduler, and for each worker
    for host in lab.hosts:
        tried, *more = attempts(host.inside(), closed(host.state))
        assert re.match(r"tried (\d{2,}|[5-9]) processes, [2-9] ports", tried)
        could += more
    controller.terminate()
    assert controller.wait(WAIT_S) == 130
    controller.communicate()
    assert not could


def test_a_host_whose_clock_is_an_hour_behind_has_a_worker(tmp_path: Path) -> None:
    """The certificates of the run do not depend on it."""
    with ssh_hosts() as lab:
        lab.add("rack-1", real_ahead_s=-3600)
        lab.file(lab.file().read_text().replace("lab.cli.main", "tests.unit.cell_worker"))
        found = ended(begun(lab, playbook(tmp_path / "book", "128MiB, 192MiB")), 0)
        assert [cell["outcome"] for cell in found["cells"]] == ["passed", "passed"]


def test_a_host_whose_link_is_cut_is_freed_by_its_own_worker(lab: SshHosts, tmp_path: Path) -> None:
    controller = begun(lab, playbook(tmp_path / "book", "128MiB, 192MiB, 256MiB", m128MiB="hang"))
    cut = lab.hosts[0]
    until(hangs(cut))
    cut.wire.is_cut = True
    found = ended(controller, 3)
    assert [cell["outcome"] for cell in found["cells"]] == ["inconclusive", "passed", "passed"]
    why = [one["why"] for one in found["findings"] if one["outcome"] == "inconclusive"]
    assert why == ["not run: host rack-1: it was cut off while the cell ran"]
    until(lambda: not cells_there(lab))
    assert list((cut.state / "runs").glob("2*"))  # what it recorded stays on the host


def test_hosts_that_can_have_no_worker_are_refused_before_the_start(lab: SshHosts, tmp_path: Path) -> None:
    book = playbook(tmp_path / "book", "128MiB, 192MiB")
    entries = (lab.folder / "hosts.yaml").read_text()
    without = "import sys; sys.modules['distributed'] = None; from lab.cli.main import app; app()"
    lab.file(re.sub(r"-m, tests.unit.cell_worker", f'-c, "{without}"', entries, count=1))
    done = lab.run("run", str(book), "-q", "--hosts", str(lab.folder / "hosts.yaml"))
    assert (done.returncode, done.stdout) == (4, "")
    what, how = done.stderr.splitlines()
    assert what.startswith("freezelab: host rack-1: no worker starts there: --hosts needs Dask distributed")
    assert how.endswith("pip install distributed")
    lab.hosts[1].switch_off()
    lab.file(entries)
    done = lab.run("run", str(book), "-q", "--hosts", str(lab.folder / "hosts.yaml"))
    assert (done.returncode, done.stdout) == (4, "")
    assert "host rack-2: no answer to SSH at" in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    until(lambda: not cells_there(lab))
