"""replace-host-kernel as far as no lab host is needed: what is refused, the orders and marks of a cycle,
whose kernels are threads here, and kernels that are unpacked."""

from __future__ import annotations

import ctypes
import gzip
import lzma
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from lab.core.method import FreezeMethod
from lab.core.patch import ReplaceHostKernelPatch
from lab.core.plan import GuestSpec, Plan, RtcTrack
from lab.core.units import NS_PER_S
from lab.errors import GuestGone, HypervisorError, MachineError, Refused, UsageError
from lab.hypervisor.kexec import keeper, replacement
from lab.hypervisor.kexec.line import KernelLine
from lab.hypervisor.kexec.replacement import LabHostGuest, ReplaceHostKernel
from lab.hypervisor.kexec.restorer import kernel_of, quick_module
from lab.hypervisor.kexec.vmlinux import vmlinux
from lab.playbook import parse
from lab.ports import Freezing
from lab.process.clock import HostClock
from lab.session.host_kernel_plan import check_plan, replaces_kernel
from lab.session.lab_host import reserve_options

PLAYBOOK = """
name: k
fleet: {guests: [{name: web-0}]}
resync: chrony
cycle: {method: in-place, patch: {replace-host-kernel: 6.12}}
"""
FREEZING = Freezing(FreezeMethod.IN_PLACE)
MIB, GIB = 1 << 20, 1 << 30


def _plan(text: str = PLAYBOOK) -> Plan:
    return parse(text.encode(), "k.yaml")


# --- plans


def test_a_plan_has_to_accept_the_loss() -> None:
    plan = _plan()
    assert replaces_kernel(plan)
    check_plan(plan, accept_loss=True)
    with pytest.raises(UsageError, match="the guest is lost") as error:
        check_plan(plan, accept_loss=False)
    assert "--accept-loss" in error.value.hint
    assert not replaces_kernel(_plan("name: a\nresync: none\ncycle: {patch: {hold: 1s}}\n"))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"watchdog": "reset"}, "a watchdog"),
        ({"huge_pages": True}, "huge pages"),
        ({"bridge": "br0", "address": "10.0.0.1/24"}, "a bridge"),
        ({"emulator": "backports"}, "another emulator"),
        ({"rtc": RtcTrack.GUEST}, "an RTC"),
        ({"fill": 0.5}, "fill"),
        ({"domain": "web"}, "a domain of your own"),
    ],
)
def test_guests_that_are_refused(change: dict[str, object], what: str) -> None:
    plan = _plan()
    guest: GuestSpec = replace(plan.guests[0], **change)  # type: ignore[arg-type]
    with pytest.raises(Refused, match=f"does not go with {what}"):
        check_plan(replace(plan, guests=(guest,)), accept_loss=True)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("[{name: web-0}]", "[{name: web-0}, {name: web-1}]", "more than one guest"),
        ("name: k", "name: k\nmatrix: {vcpus: [1, 2]}", "a matrix"),
        ("resync: chrony", "resync: chrony\nannounce: {notice: 10s}", "an announcement"),
        ("resync: chrony", "resync: agent", "a device that this guest does not have"),
    ],
)
def test_playbooks_that_are_refused(old: str, new: str, what: str) -> None:
    with pytest.raises(Refused, match=what):
        check_plan(_plan(PLAYBOOK.replace(old, new)), accept_loss=True)


# --- the lab host


@pytest.mark.parametrize(
    ("reserve", "memory", "found"),
    [("", GIB, ()), ("1GiB", 4 * GIB, ("memmap=1024M!4G",)), ("128MiB", 3 * GIB, ("memmap=128M!4G",))],
)
def test_options_that_reserve_memory(reserve: str, memory: int, found: tuple[str, ...]) -> None:
    assert reserve_options(reserve, memory) == found


