"""A Dask cluster of our own on the hosts of a hosts file. The scheduler is in this process, a worker on each
host, and everything between them goes through the SSH connection to that host.

Nothing listens beyond a loopback. A machine's users share its loopback, so TLS admits only who has the run's
certificate, which goes to the workers through SSH. Dask's own SSHCluster has its scheduler and workers listen
on the network, and puts its settings, certificates included, on the command line of every worker.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime

import paramiko
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from lab.errors import FreezelabError, MachineError
from lab.guest.channel_relay import ChannelRelay
from lab.hosts.cluster import QUIET, Cluster, imported
from lab.hosts.hosts_file import HostEntry, HostsFile
from lab.hosts.link import NO_PROGRAM, SshLink, as_host
from lab.process.clock import HostClock
from lab.session.parallel import together
from lab.threads import Worker

LOOPBACK = "127.0.0.1"
READY_S = 120.0
"""Time limit until a host's worker is ready: Python's start, and the imports of freezelab and Dask."""

LINE_S = 5.0
"""How often a worker is told that it is still needed."""

CONNECT_S = 30.0

NO_END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""Of a certificate with no good expiration date (RFC 5280, 4.1.2.5)."""

_SETTINGS = {
    **QUIET,
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.http.routes": [],
}


@contextlib.contextmanager
def over_ssh(file: HostsFile) -> Iterator[Cluster]:
    """A cluster of all hosts of a file. MachineError when distributed is missing; the error of the first host
    on which no worker starts."""
    distributed = imported()
    import dask

    key, certificate = made_certificate()
    own = {"tls_ca_file": certificate, "tls_worker_key": key, "tls_worker_cert": certificate}
    roles = ("scheduler", "worker", "client")
    pairs = {
        f"tls_{role}_{name}": text for role in roles for name, text in (("key", key), ("cert", certificate))
    }
    security = distributed.Security(require_encryption=True, tls_ca_file=certificate, **pairs)
    scheduler = {
        "cls": distributed.Scheduler,
        "options": {
            "host": f"tls://{LOOPBACK}",
            "port": 0,
            "security": security,
            "dashboard": False,
            "dashboard_address": f"{LOOPBACK}:0",
        },
    }
    with ExitStack() as stack, dask.config.set(_SETTINGS):
        cluster = stack.enter_context(
            distributed.SpecCluster(scheduler=scheduler, workers={}, security=security)
        )
        address = str(cluster.scheduler_address)
        workers = [HostWorker(entry, address, own) for entry in file.hosts]

        def call_off() -> None:
            for worker in workers:
                worker.close()

        stack.callback(call_off)
        together(workers, HostWorker.start, call_off)
        client = stack.enter_context(distributed.Client(cluster, security=security))
        known = {worker.name: worker for worker in workers}
        yield Cluster(client, file.path, lambda name: name in known and known[name].is_cut)


