"""Writes to an etcd cluster by its HTTP gateway, reads back what was acknowledged, keeps a lease alive, and
looks at what each member says of the leader.

It does what etcd's own clients do: a write goes to the member that answered last, and to the next one when
that does not answer. A write is the same however often it is sent.
"""

from __future__ import annotations

import http.client
import json
import secrets
import threading
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lab.core.workload.sample import StateValue
from lab.core.workload.shipped.etcd import PORT
from lab.host.clients.base import ClientArguments, arguments, hello, print_sample, raw_ns, schedule
from lab.host.clients.looks import start_looking

ANSWER_S = 1.5
"""How long one member's answer is waited for."""

GIVE_UP_S = 5.0
"""After this long without an acknowledgement a write has failed."""

READ_AFTER_NS = 500_000_000
"""Acknowledged writes are read back after this long, so that a leader that loses them has time to."""

EVERY_NS = 1_000_000_000
WORKERS = 64


def _text(text: str) -> str:
    return b64encode(text.encode()).decode()


class EtcdMember:
    """One member. Each thread has a connection of its own to it."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self._address = name, address
        self._own = threading.local()

    def ask(self, path: str, within_s: float = ANSWER_S, **members: Any) -> dict[str, Any]:
        """Its answer. OSError when there is none, with etcd's reason where it gives one."""
        connection: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(self._address, PORT)
            self._own.connection = connection
        connection.timeout = within_s
        if connection.sock is not None:
            connection.sock.settimeout(within_s)
        try:
            connection.request(
                "POST", f"/v3/{path}", json.dumps(members), {"Content-Type": "application/json"}
            )
            answer = connection.getresponse()
            found: dict[str, Any] = json.loads(answer.read())
        except (http.client.HTTPException, ValueError) as error:
            connection.close()
            raise OSError(0, f"no answer: {error}") from error
        except OSError as error:
            connection.close()
            raise OSError(0, "timed out" if isinstance(error, TimeoutError) else error.strerror) from error
        if answer.status != http.HTTPStatus.OK:
            raise OSError(0, str(found.get("error", answer.status))[:80])
        return found


class EtcdCluster:
    """The members, the one that answered last first."""

    def __init__(self, members: Sequence[EtcdMember]) -> None:
        self._members, self._first = list(members), 0

    def ask(self, path: str, within_s: float = GIVE_UP_S, **members: Any) -> tuple[str, dict[str, Any]]:
        """Who answered, and what. OSError with the last reason when nobody did in time."""
        until, place = time.monotonic() + within_s, self._first
        why = OSError(0, "timed out")
        while (left := until - time.monotonic()) > 0:
            member = self._members[place % len(self._members)]
            try:
                found = member.ask(path, min(ANSWER_S, left), **members)
            except OSError as error:
                why = error
                place += 1
                if self._first % len(self._members) == (place - 1) % len(self._members):
                    self._first = place % len(self._members)
                time.sleep(0.02)  # who refuses does so at once
                continue
            return member.name, found
        raise why


