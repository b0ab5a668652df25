"""A night as JUnit XML: a test suite for each playbook, a test case for each thing that was held against the
baseline, and one for the run itself. Verdicts are mapped as in `junit`: what is not decided is an <error>."""

from __future__ import annotations

from pathlib import Path

from junitparser import Error, Failure, JUnitXml, TestCase, TestSuite

from lab.core.night import NightCheck, NightVerdict, PlaybookNight
from lab.core.units import NS_PER_S
from lab.record.nights import Night
from lab.report.files import write_whole
from lab.report.text import bare, cleaned


def write_night_junit(night: Night, path: Path) -> None:
    """Write the night to `path`, whole or not at all. MachineError when it cannot be written."""
    xml = JUnitXml("freezelab.nightly")
    suites = [_suite(night, part) for part in cleaned(night).playbooks]
    for suite in suites:
        xml.add_testsuite(suite)
    xml.update_statistics()  # type: ignore[no-untyped-call]
    for suite, part in zip(suites, night.playbooks, strict=True):
        suite.time = part.took_ns / NS_PER_S  # of the run; the cases, whose sum would be here, have no time
    xml.time = sum(part.took_ns for part in night.playbooks) / NS_PER_S
    write_whole(path, b'<?xml version="1.0" encoding="UTF-8"?>\n' + xml.tostring() + b"\n")  # type: ignore[no-untyped-call]


def _suite(night: Night, part: PlaybookNight) -> TestSuite:
    suite = TestSuite(f"freezelab.nightly.{part.playbook}")
    suite.timestamp = night.started.partition("+")[0]
    for name, value in (
        ("night", night.id),
        ("verdict", part.verdict.value),
        ("run", part.run),
        ("run.outcome", part.outcome.value if part.outcome is not None else ""),
        ("baseline", " ".join(part.baseline)),
        ("limit_ns", str(part.limit_ns)),
    ):
        suite.add_property(name, value)
    for note in part.notes:
        suite.add_property("note", bare(note))
    ended = NightCheck("run", NightVerdict.ERROR, why=part.why) if part.why else None
    if part.why and part.verdict in (NightVerdict.INVALID, NightVerdict.INTERRUPTED):
        ended = NightCheck("run", part.verdict, why=part.why)
    run = ended or NightCheck("run", NightVerdict.PASSED, tonight="ended by itself")
    for check in (run, *part.checks):
        suite.add_testcase(_case(part, check))
    return suite


def _case(part: PlaybookNight, check: NightCheck) -> TestCase:
    case = TestCase(bare(check.subject), classname=f"nightly.{part.playbook}", time=0.0)
    levels = (("baseline", check.usual), ("tonight", check.tonight))
    text = bare("\n".join(f"{name}: {value}" for name, value in levels if value))
    if check.verdict is NightVerdict.PASSED:
        case.system_out = text
    else:
        kind = Failure if check.verdict is NightVerdict.FAILED else Error
        result = kind(bare(check.why) or check.verdict.value, check.verdict.value)
        result.text = text
        case.result = [result]
    return case
