"""One run from a plan to its verdict."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from lab.cli import paths
from lab.cli.calibration import for_record
from lab.cli.cells import Cells, make_patch
from lab.cli.imaging import images_for
from lab.cli.recovering import clear
from lab.cli.settings import Settings, check_memory
from lab.core.history import SCHEMA, Host, RunEnded, RunStarted
from lab.core.plan import Cell, Plan
from lab.errors import FreezelabError, Interrupted, MachineError
from lab.host import facts as host_facts
from lab.hypervisor.accelerators import Choice, Request, choose
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.hypervisor.connect import connect
from lab.image.build import Progress
from lab.ports import View
from lab.process.clock import HostClock
from lab.record.journal import FileJournal, read_history
from lab.record.run import Run, judge, write

_DISK = (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO)

Part = TypeVar("Part", Plan, Cell)
Shield = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Options:
    """What the command line adds to a plan. boot_s: None is the accelerator's own. golden: None is the
    plan's own. wait: for another run in this state folder to end."""

    uri: str | None = None
    accelerator: Request = Request.AUTO
    boot_s: int | None = None
    golden: bool | None = None
    wait: bool = False


def new_run_folder(home: Path, name: str) -> tuple[str, Path]:
    """A new run's id and folder. The id sorts by time and tells the playbook."""
    moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    run_id = f"{moment}-{name[:40]}-{secrets.token_hex(2)}"
    folder = paths.made(home / "runs") / run_id
    try:
        folder.mkdir()
    except OSError as error:
        raise MachineError(f"the run's folder cannot be made: {error.strerror}", where=str(folder)) from error
    return run_id, folder


def host_of(hypervisor: LibvirtHypervisor, choice: Choice) -> Host:
    """The host, for the record."""
    facts, versions = host_facts.look(), hypervisor.facts()
    return Host(
        kernel=facts.kernel,
        cpu=facts.cpu,
        memory_bytes=facts.memory_bytes,
        qemu=versions.qemu,
        libvirt=versions.libvirt,
        accelerator=choice.accelerator.value,
        accelerator_reason=choice.reason,
        details={**asdict(facts), "uri": versions.uri, "libvirt_linked": versions.libvirt_linked},
    )


def perform(plan: Plan, options: Options, view: View, progress: Progress, shield: Shield) -> tuple[Run, Path]:
    """Do what the plan says and judge it. The run's folder holds its history whatever happens.

    Raises the FreezelabError that ended the run early, after it was recorded; it then carries the
    run so far in `run`, if there is one.
    """
    clock = HostClock()
    plan = _drawn(plan)
    images = images_for(plan, progress)
    home = paths.home()
    waiting = (lambda who: view.note(f"waiting: {who}")) if options.wait else None
    with connect(options.uri, home, clock=clock, waiting=waiting) as hypervisor:
        for line in clear(hypervisor, home):
            view.note(f"of a run that was killed: {line}")
        if not plan.cells:
            check_memory(plan.guests)
        view.phase("accelerator")
        kernel = next(iter(images.values())).kernel
        choice = choose(options.accelerator, kernel, home, progress=view.note)
        emulator = hypervisor.emulator(choice.accelerator)
        golden = plan.golden if options.golden is None else options.golden
        settings = Settings("", home, home, images, choice, emulator, options.boot_s, golden=golden)
        patch = None if plan.cells else make_patch(plan.cycle.patch, hypervisor, settings, clock, view)
        if patch is not None:
            patch.check()
        run_id, folder = new_run_folder(home, plan.name)
        settings = replace(settings, run=run_id, folder=folder)
        with FileJournal(folder, clock) as journal:
            hypervisor.dead_man.history = journal.path
            host = host_of(hypervisor, choice)
            journal.append(RunStarted(SCHEMA, run_id, plan, host, for_record(home, host)))
            failure: FreezelabError | None = None
            try:
                with Cells(plan, hypervisor, settings, clock, view, journal, shield, patch) as cells:
                    cells.run()
            except FreezelabError as error:
                failure = error
            except BaseException as error:
                failure = _of_the_disk(error, folder)
                if failure is None:
                    journal.append(RunEnded(interrupted=False, failure=f"{type(error).__name__}: {error}"))
                    raise
            try:
                journal.append(
                    RunEnded(
                        interrupted=isinstance(failure, Interrupted),
                        failure=str(failure) if failure else "",
                        host=asdict(host_facts.look()),
                    )
                )
            except MachineError as error:  # what was written until then is judged all the same
                failure = failure or error
    try:
        run, _ = judge(read_history(folder))
    except FreezelabError as error:
        raise failure or error from error
    try:
        write(run, folder)
    except MachineError as error:
        failure = failure or error  # the report is shown all the same
    if failure is not None:
        raise RunStopped(failure, run, folder)
    return run, folder


def _of_the_disk(error: BaseException, folder: Path) -> MachineError | None:
    """A failure of the disk, wherever in the run it was noticed; None for others."""
    if not isinstance(error, OSError) or error.errno not in _DISK:
        return None
    return MachineError(error.strerror or str(error), where=str(error.filename or folder))


def _drawn(plan: Plan) -> Plan:
    """The plan with a seed for a rollout that is to be shuffled and has none."""
    rollout = plan.rollout
    if rollout is None or not rollout.shuffled or rollout.seed is not None:
        return plan
    return replace(plan, rollout=replace(rollout, seed=secrets.randbelow(1 << 32)))


class RunStopped(Exception):
    """A run that ended early, for an expected reason."""

    def __init__(self, failure: FreezelabError, run: Run, folder: Path) -> None:
        super().__init__(str(failure))
        self.failure, self.run, self.folder = failure, run, folder


def with_counts(plan: Plan, repeat: int | None, control: int | None) -> Plan:
    """The plan with the command line's counts."""

    def counted(part: Part) -> Part:
        return replace(
            part,
            repeat=part.repeat if repeat is None else repeat,
            control=part.control if control is None else control,
        )

    return replace(counted(plan), cells=tuple(counted(cell) for cell in plan.cells))
