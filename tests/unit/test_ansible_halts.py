"""Tasks that would end the machine, as they stand in a playbook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.host.patches.ansible_halts import halts
from lab.host.patches.ansible_reading import ending_this_machine


@pytest.mark.parametrize(
    ("action", "arguments", "what"),
    [
        ("reboot", None, "reboot"),
        ("ansible.builtin.reboot", {"reboot_timeout": 5}, "reboot"),
        ("community.general.shutdown", {}, "shutdown"),
        ("command", "/sbin/reboot", "reboot"),
        ("ansible.builtin.command", {"cmd": "shutdown -r now"}, "shutdown"),
        ("command", {"argv": ["systemctl", "--no-wall", "poweroff"]}, "systemctl --no-wall poweroff"),
        ("shell", "sync; sudo -n reboot", "reboot"),
        ("shell", "sleep 1 && init 6", "init 6"),
        ("shell", {"_raw_params": "cd /\nhalt"}, "halt"),
        ("raw", "kexec -e", "kexec -e"),
        ("systemd", {"name": "reboot.target", "state": "started"}, "reboot.target"),
        ("service", {"name": "poweroff", "state": "started"}, "poweroff"),
        ("command", "systemctl reboot", "systemctl reboot"),
        # and what does not
        ("command", "echo reboot", ""),
        ("shell", "test -e /run/reboot-required", ""),
        ("shell", "needs-restarting -r || echo shutdown", ""),
        ("command", "shutdown -c", ""),
        ("command", "systemctl is-active reboot.target", ""),
        ("command", "/usr/bin/rebooter", ""),
        ("systemd", {"name": "nginx", "state": "restarted"}, ""),
        ("systemd", {"name": "reboot.target", "enabled": True}, ""),
        ("copy", {"content": "reboot"}, ""),
        ("debug", {"msg": "reboot"}, ""),
        ("command", None, ""),
        ("command", 17, ""),
    ],
)
def test_tasks(action: str, arguments: Any, what: str) -> None:
    assert halts(action, arguments) == what


PLAY = """\
- hosts: {hosts}
  vars: {{secret: !vault x}}
  pre_tasks:
    - debug: {{msg: hello}}
  tasks:
    - block:
        - name: the end
          {task}
"""


@pytest.mark.parametrize(
    ("hosts", "task", "everywhere", "ends"),
    [
        ("all", "reboot:", True, "task the end: reboot"),
        ("all", "action: reboot", True, "task the end: reboot"),
        ("all", "action: {module: command, cmd: reboot}", True, "task the end: reboot"),
        ("all", "command: x\n          args: {cmd: poweroff}", True, ""),
        ("all", "command:\n          args: {cmd: poweroff}", True, "task the end: poweroff"),
        ("all", "reboot:", False, ""),
        ("localhost", "reboot:", False, "task the end: reboot"),
        ("all", "reboot:\n          delegate_to: localhost", False, "task the end: reboot"),
        ("all", "reboot:\n          connection: local", False, "task the end: reboot"),
        ("web", "command: uptime", True, ""),
    ],
)
def test_in_a_playbook(tmp_path: Path, hosts: str, task: str, everywhere: bool, ends: str) -> None:
    path = tmp_path / "play.yaml"
    path.write_text(PLAY.format(hosts=hosts, task=task))
    assert ending_this_machine(path, everywhere=everywhere) == ends


@pytest.mark.parametrize(
    "text", ["", "[]", "x", "- x", "- hosts: all\n  tasks: 3", "- [", "\0", "- {tasks: [x]}"]
)
def test_what_is_no_playbook_ends_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "play.yaml"
    path.write_text(text)
    assert ending_this_machine(path, everywhere=True) == ""
    assert ending_this_machine(tmp_path / "gone", everywhere=True) == ""
