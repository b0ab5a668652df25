"""Lines of a guest's kernel log: found in the guest, and taken for what Linux means by them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from lab.core.findings import findings
from lab.core.judge import measure
from lab.core.kernel_log import ALL, NOTES, TROUBLE, Meaning, Message, meaning, sorted_out
from lab.core.plan import Expectations, ResyncMechanism
from lab.core.timeline import ProbeFacts
from lab.core.verdict import Outcome
from lab.guest.inside.clock_probe import NOTABLE
from tests.unit.scenario import Scenario
from tests.unit.simulation import simulate

LONG_READOUT = (
    "clocksource: Long readout interval, skipping watchdog check: cs_nsec: 8022630082 wd_nsec: 8022627385"
)

TROUBLES = [
    "watchdog: BUG: soft lockup - CPU#0 stuck for 23s! [python3:163]",
    "NMI watchdog: Watchdog detected hard LOCKUP on cpu 0",
    "watchdog: CPU1: Watchdog detected hard LOCKUP on cpu 0",
    "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 59s!",
    "rcu: INFO: rcu_preempt self-detected stall on CPU",
    "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
    "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-... } 5443 jiffies s: 49",
    "rcu: INFO: rcu_preempt detected stall, but suppressed full report due to a stuck CSD-lock.",
    "rcu: rcu_preempt kthread starved for 5252 jiffies! g2 f0x0 RCU_GP_WAIT_FQS(5) ->state=0x402 ->cpu=0",
    "rcu: rcu_preempt kthread timer wakeup didn't happen for 764 jiffies! g12741 f0x0 RCU_GP_WAIT_FQS(5)",
    "rcu: INFO: rcu_sched detected expedited stalls, but suppressed full report due to a stuck CSD-lock.",
    "INFO: rcu_tasks detected stalls on tasks:",
    "INFO: rcu_tasks_trace detected stalls? (Late IPI?)",
    "INFO: task xfsaild/sda4:1428 blocked for more than 120 seconds.",
    "INFO: task sync:77 blocked in I/O wait for more than 120 seconds.",
    "clocksource: timekeeping watchdog on CPU1: Marking clocksource 'tsc' as unstable because the skew is too large:",  # noqa: E501
    "clocksource: timekeeping watchdog on CPU3: tsc read-back delay of 81000ns, attempt 4, marking unstable",
    "clocksource: timekeeping watchdog on CPU0: wd-tsc-wd excessive read-back delay of 81000ns vs. limit of 75000ns, wd-wd read-back delay only 2000ns, attempt 3, marking tsc unstable",  # noqa: E501
    "clocksource: Marking clocksource tsc unstable due to frequency skew",
    "clocksource: Marking clocksource tsc unstable due to inter CPU skew",
    "tsc: Marking TSC unstable due to clocksource watchdog",
    "TSC found unstable after boot, most likely due to broken BIOS. Use 'tsc=unstable'.",
    "NETDEV WATCHDOG: eth0 (virtio_net): transmit queue 0 timed out",
    "virtio_net virtio1 eth0: NETDEV WATCHDOG: CPU: 0: transmit queue 0 timed out 5132 ms",
    "BUG: unable to handle page fault for address: ffff888000000010",
    "BUG: kernel NULL pointer dereference, address: 0000000000000008",
    "Oops: 0002 [#1] PREEMPT SMP PTI",
    "Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1] PREEMPT SMP",
    "general protection fault, probably for non-canonical address 0xdead000000000108: 0000 [#1] SMP",
    "Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b",
]
HARMLESS = [
    LONG_READOUT,
    "clocksource: timekeeping watchdog on CPU0: tsc retried 2 times before success",
    "clocksource: timekeeping watchdog on CPU1: hpet wd-wd read-back delay of 211110ns",
    "clocksource: wd-tsc-wd read-back delay of 237047ns, clock-skew test skipped!",
    "clocksource: Checking clocksource tsc synchronization from CPU 0 to CPUs 1.",
    "clocksource: Not enough CPUs to check clocksource 'tsc'.",
    "clocksource: Watchdog hpet read timed out. Readout sequence took: 81000ns",
    "clocksource: Watchdog remote CPU 1 read timed out",
    "clocksource: Switched to clocksource acpi_pm",
    "clocksource: Override clocksource tsc is not currently HRT compatible - deferring",
    "sched_clock: Marking unstable (5000000000, -2000000)<-(4999000000, 1000000)",
    "clocksource:                       'acpi_pm' wd_nsec: 503 wd_now: a wd_last: b mask: ffffff",
    "tsc: Refined TSC clocksource calibration: 2445.406 MHz",
]
PASSED_OVER = [
    "random: crng init done",
    "watchdog: Delayed init of the lockup detector failed: 0",
    "rcu: Hierarchical SRCU implementation.",
    "systemd[1]: Started chrony.service - chrony, an NTP client/server.",
]


@pytest.mark.parametrize("line", TROUBLES)
def test_what_linux_means_as_trouble_is_found_and_is_trouble(line: str) -> None:
    assert NOTABLE.search(line)
    assert meaning(line) is Meaning.TROUBLE


@pytest.mark.parametrize("line", HARMLESS)
def test_what_linux_takes_for_harmless_is_a_note(line: str) -> None:
    assert NOTABLE.search(line)
    assert meaning(line) is Meaning.NOTE


@pytest.mark.parametrize("line", PASSED_OVER)
def test_what_has_nothing_to_do_with_it_is_passed_over(line: str) -> None:
    assert not NOTABLE.search(line)


@pytest.mark.parametrize("message", [*TROUBLE, *NOTES], ids=lambda m: f"{m.source} {m.text[:30]}")
def test_every_text_has_its_kernels_and_an_example(message: Message) -> None:
    assert message.kernels and set(message.kernels) <= set(ALL)
    examples = TROUBLES if message in TROUBLE else HARMLESS
    assert any(re.search(message.pattern, line) for line in examples)


def test_a_stall_in_an_unknown_wording_is_neither_a_trouble_nor_harmless() -> None:
    line = "rcu: INFO: rcu_quantum is in a new kind of stall"
    assert NOTABLE.search(line)
    assert sorted_out([line, LONG_READOUT, TROUBLES[0]]) == ((TROUBLES[0],), (LONG_READOUT,), (line,))


def kernel_log(*lines: str) -> tuple[Outcome, str, str]:
    facts = ProbeFacts("boot", "acpi_pm")
    obs = replace(simulate(Scenario())[0], facts_before=facts, facts_after=replace(facts, kernel_lines=lines))
    expect = Expectations()
    (found,) = (
        f for f in findings(measure(obs, ResyncMechanism.NONE, expect), expect) if f.metric == "kernel log"
    )
    return found.outcome, found.measured, found.why


def test_a_long_readout_interval_passes_and_is_told() -> None:
    assert kernel_log(LONG_READOUT) == (Outcome.PASSED, "0 lines, 1 harmless", "")


def test_a_soft_lockup_fails_whatever_else_is_there() -> None:
    assert kernel_log(LONG_READOUT, TROUBLES[0]) == (
        Outcome.FAILED, "1 lines, 1 harmless", TROUBLES[0]
    )  # fmt: skip


def test_an_unknown_message_is_inconclusive() -> None:
    line = "rcu: INFO: rcu_quantum is in a new kind of stall"
    outcome, _, why = kernel_log(line)
    assert outcome is Outcome.INCONCLUSIVE and line in why
