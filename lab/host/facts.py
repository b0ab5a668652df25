"""What the host is and how busy it is, for the record: load, steal and frequency policy decide how far the
noise of a measurement can be trusted."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import psutil

_CPUFREQ = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


@dataclass(frozen=True)
class HostFacts:
    """One look at the host.

    load: run queue length averaged over one minute. steal_s: CPU time since boot, all CPUs, that another
    hypervisor above this host took away; a run reports the difference of two looks.
    governor: cpufreq's policy of CPU 0, "none" where the kernel has no say in it.
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
    """The facts now. Raises nothing: what cannot be read is "" or 0."""
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


def _cpu_model() -> str:
    lines = _read(Path("/proc/cpuinfo")).splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
