"""Refuses hand-overs in which a guest would lose something. It queries both QEMU processes before the freeze.

CPU features. A device state does not contain CPUID, and a CPU model's name promises little: QEMU leaves out
features that its accelerator lacks, with a warning, and both sides report the hand-over as completed. A
program that has found SHA-NI at its start then crashes at its next use. So the feature words of both
processes are compared (QOM property feature-words of the first CPU).

Virtio queues. From 11.1 on, QEMU refuses a queue that is longer than its own. Earlier stable releases give
every queue 1024 entries, whatever the device's properties say (10.0.13: hw/virtio/virtio.c, virtio_add_queue,
"Always set to max queue size for qemu <11.1"). So a guest that was booted under 10.0.13 cannot move to 11.1,
where most of those lengths cannot be set. Older versions accept a longer queue; their additional data is used
only with packed or in-order rings, which the lab's devices do not offer.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

from lab.errors import HypervisorError, Refused
from lab.hypervisor.migration import Ask

Word = tuple[int, int, str]
"""A feature word's place in CPUID: leaf, subleaf, register."""

CPU_MAP = Path("/usr/share/libvirt/cpu_map/x86_features.xml")
"""libvirt's table of feature names."""

_CHECKS_QUEUES = (11, 1)
_STABLE_LENGTH = 1024
_BOOT_AGAIN = (
    "stable releases of QEMU before 11.1 (10.0.13) boot guests with queues of 1024 "
    "entries; boot such a guest again under the other emulator"
)


def refuse(old: Ask, new: Ask, guest: str) -> None:
    """Refused when the guest would lose CPU features, or the new process would refuse one of its queues. old,
    new: run a QMP command in the guest's process and in the one that waits for its state; both raise
    HypervisorError when QEMU refuses a command."""
    lost = features_lost(words(old), words(new))
    version = _version(new)
    named = f"QEMU {'.'.join(map(str, version))}"
    if lost:
        raise Refused(
            f"{named} lacks {', '.join(names(lost))}, which the guest's CPU has now",
            where=guest,
            hint="programs that use these features would crash; choose an emulator that presents them",
        )
    if version[:2] >= _CHECKS_QUEUES and (longer := _first_longer(old, new)):
        device, had, has = longer
        raise Refused(
            f"{named} would refuse its {device}: a queue has {had} entries, the limit there is {has}",
            where=guest,
            hint=_BOOT_AGAIN if had == _STABLE_LENGTH else "",
        )


def _version(ask: Ask) -> tuple[int, int, int]:
    version = ask("query-version")["qemu"]
    return int(version["major"]), int(version["minor"]), int(version["micro"])


# -- CPU features --------------------------------------------------------------------------------------


def words(ask: Ask) -> dict[Word, int]:
    """The feature words of a process's first CPU; all of its CPUs are alike."""
    cpu = ask("query-cpus-fast")[0]["qom-path"]
    return {
        (word["cpuid-input-eax"], word.get("cpuid-input-ecx", 0), word["cpuid-register"]): word["features"]
        for word in ask("qom-get", path=cpu, property="feature-words")
    }


def features_lost(old: Mapping[Word, int], new: Mapping[Word, int]) -> dict[Word, int]:
    """The bits that are set in `old` but not in `new`. A word that a version does not know counts as zero."""
    lost = {word: bits & ~new.get(word, 0) for word, bits in old.items()}
    return {word: bits for word, bits in lost.items() if bits}


def names(lost: Mapping[Word, int], table: Path = CPU_MAP) -> list[str]:
    """The names of feature bits in alphabetical order. Bits without a name are given by their place in
    CPUID."""
    known = {(word, bits): name for name, word, bits in _table(table)}
    found = []
    for word, bits in lost.items():
        for bit in (1 << place for place in range(32)):
            if bits & bit:
                leaf, subleaf, register = word
                place = bit.bit_length() - 1
                plain = f"CPUID {leaf:#x}.{subleaf:#x} {register} bit {place}"
                found.append(known.get((word, bit), plain))
    return sorted(found)


def _table(path: Path) -> Iterator[tuple[str, Word, int]]:
    try:
        root = ET.parse(path).getroot()  # noqa: S314 - libvirt's own file
    except (OSError, ET.ParseError):
        return
    for feature in root.iter("feature"):
        for place in feature.iter("cpuid"):
            leaf, subleaf = int(place.get("eax_in", "0"), 16), int(place.get("ecx_in", "0"), 16)
            for register in ("eax", "ebx", "ecx", "edx"):
                if register in place.attrib:
                    bits = int(place.attrib[register], 16)
                    yield feature.get("name", ""), (leaf, subleaf, register.upper()), bits


# -- virtio queues -------------------------------------------------------------------------------------


def _first_longer(old: Ask, new: Ask) -> tuple[str, int, int] | None:
    """A device with a queue that is longer than the new process allows: its name and both lengths; else
    None."""
    with contextlib.suppress(HypervisorError):  # not every build has these commands (7.2: x-query-virtio)
        for device in old("x-query-virtio"):
            for index, had in enumerate(_lengths(old, device["path"])):
                status = new("x-query-virtio-queue-status", path=device["path"], queue=index)
                if had > status["vring-num-default"]:
                    return str(device["name"]), had, int(status["vring-num-default"])
    return None


def _lengths(ask: Ask, path: str) -> Iterator[int]:
    """The lengths of a device's queues. Their number is not asked for: about some devices, the query that
    has it ends QEMU 7.2.22 and 11.1.3 by an assertion, with the guest in it."""
    for index in itertools.count():
        try:
            yield int(ask("x-query-virtio-queue-status", path=path, queue=index)["vring-num"])
        except HypervisorError:  # there is no such queue
            return
