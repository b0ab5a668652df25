"""The distribution's three time daemons, and how their states are read.

Status keys (texts; numbers as the program prints them):

all       options: the program's command line
chronyd   of `chronyc -c tracking` (chronyc(1)): refid reference stratum ref_time system_time last_offset
          rms_offset frequency_ppm residual_ppm skew_ppm root_delay root_dispersion update_interval leap
          (seconds, ppm); of `chronyc -c sources`, of its first source: state (* selected, ? unreachable …)
          poll (power of two in seconds) reach (octal) last_rx (seconds since the last answer); updates: of
          the clock since it was started, at least (MechanismTraits.updates, when a set-up waited for it)
timesyncd PollIntervalUSec (microseconds), since_poll_s (seconds since the file that marks a synchronisation
          was touched)
ntpd      system and peer variables of a mode 6 query, by ntpq's names: leap stratum tc offset frequency
          rootdelay rootdisp … hpoll reach rec; mu: seconds from the last answer to now.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress

from lab.core.mechanism import Means, ResyncMechanism
from lab.core.quantities import format_about
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.guest.timesync.daemon import PORT, SCRIPTS, TimeDaemon, inlined, waited

_TRACKING = (
    *(
        "refid",
        "reference",
        "stratum",
        "ref_time",
        "system_time",
        "last_offset",
        "rms_offset",
        "frequency_ppm",
    ),
    *("residual_ppm", "skew_ppm", "root_delay", "root_dispersion", "update_interval", "leap"),
)
_SOURCES = ("mode", "state", "name", "stratum", "poll", "reach", "last_rx")
_ACTIVITY = ("online", "offline", "burst_online", "burst_offline", "unresolved")
_CHRONYC = "chronyc -c -n -m tracking sources activity"
_EACH = 'do [ ! -f "$f" ] || own "$f"; done;;'
_CHRONY_INCLUDES = " ".join((
    f"[Ii][Nn][Cc][Ll][Uu][Dd][Ee]) shift; for f in $*; {_EACH}",
    f'[Cc][Oo][Nn][Ff][Dd][Ii][Rr]) shift; for f in $(printf "%s/*.conf " "$@"); {_EACH}',
    f'[Ss][Oo][Uu][Rr][Cc][Ee][Dd][Ii][Rr]) shift; for f in $(printf "%s/*.sources " "$@"); {_EACH}',
))  # fmt: skip


UNIT, CONFIG = "chrony.service", "/etc/chrony/chrony.conf"
OTHERS = (("chronyd.service", "/etc/chrony.conf"),)
"""chronyd's unit and configuration in Fedora and its relatives, SUSE and Arch."""


def _chrony_status(text: str) -> dict[str, str]:
    status: dict[str, str] = {}
    for line in text.splitlines():
        fields = line.split(",")
        if len(fields) == len(_TRACKING):
            status.update(zip(_TRACKING, fields, strict=True))
        elif len(fields) == len(_ACTIVITY):
            status.update(zip(_ACTIVITY, fields, strict=True))
        elif "poll" not in status and len(fields) > len(_SOURCES):
            found = dict(zip(_SOURCES, fields, strict=False))
            status.update({key: found[key] for key in ("state", "poll", "reach", "last_rx")})
    return status


def _chrony_claim(status: dict[str, str]) -> str:
    """|system time offset| + root dispersion + root delay / 2: chronyc(1), tracking, "Root dispersion"."""
    try:
        offset, delay = abs(float(status["system_time"])), float(status["root_delay"])
        claim_ms = (offset + float(status["root_dispersion"]) + delay / 2) * NS_PER_S / NS_PER_MS
    except (KeyError, ValueError):
        return ""
    shown = f"{claim_ms:.2f} ms" if claim_ms < 1000 else format_about(claim_ms * NS_PER_MS)
    return f"chronyd claims ± {shown}"