@pytest.mark.parametrize(
    ("reserve", "memory", "what"),
    [
        ("2GiB", 3 * GIB, "a lab host needs 4 GiB"),
        ("512MiB", 2 * GIB, "a lab host needs 2816 MiB"),
        ("100MiB", 4 * GIB, "a multiple of 128 MiB"),
        ("much", 4 * GIB, "much"),
    ],
)
def test_memory_that_cannot_be_reserved(reserve: str, memory: int, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        reserve_options(reserve, memory)


IOMEM = "00100000-7fffffff : System RAM\n100000000-11fffffff : Persistent Memory (legacy)\n"


def test_too_little_memory_is_reserved() -> None:
    keeper.check_reserved(IOMEM, 256 * MIB)
    with pytest.raises(Refused, match="no memory is reserved in it") as error:
        keeper.check_reserved(IOMEM.split("\n", maxsplit=1)[0], 256 * MIB)
    assert "--reserve" in error.value.hint
    with pytest.raises(Refused, match="512 MiB are reserved in it, and the guest needs 512 MiB and 32 MiB"):
        keeper.check_reserved(IOMEM, 512 * MIB)


def test_a_kernel_that_is_locked_down_is_told(tmp_path: Path) -> None:
    lockdown, disabled = tmp_path / "lockdown", tmp_path / "disabled"
    assert keeper.locked(lockdown, disabled) == ""  # built without
    lockdown.write_text("[none] integrity confidentiality\n")
    disabled.write_text("0\n")
    assert keeper.locked(lockdown, disabled) == ""
    lockdown.write_text("none [integrity] confidentiality\n")
    assert "secure boot" in keeper.locked(lockdown, disabled)
    lockdown.write_text("[none] integrity confidentiality\n")
    disabled.write_text("1\n")
    assert "kexec_load_disabled" in keeper.locked(lockdown, disabled)


def test_kernels_by_the_beginning_of_their_release() -> None:
    known = ["6.1.0-57-cloud-amd64", "6.12.95+deb12-cloud-amd64"]
    assert [kernel_of(text, known) for text in ("6.1", "6.12", "6.12.95+deb12-cloud-amd64")] == [
        *known,
        known[1],
    ]
    with pytest.raises(Refused, match=r"no Linux 7\.3") as error:
        kernel_of("7.3", known)
    assert known[0] in error.value.hint


ELF = b"\x7fELF" + bytes(range(256)) * 4000


def _lz4(data: bytes) -> bytes:
    try:
        library = ctypes.CDLL("liblz4.so.1")
    except OSError:
        pytest.skip("there is no liblz4")
    packed = b"\x02\x21\x4c\x18"
    for at in range(0, len(data), 8 << 20):
        block = data[at : at + (8 << 20)]
        room = ctypes.create_string_buffer(len(block) * 2)
        done = library.LZ4_compress_default(block, room, len(block), len(room))
        packed += struct.pack("<I", done) + room.raw[:done]
    return packed


def _bzimage(packed: bytes, size: int) -> bytes:
    payload = packed + struct.pack("<I", size)
    image = bytearray(3 * 512) + bytearray(64) + payload
    image[0x1F1] = 2
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", image, 0x248, 64, len(payload))
    return bytes(image)


@pytest.mark.parametrize("pack", [_lz4, lzma.compress, gzip.compress])
def test_a_kernel_is_unpacked(pack: Callable[[bytes], bytes]) -> None:
    assert vmlinux(_bzimage(pack(ELF), len(ELF))) == ELF


def test_what_is_no_kernel_is_refused() -> None:
    with pytest.raises(MachineError, match="no bzImage"):
        vmlinux(bytes(4096))
    with pytest.raises(MachineError, match="unknown packing 00000000"):
        vmlinux(_bzimage(bytes(64), 64))
    with pytest.raises(MachineError, match="no ELF file"):
        vmlinux(_bzimage(gzip.compress(b"text"), 4))


def test_a_module_is_made_quick_to_load() -> None:
    signature = b"s" * 300
    head = bytes(8) + struct.pack(">I", len(signature))
    module = b"\x7fELF" + bytes(100) + b"\0.text\0.BTF\0.symtab\0"
    signed = module + signature + head + b"~Module signature appended~\n"
    assert quick_module(signed) == module.replace(b".BTF", b".btf")
    assert quick_module(module) == module.replace(b".BTF", b".btf")


# --- a cycle


class _Kernels:
    """Two kernels at the other end of the port. answers: the marks that answer each order."""

    def __init__(self, path: Path, answers: dict[str, list[str]]) -> None:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self.answers, self.orders = answers, list[str]()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self.peer: socket.socket | None = None
        self.accepted = threading.Event()
        self.rebooted = False

    def _serve(self) -> None:
        self.peer, _ = self._server.accept()
        self.accepted.set()
        for line in self.peer.makefile("r", encoding="ascii"):
            self.orders.append(line.strip())
            for mark in self.answers.get(line.split()[0], []):
                self.say(mark)

    def say(self, mark: str) -> None:
        self.accepted.wait(10)
        assert self.peer is not None
        self.peer.sendall(f"{mark}\n".encode())

    def close(self) -> None:
        self._server.close()
        if self.peer is not None:
            self.peer.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)


