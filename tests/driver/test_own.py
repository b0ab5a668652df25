"""Domains of the user's own, on libvirt's test driver: which are taken, leases, differences of two XMLs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab.core.method import FreezeMethod
from lab.errors import HypervisorError, Refused, UsageError
from lab.hypervisor import overlays, own_domain, own_lease, unreachable
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.hypervisor.deadman.libvirt_monitor import OwnMonitor
from lab.hypervisor.deadman.thaw import KEYS
from lab.hypervisor.own_lease import OwnLease, OwnRecord
from lab.hypervisor.qmp import MonitorError
from tests.driver.programs import ROOT

DEVICES = """
<emulator>/usr/bin/qemu-system-x86_64</emulator>
<disk type='file' device='disk'><source file='/a'/><target dev='vda' bus='virtio'/></disk>
<disk type='file' device='disk'><source file='/b'/><target dev='vdb' bus='virtio'/></disk>
<disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>
<interface type='user'><mac address='52:54:00:00:00:07'/></interface>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
"""
HOST_DEVICE = """
<hostdev mode='subsystem' type='pci'>
  <source><address domain='0' bus='1' slot='0' function='0'/></source>
</hostdev>
<filesystem type='mount'><source dir='/srv'/><target dir='srv'/></filesystem>
"""


def xml(name: str, devices: str = DEVICES, more: str = "") -> str:
    return (
        f"<domain type='test'><name>{name}</name><memory unit='MiB'>64</memory><vcpu>2</vcpu>"
        f"<os><type arch='x86_64' machine='pc'>hvm</type></os>{more}<devices>{devices}</devices></domain>"
    )


@pytest.fixture
def connection(lab: LibvirtHypervisor) -> Any:
    return lab._context.connection


def test_what_is_read_of_a_domain(connection: Any) -> None:
    sleepless = (
        "<pm><suspend-to-mem enabled='no'/></pm><clock offset='utc'><timer name='rtc' track='guest'/></clock>"
    )
    domain = connection.defineXML(xml("sleepless", more=sleepless))
    own = own_domain.read(domain)
    domain.undefine()
    assert (own.disks, own.cdroms, own.vcpus, own.memory_bytes) == (("vda", "vdb"), ("sda",), 2, 64 << 20)
    assert (own.agent, own.may_sleep, own.user_network, own.rtc.value) == (True, False, True, "guest")
    assert (own.persistent, own.mac) == (True, "52:54:00:00:00:07")
    assert (own.machine_uuid, own.monitor) == (own.uuid, "")
    assert own.refusal(FreezeMethod.SAVE_RESTORE) == ""
    assert "disables S3" in own.refusal(FreezeMethod.GUEST_SLEEP)


def test_host_devices_refuse_what_copies_memory() -> None:
    # libvirt's test driver has no host devices, so its XML is read without it.
    class Domain:
        def name(self) -> str:
            return "mine"

        def UUIDString(self) -> str:
            return "0"

        def XMLDesc(self, _flags: int) -> str:
            return xml("mine", DEVICES + HOST_DEVICE)

        def isPersistent(self) -> int:
            return 1

        def snapshotNum(self, _flags: int) -> int:
            return 3

        def listAllCheckpoints(self, _flags: int) -> list[str]:
            return []

    own = own_domain.read(Domain())
    assert own.snapshots == 3
    assert own.refusal(FreezeMethod.SAVE_RESTORE).endswith("shared folders: hostdev pci, filesystem")
    assert own.refusal(FreezeMethod.SUSPEND) == own.refusal(FreezeMethod.SIGSTOP) == ""


def test_a_block_device_has_no_folder_for_an_overlay(connection: Any, tmp_path: Path) -> None:
    device = next((path for path in Path("/dev").iterdir() if path.is_block_device()), None)
    if device is None:
        pytest.skip("this host has no block device")
    disk = f"<disk type='block'><source dev='{device}'/><target dev='vda' bus='virtio'/></disk>"
    domain = connection.createXML(xml("blocky", devices=disk))
    with pytest.raises(Refused, match=f"its disk vda is a block device, {device}"):
        overlays.check(domain, "domain blocky", None)
    assert overlays.check(domain, "domain blocky", tmp_path) == {tmp_path}
    domain.destroy()


def test_what_libvirt_would_forget_of_a_transient_domain_refuses_a_save(connection: Any) -> None:
    domain = connection.createXML(xml("transient"))
    assert own_domain.read(domain).refusal(FreezeMethod.SAVE_RESTORE) == ""
    domain.snapshotCreateXML("<domainsnapshot><name>one</name></domainsnapshot>", 0)
    own = own_domain.read(domain)
    assert (own.persistent, own.snapshots) == (False, 1)
    assert "it is transient" in own.refusal(FreezeMethod.SAVE_RESTORE)
    assert own.refusal(FreezeMethod.SUSPEND) == ""
    domain.destroy()
    assert own_domain.compare(domain, own) == []


def test_of_a_domain_that_is_gone_only_that_is_told(connection: Any) -> None:
    domain = connection.defineXML(xml("leaves"))
    own = own_domain.read(domain)
    domain.undefine()
    assert own_domain.compare(domain, own) == ["it was persistent and is gone"]


def test_a_guest_that_would_not_wake_rightly_is_not_put_to_sleep(connection: Any) -> None:
    no_hpet = "<clock offset='utc'><timer name='hpet' present='no'/></clock>"
    domain = connection.createXML(xml("sleeper", more=no_hpet))
    emulated = replace(own_domain.read(domain), kind="qemu", machine="pc-q35-7.2")
    assert not emulated.hpet
    domain.destroy()
    assert "on a q35 machine stands still" in emulated.refusal(FreezeMethod.GUEST_SLEEP)
    for other in (
        replace(emulated, hpet=True),
        replace(emulated, kind="kvm"),
        replace(emulated, machine="pc-i440fx-7.2"),
    ):
        assert other.refusal(FreezeMethod.GUEST_SLEEP) == ""


def test_a_name_that_is_none(lab: LibvirtHypervisor) -> None:
    with pytest.raises(UsageError, match="there is no such domain") as wrong:
        lab.own.look("tset")
    assert wrong.value.hint == "did you mean test?"


@pytest.fixture
def mine(connection: Any) -> Iterator[Any]:
    """A domain that runs; the test driver's are the same for all connections of this process."""
    domain = connection.defineXML(xml("mine"))
    domain.create()
    yield domain
    if domain.isActive():
        domain.destroy()
    domain.undefine()


