"""systemd-watchdog: a service that systemd kills when it does not pet its watchdog, a calendar timer, and a
job of cron each minute.

Only the guest knows what became of them, so a small server in it answers with their journals. Nobody outside
has timers here: over a pause in which the guest's clocks stop, they notice nothing, until its clock is
stepped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lab.core.clock import Interval
from lab.core.method import Regime
from lab.core.setup import Ready, ReadyKind, SetupCommand, SetupFile, SetupService, SetupSpec
from lab.core.units import NS_PER_S, format_duration, parse_duration
from lab.core.workload.prediction import EVER_NS, Threshold
from lab.core.workload.shipped.base import Options, ShippedWorkload, WorkloadGuest
from lab.core.workload.shipped.journal_server import JOURNAL_SERVER, journal_service
from lab.core.workload.shipped.option_values import duration_ns
from lab.core.workload.spec import WorkloadExpect

JOURNALS = {"starts": "/run/lab-starts", "timer": "/run/lab-timer", "cron": "/run/lab-cron"}
"""Lists of times (`date +%s%N`), one a line: starts of the service, runs of the timer's and of cron's job."""

CRON_NS = 60 * NS_PER_S
CATCHES_UP = 5
"""Minutes. A larger jump, up to 3 h, is a change of the clock to cron: it runs a job with * once for all of
it, and those of a certain time for each (cron.c of Vixie's cron; cron(8) has the latter only)."""

PET_NS = NS_PER_S

PETTED = f"""\
import os, socket, time
with open("{JOURNALS["starts"]}", "a") as file:
    print(time.time_ns(), file=file)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.connect(os.environ["NOTIFY_SOCKET"])
notify.send(b"READY=1")
while True:
    notify.send(b"WATCHDOG=1")
    time.sleep(1)
"""

PETTED_UNIT = """\
[Unit]
Description=A service with a watchdog
StartLimitIntervalSec=0
[Service]
Type=notify
ExecStart=/usr/bin/python3 /usr/local/lib/lab-petted.py
WatchdogSec={watchdog}
Restart=always
"""

TIMER_UNIT = """\
[Unit]
Description=A calendar timer
[Timer]
OnCalendar=*:*:0/{every}
AccuracySec=1ms
"""

TIMER_SERVICE = f"""\
[Unit]
Description=The job of a calendar timer
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'date +%%s%%N >> {JOURNALS["timer"]}'
"""

CRON_TABLE = f"""\
* * * * * root date +\\%s\\%N >> {JOURNALS["cron"]}
"""


def every_ns(options: Options) -> int:
    """The period of the calendar timer: whole seconds that divide a minute. ValueError."""
    every = duration_ns(options, "every")
    if every < NS_PER_S or every % NS_PER_S or CRON_NS % every:
        raise ValueError("every: write whole seconds that divide a minute, like 10s")
    return every


def _guests(options: Options) -> tuple[WorkloadGuest, ...]:
    every, watchdog = every_ns(options) // NS_PER_S, duration_ns(options, "watchdog")
    if watchdog < 2 * PET_NS or watchdog % NS_PER_S:
        raise ValueError("watchdog: write whole seconds, 2s or more; the service pets it each second")
    system, journals = "/etc/systemd/system", tuple(JOURNALS.values())
    setup = SetupSpec(
        packages=("cron",),
        files=(
            SetupFile("/usr/local/lib/lab-petted.py", content=PETTED),
            SetupFile(
                f"{system}/lab-petted.service",
                content=PETTED_UNIT.format(watchdog=f"{watchdog // NS_PER_S}s"),
            ),
            SetupFile(f"{system}/lab-timer.timer", content=TIMER_UNIT.format(every=every)),
            SetupFile(f"{system}/lab-timer.service", content=TIMER_SERVICE),
            SetupFile("/etc/cron.d/lab", content=CRON_TABLE),
            *JOURNAL_SERVER,
        ),
        run=(SetupCommand(f"touch {' '.join(journals)}\nsystemctl daemon-reload"),),
        services=(
            SetupService("lab-petted"),
            SetupService("lab-timer.timer", Ready(ReadyKind.COMMAND, f"[ -s {JOURNALS['timer']} ]")),
            SetupService("cron"),
            journal_service(),
        ),
    )
    return (WorkloadGuest("service-0", setup),)


def _setting(config: Mapping[str, str], pattern: str) -> str | None:
    for text in config.values():
        found = re.search(pattern, text, re.MULTILINE)
        if found is not None:
            return found[1]
    return None


def _predict(config: Mapping[str, str], options: Options, regime: Regime) -> tuple[Threshold, ...]:
    jumped, found = regime is Regime.JUMPED, []
    stepped = "" if jumped else ": once its clock is stepped"
    watchdog = _setting(config, r"^WatchdogSec=(\S+)$")
    if watchdog is not None:
        # Whether systemd looks at the deadline or at the petting first is a race.
        killed = Interval(max(0, parse_duration(watchdog) - PET_NS), EVER_NS) if jumped else None
        why = f"WatchdogSec={watchdog}, petted each second" + ("" if jumped else ": its clock stops, too")
        found.append(Threshold("restarts", killed, why, "systemd.service(5)"))
    every = _setting(config, r"^OnCalendar=\*:\*:0/([0-9]+)$")
    if every is not None:
        period = int(every) * NS_PER_S
        pause = Interval(period, 2 * period + NS_PER_S if jumped else EVER_NS)
        why = f"each {format_duration(period)}; what was missed runs once{stepped}"
        found.append(Threshold("timer skipped", pause, why, "systemd.timer(5)"))
    if _setting(config, r"^(\* \* \* \* \*) root ") is not None:
        why = f"cron runs what it has missed in up to {CATCHES_UP} min one after another{stepped}"
        pause = Interval(CRON_NS, 2 * CRON_NS if jumped else EVER_NS)
        ends = Interval(CATCHES_UP * CRON_NS, (CATCHES_UP + 1) * CRON_NS)
        found.append(Threshold("cron twice", pause, why, "cron.c", ends))
        why = f"what cron has missed runs afterwards, if at all{stepped}"
        found.append(Threshold("cron skipped", pause, why, "cron(8)"))
    return tuple(found)


SYSTEMD_WATCHDOG = ShippedWorkload(
    name="systemd-watchdog",
    about="A service with WatchdogSec, a calendar timer, and a job of cron",
    guests=_guests,
    client="guest_journals",
    period_ns=100_000_000,
    expect=WorkloadExpect(unchanged=("restarts",), never=("timer twice", "cron twice")),
    config=(
        "cat /etc/systemd/system/lab-petted.service /etc/systemd/system/lab-timer.timer /etc/cron.d/lab; "
        "systemctl --version | head -n1"
    ),
    predict=_predict,
    options=(("watchdog", "5s"), ("every", "10s")),
)
