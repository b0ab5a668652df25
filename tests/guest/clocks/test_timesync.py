"""Every resync mechanism in one real guest: put in, taken out, and what it tells when something is wrong."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.core.clock import GuestClock, Interval, intersect
from lab.core.mechanism import Means, ResyncMechanism
from lab.core.plan import Expectations, FreezeMethod, HoldPatch
from lab.core.timesync_setup import PUSH_CHANNEL, PUSH_SERIAL, PUSH_SSH, SILENT
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.verdict import Outcome
from lab.errors import GuestError, MachineError, Refused
from lab.guest import timesync
from lab.host import chronyd, patches
from lab.host.chronyd import Chronyd
from lab.hypervisor.agent import SetBy
from lab.hypervisor.domain import Accelerator
from lab.ports import Resync
from lab.session.paths import default_home
from tests.guest.clocks import newer_chrony
from tests.guest.conftest import Lab

HOST_IN_GUEST = "10.0.2.2"
SHORT: dict[str, Any] = {"settle_ns": 0, "before_ns": NS_PER_S, "watch_ns": 3 * NS_PER_S}
WORKING = [
    mechanism
    for mechanism in ResyncMechanism
    if not mechanism.is_of_windows
    and (mechanism.means is not Means.CHRONYD or mechanism is ResyncMechanism.CHRONY_FROZEN)
    and mechanism.means not in (Means.VMCLOCK, Means.OPENNTPD, Means.PHC2SYS)
]
"""What this machine's guests can have. The other chronyds differ in some words of text; `chrony` is in
test_reality."""

PROGRAMS = {
    ResyncMechanism.CHRONY: r"chronyd \(chrony\) version \d",
    ResyncMechanism.CHRONY_FROZEN: r"chronyd \(chrony\) version \d",
    ResyncMechanism.TIMESYNCD: r"systemd-timesyncd \d+",
    ResyncMechanism.TIMESYNCD_RESYNC: r"systemd-timesyncd \d+",
    ResyncMechanism.NTPD: r"ntpd ntpsec-\d",
    ResyncMechanism.HWCLOCK: r"hwclock from util-linux \d",
    ResyncMechanism.PUSH: r"freezelab, Python 3\.\d",
}
STATUS = {
    ResyncMechanism.AGENT: {"round_trip_ns"},
    ResyncMechanism.AGENT_RTC: {"round_trip_ns", "rtc_minus_real_ns", "rtc_bound_ns"},
    ResyncMechanism.HWCLOCK: {"round_trip_ns", "rtc_minus_real_ns", "rtc_bound_ns"},
    ResyncMechanism.PUSH: {"push_bound_ns", PUSH_CHANNEL},
    ResyncMechanism.CHRONY: {"poll", "system_time", "root_dispersion", "leap", "state"},
    ResyncMechanism.TIMESYNCD: {"PollIntervalUSec", "since_poll_s"},
    ResyncMechanism.TIMESYNCD_RESYNC: {"PollIntervalUSec", "since_poll_s"},
    ResyncMechanism.NTPD: {"hpoll", "mu", "tc", "stratum"},
}


@contextmanager
def serving(lab: Lab, tmp: Path, offset_ns: int = 0) -> Iterator[Chronyd]:
    program = chronyd.find(default_home(), lab.folder)
    with Chronyd(program, tmp / "chronyd", lab.clock, offset_ns=offset_ns) as server:
        yield server


@pytest.fixture(scope="module")
def server(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chronyd]:
    with serving(lab, tmp_path_factory.mktemp("ntp")) as made:
        yield made


def ways_to(lab: Lab, server: Chronyd) -> timesync.GuestAccess:
    hypervisor = lab.hypervisor
    agent = timesync.Agent(
        ping=lambda: hypervisor.agent_ping("web-0"),
        set_time=lambda: hypervisor.set_time("web-0"),
        set_seconds=lambda: hypervisor.set_time("web-0", SetBy.SECONDS),
        read_rtc=lambda: hypervisor.set_time("web-0", SetBy.RTC),
    )
    return timesync.GuestAccess(
        "web-0",
        lambda: lab.probe.ssh,
        lab.clock,
        HOST_IN_GUEST,
        server.port,
        agent,
        push_sockets=lambda: hypervisor.push_sockets("web-0"),
    )


@pytest.fixture
def ways(lab: Lab, server: Chronyd) -> Iterator[timesync.GuestAccess]:
    yield ways_to(lab, server)
    # systemd refuses the sixth start within 10 s, and some of these tests take less than two.
    lab.probe.ssh.check("systemctl reset-failed qemu-guest-agent; systemctl restart qemu-guest-agent")


def run(lab: Lab, command: str) -> str:
    return lab.probe.ssh.check(command)


def offset(lab: Lab) -> Interval:
    readings = [lab.probe.read().offset(GuestClock.REAL) for _ in range(10)]
    return intersect(readings) or readings[-1]


def traces(lab: Lab) -> set[str]:
    """Services that run, sockets that listen, processes, and files that do not belong to the journal."""
    return set(
        run(
            lab,
            "systemctl list-units --no-legend --plain --state=active --type=service,socket | cut -d' ' -f1;"
            "ps -eo comm= | grep -v -e kworker -e ps$ -e sort -e bash -e sshd;"
            "find /etc /var /run /root -xdev ! -type d ! -path '/run/log/*' ! -path '/run/systemd/*'",
        ).splitlines()
    )


@contextmanager
def installed(
    mechanism: ResyncMechanism, ways: timesync.GuestAccess, lab: Lab, config: str | None = None
) -> Iterator[Resync]:
    if mechanism.uses_agent:  # as lab.session.guest_setup does: libvirt may be about to find it again
        lab.hypervisor.agent_ready("web-0", lab.clock.now().raw_ns + 60 * NS_PER_S)
    made = timesync.install(mechanism, ways, config=config)
    before, lab.subject = lab.subject, replace(lab.subject, resync=made)
    try:
        yield made
    finally:
        lab.subject = before
        made.remove()


@pytest.fixture(scope="module")
def untouched(lab: Lab) -> set[str]:
    run(lab, "timedatectl >/dev/null")  # starts D-Bus, which is no mechanism's
    return traces(lab)


@pytest.mark.parametrize("mechanism", WORKING)
def test_it_is_put_in_and_leaves_nothing(
    lab: Lab, ways: timesync.GuestAccess, server: Chronyd, mechanism: ResyncMechanism, untouched: set[str]
) -> None:
    # All in the same guest, one after another, as a matrix has them.
    with installed(mechanism, ways, lab) as resync:
        setup = resync.setup()
        assert setup.mechanism is mechanism
        assert setup.config == mechanism.config(HOST_IN_GUEST, server.port)
        assert re.match(PROGRAMS.get(mechanism, ""), setup.program), setup
        assert STATUS.get(mechanism, set()) <= set(setup.status), setup
        assert offset(lab).smallest_ns < 100 * NS_PER_MS
    resync.remove()  # once more
    assert traces(lab) <= untouched


def test_what_this_guest_cannot_have_is_refused(
    lab: Lab, ways: timesync.GuestAccess, accelerator: Accelerator
) -> None:
    of_kvm = {
        ResyncMechanism.CHRONY_PHC: "no ptp_kvm in this guest: .*not supported",
        ResyncMechanism.PHC2SYS: "no ptp_kvm in this guest: .*not supported",
    }
    for mechanism, why in {
        **({} if accelerator is Accelerator.KVM else of_kvm),
        ResyncMechanism.OPENNTPD: "openntpd is not installed in this guest",
        ResyncMechanism.CHRONY_RTC: r"no refclock RTC in this guest: chronyd 4\.\d is older than 4\.7",
        ResyncMechanism.VMCLOCK: r"no ptp_vmclock in this guest's kernel, 6\.1",
        ResyncMechanism.VIRTIO_RTC: "no virtio_rtc in this guest: .*not found",
        ResyncMechanism.W32TIME: "w32time is a part of Windows, and this is a guest of the lab's",
    }.items():
        with pytest.raises(Refused, match=why):
            timesync.install(mechanism, ways)
    with pytest.raises(Refused, match="NTP server cannot be reached"):
        timesync.install(ResyncMechanism.NTPD, replace(ways, server=""))
    with pytest.raises(Refused, match="no channel to this guest's agent"):
        timesync.install(ResyncMechanism.AGENT, replace(ways, agent=None))
    run(lab, "mount --bind /bin/false /usr/sbin/chronyd")
    try:
        with pytest.raises(Refused, match="chrony is not installed"):
            timesync.install(ResyncMechanism.CHRONY, ways)
    finally:
        run(lab, "umount /usr/sbin/chronyd")


def test_a_newer_chronyd_keeps_time_by_the_rtc(lab: Lab, ways: timesync.GuestAccess, tmp_path: Path) -> None:
    try:
        packed = newer_chrony.fetched(tmp_path)
    except MachineError as error:
        pytest.skip(f"the image's chronyd has no refclock RTC, and no newer one can be had: {error}")
    with (
        newer_chrony.in_place_of_its_own(lab.probe.ssh, packed),
        installed(ResyncMechanism.CHRONY_RTC, ways, lab) as resync,
    ):
        setup = resync.setup()
        behind_ns = -int(setup.status["rtc_minus_real_ns"])
        assert setup.config == ResyncMechanism.CHRONY_RTC.config(rtc_behind_ns=behind_ns)
        assert (setup.status["reference"], setup.status["state"]) == ("RTC0", "*")
        expect = Expectations(as_predicted=True, tolerance_ns=250 * NS_PER_MS)
        for method in (FreezeMethod.SUSPEND, FreezeMethod.SIGSTOP):
            result, found = lab.cycle(method=method, expect=expect, **{**SHORT, "watch_ns": 20 * NS_PER_S})
            assert result.forecast is not None
            assert result.forecast.repaired
            assert result.resync is not None
            assert result.resync.time is not None
            # With fewer readings a sample, the first interrupt after the pause would set the clock back.
            assert result.resync.backward_steps == 0
            assert not [finding for finding in found if finding.outcome is Outcome.FAILED]


def test_its_log_is_whole_after_a_step_backward(
    lab: Lab, ways: timesync.GuestAccess, eventually: Callable[..., Any]
) -> None:
    """Q6: a log that is cut by the time of day hides what came after one, for as long as it was wide."""
    told: list[str] = []

    def look() -> bool:
        told.append(resync.outcome())
        return "System clock was stepped by" in told[-1]

    with installed(ResyncMechanism.CHRONY_FROZEN, ways, lab) as resync:
        run(lab, "date -s '+1 hour'")
        eventually(look, 60)  # back by an hour, while it writes
        assert any("wrong by -3" in each for each in told)
        assert offset(lab).largest_ns < NS_PER_S


def test_a_broken_configuration_is_told_with_chronyds_words(lab: Lab, ways: timesync.GuestAccess) -> None:
    before = run(lab, "cat /etc/chrony/chrony.conf")
    with pytest.raises(GuestError, match=r"chronyd does not start: .*makestep.* at line 2"):
        timesync.install(ResyncMechanism.CHRONY, ways, config="local stratum 3\nmakestep often\n")
    assert run(lab, "cat /etc/chrony/chrony.conf") == before


def test_a_server_that_is_2_s_off_takes_the_guest_along(
    lab: Lab, ways: timesync.GuestAccess, tmp_path: Path
) -> None:
    with (
        serving(lab, tmp_path, 2 * NS_PER_S) as wrong,
        installed(ResyncMechanism.CHRONY, replace(ways, port=wrong.port), lab) as resync,
    ):
        off, status = offset(lab), resync.setup().status
        assert 2 * NS_PER_S in off.widened(100 * NS_PER_MS)
        # And yet it says that all is well.
        assert (status["state"], status["leap"]) == ("*", "Normal")
        assert abs(float(status["system_time"])) < 0.1
    with installed(ResyncMechanism.NONE, ways, lab):
        assert offset(lab).largest_ns < NS_PER_S


def test_a_push_steps_forward_and_close(lab: Lab, ways: timesync.GuestAccess) -> None:
    with installed(ResyncMechanism.PUSH, ways, lab) as resync:
        result, _ = lab.cycle(patches.make(HoldPatch(NS_PER_S), lab.clock), **SHORT)
        assert "pushed +" in resync.outcome()
        assert "over virtio-serial" in resync.outcome()
        assert result.resync is not None and result.resync.backward_steps == 0
        assert result.final is not None and result.at_resume is not None
        assert result.final.largest_ns < result.at_resume.smallest_ns / 10


def test_a_push_survives_the_loss_of_its_connection(lab: Lab, ways: timesync.GuestAccess) -> None:
    with installed(ResyncMechanism.PUSH, ways, lab) as resync:
        lab.probe.ssh.run("pkill -f '^sshd: root' -n")  # the newest: its own
        run(lab, "date -s '3 seconds ago' >/dev/null")
        resync.resumed()
        assert re.search(r"pushed \+.* over SSH, .*because virtio-serial failed", resync.outcome())
        assert offset(lab).largest_ns < NS_PER_S
        # The new program has its own end of the channel.
        assert resync.setup().status[PUSH_CHANNEL] == PUSH_SERIAL


def test_a_push_has_ssh_where_there_is_no_virtio_serial(lab: Lab, ways: timesync.GuestAccess) -> None:
    with installed(ResyncMechanism.PUSH, replace(ways, push_sockets=tuple), lab) as resync:
        assert resync.setup().status[PUSH_CHANNEL] == PUSH_SSH
        run(lab, "date -s '3 seconds ago' >/dev/null")
        resync.resumed()
        assert re.search(r"pushed \+.* over SSH", resync.outcome())
        assert offset(lab).largest_ns < NS_PER_S


def stop(lab: Lab) -> None:
    run(lab, "systemctl stop qemu-guest-agent")


def freeze(lab: Lab) -> None:
    run(lab, "systemctl kill -s STOP qemu-guest-agent")


@pytest.mark.parametrize("spoil", [stop, freeze], ids=["stopped", "silent"])
def test_an_agent_that_does_not_answer_is_told(
    lab: Lab, ways: timesync.GuestAccess, spoil: Callable[[Lab], None]
) -> None:
    with installed(ResyncMechanism.AGENT, ways, lab) as resync:
        spoil(lab)
        try:
            begun = time.monotonic()
            resync.resumed()
            assert "failed" in resync.outcome()
            # Asked again for some seconds; then the guest is frozen all the same, and nothing is expected.
            setup = resync.setup()
            assert "its agent does not answer" in setup.status[SILENT]
            assert time.monotonic() - begun < 60
        finally:
            run(lab, "systemctl kill -s CONT qemu-guest-agent; systemctl restart qemu-guest-agent")
    stop(lab)
    with pytest.raises(GuestError, match="its agent does not answer"):
        timesync.install(ResyncMechanism.AGENT, ways)


def test_an_agent_that_lies_does_not_pass(lab: Lab, ways: timesync.GuestAccess) -> None:
    with installed(ResyncMechanism.AGENT_RTC, ways, lab) as resync:
        # It runs hwclock for this, and believes in its exit status.
        run(lab, "mount --bind /bin/true /usr/sbin/hwclock")
        try:
            expect = Expectations(in_time_within_ns=2 * NS_PER_S)
            hold = patches.make(HoldPatch(2 * NS_PER_S), lab.clock)
            result, found = lab.cycle(hold, expect=expect, **SHORT)
        finally:
            run(lab, "umount /usr/sbin/hwclock")
        assert "the agent answered" in resync.outcome()
        assert result.resync is not None and result.resync.correction == "none"
        assert Outcome.FAILED in {finding.outcome for finding in found}
