"""What a worker does on its host: say what it is, take a playbook, and run cells, each as a child process.

The functions are called by name through Dask. What goes in and out is made of dicts, lists, text and bytes
alone, so that a worker with another freezelab can still be told apart.
"""

from __future__ import annotations

import contextlib
import platform
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import __version__
from lab.errors import FreezelabError, MachineError
from lab.hosts.cell_server import CLEAN_UP_S, CellServer
from lab.process import runner
from lab.session.paths import home
from lab.session.work_folders import left, made_work_folder, work_folder

if TYPE_CHECKING:
    from lab.core.plan import Plan

MOST_BYTES = 64 << 20
"""The largest run folder that is brought back, packed."""

FREEZELAB: tuple[str, ...] = (sys.executable, "-P", "-c", "from lab.cli.entry import main; main()")
"""The command. Not `python -m`, which puts the current folder and a `lab` in it first."""

_LOOK_S = 0.5
_PACK_S = 300.0
_LAB = Path(__file__).resolve().parents[1]

servers: dict[str, CellServer] = {}
"""What starts the cells of a run over hosts, by the run's id. There is one at most."""

running: set[str] = set()
"""The runs over hosts that have a child here."""

called_off: set[str] = set()
"""The runs over hosts whose children have to end."""

received: set[str] = set()
"""The runs over hosts whose playbooks are here."""


def versions() -> dict[str, str]:
    """What has to be the same on all hosts and for the controller."""
    import distributed

    from lab.core.history import SCHEMA
    from lab.session.machine_report import code

    return {
        "freezelab": f"{__version__} ({code()[:8]})",
        "the record": SCHEMA,
        "Python": "{}.{}".format(*sys.version_info),
        "distributed": distributed.__version__,
    }


def about() -> dict[str, Any]:
    """The versions, the host's name for itself, and the machine as MachineReport has it."""
    from lab.session.machine_report import look

    return {"versions": versions(), "node": platform.node(), "machine": asdict(look())}


def receive(run: str, packed: bytes) -> None:
    """Unpack a playbook's folder for the run over hosts with this id. Those that lost runs have left are
    removed."""
    for old in left(home()):
        shutil.rmtree(old, ignore_errors=True)
    folder = made_work_folder(run) / "playbook"
    folder.mkdir()
    received.add(run)
    archive = folder.with_suffix(".tar.gz")
    archive.write_bytes(packed)
    unpack(archive, folder)
    archive.unlink()


def obstacles(
    run: str, playbook: str, counts: Sequence[int | None], batches: Sequence[Sequence[str]]
) -> list[str]:
    """For each batch of cells why this host cannot run it, in one line; "" when it can. playbook: its file,
    in the folder that was sent. counts: of cycles and of control cycles; None: the playbook's."""
    from lab.core.parallel_cells import part_of
    from lab.playbook import load
    from lab.session.plan_checks import obstacles as obstacles_of
    from lab.session.plan_checks import source_obstacles
    from lab.session.run import with_counts

    def lacking(plan: Plan) -> str:
        found = [*source_obstacles(plan), *obstacles_of(plan)]
        return in_a_line(found[0]) if found else ""

    try:
        plan = with_counts(load(work_folder(run) / "playbook" / playbook), counts[0], counts[1])
    except FreezelabError as error:
        return [in_a_line(error)] * len(batches)
    if not lacking(plan):
        return [""] * len(batches)
    return [lacking(part_of(plan, ids)) for ids in batches]


