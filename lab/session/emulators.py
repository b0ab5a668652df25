"""`freezelab emulator`: fetch, list, remove."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from lab.core.patch import SYSTEM
from lab.core.units import format_size
from lab.errors import MachineError
from lab.host import emulators, emulators_fetch
from lab.image.store import default_cache


def fetch(name: str, note: Callable[[str], None]) -> str:
    """Fetch an emulator; the result is its path in a sentence. `note` gets a line for each step."""
    made = emulators_fetch.fetch(name, default_cache(), note)
    return f"QEMU {made.version} ({made.build}): {made.path}"


def find_emulator(name: str, own: Path, progress: Callable[[str], None]) -> Path:
    """The emulator that a playbook names: SYSTEM, which is `own`, a path, or that of a suite, fetched if it
    has to be. MachineError when there is none."""
    if name == SYSTEM:
        return own
    cache = default_cache()
    if "/" in name or any(one.is_called(name) for one in emulators.listing(cache)):
        return emulators.find(name, cache)
    return emulators_fetch.fetch(name, cache, progress).path


HEADS = ("emulator", "version", "size", "fetched", "path")


def listing() -> Iterator[tuple[str, ...]]:
    """A row for the system's emulator, then one for each fetched one, with the columns HEADS."""
    there = emulators.system()
    if there is None:
        yield "system", "not installed", "", "", ""
    else:
        try:
            text = emulators.version(there)
        except MachineError as error:
            text = error.what
        yield "system", text, "", "", str(there)
    for one in emulators.listing(default_cache()):
        size = format_size(one.size_bytes >> 20 << 20)
        yield one.name, f"{one.version} ({one.build})", size, one.fetched[:10], str(one.path)


def remove(which: str) -> Iterator[str]:
    """Remove emulators; a line for each."""
    for one in emulators_fetch.remove(which, default_cache()):
        yield f"removed {one.label}"
