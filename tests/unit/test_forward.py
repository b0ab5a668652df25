"""Connections relayed between channels of SSH and sockets: a real SSH connection on the loopback, whose other
end, as a guest's sshd would, opens a channel for each connection."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import paramiko
import pytest
from paramiko.common import AUTH_SUCCESSFUL

from lab.guest.channel_relay import ChannelRelay
from lab.guest.forward import ADDRESS, PORT, _request
from lab.hosts.fleet_events import SECRET_BYTES, FleetListener

BIG = os.urandom(6 << 20)
"""More than the windows of the channel and the buffers of the sockets."""


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


class Sshd(paramiko.ServerInterface):
    def check_auth_none(self, username: str) -> int:
        return AUTH_SUCCESSFUL

    def check_port_forward_request(self, address: str, port: int) -> int:
        return port if (address, port) == (ADDRESS, PORT) else 0

    def cancel_port_forward_request(self, address: str, port: int) -> None:
        pass


@dataclass
class Wired:
    """A relay between a guest's sshd and a service."""

    sshd: paramiko.Transport
    client: paramiko.Transport
    relay: ChannelRelay
    served: list[socket.socket] = field(default_factory=list)

    def open(self) -> tuple[paramiko.Channel, socket.socket]:
        """A connection made in the guest: the guest's end, and the service's."""
        before = len(self.served)
        channel = self.sshd.open_forwarded_tcpip_channel((ADDRESS, 40000), (ADDRESS, PORT))
        channel.settimeout(30)
        until(lambda: len(self.served) > before)
        return channel, self.served[-1]

    def open_in_vain(self) -> None:
        """A connection that is made in the guest, and closed at once."""
        with suppress(paramiko.SSHException):  # it was closed before paramiko could hand it over
            channel = self.sshd.open_forwarded_tcpip_channel((ADDRESS, 40000), (ADDRESS, PORT))
            channel.settimeout(30)
            assert channel.recv(9) == b""


@pytest.fixture
def wired() -> Iterator[Wired]:
    """Nothing is left of it in the end: no thread, no descriptor."""
    served: list[socket.socket] = []

    def connect() -> socket.socket:
        ours, theirs = socket.socketpair()
        theirs.settimeout(30)
        served.append(theirs)
        return ours

    threads, files = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    ends = socket.socketpair()
    sshd = paramiko.Transport(ends[0])
    sshd.add_server_key(paramiko.ECDSAKey.generate())
    sshd.start_server(threading.Event(), Sshd())
    client = paramiko.Transport(ends[1])
    client.start_client(timeout=30)
    client.auth_none("root")
    made = Wired(sshd, client, ChannelRelay(connect, "web-0"), served)
    _request(client, made.relay.add, 30)
    yield made
    made.relay.close()
    for transport in (client, sshd):
        transport.close()
        transport.join(30)
    for one in served:
        one.close()
    until(lambda: set(threading.enumerate()) <= threads)
    until(lambda: len(os.listdir("/proc/self/fd")) == files)  # noqa: PTH208


def read_all(end: paramiko.Channel | socket.socket) -> bytes:
    said = b""
    while data := end.recv(1 << 20):
        said += data
    return said


def test_each_side_may_end_first(wired: Wired) -> None:
    guest, service = wired.open()
    guest.sendall(b"asks")
    guest.shutdown_write()
    assert read_all(service) == b"asks"  # it knows that there is no more
    service.sendall(b"answers")
    service.close()
    assert read_all(guest) == b"answers"
    until(lambda: guest.closed)
    guest, service = wired.open()
    service.sendall(b"answers")
    service.shutdown(socket.SHUT_WR)
    assert read_all(guest) == b"answers"
    guest.sendall(b"asks on")
    guest.shutdown_write()
    assert read_all(service) == b"asks on"


