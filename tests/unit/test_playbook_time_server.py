"""The `time_server` section."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.core.plan import TimeFault, TimeFaultKind
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import PlaybookError
from lab.playbook import parse

HEAD = "name: a\nresync: {}\ncycle: {{patch: {{hold: 2s}}}}\ntime_server: {}\n"


def fault(given: str, resync: str = "chrony") -> TimeFault | None:
    return parse(HEAD.format(resync, given).encode(), "p", Path()).ntp_fault


def test_what_is_wrong_with_the_server_for_a_while() -> None:
    assert fault("{off_by: 2s}") is None
    assert fault("{fault: silent}") == TimeFault(TimeFaultKind.SILENT, 10 * NS_PER_S)
    assert fault("{fault: unsynchronised, fault_for: 1min}") == TimeFault(
        TimeFaultKind.UNSYNCHRONISED, 60 * NS_PER_S
    )
    late = fault("{fault: late, late_by: 200ms, fault_for: 0s}")
    assert late == TimeFault(TimeFaultKind.LATE, 0, 200 * NS_PER_MS)


@pytest.mark.parametrize(
    ("given", "resync", "said"),
    [
        (
            "{fault: deaf}",
            "chrony",
            "p:4:22: time_server.fault: 'deaf' is not a fault of a time server; wr",
        ),
        ("{fault: late}", "chrony", "p:4:22: time_server: fault: late needs late_by; add late_by:"),
        (
            "{late_by: 1s}",
            "chrony",
            "p:4:24: time_server: late_by has no meaning without fault: late; add fault: late, or delete",
        ),
        ("{fault: silent}", "push", "p:4:22: time_server: resync push does not use the time server; delete"),
    ],
)
def test_mistakes(given: str, resync: str, said: str) -> None:
    with pytest.raises(PlaybookError) as raised:
        fault(given, resync)
    [line] = str(raised.value).splitlines()
    assert line.startswith(said)
