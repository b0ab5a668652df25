"""What `hosts check` finds wrong with hosts, and how it is printed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from lab.errors import GuestGone, UsageError
from lab.hosts.check import problems
from lab.hosts.link import as_host
from lab.record.hosts_check import (
    CalibrationState,
    CheckResult,
    HostOffset,
    HostReport,
    HostsCheck,
    HostsProblem,
    MachineReport,
    as_json,
    machine_report,
)
from lab.report.hosts import render_hosts
from lab.session.machine_report import look
from tests.unit.kept_guest import console_of

CALIBRATED = CalibrationState("2026-11-29T10:00:00+00:00", 30)
HERE = MachineReport(
    *("0.1.0", "c0de", "3.11.2", "6.1.0-57-amd64", "a CPU", 8, 16 << 30, 0.5, "7.2.22", "9.0.0"),
    machine="here",
    boot="b-here",
    calibration=CALIBRATED,
    checks=(CheckResult("memory", True, "9 GiB free"), CheckResult("accelerator", None, "tcg")),
)
NEAR = HostOffset(-90_000, 80_000, 220_000, 250_000, 30)


def host(name: str, clock: HostOffset | None = NEAR, **changes: Any) -> HostReport:
    report = replace(HERE, machine=f"m-{name}", boot=f"b-{name}")
    return HostReport(name, report=replace(report, **changes), clock=clock)


def found(*hosts: HostReport) -> list[HostsProblem]:
    return list(problems(HERE, hosts))


def lines(*hosts: HostReport) -> list[tuple[tuple[str, ...], str, bool]]:
    return [(problem.hosts, problem.what, problem.fails) for problem in found(*hosts)]


def test_hosts_that_go_together_have_no_problem() -> None:
    assert lines(host("a"), host("b")) == []


def test_this_machine_may_be_a_host() -> None:
    assert lines(HostReport("a", report=HERE, clock=NEAR), host("b")) == []


def test_a_host_that_is_not_reached_fails_with_what_to_do() -> None:
    silent = HostReport("b", failure="no answer to SSH", todo="is it up?")
    assert found(host("a"), silent) == [HostsProblem(("b",), "no answer to SSH", "is it up?", fails=True)]


def test_a_failed_check_of_doctor_fails_and_a_note_does_not() -> None:
    bad = CheckResult("memory", False, "100 MiB free", "free some memory")
    assert found(host("a", checks=(bad, *HERE.checks))) == [
        HostsProblem(("a",), "memory: 100 MiB free", "free some memory", fails=True)
    ]


@pytest.mark.parametrize(
    ("version", "code", "what"),
    [
        ("0.2.0", "c0de", "freezelab 0.2.0 there is not that here, 0.1.0"),
        ("0.1.0", "0dd", "freezelab 0.1.0 there has other files than here"),
    ],
)
def test_another_freezelab_fails(version: str, code: str, what: str) -> None:
    assert lines(host("a", freezelab=version, code=code)) == [(("a",), what, True)]


@pytest.mark.parametrize("member", ["qemu", "libvirt", "kernel", "python"])
def test_other_versions_are_one_line_for_all_hosts(member: str) -> None:
    changed: dict[str, Any] = {member: "99.1"}
    (line,) = lines(host("a"), host("b", **changed), host("c"))
    assert line[0] == ("a", "b", "c")
    assert line[1].endswith(f" differs: {getattr(HERE, member)} on a, c; 99.1 on b")
    assert not line[2]


@pytest.mark.parametrize("machines", [("m", "m"), ("m", "n")])
def test_one_machine_twice_is_known_by_its_kernel(machines: tuple[str, str]) -> None:
    """Containers of it have machine ids of their own, and its CPUs."""
    one, other = machines
    found = lines(host("a", machine=one, boot="k"), host("b"), host("c", machine=other, boot="k"))
    assert found == [(("a", "c"), "are one machine: one kernel runs them", True)]


def test_a_copied_machine_id_fails_as_well() -> None:
    (line,) = lines(host("a", machine="m"), host("b", machine="m"))
    what = "have the same machine id, by which records tell machines apart: a copied disk?"
    assert line == (("a", "b"), what, True)


@pytest.mark.parametrize(
    ("low", "high", "what"),
    [
        (1_999_500_000, 2_000_500_000, "its clock is 2 000.0 ± 0.5 ms ahead of this machine's"),
        (-2_000_500_000, -1_999_500_000, "its clock is 2 000.0 ± 0.5 ms behind this machine's"),
        (-90_000_000, 3_000_000_000, None),  # perhaps it is not
    ],
)
def test_a_clock_that_is_certainly_off_is_a_note(low: int, high: int, what: str | None) -> None:
    told = lines(host("a", HostOffset(low, high, 1, 1, 30)))
    plain = [(names, text.replace("\N{NO-BREAK SPACE}", " "), fails) for names, text, fails in told]
    assert plain == ([] if what is None else [(("a",), what, False)])


def test_hosts_without_calibration_are_one_line() -> None:
    stale = replace(CALIBRATED, stale="another kernel")
    assert lines(host("a", calibration=None), host("b", calibration=None), host("c", calibration=stale)) == [
        (("a", "b"), "no calibration", False),
        (("c",), "the calibration of 2026-11-29T10:00:00+00:00: another kernel", False),
    ]


def checked() -> HostsCheck:
    hosts = (
        host("rack-with-a-long-name-1", calibration=None),
        HostReport("rack-2", failure="no answer to SSH at root@10.0.0.2:22 within 10 s", todo="is it up?"),
        HostReport("rack-3", failure="there is no freezelab: not found", clock=NEAR),
        host("rack-4", HostOffset(1_999_000_000, 2_001_000_000, 220_000, 250_000, 30), kernel="6.12.9"),
    )
    return HostsCheck(HERE, hosts, tuple(problems(HERE, hosts)))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_fits(width: int) -> None:
    console, out = console_of(width)
    render_hosts(checked(), console)
    shown = out.getvalue().splitlines()
    assert max(map(len, shown)) <= width
    assert "doctor" in shown[0] and "round trip" in shown[0]
    assert ("kernel" in shown[0]) is (width >= 120)
    assert sum(line.startswith("rack-") for line in shown) == 4
    assert "2 of 4 hosts cannot be used as they are" in shown[-1]


def test_what_doctor_prints_is_read_back() -> None:
    assert machine_report(as_json(HERE)) == HERE
    mine = look()
    assert machine_report(as_json(mine)) == mine
    assert mine.machine != mine.boot and len(mine.machine) == len(mine.code) == 16
    assert json.loads(as_json(checked()))["schema"] == "freezelab.hosts-check/1"


@pytest.mark.parametrize(
    "text", ["", "{}", "not JSON", '{"schema": "freezelab.doctor/2"}', as_json(HERE).replace("0.5", '"x"')]
)
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        machine_report(text)


def test_errors_of_guests_name_the_host_and_stay_what_they_are() -> None:
    with pytest.raises(UsageError, match=r"^host a: /etc/ssh: not valid"), as_host("a"):
        raise UsageError("not valid", where="guest a: /etc/ssh")
    with pytest.raises(GuestGone, match=r"^host a: gone"), as_host("a"):
        raise GuestGone("gone")
