"""A real Dask scheduler and workers on the loopback, each worker a machine of its own with its own state
folder, whose cells run in cell_stand_in.py. `dask worker --preload tests.unit.cell_worker` makes them so, and
`python -m tests.unit.cell_worker` is a freezelab whose worker has such cells.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lab.host import facts
from lab.hosts import cell_server, cell_task, host_worker

WAIT_S = 60.0
FAKED, REAL = "FREEZELAB_TEST_MACHINE", "FREEZELAB_TEST_REAL_CELLS"
CELLS = "FREEZELAB_TEST_CELLS"
"""The variable with the module that stands in for cells, instead of cell_stand_in."""


def dask_setup(_worker: object) -> None:
    """Called in each worker as it starts."""
    facts._MACHINE_ID = Path(os.environ[FAKED]) / "machine-id"
    facts._BOOT_ID = Path(os.environ[FAKED]) / "boot-id"
    stand_in()


def stand_in() -> None:
    """Have cells run in a stand-in, unless they are to be real, and a controller be given up soon."""
    if REAL in os.environ:
        return
    host_worker.SILENCE_S = 8.0
    cell_server.SERVER = (sys.executable, "-m", os.environ.get(CELLS, "tests.unit.cell_stand_in"))
    cell_task.obstacles = _obstacles


def _obstacles(
    run: str, playbook: str, counts: Sequence[int | None], batches: Sequence[Sequence[str]]
) -> list[str]:
    """The file `lacking` in the state folder has the cells that it cannot run."""
    lacking = Path(os.environ["FREEZELAB_HOME"], "lacking")
    named = lacking.read_text().split() if lacking.exists() else []
    return ["no such emulator: /opt/qemu" if set(batch) & set(named) else "" for batch in batches]


@dataclass
class LoopbackCluster:
    """address: the scheduler's. scheduler: its process. workers: theirs, by name. folder: with a folder for
    each machine. settings: of Dask, with the certificates of a cluster with TLS."""

    folder: Path
    settings: dict[str, str]
    scheduler: subprocess.Popen[bytes] = field(init=False)
    address: str = ""
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        """The settings as variables of the environment."""
        return {
            f"DASK_{name.upper().replace('.', '__').replace('-', '_')}": value
            for name, value in self.settings.items()
        }

    def home(self, name: str) -> Path:
        return self.folder / name / "home"

    def add(self, name: str, *options: str, machine: str = "") -> None:
        """Start a worker. machine: another's, which it is on."""
        own = self.folder / (machine or name)
        own.mkdir(exist_ok=True)
        self.home(name).mkdir(parents=True, exist_ok=True)
        for each in ("machine-id", "boot-id"):
            (own / each).write_text(f"of {machine or name}")
        argv = [
            *("worker", self.address, "--host", "127.0.0.1", "--name", name, "--nthreads", "1"),
            *("--no-nanny", "--no-dashboard", "--preload", "tests.unit.cell_worker"),
            *("--local-directory", str(own / "dask"), *(options or ("--resources", "lab=1"))),
        ]
        env = {**self.env, FAKED: str(own), "FREEZELAB_HOME": str(self.home(name))}
        self.workers[name] = _dask(self.folder / f"{name}.log", argv, "Registered to", env)

    def close(self) -> None:
        for process in (*self.workers.values(), self.scheduler):
            process.kill()
            process.wait(WAIT_S)


@contextmanager
def loopback_cluster(
    folder: Path, names: Sequence[str] = (), *, tls: bool = False
) -> Iterator[LoopbackCluster]:
    """A scheduler, and workers of these names."""
    with ExitStack() as stack:
        cluster = LoopbackCluster(folder, _certificates(folder) if tls else {})
        log, protocol = folder / "scheduler.log", "tls" if tls else "tcp"
        argv = [
            *("scheduler", "--host", "127.0.0.1", "--port", "0", "--protocol", protocol),
            *("--no-dashboard", "--dashboard-address", "127.0.0.1:0"),
        ]
        cluster.scheduler = _dask(log, argv, "Scheduler at:", cluster.env)
        stack.callback(cluster.close)
        cluster.address = log.read_text().partition("Scheduler at:")[2].split()[0]
        for name in names:
            cluster.add(name)
        yield cluster


def _certificates(folder: Path) -> dict[str, str]:
    """Dask's settings for certificates that are made here."""
    from distributed import Security

    made = Security.temporary()
    key, certificate = folder / "key.pem", folder / "cert.pem"
    key.write_text(str(made.tls_worker_key))
    certificate.write_text(str(made.tls_worker_cert))
    found = {"distributed.comm.tls.ca-file": str(certificate)}
    for role in ("scheduler", "worker", "client"):
        found[f"distributed.comm.tls.{role}.key"] = str(key)
        found[f"distributed.comm.tls.{role}.cert"] = str(certificate)
    return found


def _dask(log: Path, argv: Sequence[str], says: str, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """A dask command that has said that it is ready."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", "from dask.__main__ import main; main()", *argv],
            stdout=file,
            stderr=file,
            env={**os.environ, **env},
        )
    end = time.monotonic() + WAIT_S
    while says not in log.read_text():
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.05)
    return process


if __name__ == "__main__":
    from lab.cli.main import app

    stand_in()
    app()
