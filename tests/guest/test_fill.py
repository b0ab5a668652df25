"""A guest's memory filled, and looked at again, on a real guest."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from lab.errors import GuestError
from lab.guest.fill import Fill
from lab.guest.probe import GuestProbe
from lab.guest.ssh import SSH
from tests.guest.conftest import Lab
from tests.guest.relay import Relay

SIZE = 20 << 20  # more than the random block of 16 MiB, and not a multiple of it

# Reads the memory of the program that fills (its number, and how many pages it has, are the arguments): its
# pages are found by their numbers, as the kernel may join mappings. Further arguments are pages whose last
# byte it spoils.
LOOK = """
import struct, sys, zlib
pid, count = sys.argv[1], int(sys.argv[2])
lines = [l.split() for l in open("/proc/%s/maps" % pid)]
spans = [tuple(int(x, 16) for x in l[0].split("-")) for l in lines if len(l) == 5]
low, high = max(spans, key=lambda s: s[1] - s[0])
with open("/proc/%s/mem" % pid, "r+b", 0) as memory:
    memory.seek(low)
    data = memory.read(high - low)
    numbers = [struct.unpack_from("Q", data, i)[0] for i in range(0, len(data), 4096)]
    first = next(i for i in range(len(numbers)) if numbers[i:i + count] == list(range(count)))
    if len(sys.argv) > 3:
        for page in sys.argv[3:]:
            place = 4096 * (first + int(page)) + 4095
            memory.seek(low + place)
            memory.write(bytes([data[place] ^ 1]))
    else:
        data = data[4096 * first:4096 * (first + count)]
        pages = [data[i:i + 4096] for i in range(0, len(data), 4096)]
        unmarked = set(page[8:] for page in pages[:4096])
        print(len(unmarked), len(set(pages)), len(zlib.compress(data, 1)) >= len(data))
"""
PAGES = SIZE // 4096


@pytest.fixture(scope="module")
def filled(lab: Lab) -> Iterator[Fill]:
    """One for three tests, in this order: as it is, spoilt, killed."""
    fill = Fill(lambda: lab.probe.ssh, SIZE).start()
    fill.wait()
    yield fill
    fill.stop()


def look(lab: Lab, fill: Fill, *arguments: Any) -> list[str]:
    words = " ".join(map(str, (fill.program.path.split("/")[2], PAGES, *arguments)))
    return lab.probe.ssh.check(f"python3 - {words}", stdin=LOOK.encode()).split()


def test_every_page_is_another_one_and_none_gets_smaller(lab: Lab, filled: Fill) -> None:
    assert look(lab, filled) == ["4096", str(PAGES), "True"]
    assert filled.locked


def test_it_is_verified_page_by_page(lab: Lab, filled: Fill) -> None:
    assert filled.verify().ok
    look(lab, filled, 0, 5000, PAGES - 1)
    found = filled.verify()
    assert not found.ok
    assert (found.pages, found.differ, found.differing) == (PAGES, 3, (0, 5000, PAGES - 1))


def test_it_outlives_its_connection(lab: Lab) -> None:
    relay = Relay(lab.address.port)
    address = dataclasses.replace(lab.address, port=relay.port)
    with GuestProbe("web-0", lambda: SSH.connect(address, lab.clock, 60)) as probe:
        fill = Fill(lambda: probe.ssh, SIZE).start()
        told: list[int] = []

        def progress(done: int, of: int) -> None:
            assert of == SIZE
            if not told:  # in the middle of the answer
                relay.cut()
                relay.back()
            told.append(done)

        fill.wait(progress=progress)
        assert told
        assert fill.verify().ok
        assert probe.reconnects
        fill.stop()
    relay.cut()


def test_what_does_not_fit_is_refused(lab: Lab) -> None:
    total = int(lab.probe.ssh.check("awk '/MemTotal/ {print $2}' /proc/meminfo")) << 10
    with pytest.raises(GuestError, match="96 MiB must stay so"):
        Fill(lambda: lab.probe.ssh, total - (90 << 20)).start()


def test_one_that_is_gone_is_told(lab: Lab, filled: Fill) -> None:
    lab.probe.ssh.check(f"kill -9 {filled.program.path.split('/')[2]}")
    with pytest.raises(GuestError, match="has ended"):
        filled.verify()
