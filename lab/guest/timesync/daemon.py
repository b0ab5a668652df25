"""Set-ups in which a program of the distribution keeps the guest's clock: chronyd, timesyncd, ntpd.

Each runs as the distribution's own unit with the lab's configuration; the distribution's is kept aside. The
unit is also started at boot, so that a rebooted guest has it again. In a system without systemd, chronyd is
started by its script in /etc/init.d, as sysvinit and OpenRC have it. One shell command (CLEAN) removes
everything that any of them installs, so removal works the same whatever happened before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab.core.clock import Interval
from lab.core.mechanism import ResyncMechanism
from lab.core.timesync_setup import Setup
from lab.errors import GuestError, Refused
from lab.guest.ssh import SSH
from lab.guest.timesync import push
from lab.guest.timesync.access import GuestAccess
from lab.guest.timesync.host_actions import rtc_status
from lab.guest.timesync.setter import setter

START_S = 60.0
STATE_S = 20.0

UNITS = (
    *("chrony.service", "chronyd.service", "ntpsec.service", "systemd-timesyncd.service"),
    *("openntpd.service", "freezelab-phc2sys.service"),
)
CONFIGS = (
    "/etc/chrony/chrony.conf",
    "/etc/chrony.conf",
    "/etc/ntpsec/ntp.conf",
    "/etc/systemd/timesyncd.conf",
    "/etc/openntpd/ntpd.conf",
    "/etc/freezelab/phc2sys",
)
ASIDE = ".freezelab-aside"
PORT = "/etc/freezelab/ntp"
"""The file that the image's /usr/lib/freezelab/ntp-port reads; see images/debian/README.md."""

_WANTS = "/etc/systemd/system/multi-user.target.wants"
FILES = (
    PORT,
    "/var/lib/systemd/timesync/clock",  # at boot, systemd advances a clock that is behind this file's date
    "/var/lib/ntpsec/ntp.drift",
    "/var/lib/openntpd/db/ntpd.drift",
    "/var/lib/openntpd/ntpd.drift",  # 7.9's
    "/var/lib/chrony/chrony.drift",
    "/run/lock/ntpsec-ntpdate",
    *(f"{_WANTS}/{unit}" for unit in UNITS),
)

SYSTEMD = "[ -d /run/systemd/system ]"
"""A shell command that succeeds where systemd is the init (sd_booted(3))."""

SCRIPTS = ("chrony", "chronyd")
"""chronyd's script in /etc/init.d, in Debian and in Alpine."""

_ASIDES = " ".join(f"{config}{ASIDE}" for config in CONFIGS)
CLEAN = (
    # Checks first whether there is anything to remove: systemctl takes half a second under TCG.
    f"for c in {_ASIDES}; do [ ! -e $c ] || found=1; done; [ $found ] || exit 0; "
    f"if {SYSTEMD}; then for verb in stop reset-failed; do systemctl -q $verb {' '.join(UNITS)} 2>/dev/null; "
    f"done; else for s in {' '.join(SCRIPTS)}; do [ ! -x /etc/init.d/$s ] || /etc/init.d/$s stop; done "
    "fi >/dev/null 2>&1; "
    f"rm -f {' '.join(FILES)}; "
    # An empty file aside means that there was no configuration.
    f"for c in {_ASIDES}; do t=${{c%{ASIDE}}}; "
    "[ ! -e $c ] || { mv -f $c $t; [ -s $t ] || rm -f $t; }; done; true"
)

_OTHERS = ("ntpd.service", "ntp.service")
STOP_OWN = (
    f"if {SYSTEMD}; then set --; "
    f"for u in {' '.join((*UNITS, *_OTHERS))}; do for d in /etc /usr/lib /lib; do "
    '[ ! -e $d/systemd/system/$u ] || { set -- "$@" $u; break; }; done; done; '
    # One call for all: each makes systemd read its units again, which takes seconds under TCG.
    'if [ $# = 0 ]; then systemctl daemon-reload; else systemctl -q disable --now "$@"; fi; '
    f"else for s in {' '.join(SCRIPTS)} ntpsec ntpd ntp openntpd; do "
    "[ ! -x /etc/init.d/$s ] || /etc/init.d/$s stop; done; fi >/dev/null 2>&1; true"
)
"""A shell command that ends the time daemons that an imported image starts, for as long as the guest exists,
and has systemd read what the seed has brought for others."""

