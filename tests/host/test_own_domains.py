"""Domains of the user's own, written by hand, on real libvirt daemons: frozen, and left as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import libvirt
import pytest

from lab.errors import MachineError
from lab.host.emulators_sources import read_archive
from lab.image.store import ImageStore, default_cache
from lab.session.paths import RECIPES
from tests.host.clients.packages import unpacked
from tests.host.libvirtd import longer, namespaced
from tests.host.own_lab import in_a_line, works
from tests.regimes import possible_regimes

RUNNING, PAUSED = libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_PAUSED


def is_as_before(one: dict[str, Any]) -> None:
    assert (one["outcome"], one["status"]) == ("passed", 0), one
    assert one["differs"] == {}
    assert not any("differs" in line for line in one["said"])
    assert (one["boot"]["started"], one["boot"]["domain"], one["boot"]["vcpus"]) == ("own", "my-vm", 1)
    [pause] = one["pauses"]
    assert 1.9e9 < pause < 29e9
    assert one["left"] == []


@pytest.mark.parametrize("scene", ["methods", "session"])
def test_a_domain_is_frozen_and_left_as_it_was(scene: str) -> None:
    """On qemu:///system, and by an ordinary user on qemu:///session. It has two disks and a CD drive."""
    seen = namespaced("own_inside.py", scene)
    assert set(seen) == {"suspend", "sigstop", "save-restore"}
    for one in seen.values():
        is_as_before(one)


def static_busybox() -> list[Path]:
    """One that runs in the guest, whatever libc this host's is built with; [] when it cannot be fetched."""
    try:
        root = unpacked("bookworm", ("busybox-static",), read_archive(), default_cache())
    except MachineError:
        return []
    return [path for path in root.rglob("bin/busybox") if path.is_file()][:1]


@pytest.mark.timeout(600)
def test_a_guest_without_python_is_looked_into_by_a_shell() -> None:
    busybox = static_busybox()
    seen = namespaced("own_inside.py", "depths", *map(str, busybox), timeout_s=500)
    assert seen["refused"]["status"] == 4
    assert seen["refused"]["said"][0].endswith("no Python 3.6 or later in the guest")
    for name, regime, least in (
        ("asked for", "resumed", 1.9e9),
        ("agent sets it", "resumed", 1.9e9),
        ("cut", "resumed", 1.9e9),
        ("no bash", "jumped", 4.9e9),
    ):
        one = seen[name]
        assert (one["boot"]["probe"], one["differs"], one["left"]) == ("shell", {}, []), one
        assert one["status"] in (0, 3), one  # 3: a busy host's bounds
        [cycle] = one["cycles"]
        lag = cycle["witnesses"]["lag"]
        width_ns = lag["high_ns"] - lag["low_ns"]
        # On a busy host a shell takes long to answer.
        assert cycle["regime"] in possible_regimes(cycle, regime), cycle
        assert cycle["closes"], cycle
        assert cycle["pause"]["low_ns"] > least
        assert (cycle["witnesses"]["gap"] is None) == (name == "cut")
        assert width_ns > 2e6
        assert cycle["boot_id_unchanged"]
    [cycle] = seen["agent sets it"]["cycles"]
    [step] = cycle["resync"]["steps"]
    assert step["by_ns"] - cycle["offset"]["final"]["value_ns"] > 1.5e9  # the rest is the agent's latency
    assert "probe shell (db): a shell reads" in " ".join(seen["report"]["out"].split())
    if not busybox:
        pytest.skip("busybox-static cannot be fetched: the guest had none")
    whole, busybox = seen["whole seconds"], seen["busybox"]
    for one, resolution in ((whole, 10**9), (busybox, 1000)):
        found = one["boot"].get("probe"), one["differs"], one["left"]
        assert found == ("shell", {}, []), "\n".join(one["said"])
        assert (one["boot"]["probe_resolution_ns"], one["boot"]["probe_period_ns"]) == (resolution, 10**8)
    assert whole["status"] == 3
    [cycle] = whole["cycles"]
    final, lag = cycle["offset"]["final"], cycle["witnesses"]["lag"]
    assert final["high_ns"] - final["low_ns"] > 1.9e9 and lag["high_ns"] - lag["low_ns"] > 3.9e9
    assert cycle["regime"] is None
    text = " ".join(seen["whole seconds, report"]["out"].split())
    assert "in whole seconds, as its date has no %N, so that no offset is bounded to less than 1 s" in text
    assert busybox["status"] in (0, 3), busybox
    [cycle] = busybox["cycles"]
    assert (cycle["regime"], cycle["closes"]) == ("resumed", True)
    assert cycle["witnesses"]["lag"]["low_ns"] > 1.5e9


