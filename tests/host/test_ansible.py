"""Real playbooks with the distribution's ansible-core, against this machine."""

from __future__ import annotations

import os
import shutil
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from lab.core.patch import AnsiblePatch, Impact
from lab.core.units import NS_PER_S
from lab.errors import MachineError
from lab.host import patches
from lab.host.patches import ansible
from lab.ports import HostPatch, PatchResult
from lab.process.clock import HostClock

Apply = Callable[[HostPatch, float], PatchResult]
Refusal = Callable[[HostPatch], MachineError]

needs_ansible = pytest.mark.skipif(
    not shutil.which("ansible-playbook"), reason="ansible-core is not installed (apt install ansible-core)"
)


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., str]:
    """Write a play with these tasks; its path."""

    def write(tasks: str, *, name: str = "play.yaml", head: str = "hosts: all") -> str:
        path = tmp_path / name
        body = textwrap.indent(textwrap.dedent(tasks), "    ")
        path.write_text(f"- {head}\n  gather_facts: false\n  tasks:\n{body}\n")
        return str(path)

    return write


def patch_of(playbook: str, clock: HostClock, *, inventory: str = "", undo: str = "") -> HostPatch:
    return patches.make(AnsiblePatch(playbook, 60 * NS_PER_S, inventory, Impact.NONE, undo), clock)


def running(marker: str) -> list[int]:
    return [p.pid for p in psutil.process_iter(["cmdline"]) if marker in (p.info["cmdline"] or [])]


@needs_ansible
def test_tasks_are_steps(play: Callable[..., str], tmp_path: Path, clock: HostClock, apply: Apply) -> None:
    made, gone = tmp_path / "made", tmp_path / "gone.yaml"
    gone.write_text(
        f"- hosts: localhost\n  tasks:\n    - ansible.builtin.file: {{path: {made}, state: absent}}\n"
    )
    playbook = play(
        f"""
        - name: make a file
          ansible.builtin.copy: {{dest: {made}, content: patched}}
        - name: take a while
          ansible.builtin.command: sleep 0.3
          changed_when: false
        - name: not here
          ansible.builtin.command: "false"
          when: false
        - name: may fail
          ansible.builtin.command: "false"
          ignore_errors: true
        """
    )
    patch = patch_of(playbook, clock, undo=str(gone))
    assert patch.impact is Impact.NONE
    patch.check()
    assert not made.exists()
    result = apply(patch, 60)
    assert result.ok, result
    assert made.read_text() == "patched"
    assert [step.name for step in result.steps] == ["make a file", "take a while", "not here", "may fail"]
    assert result.steps[1].length_ns >= 300_000_000
    for earlier, later in zip(result.steps, result.steps[1:], strict=False):
        assert earlier.ended_raw_ns <= later.began_raw_ns
    assert [task["status"] for task in result.facts["tasks"]] == ["changed", "ok", "skipped", "ignored"]
    assert result.facts["summary"] == "1 changed, 1 ignored, 1 ok, 1 skipped"
    assert patch.undo().startswith(f"{gone}: 1 changed")
    assert not made.exists()


@needs_ansible
def test_a_task_that_fails(play: Callable[..., str], clock: HostClock, apply: Apply) -> None:
    playbook = play(
        """
        - block:
            - name: first try
              ansible.builtin.command: "false"
          rescue:
            - name: second try
              ansible.builtin.shell: echo no space left >&2; exit 3
        - name: never reached
          ansible.builtin.command: "true"
        """
    )
    result = apply(patch_of(playbook, clock, undo=playbook), 60)
    assert result.why == "task second try failed on localhost: non-zero return code (no space left)"
    assert [step.name for step in result.steps] == ["first try", "second try"]
    with pytest.raises(MachineError, match="not undone: task second try failed"):
        patch_of(playbook, clock, undo=playbook).undo()


@needs_ansible
def test_a_loop_tells_of_the_bad_item(play: Callable[..., str], clock: HostClock, apply: Apply) -> None:
    playbook = play(
        """
        - name: each
          ansible.builtin.fail: {msg: "bad {{ item }}"}
          when: item == 2
          loop: [1, 2, 3]
        """
    )
    assert apply(patch_of(playbook, clock), 60).why == "task each failed on localhost: bad 2"


@needs_ansible
def test_several_hosts_and_one_unreachable(
    play: Callable[..., str], tmp_path: Path, clock: HostClock, apply: Apply
) -> None:
    inventory = tmp_path / "hosts.ini"
    inventory.write_text(
        "here ansible_connection=local ansible_python_interpreter='{{ ansible_playbook_python }}'\n"
        "nowhere ansible_host=127.0.0.1 ansible_port=1 ansible_ssh_retries=0\n"
    )
    playbook = play("- name: look\n  ansible.builtin.command: 'true'")
    result = apply(patch_of(playbook, clock, inventory=str(inventory)), 60)
    assert result.why.startswith("task look: nowhere is unreachable: ")
    assert {step.name for step in result.steps} == {"here: look", "nowhere: look"}


