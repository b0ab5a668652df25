"""Classifies lines of a guest's kernel log: trouble, or notes that Linux itself treats as harmless.

The texts are the kernel's own format strings, from three kernels: Debian's 6.1.192, 6.12.117 and 7.3.4. A
line that looks like trouble and is in neither table is unknown, because nobody has established its meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from lab.core.units import NS_PER_S, NS_PER_US

ALL = ("6.1", "6.12", "7.3")
OLD = ("6.1", "6.12")
NEW = ("6.12", "7.3")


class Meaning(StrEnum):
    """The meaning of a line of the kernel log."""

    TROUBLE = "trouble"
    NOTE = "note"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Message:
    """A message of Linux. text: its format string, without the prefix that pr_fmt() adds. kernels: the
    kernels of ALL that have it in `source`. busy_ns: a host that keeps its CPUs from the guest for so long
    can make the guest write it, by Linux's default limits; None: it takes more than that."""

    text: str
    source: str
    kernels: tuple[str, ...] = ALL
    busy_ns: int | None = None

    @property
    def pattern(self) -> str:
        """A regular expression that matches it in a line: each conversion matches any text."""
        return ".*?".join(re.escape(part) for part in re.split(r"%[0-9.*]*l*[a-zA-Z]+", self.text))


_WATCHDOG = "kernel/time/clocksource.c"
_STALL = "kernel/rcu/tree_stall.h"

CLOCKSOURCE_READ_NS = 100 * NS_PER_US
"""Linux's default: WATCHDOG_MAX_SKEW (kernel/time/clocksource.c). A host that delays a reading of a
clocksource by so long can make the guest distrust it."""

_LOCKUP_NS, _HARD_LOCKUP_NS = 20 * NS_PER_S, 10 * NS_PER_S
_POOL_NS, _STALL_NS, _SEND_NS = 30 * NS_PER_S, 21 * NS_PER_S, 5 * NS_PER_S
"""Linux's defaults: watchdog_thresh, 10 s, twice that for a
soft lockup (kernel/watchdog.c); wq_watchdog_thresh (kernel/workqueue.c); CONFIG_RCU_CPU_STALL_TIMEOUT
(kernel/rcu/Kconfig.debug); watchdog_timeo of a network device (net/sched/sch_generic.c)."""

TROUBLE = (
    Message("BUG: soft lockup - CPU#%d stuck for %us!", "kernel/watchdog.c", busy_ns=_LOCKUP_NS),
    Message(
        "Watchdog detected hard LOCKUP on cpu %d", "kernel/watchdog_hld.c", ("6.1",), busy_ns=_HARD_LOCKUP_NS
    ),
    Message("Watchdog detected hard LOCKUP on cpu %d", "kernel/watchdog.c", NEW, busy_ns=_HARD_LOCKUP_NS),
    Message("BUG: workqueue lockup - pool", "kernel/workqueue.c", busy_ns=_POOL_NS),
    Message("INFO: %s self-detected stall on CPU", _STALL, busy_ns=_STALL_NS),
    Message("INFO: %s detected stalls on CPUs/tasks:", _STALL, busy_ns=_STALL_NS),
    Message("INFO: %s detected stall, but suppressed full report", _STALL, NEW, busy_ns=_STALL_NS),
    Message("%s kthread starved for %ld jiffies!", _STALL, busy_ns=_STALL_NS),
    Message("%s kthread timer wakeup didn't happen for %ld jiffies!", _STALL, busy_ns=_STALL_NS),
    Message(
        "INFO: %s detected expedited stalls on CPUs/tasks: {", "kernel/rcu/tree_exp.h", busy_ns=_STALL_NS
    ),
    Message(
        "INFO: %s detected expedited stalls, but suppressed full report",
        "kernel/rcu/tree_exp.h",
        NEW,
        busy_ns=_STALL_NS,
    ),
    Message("INFO: rcu_tasks detected stalls on tasks:", "kernel/rcu/tasks.h"),
    Message("INFO: rcu_tasks_trace detected stalls", "kernel/rcu/tasks.h", OLD),
    Message("INFO: task %s:%d blocked for more than %ld seconds.", "kernel/hung_task.c", OLD),
    Message(
        "INFO: task %s:%d blocked%s for more than %ld seconds.",
        "kernel/hung_task.c",
        ("7.3",),
    ),
    Message(
        "timekeeping watchdog on CPU%d: Marking clocksource '%s' as unstable because the skew is too large:",
        _WATCHDOG,
        OLD,
    ),
    Message(
        "timekeeping watchdog on CPU%d: %s read-back delay of %lldns, attempt %d, marking unstable",
        _WATCHDOG,
        ("6.1",),
        busy_ns=CLOCKSOURCE_READ_NS,
    ),
    Message(
        "timekeeping watchdog on CPU%d: wd-%s-wd excessive read-back delay of %lldns vs. limit of %ldns, "
        "wd-wd read-back delay only %lldns, attempt %d, marking %s unstable",
        _WATCHDOG,
        ("6.12",),
        busy_ns=CLOCKSOURCE_READ_NS,
    ),
    Message("Marking clocksource %s unstable due to frequency skew", _WATCHDOG, ("7.3",)),
    Message("Marking clocksource %s unstable due to inter CPU skew", _WATCHDOG, ("7.3",)),
    Message("Marking TSC unstable due to %s", "arch/x86/kernel/tsc.c", busy_ns=CLOCKSOURCE_READ_NS),
    Message(
        "TSC found unstable after boot, most likely due to broken BIOS.",
        "kernel/sched/clock.c",
        busy_ns=CLOCKSOURCE_READ_NS,
    ),
    Message("NETDEV WATCHDOG: %s transmit queue %u timed out", "net/sched/sch_generic.c", busy_ns=_SEND_NS),
    Message("BUG: kernel NULL pointer dereference, address: %px", "arch/x86/mm/fault.c"),
    Message("BUG: unable to handle page fault for address: %px", "arch/x86/mm/fault.c"),
    Message("Oops: %s [#%d]", "arch/x86/kernel/dumpstack.c"),
    Message("general protection fault", "arch/x86/kernel/traps.c"),
    Message("Kernel panic - not syncing: %s", "kernel/panic.c"),
)
"""Messages of Linux when something was stuck, was lost, or can no longer be relied upon."""

