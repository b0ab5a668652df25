"""SSH to guests. Host keys are pinned: a guest that shows another key is refused."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass

import paramiko

from lab.errors import GuestError, GuestGone
from lab.guest.address import RefusedError, SshServer
from lab.guest.banner import LISTENS_S, STAGGER_S
from lab.guest.connections import GuestConnections, Link
from lab.guest.stamped_socket import Wire
from lab.ports import Clock
from lab.process.pace import paced

# The lab's own errors report lost connections; paramiko's threads would print them to the terminal as well.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)

REST_S = 1.0
"""How long to wait for the last output of an ended command. If it left a program behind, the output never
ends."""

GONE_S = 5.0
"""Time limit from the end of a guest's commands until libvirt reports the guest's end: 2.1 to 2.3 s under
TCG."""

BRIEF = 60
"""The most characters of a command that an error quotes."""

OPEN_S = 30.0
"""The longest time until sshd lets a command begin."""
HANDSHAKE_S = 30.0
SILENCE_S = 10.0
SLOW_LOGINS = 4
"""How many times as long as a guest's login has taken the next one may take, on a host that became busier."""


@dataclass(frozen=True)
class Result:
    """The result of a program in the guest."""

    status: int
    out: str
    err: str


def _message(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "the other end has closed the connection, or it is cut"
    return str(error) or type(error).__name__


def _brief(command: str) -> str:
    """A command as quoted in an error: its first line, shortened."""
    first, _, more = command.strip().partition("\n")
    return f"{first[:BRIEF]} …" if more or len(first) > BRIEF else first


class _Transport(paramiko.Transport):
    """A transport with channels to Unix sockets in the guest (OpenSSH, PROTOCOL, section 2.4:
    direct-streamlocal@openssh.com), which paramiko lacks: it sends an unknown channel type without
    arguments."""

    _KIND = "direct-streamlocal@openssh.com"
    _arguments: tuple[bytes, bytes, int] | None = None

    def open_local(self, path: str, timeout_s: float) -> paramiko.Channel:
        self._arguments = (path.encode(), b"", 0)  # the two others are reserved
        return self.open_channel(self._KIND, timeout=timeout_s)

    def _send_user_message(self, data: paramiko.Message) -> None:
        if self._arguments is not None:
            path, reserved, number = self._arguments
            self._arguments = None
            data.add_string(path).add_string(reserved).add_int(number)
        super()._send_user_message(data)  # type: ignore[misc]


class SSH:
    """One SSH connection to one guest. A context manager. login_s: the time from sshd's banner to the end of
    the login, in seconds."""

    def __init__(
        self,
        address: SshServer,
        transport: _Transport,
        wire: Wire,
        clock: Clock,
        connections: GuestConnections,
        link: Link,
    ) -> None:
        self.address, self.transport, self.wire, self.clock = address, transport, wire, clock
        self._connections, self._link = connections, link
        self.login_s = 0.0

    @classmethod
    def connect(
        cls,
        address: SshServer,
        clock: Clock,
        timeout_s: float,
        connections: GuestConnections | None = None,
        *,
        handshake_s: float | None = None,
        listens: bool = False,
    ) -> SSH:
        """Connect, check the guest's host key against the pinned one, and log in.

        timeout_s: time limit for sshd's banner, in seconds. handshake_s: time limit for the rest; by default
        the remaining time, and at least HANDSHAKE_S. listens: sshd is
        known to listen. life: can cut this connection and end all waiting on it.
        GuestGone: the connection was cut. GuestError: no answer in time, or the connection broke.
        RefusedError: the host key is another one, or the login is refused. MachineError: the lab's own key
        cannot be used.
        """
        login = address.login()
        where = f"guest {address.guest}"
        deadline = time.monotonic() + timeout_s
        connections = connections or GuestConnections()
        try:
            sock = address.reach(deadline, connections.check, LISTENS_S if listens else STAGGER_S)
        except ConnectionRefusedError as error:
            raise GuestError(f"SSH is refused at {address}", where=where) from error
        except TimeoutError as error:
            raise GuestError(
                f"no answer to SSH at {address} within {timeout_s:.0f} s", where=where
            ) from error
        wire = Wire(sock, clock)
        try:
            link = connections.link(sock)
        except GuestGone:
            sock.close()
            raise
        transport = _Transport(wire)  # type: ignore[arg-type]  # it replaces the socket
        address.arrange(transport.get_security_options())
        spoke = time.monotonic()
        limit = handshake_s or max(paced(HANDSHAKE_S), deadline - spoke)
        transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = limit
        try:
            transport.start_client(timeout=limit)
            address.verify(transport.get_remote_server_key())
            login(transport)
        except GuestError:
            transport.close()
            connections.drop(link)
            raise
        except paramiko.AuthenticationException as error:
            connections.drop(link)
            # paramiko raises the same for a guest that is silent or gone.
            if not transport.is_active() or "timeout" in str(error):
                transport.close()
                if link.why is not None:
                    raise link.why.again() from error
                raise GuestError(f"SSH failed at {address}: {_message(error)}", where=where) from error
            transport.close()
            raise RefusedError(
                f"SSH login refused at {address}", where=where, hint=address.refused
            ) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            transport.close()
            connections.drop(link)
            if link.why is not None:
                raise link.why.again() from error
            raise GuestError(f"SSH failed at {address}: {_message(error)}", where=where) from error
        made = cls(address, transport, wire, clock, connections, link)
        made.login_s = time.monotonic() - spoke
        return made

    def again(self, timeout_s: float) -> SSH:
        """Another connection to the same guest. Raises the same errors as connect, also when the guest falls
        silent during the handshake, because a rebooted guest leaves its connections hanging."""
        within = min(timeout_s + 1, max(SILENCE_S, SLOW_LOGINS * self.login_s))
        return SSH.connect(self.address, self.clock, timeout_s, self._connections, handshake_s=within)

    def __enter__(self) -> SSH:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.transport.close()
        self._connections.drop(self._link)

    @property
    def gone(self) -> GuestGone | None:
        """Why the connection was cut; None when it was not."""
        return self._link.why.again() if self._link.why is not None else None

    def _lost(self, what: str) -> GuestError:
        return self.gone or GuestError(what, where=f"guest {self.address.guest}")

    @property
    def alive(self) -> bool:
        return self.transport.is_active()

    def channel(self, command: str, timeout_s: float = OPEN_S) -> paramiko.Channel:
        """A channel on which `command` runs. GuestError when the connection is gone, or the guest does not
        answer in time."""
        deadline = time.monotonic() + timeout_s
        try:
            channel = self.transport.open_session(timeout=timeout_s)
            channel.exec_command(self.address.command(command))
        except (paramiko.SSHException, OSError, EOFError) as error:
            if self.alive and self.gone is None and time.monotonic() >= deadline:
                raise self._lost(f"{_brief(command)}: no answer within {timeout_s:.0f} s") from error
            raise self._lost(f"the SSH connection was lost: {_message(error)}") from error
        return channel

    def socket(self, path: str, timeout_s: float = 30.0) -> paramiko.Channel | None:
        """A channel to the Unix socket at `path` in the guest; None when no program listens there, or sshd
        does not allow it. GuestError when the connection is gone."""
        try:
            return self.transport.open_local(path, timeout_s)
        except paramiko.ChannelException:
            return None
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._lost(f"the SSH connection was lost: {_message(error)}") from error

    def run(self, command: str, timeout_s: float = 60.0, stdin: bytes = b"") -> Result:
        """Run a shell command in the guest to its end. GuestError on a lost connection, on a time-out, and
        when a signal ends the command, as in a guest that shuts down. It contains the reason of the guest's
        end if that is known soon after."""
        timeout_s = paced(timeout_s)
        deadline, rest_until = time.monotonic() + timeout_s, 0.0
        try:
            channel = self.channel(command, min(timeout_s, paced(OPEN_S)))
        except GuestError as error:
            if self.alive or self.gone is not None:
                raise
            raise self._ended(command, "the connection was lost") from error
        channel.settimeout(timeout_s)
        out, err = bytearray(), bytearray()
        try:
            if stdin:
                channel.sendall(stdin)
            channel.shutdown_write()
            while True:
                over = channel.eof_received or channel.closed  # read before the output that precedes it
                if channel.recv_ready():
                    out += channel.recv(65536)
                elif channel.recv_stderr_ready():
                    err += channel.recv_stderr(65536)
                elif channel.exit_status_ready():
                    # Under load sshd may send the status before the last output.
                    rest_until = rest_until or time.monotonic() + REST_S
                    if over or time.monotonic() > rest_until:
                        break
                    time.sleep(0.002)
                elif time.monotonic() > deadline or not self.alive:
                    raise TimeoutError
                else:
                    channel.status_event.wait(0.01)
        except (paramiko.SSHException, OSError, EOFError) as error:  # EOFError: it was cut as we wrote
            if self.alive:
                raise self._lost(f"{_brief(command)}: not done after {timeout_s:.0f} s") from error
            raise self._ended(command, "the connection was lost") from error
        finally:
            with suppress(paramiko.SSHException, OSError, EOFError):
                channel.close()
        status = channel.recv_exit_status()
        if status < 0:  # after a signal or a lost connection, there is no exit status
            raise self._ended(command, "ended by a signal" if self.alive else "the connection was lost")
        return Result(status, out.decode(errors="replace"), err.decode(errors="replace"))

    def _ended(self, command: str, how: str) -> GuestError:
        """The error of an interrupted command. It waits for the guest's end, because a guest that shuts down
        ends its commands shortly before."""
        deadline = time.monotonic() + GONE_S
        while self.gone is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return self._lost(f"{_brief(command)}: {how}")

    def check(self, command: str, timeout_s: float = 60.0, stdin: bytes = b"") -> str:
        """Run a command as run() does, and return its standard output. GuestError unless it exits with 0."""
        result = self.run(command, timeout_s, stdin)
        if result.status != 0:
            last = (result.err or result.out).strip().splitlines()[-1:] or ["no output"]
            raise GuestError(
                f"{_brief(command)}: exited with {result.status}: {last[0]}",
                where=f"guest {self.address.guest}",
            )
        return result.out
