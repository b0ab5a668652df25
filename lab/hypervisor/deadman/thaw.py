"""Thaws a guest's file systems without its controller, by the guest's agent, or by its kernel's SysRq key."""

from __future__ import annotations

import contextlib
import json
import secrets
import select
import socket
import time
from dataclasses import dataclass
from typing import Any, ClassVar

from lab.hypervisor.deadman.guest_process import Rescued, now
from lab.hypervisor.deadman.rescue import Opened, ResumePlan
from lab.hypervisor.qmp import MonitorError

_AGENT_S = 5.0
_SENTINEL = b"\xff"
KEYS = ("alt", "sysrq", "j")
"""Thaw all file systems (Linux, Documentation/admin-guide/sysrq.rst), where kernel.sysrq allows it."""


@dataclass(frozen=True)
class ThawFiles(ResumePlan):
    """snapshot: the file systems are frozen, and the guest may be suspended as well. agent: the socket of its
    agent's channel, which the controller holds until it ends; "": libvirt at `uri` is asked. saves: its RAM
    may be being saved."""

    agent: str = ""
    uri: str = ""
    uuid: str = ""
    saves: bool = False
    needs_libvirt: ClassVar[bool] = True

    def rescue(self, opened: Opened) -> Rescued:
        rescued = opened.process.let_run("it was resumed", leaving=self.saves)
        if rescued.act not in ("resumed", "running"):
            return rescued
        called = now()
        try:
            count = self._thaw()
        except (MonitorError, OSError, ValueError) as error:
            why = f"its agent does not thaw ({error})"
            if opened.kernel_told:
                return Rescued(
                    "failed", f"{why}; its writer thaws after the budget, if it has one", final=True
                )
            keys = [{"type": "qcode", "data": key} for key in KEYS]
            opened.process.monitor.execute("send-key", keys=keys)
            opened.kernel_told = True
            return Rescued("failed", f"{why}; its kernel was told to by Alt-SysRq-J")
        if not count:
            return rescued
        return Rescued("resumed", "its file systems were thawed", called, now())

    def _thaw(self) -> int:
        if self.agent:
            return int(ask(self.agent, "guest-fsfreeze-thaw", _AGENT_S))
        from lab.hypervisor.deadman.libvirt_monitor import thaw

        return thaw(self.uri, self.uuid, _AGENT_S)


def ask(path: str, command: str, wait_s: float) -> Any:
    """Run a command of the guest's agent over its channel, and return its result. The agent may be in the
    middle of an answer to somebody else (QEMU, qga/qapi-schema.json, guest-sync-delimited). MonitorError when
    it does not answer within `wait_s` seconds, or by an error."""
    end, number = time.monotonic() + wait_s, secrets.randbelow(1 << 31)
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(wait_s)
        channel.connect(path)
        sync = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
        channel.sendall(_SENTINEL + json.dumps(sync).encode() + b"\n")
        unread = b""
        while _SENTINEL not in unread or b"\n" not in unread.rpartition(_SENTINEL)[2]:
            unread += _received(channel, end)
        answer = json.loads(unread.rpartition(_SENTINEL)[2])
        if answer.get("return") != number:
            raise MonitorError("its agent answers something else")
        channel.sendall(json.dumps({"execute": command}).encode() + b"\n")
        unread = b""
        while b"\n" not in unread:
            unread += _received(channel, end)
    answer = json.loads(unread.partition(b"\n")[0])
    if "error" in answer:
        raise MonitorError(f"its agent's {command} failed: {answer['error'].get('desc')}")
    return answer.get("return")


def _received(channel: socket.socket, end: float) -> bytes:
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    with contextlib.suppress(BlockingIOError):
        if poll.poll(1000 * max(0.0, end - time.monotonic())) and (data := channel.recv(65536)):
            return data
    raise MonitorError("its agent does not answer")