@pytest.mark.parametrize("act", ["suspend", "destroy"])
def test_only_a_domain_that_runs_is_taken(lab: LibvirtHypervisor, mine: Any, act: str) -> None:
    getattr(mine, act)()
    with pytest.raises(Refused, match="this lab has not done that") as refused:
        lab.own.look("mine")
    assert refused.value.hint.endswith(f"virsh {'resume' if act == 'suspend' else 'start'} mine")
    with pytest.raises(Refused, match="this lab has not done that"):
        lab.own.take("db", "mine", "r1", None)
    assert not (lab._context.home / "own").exists()


def test_another_labs_freeze_is_not_taken_for_somebodys_pause(
    lab: LibvirtHypervisor, mine: Any, home: Path, shared: Path
) -> None:
    mine.suspend()
    other = OwnLease(OwnRecord("test:///default", mine.UUIDString(), "mine", "db", "r0"), home / "other")
    for take in (partial(lab.own.look, "mine"), partial(lab.own.take, "db", "mine", "r1", None)):
        with pytest.raises(HypervisorError, match="another lab uses it: pid"):
            take()
    other.close()
    assert shared.is_dir()


def test_a_domain_without_a_process_here_is_not_taken(lab: LibvirtHypervisor, mine: Any) -> None:
    """Nothing could resume it in an emergency."""
    with pytest.raises(Refused, match="not on this host"):
        lab.own.take("db", mine.name(), "r1", None)
    with pytest.raises(HypervisorError, match="no such guest"):
        lab.state("db")
    assert not (lab._context.home / "own").exists()


