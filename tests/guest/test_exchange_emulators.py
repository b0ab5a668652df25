"""in-place over another emulator, or with none running in between: on a real guest."""

from __future__ import annotations

import functools
import signal
from pathlib import Path

import pytest

from lab.core.plan import FreezeMethod
from lab.core.units import NS_PER_S
from lab.errors import Interrupted, MachineError, Refused
from lab.host import emulators, emulators_fetch
from lab.hypervisor.domain import Accelerator
from lab.hypervisor.process import QemuProcess
from lab.image.store import default_cache
from lab.ports import Freezing, Successor
from tests.guest.conftest import Lab, hand_over, processes

pytestmark = pytest.mark.usefixtures("quiet")

COLD = Freezing(FreezeMethod.IN_PLACE, Successor(cold=True), prove_memory=True)


def test_over_with_nobody_there_in_between(shared: Lab, home: Path) -> None:
    """As for a reload of KVM's modules: while the guest is frozen, no emulator runs."""
    boot = shared.probe.facts().boot_id
    shared.hypervisor.prepare("web-0", COLD)
    assert len(processes(home)) == 1
    frozen = shared.hypervisor.freeze("web-0", COLD, shared.clock.now().raw_ns + 30 * NS_PER_S)
    assert not frozen.why
    assert not processes(home)
    resumed = shared.hypervisor.resume("web-0", COLD)
    shared.hypervisor.finish("web-0")
    assert not resumed.why
    assert resumed.proof is not None and resumed.proof.differ == 0
    assert len(processes(home)) == 1
    assert shared.probe.facts().boot_id == boot
    assert not list((home / "saved").iterdir())


def test_a_signal_while_the_old_process_is_being_ended(
    shared: Lab, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no way back to a process that has been sent SIGKILL, whether it is gone yet or not."""
    kill = QemuProcess.kill
    cut: list[QemuProcess] = []

    def interrupted(process: QemuProcess, wait_s: float) -> None:
        if cut:
            kill(process, wait_s)
            return
        cut.append(process)
        signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)
        raise Interrupted("interrupted by SIGTERM")

    boot = shared.probe.facts().boot_id
    shared.hypervisor.prepare("web-0", COLD)
    monkeypatch.setattr(QemuProcess, "kill", interrupted)
    with pytest.raises(Interrupted):
        shared.hypervisor.freeze("web-0", COLD, shared.clock.now().raw_ns + 30 * NS_PER_S)
    resumed = shared.hypervisor.resume("web-0", COLD)
    shared.hypervisor.finish("web-0")
    assert "restarted under the old emulator" in resumed.why
    assert len(processes(home)) == 1
    assert shared.probe.facts().boot_id == boot
    assert not list((home / "saved").iterdir())


def test_the_old_emulator_again_when_the_other_does_not_take_the_state(
    shared: Lab, home: Path, tmp_path: Path
) -> None:
    """An emulator that starts once, before the freeze, and never again: too late for the old process only."""
    own = shared.hypervisor.emulator(Accelerator.TCG).path
    broken, tried = tmp_path / "qemu-system-x86_64", tmp_path / "tried"
    broken.write_text(
        f'#!/bin/sh\ncase "$*" in *incoming*)\n'
        f'mkdir {tried} 2>/dev/null || {{ echo "no luck" >&2; exit 1; }};; esac\n'
        f'exec {own} "$@"\n'
    )
    broken.chmod(0o755)
    boot = shared.probe.facts().boot_id
    freezing = Freezing(FreezeMethod.IN_PLACE, Successor(str(broken), cold=True))
    _frozen, resumed = hand_over(shared, freezing)
    assert tried.is_dir()
    assert "restarted under the old emulator" in resumed.why
    assert "no luck" in resumed.why
    assert len(processes(home)) == 1
    assert shared.probe.facts().boot_id == boot
    _frozen, resumed = hand_over(shared)
    assert not resumed.why


OTHER_BUILD = """#!/bin/sh
# The same QEMU, but for one device: it has a balloon where the guest has its network card.
for word; do
    shift
    case $word in virtio-net-pci,*) word=virtio-balloon-pci,bus=pcie.0,addr=0x10 ;; esac
    set -- "$@" "$word"