@pytest.mark.timeout(700)
def test_a_guest_without_ssh_is_looked_into_by_its_agent() -> None:
    seen = namespaced("own_inside.py", "agent", timeout_s=600)
    agents_trouble_is_told(seen)
    for name in ("suspend", "save-restore", "sigstop"):
        one = seen[name]
        assert (one["boot"]["probe"], one["differs"], one["left"]) == ("agent", {}, []), one
        assert (one["status"], one["outcome"]) == (3, "inconclusive"), one
        [cycle] = one["cycles"]
        witnesses = cycle["witnesses"]
        assert witnesses["hypervisor"] is not None
        assert [witnesses[name] for name in ("lag", "gap", "silence")] == [None, None, None]
        assert (cycle["regime"], cycle["closes"], cycle["boot_id_unchanged"]) == (None, False, None)
        assert cycle["pause"]["high_ns"] > 2e9
        assert cycle["offset"]["final"]["high_ns"] - cycle["offset"]["final"]["low_ns"] < 1e9
        if name != "sigstop":  # QEMU's stamps say that nobody resumed it before
            assert cycle["pause"]["low_ns"] > 1.9e9
            assert abs(cycle["offset"]["final"]["value_ns"]) < 1e9
            assert cycle["resync"]["outcome"] != "not synced"
    assert seen["agent-rtc"]["said"] == [
        "freezelab: guest my-vm: is looked into by its agent alone, and agent-rtc needs SSH"
    ]
    assert seen["by hand"]["said"] == [
        "freezelab: guest my-vm: is looked into by its agent alone, and announce needs SSH"
    ]
    assert "probe agent (my-vm): the guest's REALTIME alone" in " ".join(seen["report"]["out"].split())
    assert (seen["destroyed"]["status"], seen["destroyed"]["left"]) == (4, [])
    assert "has ended" in seen["destroyed"]["said"][-1]


def agents_trouble_is_told(seen: dict[str, Any]) -> None:
    """Each in one or two lines, with the domain as it was."""
    one_line = (
        "guest my-vm: w32time is a part of Windows, and the agent says that this is Debian GNU/Linux 12"
    )
    for name, words, hint in (
        ("no channel", "QEMU guest agent is not configured", "add a virtio channel org.qemu.guest_agent.0"),
        ("w32time of Debian", one_line, ""),
        ("hangs", "guest-get-time failed: Guest agent is not responding", "is qemu-guest-agent installed"),
        ("no get-time", "'guest-get-time': Command guest-get-time has been disabled", "let qemu-ga in the"),
    ):
        one = seen[name]
        said = [line for line in one["said"] if not line.startswith(" ")]
        assert (one["status"], one["differs"], one["left"]) == (4, {}, []), one
        assert words in said[0], said
        assert [line.startswith(hint) for line in said[1:]] == ([True] if hint else []), said
    assert seen["state"] == RUNNING
    for name in ("hangs in the watch", "late", "restarts"):
        one = seen[name]
        assert (one["status"], one["state"], one["left"], one["same"]) == (3, RUNNING, [], True), one
        assert len(one["problems"]) == (name == "hangs in the watch"), one
    one = seen["no set-time"]
    assert (one["status"], one["differs"], one["left"]) == (3, {}, []), one
    [cycle] = one["cycles"]
    assert cycle["resync"]["said"].endswith("Command guest-set-time has been disabled")
    assert cycle["resync"]["forecast"]["agrees"] is False
    assert cycle["offset"]["final"]["high_ns"] < -1.9e9
    for name in ("w32time", "Windows"):
        one = seen[name]
        assert (one["status"], one["differs"], one["left"]) == (3, {}, []), one
        assert one["boot"]["probe_resolution_ns"] == 17_000_000
        [cycle] = one["cycles"]
        assert cycle["resync"]["forecast"]["text"].endswith("; not seen on Windows")
    [cycle] = seen["w32time"]["cycles"]
    assert cycle["resync"]["forecast"]["verdict"] == "not yet, as predicted"
    assert cycle["resync"]["program"] == "Windows 11"
    text = " ".join(seen["w32time, report"]["out"].split())
    assert "stepped at its next poll, within 336 h (watched for 4 s); 5 s or more is a spike to it" in text
    assert "by guest-get-time, to 17 ms (not seen on Windows)" in text
    [cycle] = seen["Windows"]["cycles"]
    assert abs(cycle["offset"]["final"]["value_ns"]) < 1e9


