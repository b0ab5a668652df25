"""`freezelab emulator`: fetch, list, remove."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lab.core.units import format_size
from lab.errors import MachineError
from lab.host import emulators, emulators_fetch
from lab.image.store import default_cache


def fetch(name: str, note: Callable[[str], None]) -> str:
    """Fetch an emulator and say where it is; `note` gets a line for each thing that is done."""
    made = emulators_fetch.fetch(name, default_cache(), note)
    return f"QEMU {made.version} ({made.build}): {made.path}"


def listing() -> Iterator[str]:
    """The system's emulator, then one line for each that was fetched."""
    there = emulators.system()
    if there is None:
        yield "system  not installed"
    else:
        try:
            text = emulators.version(there)
        except MachineError as error:
            text = error.what
        yield f"system  {text}  {there}"
    for one in emulators.listing(default_cache()):
        size = format_size(one.size_bytes >> 20 << 20)
        libraries = ", own libraries" if one.own_libraries else ""
        yield f"{one.name}  {one.version} ({one.build})  {size}{libraries}  {one.fetched}  {one.path}"


def remove(which: str) -> Iterator[str]:
    """Remove emulators and say which."""
    for one in emulators_fetch.remove(which, default_cache()):
        yield f"removed {one.label}"