def chrony(mechanism: ResyncMechanism, unit: str = UNIT, config: str = CONFIG) -> TimeDaemon:
    """unit, config: Debian's by default."""
    synced = "chronyc waitsync 60 0.02 0 0.5"  # 60 tries, each 0.5 s, until within 20 ms
    ready, parse = f"{synced} || {{ chronyc -n sources; exit 1; }}", _chrony_status
    if updates := mechanism.traits.updates:
        # chronyd selects a source after three or four samples, so when a source has answered eight polls,
        # chronyd has updated the clock at least four times.
        ready = f"{synced} || exit 1; " + waited(
            "chronyc -c -n sources | grep -q ',377,'", 40, "chronyc -n sources"
        )

        def parse(text: str) -> dict[str, str]:
            return {**_chrony_status(text), "updates": str(updates)}

    return TimeDaemon(
        unit=unit,
        version="chronyd --version",
        config=config,
        identifier="chronyd",
        # Frequency and its bound in ppm, as from an earlier run; without them chronyd starts with an unknown
        # frequency.
        before="echo 0.0 100.0 >/var/lib/chrony/chrony.drift",
        ready=ready,
        state=_CHRONYC,
        parse=parse,
        claim=_chrony_claim,
        whole=inlined(config, _CHRONY_INCLUDES),
        scripts=SCRIPTS,
        process="chronyd",
    )


_TIMESYNCD = "/lib/systemd/systemd-timesyncd"
_SYNCHRONIZED = "/run/systemd/timesync/synchronized"
_DROP_INS = " ".join(f"{root}/systemd/timesyncd.conf.d" for root in ("/etc", "/run", "/usr/lib"))
_TIMESYNCD_CONFIG = (
    # Drop-ins in the order of their names, and of one name the first folder's (systemd.conf.d(5)).
    f"cat /etc/systemd/timesyncd.conf; for d in {_DROP_INS}; do [ ! -d $d ] || ls $d; done | sort -u | "
    f"while read -r n; do for d in {_DROP_INS}; do case $n in *.conf) if [ -e $d/$n ]; then cat $d/$n; "
    "break; fi;; esac; done; done"
)
_BUS = "org.freedesktop.timesync1 /org/freedesktop/timesync1 org.freedesktop.timesync1.Manager"


def _timesyncd_status(text: str) -> dict[str, str]:
    status = {}
    if match := re.search(r"^t (\d+)$", text, re.M):
        status["PollIntervalUSec"] = match[1]
    if match := re.search(r"^(\d+) (\d+)$", text, re.M):
        status["since_poll_s"] = str(int(match[2]) - int(match[1]))
    return status


def timesyncd(server: str, port: int) -> TimeDaemon:
    return TimeDaemon(
        unit="systemd-timesyncd.service",
        version=f"[ -x {_TIMESYNCD} ] && systemctl --version | sed 's/^systemd/systemd-timesyncd/'",
        config="/etc/systemd/timesyncd.conf",
        identifier="systemd-timesyncd",
        before=_port(server, port),
        ready=waited(f"[ -e {_SYNCHRONIZED} ]", 30, "echo no first synchronisation"),
        state=(
            f"echo $(stat -c %Y {_SYNCHRONIZED}) $(date +%s); systemctl -q is-active systemd-timesyncd && "
            f"busctl get-property {_BUS} PollIntervalUSec"
        ),
        parse=_timesyncd_status,
        claim=lambda status: (
            f"timesyncd synchronised {status['since_poll_s']} s ago" if "PollIntervalUSec" in status else ""
        ),
        whole=_TIMESYNCD_CONFIG,
        process="systemd-timesyn",
        uses_bus=True,
    )


_ASK = (
    # A control message: RFC 9327, section 2; the second byte is the operation, 1 READSTAT or 2 READVAR. dd
    # takes the whole of one datagram, and ntpq, a Python program, would take 2 s under TCG.
    r"""ask() { exec 3<>/dev/udp/127.0.0.1/123; printf "\x16\x$1\x00\x01\x00\x00$2\x00\x00\x00\x00" >&3; """
    r"""timeout 2 dd bs=1024 count=1 status=none <&3 | tail -c +13; exec 3>&-; }; """
)
_ALL = r"'\x00\x00'"


def _ntpd_status(text: str) -> dict[str, str]:
    status: dict[str, str] = {}
    for key, value in re.findall(r"(\w+)=(\"[^\"]*\"|[\w.+-]+)", text):
        status.setdefault(key, value.strip('"'))  # the system's come first
    with suppress(KeyError, ValueError):
        status["mu"] = str(_seconds(status["clock"]) - _seconds(status["rec"]))
    return status


def _seconds(stamp: str) -> int:
    """The whole seconds of an NTP timestamp, "0xeeae4a46.a95680e3"."""
    return int(stamp.partition(".")[0], 16)