@pytest.mark.parametrize(
    ("act", "said"), [("resume", None), ("destroy", "has ended: another program destroyed")]
)
def test_a_pause_that_has_just_ended_is_nobodys(
    lab: LibvirtHypervisor, mine: Any, monkeypatch: pytest.MonkeyPatch, act: str, said: str | None
) -> None:
    """A migration's, for instance: it ends between the question for the state and that for its reason."""
    context = lab._context
    context.own["mine"] = own_domain.read(mine)
    mine.suspend()
    state = context.state

    def ends(guest: str) -> str:
        found = state(guest)
        if found == "paused":
            getattr(mine, act)()
        return found

    monkeypatch.setattr(context, "state", ends)
    gone = unreachable.gone(context, "mine")
    assert (gone is None) == (said is None)
    assert gone is None or gone.what.startswith(str(said))


def test_a_guest_of_a_lab_is_not_somebodys_own(connection: Any) -> None:
    mark = "<metadata><f:guest xmlns:f='urn:freezelab:domain:1' name='web-0'/></metadata>"
    domain = connection.defineXML(xml("theirs", more=mark))
    with pytest.raises(Refused, match="that a lab has started"):
        own_domain.read(domain)
    domain.undefine()
    kept = mark.replace("/></metadata>", " kept='yes' monitor='/m'/></metadata>")
    domain = connection.defineXML(xml("kept", more=kept))
    assert own_domain.read(domain).monitor == "/m"
    domain.undefine()


RUNNING = (
    xml("mine")
    .replace("<domain ", "<domain id='3' ")
    .replace("<mac ", "<target dev='vnet0'/><mac ")
    .replace("<channel type='unix'>", "<channel type='unix'><source mode='bind' path='/run/3'/>")
)


@pytest.mark.parametrize(
    ("change", "to"),
    [
        ("id='3'", "id='4'"),
        ("<source file='/a'/>", "<source file='/a'/><alias name='disk0'/>"),
        ("vnet0", "vnet1"),
        ("/run/3", "/run/4"),
        ("type='virtio' name=", "type='virtio' state='connected' name="),
    ],
)
def test_what_is_new_in_every_process_is_no_difference(change: str, to: str) -> None:
    after = RUNNING.replace(change, to)
    assert after != RUNNING
    assert own_domain.differences(RUNNING, after) == []


def test_the_order_of_devices_is_no_difference() -> None:
    first = "<emulator>/usr/bin/qemu-system-x86_64</emulator>"
    after = RUNNING.replace(first, "").replace("</devices>", f"{first}</devices>")
    assert own_domain.differences(RUNNING, after) == []


@pytest.mark.parametrize(
    ("change", "to", "said"),
    [
        ("unit='MiB'>64<", "unit='MiB'>65<", "domain/memory: '64' is now '65'"),
        ("machine='pc'", "machine='q35'", "domain/os/type/@machine: 'pc' is now 'q35'"),
        ("file='/b'", "file='/c'", '<source file="/c">'),
        ("<vcpu>2</vcpu>", "", "domain/vcpu: '2' is now absent"),
    ],
)
def test_other_differences_are_told(change: str, to: str, said: str) -> None:
    found = own_domain.differences(RUNNING, RUNNING.replace(change, to))
    assert any(said in line for line in found), found


RECORD = OwnRecord("qemu:///system", "11111111-2222-3333-4444-555555555555", "mine", "db", "r1")


