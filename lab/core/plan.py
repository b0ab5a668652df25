"""What a run will do, as plain values: the playbook's meaning once every default is filled in.

Times in nanoseconds, sizes in bytes. Nothing here knows YAML, libvirt or a guest.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lab.core.mechanism import ResyncMechanism as ResyncMechanism
from lab.core.method import FreezeMethod as FreezeMethod
from lab.core.method import Regime as Regime
from lab.core.patch import CommandPatch as CommandPatch
from lab.core.patch import HoldPatch as HoldPatch
from lab.core.patch import Patch as Patch
from lab.core.units import NS_PER_MS, NS_PER_S


class RtcTrack(StrEnum):
    """What the guest's emulated RTC follows (libvirt, formatdomain: timer track)."""

    WALL = "wall"  # the host's clock: it goes on through a pause
    GUEST = "guest"  # the guest's own: it stops with the guest


@dataclass(frozen=True)
class GuestSpec:
    """One guest to start.

    fill: share of its memory that is filled with incompressible pages before the first cycle, 0 to 0.9.
    bridge: an existing bridge of the host that it is attached to by a tap; "": QEMU's user-mode network.
    address: on that bridge, with prefix length ("" on the user-mode network).
    huge_pages: its RAM in huge pages of the host.
    rtc: what its RTC follows.
    kernel_options: words added to its kernel's command line.
    """

    name: str
    image: str = "debian"
    vcpus: int = 1
    memory_bytes: int = 512 << 20
    fault_domain: int = 0
    update_domain: int = 0
    fill: float = 0.0
    bridge: str = ""
    address: str = ""
    huge_pages: bool = False
    rtc: RtcTrack = RtcTrack.WALL
    kernel_options: tuple[str, ...] = ()


@dataclass(frozen=True)
class CycleSpec:
    """One settle / measure / freeze / patch / resume / watch cycle.

    settle_ns: quiet time before the first reading.
    before_ns: how long offset and drift are measured before the freeze.
    budget_ns: from the suspend call to the resume, kept whatever the patch does.
    watch_ns: how long the guest is watched from the resume on.
    prove_memory: digests of the guest's RAM, page by page, when it stands still and before it goes on.
    save_to: the folder that save-restore writes to; "": the run's own.
    effects: the guest is watched for what a pause does besides the clock: late timers, clocks that go
        backward between vCPUs, its RTC. It costs the guest some of its time.
    load: share of each vCPU that busy programs in the guest take during the cycle, 0 to 1.
    """

    method: FreezeMethod
    patch: Patch
    settle_ns: int = 1 * NS_PER_S
    before_ns: int = 4 * NS_PER_S
    budget_ns: int = 30 * NS_PER_S
    watch_ns: int = 8 * NS_PER_S
    prove_memory: bool = False
    save_to: str = ""
    effects: bool = False
    load: float = 0.0


@dataclass(frozen=True)
class Expectations:
    """What a run must show to pass; None asks nothing.

    Always expected, whatever is written: cycles close, the budget is kept, the patch succeeds,
    the guest is the same boot.

    in_time_within_ns: from the resume to the first instant from which |offset| stays within
        tolerance_ns for hold_ns.
    final_offset_ns: largest |offset| at the end of the watch.
    drift_ppm: largest |drift| after the resync.
    clean_kernel_log: no soft lockup, RCU stall or unstable clocksource in the guest's kernel log.
    as_predicted: the clock is repaired, or not, as the mechanism's rules forecast. What was not watched for
        long enough to tell has not passed.
    """

    regime: Regime | None = None
    pause_at_least_ns: int | None = None
    pause_at_most_ns: int | None = None
    in_time_within_ns: int | None = None
    tolerance_ns: int = 100 * NS_PER_MS
    hold_ns: int = 2 * NS_PER_S
    final_offset_ns: int | None = None
    drift_ppm: float | None = None
    clean_kernel_log: bool = True
    as_predicted: bool = False


@dataclass(frozen=True)
class Cell:
    """One point of a matrix: what is run there.

    id: derived from the values, unique in the plan, "" for a plan without a matrix.
    values: (axis, value as written), in the order of the matrix's axes.
    """

    id: str
    values: tuple[tuple[str, str], ...]
    guests: tuple[GuestSpec, ...]
    resync: ResyncMechanism
    cycle: CycleSpec
    expectations: Expectations
    repeat: int = 1
    control: int = 0


@dataclass(frozen=True)
class LeftOut:
    """A combination of a matrix that is not run: (axis, value as written), and why not."""

    values: tuple[tuple[str, str], ...]
    why: str


@dataclass(frozen=True)
class Plan:
    """A whole run.

    digest: sha256 of the playbook's bytes, hexadecimal.
    repeat: cycles with a freeze. control: cycles without one, run before them.
    cells: the matrix's cells, in order; () without a matrix. Then the other members are the only cell;
        with a matrix they are the first one's.
    left_out: the matrix's combinations that are not run.
    side_by_side: how many cells that differ in nothing but their resync are run at the same time, each with
        guests of its own.
    ntp_offset_ns: how far off the time is that the host's NTP server serves, on purpose.
    """

    name: str
    about: str
    digest: str
    guests: tuple[GuestSpec, ...]
    resync: ResyncMechanism
    cycle: CycleSpec
    expectations: Expectations
    repeat: int = 1
    control: int = 0
    cells: tuple[Cell, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    side_by_side: int = 1
    ntp_offset_ns: int = 0

    @property
    def parts(self) -> tuple[Cell, ...]:
        """What is run, one after another: the cells, or the plan itself as the only one."""
        return self.cells or (
            Cell(
                "",
                (),
                self.guests,
                self.resync,
                self.cycle,
                self.expectations,
                self.repeat,
                self.control,
            ),
        )
