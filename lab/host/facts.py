"""The host's hardware, kernel and load, for the record. Load, steal time and frequency governor affect the
noise of a measurement."""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import psutil

_MACHINE_ID = Path("/etc/machine-id")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_CPUFREQ = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


@dataclass(frozen=True)
class HostFacts:
    """The host's facts at one time.

    load: the load average over one minute (getloadavg(3)). steal_s: seconds since boot, over all CPUs, that
    the hypervisor below this host took away (proc(5), stat); a run reports the difference of two values.
    governor: the cpufreq governor of CPU 0; "none" without cpufreq.
    """

    kernel: str
    cpu: str
    cpus: int
    memory_bytes: int
    memory_free_bytes: int
    load: float
    steal_s: float
    governor: str


def look() -> HostFacts:
    """The facts now. Raises nothing: values that cannot be read are "" or 0."""
    memory = psutil.virtual_memory()
    return HostFacts(
        kernel=platform.release(),
        cpu=_cpu_model(),
        cpus=os.cpu_count() or 0,
        memory_bytes=int(memory.total),
        memory_free_bytes=int(memory.available),
        load=os.getloadavg()[0],
        steal_s=float(getattr(psutil.cpu_times(), "steal", 0.0)),
        governor=_read(_CPUFREQ).strip() or "none",
    )


def machine_id() -> str:
    """A digest of the machine's id, which must not leave the machine itself (machine-id(5))."""
    return _digest(_MACHINE_ID)


def boot_id() -> str:
    """A digest of the running kernel's boot id (random(4)). Containers of one machine have the same."""
    return _digest(_BOOT_ID)


def _digest(path: Path) -> str:
    return hashlib.sha256(f"freezelab {_read(path).strip()}".encode()).hexdigest()[:16]


def _cpu_model() -> str:
    lines = _read(Path("/proc/cpuinfo")).splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
