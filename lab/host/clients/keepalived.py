"""Asks the virtual address each period, and each guest for its state; reports gratuitous ARPs for it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping

from lab.core.workload.shipped.keepalived import ADDRESS
from lab.host.clients.base import arguments, hello, print_sample, raw_ns
from lab.host.clients.state_poll import StatePoller

LOOK_NS = 200_000_000
_ETH_P_ARP = 0x0806
_SENDER, _TARGET = slice(28, 32), slice(38, 42)
"""Of the two IP addresses in an Ethernet frame (RFC 826)."""


def _hear_arps(names: Mapping[str, str]) -> None:
    """Report each gratuitous ARP (RFC 5227: sender and target are the same). names: by address."""
    door = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ARP))
    mine = socket.inet_aton(ADDRESS)
    while True:
        frame = door.recv(2048)
        if frame[_SENDER] == mine and frame[_TARGET] == mine:
            # The last three bytes of a card's MAC address in the lab's network are those of its IP address.
            address = socket.inet_ntoa(b"\n" + frame[9:12])
            print_sample(event="gratuitous-arp", at=raw_ns(), by=names.get(address, frame[6:12].hex(":")))


def main() -> None:
    given = arguments()
    hello(given.period_ns)
    names = {address: name for name, address in given.guests.items()}
    threading.Thread(target=_hear_arps, args=(names,), daemon=True).start()
    StatePoller(given.guests, ADDRESS, given.period_ns, LOOK_NS, shares="holder").run()


if __name__ == "__main__":
    main()