def test_much_both_ways_past_slow_readers(wired: Wired) -> None:
    guest, service = wired.open()
    answering = threading.Thread(target=service.sendall, args=(BIG,))
    asking = threading.Thread(target=guest.sendall, args=(BIG,))
    for thread in (answering, asking):
        thread.start()
    quick_guest, quick_service = wired.open()
    time.sleep(0.3)  # all that can be in between is full
    quick_guest.sendall(b"x")
    assert quick_service.recv(9) == b"x"  # and another connection is none the worse for it
    got = b""
    while len(got) < len(BIG):
        got += service.recv(1 << 16)
    assert got == BIG
    got = b""
    while len(got) < len(BIG):
        got += guest.recv(1 << 16)
    assert got == BIG
    for thread in (answering, asking):
        thread.join(30)


def test_two_hundred_idle_connections(wired: Wired) -> None:
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    pairs = [wired.open() for _ in range(200)]
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) <= files + 2 * len(pairs)  # noqa: PTH208 - one is the test's own
    for number, (guest, _) in enumerate(pairs):
        guest.sendall(b"%d" % number)
    assert [service.recv(9) for _, service in pairs] == [b"%d" % n for n in range(200)]
    _close_in_turn(pairs[:100])
    pairs[150][1].sendall(b"still")
    assert pairs[150][0].recv(9) == b"still"
    _close_in_turn(pairs[100:])


def _close_in_turn(pairs: list[tuple[paramiko.Channel, socket.socket]]) -> None:
    """Both ends of SSH are this process. When many channels are closed at once, by their collection too, each
    end's thread may wait for the other one to read what it writes, without end."""
    for guest, service in pairs:
        guest.close()
        assert service.recv(9) == b""


def test_a_service_that_is_not_there_ends_the_connection(wired: Wired) -> None:
    def refused() -> socket.socket:
        raise ConnectionRefusedError

    connect, wired.relay._connect = wired.relay._connect, refused
    wired.open_in_vain()
    wired.relay._connect = connect
    guest, service = wired.open()
    service.sendall(b"here")
    assert guest.recv(9) == b"here"


def test_what_ends_with_the_connection_and_with_the_relay(wired: Wired) -> None:
    guest, service = wired.open()
    wired.relay.close()
    assert service.recv(9) == b""
    assert guest.recv(9) == b""
    wired.open_in_vain()


def test_a_service_is_told_that_ssh_was_cut(wired: Wired) -> None:
    _, service = wired.open()
    _, silent = wired.open()  # never ends by itself
    wired.sshd.sock.close()
    for end in (service, silent):
        with suppress(ConnectionResetError):
            assert end.recv(9) == b""
    until(lambda: not wired.relay._lines)


@pytest.mark.parametrize("wrong", [b"", b"GET / HTTP/1.1\r\n\r\n", b"0" * SECRET_BYTES, b"web-0"])
def test_a_connection_from_a_host_of_a_fleet_is_of_the_guest_whose_secret_it_begins_with(
    wired: Wired, wrong: bytes
) -> None:
    """Each comes to the listener of its guest, and one without a secret to none."""

    def connect(guest: str) -> socket.socket:
        ours, theirs = socket.socketpair()
        theirs.settimeout(30)
        theirs.sendall(guest.encode())
        wired.served.append(theirs)
        return ours

    listener = FleetListener({name: partial(connect, name) for name in ("web-0", "web-1")})
    assert len(set(listener.secrets.values())) == 2
    _request(wired.client, listener.take, 30)
    for guest, secret in listener.secrets.items():
        channel = wired.sshd.open_forwarded_tcpip_channel((ADDRESS, 40000), (ADDRESS, PORT))
        channel.settimeout(30)
        channel.sendall(secret.encode() + b"asks")
        assert channel.recv(len(guest)) == guest.encode()
        assert wired.served[-1].recv(4) == b"asks"
    channel = wired.sshd.open_forwarded_tcpip_channel((ADDRESS, 40000), (ADDRESS, PORT))
    channel.settimeout(30)
    channel.sendall(wrong)
    channel.shutdown_write()
    assert channel.recv(9) == b""
    assert len(wired.served) == 2
    listener.close()
