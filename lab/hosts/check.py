"""`freezelab hosts check`: what each host is and lacks, how far its clock is from this machine's, and what is
wrong with the hosts together.

The hosts are asked side by side, and their clocks read one after another, so that no reading waits for
another host's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from lab.core.clock import Interval
from lab.core.quantities import format_interval
from lab.core.units import NS_PER_MS
from lab.errors import FreezelabError, MachineError
from lab.hosts.hosts_file import HostsFile
from lab.hosts.link import SshLink, ask_all, close_all
from lab.hosts.machines import same
from lab.process.clock import HostClock
from lab.record.hosts_check import HostReport, HostsCheck, HostsProblem, MachineReport, machine_report
from lab.session.machine_report import look

DOCTOR_S = 600.0
"""Time limit for a host's doctor. The first one on a machine boots a kernel to try KVM."""

APART_NS = 100 * NS_PER_MS
"""A clock that is certainly farther off than this gets a line."""

VERSIONS: Sequence[tuple[str, Callable[[MachineReport], str]]] = (
    ("QEMU", lambda report: report.qemu),
    ("libvirt", lambda report: report.libvirt),
    ("kernel", lambda report: report.kernel),
    ("Python", lambda report: report.python),
)


def check(file: HostsFile, clock: HostClock) -> HostsCheck:
    """Ask all hosts. Interrupted cuts all links."""
    links = [SshLink(entry, clock) for entry in file.hosts]
    try:
        hosts = tuple(map(_with_offset, links, ask_all(links, _ask)))
    finally:
        close_all(links)
    here = look()
    return HostsCheck(here, hosts, tuple(problems(here, hosts)))


def _ask(link: SshLink) -> HostReport:
    """What a host says of itself. The link is open afterwards if there is one."""
    name = link.entry.name
    try:
        link.__enter__()
        return HostReport(name, report=_doctor(link))
    except FreezelabError as error:
        return HostReport(name, failure=_without_host(error, name), todo=error.hint)


def _doctor(link: SshLink) -> MachineReport:
    done = link.freezelab(["doctor", "--json"], DOCTOR_S)
    try:
        return machine_report(done.out)
    except ValueError as error:
        last = (done.err.strip().splitlines() or [str(error)])[-1]
        what = f"its doctor gave no report (exit status {done.status}): {last}"
        where = f"host {link.entry.name}"
        raise MachineError(what, where=where, hint="install the same freezelab there as here") from error


def _with_offset(link: SshLink, asked: HostReport) -> HostReport:
    if not link.is_open:
        return asked
    try:
        offset, why = link.offset(), ""
    except FreezelabError as error:
        offset, why = None, _without_host(error, asked.name)
    return HostReport(asked.name, asked.failure, asked.todo, asked.report, offset, why)


def _without_host(error: FreezelabError, name: str) -> str:
    """What failed, for a line that names the host by itself."""
    where = error.where.removeprefix(f"host {name}").lstrip(":, ")
    return f"{where}: {error.what}" if where else error.what


def problems(here: MachineReport, hosts: Sequence[HostReport]) -> Iterator[HostsProblem]:
    """What is wrong, those that stand in the way of a run first. here: this machine."""
    found = [problem for host in hosts for problem in _alone(here, host)]
    known = [(host.name, host.report) for host in hosts if host.report is not None]
    found += [*_one_machine(known), *_versions(known), *_calibrations(known)]
    yield from sorted(found, key=lambda problem: not problem.fails)


def _alone(here: MachineReport, host: HostReport) -> Iterator[HostsProblem]:
    names = (host.name,)
    if host.failure:
        yield HostsProblem(names, host.failure, host.todo, fails=True)
    if host.report is not None:
        if (host.report.freezelab, host.report.code) != (here.freezelab, here.code):
            what = f"freezelab {host.report.freezelab} there is not that here, {here.freezelab}"
            if host.report.freezelab == here.freezelab:
                what = f"freezelab {here.freezelab} there has other files than here"
            yield HostsProblem(names, what, "install the same version or commit there", fails=True)
        for failed in host.report.failed:
            yield HostsProblem(names, f"{failed.name}: {failed.result}", failed.fix, fails=True)
    if host.clock_failure and host.clock_failure != host.failure:
        yield HostsProblem(names, f"its clock was not read: {host.clock_failure}", "", fails=False)
    if host.clock is not None:
        offset = Interval(host.clock.offset_low_ns, host.clock.offset_high_ns)
        if offset.smallest_ns > APART_NS:
            side = "ahead of" if offset.low_ns > 0 else "behind"
            size = format_interval(offset if offset.low_ns > 0 else -offset)
            what = f"its clock is {size} {side} this machine's"
            yield HostsProblem(
                names, what, "set both by NTP: the times of records differ by this", fails=False
            )


Known = Sequence[tuple[str, MachineReport]]


def _one_machine(known: Known) -> Iterator[HostsProblem]:
    for found in same({name: (report.machine, report.boot) for name, report in known}):
        yield HostsProblem(found.hosts, found.what, found.todo, fails=True)


def _versions(known: Known) -> Iterator[HostsProblem]:
    for what, of in VERSIONS:
        values: dict[str, list[str]] = {}
        for name, report in known:
            values.setdefault(of(report) or "none", []).append(name)
        if len(values) > 1:
            each = "; ".join(f"{value} on {', '.join(names)}" for value, names in values.items())
            todo = "figures of different hosts stand side by side and are not pooled"
            yield HostsProblem(tuple(name for name, _ in known), f"{what} differs: {each}", todo, fails=False)


def _calibrations(known: Known) -> Iterator[HostsProblem]:
    """One line for all hosts with the same state: a new set of hosts has none."""
    groups: dict[str, list[str]] = {}
    for name, report in known:
        saved = report.calibration
        why = "no calibration" if saved is None else saved.stale or saved.rough
        if why:
            groups.setdefault(why if saved is None else f"the calibration of {saved.made}: {why}", []).append(
                name
            )
    for why, names in groups.items():
        yield HostsProblem(tuple(names), why, "freezelab calibrate there", fails=False)
