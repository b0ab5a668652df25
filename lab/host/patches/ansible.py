"""ansible: an Ansible playbook against this machine, or against the hosts of an inventory.

It runs with the distribution's ansible-core in a clean environment: ANSIBLE_* variables and the user's and
system's ansible.cfg are ignored, and only an `ansible.cfg` beside the playbook is used. So a playbook does
the same for everybody. Collections and roles are found in their usual places. A callback plugin of the lab
records each task with its times.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.core import patch as plan
from lab.core.timeline import Step
from lab.core.units import NS_PER_S
from lab.errors import MachineError
from lab.host.patches.ansible_reading import ending_this_machine
from lab.host.patches.base import TAIL, Stepwise, Work, failure, listed, one_line, seconds
from lab.ports import Clock
from lab.process import runner

_PROGRAM = "ansible-playbook"
_PLUGINS = Path(__file__).parent / "ansible_callback"

_SYNTAX_NS = 60 * NS_PER_S
"""Time limit of --syntax-check, which takes 0.6 s, and several times that on a cold start of a busy
machine."""

_MOST_TASKS = 200
"""The most tasks that are recorded one by one."""

# ansible_playbook_python is the Python that runs ansible-playbook, so Ansible does not search for another one
# and never finds the lab's own environment.
_HERE = 'localhost ansible_connection=local ansible_python_interpreter="{{ ansible_playbook_python }}"\n'

_DROPPED = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")


@dataclass(frozen=True)
class Task:
    """One task on one host. ended: None while it runs. status: ok, changed, skipped, failed, unreachable or
    running. ignored: the playbook ignores its failure. Times are CLOCK_MONOTONIC_RAW in ns."""

    name: str
    host: str
    began: int
    ended: int | None
    status: str
    message: str = ""
    ignored: bool = False

    @property
    def bad(self) -> bool:
        return self.status in ("failed", "unreachable") and not self.ignored

    @property
    def outcome(self) -> str:
        """The task's status, or that its failure was ignored, as text."""
        return "ignored" if self.ignored and self.status in ("failed", "unreachable") else self.status

    @property
    def why(self) -> str:
        text = f": {self.message}" if self.message else ""
        if self.status == "unreachable":
            return f"task {self.name}: {self.host} is unreachable{text}"
        return f"task {self.name} failed on {self.host}{text}"


