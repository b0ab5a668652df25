"""What this machine is and has, for `doctor --json` and `hosts check`."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from lab import __version__
from lab.core.history import SCHEMA
from lab.core.machine_check import MachineCheck
from lab.errors import FreezelabError, RecordError
from lab.host import emulators
from lab.host import facts as host_facts
from lab.record.hosts_check import CalibrationState, CheckResult, MachineReport
from lab.session import calibration
from lab.session.paths import home_path

_LAB = Path(__file__).resolve().parents[1]


def look(checks: Sequence[MachineCheck] = ()) -> MachineReport:
    """This machine now. checks: what `doctor` found. Raises nothing: what is not there is ""."""
    facts = host_facts.look()
    return MachineReport(
        freezelab=__version__,
        code=code(),
        python=platform.python_version(),
        kernel=facts.kernel,
        cpu=facts.cpu,
        cpus=facts.cpus,
        memory_bytes=facts.memory_bytes,
        load=facts.load,
        qemu=_qemu(),
        libvirt=_libvirt(),
        machine=host_facts.machine_id(),
        boot=host_facts.boot_id(),
        calibration=_calibration(),
        checks=tuple(CheckResult(check.name, check.ok, check.result, check.fix) for check in checks),
    )


def identity() -> dict[str, str]:
    """What has to be the same on hosts of one run, and `machine` and `boot`, which have not: see look()."""
    return {
        "freezelab": f"{__version__} ({code()[:8]})",
        "the record": SCHEMA,
        "machine": host_facts.machine_id(),
        "boot": host_facts.boot_id(),
    }


@cache
def code() -> str:
    """A digest of freezelab's own files: two clones of one version may differ."""
    digest = hashlib.sha256()
    for path in sorted(_LAB.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(_LAB)} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _qemu() -> str:
    try:
        emulator = emulators.system()
        return emulators.version(emulator).split()[0] if emulator is not None else ""
    except FreezelabError:
        return ""


def _libvirt() -> str:
    try:
        from lab.hypervisor.binding import libvirt  # which may be missing
        from lab.hypervisor.facts import dotted

        return dotted(libvirt.getVersion())
    except FreezelabError:
        return ""


def _calibration() -> CalibrationState | None:
    try:
        saved = calibration.load(home_path())
    except RecordError:
        return None
    if saved is None:
        return None
    stale = calibration.stale(saved, calibration.machine_now(saved))
    return CalibrationState(saved.made, int(saved.figures["all"]["count"]), stale, saved.rough)
