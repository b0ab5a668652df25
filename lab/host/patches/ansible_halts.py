"""Which Ansible tasks reboot or shut down the machine on which they run.

The callback plugin loads this file by its path in ansible-playbook's Python (3.9 or newer), so it imports
nothing from the lab.
"""

from __future__ import annotations

import re
from typing import Any

LOCAL = ("localhost", "127.0.0.1", "::1")

_MODULES = ("reboot", "shutdown")
_PROGRAMS = ("command", "shell", "raw", "script")
_SERVICES = ("systemd", "systemd_service", "service")
_TARGETS = re.compile(r"(reboot|poweroff|halt|kexec|shutdown|suspend|hibernate|sleep)(\.target)?")
_WORD = r"(?:/[\w/.-]*/)?"
_COMMAND = re.compile(
    rf"(?:^|[;&|(\n]|\bsudo(?:\s+-\S+)*\s)\s*{_WORD}"
    r"(?P<what>reboot|poweroff|halt|shutdown|(?:tel)?init\s+[06]|kexec\s+-e"
    r"|systemctl(?:\s+-\S+)*\s+(?:reboot|poweroff|halt|kexec|suspend|hibernate|isolate\s+(?:reboot|poweroff)))"
    r"(?=$|[\s;&|)])(?!\s+(?:-c\b|--help\b))"
)


def halts(action: str, arguments: Any) -> str:
    """How a task reboots or shuts down its machine, or "" when it does not. action: the module, with or
    without its collection. arguments: a mapping, or the text after the module's name."""
    name = action.rsplit(".", 1)[-1]
    if name in _MODULES:
        return name
    given = arguments if isinstance(arguments, dict) else {"_raw_params": arguments}
    if name in _PROGRAMS:
        found = _COMMAND.search(_text(given))
        return " ".join(found["what"].split()) if found else ""
    if name in _SERVICES and given.get("state") in ("started", "restarted"):
        unit = str(given.get("name") or given.get("unit") or "")
        return unit if _TARGETS.fullmatch(unit) else ""
    return ""


def _text(given: dict[str, Any]) -> str:
    argv = given.get("argv")
    if isinstance(argv, (list, tuple)):
        return " ".join(map(str, argv))
    return str(given.get("_raw_params") or given.get("cmd") or "").strip()
