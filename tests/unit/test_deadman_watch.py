"""What the dead-man does in which order; that it does it right: tests/driver/test_dead_man.py."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

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
