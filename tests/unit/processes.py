"""Processes of a test, found by an argument that no other process has."""

from __future__ import annotations

import time

import psutil


def alive(marker: str) -> list[int]:
    return [p.pid for p in psutil.process_iter(["cmdline"]) if marker in (p.info["cmdline"] or [])]


def gone(marker: str) -> bool:
    """Killed processes are reaped by init a moment later."""
    for _ in range(100):
        if not alive(marker):
            return True
        time.sleep(0.02)
    return False