GOOD = {
    "freeze": ["stopped 100.00", "saved 100.20"],
    "leave": ["leaving 100.40", "init 2.00 1.50", "modules 2.60", "started 2.90", "restored 3.00"],
    "go": ["resumed 3.10"],
    "back": ["resumed 101.00"],
}


@pytest.fixture
def cycle(
    tmp_path: Path,
) -> Iterator[Callable[[dict[str, list[str]]], tuple[LabHostGuest, _Kernels, list[str]]]]:
    opened: list[Callable[[], None]] = []

    def make(answers: dict[str, list[str]]) -> tuple[LabHostGuest, _Kernels, list[str]]:
        kernels = _Kernels(tmp_path / "port", answers)
        clock, resets = HostClock(), list[str]()
        line = KernelLine(tmp_path / "port", clock)
        opened.extend((kernels.close, line.close))
        guest = LabHostGuest(
            line,
            clock,
            lambda: kernels.say("ready 50.00"),
            lambda: None,
            lambda: nullcontext(lambda: kernels.rebooted),
            lambda: resets.append("reset"),
        )
        guest.prepare("web-0", FREEZING)
        return guest, kernels, resets

    yield make
    for close in opened:
        close()


def _soon(seconds: float = 10.0) -> int:
    return HostClock().now().raw_ns + round(seconds * NS_PER_S)


def _patch(guest: LabHostGuest, deadline_ns: int = 10 * NS_PER_S) -> ReplaceHostKernel:
    spec = ReplaceHostKernelPatch(("6.12",), deadline_ns)
    return ReplaceHostKernel(spec, HostClock(), guest, lambda: None, lambda: "Linux 6.1, boot a")


def test_a_cycle_has_its_timeline(cycle: Callable[..., tuple[LabHostGuest, _Kernels, list[str]]]) -> None:
    guest, kernels, resets = cycle(GOOD)
    frozen = guest.freeze("web-0", FREEZING, _soon())
    result = _patch(guest).apply(_soon())
    resumed = guest.resume("web-0", FREEZING)
    assert (result.ok, result.why, resets) == (True, "", [])
    assert [step.name for step in result.steps] == [
        "file systems read-only", "kexec", "kernel", "modules", "start QEMU", "restore",
    ]  # fmt: skip
    kernel = next(step for step in result.steps if step.name == "kernel")
    assert kernel.length_ns == 1_500_000_000  # its uptime when the initramfs began
    assert frozen.call.called.raw_ns <= frozen.call.returned.raw_ns <= resumed.call.called.raw_ns
    assert resumed.call.called.raw_ns <= resumed.call.returned.raw_ns
    assert [order.split()[0] for order in kernels.orders] == ["freeze", "leave", "go"]


def test_a_freeze_that_fails_is_taken_back(
    cycle: Callable[..., tuple[LabHostGuest, _Kernels, list[str]]],
) -> None:
    guest, kernels, resets = cycle({**GOOD, "freeze": ["stopped 100.00", "failed 100.10 no space"]})
    with pytest.raises(HypervisorError, match="no space"):
        guest.freeze("web-0", FREEZING, _soon())
    guest.resume("web-0", FREEZING)
    assert [order.split()[0] for order in kernels.orders] == ["freeze", "back"]
    assert resets == []


