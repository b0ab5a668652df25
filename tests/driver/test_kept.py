"""Kept guests beside a run's of the same name: who is meant, and who is left alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lab.core.method import FreezeMethod
from lab.errors import HypervisorError
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.hypervisor.domain import DomainSpec
from lab.hypervisor.domain_status import domain_status
from lab.hypervisor.qmp import QmpSocket
from lab.ports import Freezing
from tests.driver.conftest import spec_of
from tests.driver.qemus import Qemu, until

SUSPEND = Freezing(FreezeMethod.SUSPEND)


def kept_guest(home: Path, run: str = "kept-1") -> DomainSpec:
    return replace(spec_of("web-0", home, run), kept_guest=True)


def runs(lab: LibvirtHypervisor) -> dict[str, str]:
    return {domain.run: domain.state for domain in lab.list_lab_domains()}


def test_a_run_s_guest_comes_before_a_kept_one(lab: LibvirtHypervisor, home: Path) -> None:
    lab.define_and_start(kept_guest(home))
    with pytest.raises(HypervisorError, match="a guest of this name exists already, of run kept-1"):
        lab.define_and_start(kept_guest(home, "kept-2"))
    lab.define_and_start(spec_of("web-0", home))
    lab.freeze("web-0", SUSPEND, 1 << 62)
    assert runs(lab) == {"kept-1": "running", "r1": "paused"}
    lab.resume("web-0", SUSPEND)
    lab.destroy("web-0")
    lab.destroy("web-0")  # its name does not fall to the kept one
    assert runs(lab) == {"kept-1": "running"}


def test_another_process_means_the_same(lab: LibvirtHypervisor, home: Path) -> None:
    one = lab.define_and_start(kept_guest(home))
    lab.define_and_start(spec_of("web-0", home))
    lab.domains._started.clear()  # as a process that has started none of them
    assert lab.domains.find("web-0").name() == "freezelab-r1-web-0"
    lab.destroy_kept_guest(one.uuid)
    assert runs(lab) == {"r1": "running"}
    lab.destroy_kept_guest(one.uuid)
    assert runs(lab) == {"r1": "running"}


def test_a_kept_guest_that_stood_still_goes_on(lab: LibvirtHypervisor, home: Path) -> None:
    lab.define_and_start(kept_guest(home))
    lab.define_and_start(spec_of("web-1", home))
    for guest in ("web-0", "web-1"):
        lab.freeze(guest, SUSPEND, 1 << 62)
    assert list(lab.recover(resume=False)) == ["guest web-0 runs again (it was paused)"]
    assert runs(lab) == {"kept-1": "running", "r1": "paused"}
    assert list(lab.recover(resume=True)) == ["guest web-1 runs again (it was paused)"]


def test_the_mark_is_read_back(lab: LibvirtHypervisor, home: Path) -> None:
    started = [lab.define_and_start(kept_guest(home)), lab.define_and_start(spec_of("web-1", home))]
    assert [domain.kept_guest for domain in started] == [True, False]
    assert sorted(lab.list_lab_domains(), key=lambda domain: domain.guest) == started


def test_a_guest_that_shuts_down_while_nobody_uses_libvirt(folder: Path, start: Callable[..., Qemu]) -> None:
    """With the options that libvirt and the lab start a guest with; a reset takes the guest's part."""
    spec = replace(kept_guest(folder), uuid="6c9d5f64-0000-4000-8000-000000000001")
    spec = replace(spec, control_socket=folder / "a, control")
    monitors = ("-chardev", spec.monitors["labcontrol"], "-mon", "chardev=labcontrol,mode=control")
    qemu = start("web-0", "-uuid", spec.uuid, "-no-reboot", "-no-shutdown", *monitors)

    def state() -> str:
        return domain_status(folder, spec.name, spec.uuid)

    until(qemu.is_running)
    assert state() == "running"
    qemu.monitor.execute("system_reset")
    until(lambda: state() == "shut off")
    with QmpSocket(folder / "a, control"):
        assert state() == "running", "it cannot be asked"
    qemu.end()
    assert state() == "gone"


def test_a_state_that_libvirt_has_not_written_any_more(folder: Path, start: Callable[..., Qemu]) -> None:
    spec = replace(kept_guest(folder), uuid="6c9d5f64-0000-4000-8000-000000000002")
    spec = replace(spec, control_socket=folder / "control")
    monitors = ("-chardev", spec.monitors["labcontrol"], "-mon", "chardev=labcontrol,mode=control")
    qemu = start("web-0", "-uuid", spec.uuid, *monitors)
    written = folder / "libvirt" / "run" / "qemu" / f"{spec.name}.xml"
    written.parent.mkdir(parents=True)
    written.write_text("<domstatus state='paused'/>")
    until(qemu.is_running)
    assert domain_status(folder, spec.name, spec.uuid) == "running"
    qemu.monitor.execute("stop")
    assert domain_status(folder, spec.name, spec.uuid) == "paused"
    with QmpSocket(folder / "control"):
        qemu.monitor.execute("cont")
        assert domain_status(folder, spec.name, spec.uuid) == "paused", "it cannot be asked"
