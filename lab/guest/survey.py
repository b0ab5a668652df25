"""What a guest has of what the lab uses, asked of a POSIX shell: guests of imported images can lack any of
it."""

from __future__ import annotations

import json

from lab.errors import GuestError
from lab.guest import program
from lab.guest.ssh import SSH

_ASK = r"""
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
tell() { [ -z "$2" ] || printf '%s=%s\n' "$1" "$2"; }
has() { for p in "$@"; do command -v "$p" 2>/dev/null && return; done; }
running() { grep -lsx "$1" /proc/[0-9]*/comm | head -n 1; }
tell system "$( (. /etc/os-release; echo "$PRETTY_NAME") 2>/dev/null)"
tell kernel "$(uname -r)"
tell init "$(cat /proc/1/comm)"
[ ! -d /run/systemd/system ] || tell systemd yes
tell sshd "$(has sshd)"
tell chrony "$(has chronyd)"
tell timesyncd "$(has /usr/lib/systemd/systemd-timesyncd /lib/systemd/systemd-timesyncd)"
tell ntpd "$(has ntpd)"
tell hwclock "$(has hwclock)"
tell agent "$(running qemu-ga)"
tell curl "$(has curl)"
tell cloud-init "$(has cloud-init tiny-cloud)"
tell eth0 "$(cat /sys/class/net/eth0/address 2>/dev/null)"
tell clocksource "$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
"""
_PYTHON = b"import json, sys\nprint('%d.%d.%d' % sys.version_info[:3])"

ASK_S = 120.0

LIMITS = ("resolution_ns", "steady", "period_ns")
"""The members of ProbeLimits, which a survey has with "shell " before them."""


def survey(ssh: SSH) -> dict[str, str]:
    """What there is: system, kernel, init and clocksource by name, python3 by its version, the rest by a path
    or a word; and what limits the shell's readings where there is no python3, see LIMITS. What is missing is
    left out. GuestError when the guest does not answer, or has neither python3 nor a fitting shell."""
    found = dict(line.split("=", 1) for line in ssh.check(_ASK, ASK_S).splitlines() if "=" in line)
    python = ssh.run(program.command(_PYTHON), ASK_S)
    if python.status == 0:
        found["python3"] = python.out.strip()
        return found
    hello = ssh.check(program.shell_command(), ASK_S, b"q\n").partition("H ")[2]
    try:
        limits = json.loads(hello.partition("\n")[0])
        return found | {f"shell {name}": str(limits[name]) for name in LIMITS}
    except (ValueError, KeyError, TypeError) as error:
        what = "its shell cannot look into it, and it has no python3"
        raise GuestError(what, where=f"guest {ssh.address.guest}") from error