def test_a_kernel_that_cannot_be_left_goes_on_with_the_guest(
    cycle: Callable[..., tuple[LabHostGuest, _Kernels, list[str]]],
) -> None:
    guest, kernels, resets = cycle({**GOOD, "leave": ["failed 100.30 no kernel is loaded"]})
    guest.freeze("web-0", FREEZING, _soon())
    result = _patch(guest).apply(_soon())
    assert (result.ok, result.why) == (False, "no kernel is loaded")
    guest.resume("web-0", FREEZING)
    assert [order.split()[0] for order in kernels.orders] == ["freeze", "leave", "back"]
    assert resets == []


def test_a_kernel_that_comes_late_still_resumes_the_guest(
    cycle: Callable[..., tuple[LabHostGuest, _Kernels, list[str]]],
) -> None:
    guest, kernels, resets = cycle({**GOOD, "leave": ["leaving 100.40"]})
    guest.freeze("web-0", FREEZING, _soon())
    result = _patch(guest, NS_PER_S // 5).apply(_soon())
    assert not result.ok
    assert "had not restored the guest" in result.why
    kernels.say("restored 9.00")
    guest.resume("web-0", FREEZING)
    assert resets == []


@pytest.mark.parametrize("marks", [[], ["failed 5.00 no such device"]])
def test_a_kernel_that_does_not_come_up_is_reset_and_the_guest_lost(
    cycle: Callable[..., tuple[LabHostGuest, _Kernels, list[str]]],
    monkeypatch: pytest.MonkeyPatch,
    marks: list[str],
) -> None:
    monkeypatch.setattr(replacement, "LOST_NS", NS_PER_S // 5)
    guest, _, resets = cycle({**GOOD, "leave": ["leaving 100.40", *marks]})
    guest.freeze("web-0", FREEZING, _soon())
    _patch(guest, NS_PER_S // 5).apply(_soon())
    with pytest.raises(GuestGone, match="the guest is lost"):
        guest.resume("web-0", FREEZING)
    assert resets == ["reset"]
    with pytest.raises(GuestGone, match="the guest is lost"):
        guest.look("web-0")


def test_a_kernel_that_reboots_the_lab_host_is_not_waited_for(
    cycle: Callable[..., tuple[LabHostGuest, _Kernels, list[str]]],
) -> None:
    guest, kernels, resets = cycle({**GOOD, "leave": ["leaving 100.40"]})
    guest.freeze("web-0", FREEZING, _soon())
    kernels.rebooted = True
    result = _patch(guest).apply(_soon())
    assert (result.ok, result.why) == (False, "the new kernel has rebooted the lab host")
    with pytest.raises(GuestGone, match="the guest is lost: the new kernel has rebooted the lab host"):
        guest.resume("web-0", FREEZING)
    assert resets == []


def test_the_proof_of_memory_is_brought(
    cycle: Callable[..., tuple[LabHostGuest, _Kernels, list[str]]],
) -> None:
    proof = (
        '{"page_bytes":4096,"pages":8,"held":2,"before":"a","after":"b",'
        '"differ":1,"differing":[3],"cost_ns":0}'
    )
    answers = {
        **GOOD,
        "freeze": [*GOOD["freeze"], "digested 101.20"],
        "leave": [*GOOD["leave"], f"proven 4.00 {proof}"],
    }
    guest, kernels, _ = cycle(answers)
    freezing = replace(FREEZING, prove_memory=True)
    guest.freeze("web-0", freezing, _soon())
    _patch(guest).apply(_soon())
    found = guest.resume("web-0", freezing).proof
    assert found is not None
    assert (found.differ, found.differing, found.pages) == (1, (3,), 8)
    assert (found.allowing(3).differ, found.allowing(3).rewritten) == (0, 3)
    assert kernels.orders[0].endswith(" 1")


def test_the_same_boot_before_and_after_is_no_replacement(
    cycle: Callable[..., tuple[LabHostGuest, _Kernels, list[str]]],
) -> None:
    guest, _, _ = cycle(GOOD)
    patch = _patch(guest)
    assert "was not booted again" in patch.verify("Linux 6.1, boot a", "Linux 6.1, boot a")
    assert patch.verify("Linux 6.1, boot a", "Linux 6.1, boot b") == ""