done
exec {own} "$@"
"""


def test_a_state_that_the_other_qemu_refuses(shared: Lab, home: Path, tmp_path: Path) -> None:
    """QEMU's own refusal, in the freeze: the guest goes back, and QEMU's reason is told."""
    (old,) = processes(home)
    other = tmp_path / "qemu-system-x86_64"
    other.write_text(OTHER_BUILD.replace("{own}", str(shared.hypervisor.emulator(Accelerator.TCG).path)))
    other.chmod(0o755)
    frozen, _resumed = hand_over(shared, Freezing(FreezeMethod.IN_PLACE, Successor(str(other))))
    assert frozen.back is not None
    assert "put back to the old process" in frozen.why
    assert "virtio-net" in frozen.why
    assert set(processes(home)) == {old}
    assert shared.probe.read().round_trip_ns > 0


def test_a_cpu_that_would_lose_a_feature(shared: Lab, home: Path, tmp_path: Path) -> None:
    """The CPU model has the same name, and QEMU would call the hand-over completed."""
    before = processes(home)
    other = tmp_path / "qemu-system-x86_64"
    own = shared.hypervisor.emulator(Accelerator.TCG).path
    other.write_text(f'#!/bin/sh\nexec {own} "$@" -global x86_64-cpu.popcnt=off\n')
    other.chmod(0o755)
    for cold in (False, True):
        freezing = Freezing(FreezeMethod.IN_PLACE, Successor(str(other), cold=cold))
        with pytest.raises(Refused, match="lacks popcnt, which the guest's CPU has now"):
            shared.hypervisor.prepare("web-0", freezing)
        assert processes(home) == before
    assert shared.runs()


def fetched(name: str) -> Path:
    try:
        return emulators_fetch.fetch(name, default_cache(), lambda _line: None).path
    except MachineError as error:
        pytest.skip(error.what)


def longest_queue(lab: Lab) -> int:
    """Entries of the longest virtio queue that the guest has."""
    ask = functools.partial(lab.hypervisor.qmp, "web-0")
    return max(
        int(ask("x-query-virtio-queue-status", path=device["path"], queue=0)["vring-num"])
        for device in ask("x-query-virtio")
    )


def has_grown(lab: Lab, freezing: Freezing) -> bool:
    """Whether the guest's CPU is the host's, to which a newer QEMU has added features that the older one of
    `freezing` lacks: there is no way back then, which is said before anything is stopped."""
    spec = lab.hypervisor.spec("web-0")
    if spec is None or spec.accelerator is not Accelerator.KVM:
        return False
    with pytest.raises(Refused, match=r"lacks CPUID .*, which the guest's CPU has now"):
        lab.hypervisor.prepare("web-0", freezing)
    return True


def test_up_to_another_version_and_down_again(shared: Lab, home: Path) -> None:
    """The distribution's QEMU, the backport for Debian 12 (10.0.2), and back, under one living guest."""
    newer = fetched("bookworm-backports")
    own = shared.hypervisor.emulator(Accelerator.TCG).path
    boot, first = shared.probe.facts().boot_id, shared.hypervisor.emulator_of("web-0")
    for emulator in (newer, own):
        freezing = Freezing(FreezeMethod.IN_PLACE, Successor(str(emulator)), prove_memory=True)
        if emulator == own and has_grown(shared, freezing):
            return
        _frozen, resumed = hand_over(shared, freezing)
        assert not resumed.why
        assert resumed.proof is not None and resumed.proof.differ == 0
        assert shared.probe.facts().boot_id == boot
        runs = shared.hypervisor.emulator_of("web-0")
        assert runs == emulators.version(emulator)
        assert (runs == first) == (emulator == own)
    assert len(processes(home)) == 1


def test_to_a_version_that_measures_queues(shared: Lab, home: Path) -> None:
    """11.1.3. A guest of Debian 12 goes there and back; one that Debian 13's 10.0.13 has booted, with 1024
    entries in every queue, cannot, which is said before it is frozen."""
    newest = Freezing(FreezeMethod.IN_PLACE, Successor(str(fetched("trixie-backports"))))
    if longest_queue(shared) == 1024:
        before = processes(home)
        with pytest.raises(Refused, match=r"would refuse its virtio-.*: a queue has 1024 entries"):
            shared.hypervisor.prepare("web-0", newest)
        assert processes(home) == before
        return
    own = Freezing(FreezeMethod.IN_PLACE, Successor(str(shared.hypervisor.emulator(Accelerator.TCG).path)))
    for freezing in (newest, newest, own):
        if freezing is own and has_grown(shared, own):
            return
        _frozen, resumed = hand_over(shared, freezing)
        assert not resumed.why
    assert shared.probe.read().round_trip_ns > 0