class EtcdClient:
    """Writes numbers under keys of its own."""

    def __init__(self, given: ClientArguments) -> None:
        self._members = [EtcdMember(name, address) for name, address in given.guests.items()]
        self._cluster = EtcdCluster(self._members)
        self._period_ns, self._ttl = given.period_ns, int(given.options["lease"])
        self._prefix = f"lab/{secrets.token_hex(4)}/"
        self._lock = threading.Lock()
        self._written: dict[int, int] = {}
        self._read = 0
        self._terms: set[int] = set()
        self._names: dict[str, str] = {}

    def run(self) -> None:
        """For ever."""
        self._names = self._known()
        for member in self._members:
            start_looking(member.name, lambda member=member: self._look(member), EVERY_NS)  # type: ignore[misc]
        for work in (self._reading, self._keeping):
            threading.Thread(target=work, daemon=True).start()
        with ThreadPoolExecutor(WORKERS) as pool:
            for number, due in schedule(self._period_ns):
                pool.submit(self._write, number, due)

    def _known(self) -> dict[str, str]:
        """Names by id."""
        _, found = self._cluster.ask("cluster/member/list", 30)
        return {one["ID"]: one["name"] for one in found["members"]}

    # -- writes, and what became of them -----------------------------------------------------------

    def _key(self, number: int) -> str:
        return _text(f"{self._prefix}{number:012}")

    def _write(self, number: int, due: int) -> None:
        sent = raw_ns()
        try:
            by, _ = self._cluster.ask("kv/put", key=self._key(number), value=_text(str(number)))
        except OSError as error:
            print_sample(
                seq=number, due=due, sent=sent, done=raw_ns(), ok=False, error=error.strerror or "failed"
            )
            return
        done = raw_ns()
        print_sample(seq=number, due=due, sent=sent, done=done, ok=True, by=by)
        with self._lock:
            self._written[number] = done

    def _reading(self) -> None:
        """Reads back what was acknowledged, each number once; after a change of the term all are counted."""
        term = 0
        while True:
            time.sleep(READ_AFTER_NS / 1e9)
            with self._lock:
                before = raw_ns() - READ_AFTER_NS
                asked = sorted(number for number, done in self._written.items() if done < before)
                newest = max(self._terms, default=0)
            try:
                if asked:
                    self._read_back(asked)
                if newest > term:
                    self._count()
                    term = newest
            except OSError:
                continue  # nobody leads; later

    def _read_back(self, asked: Sequence[int]) -> None:
        by, found = self._cluster.ask(
            "kv/range", key=self._key(asked[0]), range_end=self._key(asked[-1] + 1), keys_only=False
        )
        there = {one["value"] for one in found.get("kvs", ())}
        at = raw_ns()
        for number in asked:
            if _text(str(number)) in there:
                print_sample(got=number, at=at, by=by)
                self._read += 1
                with self._lock:
                    del self._written[number]

    def _count(self) -> None:
        """What was read back has to be there still."""
        expected = self._read
        by, found = self._cluster.ask(
            "kv/range", key=_text(self._prefix), range_end=_text(f"{self._prefix}~"), count_only=True
        )
        if int(found.get("count", 0)) < expected:
            print_sample(event="vanished", at=raw_ns(), by=by)

    # -- a lease -----------------------------------------------------------------------------------

    def _keeping(self) -> None:
        """Keeps a lease alive each third of its time, as etcd's own clients do."""
        lease = ""
        while True:
            try:
                if not lease:
                    _, found = self._cluster.ask("lease/grant", TTL=self._ttl)
                    lease = found["ID"]
                    key = _text(f"lease-of-{self._prefix}")
                    self._cluster.ask("kv/put", key=key, value=_text("held"), lease=lease)
                time.sleep(self._ttl / 3)
                while not self._kept(lease):
                    time.sleep(0.1)
            except _LeaseLost:
                print_sample(event="lease-lost", at=raw_ns())
                lease = ""
            except OSError:
                time.sleep(0.1)

    def _kept(self, lease: str) -> bool:
        """Whether somebody has extended it. _LeaseLost when it is over."""
        try:
            _, found = self._cluster.ask("lease/keepalive", ID=lease)
        except OSError:
            return False
        if int(found.get("result", {}).get("TTL", 0)) <= 0:
            raise _LeaseLost
        return True

    # -- who leads -----------------------------------------------------------------------------------

    def _look(self, member: EtcdMember) -> Mapping[str, StateValue]:
        status = member.ask("maintenance/status")
        term, leader = int(status["raftTerm"]), status.get("leader", "0")
        with self._lock:
            self._terms.add(term)
        return {
            "leader": self._names.get(leader),
            "term": term,
            "leading": leader == status["header"]["member_id"],
        }


class _LeaseLost(Exception):
    """It was not kept alive in time."""


def main() -> None:
    given = arguments()
    hello(given.period_ns)
    EtcdClient(given).run()


if __name__ == "__main__":
    main()
