"""Time limits for guests, scaled to how fast this host runs them.

The limits are written for usual hosts. Where KVM itself is emulated, as in a lab host, guests are many times
slower. So the first boot on a host, by which the accelerator is chosen, is measured, and the limits are
multiplied by how much longer it took than usual. The limits that a playbook sets, its budget above all, and
the times for which a run measures are left as they are. What of a budget is kept for the resume is scaled.
"""

from __future__ import annotations

USUAL_S = 0.3
"""The usual time from the start of QEMU on KVM until a Linux kernel prints its first line. It took 0.8 to
2.8 s in emulated lab hosts."""

MOST = 30.0


class Pace:
    """How many times slower than usual this host runs guests, at least 1, at most MOST."""

    factor = 1.0

    def measured(self, first_line_s: float) -> None:
        """first_line_s: the measured time until a kernel's first line."""
        self.factor = min(max(1.0, first_line_s / USUAL_S), MOST)


PACE = Pace()
"""This host's."""


def paced(limit_s: float) -> float:
    """A time limit for this host, from that for a usual one."""
    return limit_s * PACE.factor
