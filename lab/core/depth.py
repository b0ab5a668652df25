"""How deep the lab looks into a guest, and what each depth can bound (docs/measuring.md, "Three depths")."""

from __future__ import annotations

from enum import StrEnum


class Depth(StrEnum):
    """What looks into a guest. AUTO: the first of the others that there is."""

    AUTO = "auto"
    PYTHON = "python"
    SHELL = "shell"
    AGENT = "agent"

    @property
    def bounds(self) -> str:
        """What it can and cannot bound, for the report; "" where it bounds everything."""
        return _BOUNDS.get(self, "")


_BOUNDS = {
    Depth.SHELL: (
        "a shell reads the guest's clocks, to some milliseconds, and samples them every 0.1 s: no gap below "
        "0.3 s is seen; its steadiest clock may be slewed, so lag is bounded to a tenth of the time from the "
        "readings to the freeze, and in regime jumped to a tenth of the pause"
    ),
    Depth.AGENT: (
        "the guest's REALTIME alone is read, by guest-get-time; there is no lag, no gap and no silence, so "
        "the closure and the regime are not decided, and the pause is what QEMU says"
    ),
}
