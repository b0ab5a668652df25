"""A run, from its plan to its verdict."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

from lab.controller.meeting import Meeting
from lab.core.history import SCHEMA, Host, RunEnded, RunStarted
from lab.core.plan import Cell, Plan
from lab.core.setup import Secret
from lab.errors import FreezelabError, GuestError, Interrupted, MachineError
from lab.host import facts as host_facts
from lab.hypervisor.accelerators import AcceleratorRequest
from lab.hypervisor.connection import connect
from lab.image.build import Progress
from lab.ports import View
from lab.process.clock import HostClock
from lab.record.events import Entry
from lab.record.index import index_of, judged
from lab.record.journal import FileJournal
from lab.record.run import Run, write
from lab.session import own_plan, paths
from lab.session.calibration import for_record
from lab.session.cells import Cells, make_patch
from lab.session.client_programs import check_clients
from lab.session.guest_host import GuestHost, prepare_host
from lab.session.images import images_for
from lab.session.recovery import left_by_killed
from lab.session.run_folders import new_run_folder
from lab.session.setup_sources import read_secrets
from lab.session.tolerance import EarlierTries

_DISK = (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO)

Part = TypeVar("Part", Plan, Cell)
Shield = Callable[[], AbstractContextManager[None]]
Begin = Callable[[str, Path, FileJournal], tuple[Host, "RunWork"]]


@dataclass(frozen=True)
class RunOptions:
    """Options of the command line beside the plan. boot_s: None is the accelerator's default. golden: None is
    the plan's. wait: wait for another run in this state folder to end. earlier: tries of a search that goes
    on. tags: the run's, for its record. appended: called with the run's folder and each event of its history;
    see FileJournal. run_id: a new_run_id(); "": one is made. whole: the playbook's plan, when the run has
    only a part of its cells. meeting: see Settings."""

    uri: str | None = None
    accelerator: AcceleratorRequest = AcceleratorRequest.AUTO
    boot_s: int | None = None
    golden: bool | None = None
    wait: bool = False
    earlier: EarlierTries | None = None
    tags: tuple[str, ...] = ()
    appended: Callable[[Path, Entry], None] | None = None
    run_id: str = ""
    whole: Plan | None = None
    meeting: Meeting | None = None


class RunWork(Protocol):
    """What a run does between its history's first event and its last. measured: the last cycle is complete;
    later failures are failures of the clean-up."""

    measured: bool

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def run(self) -> None:
        """Do it. FreezelabError ends the run early."""


@dataclass
class RunCourse:
    """The course of a run. failure: what ended it early. not_undone: failures of the clean-up after all
    measurements; left: something may be left behind because of them."""

    folder: Path
    failure: FreezelabError | None = None
    not_undone: FreezelabError | None = None
    left: bool = False

    def ended_by(self, error: FreezelabError, *, measured: bool) -> None:
        if isinstance(error, Interrupted) or not measured:
            self.failure = self.failure or error
        else:
            self.not_undone = self.not_undone or error
            in_guest = isinstance(error, GuestError)  # what is wrong there goes with the guest
            self.left = self.left or not in_guest


def perform(
    plan: Plan, options: RunOptions, view: View, progress: Progress, shield: Shield
) -> tuple[Run, Path]:
    """Execute the plan and judge the run. The run's folder has its history in any case.

    Raises RunStopped with the judged run and the FreezelabError that ended it early or made its clean-up
    fail; the FreezelabError itself when there is nothing to judge.
    """
    clock = HostClock()
    plan = _drawn(plan)
    secret_values = read_secrets(plan)
    check_clients(plan)
    own_plan.check_plan(plan, options.uri)
    images = images_for(plan, progress)
    home = paths.home()
    waiting = (lambda who: view.note(f"waiting: {who}")) if options.wait else None
    course: RunCourse | None = None
    try:
        ends = left_by_killed(home)
        with connect(options.uri, home, clock=clock, waiting=waiting, ends=ends) as hypervisor:
            host = prepare_host(hypervisor, plan, images, home, view, options.accelerator)
            course = _run(plan, options, host, secret_values, clock, view, shield)
    except FreezelabError as error:
        if course is None:
            raise
        if isinstance(error, Interrupted):
            course.failure = course.failure or error
        else:  # of the connection, which leaves nothing: the guests are gone by then, and the process ends
            course.not_undone = course.not_undone or error
            if course.failure is not None:
                view.note(str(error))
    return verdict(course)


def _run(
    plan: Plan,
    options: RunOptions,
    host: GuestHost,
    secret_values: dict[Secret, bytes],
    clock: HostClock,
    view: View,
    shield: Shield,
) -> RunCourse:
    hypervisor, patch = host.hypervisor, None
    if not plan.cells:
        patch = make_patch(plan.cycle.patch, hypervisor, host.accelerator, host.emulator, clock, view)
        patch.check()
    golden = plan.golden if options.golden is None else options.golden

    def begin(run_id: str, folder: Path, journal: FileJournal) -> tuple[Host, RunWork]:
        settings = replace(
            host.settings(run_id, folder, options.boot_s),
            golden=golden,
            secrets=secret_values,
            network=plan.network,
            meeting=options.meeting,
            fleet=(options.whole or plan).guests if options.meeting else (),
        )
        hypervisor.dead_man.history = journal.path
        earlier = options.earlier
        return host.facts(), Cells(plan, hypervisor, settings, clock, view, journal, shield, patch, earlier)

    return recorded(plan, options, host.home, clock, begin)


def recorded(plan: Plan, options: RunOptions, home: Path, clock: HostClock, begin: Begin) -> RunCourse:
    """Do a run's work, with a history of it. begin: returns the host's entry and the work; gets the run's id,
    its folder and its journal."""
    run_id, folder = new_run_folder(home, plan.name, options.run_id, private=options.uri is None)
    course = RunCourse(folder)
    appended = partial(options.appended, folder) if options.appended is not None else None
    with FileJournal(folder, clock, appended) as journal:
        facts, work = begin(run_id, folder, journal)
        calibration = for_record(home, facts)
        tags, whole = options.tags, options.whole
        journal.append(RunStarted(SCHEMA, run_id, plan, facts, calibration, tags, whole))
        try:
            with work:
                work.run()
        except FreezelabError as error:
            course.ended_by(error, measured=work.measured)
        except BaseException as error:
            of_the_disk = _of_the_disk(error, folder)
            if of_the_disk is None:
                journal.append(RunEnded(interrupted=False, failure=f"{type(error).__name__}: {error}"))
                raise
            course.ended_by(of_the_disk, measured=work.measured)
        failure = course.failure
        try:
            journal.append(
                RunEnded(
                    interrupted=isinstance(failure, Interrupted),
                    failure=str(failure) if failure else "",
                    host=asdict(host_facts.look()),
                    not_undone=str(course.not_undone) if course.not_undone else "",
                )
            )
        except MachineError as error:  # what was written until then is judged all the same
            course.ended_by(error, measured=False)
    return course


def verdict(course: RunCourse) -> tuple[Run, Path]:
    """The run judged from its history, with its run.json; see perform()."""
    folder = course.folder
    try:
        run = judged(folder, index_of(paths.home()))
    except FreezelabError as error:
        raise course.failure or error from error
    try:
        write(run, folder)
    except MachineError as error:
        course.ended_by(error, measured=False)  # the report is shown all the same
    if course.failure is not None:
        raise RunStopped(course.failure, run, folder, course.failure.exit_code)
    if course.not_undone is not None:
        code = run.outcome.exit_code or (course.not_undone.exit_code if course.left else 0)
        raise RunStopped(course.not_undone, run, folder, code, measured=True)
    return run, folder


def _of_the_disk(error: BaseException, folder: Path) -> MachineError | None:
    """A failure of the disk, anywhere in the run; None for other errors."""
    if not isinstance(error, OSError) or error.errno not in _DISK:
        return None
    return MachineError(error.strerror or str(error), where=str(error.filename or folder))


def _drawn(plan: Plan) -> Plan:
    """The plan, with a seed for a shuffled rollout that has none."""
    rollout = plan.rollout
    if rollout is None or not rollout.shuffled or rollout.seed is not None:
        return plan
    return replace(plan, rollout=replace(rollout, seed=secrets.randbelow(1 << 32)))


class RunStopped(Exception):
    """Raised for a run that ended early, for an expected reason; with `measured`, for a complete run whose
    clean-up failed. exit_code: that of the reason; for a complete run that of the verdict, which a failed
    clean-up must not hide, except that the reason's replaces 0 when something may be left behind."""

    def __init__(
        self, failure: FreezelabError, run: Run, folder: Path, exit_code: int, *, measured: bool = False
    ) -> None:
        super().__init__(str(failure))
        self.failure, self.run, self.folder = failure, run, folder
        self.exit_code, self.measured = exit_code, measured


def with_counts(plan: Plan, repeat: int | None, control: int | None) -> Plan:
    """The plan with the command line's counts."""

    def counted(part: Part) -> Part:
        return replace(
            part,
            repeat=part.repeat if repeat is None else repeat,
            control=part.control if control is None else control,
        )

    return replace(counted(plan), cells=tuple(counted(cell) for cell in plan.cells))
