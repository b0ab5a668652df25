"""A run as JUnit XML, for servers and tools that read this format.

One test suite for the run, one test case for each finding: a guest, a cycle and a metric. A failed
expectation is a <failure>. An inconclusive one is an <error>: JUnit has no third verdict, and <skipped>
counts as green, which an undecided measurement must never be. An <error> means that the test itself could not
be completed, which is true.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from junitparser import Error, Failure, JUnitXml, TestCase, TestSuite

from lab.core.verdict import Finding, Outcome
from lab.record.model import Run
from lab.report.claims import claim_text
from lab.report.files import write_whole
from lab.report.junit_properties import measured_properties, whose
from lab.report.resyncs import measured, verdict
from lab.report.text import bare, cleaned


def write_junit(run: Run, path: Path) -> None:
    """Write the run to `path`, whole or not at all. MachineError when it cannot be written."""
    xml = JUnitXml()
    suite = _suite(cleaned(run))
    xml.add_testsuite(suite)
    xml.update_statistics()  # type: ignore[no-untyped-call]
    suite.time = xml.time = _seconds(run)  # of the run; the cases, whose sum would be here, have no time
    _write(xml, path)


def write_played_junit(played: Iterable[tuple[str, Sequence[Finding]]], path: Path) -> None:
    """Write the findings of playbooks that were played without guests, a suite for each by its name.
    MachineError when the file cannot be written."""
    xml = JUnitXml()
    for name, findings in cleaned(list(played)):
        suite = TestSuite(f"freezelab.{name}")
        for finding in findings:
            suite.add_testcase(_case(name, finding))
        xml.add_testsuite(suite)
    xml.update_statistics()  # type: ignore[no-untyped-call]
    _write(xml, path)


def _write(xml: JUnitXml, path: Path) -> None:
    write_whole(path, b'<?xml version="1.0" encoding="UTF-8"?>\n' + xml.tostring() + b"\n")  # type: ignore[no-untyped-call]


def _suite(run: Run) -> TestSuite:
    suite = TestSuite(f"freezelab.{run.playbook.name}")
    suite.timestamp = run.started.partition("+")[0]
    host = run.host
    for name, value in (
        ("run", run.id),
        ("outcome", run.outcome.value),
        ("interrupted", str(run.interrupted).lower()),
        ("playbook.digest", run.playbook.digest),
        ("host.kernel", host.kernel),
        ("host.cpu", host.cpu),
        ("host.memory_bytes", str(host.memory_bytes)),
        ("host.qemu", host.qemu),
        ("host.libvirt", host.libvirt),
        ("host.accelerator", host.accelerator),
        ("host.accelerator_reason", host.accelerator_reason),
        *_calibration(run),
        *_predictions(run),
        *measured_properties(run),
    ):
        suite.add_property(name, value)
    for finding in run.findings:
        suite.add_testcase(_case(run.playbook.name, finding))
    return suite


def _calibration(run: Run) -> Iterator[tuple[str, str]]:
    if run.calibration is None:
        return
    for name, value in asdict(run.calibration).items():
        yield f"calibration.{name}", str(value)


def _predictions(run: Run) -> Iterator[tuple[str, str]]:
    """Predictions as properties, not cases: they are not checks, and "not yet" must not count as green."""
    for guest in run.guests:
        for cycle in guest.cycles:
            forecast = cycle.resync.forecast if cycle.resync is not None else None
            if forecast is not None:
                shown = f"predicted: {forecast.text}; measured: {measured(cycle)[0]}; {verdict(forecast)[0]}"
                yield f"resync.{whose(guest, cycle)}", bare(shown)
            for audit in cycle.audits:
                if audit.wrong:
                    yield f"claim.{whose(guest, cycle)}.{audit.source}", bare(claim_text(audit)[0])


def _case(playbook: str, finding: Finding) -> TestCase:
    cycle = f"cycle {finding.cycle}: " if finding.cycle >= 0 else ""
    case = TestCase(
        f"{cycle}{finding.metric} {finding.expectation}",
        classname=".".join(filter(None, [playbook, finding.cell, finding.guest])),
        time=0.0,
    )
    if finding.outcome is not Outcome.PASSED:
        kind = Failure if finding.outcome is Outcome.FAILED else Error
        result = kind(finding.why or finding.measured, finding.outcome.value)
        result.text = f"expected: {finding.expectation}\nmeasured: {finding.measured}\n{finding.why}".rstrip()
        case.result = [result]
    elif finding.failed_as_expected:
        case.name = f"{cycle}{finding.metric} fails ({finding.expectation})"
        case.system_out = finding.why or finding.measured
    return case


def _seconds(run: Run) -> float:
    try:
        return (datetime.fromisoformat(run.ended) - datetime.fromisoformat(run.started)).total_seconds()
    except (TypeError, ValueError):
        return 0.0
