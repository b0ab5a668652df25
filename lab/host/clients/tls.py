"""Has the guest connect by TLS to this program, whose certificate is made anew each time."""

from __future__ import annotations

import queue
import signal
import socket
import ssl
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from lab.core.units import NS_PER_S
from lab.core.workload.shipped.option_values import duration_ns
from lab.core.workload.shipped.tls import BACKDATE, PORT, REFUSED
from lab.errors import MachineError
from lab.host.clients.base import arguments, hello, print_sample, raw_ns, schedule
from lab.host.clients.certificates import LONGEST_S, Authority

GIVE_UP_NS = 3 * NS_PER_S
HANDSHAKE_S = 5.0


class TlsServer:
    """Accepts connections and shakes hands, each in a thread of its own. context: with the certificate."""

    def __init__(self) -> None:
        self.context: ssl.SSLContext | None = None
        self._door = socket.create_server(("", 0))
        self.port = self._door.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def load(self, certificate: Path) -> None:
        """Use this certificate from now on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        context.num_tickets = 0  # or a resumed session would need no certificate
        self.context = context

    def _run(self) -> None:
        while True:
            plain, _ = self._door.accept()
            threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        plain.settimeout(HANDSHAKE_S)
        with suppress(OSError), plain:  # what became of it, the guest says
            if self.context is not None:
                with self.context.wrap_socket(plain, server_side=True):
                    pass


class TlsAsker:
    """Asks the guest, and prints its answers."""

    def __init__(self, name: str, address: str, server: TlsServer, authority: Authority) -> None:
        self._name, self._address = name, (address, PORT)
        self._server, self._authority = server, authority
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(0.1)
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[int, int]] = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def ask(self, number: int, due: int, sent: int) -> None:
        """Ask the guest to connect now. sent: when the request's turn came: its certificate is part of it."""
        with self._lock:
            self._waiting[number] = (due, sent)
        data = f"{number} {self._server.port} {self._authority.certificate}".encode()
        with suppress(OSError):  # then it does not answer either
            self._socket.sendto(data, self._address)

    def _listen(self) -> None:
        while True:
            with suppress(OSError):
                self._answered(self._socket.recv(4096))
            self._expire(raw_ns())

    def _answered(self, data: bytes) -> None:
        at = raw_ns()
        number, stamp, error = data.decode("utf-8", "replace").split(" ", 2)
        with self._lock:
            asked = self._waiting.pop(int(number), None)
        if asked is None:
            return
        due, sent = asked
        print_sample(
            seq=int(number), due=due, sent=sent, done=at, ok=not error, error=error, by=self._name,
            stamp=int(stamp),
        )  # fmt: skip
        if REFUSED in error:
            print_sample(event=REFUSED, at=at, by=self._name)

    def _expire(self, now: int) -> None:
        with self._lock:
            late = [(number, *one) for number, one in self._waiting.items() if one[1] < now - GIVE_UP_NS]
            for number, _, _ in late:
                del self._waiting[number]
        for number, due, sent in late:
            print_sample(seq=number, due=due, sent=sent, done=now, ok=False, error="no answer")


class Minting:
    """Makes a certificate for each request in a thread, and has the guest asked: none is older than it has
    to be."""

    def __init__(self, authority: Authority, server: TlsServer, asker: TlsAsker, backdate_s: int) -> None:
        self._authority, self._server, self._asker = authority, server, asker
        self._backdate = backdate_s
        self._wanted: queue.SimpleQueue[tuple[int, int, int] | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def want(self, number: int, due: int) -> None:
        """A certificate for this request."""
        self._wanted.put((number, due, raw_ns()))

    def end(self) -> None:
        """Make no more; after this nothing is written to the authority's folder."""
        self._ended.set()
        self._wanted.put(None)
        self._thread.join(LONGEST_S)

    def _run(self) -> None:
        while (wanted := self._wanted.get()) is not None and not self._ended.is_set():
            number, due, sent = wanted
            self._server.load(self._authority.issue(self._backdate))
            self._asker.ask(number, due, sent)


def main() -> None:
    given = arguments()
    name, address = next(iter(given.guests.items()))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that the folder goes
    backdate_s = duration_ns(given.options, "backdate", *BACKDATE) // NS_PER_S
    with tempfile.TemporaryDirectory() as folder:
        try:
            authority = Authority(Path(folder))
        except MachineError as error:
            sys.exit("; ".join(str(error).splitlines()))  # the last line is what is told
        server = TlsServer()
        asker = TlsAsker(name, address, server, authority)
        minting = Minting(authority, server, asker, backdate_s)
        try:
            hello(given.period_ns)
            for number, due in schedule(given.period_ns):
                minting.want(number, due)
        finally:
            minting.end()


if __name__ == "__main__":
    main()
