"""`freezelab recover`: what a killed run left behind is ended and removed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from lab.cli import keeping
from lab.cli.paths import home
from lab.errors import FreezelabError
from lab.host import taps
from lab.host.clocks import HostClock
from lab.hypervisor import memory
from lab.hypervisor.connect import connect
from lab.hypervisor.recovery import drop_saved, saved


def recover_all(uri: str | None, *, keep: bool = False) -> Iterator[str]:
    """End the lab's guests and remove their files, or `keep` them and have them run again; one line for each
    thing done. Guests that were started to be kept are left, and go on if they stood still. Taking the
    connection proves that no other run is alive in this state folder."""
    state = home()
    failures = []
    done = 0
    with connect(uri, state, clock=HostClock()) as hypervisor:
        for line in hypervisor.recover(keep=keep):
            done += 1
            yield line
        if keep:
            if not done:
                yield "nothing was left behind"
            return
        there = hypervisor.list_lab_domains()
        known = {guest.uuid: guest for guest in keeping.kept(state)}
        # A kept domain that has no file was cut off while it was started.
        kept = [known.pop(domain.uuid) for domain in there if domain.kept and domain.uuid in known]
        uuids, runs = {guest.uuid for guest in kept}, {guest.run for guest in kept}
        for domain in there:
            if domain.uuid in uuids:
                continue
            try:
                hypervisor.domains.choose(domain)
                hypervisor.destroy(domain.guest)
            except FreezelabError as error:
                failures.append(error)
            else:
                done += 1
                yield f"removed guest {domain.guest} of run {domain.run} (it was {domain.state})"
        if not failures:
            for guest in known.values():
                keeping.remove_files(state, guest)
                done += 1
                yield f"removed what was left of the kept guest {guest.name}, which is gone"
            sockets = {Path(socket) for guest in kept for socket in guest.sockets}
            for folder in sorted(path for path in _left(state / "guests") if path.name not in runs):
                shutil.rmtree(folder, ignore_errors=True)
                done += 1
                yield f"removed {folder}"
            for tap in taps.remove_all(state):
                done += 1
                yield f"removed tap {tap.name} of {tap.what}"
            for path in saved(state):
                drop_saved(path)
                done += 1
                yield f"removed {path}"
            for path in (*_left(state / "agents"), *_left(memory.folder(state))):
                if path not in sockets:
                    path.unlink(missing_ok=True)
            shutil.rmtree(state / "doors", ignore_errors=True)  # of a metadata service
            memory.drop(state)
    if failures:
        raise failures[0]
    if not done:
        yield "nothing was left behind"


def _left(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
