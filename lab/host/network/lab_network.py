"""The lab's own network, as the controller sees it: starts the switch's process, and speaks to it."""

from __future__ import annotations

import json
import select
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from lab.core.network import (
    HOST,
    HOST_ADDRESS,
    UNLIMITED,
    AddressMove,
    FrameCounts,
    MoveCause,
    NetworkLimits,
    NetworkPlace,
)
from lab.errors import MachineError
from lab.host.network.orders import MOST
from lab.process import runner
from lab.process.child import Started

_START_S = 20.0
_ANSWER_S = 5.0
_END_S = 3.0
_FORBIDDEN = (
    "it needs a network namespace of its own: run as root, or allow unprivileged user namespaces "
    "(sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, "
    "kernel.apparmor_restrict_unprivileged_userns) and /dev/net/tun"
)


@dataclass(frozen=True)
class Attachment:
    """A guest's place, and its sockets. ours: the path that its QEMU sends to; its: the path that its first
    QEMU listens at."""

    place: NetworkPlace
    ours: Path
    its: Path


class LabNetwork:
    """One network of guests, by name, and the host's own place in it. A context manager; at its end nothing
    is left. Its methods may be called from any thread.

    limits: those of the host's place. seed: of the losses. bridge: a Linux bridge forwards the frames, and no
    limits apply. no_host: why the host has no place in it, "" when it has.
    """

    def __init__(
        self,
        guests: Mapping[str, Attachment],
        limits: NetworkLimits = UNLIMITED,
        seed: int = 0,
        *,
        bridge: bool = False,
    ) -> None:
        self._guests, self.limits, self.seed, self.bridge = dict(guests), limits, seed, bridge
        self.no_host = ""
        self._lock = threading.Lock()
        self._process: Started | None = None
        self._end: socket.socket | None = None

    def __enter__(self) -> LabNetwork:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the switch; guests may be started before or after. MachineError when that fails."""
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = runner.start(
                [sys.executable, "-P", "-m", "lab.host.network", str(its.fileno())],
                cwd=Path("/"),
                pass_fds=(its.fileno(),),
            )
        except BaseException:
            ours.close()
            raise
        finally:
            its.close()
        ours.setblocking(False)
        self._end = ours
        places = {
            name: {"ours": str(one.ours), "its": str(one.its), "limits": asdict(one.place.limits)}
            for name, one in self._guests.items()
        }
        try:
            self.no_host = self._ask(
                _START_S,
                do="start",
                host=HOST_ADDRESS,
                places=places,
                limits=asdict(self.limits),
                seed=self.seed,
                bridge=self.bridge,
            )["why"]
            if self.bridge and self.no_host:
                raise MachineError(f"the lab's network has no bridge: {self.no_host}", hint=_FORBIDDEN)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the switch, and with it the host's place. Safe to call at any time."""
        with self._lock:
            end, self._end = self._end, None
            if end is not None:
                end.close()
        process, self._process = self._process, None
        if process is not None:
            process.stop(_END_S, first=None)
        for one in self._guests.values():
            one.ours.unlink(missing_ok=True)

    # -- who is where ------------------------------------------------------------------------------

    def address(self, name: str) -> str:
        """The IP address of a guest, or of HOST. KeyError for others."""
        return self.names[name]

    @property
    def names(self) -> dict[str, str]:
        """IP addresses by name, the host's among them."""
        return {HOST: HOST_ADDRESS.partition("/")[0]} | {
            name: one.place.ip for name, one in self._guests.items()
        }

    def keeping(self, guest: str) -> str:
        """What becomes of frames for it while it is frozen: "queue 1000", "port of a bridge". KeyError when
        it is not in this network."""
        limits = self._guests[guest].place.limits
        return "port of a bridge" if self.bridge else f"queue {limits.queue}"

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs a program at the host's place. Its clocks and files are the host's. The
        program has to be ended before the network: it would keep the namespace. MachineError where the host
        has no place."""
        self.check()
        if self.no_host:
            raise MachineError(f"the host has no place in the lab's network: {self.no_host}", hint=_FORBIDDEN)
        pid = str(self._process.pid if self._process is not None else 0)
        spaces = ["--net"] if _of_one_user(pid) else ["--user", "--net", "--preserve-credentials"]
        return [runner.find("nsenter"), "--target", pid, *spaces, "--", *argv]

    # -- its state ---------------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """The switch's process; None when it does not run."""
        return self._process.pid if self.alive and self._process is not None else None

    @property
    def alive(self) -> bool:
        """Whether the switch runs."""
        return self._process is not None and self._process.status is None

    def check(self) -> None:
        """MachineError when the switch does not run."""
        if not self.alive:
            status = self._process.status if self._process is not None else None
            ended = "was not started" if self._process is None else f"has ended with status {status}"
            raise MachineError(f"the switch of the lab's network {ended}", hint="run it again")

    def freeze(self, guest: str) -> None:
        """A guest is frozen: frames for it wait in the switch, up to its queue's limit. KeyError when it is
        not in this network."""
        self._tell(do="freeze", guest=self._known(guest))

    def thaw(self, guest: str, its: Path) -> None:
        """A guest is about to run again. its: the path at which its QEMU, or its successor, listens. KeyError
        when it is not in this network."""
        self._tell(do="thaw", guest=self._known(guest), its=str(its))

    def counts(self) -> dict[str, FrameCounts]:
        """What has passed each place so far, by name, the host's among them. MachineError when the switch
        does not answer."""
        found: dict[str, dict[str, int]] = self._ask(_ANSWER_S, do="counts")["counts"]
        return {name: FrameCounts(**counts) for name, counts in found.items()}

    def moves(self) -> list[AddressMove]:
        """Addresses that have moved since this was asked last, in order of time. MachineError when the switch
        does not answer."""
        found: list[AddressMove] = []
        while told := self._ask(_ANSWER_S, do="moves")["moves"]:
            found += [AddressMove(**{**one, "cause": MoveCause(one["cause"])}) for one in told]
        return found

    def _known(self, guest: str) -> str:
        self._guests[guest]
        return guest

    def _tell(self, **order: Any) -> None:
        """Send an order without an answer. It never waits, not even for a switch that hangs: guests may be
        frozen."""
        end = self._end
        if end is not None:
            with suppress(OSError):
                end.send(json.dumps(order).encode())

    def _ask(self, within_s: float, **order: Any) -> dict[str, Any]:
        with self._lock:
            try:
                if self._end is None:
                    raise OSError(0, "it is closed")
                with suppress(BlockingIOError):
                    while self._end.recv(MOST):  # an answer that came too late for who had asked
                        pass
                _wait(self._end, select.POLLOUT, within_s)
                self._end.send(json.dumps(order).encode())
                _wait(self._end, select.POLLIN, within_s)
                data = self._end.recv(MOST)
            except OSError as error:
                why = error.strerror or str(error)
                raise MachineError(f"the switch of the lab's network does not answer: {why}") from error
        if not data:
            raise MachineError("the switch of the lab's network has ended")
        answer: dict[str, Any] = json.loads(data)
        return answer


def _wait(end: socket.socket, for_what: int, within_s: float) -> None:
    poll = select.poll()
    poll.register(end, for_what)
    if not poll.poll(within_s * 1000):
        raise TimeoutError(0, f"nothing within {within_s:g} s")


def _of_one_user(pid: str) -> bool:
    """Whether the switch's process is in this process's user namespace."""
    try:
        return Path(f"/proc/{pid}/ns/user").readlink() == Path("/proc/self/ns/user").readlink()
    except OSError:
        return False
