"""What an imported image has of what the lab uses, and what does not work in its guests without it."""

from __future__ import annotations

from collections.abc import Iterator

from lab.core.clock import GuestClock
from lab.core.depth import Depth, ProbeLimits, bounds
from lab.core.mechanism import Means, ResyncMechanism
from lab.image.store import Image

_NEEDS = {
    Means.AGENT_TIME: ("agent",),
    Means.AGENT_SECONDS: ("agent",),
    Means.AGENT_RTC: ("agent",),
    Means.HWCLOCK: ("hwclock",),
    Means.PUSH: ("python3",),
    Means.CHRONYD: ("chrony",),
    Means.VMCLOCK: ("chrony", "python3"),
    Means.TIMESYNCD: ("systemd", "timesyncd"),
    Means.TIMESYNCD_RESYNC: ("systemd", "timesyncd", "python3"),
    Means.NTPD: ("systemd", "ntpd"),
}
"""What a mechanism needs in the guest, by the survey's names."""

_OTHER = {
    "python3": "golden starts, effects, load, fill, the guest's own claims, a gap below 0.3 s",
    "systemd": "golden starts, handlers of announce, services of setup",
}


def lacking(image: Image, mechanism: ResyncMechanism) -> str:
    """What the image is known to lack of what a mechanism needs; "" for nothing."""
    needs = _NEEDS.get(mechanism.means, ()) if image.survey else ()
    return next((what for what in needs if what not in image.survey), "")


def _limits(image: Image) -> ProbeLimits:
    found = image.survey
    return ProbeLimits(
        int(found.get("shell resolution_ns", 1)),
        found.get("shell steady", GuestClock.MONO),
        int(found.get("shell period_ns", 0)),
    )


def _rows(image: Image) -> Iterator[str]:
    """A line for each thing that was looked for in a guest: where it is, or what does not work without it."""
    for what in ("python3", "systemd", "agent", "chrony", "timesyncd", "ntpd", "hwclock"):
        without = [_OTHER[what]] if what in _OTHER else []
        without += [str(one) for one in ResyncMechanism if what in _NEEDS.get(one.means, ())]
        shown = image.survey.get(what) or f"no, so without: {', '.join(without)}"
        yield f"  {what:<10} {shown}"


def summary(image: Image) -> Iterator[str]:
    """What was imported, and what looks into its guests, in lines."""
    yield f"{image.label}: {image.folder}"
    found, depth = image.survey, image.depth
    if not found:
        yield "no guest of it was booted: --no-try"
    else:
        yield f"{found.get('system', 'an unknown system')}, kernel {found.get('kernel', '?')}"
        if depth is not Depth.AGENT:
            yield from _rows(image)
    if text := bounds(depth, _limits(image)):
        yield f"its guests are looked into by {depth}: {text}"
    if found and (why := image.not_golden):
        yield f"its guests are always booted: {why}"
