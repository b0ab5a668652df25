"""Puts back, in a guest of the user's own, what a time-sync set-up has changed.

Before the set-up is installed, the files that any of them writes are copied to a folder of the guest's disk,
with the names of the time services that run. Afterwards the files are as they were, and the services run
again.
"""

from __future__ import annotations

from lab.core.timesync_setup import Setup
from lab.errors import GuestError, Refused
from lab.guest.timesync.access import GuestAccess
from lab.guest.timesync.daemon import ASIDE, CONFIGS, FILES, START_S, UNITS, TimeDaemon
from lab.ports import Resync

FOLDER = "/var/lib/freezelab-own"
"""In the guest. It outlives a reboot, and a run that was killed: the next one puts back first."""

SERVICES = (*UNITS, "ntp.service", "ntpd.service")
"""The units of time services, by their names in different distributions."""

MODULES = ("ptp_kvm", "ptp_vmclock", "virtio_rtc")

_COPIED = " ".join((*CONFIGS, *(f"{config}{ASIDE}" for config in CONFIGS), *FILES))
SET_ASIDE = (
    # In /, because `cp --parents` of coreutils 9.1 looks for an absolute path's folders in the present one.
    f"set -e; cd /; d={FOLDER}; mkdir -m 700 $d; mkdir $d/files; "
    f"for f in {_COPIED}; do if [ -e $f ] || [ -L $f ]; then cp -a --parents $f $d/files; fi; done; "
    f'for m in {" ".join(MODULES)}; do grep -q "^$m " /proc/modules || echo $m; done >$d/modules; '
    f"for u in {' '.join(SERVICES)}; do if systemctl -q is-active $u; then echo $u; fi; done >$d/active; "
    "for u in $(cat $d/active); do systemctl stop $u; echo $u; done"
)
PUT_BACK = (
    f"d={FOLDER}; [ -d $d ] || exit 0; [ -e $d/active ] || {{ rm -rf $d; exit 0; }}; "
    f"for u in {' '.join(UNITS)}; do systemctl -q stop $u 2>/dev/null; done; "
    f"rm -f {_COPIED}; cp -a $d/files/. / && "
    "for u in $(cat $d/active); do systemctl reset-failed $u 2>/dev/null; systemctl start $u || exit; done "
    "&& for m in $(cat $d/modules); do modprobe -qr $m; done; "
    "for u in $(cat $d/active); do systemctl -q is-active $u || exit; done; rm -rf $d"
)


class PutBack:
    """A ports.Resync in a guest of the user's own, whose remove() leaves the guest as it was. inner: None
    until it is installed."""

    def __init__(self, access: GuestAccess) -> None:
        self._access = access
        self.inner: Resync | None = None
        self.stopped: tuple[str, ...] = ()
        """The time services that were stopped."""

    def set_aside(self) -> None:
        """Copy the files and stop the services, after what a killed run has left was put back. GuestError
        when that fails; the guest is as before then."""
        ssh = self._access.ssh()
        self._restore()
        result = ssh.run(SET_ASIDE, START_S)
        if result.status:
            self._restore()
            why = (result.err.strip().splitlines() or ["no message"])[-1]
            raise GuestError(f"its time services cannot be kept aside: {why}", where=self._access.where)
        self.stopped = tuple(result.out.split())

    def setup(self) -> Setup:
        return self._installed.setup()

    def resumed(self) -> None:
        self._installed.resumed()

    def outcome(self) -> str:
        return self._installed.outcome()

    def finished_raw_ns(self) -> int | None:
        return self._installed.finished_raw_ns()

    def remove(self) -> None:
        """See ports.Resync; GuestError, with where the copies are, when they cannot be put back."""
        try:
            if self.inner is not None:
                self.inner.remove()
        finally:
            self._restore()

    def _restore(self) -> None:
        result = self._access.ssh().run(PUT_BACK, START_S)
        if result.status:
            why = (result.err.strip().splitlines() or ["a service does not start"])[-1]
            hint = f"its files are in {FOLDER} in the guest, and the services that ran in {FOLDER}/active"
            raise GuestError(f"is not as it was: {why}", where=self._access.where, hint=hint)

    @property
    def _installed(self) -> Resync:
        if self.inner is None:
            raise GuestError("no mechanism is installed", where=self._access.where)
        return self.inner


def check_daemon(program: TimeDaemon, access: GuestAccess) -> None:
    """Refused when this guest's program is not set up as Debian's is, whose paths the lab uses."""
    folder = program.config.rpartition("/")[0]
    unit = f"systemctl -q cat {program.unit} >/dev/null 2>&1"
    if access.ssh().run(f"{unit} && [ -d {folder} ] && [ -e /lib/systemd/system/{program.unit} ]").status:
        what = f"it has no {program.unit} with its configuration in {folder}, as Debian has"
        raise Refused(what, where=access.where, hint="use resync push, agent or none")
