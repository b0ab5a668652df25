"""Ansible callback plugin: every task to a file, one JSON object a line, as it begins and as it ends.

It runs in ansible-playbook's Python (3.9 or newer), not in the lab's: it knows nothing of the lab. The file
is named by the environment variable FREEZELAB_STEPS; without it the plugin does nothing. Times are
CLOCK_MONOTONIC_RAW in nanoseconds. A line is written whole and at once, so that a killed run has told all it
knew.

A task that would end the machine that this runs on ends the playing instead.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase  # type: ignore[import-not-found]

DOCUMENTATION = """
    name: freezelab_steps
    type: notification
    short_description: times of tasks for freezelab
    description: Writes when each task began and ended, and how, to the file FREEZELAB_STEPS names.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """What ansible-core looks for in this file."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "freezelab_steps"
    CALLBACK_NEEDS_ENABLED = False

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._path = os.environ.get("FREEZELAB_STEPS", "")
        self._began: dict[tuple[str, str], int] = {}
        self._here = True

    def v2_playbook_on_play_start(self, play: Any) -> None:
        hosts = play.get_variable_manager()._inventory.get_hosts(play.hosts)
        self._here = play.connection == "local" or any(map(_is_here, hosts))

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ARG002 - Ansible's
        """Called before any host has the task to do."""
        if not (
            self._path and (self._here or task.connection == "local" or task.delegate_to in _HALTS.LOCAL)
        ):
            return
        what = _HALTS.halts(str(task.action), dict(task.args))
        if what:
            now, host = _now(), socket.gethostname()
            why = f"{what} is refused: it would reboot the host or shut it down"
            self._write(task.get_name(), host, now, now, "failed", why, ignored=False)
            os._exit(1)  # an exception here would be a warning, and the task be done

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self.v2_playbook_on_task_start(task, False)

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        began = self._began[host.get_name(), task._uuid] = _now()
        self._write(task.get_name(), host.get_name(), began, None, "running", "", ignored=False)

    def v2_runner_on_ok(self, result: Any) -> None:
        self._end(result, "changed" if _fields(result).get("changed") else "ok")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._end(result, "failed", ignored=bool(ignore_errors))

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._end(result, "skipped")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        task = _part(result, "task")
        self._end(result, "unreachable", ignored=bool(getattr(task, "ignore_unreachable", False)))

    def _end(self, result: Any, status: str, *, ignored: bool = False) -> None:
        ended = _now()
        host, task = _part(result, "host").get_name(), _part(result, "task")
        began = self._began.pop((host, task._uuid), ended)
        message = _message(_fields(result)) if status in ("failed", "unreachable", "skipped") else ""
        self._write(task.get_name(), host, began, ended, status, message, ignored=ignored)

    def _write(
        self, name: str, host: str, began: int, ended: int | None, status: str, message: str, *, ignored: bool
    ) -> None:
        if not self._path:
            return
        line = json.dumps(
            {
                "name": str(name),
                "host": str(host),
                "began": began,
                "ended": ended,
                "status": status,
                "message": message,
                "ignored": ignored,
            }
        )
        with open(self._path, "ab", buffering=0) as file:  # noqa: PTH123 - one write a line
            file.write(line.encode() + b"\n")


def _load(name: str) -> Any:
    """A module of the lab's that lies beside this folder, by its path: the lab is not installed here."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_HALTS = _load("ansible_halts")


def _is_here(host: Any) -> bool:
    """Whether an inventory's host is this machine."""
    known = (*_HALTS.LOCAL, socket.gethostname())
    given = host.get_vars()
    address = given.get("ansible_host", host.get_name())
    return given.get("ansible_connection") == "local" or host.get_name() in known or address in known


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


def _part(result: Any, name: str) -> Any:
    """ansible-core 2.19 gave the parts of a result public names."""
    return getattr(result, name, None) or getattr(result, "_" + name)


def _fields(result: Any) -> dict[str, Any]:
    found = getattr(result, "result", None)
    return dict(found if isinstance(found, dict) else result._result)


def _message(fields: dict[str, Any]) -> str:
    """Why, in one line: of the first bad item of a loop, with the last line that a program printed."""
    for item in fields.get("results") or ():
        if isinstance(item, dict) and (item.get("failed") or item.get("unreachable")):
            return _message({key: value for key, value in item.items() if key != "results"})
    text = str(fields.get("msg") or fields.get("skip_reason") or fields.get("censored") or "")
    errors = str(fields.get("stderr") or fields.get("module_stderr") or "").strip().splitlines()
    if errors and errors[-1].strip() not in text:
        text = f"{text} ({errors[-1].strip()})" if text else errors[-1].strip()
    return " ".join(text.split())[:300]
