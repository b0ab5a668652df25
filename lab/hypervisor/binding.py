"""The only import of libvirt-python, without its output on stderr, and the mapping of its errors.

The bindings have no types, and some of their annotations are wrong (FACTS.md). So both modules are `Any`, and
their values are converted where they are used.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lab.errors import HypervisorError
from lab.process.requirements import advice, how_to_build


def _load() -> tuple[Any, Any]:
    # libvirt reads these once, when it is loaded. Its errors arrive as exceptions. Without the first variable
    # it also prints them, and the embedded driver's warnings, on stderr. The second variable does the same
    # for processes that libvirt forks, which do not keep the first. Set them to see libvirt's log.
    quiet = {"LIBVIRT_LOG_OUTPUTS": "4:file:/dev/null", "LIBVIRT_DEBUG": "4"}
    added = {name: value for name, value in quiet.items() if name not in os.environ}
    os.environ.update(added)
    try:
        library, qemu = importlib.import_module("libvirt"), importlib.import_module("libvirt_qemu")
    except ModuleNotFoundError as error:
        raise HypervisorError("libvirt-python is not installed", hint=how_to_build()) from error
    except ImportError as error:
        raise HypervisorError(f"libvirt-python cannot be loaded: {error}", hint=advice()) from error
    finally:
        for name in added:
            os.environ.pop(name, None)
    library.registerErrorHandler(_ignore, None)
    return library, qemu


def _ignore(context: object, error: object) -> None:
    """Replaces libvirt's default handler, which prints errors that are also raised as exceptions."""


libvirt, libvirt_qemu = _load()

_HINTS = {
    libvirt.VIR_ERR_NO_CONNECT: "known forms: qemu:///system, qemu:///session; none for the embedded driver",
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE: "is qemu-guest-agent installed and running in the guest?",
    libvirt.VIR_ERR_AUTH_FAILED: "are you allowed to use it? (group libvirt, or run as root)",
    libvirt.VIR_ERR_AUTH_CANCELLED: "are you allowed to use it? (group libvirt, or run as root)",
    libvirt.VIR_ERR_AUTH_UNAVAILABLE: "are you allowed to use it? (group libvirt, or run as root)",
}


_TOO_OFTEN = "Too many drivers"
_OFTEN = "a process can open libvirt's embedded driver only some sixteen times: start a new process"
"""Each open uses a slot in the process's table of drivers, and close does not free it (libvirt 9.0 and 11.3;
findings/libvirt-embed-opens.sh)."""

_CHILD = re.compile(r"Child process \((?:\w+=\S* )*(?:\S*/)?([^/ ]+)(?: .*)?\)(?= )")
"""libvirt's error for a failed program quotes its whole environment and command line, some 7,000 characters
for QEMU (libvirt, src/util/vircommand.c, virCommandWait)."""


def as_hypervisor_error(error: Exception, what: str, where: str = "") -> HypervisorError:
    """A libvirtError as a HypervisorError: `what` failed, libvirt's message, and a hint where one is
    known."""
    message = (
        " ".join((error.get_error_message() or "").split()) if hasattr(error, "get_error_message") else ""
    )
    message = _CHILD.sub(r"\1", message)
    code = error.get_error_code() if hasattr(error, "get_error_code") else None
    hint = _OFTEN if _TOO_OFTEN in message else _HINTS.get(code, "")
    return HypervisorError(f"{what}: {message or error}", where=where, hint=hint)


def is_code(error: Exception, *codes: str) -> bool:
    """Whether a libvirtError has one of these codes, given as names such as "VIR_ERR_NO_DOMAIN"."""
    return error.get_error_code() in {getattr(libvirt, code) for code in codes}  # type: ignore[attr-defined]


@contextmanager
def mapped(what: str, where: str = "") -> Iterator[None]:
    """A context that turns a libvirtError into a HypervisorError with the message that `what` failed."""
    try:
        yield
    except libvirt.libvirtError as error:
        raise as_hypervisor_error(error, what, where) from error