@needs_ansible
def test_what_takes_too_long_is_killed(play: Callable[..., str], clock: HostClock, apply: Apply) -> None:
    marker = f"61.{os.getpid()}"
    playbook = play(f"- name: sleeper\n  ansible.builtin.command: sleep {marker}")
    result = apply(patch_of(playbook, clock), 6)
    assert result.why.startswith("still running after ")
    assert result.why.endswith(", killed, in task sleeper on localhost")
    assert [step.name for step in result.steps] == ["sleeper"]
    end = time.monotonic() + 5
    while running(marker):
        assert time.monotonic() < end
        time.sleep(0.02)


@needs_ansible
def test_nothing_done_is_not_done(
    play: Callable[..., str], tmp_path: Path, clock: HostClock, apply: Apply
) -> None:
    playbook = play("- ansible.builtin.command: 'true'", head="hosts: elsewhere")
    assert apply(patch_of(playbook, clock), 60).why.startswith("no task was run")


@needs_ansible
def test_the_users_settings_do_not_count(
    play: Callable[..., str], tmp_path: Path, clock: HostClock, apply: Apply, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "elsewhere" / "ansible.cfg"
    broken.parent.mkdir()
    broken.write_text("[defaults]\nstdout_callback = no_such_callback\nstrategy = no_such_strategy\n")
    monkeypatch.setenv("ANSIBLE_CONFIG", str(broken))
    monkeypatch.setenv("ANSIBLE_STRATEGY", "no_such_strategy")
    monkeypatch.setenv("PYTHONHOME", "/no/such/python")
    monkeypatch.setenv("LC_ALL", "C")
    playbook = play("- name: look\n  ansible.builtin.command: 'true'")
    assert apply(patch_of(playbook, clock), 60).ok
    (tmp_path / "ansible.cfg").write_text(broken.read_text())  # beside the playbook: it does
    assert not apply(patch_of(playbook, clock), 60).ok


@needs_ansible
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("- hosts: all\n  tasks:\n    - no_such_module_at_all: {}\n", "no_such_module_at_all"),
        ("- hosts: [\n", "Ansible refuses the playbook"),
        ("[]\n", "at least one play"),
        ("{}\n", "Ansible refuses the playbook"),
        ("\0\1\2", "Ansible refuses the playbook"),
    ],
)
def test_playbooks_that_are_none(
    tmp_path: Path, text: str, why: str, clock: HostClock, refusal: Refusal
) -> None:
    path = tmp_path / "play.yaml"
    path.write_text(text)
    assert why in refusal(patch_of(str(path), clock)).what


@pytest.fixture
def harmless(tmp_path: Path) -> tuple[Path, Path]:
    """A program called reboot that makes a file, and the file."""
    program, done = tmp_path / "bin" / "reboot", tmp_path / "rebooted"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n: >{done}\n")
    program.chmod(0o755)
    return program, done


@needs_ansible
def test_a_reboot_of_this_machine_is_refused(
    play: Callable[..., str], harmless: tuple[Path, Path], clock: HostClock, refusal: Refusal
) -> None:
    program, _ = harmless
    error = refusal(patch_of(play(f"- name: the end\n  command: {program}"), clock))
    assert error.what == "this would reboot the host or shut it down: task the end: reboot"
    good = play("- command: 'true'", name="good.yaml")
    assert refusal(patch_of(good, clock, undo=play(f"- command: {program}"))).what.endswith("command: reboot")


@needs_ansible
@pytest.mark.parametrize("there", ["localhost ansible_connection=local", "web ansible_connection=local", ""])
def test_one_in_an_included_file_is_stopped_before_it_is_done(
    play: Callable[..., str],
    harmless: tuple[Path, Path],
    tmp_path: Path,
    clock: HostClock,
    apply: Apply,
    there: str,
) -> None:
    program, done = harmless
    (tmp_path / "more.yaml").write_text(f"- name: the end\n  command: {program}\n  ignore_errors: true\n")
    inventory = tmp_path / "inventory"
    inventory.write_text(f"{there}\n")
    patch = patch_of(
        play("- name: before\n  command: 'true'\n- include_tasks: more.yaml"),
        clock,
        inventory=str(inventory) if there else "",
    )
    patch.check()
    result = apply(patch, 60)
    assert not result.ok
    assert "reboot is refused: it would reboot the host or shut it down" in result.why
    assert not done.exists()


@needs_ansible
def test_missing_files(play: Callable[..., str], tmp_path: Path, clock: HostClock, refusal: Refusal) -> None:
    gone, playbook = str(tmp_path / "gone"), play("- ansible.builtin.command: 'true'")
    assert refusal(patch_of(gone, clock)).what == "no such Ansible playbook"
    assert refusal(patch_of(playbook, clock, undo=gone)).what == "no such Ansible playbook"
    assert refusal(patch_of(playbook, clock, inventory=gone)).what == "no such inventory"


def test_without_ansible(
    play: Callable[..., str],
    tmp_path: Path,
    clock: HostClock,
    refusal: Refusal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    error = refusal(patch_of(play("- debug:"), clock))
    assert error.what == "ansible-playbook is not installed"
    assert "ansible-core" in error.hint


def test_a_record_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "steps"
    line = '{"name": "a", "host": "h", "began": 1, "ended": %s, "status": "%s"}\n'
    path.write_text(line % ("null", "running") + line % (5, "ok") + '{"name": "b", "ho')
    assert ansible.read_tasks(path) == [ansible.Task("a", "h", 1, 5, "ok")]
    assert ansible.read_tasks(tmp_path / "none") == []
