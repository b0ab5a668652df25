"""The metadata service brought into a guest: connections made there to 169.254.169.254:80 come out here.

It is an SSH remote forward, so it asks nothing of the host, of root there, or of the guest's networking. The
address is on the guest's loopback; who asks is known by which forward a connection came through.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import paramiko

from lab.errors import GuestError
from lab.guest.channel_relay import ChannelRelay
from lab.guest.ssh import SSH
from lab.threads import Worker

ADDRESS, PORT = "169.254.169.254", 80
START_S, END_S = 60.0, 5.0
LOOK_S = 0.1
"""How often the keeper looks whether the connection is there still. It asks the library, not the network."""

# Of the listening sockets in /proc/net/tcp: the address as a little-endian number, port 80, state 0A.
_HEARD = "grep -q ' FEA9FEA9:0050 00000000:0000 0A ' /proc/net/tcp"
_LISTENING = f"""
listening() {{
    ss -Hltnp 'sport = :{PORT}' 2>/dev/null | while read -r _ _ _ at _ users; do
        name=${{users#*'"'}} pid=${{users#*pid=}}
        echo "${{at%:*}} ${{name%%'"'*}} ${{pid%%,*}}"
    done
}}
"""
# Arguments: process ids of the sshd processes that served this forward before. One whose connection was cut
# does not know, and listens on. Says the id of the one that serves this connection.
_PREPARE = f"""{_LISTENING}
ip address replace {ADDRESS}/32 dev lo scope host || exit
if {_HEARD}; then
    listening | while read -r at name pid; do
        for old; do [ "$at $name $pid" = "{ADDRESS} sshd $old" ] && kill "$old"; done
    done
    for _ in 1 2 3 4 5 6 7 8 9 10; do {_HEARD} || break; sleep 0.05; done
fi
echo "$PPID"
"""
_WHO = f"""{_LISTENING}
listening | while read -r at name _; do
    case $at in {ADDRESS} | 0.0.0.0 | '*') echo "$name" ;; esac
done
"""
_REMOVE = f"ip address delete {ADDRESS}/32 dev lo"
_SSHD = "PATH=$PATH:/usr/sbin; sshd -T 2>/dev/null | grep -iE '^(allowtcp|gateway|disablefor|permitl)'"
_HINT = "its sshd_config needs: AllowTcpForwarding yes, and GatewayPorts clientspecified"


class MetadataForward:
    """A context manager: while it is open, whoever connects to 169.254.169.254:80 in the guest reaches what
    `connect` gives.

    ssh: the guest's SSH connection as it is now, or None while there is none. It is called in the caller's
        thread first, and then in the keeper's, again and again until it gives one that is alive; what is
        alive is not touched but for this forward.
    connect: a new stream socket to this guest's listener of the metadata service. When it raises
        OSError or an error of the lab's, the guest's connection is closed.
    times: how often the forward was set up. why: what is wrong with it now, "" when nothing is known to be.
    """

    def __init__(
        self, guest: str, ssh: Callable[[], SSH | None], connect: Callable[[], socket.socket]
    ) -> None:
        self.guest = guest
        self.times = 0
        self.why = ""
        self._ssh, self._connect = ssh, connect
        self._on: SSH | None = None
        self._used: SSH | None = None  # for it, with success or without
        self._served_by: list[str] = []
        self._relay: ChannelRelay | None = None
        self._closed = threading.Event()
        self._keeper = Worker(target=self._run_forwards, name=f"forward-{guest}", daemon=True)

    def __enter__(self) -> MetadataForward:
        """GuestError when the guest's sshd does not allow it, or the address cannot be had there."""
        try:
            ssh = self._ssh()
            if ssh is None:
                raise GuestError("there is no SSH connection", where=self._where)
            self._relay = ChannelRelay(self._connect, self.guest)
            self._set_up(ssh, START_S)
            self._verify(ssh)
            self._keeper.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def up(self) -> bool:
        """Whether it works, as far as is known here."""
        return self._on is not None and self._on.alive

    def close(self) -> None:
        """End it, and every connection that is open through it. Does not wait for a guest that is gone."""
        self._closed.set()
        if self._keeper.is_alive():
            self._keeper.join(END_S)
        used, self._used, self._on = self._used, None, None
        if used is not None and used.alive:
            with suppress(GuestError, paramiko.SSHException, OSError, EOFError):
                used.transport.global_request("cancel-tcpip-forward", (ADDRESS, PORT), wait=False)
                used.run(_REMOVE, END_S)
        if self._relay is not None:
            self._relay.close()
            self._relay = None

    @property
    def _where(self) -> str:
        return f"guest {self.guest}"

    def _run_forwards(self) -> None:
        while not self._closed.wait(LOOK_S):
            if self.up:
                continue
            try:
                ssh = self._ssh()
                if ssh is not None and ssh.alive and not self._closed.is_set():
                    self._set_up(ssh, None)
            except GuestError as error:
                self.why = error.what

    def _set_up(self, ssh: SSH, within_s: float | None) -> None:
        """GuestError when it cannot be. within_s: None: however long sshd takes to say so."""
        assert self._relay is not None  # noqa: S101 - for the type checker: opened first
        self._used = ssh
        result = ssh.run(f"set -- {' '.join(self._served_by)}{_PREPARE}", START_S)
        if result.status:
            last = (result.err.strip().splitlines() or ["no message"])[-1]
            raise GuestError(f"{ADDRESS} cannot be added to its loopback: {last}", where=self._where)
        try:
            _request(ssh.transport, self._relay.add, within_s)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._refused(ssh) from error
        self._served_by.append(result.out.strip())
        self._on, self.why = ssh, ""
        self.times += 1

    def _refused(self, ssh: SSH) -> GuestError:
        if not ssh.alive:
            return GuestError("SSH is gone", where=self._where)
        if taken_by := ssh.run(_WHO, START_S).out.partition("\n")[0]:
            hint = f"let {taken_by} listen on the guest's own addresses instead of all"
            if taken_by == "sshd":
                hint = "another freezelab serves this guest; end it first"
            return GuestError(
                f"port {PORT} of {ADDRESS} is taken there, by {taken_by}", where=self._where, hint=hint
            )
        result = ", ".join(ssh.run(_SSHD, START_S).out.split("\n")).strip(", ")
        what = f"its sshd refuses a remote forward from {ADDRESS}:{PORT}"
        return GuestError(f"{what} ({result})" if result else what, where=self._where, hint=_HINT)

    def _verify(self, ssh: SSH) -> None:
        """sshd that may not choose the address agrees, and listens elsewhere. GuestError then."""
        if ssh.run(_HEARD, START_S).status:
            raise GuestError(
                f"its sshd listens for a remote forward elsewhere than on {ADDRESS}:{PORT}",
                where=self._where,
                hint=_HINT,
            )


def _request(
    transport: paramiko.Transport, handler: Callable[[paramiko.Channel], None], within_s: float | None
) -> None:
    """Have the guest's sshd listen. TimeoutError when it does not say, which paramiko waits for as long as
    there is a connection."""
    failed: list[Exception] = []

    def ask() -> None:
        try:
            transport.request_port_forward(ADDRESS, PORT, lambda channel, _from, _to: handler(channel))
        except (paramiko.SSHException, OSError, EOFError) as error:
            failed.append(error)

    asking = Worker(target=ask, name="forward-request", daemon=True)
    asking.start()
    asking.join(within_s)
    if asking.is_alive():
        raise TimeoutError("sshd does not answer")
    if failed:
        raise failed[0]
