"""Whether a service in a guest is ready: asked from sshd in the guest (direct-tcpip, RFC 4254, 7.2), so no
program is needed there."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

import paramiko

from lab.core.plan import Gate, GateKind
from lab.core.setup import Ready, ReadyKind
from lab.core.units import NS_PER_S
from lab.errors import GuestError
from lab.guest.health import GuestDoctor
from lab.guest.ssh import SSH
from lab.ports import Clock

LOOPBACK = "127.0.0.1"
_PROHIBITED = 1
"""SSH_OPEN_ADMINISTRATIVELY_PROHIBITED (RFC 4254, 5.1)."""

_MOST_S = 10.0
"""The longest time for one answer. A frozen program accepts connections and never answers."""


def why_not_ready(ssh: SSH, ready: Ready, clock: Clock, deadline_raw_ns: int) -> str:
    """Why it is not ready now, one line; "" when it is. Asked once, at most until CLOCK_MONOTONIC_RAW
    `deadline_raw_ns`. GuestError when the connection is lost, or sshd does not connect to ports."""
    guest = ssh.address.guest
    if ready.kind is ReadyKind.COMMAND:
        doctor = GuestDoctor({guest: lambda: ssh}, clock)
        health = doctor.ask(guest, Gate(GateKind.COMMAND, ready.text), deadline_raw_ns)
        return "" if health.ok else health.why
    left_s = (deadline_raw_ns - clock.now().raw_ns) / NS_PER_S
    within_s = max(0.5, min(_MOST_S, left_s))
    url = urlsplit(ready.text if ready.kind is ReadyKind.URL else f"//{LOOPBACK}:{ready.text}")
    channel = _connected(ssh, url.hostname or "", url.port or 80, within_s)
    if isinstance(channel, str):
        return channel
    with channel:
        if ready.kind is ReadyKind.PORT:
            return ""
        return _answer(
            channel, f"{url.path or '/'}{'?' if url.query else ''}{url.query}", url.netloc, within_s
        )


def _connected(ssh: SSH, host: str, port: int, within_s: float) -> paramiko.Channel | str:
    """A connection from the guest to this address, or why there is none."""
    try:
        return ssh.transport.open_channel("direct-tcpip", (host, port), (LOOPBACK, 0), timeout=within_s)
    except paramiko.ChannelException as error:
        if error.code == _PROHIBITED:
            raise GuestError(
                "its sshd does not connect to ports",
                where=f"guest {ssh.address.guest}",
                hint="its sshd_config needs AllowTcpForwarding yes; or use ready: {command: …}",
            ) from error
        return f"{host}:{port} does not accept connections"
    except (paramiko.SSHException, OSError, EOFError) as error:
        if ssh.alive:
            return f"no connection to {host}:{port} within {within_s:.0f} s"
        raise ssh.gone or GuestError(
            "the SSH connection was lost", where=f"guest {ssh.address.guest}"
        ) from error


def _answer(channel: paramiko.Channel, path: str, host: str, within_s: float) -> str:
    """Why the answer to a GET request is not 2xx; "" when it is."""
    channel.settimeout(within_s)
    try:
        channel.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        response = http.client.HTTPResponse(channel)  # type: ignore[arg-type]  # all it needs is makefile()
        response.begin()
    except TimeoutError:
        return f"no answer within {within_s:.0f} s"
    except (http.client.HTTPException, OSError, EOFError) as error:
        return f"no answer of HTTP: {str(error) or type(error).__name__}"
    return "" if 200 <= response.status < 300 else f"answered {response.status}"
