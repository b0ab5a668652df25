"""The kernel's messages of trouble, as Linux 6.1 and 6.12 word them, are found in a guest's log."""

from __future__ import annotations

import pytest

from lab.guest.payload import TROUBLE

WORDS = [
    "watchdog: BUG: soft lockup - CPU#0 stuck for 23s! [python3:163]",
    "watchdog: CPU1: Watchdog detected hard LOCKUP on cpu 0",
    "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 59s!",
    "rcu: INFO: rcu_preempt self-detected stall on CPU",
    "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
    "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-... } 5443 jiffies s: 49",
    "rcu: rcu_preempt kthread starved for 5252 jiffies! g2 f0x0 RCU_GP_WAIT_FQS(5) ->state=0x402 ->cpu=0",
    "rcu: rcu_preempt kthread timer wakeup didn't happen for 764 jiffies! g12741 f0x0 RCU_GP_WAIT_FQS(5)",
    "INFO: task xfsaild/sda4:1428 blocked for more than 120 seconds.",
    "INFO: task sync:77 blocked in I/O wait for more than 120 seconds.",
    "clocksource: timekeeping watchdog on CPU1: Marking clocksource 'tsc' as unstable because the skew",
    "clocksource: Long readout interval, skipping watchdog check: cs_nsec: 8022630082 wd_nsec: 8022627385",
    "clocksource: Switched to clocksource acpi_pm",
    "tsc: Marking TSC unstable due to clocksource watchdog",
    "sched_clock: Marking unstable (5000000000, -2000000)<-(4999000000, 1000000)",
    "NETDEV WATCHDOG: eth0 (virtio_net): transmit queue 0 timed out",
]
HARMLESS = [
    "random: crng init done",
    "watchdog: Delayed init of the lockup detector failed: 0",
    "rcu: Hierarchical SRCU implementation.",
    "systemd[1]: Started chrony.service - chrony, an NTP client/server.",
]


@pytest.mark.parametrize("words", WORDS)
def test_trouble_is_found(words: str) -> None:
    assert TROUBLE.search(words)


@pytest.mark.parametrize("words", HARMLESS)
def test_what_is_none_is_not(words: str) -> None:
    assert not TROUBLE.search(words)
