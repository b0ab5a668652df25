"""What the dead-man does in which order; that it does it right: tests/driver/test_dead_man.py."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.errors import HypervisorError
from lab.hypervisor.deadman.rescue import Rescued
from lab.hypervisor.deadman.watch import Guarded, Watch


def test_a_guest_that_it_started_anew_is_not_told_as_ended_when_its_controller_is_gone(
    tmp_path: Path,
) -> None:
    """A silent controller is ended so that libvirt can restore the guest; its end is then seen as well."""
    results = iter(
        [Rescued("resumed", "it was restored from its file"), Rescued("ended", "its process has ended")]
    )
    opened = SimpleNamespace(
        plan=SimpleNamespace(guest="web-0", needs_libvirt=True, lingers=False),
        process=SimpleNamespace(alive=False),
        rescue=lambda: next(results),
    )
    history = tmp_path / "events.jsonl"
    history.touch()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    watch = Watch(ours, cast(Any, SimpleNamespace(kill=lambda _wait_s: theirs.close())), history)
    guarded = Guarded(cast(Any, opened), cycle=0, until_raw_ns=0)
    watch._guarded["web-0"] = guarded
    watch._act([guarded], "the controller was silent for 3.0 s")
    watch.run()
    (line,) = history.read_text().splitlines()
    assert json.loads(line)["act"] == "resumed"
    ours.close()


class FakeOpened:
    """A rescue with the results that are to come, the last of them for good."""

    def __init__(self, *results: Rescued, needs_libvirt: bool = False) -> None:
        self.results, self.rescued = list(results), 0
        self.plan = SimpleNamespace(guest="web-0", needs_libvirt=needs_libvirt, lingers=False)
        self.process = SimpleNamespace(alive=True)
        self.processes = [self.process]

    def rescue(self) -> Rescued:
        self.rescued += 1
        return self.results.pop(0) if len(self.results) > 1 else self.results[0]


def watching(
    tmp_path: Path, opened: FakeOpened, kill: Any = lambda _wait_s: None
) -> tuple[Watch, Guarded, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setblocking(False)
    (tmp_path / "events.jsonl").touch()
    controller = SimpleNamespace(kill=kill, is_stopped=lambda: True)
    watch = Watch(ours, cast(Any, controller), tmp_path / "events.jsonl")
    guarded = Guarded(cast(Any, opened), cycle=0, until_raw_ns=2**62)
    watch._guarded["web-0"] = guarded
    return watch, guarded, theirs


def written(tmp_path: Path) -> list[tuple[str, str]]:
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    return [(event["act"], event["text"]) for event in map(json.loads, lines)]


def test_a_controller_that_waits_for_its_guests_to_be_guarded_is_not_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing while a monitor is slow to answer, and would have its hand-over called off."""
    opened = FakeOpened(Rescued("resumed"))
    watch, _, theirs = watching(tmp_path, opened)
    monkeypatch.setattr("lab.hypervisor.deadman.watch.SILENT_S", 0.2)
    monkeypatch.setattr(watch, "_guard", lambda _data, _files: time.sleep(0.3))
    theirs.send(b'{"kind": "guard"}')
    watch._listen()
    watch._look()
    assert opened.rescued == 0
    time.sleep(0.3)
    watch._listen()
    watch._look()
    assert opened.rescued == 1


def test_it_goes_on_trying_when_nobody_else_can(tmp_path: Path) -> None:
    """QEMU did not answer for as long as one try takes."""
    hung = Rescued("failed", "QEMU gives no answer")
    opened = FakeOpened(hung, hung, Rescued("resumed", "it was resumed"))
    watch, _, theirs = watching(tmp_path, opened)
    theirs.close()
    watch.run()
    assert written(tmp_path) == [("failed", "QEMU gives no answer"), ("resumed", "it was resumed")]


def test_it_does_not_go_on_for_a_guest_that_has_ended(tmp_path: Path) -> None:
    opened = FakeOpened(Rescued("failed", "no such file"))
    opened.process.alive = False
    watch, _, theirs = watching(tmp_path, opened)
    theirs.close()
    watch.run()
    assert opened.rescued == 1


def test_a_controller_that_does_not_end_keeps_nobody_from_being_rescued(tmp_path: Path) -> None:
    """It hangs in the kernel, and so does libvirt; the other guest's QEMU has all that it needs."""

    def hangs(_wait_s: float) -> None:
        raise HypervisorError("was killed and does not end")

    opened = FakeOpened(Rescued("failed", "another process has it"), needs_libvirt=True)
    watch, guarded, _theirs = watching(tmp_path, opened, hangs)
    other = FakeOpened(Rescued("resumed", "it was resumed"))
    watch._act([guarded, Guarded(cast(Any, other), 0, 2**62)], "the controller was silent for 3.0 s")
    assert other.rescued == 1


def test_a_line_that_does_not_fit_the_disk_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the controller's next line would be behind a piece of it, and lost."""
    watch, guarded, _theirs = watching(tmp_path, FakeOpened(Rescued("resumed", "it was resumed")))
    path, write = tmp_path / "events.jsonl", os.write
    path.write_text('{"seq":0}\n')
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:20]))
    watch._act([guarded], "the budget was over")
    assert path.read_text() == '{"seq":0}\n'
