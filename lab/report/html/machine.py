"""The machine that measured, and how exact it was when it was calibrated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.core.quantities import format_seconds
from lab.record.model import Run
from lab.report.accuracy import show_accuracy
from lab.report.header import show_parts
from lab.report.page import Page


def show_machine(page: Page, run: Run) -> None:
    """Print the host, its load before and after the run, those of a merged record's parts, and the last
    calibration."""
    host, before = run.host, run.host.details
    after = before.get("after")
    reason = f" ({host.accelerator_reason})" if host.accelerator_reason else ""
    cpus = before.get("cpus")
    facts = {
        "accelerator": f"{host.accelerator}{reason}" if host.accelerator else "",
        "QEMU": host.qemu,
        "libvirt": host.libvirt,
        "Linux": host.kernel,
        "CPU": " ".join(filter(None, [f"{cpus} ×" if isinstance(cpus, int) else "", host.cpu])),
        "governor": _text(before, "governor"),
        "memory": _gib(host.memory_bytes) if host.memory_bytes else "",
        "load": _change(before, after, "load", lambda value: f"{value:.1f}"),
        "free memory": _change(before, after, "memory_free_bytes", _gib),
        "stolen time": _change(before, after, "steal_s", lambda value: format_seconds(round(value * 1e9), 1)),
    }
    for label, text in facts.items():
        if text:
            page.labelled(label, text)
    show_parts(page, run)
    show_accuracy(page, run)


def _gib(size: float) -> str:
    return f"{size / (1 << 30):.1f} GiB"


def _text(details: Mapping[str, Any], name: str) -> str:
    value = details.get(name)
    return value if isinstance(value, str) and value != "none" else ""


def _change(before: Mapping[str, Any], after: object, name: str, text: Any) -> str:
    """ "0.4, afterwards 2.1"; "" when it is not known."""
    first = before.get(name)
    if not isinstance(first, int | float) or isinstance(first, bool):
        return ""
    shown = str(text(first))
    last = after.get(name) if isinstance(after, Mapping) else None
    if isinstance(last, int | float) and text(last) != shown:
        shown += f", afterwards {text(last)}"
    return shown
