"""The controller's orders to the network's process, which ends when the controller does: its end of their
socket pair is then an end of file.

    {do: start, host, places, limits, seed, bridge}   {why}: why the host has no place, "" if it has one
    {do: freeze, guest}                               -
    {do: thaw, guest, its}                            -
    {do: counts}                                      {counts}
    {do: moves}                                       {moves}: addresses that have moved; [] when all are told
"""

from __future__ import annotations

import json
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from lab.core.network import FrameCounts
from lab.host.network.moves import AddressMoves

MOST = 1 << 16
"""Bytes of a message."""

_MOVES = 200
"""How many of them fit into one."""

LARGEST_FRAME = 1 << 17
AT_ONCE = 32
"""Frames that are read from one place before it is the next one's turn."""


def connected(path: str) -> socket.socket:
    """A socket that sends to the QEMU that listens there. OSError when none does."""
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.setblocking(False)
    try:
        sender.connect(path)
    except OSError:
        sender.close()
        raise
    return sender


class NetworkProcess(ABC):
    """Serves the controller at the other end of `control`, until that is closed. moves: None without a place
    of the host."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.moves: AddressMoves | None = None

    def run(self) -> None:
        """Serve until the controller has gone."""
        try:
            while self.serve():
                pass
        finally:
            self.close()

    def obey(self) -> bool:
        """Carry out the next order. False when the controller has gone."""
        order = next_order(self.control)
        if order is None:
            return False
        if order["do"] == "counts":
            self.answer(counts={name: asdict(one) for name, one in self.counts().items()})
        elif order["do"] == "moves":
            moves = self.moves.take(_MOVES) if self.moves is not None else []
            self.answer(moves=[asdict(one) for one in moves])
        elif order["do"] == "freeze":
            self.freeze(order["guest"])
        else:
            self.thaw(order["guest"], order["its"])
        return True

    def answer(self, **data: Any) -> None:
        """Answer an order."""
        with suppress(OSError):
            self.control.send(json.dumps(data).encode())

    @abstractmethod
    def serve(self) -> bool:
        """One round. False when the controller has gone."""

    @abstractmethod
    def counts(self) -> Mapping[str, FrameCounts]:
        """What has passed each place."""

    @abstractmethod
    def freeze(self, guest: str) -> None:
        """A guest is frozen."""

    @abstractmethod
    def thaw(self, guest: str, its: str) -> None:
        """A guest is about to run, in the QEMU that listens at `its`."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back."""


def next_order(control: socket.socket) -> dict[str, Any] | None:
    """The next order; None when the controller has gone."""
    try:
        data = control.recv(MOST)
    except OSError:
        return None
    if not data:
        return None
    order: dict[str, Any] = json.loads(data)
    return order


def why(error: OSError) -> str:
    """ "unshare: Operation not permitted"."""
    return ": ".join(filter(None, (str(error.filename or ""), error.strerror)))