_SPLIT = "=freezelab="


@dataclass(frozen=True)
class TimeDaemon:
    """The differences between the programs. Commands are shell commands in the guest.

    unit: the systemd unit. scripts: its names in /etc/init.d; () when it needs systemd. version: prints the
    program's name and version; fails without the program. config: the path of its configuration.
    ready: exits with 0 when the clock is synchronised, else prints why not. identifier: its name in the
    journal. state: prints the text from which `parse` makes a status. claim: the program's own claim, from
    that status. whole: prints the whole configuration, with included files in place. process: the program's
    name in the kernel (15 characters).
    before: runs before the start. uses_bus: the program starts D-Bus.
    """

    unit: str
    version: str
    config: str
    identifier: str
    ready: str
    state: str
    parse: Callable[[str], dict[str, str]]
    claim: Callable[[dict[str, str]], str]
    whole: str
    process: str
    scripts: tuple[str, ...] = ()
    before: str = ""
    uses_bus: bool = False


class DaemonResync:
    """ports.Resync for a service, which works by itself and is not told of a resume."""

    def __init__(
        self, mechanism: ResyncMechanism, services: Sequence[TimeDaemon], access: GuestAccess
    ) -> None:
        """services: the program as different distributions have it; the first one is the lab's image's."""
        self._mechanism, self._services, self._access = mechanism, services, access
        self._service = services[0]
        self._program = ""
        self._script = ""
        """Its path in /etc/init.d, in a system without systemd."""
        self._stop_bus = False
        self._cursor = ""
        self._rtc: dict[str, str] = {}

    def check(self) -> None:
        """Refused when the program or its unit is missing in the guest, or too old for the mechanism."""
        if self._access.foreign:
            self._find()
        unit = self._service.unit
        result = self._ssh().run(self._service.version)
        if result.status != 0:
            name = unit.removesuffix(".service")
            raise Refused(f"{name} is not installed in this guest", where=self._access.where)
        self._program = result.out.strip().splitlines()[0]
        feature, version = self._mechanism.traits.feature, re.search(r"(\d+)\.(\d+)", self._program)
        if feature and version and (int(version[1]), int(version[2])) < feature.since:
            since = ".".join(str(part) for part in feature.since)
            raise Refused(
                f"no {feature.name} in this guest: {self._name} {version[0]} is older than {since}",
                where=self._access.where,
            )

    def _find(self) -> None:
        """Find out which of the services the guest has, or which script in /etc/init.d without systemd.
        Refused when it has none."""
        units = {service.unit: service for service in self._services}
        scripts = [f"/etc/init.d/{name}" for name in self._service.scripts]
        there = "systemctl cat $u >/dev/null 2>&1"
        found = self._ssh().run(
            f"if {SYSTEMD}; then for u in {' '.join(units)}; do if {there}; then echo $u; exit; fi; done; "
            f"else for s in {' '.join(scripts)}; do [ ! -x $s ] || {{ echo $s; exit; }}; done; fi; false"
        )
        if found.status != 0:
            what = f"there is no {' or '.join((*units, *scripts))} in this guest"
            raise Refused(what, where=self._access.where)
        name = found.out.strip()
        if name in units:
            self._service = units[name]
        else:
            self._script = name

    def install(self, config: str, rtc: Interval | None = None) -> DaemonResync:
        """Write the configuration, start the service, and wait until it keeps the clock. GuestError, with the
        program's own message, when it does not. rtc: the RTC minus REALTIME, if known."""
        self._rtc = rtc_status(rtc)
        ssh, service = self._ssh(), self._service
        aside = f"{service.config}{ASIDE}"
        ssh.check(
            f"set -e; [ -e {aside} ] || if [ -s {service.config} ]; then mv {service.config} {aside}; "
            f"else : >{aside}; fi; cat >{service.config}; chmod 644 {service.config}; if {SYSTEMD}; then "
            f"mkdir -p {_WANTS}; ln -sf /lib/systemd/system/{service.unit} {_WANTS}/{service.unit}; fi",
            stdin=config.encode(),
        )
        if service.before:
            ssh.check(service.before)
        if service.uses_bus:
            self._stop_bus = ssh.run("systemctl -q is-active dbus.service").status != 0
        self._cursor = ssh.run("journalctl -q -n 0 --show-cursor").out.partition("cursor: ")[2].strip()
        start = f"{self._script} start" if self._script else f"systemctl start {service.unit}"
        started = ssh.run(start, START_S)
        if started.status != 0:
            raise GuestError(
                f"{self._name} does not start: {self._words(started.err)}", where=self._access.where
            )
        ready = ssh.run(service.ready, START_S)
        if ready.status != 0:
            why = (ready.out + ready.err).strip().splitlines()[-1:] or [""]
            raise GuestError(
                f"{self._name} does not keep the clock: {self._words(why[0])}", where=self._access.where
            )
        self._log()  # skip the log lines of the start
        return self

    def setup(self) -> Setup:
        service = self._service
        asked = [service.whole, command_line(service.process), service.state]
        output = self._ssh().check(f"; echo; echo {_SPLIT}; ".join(asked), STATE_S)
        config, options, state = output.split(f"\n{_SPLIT}\n", 2)
        status = {**service.parse(state), "options": options.strip(), **self._rtc}
        return Setup(self._mechanism, self._program, config, status, self._access.rtc_stops)

    def resumed(self) -> None:
        return None

    def outcome(self) -> str:
        """The program's own claim, and its log lines about steps."""
        result = self._ssh().run(self._service.state, STATE_S)
        claim = self._service.claim(self._service.parse(result.out)) if result.status == 0 else ""
        if not claim:
            return f"{self._name} does not answer: {self._words(result.err)}"
        return "; ".join([claim, *self._new_lines()])

    def finished_raw_ns(self) -> int | None:
        return None

    def remove(self) -> None:
        ssh = self._ssh()
        ssh.check(CLEAN, START_S)
        if self._stop_bus:
            self._stop_bus = False
            ssh.run("systemctl -q stop systemd-timedated.service dbus.service", START_S)
        with setter(self._access) as line:
            push.forget(line)

    def _failed(self, what: str, output: str) -> GuestError:
        return GuestError(f"{self._name} {what}: {self._words(output)}", where=self._access.where)

    @property
    def _name(self) -> str:
        return self._service.identifier

    def _ssh(self) -> SSH:
        return self._access.ssh()

    def _log(self) -> list[str]:
        """The program's lines in the journal since the last call."""
        after = f"--after-cursor='{self._cursor}'" if self._cursor else "-n 50"
        output = self._ssh().run(f"journalctl -q -o cat --show-cursor {after} -t {self._name}", STATE_S).out
        text, _, cursor = output.partition("-- cursor: ")
        self._cursor = cursor.strip() or self._cursor
        return [line.strip() for line in text.splitlines() if line.strip()]

    def _words(self, otherwise: str) -> str:
        """The program's last log line about a problem, or else the end of `otherwise`, or else its last
        line."""
        lines = self._log()
        trouble = [line for line in lines if any(word in line.lower() for word in _TROUBLE)]
        last = trouble[-1:] or otherwise.strip().splitlines()[-1:] or lines[-1:] or ["it says nothing"]
        return last[0]

    def _new_lines(self) -> list[str]:
        return [line for line in self._log() if any(word in line for word in _STEPS)]


