"""Chooses KVM or TCG by booting a kernel, not by the presence of /dev/kvm.

A /dev/kvm that opens and creates a VM and a vCPU proves nothing: on some hosts (nested, without the CPU
flags) an ordinary Linux guest then hangs for ever (FACTS.md). So the guest's own kernel is booted on KVM
once, with a deadline. The result is stored for this host kernel, CPU and QEMU.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lab.core.units import NS_PER_S
from lab.errors import MachineError
from lab.hypervisor.domain import Accelerator
from lab.process import runner
from lab.process.pace import PACE

KVM_DEVICE = Path("/dev/kvm")
PROOF = "Linux version"
"""The first words that a Linux kernel prints."""

_UNSURE_KERNEL, _SURE_QEMU = (6, 12), (10,)
"""Linux 6.12 and later sometimes fails to boot on the TCG of QEMU 7.2, but not on that of 10.0 and 11.1. For
lab hosts see hangs_lab_hosts()."""

_BOOT_S = 30.0
"""Time limit for a kernel to print PROOF: it takes about 1 s on KVM, 10-20 s nested in an emulated host."""

RESULT = "accelerator.json"
"""The stored result, in the state folder."""

_VERSION_S = 10.0
_MEMORY = "freezelab.accelerator/1"


class AcceleratorRequest(StrEnum):
    """The accelerator that the user requests."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True)
class Choice:
    """The accelerator to use. reason: why, one line. hint: how to get KVM, if known."""

    accelerator: Accelerator
    reason: str
    hint: str = ""


def choose(
    requested: AcceleratorRequest,
    kernel: Path,
    state: Path,
    *,
    emulator: Path | None = None,
    progress: Callable[[str], None] = lambda _text: None,
    device: Path = KVM_DEVICE,
    boot_s: float = _BOOT_S,
) -> Choice:
    """The accelerator for guests. MachineError when KVM is requested but not usable, or QEMU is missing.

    kernel: a bootable Linux image; it is booted only when `state`/accelerator.json has no result for this
    host. boot_s: time limit for the kernel's first line, in seconds.
    """
    if requested is AcceleratorRequest.TCG:
        return Choice(Accelerator.TCG, "requested")
    choice = _without_boot(device)
    if choice is None:
        choice = _with_boot(_emulator(emulator), kernel, state, progress, device, boot_s)
    if requested is AcceleratorRequest.KVM and choice.accelerator is not Accelerator.KVM:
        raise MachineError(
            f"KVM cannot be used: {choice.reason}", hint=choice.hint or "use --accelerator auto or tcg"
        )
    return choice


def take_pace(stored: str) -> None:
    """Scale time limits by the result that choose() has stored on another host, whose guests are used from
    here. stored: the text of its accelerator.json; one without a result changes nothing."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        PACE.measured(float(json.loads(stored)["first_line_s"]))


def take_stored_pace(state: Path) -> None:
    """The same by this host's result in the folder `state`, for a command that chooses no accelerator."""
    with contextlib.suppress(OSError):
        take_pace((state / RESULT).read_text(encoding="utf-8"))


def boots_unsurely(kernel: str, qemu: str) -> str:
    """Why guests with this kernel may not boot on TCG; "" when no reason is known. kernel: from uname -r.
    qemu: QEMU's version. Both begin with numbers and dots."""
    linux, unsure = _numbers(kernel), _unsure(qemu)
    if not unsure or linux < _UNSURE_KERNEL:
        return ""
    return (
        f"Linux {_short(linux)} does not boot every time on the TCG of QEMU {unsure}; "
        "QEMU 10.0 and later boot it"
    )


def hangs_lab_hosts(qemu: str) -> str:
    """Why a lab host may hang on TCG; "" when no reason is known. qemu: QEMU's version, as above.

    Linux patches the scheduler's code when the first guest of KVM comes and the last one goes. On 7.2.22 a
    lab host's CPUs met the breakpoint of such a patch for ever, or panicked at it, after 410 and 1072 such
    times; on 10.0.13 not in 2341 (docs/labhost.md)."""
    unsure = _unsure(qemu)
    return f"on the TCG of QEMU {unsure} lab hosts hang sooner or later" if unsure else ""


