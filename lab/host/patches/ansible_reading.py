"""Checks an Ansible playbook before it runs for tasks that would reboot or shut down this machine.

Only the file itself is read. The callback plugin stops such tasks of roles and included files right before
they run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lab.host.patches.ansible_halts import LOCAL, halts

_LISTS = ("pre_tasks", "tasks", "post_tasks", "handlers", "block", "rescue", "always")
_KEYWORDS = ("action", "local_action")


class _Loader(yaml.SafeLoader):
    """A YAML loader that reads values with Ansible's tags (!vault, !unsafe) as None."""


_Loader.add_multi_constructor("!", lambda _loader, _suffix, _node: None)


def ending_this_machine(playbook: Path, *, everywhere: bool) -> str:
    """The first task that would reboot or shut down this machine, as "task NAME: reboot", or "". everywhere:
    all plays run on this machine; otherwise only those whose hosts or connection say so. An invalid playbook
    has no such task; Ansible itself reports what is wrong with it."""
    try:
        plays = yaml.load(playbook.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a safe loader
    except (OSError, ValueError, yaml.YAMLError):
        return ""
    for play in _mappings(plays):
        here = everywhere or play.get("connection") == "local" or str(play.get("hosts")) in LOCAL
        for task in _tasks(play):
            if not (here or task.get("connection") == "local" or task.get("delegate_to") in LOCAL):
                continue
            for action, arguments in _actions(task):
                if what := halts(action, arguments):
                    return f"task {task.get('name') or action}: {what}"
    return ""


def _tasks(section: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for key in _LISTS:
        for task in _mappings(section.get(key)):
            yield task
            yield from _tasks(task)


def _actions(task: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every key of a task that may be its module, with its arguments."""
    given_beside = task.get("args")
    more = given_beside if isinstance(given_beside, dict) else {}
    for key, value in task.items():
        name, given = str(key), value
        if name in _KEYWORDS:
            if isinstance(value, dict):
                name = str(value.get("module", ""))
            else:
                name, _, given = str(value).partition(" ")
        yield name, {**more, **(given if isinstance(given, dict) else {"_raw_params": given})}


def _mappings(given: object) -> Iterator[dict[str, Any]]:
    if isinstance(given, list):
        yield from (each for each in given if isinstance(each, dict))
