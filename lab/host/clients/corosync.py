"""Asks the frozen node each period, and every node for what it knows of the cluster."""

from __future__ import annotations

from lab.host.clients.base import arguments, hello
from lab.host.clients.state_poll import StatePoller

LOOK_NS = 200_000_000


def main() -> None:
    given = arguments()
    hello(given.period_ns)
    StatePoller(given.guests, next(iter(given.guests.values())), given.period_ns, LOOK_NS).run()


if __name__ == "__main__":
    main()
