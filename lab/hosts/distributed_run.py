"""A run over hosts: each cell of a matrix in a child process on a host, and one record of them all.

A host has one lab at a time. It gets a cell, and the next one when its record has come back. Figures stand
beside their host's; nothing is pooled over hosts (lab.record.parts).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lab.core.history import CellReached, Host, RunEnded
from lab.core.parallel_cells import batches
from lab.core.plan import Plan
from lab.core.quantities import format_length
from lab.errors import FreezelabError, Interrupted, MachineError, RecordError, UsageError
from lab.hosts import cell_task
from lab.hosts.cell_server import CLEAN_UP_S
from lab.hosts.cell_task import in_a_line
from lab.hosts.cluster import Cluster
from lab.hosts.parts import finished, folder_of, packed, parts_folder, without_record
from lab.hosts.worker_hosts import WorkerHost, asked
from lab.ports import View
from lab.process.clock import HostClock
from lab.process.signals import shield
from lab.record.journal import History, read_history
from lab.record.parts import MACHINE
from lab.record.run import Run
from lab.session.hosts_forecast import known_times
from lab.session.lab_host_run import check as check_can_be_sent
from lab.session.lab_host_run import check_folder
from lab.session.run_folders import new_run_id

_PATIENCE_S = 1.0


@dataclass
class _Batch:
    """Cells that run together, in one child. part: its run's id. hosts: the workers whose hosts can run
    it."""

    cells: tuple[str, ...]
    part: str
    hosts: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class HostsRunOptions:
    """playbook: its file. words: options of `run` for each child. tags: the run's. earlier: complete_parts()
    of a run that this one goes on from."""

    playbook: Path
    repeat: int | None = None
    control: int | None = None
    words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    earlier: Sequence[tuple[Path, History]] = ()


def perform(
    plan: Plan,
    options: HostsRunOptions,
    cluster: AbstractContextManager[Cluster],
    view: View,
) -> tuple[Run, Path]:
    """Run a matrix over a cluster's hosts and judge the merged record. RunStopped with what there is of it
    after an interrupt. UsageError for a plan that cannot be divided or sent, MachineError for hosts that
    cannot be used."""
    if not plan.cells:
        raise UsageError(f"{plan.name} is no matrix: it has no cells for several hosts", where="--hosts")
    check_can_be_sent(plan, "another host")
    check_folder(options.playbook.parent, "the hosts")
    view.phase("hosts")
    with cluster as connection:
        connection.check()
        return HostsRun(plan, options, connection, view).run()


class HostsRun:
    """One run over hosts, on a cluster that is checked."""

    def __init__(self, plan: Plan, options: HostsRunOptions, cluster: Cluster, view: View) -> None:
        self._plan, self._options, self._cluster, self._view = plan, options, cluster, view
        self._id, self._clock = new_run_id(plan.name), HostClock()
        before = [history.began for _, history in options.earlier]
        self._began = min([self._clock.now(), *before], key=lambda at: at.real_ns)
        together = [tuple(cell.id for cell in batch) for batch in batches(plan)]
        done = {cell.id for _, history in options.earlier for cell in history.start.plan.cells}
        self._waiting = [
            _Batch(cells, f"{self._id}-{number}")
            for number, cells in enumerate(together, 1)
            if not done.issuperset(cells)
        ]
        if (known := known_times(plan)) is not None:  # the longest first; see core.placement
            took = dict(zip(together, known.batches, strict=True))
            self._waiting.sort(key=lambda one: -took[one.cells])
        self._of = len(self._waiting)
        self._begun: dict[Any, tuple[_Batch, WorkerHost, int]] = {}
        self._histories: list[History] = []
        self._hosts: dict[str, WorkerHost] = {}
        self._folder = folder_of(self._id)

    def run(self) -> tuple[Run, Path]:
        """See perform()."""
        self._hosts = {host.worker: host for host in asked(self._cluster)}
        interrupted: Interrupted | None = None
        try:
            try:
                self._send()
                self._place()
                parts = parts_folder(self._id)
                for folder, history in self._options.earlier:
                    shutil.copytree(folder, parts / folder.name)
                    self._histories.append(history)
                self._all()
            except Interrupted as error:
                interrupted = error
                with shield():
                    self._stop()
        finally:
            with shield():
                self._cluster.ask(cell_task.forget, self._id, workers=list(self._hosts))
        with shield():
            return self._judged(interrupted)

    def _send(self) -> None:
        """Have every host take the playbook's folder."""
        folder = packed(self._options.playbook.parent)
        answers = self._cluster.ask(cell_task.receive, self._id, folder, workers=list(self._hosts))
        for worker, answer in answers.items():
            if isinstance(answer, Exception):
                raise MachineError(
                    f"the playbook cannot be put there: {in_a_line(answer)}",
                    where=f"host {self._hosts[worker].name}",
                )

    def _place(self) -> None:
        """Find out which host can run which cells. MachineError for a cell that none can."""
        options, ids = self._options, [batch.cells for batch in self._waiting]
        counts = [options.repeat, options.control]
        given = self._id, options.playbook.name, counts, ids
        asked_ones = {
            self._cluster.submit(cell_task.obstacles, *given, worker=worker): worker for worker in self._hosts
        }
        why: dict[int, dict[str, str]] = {}
        while asked_ones:
            for task in self._cluster.ended(asked_ones, _PATIENCE_S):
                host = self._hosts[asked_ones.pop(task)]
                for number, obstacle in enumerate(_answer(task, host)):
                    if obstacle:
                        why.setdefault(number, {})[host.name] = obstacle
                    else:
                        self._waiting[number].hosts.add(host.worker)
            for worker in self._cluster.gone(list(self._hosts)):
                raise MachineError("it was lost before the start", where=f"host {self._hosts[worker].name}")
        for number, lacking in why.items():
            cells = ", ".join(self._waiting[number].cells)
            name, obstacle = min(lacking.items())
            if not self._waiting[number].hosts:
                raise MachineError(f"no host can run it: {name}: {obstacle}", where=f"cell {cells}")
            self._view.note(f"cell {cells}: not on {', '.join(sorted(lacking))}: {obstacle}")

    def _all(self) -> None:
        """Run all batches, and collect the history of each."""
        self._view.phase("cells")
        while True:
            self._begin()
            if not self._begun:
                break
            for task in self._cluster.ended(self._begun, _PATIENCE_S):
                with shield():  # a record that is being stored is not lost by a Ctrl-C, nor the Ctrl-C
                    self._collect(task)
            self._let_go()
        for batch in self._waiting:
            self._missing(batch, None, "no host that could run it is left")
        self._waiting = []

    def _begin(self) -> None:
        """Give each host without a cell the next one that it can run."""
        busy = {host.worker for _, host, _ in self._begun.values()}
        for worker, host in self._hosts.items():
            batch = next((one for one in self._waiting if worker in one.hosts), None)
            if worker in busy or batch is None:
                continue
            self._waiting.remove(batch)
            options = self._options
            task = self._cluster.submit(
                *(cell_task.run_cells, self._id, batch.part, options.playbook.name, batch.cells),
                [*options.words],
                worker=worker,
            )
            self._begun[task] = batch, host, self._clock.now().raw_ns
            self._view.note(f"{host.name}: cell {', '.join(batch.cells)}")

    def _let_go(self) -> None:
        """Give up hosts that are lost, and what ran on them."""
        running = {host.worker: task for task, (_, host, _) in self._begun.items()}
        for worker in self._cluster.gone(list(self._hosts)):
            if task := running.get(worker):
                batch, host, _ = self._begun.pop(task)
                task.cancel()
                self._lost(host, batch)
            else:
                self._lost(self._hosts[worker])

    def _lost(self, host: WorkerHost, ran: _Batch | None = None) -> None:
        """Give a host nothing more. ran: what it had."""
        self._hosts.pop(host.worker, None)
        for batch in self._waiting:
            batch.hosts.discard(host.worker)
        how = "cut off" if self._cluster.is_cut(host.name) else "lost"
        self._view.note(f"{host.name}: {how}")
        if ran is not None:
            self._missing(ran, host, f"host {host.name}: it was {how} while the cell ran")

    def _collect(self, task: Any) -> None:
        """Store the history that a task has brought."""
        batch, host, began_ns = self._begun.pop(task)
        try:
            answer = _answer(task, host)
        except WorkerLost:
            self._lost(host, batch)
            return
        except FreezelabError as error:
            self._missing(batch, host, str(error))
            return
        finally:
            task.release()
        self._stored(batch, host, answer)
        took = format_length(self._clock.now().raw_ns - began_ns)
        done = self._of - len(self._waiting) - len(self._begun)
        self._view.note(f"{host.name}: cell {', '.join(batch.cells)}: {took} ({done} of {self._of})")

    def _stored(self, batch: _Batch, host: WorkerHost, answer: dict[str, Any]) -> None:
        folder, record = self._folder / "parts", answer["packed"]
        if not record:
            said = in_a_line(str(answer["said"]).removeprefix("freezelab: "))
            why = said or f"{answer['why']}, exit status {answer['status']}"
            self._missing(batch, host, f"host {host.name}: {why}")
            return
        archive = folder / f"{batch.part}.tar.gz"
        try:
            archive.write_bytes(record)
            cell_task.unpack(archive, folder)
            self._histories.append(self._of_host(read_history(folder / batch.part), batch, host))
        except (FreezelabError, OSError) as error:
            self._missing(batch, host, f"host {host.name}: its record is of no use: {in_a_line(error)}")
        else:
            self._cluster.ask(cell_task.forget, self._id, [batch.part], workers=[host.worker])
        finally:
            archive.unlink(missing_ok=True)

    def _of_host(self, history: History, batch: _Batch, host: WorkerHost) -> History:
        """A part's history, with its host's name, and with the reason where a cell did not come to its end.
        RecordError for one of other cells."""
        start = history.start
        meant = self._plan
        if start.whole is None or start.whole.digest != meant.digest:
            raise RecordError("it is of another playbook")
        details = {MACHINE: host.machine_id, **start.host.details, **host.details}
        # Paths of files beside the playbook are those of the host.
        named = replace(start, whole=meant, host=replace(start.host, details=details))
        first, *more = history.entries
        end = next((one for one in history.of(RunEnded) if not one.interrupted), None)
        if failure := end.failure if end is not None else history.damage:
            # Each cell has the reason, and the run as a whole has not.
            told = {event.id for event in history.of(CellReached) if event.skipped}
            why, last = f"host {host.name}: {in_a_line(failure)}", replace(history.entries[-1], seq=0)
            more = [entry for entry in more if entry.event is not end]
            more += [replace(last, event=CellReached(cell, why)) for cell in batch.cells if cell not in told]
        return replace(history, entries=(replace(first, event=named), *more))

    def _missing(self, batch: _Batch, host: WorkerHost | None, why: str) -> None:
        """Write the record of cells of which there is none, with the reason."""
        self._view.note(f"cell {', '.join(batch.cells)}: not run: {why}")
        here = Host(details={MACHINE: "none"})
        if host is not None:
            about = host.about["machine"]
            details = {MACHINE: about["machine"], **host.details}
            here = Host(about["kernel"], about["cpu"], about["memory_bytes"], details=details)
        folder, tags = self._folder / "parts" / batch.part, self._options.tags
        self._histories.append(without_record(folder, self._plan, batch.cells, tags, here, why, failure=""))

    def _stop(self) -> None:
        """Have all children end, and collect what they recorded."""
        workers = [host.worker for _, host, _ in self._begun.values()]
        self._view.note(f"ending the cells on {', '.join(host.name for _, host, _ in self._begun.values())}")
        self._cluster.ask(cell_task.end, self._id, workers=workers)
        until_ns = self._clock.now().raw_ns + round((CLEAN_UP_S + 10) * 1e9)
        while self._begun and self._clock.now().raw_ns < until_ns:
            for task in self._cluster.ended(self._begun, _PATIENCE_S):
                self._collect(task)
            self._let_go()

    def _judged(self, interrupted: Interrupted | None) -> tuple[Run, Path]:
        if not self._histories:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise interrupted or MachineError("no host has run a cell", where="--hosts")
        return finished(self._histories, self._plan, self._id, interrupted, (self._began, self._clock.now()))


class WorkerLost(MachineError):
    """A task has no end, because its worker or its scheduler has gone."""


def _answer(task: Any, host: WorkerHost) -> Any:
    """What a task returned. WorkerLost; MachineError when it raised."""
    if task.status == "finished":
        return task.result()
    error = task.exception() if task.status == "error" else None  # None: its scheduler was lost
    where = f"host {host.name}"
    if error is None or type(error).__name__ == "KilledWorker":
        raise WorkerLost("it was lost", where=where)
    kind = "" if isinstance(error, FreezelabError) else f"{type(error).__name__}: "
    raise MachineError(f"{kind}{in_a_line(error)}", where=where)
