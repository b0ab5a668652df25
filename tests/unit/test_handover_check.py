"""What a guest would lose by a hand-over. Words and lengths are those of real QEMUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.errors import HypervisorError, Refused
from lab.hypervisor import handover_check
from lab.hypervisor.handover_check import Word, features_lost

ECX_1, EBX_7, ECX_EXTENDED = (1, 0, "ECX"), (7, 0, "EBX"), (0x80000001, 0, "ECX")
RDSEED, SHA_NI, CMP_LEGACY = 1 << 18, 1 << 29, 1 << 1

TABLE = """<cpus>
  <feature name='sha-ni'><cpuid eax_in='0x07' ecx_in='0x00' ebx='0x20000000'/></feature>
  <feature name='rdseed'><cpuid eax_in='0x07' ecx_in='0x00' ebx='0x00040000'/></feature>
  <feature name='cmp_legacy'><cpuid eax_in='0x80000001' ecx='0x00000002'/></feature>
  <feature name='arch-capabilities'><msr index='0x10a' eax='0x1'/></feature>
</cpus>
"""


class Process:
    """Answers as a QEMU of a version does, with a CPU and one device."""

    def __init__(
        self, version: str, words: dict[Word, int], queues: tuple[int, ...] = (256, 256, 64)
    ) -> None:
        self.version, self.words, self.queues = version, words, queues
        self.asked: list[str] = []

    def __call__(self, command: str, **arguments: Any) -> Any:
        self.asked.append(command)
        if command == "query-version":
            major, minor, micro = map(int, self.version.split("."))
            return {"qemu": {"major": major, "minor": minor, "micro": micro}}
        if command == "query-cpus-fast":
            return [{"qom-path": "/machine/unattached/device[0]"}]
        if command == "qom-get":
            assert arguments == {"path": "/machine/unattached/device[0]", "property": "feature-words"}
            return [
                {
                    "cpuid-input-eax": leaf,
                    "cpuid-register": register,
                    "features": bits,
                    **({"cpuid-input-ecx": subleaf} if leaf == 7 else {}),
                }
                for (leaf, subleaf, register), bits in self.words.items()
            ]
        if not self.queues:
            raise HypervisorError(f"QMP {command} failed: The command {command} has not been found")
        if command == "x-query-virtio":
            return [{"name": "virtio-net", "path": "/machine/peripheral/labnet0/virtio-backend"}]
        assert command == "x-query-virtio-queue-status"  # the only one about a device that does not end QEMU
        if arguments["queue"] >= len(self.queues):
            raise HypervisorError(f"QMP {command}: Invalid virtqueue number {arguments['queue']}")
        length = self.queues[arguments["queue"]]
        return {"vring-num": length, "vring-num-default": length}


SAME = {ECX_1: 0x80202001, EBX_7: 0x180FA9}


def test_a_cpu_that_loses_features(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """EPYC under TCG, from 10.0.2 to 7.2.22: the same name, another CPU."""
    table = tmp_path / "features.xml"
    table.write_text(TABLE)
    monkeypatch.setattr(handover_check, "names", lambda lost, names=handover_check.names: names(lost, table))
    old = Process("10.0.2", {**SAME, EBX_7: SAME[EBX_7] | RDSEED | SHA_NI, ECX_EXTENDED: CMP_LEGACY})
    with pytest.raises(Refused, match=r"QEMU 7\.2\.22 lacks cmp_legacy, rdseed, sha-ni, which"):
        handover_check.refuse(old, Process("7.2.22", SAME), "web-0")
    handover_check.refuse(Process("7.2.22", SAME), old, "web-0")  # it may gain some


def test_a_cpu_feature_without_a_name_is_shown_as_its_cpuid_bit(tmp_path: Path) -> None:
    assert handover_check.names({EBX_7: RDSEED, (7, 1, "EAX"): 1 << 7}, tmp_path / "nothing") == [
        "CPUID 0x7.0x0 EBX bit 18",
        "CPUID 0x7.0x1 EAX bit 7",
    ]


def test_the_table_of_this_machines_libvirt() -> None:
    if not handover_check.CPU_MAP.exists():
        pytest.skip("libvirt's table is elsewhere")
    assert handover_check.names({EBX_7: RDSEED | SHA_NI}) == ["rdseed", "sha-ni"]


def test_a_word_that_one_of_them_does_not_know() -> None:
    assert features_lost({(0x24, 1, "ECX"): 0}, {}) == {}
    assert features_lost({(0x24, 1, "ECX"): 4}, {}) == {(0x24, 1, "ECX"): 4}
    assert features_lost({}, {(0x24, 1, "ECX"): 4}) == {}


def test_queues_of_a_guest_that_a_stable_release_booted() -> None:
    """10.0.13 to 11.1.3, which says in the freeze: VQ 0 vring.num 1024 exceeds allocated max 256."""
    old, new = Process("10.0.13", SAME, (1024, 1024, 1024)), Process("11.1.3", SAME)
    with pytest.raises(
        Refused, match=r"11\.1\.3 would refuse its virtio-net: a queue has 1024 .* 256"
    ) as told:
        handover_check.refuse(old, new, "web-0")
    assert "boot such a guest again" in told.value.hint


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (Process("10.0.13", SAME, (1024, 1024, 1024)), Process("10.0.2", SAME)),  # takes it
        (Process("7.2.22", SAME), Process("11.1.3", SAME)),
        (Process("11.1.3", SAME), Process("10.0.13", SAME, (1024, 1024, 1024))),
        (Process("10.0.13", SAME, ()), Process("11.1.3", SAME)),  # cannot be asked: QEMU decides
    ],
)
def test_queues_that_find_room(old: Process, new: Process) -> None:
    handover_check.refuse(old, new, "web-0")