@pytest.mark.timeout(600)
def test_a_killed_run_leaves_it_running() -> None:
    """The dead-man resumes it; when that was killed as well, `recover` does, but nothing that the lab has not
    stopped."""
    seen = namespaced("own_inside.py", "killed", timeout_s=500)
    for method in ("suspend", "sigstop", "save-restore"):
        assert seen[method]["state"] == RUNNING
        assert seen[method]["recover"]["out"] == "nothing to recover\n"
        alone = seen[f"{method} alone"]
        assert alone["recover"]["status"] == 0, alone
        assert "domain my-vm runs again (it was " in alone["recover"]["out"]
        assert alone["left"] == []
    assert seen["suspend alone"]["state"] == PAUSED
    assert seen["save-restore alone"]["state"] == libvirt.VIR_DOMAIN_SHUTOFF
    assert (seen["somebody's"]["out"], seen["somebody's"]["state"]) == ("nothing to recover\n", PAUSED)


@pytest.mark.timeout(600)
def test_what_others_do_to_it_is_not_the_labs_doing() -> None:
    seen = namespaced("own_inside.py", "meddled", timeout_s=400)
    before = seen["paused before"]
    assert (before["status"], before["state"]) == (4, PAUSED)
    assert before["said"] == [
        "freezelab: domain my-vm: is paused, and this lab has not done that",
        "if it is to run: virsh resume my-vm",
    ]
    assert seen["resumed"]["status"] == 3
    assert "somebody else resumed the guest" in seen["resumed"]["out"]
    assert seen["second lab"]["status"] == 4
    assert "another lab uses it: pid " in seen["second lab"]["said"][0]
    assert seen["first lab"]["status"] == 0
    paused = seen["paused in the watch"]
    assert (paused["status"], paused["state"], paused["left"]) == (4, PAUSED, [])
    assert "guest db: another program has paused it" in paused["said"][-2]
    stopped = seen["paused while stopped"]
    assert (stopped["status"], stopped["state"], stopped["left"]) == (4, PAUSED, [])
    assert "guest db: another program has paused it" in stopped["said"][-2]
    assert seen["destroyed"]["status"] == 4
    assert seen["destroyed"]["said"][-1].endswith("the guest has ended while it was frozen (destroyed)")
    assert seen["destroyed"]["left"] == []
    assert not any("differs" in line for line in seen["destroyed"]["said"])
    assert seen["shut off"]["said"][-1] == "start it first: virsh start my-vm"


@pytest.mark.timeout(600)
def test_the_way_to_it_and_its_host_key() -> None:
    seen = namespaced("own_inside.py", "reached", timeout_s=400)
    for name, words in (("unknown", "is not known"), ("changed", "another host key"), ("revoked", "revoked")):
        assert seen[name]["status"] == 4
        assert len(seen[name]["said"]) == 2
        assert words in seen[name]["said"][0]
        assert "SHA256:" in seen[name]["said"][0] or name == "revoked"
    is_as_before(seen["jumps"])
    is_as_before(seen["command"])
    assert seen["commands left"] == []
    assert seen["no key"]["said"] == [
        seen["no key"]["said"][0],
        "tried as root: the keys /nowhere, and no agent",
    ]
    assert "SSH login refused" in seen["no key"]["said"][0]