def _unsure(qemu: str) -> str:
    """The first two numbers of a version before _SURE_QEMU; "" for a later or an unknown one."""
    version = _numbers(qemu)
    return _short(version) if version and version < _SURE_QEMU else ""


def _short(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version[:2]))


def _numbers(text: str) -> tuple[int, ...]:
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _emulator(given: Path | None) -> Path:
    return Path(given or runner.find("qemu-system-x86_64"))


def _without_boot(device: Path) -> Choice | None:
    """The choice where /dev/kvm is missing or cannot be opened; else None."""
    if not device.exists():
        return Choice(Accelerator.TCG, f"no {device}")
    if not os.access(device, os.R_OK | os.W_OK):
        hint = "join the group kvm (sudo usermod -aG kvm $USER) and log in again"
        return Choice(Accelerator.TCG, f"{device} cannot be opened by this user", hint)
    return None


def _with_boot(
    emulator: Path, kernel: Path, state: Path, progress: Callable[[str], None], device: Path, boot_s: float
) -> Choice:
    memory, key = state / RESULT, _key(emulator, device)
    known = _recall(memory, key)
    if known is None:
        progress(f"testing once whether KVM boots a guest here (at most {boot_s:g} s)")
        known = _Boot(boots(emulator, kernel, "kvm", boot_s))
        _remember(memory, key, known)
    if known.first_line_s is not None:
        PACE.measured(known.first_line_s)
        return Choice(Accelerator.KVM, "KVM boots a guest here")
    return Choice(Accelerator.TCG, "KVM opens here but boots no guest")


@dataclass(frozen=True)
class _Boot:
    """first_line_s: how long a kernel took until its first line; None: it printed none."""

    first_line_s: float | None


def boots(emulator: Path, kernel: Path, accelerator: str, deadline_s: float) -> float | None:
    """The seconds until `kernel` prints its first line on this accelerator; None when it does not within
    `deadline_s` seconds. QEMU has ended when this returns or raises. MachineError when there is no such
    kernel, or QEMU cannot be run."""
    if not kernel.is_file():
        raise MachineError("no such kernel image", where=str(kernel), hint="freezelab image build")
    argv = [
        str(emulator), "-accel", accelerator, "-cpu", "host" if accelerator == "kvm" else "max",
        "-machine", "q35", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", "256",
        "-kernel", str(kernel), "-append", "console=ttyS0 earlyprintk=ttyS0 panic=-1", "-serial", "stdio",
    ]  # fmt: skip
    # Its own session: a Ctrl-C is ours to pass on.
    finished = runner.run(argv, deadline_s, check=False, on_line=lambda line: PROOF in line)
    return finished.took_ns / NS_PER_S if finished.enough else None


def _key(emulator: Path, device: Path) -> dict[str, str]:
    """The facts of the host on which the stored result depends."""
    try:
        version = runner.run([str(emulator), "--version"], _VERSION_S).stdout
    except MachineError as error:
        raise MachineError("does not run", where=str(emulator), hint=str(error)) from error
    uname = platform.uname()
    return {
        "kernel": f"{uname.release} {uname.version}",
        "cpu": _cpu_model(),
        "qemu": version.partition("\n")[0].strip(),
        "device": str(device),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _recall(memory: Path, key: dict[str, str]) -> _Boot | None:
    """The stored result for exactly this key; None when there is none, or the file is damaged."""
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(known, dict) or known.get("schema") != _MEMORY or known.get("key") != key:
        return None
    booted, first_line_s = known.get("kvm_boots"), known.get("first_line_s")
    if booted is False:
        return _Boot(None)
    return _Boot(first_line_s) if booted is True and isinstance(first_line_s, float) else None


def _remember(memory: Path, key: dict[str, str], boot: _Boot) -> None:
    """Store the result atomically. MachineError when the state folder cannot be written."""
    booted = {"kvm_boots": boot.first_line_s is not None, "first_line_s": boot.first_line_s}
    text = json.dumps({"schema": _MEMORY, "key": key, **booted}, indent=2) + "\n"
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=memory.parent, prefix=".accelerator-", delete=False, encoding="utf-8"
        ) as file:
            file.write(text)
        Path(file.name).replace(memory)
    except OSError as error:
        raise MachineError(
            f"cannot be written: {error.strerror}", where=str(memory), hint="set FREEZELAB_HOME elsewhere"
        ) from error
