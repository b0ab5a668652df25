"""Ends and removes what a killed run left: for `freezelab recover`, and for the next run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from lab.errors import FreezelabError
from lab.host import taps
from lab.hypervisor import memory, own_lease
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.hypervisor.connection import connect
from lab.hypervisor.domains import LabDomain
from lab.hypervisor.recovery import drop_saved, saved
from lab.image import staging
from lab.image.store import default_cache
from lab.process.clock import HostClock
from lab.record.journal import is_written
from lab.session import kept_guests, work_folders
from lab.session.host_kernel_left import remove_left
from lab.session.paths import home


def recover_all(uri: str | None, *, resume: bool = False) -> Iterator[str]:
    """End the guests of dead runs and remove their files or, with `resume`, resume them; one line for each
    action. Kept guests stay, and are resumed if they were stopped; a lab host's guest of a killed run that
    replaced its kernel is removed."""
    state = home()
    ends = None if resume else left_by_killed(state)
    with connect(uri, state, clock=HostClock(), ends=ends) as hypervisor:
        done = 0
        lines = hypervisor.recover(resume=True, but=_alive(state)) if resume else clear(hypervisor, state)
        for line in lines:
            done += 1
            yield line
    for folder in staging.remove_left(default_cache() / "images"):
        done += 1
        yield f"removed {folder}, which a killed import or build of an image has left"
    for line in () if resume else remove_left(state):
        done += 1
        yield line
    if not done:
        yield "nothing to recover"


def left_by_killed(state: Path) -> Callable[[LabDomain], bool]:
    """Whether a guest is of a dead run and not kept: see connect(), for commands that clear()."""
    return lambda guest: not guest.kept_guest and guest.run not in _alive(state)


def clear(hypervisor: LibvirtHypervisor, state: Path) -> Iterator[str]:
    """Remove what dead runs left, one line for each action; the first failure is raised at the end. A run is
    alive while its history is open; a run on the embedded driver can be alive only in the process that has
    the driver open, which is this one."""
    alive = _alive(state)
    for run, name in dict.fromkeys((ended.run, ended.guest) for ended in hypervisor.ended):
        yield f"removed guest {name} of run {run}"
    hypervisor.ended.clear()
    yield from hypervisor.recover(resume=False, but=alive)
    there = [domain for domain in hypervisor.list_lab_domains() if domain.run not in alive]
    known = {guest.uuid: guest for guest in kept_guests.read_all(state)}
    # A kept domain that has no file was cut off while it was started.
    kept = [known.pop(domain.uuid) for domain in there if domain.kept_guest and domain.uuid in known]
    uuids, runs = {guest.uuid for guest in kept}, {guest.run for guest in kept} | alive
    failures = []
    for domain in there:
        if domain.uuid in uuids:
            continue
        try:
            hypervisor.domains.choose(domain)
            hypervisor.destroy(domain.guest)
        except FreezelabError as error:
            failures.append(error)
        else:
            yield f"removed guest {domain.guest} of run {domain.run}"
    if failures:
        raise failures[0]
    for guest in known.values():
        kept_guests.remove_files(state, guest)
        yield f"removed the rest of the kept guest {guest.name}, which has gone"
    for folder in sorted(path for path in _left(state / "guests") if path.name not in runs):
        shutil.rmtree(folder, ignore_errors=True)
        yield f"removed {folder}"
    for tap in taps.remove_all(state, but=alive):
        yield f"removed tap {tap.name} of {tap.what}"
    for folder in work_folders.left(state):
        shutil.rmtree(folder, ignore_errors=True)
        yield f"removed {folder}"
    if alive:
        return  # what follows has no run's name on it
    if logs := hypervisor.drop_logs():
        yield f"removed {len(logs)} QEMU logs of guests that have ended"
    own = {record.uuid for record in own_lease.records(state)}
    for path in saved(state):
        if path.stem in own:
            continue  # a domain of the user's own, on another connection
        drop_saved(path)
        yield f"removed {path}"
    sockets = {Path(socket) for guest in kept for socket in guest.sockets}
    for path in (*_left(state / "agents"), *_left(memory.folder(state))):
        if path not in sockets:
            path.unlink(missing_ok=True)
    for path in (state / "saved").glob("*.state"):
        path.unlink(missing_ok=True)
        yield f"removed {path}"
    shutil.rmtree(state / "doors", ignore_errors=True)  # of a metadata service
    memory.drop(state)


def _alive(state: Path) -> set[str]:
    return {folder.name for folder in _left(state / "runs") if is_written(folder)}


def _left(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