NOTES = (
    # Two looks were too far apart for the fixed margin, as after any pause: the check is left out, once, and
    # nothing is marked.
    Message("Long readout interval, skipping watchdog check: cs_nsec: %lld wd_nsec: %lld", _WATCHDOG, OLD),
    Message("timekeeping watchdog on CPU%d: %s retried %d times before success", _WATCHDOG, OLD),
    Message("timekeeping watchdog on CPU%d: %s wd-wd read-back delay of %lldns", _WATCHDOG, OLD),
    Message("wd-%s-wd read-back delay of %lldns, clock-skew test skipped!", _WATCHDOG, OLD),
    Message("Checking clocksource %s synchronization from CPU %d to CPUs", _WATCHDOG, OLD),
    Message("Not enough CPUs to check clocksource '%s'.", _WATCHDOG, OLD),
    Message("Watchdog %s read timed out. Readout sequence took: %lluns", _WATCHDOG, ("7.3",)),
    Message("Watchdog remote CPU %u read timed out", _WATCHDOG, ("7.3",)),
    # Whether a guest has another clocksource than before is judged by its name.
    Message("Switched to clocksource %s", _WATCHDOG),
    Message("Override clocksource %s is ", _WATCHDOG),
    # It comes with the line that says why; by itself it tells where sched_clock() goes on.
    Message("sched_clock: Marking unstable (%lld, %lld)<-(%lld, %lld)", "kernel/sched/clock.c"),
)
"""Harmless messages of Linux that contain the words of trouble."""


@cache
def _any(messages: tuple[Message, ...]) -> re.Pattern[str]:
    return re.compile("|".join(message.pattern for message in messages))


_LOOKS_LIKE_TROUBLE = re.compile(
    r"lockup|LOCKUP|stall|starved|timer wakeup|[Uu]nstable|blocked .*for more than|NETDEV WATCHDOG|"
    r"BUG:|Oops|panic"
)


def busy_ns(line: str) -> int | None:
    """For how long a host has to keep its CPUs from the guest for that alone to explain this line of trouble;
    None: it is not explained so."""
    limits = [message.busy_ns for message in TROUBLE if re.search(message.pattern, line)]
    known = [limit for limit in limits if limit is not None]
    return max(known) if limits and len(known) == len(limits) else None


def meaning(line: str) -> Meaning:
    """The meaning of a line of a guest's kernel log."""
    if _any(TROUBLE).search(line):
        return Meaning.TROUBLE
    if _any(NOTES).search(line) or not _LOOKS_LIKE_TROUBLE.search(line):
        return Meaning.NOTE
    return Meaning.UNKNOWN


def sorted_out(lines: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The lines that are trouble, those that are notes, and those with an unknown meaning; each in order."""
    by: dict[Meaning, list[str]] = {each: [] for each in Meaning}
    for line in lines:
        by[meaning(line)].append(line)
    return tuple(by[Meaning.TROUBLE]), tuple(by[Meaning.NOTE]), tuple(by[Meaning.UNKNOWN])
