"""One TCP connection with iperf3 in the guest, looked at in slices of a period.

A request is a slice. It is done when the last bytes of it arrived, downwards, or were acknowledged, upwards;
in the first slice after a standstill, when the first ones did. A connection that is lost is made anew.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from contextlib import suppress

from lab.core.workload.shipped.option_values import bit_rate
from lab.core.workload.shipped.tcp_stream import LOST, PORT, RATES
from lab.host.clients.base import ClientArguments, arguments, hello, print_sample, raw_ns
from lab.host.clients.iperf3_protocol import begin
from lab.host.clients.tcp_info import TcpInfo, tcp_info

CONNECT_S = 10.0
AGAIN_S = 0.5
BLOCK = 8192
TICK_NS = 10_000_000
"""How often bytes are sent upwards, and acknowledgements looked at."""

ZEROS = bytes(BLOCK)
MOST_OWED = 1 << 20
"""The most bytes that are sent at once to catch up with the rate."""


class StreamConnection:
    """The connection, which a thread makes, and makes again. pair: control and data; None while there is
    none. error: why there is none."""

    def __init__(self, address: tuple[str, int], *, down: bool, rate: int) -> None:
        self._address, self._down, self._rate = address, down, rate
        self.pair: tuple[socket.socket, socket.socket] | None = None
        self.error = "not connected yet"
        self._wanted = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()
        self._wanted.set()

    def drop(self, error: OSError) -> None:
        """It is lost: make another."""
        pair, self.pair = self.pair, None
        self.error = error.strerror or "closed by the guest"
        for one in pair or ():
            one.close()
        self._wanted.set()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            try:
                pair = begin(
                    self._address, down=self._down, bits_per_s=self._rate, block=BLOCK, timeout_s=CONNECT_S
                )
            except OSError as error:
                self.error = error.strerror or str(error)
                time.sleep(AGAIN_S)
                continue
            for one in pair:
                one.setblocking(False)
            self._wanted.clear()
            self.pair = pair


class StreamClient:
    """Prints a line a slice."""

    def __init__(self, name: str, address: str, given: ClientArguments) -> None:
        self._name, self._period = name, given.period_ns
        self._down = given.options["direction"] == "down"
        self._rate = bit_rate(given.options, "rate", *RATES)
        self._connection = StreamConnection((address, PORT), down=self._down, rate=self._rate)
        self._bytes, self._first, self._last = 0, 0, 0
        self._still = False
        self._acked, self._owed, self._paid_at = 0, 0.0, raw_ns()

    def run(self) -> None:
        """Runs until the process is ended."""
        began, number = raw_ns(), 0
        since = began
        while True:
            end = began + (number + 1) * self._period
            while (now := raw_ns()) < end:
                self._move(min(TICK_NS, end - now) / 1e9)
            self._print(number, end - self._period, since, now)
            number, since = number + 1, now

    def _move(self, wait_s: float) -> None:
        """Move bytes for at most this long."""
        pair = self._connection.pair
        if pair is None:
            time.sleep(wait_s)
            self._acked, self._owed, self._paid_at = 0, 0.0, raw_ns()
            return
        try:
            if self._down:
                self._receive(pair, wait_s)
            else:
                self._send(pair, wait_s)
        except OSError as error:
            self._connection.drop(error)
            print_sample(event=LOST, at=raw_ns())

    def _receive(self, pair: tuple[socket.socket, socket.socket], wait_s: float) -> None:
        control, data = pair
        ready, _, _ = select.select([control, data], [], [], wait_s)
        for one in ready:
            with suppress(BlockingIOError):
                got = one.recv(1 << 18)
                if not got or one is control:  # a state that ends the test
                    raise ConnectionResetError(0, "iperf3 has ended the test")
                self._count(len(got))

    def _send(self, pair: tuple[socket.socket, socket.socket], wait_s: float) -> None:
        control, data = pair
        now = raw_ns()
        self._owed = min(MOST_OWED, self._owed + (now - self._paid_at) * self._rate / 8e9)
        self._paid_at = now
        while self._owed >= BLOCK:
            try:
                self._owed -= data.send(ZEROS)
            except BlockingIOError:
                break
        if select.select([control], [], [], wait_s)[0]:
            raise ConnectionResetError(0, "iperf3 has ended the test")
        acked = tcp_info(data).acked
        if self._acked and acked > self._acked:
            self._count(acked - self._acked)
        self._acked = acked

    def _count(self, size: int) -> None:
        now = raw_ns()
        self._first = self._first or now
        self._last, self._bytes = now, self._bytes + size

    def _print(self, number: int, due: int, since: int, now: int) -> None:
        """since: when the slice really began, as the one before was over."""
        moved, ok = self._bytes, self._bytes > 0
        done = (self._first if self._still else self._last) if ok else now
        gauge = {"throughput_bit_s": moved * 8_000_000_000 // self._period, **self._info()}
        pair = self._connection.pair
        error = "" if ok else "no bytes" if pair is not None else self._connection.error
        print_sample(
            seq=number, due=min(due, done), sent=min(since, done), done=done, ok=ok, error=error,
            by=self._name, gauge=gauge,
        )  # fmt: skip
        self._still = not ok
        self._bytes, self._first, self._last = 0, 0, 0

    def _info(self) -> dict[str, int]:
        pair = self._connection.pair
        if pair is None:
            return {}
        try:
            info: TcpInfo = tcp_info(pair[1])
        except OSError:
            return {}
        if not self._down:
            return {"rto_ns": info.rto_ns, "retransmits": info.retransmits, "rtt_ns": info.rtt_ns}
        return {} if info.out_of_order is None else {"out of order": info.out_of_order}


def main() -> None:
    given = arguments()
    name, address = next(iter(given.guests.items()))
    hello(given.period_ns)
    StreamClient(name, address, given).run()


if __name__ == "__main__":
    main()
