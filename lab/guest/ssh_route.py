"""The way to the sshd of a domain of the user's own: over TCP, through jump hosts, or through a command.

Each machine on the way has to show a host key that known_hosts knows before anything is sent to it.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import paramiko
from paramiko.agent import AgentKey, AgentSSH

from lab.core.own_domain import SshTarget
from lab.errors import FreezelabError, GuestError, MachineError
from lab.guest.address import CIPHERS, RefusedError, by_sudo, preferred
from lab.guest.banner import STAGGER_S, wait_for_banner
from lab.guest.known_hosts import KnownHosts
from lab.guest.ssh_config import SshHop, resolve
from lab.process import runner
from lab.process.child import Started

HOP_S = 20.0
"""Time limit for the handshake with one machine on the way, and for its connection to the next."""

COMMAND_S = 0.5
"""How long a ProxyCommand may take to end by itself."""

_BLOCK = 1 << 16
_RSA = ("rsa-sha2-512", "rsa-sha2-256")


class SshRoute:
    """An SshServer. sudo: whether commands are executed by sudo; is_root: whether they are root's. The
    session sets both when the user has logged in for the first time."""

    def __init__(self, guest: str, target: SshTarget, lost_s: int = 0) -> None:
        """lost_s: when a TCP connection on which nothing is acknowledged is given up, in seconds; 0: when
        Linux does, for a guest that is frozen acknowledges nothing. UsageError when ssh_config is not
        valid."""
        self.guest, self._lost_s = guest, lost_s
        self._hop = resolve(target, self.where)
        self.sudo = False
        self.is_root = self._hop.user == "root"

    @property
    def where(self) -> str:
        return f"guest {self.guest}"

    def __str__(self) -> str:
        jumps = self._hop.jumps
        return f"{self._hop} through {', '.join(map(str, jumps))}" if jumps else str(self._hop)

    @property
    def refused(self) -> str:
        keys = ", ".join(map(str, self._hop.keys)) or "none"
        agent = "and those of the agent" if self._hop.agent else "and no agent"
        return f"tried as {self._hop.user}: the keys {keys}, {agent}"

    def login(self) -> Callable[[paramiko.Transport], None]:
        return _login(self._hop, self.where)

    def arrange(self, options: paramiko.SecurityOptions) -> None:
        _arrange(self._hop, options)

    def verify(self, shown: paramiko.PKey) -> None:
        _known(self._hop).verify(shown, self.where)

    def command(self, command: str) -> str:
        return by_sudo(command) if self.sudo else command

    def reach(
        self, deadline_s: float, alive: Callable[[], None], longest_s: float = STAGGER_S
    ) -> socket.socket:
        hop = self._hop
        if hop.proxy:
            return _CommandSocket(hop)
        if not hop.jumps:
            return self._tcp(hop, deadline_s, alive, longest_s)
        opened: list[paramiko.Transport] = []
        first, *others = hop.jumps
        try:
            sock = _CommandSocket(first) if first.proxy else self._tcp(first, deadline_s, alive, longest_s)
            opened.append(self._logged_in(first, sock))
            for other in others:
                channel = self._channel(opened[-1], other, deadline_s)
                opened.append(self._logged_in(other, _Pump(channel, []).ours))
            return _Pump(self._channel(opened[-1], hop, deadline_s), opened).ours
        except BaseException:
            for transport in reversed(opened):
                transport.close()
            raise

    def _tcp(
        self, hop: SshHop, deadline_s: float, alive: Callable[[], None], longest_s: float
    ) -> socket.socket:
        try:
            found = socket.getaddrinfo(hop.host, hop.port, type=socket.SOCK_STREAM)
        except OSError as error:
            what = f"no address of {hop.host} is known: {error.strerror or error}"
            raise GuestError(what, where=self.where, hint="check HostName of your ssh_config") from error
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        for address in addresses[:-1]:
            # An address that cannot be reached must not use up the others' time.
            with suppress(OSError):
                soon = min(deadline_s, time.monotonic() + (deadline_s - time.monotonic()) / len(addresses))
                return self._watched(wait_for_banner(address, hop.port, soon, alive, longest_s))
        return self._watched(wait_for_banner(addresses[-1], hop.port, deadline_s, alive, longest_s))

    def _watched(self, sock: socket.socket) -> socket.socket:
        """The connection, which ends by itself when the other end has been cut off for lost_s."""
        if self._lost_s:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._lost_s * 1000)
            # An idle one is asked (tcp(7)); the time limit above counts for these questions as well.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, self._lost_s // 3))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, self._lost_s // 3))
        return sock

    def _logged_in(self, hop: SshHop, sock: socket.socket) -> paramiko.Transport:
        """A connection to a machine on the way. GuestError, with the machine, when that fails."""
        transport = paramiko.Transport(sock)
        try:
            _arrange(hop, transport.get_security_options())
            transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = HOP_S
            transport.start_client(timeout=HOP_S)
            _known(hop).verify(transport.get_remote_server_key(), f"{self.where}, jump host {hop}")
            _login(hop, f"{self.where}, jump host {hop}")(transport)
        except paramiko.AuthenticationException as error:
            transport.close()
            keys = ", ".join(map(str, hop.keys)) or "none"
            raise RefusedError(
                f"SSH login refused at jump host {hop}", where=self.where, hint=f"tried the keys {keys}"
            ) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            transport.close()
            raise GuestError(f"SSH failed at jump host {hop}: {error}", where=self.where) from error
        except BaseException:
            transport.close()
            raise
        return transport

    def _channel(self, through: paramiko.Transport, to: SshHop, deadline_s: float) -> paramiko.Channel:
        """A connection from one machine on the way to the next. A guest that boots refuses it at first."""
        while True:
            try:
                return through.open_channel(
                    "direct-tcpip", (to.host, to.port), ("127.0.0.1", 0), timeout=HOP_S
                )
            except (paramiko.SSHException, OSError, EOFError) as error:
                if not through.is_active() or time.monotonic() > deadline_s:
                    what = f"the jump host cannot connect to {to.host}:{to.port}: {error}"
                    raise GuestError(what, where=self.where) from error
                time.sleep(0.2)


class _Pump:
    """A local socket whose other end is a channel. It has two threads, which end with either end, and close
    the connections that carry the channel."""

    def __init__(self, channel: paramiko.Channel, carriers: list[paramiko.Transport]) -> None:
        self.ours, self._theirs = socket.socketpair()
        self._channel, self._carriers = channel, carriers
        self._lock = threading.Lock()
        for name, copy in (("in", self._inwards), ("out", self._outwards)):
            threading.Thread(target=self._run, args=(copy,), name=f"jump-{name}", daemon=True).start()

    def _run(self, copy: Callable[[], None]) -> None:
        try:
            with suppress(OSError, EOFError, paramiko.SSHException):
                copy()
        finally:
            self._close()

    def _inwards(self) -> None:
        while data := self._channel.recv(_BLOCK):
            self._theirs.sendall(data)

    def _outwards(self) -> None:
        while data := self._theirs.recv(_BLOCK):
            self._channel.sendall(data)

    def _close(self) -> None:
        with self._lock:
            with suppress(OSError):
                self._theirs.shutdown(socket.SHUT_RDWR)
            with suppress(OSError, EOFError, paramiko.SSHException):
                self._channel.close()
            for transport in reversed(self._carriers):
                transport.close()


class _CommandSocket(socket.socket):
    """A local socket whose other end is a command's input and output. The command ends when it is closed."""

    def __init__(self, hop: SshHop) -> None:
        ours, theirs = socket.socketpair()
        super().__init__(fileno=ours.detach())
        self._command: Started | None = None
        with theirs:
            try:
                end = theirs.fileno()
                self._command = runner.start(["sh", "-c", f"exec {hop.proxy}"], stdin=end, stdout=end)
            except FreezelabError:
                self.close()
                raise

    def close(self) -> None:
        super().close()
        command, self._command = self._command, None
        if command is not None:
            command.stop(COMMAND_S)


