"""A run in the lab host: the playbook goes there, the record comes back."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lab.core.plan import Plan
from lab.core.units import format_size
from lab.errors import GuestError, Interrupted, Refused
from lab.host import facts as host_facts
from lab.image.build import Progress
from lab.ports import View
from lab.process import runner
from lab.process.signals import shield
from lab.record import EVENTS
from lab.session import lab_host, paths
from lab.session.guest_host import LAB_HOST
from lab.session.images import images_for
from lab.session.lab_host_code import send_code
from lab.session.lab_host_shell import NAME, PID_FILE, PLACE, RUNS, LabHostShell
from lab.session.run_folders import new_run_id

_FOR_EVER_S, _CLEAN_UP_S = 3600.0, 180.0
_LOST = 255
"""ssh's exit status when it was not the command that failed."""

_MOST_BYTES = 64 << 20
"""The largest folder of a playbook that is sent."""


def prepare(home: Path, plan: Plan, view: View, progress: Progress) -> LabHostShell:
    """Send freezelab and a plan's images to the lab host. Refused for a plan that cannot be run there."""
    shell = lab_host.shell_of(lab_host.find(home))
    check(plan, "a lab host")
    images = images_for(plan, progress)
    send_code(shell)
    for image in images.values():
        lab_host.send_image(shell, image, view.note)
    return shell


def check(plan: Plan, to: str) -> None:
    """Refused for a plan that cannot be run elsewhere. to: where, for the message: "a lab host"."""
    guests = [guest for cell in plan.parts for guest in cell.guests]
    if any(guest.is_own for guest in guests):
        raise Refused(f"a domain of your own is on this host, not on {to}", where=f"playbook {plan.name}")
    if any(guest.setup.secrets for guest in guests):
        raise Refused(f"secrets are not sent to {to}", where=f"playbook {plan.name}")


def check_folder(folder: Path, to: str) -> None:
    """Refused when the folder of a playbook, which is sent with the files in it, has much else. to: as in
    check()."""
    hint = "put the playbook and its files into a folder of their own"
    if folder in (Path("/"), Path.home()):
        raise Refused(f"the playbook's folder would be sent to {to}", where=str(folder), hint=hint)
    size = 0
    for path in folder.rglob("*"):
        size += path.lstat().st_size
        if size > _MOST_BYTES:
            most = format_size(_MOST_BYTES)
            what = f"the playbook's folder is sent to {to}, and has more than {most}"
            raise Refused(what, where=str(folder), hint=hint)


def _send_folder(shell: LabHostShell, folder: Path, place: str) -> None:
    """Send a playbook's folder, with the files beside it, to `place`."""
    check_folder(folder, "the lab host")
    shell.send(["tar", "-C", str(folder), "-cf", "-", "."], f"mkdir -p {place} && tar -C {place} -xf -")


class RunInLabHost:
    """A run that goes on in the lab host, with its progress on this process's stderr. options: of
    `freezelab run`. Refused when the playbook cannot be sent."""

    def __init__(self, shell: LabHostShell, plan: Plan, playbook: Path, options: Sequence[str]) -> None:
        self._shell, self.run_id = shell, new_run_id(plan.name)
        self._pid, which = PID_FILE.format(run=self.run_id), playbook.stem
        if playbook.parent != paths.PLAYBOOKS:
            place = f"{PLACE}/playbooks/{self.run_id}"
            _send_folder(shell, playbook.parent, place)
            which = f"{place}/{playbook.name}"
        below = {"machine": host_facts.machine_id(), **asdict(host_facts.look())}
        about = json.dumps({"name": NAME, "accelerator": shell.accelerator, **below})
        there = ["env", f"{LAB_HOST}={about}", "freezelab", "run", which, "--run-id", self.run_id, *options]
        command = f"echo $$ >{self._pid}; exec {runner.quote(there)}"
        self._ssh = runner.start(shell.command(command), stderr=2, parent_death=signal.SIGTERM)

    def finished(self, home: Path) -> tuple[int, Path | None]:
        """The run's exit code, and the folder of its record, brought here; None when the run made none.
        GuestError when the lab host was lost. An interrupt ends the run there; its record is brought all the
        same."""
        try:
            while not self._ssh.wait(_FOR_EVER_S):
                pass
        except Interrupted:
            with shield():
                self._shell.run(f"kill -TERM $(cat {self._pid})")
                self._ssh.wait(_CLEAN_UP_S)
        with shield():
            self._ssh.stop(0)
            status = self._ssh.status
            if status is None or status < 0 or status == _LOST:
                hint = "freezelab labhost ssh freezelab history; freezelab labhost ssh freezelab recover"
                raise GuestError("the connection was lost", where=f"lab host {NAME}", hint=hint)
            return status, self._bring_back(home)

    def _bring_back(self, home: Path) -> Path | None:
        there = runner.quote([f"{RUNS}/{self.run_id}/{EVENTS}"])
        if not self._shell.run(f"ls {there} 2>/dev/null || true").strip():
            return None
        runs = paths.made(home / "runs")
        with tempfile.TemporaryDirectory(dir=runs, prefix=".from-lab-host-") as work:
            target = ["tar", "-C", work, "--no-same-owner", "-xzf", "-"]
            self._shell.fetch(f"tar -C {RUNS} -czf - {self.run_id}", target)
            return (Path(work) / self.run_id).rename(runs / self.run_id)