@pytest.fixture
def shared(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of locks."""
    folder = home / "lock"
    folder.mkdir(mode=0o777)
    monkeypatch.setattr(own_lease, "SHARED", (home / "missing", folder))
    return folder


def test_one_lab_at_a_time(home: Path, shared: Path) -> None:
    first = OwnLease(RECORD, home / "one")
    with pytest.raises(HypervisorError, match=rf"another lab uses it: pid {os.getpid()} of \w+, run r1"):
        OwnLease(RECORD, home / "two")
    assert not (home / "two").exists()
    first.close()
    OwnLease(RECORD, home / "two").close()
    assert [path.name for path in shared.iterdir()] == [f"freezelab-{RECORD.uuid}.lock"]


def test_a_lock_ends_with_its_process(home: Path, shared: Path) -> None:
    program = (
        "import sys, pathlib; from lab.hypervisor import own_lease as o\n"
        f"o.SHARED = (pathlib.Path({str(shared)!r}),)\n"
        f"record = o.OwnRecord('u', {RECORD.uuid!r}, 'mine', 'db', 'r0')\n"
        f"kept = o.OwnLease(record, pathlib.Path({str(home / 'x')!r}))\n"
        "kept.freezes('suspend', 7); print('has it', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "has it\n"
        with pytest.raises(HypervisorError, match=f"pid {other.pid}"):
            OwnLease(RECORD, home)
        other.send_signal(signal.SIGKILL)
        other.wait(30)
    OwnLease(RECORD, home).close()
    [left] = own_lease.records(home / "x")
    assert (left.frozen, left.run) == ("suspend", "r0")


def test_a_link_is_not_followed(home: Path, shared: Path) -> None:
    (shared / f"freezelab-{RECORD.uuid}.lock").symlink_to(home / "victim")
    with pytest.raises(HypervisorError.__mro__[1], match="cannot be locked"):
        OwnLease(RECORD, home)
    assert not (home / "victim").exists()


def test_a_record_says_whether_it_is_frozen(home: Path, shared: Path) -> None:
    lease = OwnLease(RECORD, home)
    assert [record.frozen for record in own_lease.records(home)] == [""]
    lease.freezes("suspend", 7)
    assert [record.frozen for record in own_lease.records(home)] == ["suspend"]
    lease.runs()
    assert list(own_lease.records(home)) == [RECORD]
    lease.close()
    assert list(own_lease.records(home)) == []
    assert not (home / "own").exists()
    assert shared.is_dir()


@pytest.mark.parametrize(
    ("lines", "resumed"),
    [
        (['{"kind":"freeze","guests":["db"]}'], False),
        (['{"kind":"freeze","guests":["db"]}', '{"kind":"deadman","guest":"db","act":"resumed"}'], True),
        (['{"kind":"deadman","guest":"db","act":"resumed"}', '{"kind":"freeze","guests":["db"]}'], False),
        (['{"kind":"deadman","guest":"db","act":"failed"}'], False),
        (['{"kind":"deadman","guest":"web","act":"resumed"}', '{"kind":"fre'], False),
    ],
)
def test_a_history_says_whether_the_dead_man_resumed_it(home: Path, lines: list[str], resumed: bool) -> None:
    history = home / "events.jsonl"
    history.write_text("\n".join(lines))
    record = OwnRecord("u", "1", "mine", "db", "r1", str(history), "suspend")
    assert record.resumed_by_dead_man is resumed


def test_the_kernels_key_is_pressed_by_libvirts_own_call(mine: Any) -> None:
    """By which the dead-man thaws a domain whose agent does not answer: a QMP command would taint it."""
    monitor = OwnMonitor("test:///default", mine.UUIDString())
    keys = [{"type": "qcode", "data": key} for key in KEYS]
    assert monitor.execute("send-key", keys=keys) == 0
    with pytest.raises(MonitorError, match="QMP human-monitor-command is not used"):
        monitor.execute("human-monitor-command")
    monitor.close()
