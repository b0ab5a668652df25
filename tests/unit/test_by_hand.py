"""`freezelab freeze`: the plan that a command line makes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.core.depth import Depth
from lab.core.mechanism import ResyncMechanism
from lab.core.method import FreezeMethod
from lab.core.own_domain import SshTarget
from lab.core.patch import HoldPatch
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import GuestGone, UsageError
from lab.session.by_hand import Asked, own_spec, plan_of
from tests.unit.kept_guest import keep


def test_a_domain_of_the_users_own(tmp_path: Path) -> None:
    asked = Asked("My VM", "10s", "save-restore", "15s", "agent", "100ms", "qemu:///system", "my-host")
    plan = plan_of(asked, tmp_path)
    [guest] = plan.guests
    assert (guest.name, guest.domain, guest.ssh) == ("my-vm", "My VM", SshTarget("my-host"))
    assert (plan.cycle.method, plan.cycle.patch) == (FreezeMethod.SAVE_RESTORE, HoldPatch(10 * NS_PER_S))
    assert plan.cycle.budget_ns > 10 * NS_PER_S
    assert plan.resync is ResyncMechanism.AGENT
    assert plan.expectations.in_time_within_ns == 100 * NS_PER_MS
    assert plan.cycle.announce is not None
    assert (plan.cycle.announce.notice_ns, plan.cycle.announce.time_factor) == (15 * NS_PER_S, 1)


def test_the_domain_is_a_host_of_ssh_config_by_default(tmp_path: Path) -> None:
    [guest] = plan_of(Asked("db", "1s", uri="qemu:///system"), tmp_path).guests
    assert guest.ssh == SshTarget("db")


def test_with_the_agent_alone_there_is_no_ssh(tmp_path: Path) -> None:
    [guest] = plan_of(Asked("db", "1s", uri="qemu:///system", probe="agent"), tmp_path).guests
    assert (guest.ssh, guest.probe) == (None, Depth.AGENT)


def test_the_watch_lasts_as_long_as_the_expectation(tmp_path: Path) -> None:
    plan = plan_of(Asked("db", "1s", in_time="1min", uri="u"), tmp_path)
    assert plan.cycle.watch_ns > 60 * NS_PER_S
    assert plan_of(Asked("db", "1s", uri="u"), tmp_path).expectations.in_time_within_ns is None


def test_a_kept_guest_is_reached_by_the_labs_key(tmp_path: Path) -> None:
    kept = keep(tmp_path)
    guest = own_spec(kept)
    assert (guest.name, guest.domain) == (kept.name, kept.domain)
    assert guest.ssh == SshTarget(
        kept.host, kept.port, kept.user, kept.key, kept.known_hosts, config="/dev/null"
    )


def test_a_kept_guest_that_has_ended_is_not_frozen(tmp_path: Path) -> None:
    keep(tmp_path)
    with pytest.raises(GuestGone, match="it has ended\nfreezelab down web-0"):
        plan_of(Asked("web-0", "1s"), tmp_path)


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        (Asked("web-0", "10s"), "there is no kept guest 'web-0'"),
        (Asked("db", "10", uri="u"), "--for: .*unit"),
        (Asked("db", "0s", uri="u"), "--for: zero is not allowed"),
        (Asked("db", "1s", method="reboot", uri="u"), "--method: unknown: 'reboot'"),
        (Asked("db", "1s", method="in-place", uri="u"), "--method: .*not frozen by in-place: its RAM"),
        (Asked("db", "1s", resync="crony", uri="u"), "--resync: unknown: 'crony'"),
        (Asked("db", "1s", resync="w32time", uri="u"), "--resync: w32time is a part of Windows"),
        (Asked("db", "1s", announce="soon", uri="u"), "--announce: "),
        (Asked("db", "1s", in_time="-1s", uri="u"), "--expect-in-time: "),
        (Asked("db", "1s", ssh="x"), "--ssh: goes with --connect"),
        (Asked("db", "1s", probe="agent"), "--probe: goes with --connect"),
        (Asked("db", "1s", probe="deep", uri="u"), "--probe: unknown: 'deep'"),
        (Asked("db", "1s", probe="agent", ssh="x", uri="u"), "--ssh: does not go with --probe agent"),
    ],
)
def test_what_is_refused(tmp_path: Path, asked: Asked, what: str) -> None:
    with pytest.raises(UsageError, match=what) as wrong:
        plan_of(asked, tmp_path)
    assert str(wrong.value).count("\n") <= 1