def made_certificate() -> tuple[str, str]:
    """A key, and a certificate for it that is its own authority, both in PEM. It is for one run, and valid at
    any time: a host's clock may be off by any amount, and what Dask makes is not valid before it was made, by
    the clock of the scheduler's machine."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "freezelab")])
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(1970, 1, 1, tzinfo=UTC))
        .not_valid_after(NO_END)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("freezelab")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private.decode(), made.public_bytes(Encoding.PEM).decode()


class HostWorker:
    """A worker on a host, and what is forwarded through the connection to it. security: fields of
    distributed.Security for the worker."""

    def __init__(self, entry: HostEntry, scheduler: str, security: dict[str, str]) -> None:
        self._entry, self._scheduler, self._security, self.name = entry, scheduler, security, entry.name
        self._link = SshLink(entry, HostClock())
        self._stack = ExitStack()
        self._closed = threading.Event()
        self._port: int | None = None
        self._ready = threading.Event()

    def start(self) -> None:
        """Return when the worker is at the scheduler. FreezelabError, with the host, when it cannot be."""
        self._stack.callback(self._link.close)
        ssh = self._stack.enter_context(self._link).connection()
        relay = ChannelRelay(self._to_scheduler, f"worker-{self._entry.name}")
        self._stack.callback(relay.close)
        with as_host(self._entry.name):
            port = self._forwarded(ssh.transport, relay)
            listener = self._stack.enter_context(socket.create_server((LOOPBACK, 0)))
            accept = Worker(target=lambda: self._accept(listener, ssh.transport, relay), daemon=True)
            accept.start()
            channel = ssh.channel(self._entry.command(["hosts", "worker"]))
            self._stack.callback(channel.close)
            order = {
                "scheduler": f"tls://{LOOPBACK}:{port}",
                "contact": f"tls://{LOOPBACK}:{listener.getsockname()[1]}",
                "name": self._entry.name,
                "security": self._security,
            }
            channel.sendall(json.dumps(order).encode() + b"\n")
            self._port = self._answer(channel)
        self._ready.set()
        Worker(target=lambda: self._keep(channel), daemon=True).start()

    @property
    def is_cut(self) -> bool:
        """Whether the connection to it is lost."""
        return not self._link.is_open

    def close(self) -> None:
        """End the worker, and the connection. Safe from any thread."""
        self._closed.set()
        self._ready.set()
        self._stack.close()

    def _to_scheduler(self) -> socket.socket:
        port = int(self._scheduler.rpartition(":")[2])
        return socket.create_connection((LOOPBACK, port), CONNECT_S)

    def _forwarded(self, transport: paramiko.Transport, relay: ChannelRelay) -> int:
        """Have the host's sshd listen on its loopback for the scheduler. Its port."""
        try:
            return transport.request_port_forward(LOOPBACK, 0, lambda channel, _from, _to: relay.add(channel))
        except (paramiko.SSHException, OSError, EOFError) as error:
            hint = "its sshd_config needs: AllowTcpForwarding yes"
            where = f"host {self._entry.name}"
            raise MachineError("its sshd refuses a remote forward", where=where, hint=hint) from error

    def _accept(self, listener: socket.socket, transport: paramiko.Transport, relay: ChannelRelay) -> None:
        """Connections of the scheduler to the worker."""
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                self._ready.wait(READY_S)
                try:
                    there = (LOOPBACK, self._port or 0)
                    channel = transport.open_channel("direct-tcpip", there, (LOOPBACK, 0), timeout=CONNECT_S)
                except (paramiko.SSHException, OSError, EOFError):
                    sock.close()
                    continue
                relay.add(channel, lambda sock=sock: sock)  # type: ignore[misc]

    def _answer(self, channel: paramiko.Channel) -> int:
        """The port on which the worker listens there."""
        channel.settimeout(READY_S)
        line, where = b"", f"host {self._entry.name}"
        try:
            while not line.endswith(b"\n"):
                more = channel.recv(1024)
                if not more:
                    break
                line += more
            return int(json.loads(line)["port"])
        except TimeoutError:
            raise MachineError(f"no worker within {READY_S:.0f} s", where=where) from None
        except (ValueError, KeyError, TypeError):
            said = channel.recv_stderr(4096).decode("utf-8", "replace").strip().splitlines()
            if not said and not self._link.is_open:
                raise MachineError(
                    "the connection was lost before its worker was ready", where=where
                ) from None
            what = said[0].removeprefix("freezelab: ") if said else "it said nothing"
            hint = said[1] if said[1:] else NO_PROGRAM if "not found" in what else ""
            raise MachineError(f"no worker starts there: {what}", where=where, hint=hint) from None

    def _keep(self, channel: paramiko.Channel) -> None:
        """Tell the worker that it is needed, until it is not."""
        with contextlib.suppress(OSError, EOFError, FreezelabError):
            while not self._closed.wait(LINE_S):
                channel.sendall(b"\n")
