"""hardware-watchdog: a guest with an emulated i6300esb that its systemd pets, and that resets it otherwise.

QEMU's device counts by the guest's virtual clock (hw/watchdog/wdt_i6300esb.c, QEMU_CLOCK_VIRTUAL): it stops
with a guest that is suspended. In a process that was stopped by a signal it runs out once, which only begins
its second stage; the guest pets it before that has run out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lab.core.method import Regime
from lab.core.setup import SetupCommand, SetupFile, SetupSpec
from lab.core.units import NS_PER_S
from lab.core.watchdog import WatchdogAction
from lab.core.workload.prediction import Threshold
from lab.core.workload.shipped.base import Options, ShippedWorkload, WorkloadGuest
from lab.core.workload.shipped.journal_server import JOURNAL_SERVER, journal_service
from lab.core.workload.shipped.option_values import duration_ns
from lab.core.workload.spec import WorkloadExpect

SETTING = """\
[Manager]
RuntimeWatchdogSec={seconds}s
"""

SET_UP = """\
modprobe i6300esb
systemctl enable lab-journals
systemctl daemon-reexec
"""


def _guests(options: Options) -> tuple[WorkloadGuest, ...]:
    timeout = duration_ns(options, "timeout")
    if timeout % NS_PER_S or not 2 * NS_PER_S <= timeout <= 1024 * NS_PER_S:
        raise ValueError("timeout: the device has whole seconds; write 2s to 1024s")
    setting = SETTING.format(seconds=timeout // NS_PER_S)
    setup = SetupSpec(
        files=(SetupFile("/etc/systemd/system.conf.d/lab-watchdog.conf", content=setting), *JOURNAL_SERVER),
        run=(SetupCommand(SET_UP),),
        services=(journal_service(),),
    )
    return (WorkloadGuest("watchdog-0", setup, image="debian-generic", watchdog=WatchdogAction.RESET),)


def timeout_ns(config: Mapping[str, str]) -> int | None:
    """The device's timeout as the guest's kernel has it; None: no guest says so."""
    for text in config.values():
        found = re.search(r"^timeout ([0-9]+)$", text, re.MULTILINE)
        if found is not None:
            return int(found[1]) * NS_PER_S
    return None


def _predict(config: Mapping[str, str], options: Options, regime: Regime) -> tuple[Threshold, ...]:
    timeout = timeout_ns(config)
    if timeout is None:
        return ()
    why = f"timeout {timeout / NS_PER_S:g} s in two stages, by the guest's virtual clock"
    return (Threshold("boot", None, why, "wdt_i6300esb.c"),)


HARDWARE_WATCHDOG = ShippedWorkload(
    name="hardware-watchdog",
    about="A guest with an i6300esb watchdog, which systemd pets",
    guests=_guests,
    client="guest_journals",
    period_ns=100_000_000,
    expect=WorkloadExpect(unchanged=("boot",)),
    config=(
        "for each in identity state timeout; do "
        'echo "$each $(cat /sys/class/watchdog/watchdog0/$each)"; done; '
        "systemctl show --property=RuntimeWatchdogUSec"
    ),
    predict=_predict,
    options=(("timeout", "10s"),),
    formed="grep -qx active /sys/class/watchdog/watchdog0/state",
)