@pytest.mark.timeout(600)
def test_the_guests_own_time_service_is_put_back() -> None:
    """Also after a run that was killed: the next one does it first."""
    seen = namespaced("own_inside.py", "put_back", timeout_s=500)
    assert "chrony active enabled" in seen["before"]
    for mechanism in ("none", "chrony", "next"):
        is_as_before(seen[mechanism])
        assert seen[mechanism]["differs inside"] == []
    assert seen["chrony"]["boot"]["probe"] == "shell", "a shell sets the clock"
    assert seen["killed"] != []
    assert seen["timesyncd"]["status"] == 4
    assert "asks port 123 of its server" in seen["timesyncd"]["said"][-2]


@pytest.mark.timeout(600)
def test_one_cycle_by_hand() -> None:
    seen = namespaced("own_inside.py", "by_hand", timeout_s=400)
    plan = seen["plan"]
    assert plan["status"] == 0
    text = " ".join(plan["out"].split())
    assert "domain my-vm, runs, persistent, 1 vCPU, 384 MiB, qemu, disks vda vdb, CD sda" in text
    assert works(text) == {"suspend", "sigstop", "save-restore", "guest-sleep", "snapshot", "snapshot-state"}
    assert "in-place: its RAM is not shared" in text
    assert seen["freeze"]["status"] == 0
    assert "my-vm" in seen["freeze"]["out"]
    assert seen["announced"]["status"] == 0, seen["announced"]
    assert "Freeze" in seen["announced"]["out"]
    assert seen["late"]["status"] == 1
    assert seen["in-place"]["status"] == 2
    assert seen["differs"] == {}


@longer
@pytest.mark.timeout(600)
def test_snapshots_and_a_managed_save_stay_as_they_are() -> None:
    seen = namespaced("own_inside.py", "has_more", timeout_s=500)
    before = seen["before"]
    assert (sorted(before["snapshots"]), before["current"]) == (["first", "second"], "second")
    assert before["managed"]
    assert [path for path in before["contents"] if path.endswith("/my-vm.save")]
    for method in ("suspend", "sigstop", "save-restore"):
        is_as_before(seen[method])
    assert "disks vda vdb, CD sda, 2 snapshots; works: " in in_a_line(seen["plan"])
    assert works(in_a_line(seen["plan"])) >= {"suspend", "sigstop", "save-restore"}
    watched = seen["watched"]
    assert (watched["status"], watched["state"], watched["left"]) == (4, RUNNING, [])
    assert "another program saves it or takes a snapshot, and has paused it" in "".join(watched["said"][-2:])
    assert "save-restore: it is transient, and libvirt forgets its snapshots" in in_a_line(seen["transient"])
    assert seen["transient restored"] == 0, "libvirt does not forget them any more"
    assert "not save-restore: libvirt cannot save host devices and shared folders: filesystem" in in_a_line(
        seen["shares"]
    )


