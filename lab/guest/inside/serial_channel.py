"""The virtio-serial channels: a part of the probe, and of the program that sets the clock.

Beside SSH it needs no network, no sshd and no agent: what the host writes into a socket of its own comes out
of a device here. The device is found by its name in sysfs, as there may be no udev. It can be opened by one
program at a time, and tells only by POLLHUP whether anybody is at the other end (Linux,
drivers/char/virtio_console.c); select(2) would then be woken for ever, so it is asked now and then instead.
"""

import os
import select

from lab.guest.inside.files import text_of

PORT = "org.freezelab.probe.0"
PUSH_PORT = "org.freezelab.push.0"
PORTS = "/sys/class/virtio-ports"


def device(name: str = PORT) -> str:
    """The path of the device of the channel with this name; "" when this guest has none."""
    try:
        for port in os.listdir(PORTS):
            if text_of("%s/%s/name" % (PORTS, port)) == name:
                return "/dev/" + port
    except OSError:
        pass
    return ""


class SerialChannel:
    """inputs: what to select on for lines from the host: nothing while nobody is there."""

    def __init__(self) -> None:
        self.path, self.file = device(), -1
        self.inputs = []  # type: list[int]
        self.waiting = b""
        self.poll = select.poll()

    def look(self) -> None:
        """Open the device if it can be had now, and see whether the host is there."""
        if self.inputs or not self.path:
            return
        if self.file < 0:
            try:
                self.file = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
            except OSError:  # an earlier probe has it still
                return
            self.poll.register(self.file, select.POLLIN)
        if not any(events & (select.POLLHUP | select.POLLERR) for _, events in self.poll.poll(0)):
            self.inputs, self.waiting = [self.file], b""

    def lines(self) -> "list[bytes]":
        """Whole lines that have come."""
        try:
            data = os.read(self.file, 4096)
        except OSError:
            data = b""
        if not data:
            self.inputs = []
        whole = (self.waiting + data).split(b"\n")
        self.waiting = whole.pop()
        return whole

    def answer(self, line: bytes) -> None:
        """Send it if there is room for it: the host asks again."""
        try:
            os.write(self.file, line)
        except OSError:
            self.inputs = []
