"""Two clients of the counter. Both send a request again over a new connection when no answer comes in time.

HastyClient forgets that the server may have received the first one. A test that stops or restarts the
server does not show that: what a dead server had in its socket buffers is gone. A frozen one still has it,
and when it runs again it adds every copy. CarefulClient gives all copies of a request the same id.
"""

from __future__ import annotations

import secrets
import socket
import time


class HastyClient:
    """host, port: the server's. timeout_s: how long an answer may take. give_up_s: in all."""

    def __init__(self, host: str, port: int, timeout_s: float = 1.0, give_up_s: float = 60.0) -> None:
        self._address, self._timeout_s, self._give_up_s = (host, port), timeout_s, give_up_s
        self.tries = 0

    def add(self, amount: int) -> int:
        """Add to the counter; the answer is the total."""
        return self._ask(f"add {amount}")

    def total(self) -> int:
        return self._ask("total")

    def _ask(self, line: str) -> int:
        end, self.tries = time.monotonic() + self._give_up_s, 0
        while True:
            self.tries += 1
            try:
                with socket.create_connection(self._address, self._timeout_s) as connection:
                    connection.sendall(f"{line}\n".encode())
                    answer = connection.makefile().readline()
                    if answer:
                        return int(answer)
                    raise ConnectionError("the server has closed the connection")
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)


class CarefulClient(HastyClient):
    def add(self, amount: int) -> int:
        return self._ask(f"add {amount} {secrets.token_hex(8)}")