class _Agent(AgentSSH):
    """The agent at a socket. OSError when there is none."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(HOP_S)
            self._socket.connect(path)
            self._connect(self._socket)  # type: ignore[attr-defined]
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()


def _login(hop: SshHop, where: str) -> Callable[[paramiko.Transport], None]:
    """See SshServer.login. A named key comes first, then the agent's, then the usual ones."""
    locked: list[Path] = []
    keys = list(_keys(hop, locked, where))

    def log_in(transport: paramiko.Transport) -> None:
        agent: _Agent | None = None
        if hop.agent:
            with suppress(OSError, paramiko.SSHException):
                agent = _Agent(hop.agent)
        try:
            offered: list[paramiko.PKey | AgentKey] = [*keys, *_of_agent(agent, hop)]
            failure: paramiko.AuthenticationException | None = None
            for key in offered:
                try:
                    if not transport.auth_publickey(hop.user, key):
                        return
                except paramiko.AuthenticationException as error:
                    if not transport.is_active() or "timeout" in str(error):
                        raise
                    failure = error
            if locked and not isinstance(failure, paramiko.BadAuthenticationType):
                what = f"the private key {locked[0]} has a passphrase, and no agent has it"
                raise MachineError(what, where=where, hint=f"ssh-add {locked[0]}")
            raise failure or paramiko.AuthenticationException("there is no key to log in with")
        finally:
            if agent is not None:
                agent.close()

    return log_in


def _of_agent(agent: _Agent | None, hop: SshHop) -> Iterator[AgentKey]:
    """The agent's keys; only those of the named files with IdentitiesOnly."""
    named: set[str] = set()
    for path in hop.keys if hop.only_named else ():
        with suppress(OSError, IndexError):
            named.add(path.with_name(f"{path.name}.pub").read_text(encoding="utf-8").split()[1])
    for key in agent.get_keys() if agent is not None else ():
        if not hop.only_named or key.get_base64() in named:
            yield key


def _keys(hop: SshHop, locked: list[Path], where: str) -> Iterator[paramiko.PKey]:
    """The keys that can be used without a passphrase; the others are added to `locked`."""
    for path in hop.keys:
        try:
            yield paramiko.PKey.from_path(path)
        except paramiko.PasswordRequiredException:
            locked.append(path)
        except FileNotFoundError:
            continue  # as ssh(1): named for hosts in general
        except TypeError:
            locked.append(path)  # of a format whose passphrase is asked for by another library
        except (OSError, ValueError, paramiko.SSHException) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise MachineError(f"the private key cannot be used: {why}", where=f"{where}: {path}") from error


def _known(hop: SshHop) -> KnownHosts:
    return KnownHosts(hop.alias, hop.port, hop.known_hosts)


def _arrange(hop: SshHop, options: paramiko.SecurityOptions) -> None:
    """Ask first for a host key of a kind that is known, as ssh(1) does."""
    known: list[str] = []
    for kind in _known(hop).kinds:
        known += _RSA if kind == "ssh-rsa" else (kind,)
    options.key_types = preferred(known, options.key_types)
    options.ciphers = preferred(CIPHERS, options.ciphers)
    options.kex = preferred([k for k in options.kex if k.startswith("curve25519")], options.kex)