@longer
@pytest.mark.timeout(600)
def test_a_domain_that_changes_in_its_freeze_is_left_to_whoever_changed_it() -> None:
    seen = namespaced("own_inside.py", "vanishes", timeout_s=500)
    for method in ("suspend", "save-restore"):
        one = seen[f"undefined, {method}"]
        assert (one["status"], one["state"], one["left"]) == (0, RUNNING, []), one
        [told] = [line for line in one["said"] if "differs" in line]
        assert told.endswith("it was persistent and is transient")
    saved = seen["saved"]
    assert (saved["status"], saved["left"]) == (4, [])
    assert saved["said"][-2].endswith("the guest has ended while it was frozen (saved)")
    assert saved["said"][-1].endswith("start or restore it, and then: virsh resume my-vm")
    assert seen["saved and started"] == PAUSED
    assert seen["renamed"]["status"] == 4
    assert any("cannot be restored: " in line for line in seen["renamed"]["said"])
    assert any("freezelab recover --connect qemu:///system" in line for line in seen["renamed"]["said"])
    assert (seen["renamed back"]["status"], seen["renamed back"]["state"]) == (0, RUNNING)
    assert seen["renamed back"]["left"] == []
    started = seen["started"]
    assert (started["status"], started["state"], started["left"]) == (4, RUNNING, [])
    assert "another program started it while it was saved" in "".join(started["said"][-2:])
    assert not any("is still frozen" in line for line in started["said"])
    gone = seen["gone"]
    assert (gone["status"], gone["state"], gone["left"]) == (4, None, [])
    assert any(line.endswith("it was persistent and is gone") for line in gone["said"])
    assert "has ended: another program destroyed its domain" in "".join(gone["said"][-2:])


@pytest.mark.timeout(600)
def test_a_domain_that_is_migrated_away_is_left_where_it_is() -> None:
    seen = namespaced("own_inside.py", "migrated", timeout_s=400)
    watched, frozen = seen["resume"], seen["freeze"]
    for one in (watched, frozen):
        assert (one["status"], one["state"], one["left"]) == (4, libvirt.VIR_DOMAIN_SHUTOFF, [])
        assert not any("differs" in line for line in one["said"])
    assert "has ended: another program migrated it away" in "".join(watched["said"][-2:])
    assert seen["resume, there"] == RUNNING
    assert frozen["said"][-2].endswith("the guest has ended while it was frozen (migrated)")
    assert frozen["said"][-1].endswith("on its new host: virsh resume my-vm")
    assert seen["freeze, there"] == PAUSED


def is_refused_before_its_freeze(one: dict[str, Any], why: str) -> None:
    assert one["status"] == 4, one
    assert why in "".join(one["said"][-2:]), one
    assert not one.get("differs")


@longer
@pytest.mark.timeout(600)
def test_a_login_that_is_not_roots() -> None:
    seen = namespaced("own_inside.py", "users", timeout_s=400)
    for method in ("suspend", "save-restore"):
        one = seen[method]
        assert (one["status"], one["differs"], one["left"]) == (3, {}, []), one
        assert one["cycles"][0]["closes"], one
        assert any("its kernel log and packet stamps are not read" in line for line in one["said"])
    is_refused_before_its_freeze(seen["push"], "push needs root in the guest, and sudo asks for a password")
    is_refused_before_its_freeze(seen["announced"], "the metadata service needs a login as root")
    is_as_before(seen["forwards nothing"])
    is_refused_before_its_freeze(seen["forwards nothing, announced"], "its sshd refuses a remote forward")
    [cut] = seen["forwards nothing, save-restore"]["cycles"]
    assert cut["witnesses"]["gap"] is None
    assert cut["witnesses"]["lag"] is not None


@longer
@pytest.mark.timeout(1200)
def test_a_login_that_becomes_root_by_sudo() -> None:
    ImageStore(RECIPES, default_cache()).build("debian", lambda *_: None, packages=["sudo"])
    seen = namespaced("own_inside.py", "sudo", timeout_s=400)
    for method in ("suspend", "save-restore", "push"):
        is_as_before(seen[method])
        [cycle] = seen[method]["cycles"]
        assert cycle["witnesses"]["gap"] is not None
        assert cycle["kernel_stalls"] == []
    is_refused_before_its_freeze(seen["announced"], "the metadata service needs a login as root")


@pytest.mark.timeout(600)
def test_a_guest_that_sleeps() -> None:
    seen = namespaced("own_inside.py", "sleeps", timeout_s=400)
    one = seen["guest-sleep"]
    assert (one["status"], one["differs"], one["left"]) == (0, {}, []), one
    [cycle] = one["cycles"]
    assert (cycle["method"], cycle["boot_id_unchanged"]) == ("guest-sleep", True)
    assert cycle["pause"]["low_ns"] > 1.5e9
    assert "guest-sleep" in works(in_a_line(seen["plan"]))
