"""The adapter's verbs over libvirt's test driver."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import pytest

from lab.core.plan import FreezeMethod
from lab.core.units import NS_PER_S
from lab.errors import HypervisorError, Interrupted
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.hypervisor.binding import as_hypervisor_error
from lab.hypervisor.connection import connect
from lab.hypervisor.domain import DomainSpec
from lab.ports import Call, Clock, Freezing, Hypervisor
from lab.process.clock import HostClock
from lab.process.signals import Signals
from tests.driver.conftest import spec_of

CLOCK = HostClock()
NEVER = 1 << 62


def in_order(call: Call) -> bool:
    return call.called.raw_ns <= call.returned.raw_ns <= CLOCK.now().raw_ns


def test_it_is_what_the_controller_speaks_to(lab: LibvirtHypervisor) -> None:
    hypervisor: Hypervisor = lab
    clock: Clock = CLOCK
    assert hypervisor.state("test") == "running"
    assert clock.now().raw_ns > 0


def test_suspend_and_resume(lab: LibvirtHypervisor) -> None:
    stop = lab.freeze("test", Freezing(FreezeMethod.SUSPEND), NEVER).call
    assert lab.state("test") == "paused"
    resume = lab.resume("test", Freezing(FreezeMethod.SUSPEND)).call
    assert lab.state("test") == "running"
    assert in_order(stop)
    assert in_order(resume)
    assert stop.returned.raw_ns <= resume.called.raw_ns
    assert stop.event_real_ns is None
    assert resume.event_real_ns is None


def test_a_guest_that_is_awake_is_left_in_peace_by_waking(lab: LibvirtHypervisor) -> None:
    lab.wake("test")
    assert lab.state("test") == "running"


def test_resume_is_safe_to_repeat(lab: LibvirtHypervisor) -> None:
    lab.resume("test", Freezing(FreezeMethod.SUSPEND))
    lab.freeze("test", Freezing(FreezeMethod.SUSPEND), NEVER)
    for _ in range(3):
        assert in_order(lab.resume("test", Freezing(FreezeMethod.SUSPEND)).call)
    assert lab.state("test") == "running"


def test_a_control_cycle_touches_nothing(lab: LibvirtHypervisor) -> None:
    assert in_order(lab.freeze("test", Freezing(FreezeMethod.NONE), NEVER).call)
    assert lab.state("test") == "running"
    assert in_order(lab.resume("test", Freezing(FreezeMethod.NONE)).call)


def test_a_save_that_a_signal_comes_into_is_restored(
    lab: LibvirtHypervisor, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libvirt may have saved the guest by the time it is asked to abort: the file is all there is of it."""
    save, restore = libvirt.virDomain.saveFlags, libvirt.virConnect.restoreFlags

    def slowly(domain: Any, *arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)  # it has come to the main thread, which waits
        return save(domain, *arguments[:2], 0)  # this driver saves and restores what runs

    def paused(at: Any, *arguments: Any) -> Any:
        status = restore(at, *arguments[:2], 0)
        at.lookupByName("test").suspend()
        return status

    monkeypatch.setattr(libvirt.virDomain, "saveFlags", slowly)
    monkeypatch.setattr(libvirt.virConnect, "restoreFlags", paused)
    freezing = Freezing(FreezeMethod.SAVE_RESTORE, save_to=str(home / "saves"))
    with Signals(), pytest.raises(Interrupted):
        lab.freeze("test", freezing, NEVER)
    assert lab.resume("test", freezing).why == ""
    assert lab.state("test") == "running"
    lab.finish("test")
    assert not (home / "saves").exists()


def test_freezing_what_is_frozen(lab: LibvirtHypervisor) -> None:
    lab.freeze("test", Freezing(FreezeMethod.SUSPEND), NEVER)
    with pytest.raises(HypervisorError, match="test: cannot be frozen: it is paused"):
        lab.freeze("test", Freezing(FreezeMethod.SUSPEND), NEVER)
    lab.resume("test", Freezing(FreezeMethod.SUSPEND))