def run_cells(
    run: str, part: str, playbook: str, cells: Sequence[str], options: Sequence[str]
) -> dict[str, Any]:
    """Run cells that belong together in a child process, to its end. part: the id of the child's run; it can
    be run once. options: of `freezelab run`.

    Returns `status`, the child's exit status, negative for a signal, None when nobody waits for it any more;
    `said`, the end of what it wrote to stderr; `packed`, its run folder as a tar.gz, b"" when there is none;
    `why`, why there is none.
    """
    said = work_folder(run) / f"{part}.log"
    words = ["run", str(work_folder(run) / "playbook" / playbook), "--run-id", part, "--quiet", *options]
    for cell in cells:
        words += ["--cell", cell]
    server, status = _server(run), None
    running.add(run)
    try:
        server.begin(words, said)
        if run in called_off:
            server.end()
        while status is None and not _is_abandoned():
            status = server.ended(_LOOK_S)
    finally:
        running.discard(run)
        if status is None:
            _close(run)
    if status is None:
        forget(run)
        return {"status": status, "said": "", "packed": b"", "why": "nobody waited for it"}
    if status == -signal.SIGKILL:  # its guests are resumed in time, but not removed
        with contextlib.suppress(FreezelabError):
            env = runner.environment(PYTHONPATH=str(_LAB.parent))
            runner.run([*FREEZELAB, "recover"], CLEAN_UP_S, env=env)
    packed, why = _packed(part)
    return {"status": status, "said": _end_of(said), "packed": packed, "why": why}


def _server(run: str) -> CellServer:
    """The server of a run over hosts. One that another run has left is ended."""
    for other in [name for name in servers if name != run]:
        _close(other)
    if run not in servers:
        servers[run] = CellServer()
    return servers[run]


def _close(run: str) -> None:
    """End a run's server, and its child, which resumes and removes its guests first."""
    if (server := servers.pop(run, None)) is not None:
        server.close()


def end(run: str) -> None:
    """Have the child of a run over hosts resume and remove its guests and end, also one that begins later."""
    called_off.add(run)
    if run in running and (server := servers.get(run)) is not None:
        with contextlib.suppress(MachineError):
            server.end()


def forget(run: str, parts: Sequence[str] | None = None) -> None:
    """Remove the run folders of parts that have arrived at the controller; with None the playbook and all
    else of a run over hosts."""
    if parts is None:
        if run not in running:  # or this would wait for its child in the worker's event loop
            _close(run)
        shutil.rmtree(work_folder(run), ignore_errors=True)
        received.discard(run)
        called_off.discard(run)
    for part in parts or ():
        shutil.rmtree(home() / "runs" / part, ignore_errors=True)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar.gz into a folder that is there. MachineError when it cannot be."""
    runner.run(["tar", "-C", str(folder), "--no-same-owner", "-xzf", str(archive)], _PACK_S)


def pack(folder: Path, name: str, archive: Path) -> None:
    """Pack what is called `name` in a folder into a tar.gz. MachineError when it cannot be."""
    runner.run(["tar", "-C", str(folder), "-czf", str(archive), name], _PACK_S)


def _packed(part: str) -> tuple[bytes, str]:
    from lab.record import EVENTS

    runs = home() / "runs"
    if not (runs / part / EVENTS).is_file():
        return b"", "it made no record"
    archive = runs / f".{part}.tar.gz"
    try:
        pack(runs, part, archive)
        if (size := archive.stat().st_size) > MOST_BYTES:
            return b"", f"its record of {size >> 20} MiB is too large to bring here; it is there as {part}"
        return archive.read_bytes(), ""
    except (FreezelabError, OSError) as error:
        return b"", in_a_line(error)
    finally:
        archive.unlink(missing_ok=True)


def _is_abandoned() -> bool:
    """Whether nobody waits for the task of this thread any more: its controller has gone or called it off, or
    the scheduler has, and the worker closes, which by itself waits 30 s for its threads."""
    from distributed.worker import Status, get_worker, thread_state

    worker = get_worker()
    task = worker.state.tasks.get(thread_state.key)
    closes = worker.status not in (Status.running, Status.paused)
    return closes or task is None or task.state not in ("executing", "long-running")


def _end_of(said: Path) -> str:
    """The last lines that a child wrote."""
    with contextlib.suppress(OSError):
        return said.read_bytes()[-2000:].decode("utf-8", "replace").strip()
    return ""


def in_a_line(said: object) -> str:
    """A text of several lines, such as an error with its hint."""
    return "; ".join(str(said).split("\n"))