class Ansible(Stepwise):
    """Runs an Ansible playbook. It succeeds when all tasks were done and none failed."""

    def __init__(self, spec: plan.AnsiblePatch, clock: Clock) -> None:
        super().__init__(spec.label, spec.impact, clock, spec.deadline_ns)
        self._spec = spec

    def check(self) -> None:
        """MachineError when Ansible or a file is missing, a playbook is invalid, or one would reboot or shut
        down this machine."""
        try:
            runner.find(_PROGRAM)
        except MachineError as error:
            raise MachineError(
                f"{_PROGRAM} is not installed", hint="apt install ansible-core, or dnf install ansible-core"
            ) from error
        if self._spec.inventory and not Path(self._spec.inventory).exists():
            raise MachineError("no such inventory", where=self._spec.inventory)
        for playbook in filter(None, (self._spec.playbook, self._spec.undo)):
            if not Path(playbook).is_file():
                raise MachineError("no such Ansible playbook", where=playbook)
            with _folder() as folder:
                work = Work(self._clock, self._clock.now().raw_ns + _SYNTAX_NS)
                argv, env = self._how(playbook, folder)
                done = work.run(*argv, "--syntax-check", env=env, check=False, tree=True)
                if not done.ok:
                    raise MachineError(
                        f"Ansible refuses the playbook: {_complaint(done)}",
                        where=playbook,
                        hint=f"{_PROGRAM} --syntax-check {playbook}",
                    )
            if task := ending_this_machine(Path(playbook), everywhere=not self._spec.inventory):
                raise MachineError(f"this would reboot the host or shut it down: {task}", where=playbook)

    def undo(self) -> str:
        """Run the undo's playbook, with the patch's time limit."""
        if not self._spec.undo:
            return ""
        work = self._work()
        began = self._clock.now().raw_ns
        try:
            self._play(work, self._spec.undo)
        except MachineError as error:
            raise MachineError(
                f"not undone: {one_line(error)}",
                where=self.label,
                hint=f"the host is as the patch left it; to undo it by hand: {_PROGRAM} {self._spec.undo}",
            ) from error
        return f"{self._spec.undo}: {work.facts['summary']} in {seconds(self._clock.now().raw_ns - began)}"

    def _do(self, work: Work) -> None:
        self._play(work, self._spec.playbook)

    def _play(self, work: Work, playbook: str) -> None:
        with _folder() as folder:
            steps = folder / "steps"
            argv, env = self._how(playbook, folder)
            try:
                done = work.run(*argv, env={**env, "FREEZELAB_STEPS": str(steps)}, check=False, tree=True)
            finally:
                tasks = read_tasks(steps)
                _record(work, tasks)
        work.facts["status"] = done.status
        if done.stdout:
            work.facts["stdout"] = done.stdout[-TAIL:]
        if done.overran:
            running = [f"{task.name} on {task.host}" for task in tasks if task.ended is None]
            raise MachineError(f"{failure(done)}{f', in task {listed(running)}' if running else ''}")
        bad = [task for task in tasks if task.bad]
        if not done.ok:
            # The last failure counts: the playbook may have rescued earlier ones.
            raise MachineError(bad[-1].why if bad else f"{done.why}: {_complaint(done)}")
        if not any(task.ended is not None for task in tasks):
            raise MachineError(
                "no task was run: the inventory has no matching host, or the playbook is empty"
            )

    def _how(self, playbook: str, folder: Path) -> tuple[list[str], dict[str, str]]:
        """The command line and environment. Writes the files that they need into `folder`."""
        inventory = self._spec.inventory
        if not inventory:
            inventory = str(folder / "inventory")
            Path(inventory).write_text(_HERE, encoding="utf-8")
        config = Path(playbook).resolve().parent / "ansible.cfg"
        if not config.is_file():
            config = folder / "ansible.cfg"  # /dev/null is refused: its name does not end in .cfg
            config.write_text("", encoding="utf-8")
        env = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("ANSIBLE_") and key not in _DROPPED
        }
        env |= {
            "ANSIBLE_CONFIG": str(config),
            "ANSIBLE_CALLBACK_PLUGINS": str(_PLUGINS),
            "ANSIBLE_LOCAL_TEMP": str(folder),
            "TMPDIR": str(folder),  # a killed module leaves its folder there
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_RETRY_FILES_ENABLED": "0",
            "LC_ALL": "C.UTF-8",  # Ansible refuses to start in a locale that is not UTF-8
            "PYTHONDONTWRITEBYTECODE": "1",  # no __pycache__ in the plugin's folder
        }
        return [_PROGRAM, "--inventory", inventory, playbook], env


def read_tasks(path: Path) -> list[Task]:
    """The tasks that the plugin recorded, in order of their start; [] without a file. A line that was cut off
    when Ansible was killed is left out."""
    tasks: dict[tuple[str, str, int], Task] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, TypeError):
                task = Task(**json.loads(line))
                tasks[task.name, task.host, task.began] = task
    return list(tasks.values())


def _record(work: Work, tasks: list[Task]) -> None:
    several = len({task.host for task in tasks}) > 1
    now = work.clock.now().raw_ns
    for task in tasks:
        name = f"{task.host}: {task.name}" if several else task.name
        work.steps.append(Step(name, task.began, now if task.ended is None else task.ended))
    counts = Counter(task.outcome for task in tasks)
    facts: dict[str, Any] = {
        "summary": ", ".join(f"{number} {status}" for status, number in sorted(counts.items())) or "no task",
        "tasks": [
            {"name": task.name, "host": task.host, "status": task.outcome, "message": task.message}
            for task in tasks[:_MOST_TASKS]
        ],
    }
    work.facts.update(facts)


def _complaint(done: runner.Finished) -> str:
    """Ansible's error message: its line that begins with ERROR, or the last line of its output."""
    if done.overran:
        return done.why
    lines = [line.strip() for line in (done.stderr + "\n" + done.stdout).splitlines()]
    for line in lines:
        for mark in ("ERROR! ", "[ERROR]: "):
            if line.startswith(mark):
                return line.removeprefix(mark)[:200]
    return done.last_line or done.why


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A context with a private temporary folder, which is removed with all files that Ansible leaves in
    it."""
    with tempfile.TemporaryDirectory(prefix="freezelab-ansible-", ignore_cleanup_errors=True) as name:
        yield Path(name)