@pytest.mark.parametrize("method", FreezeMethod)
def test_a_guest_that_is_not_there(lab: LibvirtHypervisor, method: FreezeMethod) -> None:
    with pytest.raises(HypervisorError, match="nobody: no such guest"):
        lab.freeze("nobody", Freezing(method), NEVER)
    with pytest.raises(HypervisorError, match="nobody: no such guest"):
        lab.resume("nobody", Freezing(method))


def test_no_process_to_stop(lab: LibvirtHypervisor) -> None:
    with pytest.raises(HypervisorError, match="QEMU process is not on this host"):
        lab.freeze("test", Freezing(FreezeMethod.SIGSTOP), NEVER)
    with pytest.raises(HypervisorError, match="QEMU process is not on this host"):
        lab.cpu_time_ns("test")
    assert lab.state("test") == "running"


def test_no_agent(lab: LibvirtHypervisor) -> None:
    with pytest.raises(HypervisorError, match="guest-ping failed"):
        lab.agent_command("test", "guest-ping")
    with pytest.raises(HypervisorError, match="guest-ping failed"):
        lab.agent_ready("test", CLOCK.now().raw_ns + NS_PER_S // 5)
    with pytest.raises(HypervisorError, match="QMP query-status failed"):
        lab.qmp("test", "query-status")


def test_start_list_destroy(lab: LibvirtHypervisor, home: Path) -> None:
    started = lab.define_and_start(spec_of("web-0", home))
    assert (started.name, started.guest, started.state) == ("freezelab-r1-web-0", "web-0", "running")
    assert lab.list_lab_domains() == [started]
    assert lab.state("web-0") == "running"
    lab.freeze("web-0", Freezing(FreezeMethod.SUSPEND), NEVER)
    assert lab.list_lab_domains()[0].state == "paused"
    lab.destroy("web-0")
    assert lab.list_lab_domains() == []
    assert lab.state("web-0") == "shut off"
    lab.destroy("web-0")


def test_a_guest_of_that_name_already_there(lab: LibvirtHypervisor, home: Path) -> None:
    lab.define_and_start(spec_of("web-0", home))
    # Without the URI, recover would look at the embedded driver. (A kept error would keep this test's
    # connection, and with it the domains of libvirt's test driver.)
    why = r"a guest of this name exists already, of run r1, running\n.*recover --connect test:///default$"
    with pytest.raises(HypervisorError, match=why):
        lab.define_and_start(spec_of("web-0", home, run="r2"))
    assert [known.run for known in lab.list_lab_domains()] == ["r1"]


def test_labs_of_two_homes_leave_each_other_alone(lab: LibvirtHypervisor, home: Path) -> None:
    lab.define_and_start(spec_of("web-0", home))
    with connect("test:///default", home / "other", clock=CLOCK) as other:
        assert other.list_lab_domains() == []
        with pytest.raises(
            HypervisorError, match="a domain freezelab-r1-web-0 that is not this lab's exists"
        ):
            other.define_and_start(spec_of("web-0", home / "other"))
        other.define_and_start(spec_of("web-0", home / "other", run="r2"))
        other.destroy("web-0")
    assert lab.state("web-0") == "running"


def test_a_destroyed_guest_leaves_no_socket(lab: LibvirtHypervisor, home: Path) -> None:
    """Those of the process that it has in the end, which a hand-over may have made."""
    monitor = home / "0.monitor"
    lab.define_and_start(replace(spec_of("web-0", home), monitor_socket=monitor))
    monitor.touch()
    lab.destroy("web-0")
    assert not monitor.exists()


def test_the_users_domains_are_never_destroyed(lab: LibvirtHypervisor) -> None:
    with pytest.raises(HypervisorError, match="not one of the lab's guests"):
        lab.destroy("test")
    assert lab.state("test") == "running"


def test_a_guest_of_the_users_domains_name(lab: LibvirtHypervisor, home: Path) -> None:
    lab.define_and_start(spec_of("test", home))
    lab.freeze("test", Freezing(FreezeMethod.SUSPEND), NEVER)
    lab.destroy("test")
    with connect("test:///default", home, clock=CLOCK) as fresh:
        assert fresh.state("test") == "running"


def test_a_guest_that_ends_while_it_is_frozen(lab: LibvirtHypervisor, home: Path) -> None:
    lab.define_and_start(spec_of("web-0", home))
    lab.freeze("web-0", Freezing(FreezeMethod.SUSPEND), NEVER)
    with connect("test:///default", home, clock=CLOCK) as other:
        other.destroy("web-0")
    assert lab.events.wait_lifecycle(uuid_of(lab, "web-0"), lambda e: e.ends_guest, 5) is not None
    assert lab.state("web-0") == "shut off"
    with pytest.raises(HypervisorError, match=r"has ended while it was frozen \(destroyed\)"):
        lab.resume("web-0", Freezing(FreezeMethod.SUSPEND))


def uuid_of(lab: LibvirtHypervisor, guest: str) -> str:
    return str(lab.domains.find(guest).UUIDString())


def test_lifecycle_is_recorded(lab: LibvirtHypervisor, home: Path) -> None:
    before = CLOCK.now()
    lab.define_and_start(spec_of("web-0", home))
    lab.freeze("web-0", Freezing(FreezeMethod.SUSPEND), NEVER)
    lab.resume("web-0", Freezing(FreezeMethod.SUSPEND))
    lab.destroy("web-0")
    assert lab.events.wait_lifecycle(uuid_of(lab, "web-0"), lambda e: e.kind == "stopped", 5) is not None
    events = lab.lifecycle("web-0")
    assert [e.kind for e in events] == ["started", "suspended", "resumed", "stopped"]
    assert events[-1].reason == "destroyed"
    assert all(before.raw_ns <= e.at.raw_ns for e in events)


def test_shutdown(lab: LibvirtHypervisor, home: Path) -> None:
    lab.define_and_start(spec_of("web-0", home))
    assert in_order(lab.shutdown("web-0", CLOCK.now().raw_ns + 5 * NS_PER_S))
    assert in_order(lab.shutdown("web-0", CLOCK.now().raw_ns))
    assert lab.state("web-0") == "shut off"


def test_what_libvirt_refuses_is_one_line(lab: LibvirtHypervisor, home: Path) -> None:
    class Impossible(DomainSpec):
        mac = "nonsense"

    good = spec_of("web-0", home)
    bad = Impossible(**{**vars(good), "memory_bytes": 0})
    with pytest.raises(HypervisorError, match="web-0: cannot be started: ") as caught:
        lab.define_and_start(bad)
    assert str(caught.value).count("\n") == 0
    assert lab.list_lab_domains() == []


def test_a_program_that_failed_is_named_without_its_command_line() -> None:
    text = (
        "internal error: Child process (LC_ALL=C PATH=/sbin:/bin HOME=/x QEMU_AUDIO_DRV=none "
        "/usr/bin/qemu-system-x86_64 -object mem-path=/dev/shm/ram,share=off "
        '-name guest=a,debug-threads=on -S -object \'{"id":"(b) c"}\') '
        "unexpected exit status 1"
    )
    error = libvirt.libvirtError("virDomainRestoreFlags() failed")
    error.err = (1, 10, text, 2, text, None, None, -1, -1)
    said = as_hypervisor_error(error, "cannot be restored", "web-0").what
    assert said == "cannot be restored: internal error: qemu-system-x86_64 unexpected exit status 1"


def test_facts(lab: LibvirtHypervisor) -> None:
    facts = lab.facts()
    assert facts.uri == "test:///default"
    assert facts.libvirt.count(".") == 2
    assert facts.libvirt_linked.count(".") == 2


def test_closing_leaves_no_thread_and_no_guest_ends(home: Path) -> None:
    before = set(threading.enumerate())
    with (
        connect("test:///default", home, clock=CLOCK) as one,
        connect("test:///default", home, clock=CLOCK) as two,
    ):
        assert one.state("test") == "running"
        one.close()
        one.close()
        assert two.state("test") == "running"
    assert set(threading.enumerate()) == before
    with connect("test:///default", home, clock=CLOCK) as again:
        assert again.state("test") == "running"


def test_a_domain_that_someone_else_pauses_is_resumed(lab: LibvirtHypervisor) -> None:
    lab.freeze("test", Freezing(FreezeMethod.SUSPEND), NEVER)
    with connect("test:///default", Path("/elsewhere"), clock=CLOCK) as fresh:
        fresh.resume("test", Freezing(FreezeMethod.SUSPEND))
    assert lab.state("test") == "running"