def ntpd(server: str, port: int) -> TimeDaemon:
    drift = "/var/lib/ntpsec/ntp.drift"
    return TimeDaemon(
        unit="ntpsec.service",
        version="ntpd --version",
        config="/etc/ntpsec/ntp.conf",
        identifier="ntpd",
        # A drift file gives ntpd the state that it reaches after its first days. Without one it would first
        # measure the clock's frequency for a quarter of an hour, without correcting the clock.
        before=f"{_port(server, port)}; echo 0.000 >{drift}; chown ntpsec:ntpsec {drift}",
        ready=_ASK + waited(f"ask 02 {_ALL} | tr -d '\\0' | grep -q 'leap=0'", 60, "ntpq -pn"),
        # Two queries: the system's variables, which name the peer, and then the peer's.
        state=_ASK + f'ask 02 {_ALL}; set -- $(ask 01 {_ALL} | od -An -N2 -tx1); ask 02 "\\x$1\\x$2"; echo',
        parse=_ntpd_status,
        claim=lambda status: (
            f"ntpd claims {status['offset']} ms, root dispersion {status.get('rootdisp', '?')} ms"
            if "offset" in status
            else ""
        ),
        whole=inlined("/etc/ntpsec/ntp.conf", '[Ii]ncludefile) [ ! -f "$2" ] || own "$2";;'),
        process="ntpd",
    )


def _openntpd_status(text: str) -> dict[str, str]:
    """From `ntpctl -s all`: the clock's state, and the peer's row after its name (wt tl st next poll …)."""
    status = {}
    if match := re.search(r"clock (synced|unsynced)", text):
        status["clock"] = match[1]
    if match := re.search(r"^\s*\*?\s+\d+\s+\d+\s+\d+\s+\d+s\s+(\d+)s", text, re.M):
        status["poll_s"] = match[1]
    return status


def openntpd(server: str, port: int) -> TimeDaemon:
    folder = "/usr/lib/freezelab/openntpd"
    return TimeDaemon(
        unit="openntpd.service",
        version=f"[ -x {folder}/ntpd ] && cat {folder}/version",
        config="/etc/openntpd/ntpd.conf",
        identifier="ntpd",
        before=_port(server, port),
        # It corrects the clock after eight answers only, in some 100 s; trusted it is after four.
        ready=waited(
            f"{folder}/ntpctl -s status | grep -q '^1/1 peers valid'", 50, f"{folder}/ntpctl -s all"
        ),
        state=f"{folder}/ntpctl -s all",
        parse=_openntpd_status,
        claim=lambda status: f"ntpd says: clock {status['clock']}" if "clock" in status else "",
        whole="cat /etc/openntpd/ntpd.conf",
        process="ntpd",
    )


def phc2sys() -> TimeDaemon:
    unit = "freezelab-phc2sys.service"
    return TimeDaemon(
        unit=unit,
        version="echo phc2sys $(phc2sys -v)",
        config="/etc/freezelab/phc2sys",
        identifier="phc2sys",
        before="",
        ready=waited(
            f"journalctl -q -o cat -n 5 -u {unit} | grep -q ' s2 '", 30, "echo its servo is not locked"
        ),
        state=f"journalctl -q -o cat -n 1 -u {unit}",
        parse=lambda text: (
            {"offset_ns": found[1]} if (found := re.search(r"offset +(-?[0-9]+) ", text)) else {}
        ),
        claim=lambda status: f"phc2sys claims {status['offset_ns']} ns" if "offset_ns" in status else "",
        whole="cat /etc/freezelab/phc2sys",
        process="phc2sys",
    )


def _port(server: str, port: int) -> str:
    return f"mkdir -p /etc/freezelab && echo 'server={server} port={port}' >{PORT}"


DAEMONS: dict[Means, Callable[[ResyncMechanism, str, int], tuple[TimeDaemon, ...]]] = {
    Means.CHRONYD: lambda mechanism, _server, _port: (
        chrony(mechanism),
        *(chrony(mechanism, unit, config) for unit, config in OTHERS),
    ),
    Means.VMCLOCK: lambda mechanism, _server, _port: (chrony(mechanism),),
    Means.TIMESYNCD: lambda _, server, port: (timesyncd(server, port),),
    Means.TIMESYNCD_RESYNC: lambda _, server, port: (timesyncd(server, port),),
    Means.NTPD: lambda _, server, port: (ntpd(server, port),),
    Means.OPENNTPD: lambda _, server, port: (openntpd(server, port),),
    Means.PHC2SYS: lambda _mechanism, _server, _port: (phc2sys(),),
}
"""A mechanism's program as different distributions have it, Debian first, with the host's NTP server as the
guest sees it."""