_TROUBLE = ("fatal", "error", "invalid", "could not", "cannot", "timed out", "failed", "syntax")
_STEPS = ("stepped", "wrong by", "CLOCK:", "clock synchronization", "backward", "Forward time jump")


def command_line(process: str) -> str:
    """A shell command that prints the command line of the first process of this name."""
    found = f'read -r c <$p/comm && [ "$c" = {process} ]'
    return f"for p in /proc/[0-9]*; do if {found}; then tr '\\0' ' ' <$p/cmdline; break; fi; done 2>/dev/null"


def inlined(path: str, rules: str) -> str:
    """A shell command that prints a file with included files in place. rules: patterns of `case` for a line's
    first word; its words are "$@", and `own` prints a file."""
    return (
        'own() { while IFS= read -r line || [ -n "$line" ]; do set -f; set -- $line; set +f; case "$1" in '
        f"""{rules} *) printf '%s\\n' "$line";; esac; done <"$1"; }}; own {path}"""
    )


def waited(condition: str, seconds: int, otherwise: str) -> str:
    """A shell command that exits with 0 as soon as `condition` holds, or runs `otherwise` after `seconds` and
    fails."""
    tries = f"for i in $(seq {seconds * 4}); do if {condition}; then exit 0; fi; sleep 0.25; done"
    return f"{tries}; {otherwise}; exit 1"
