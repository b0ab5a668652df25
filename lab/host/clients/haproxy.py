"""HTTP requests through HAProxy, and what its statistics say of the servers."""

from __future__ import annotations

import csv
import io
from functools import partial

from lab.core.workload.shipped.haproxy import BALANCER, PORT, STATS
from lab.host.clients.base import arguments, hello, print_sample, schedule
from lab.host.clients.http_get import HttpAnswer, HttpRequests

TIMEOUT_S = 10.0
"""How long a user waits."""


def servers(text: str) -> dict[str, str]:
    """The states of the servers, "UP" or "DOWN", by name, from HAProxy's statistics as CSV. A server that is
    on its way up or down ("UP 1/3") still is what it was."""
    rows = csv.DictReader(io.StringIO(text.removeprefix("# ")))
    return {
        row["svname"]: row["status"].split(" ")[0]
        for row in rows
        if row.get("svname") not in ("FRONTEND", "BACKEND", None) and row.get("status")
    }


def _answered(number: int, due: int, answer: HttpAnswer) -> None:
    ok = answer.status == 200
    error = "" if ok else answer.error or str(answer.status)
    by = answer.body.decode("ascii", "replace").strip() if ok else ""
    print_sample(seq=number, due=due, sent=answer.sent_ns, done=answer.done_ns, ok=ok, error=error, by=by)


def _looked(answer: HttpAnswer) -> None:
    if answer.status == 200 and (state := servers(answer.body.decode("utf-8", "replace"))):
        print_sample(state=state, sent=answer.sent_ns, done=answer.done_ns, by=BALANCER)


def main() -> None:
    given = arguments()
    address = given.guests[BALANCER]
    hello(given.period_ns)
    users, looks = HttpRequests(address, PORT, TIMEOUT_S), HttpRequests(address, STATS, TIMEOUT_S, most=4)
    for number, due in schedule(given.period_ns):
        users.start("/", partial(_answered, number, due))
        if number % 2 == 0:
            looks.start("/;csv", _looked)


if __name__ == "__main__":
    main()
