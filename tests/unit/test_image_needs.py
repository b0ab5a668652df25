"""What an imported image lacks for the guests and cells that are to have it is said before they start."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.core.clock import GuestClock
from lab.core.depth import ProbeLimits, bounds
from lab.core.mechanism import ResyncMechanism
from lab.core.method import FreezeMethod
from lab.core.patch import HoldPatch
from lab.core.plan import Cell, CycleSpec, Depth, Expectations, GuestSpec
from lab.core.units import NS_PER_S
from lab.errors import Refused, UsageError
from lab.image.store import ImageStore
from lab.session import paths
from lab.session.image_import import probe_request
from lab.session.image_survey import summary
from lab.session.images import check_cell, check_image
from tests.unit.imported_disks import take

pytest_plugins = ["tests.unit.imported_disks"]
pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")


def guest(**values: Any) -> GuestSpec:
    return GuestSpec("web-0", image="mine", **values)


def test_what_its_guests_lack_is_said_before_they_start(cache: Path, bios: Path) -> None:
    image = take(bios)
    check_image(guest(), image)
    assert "--no-try" in image.not_golden
    assert list(summary(image))[1:] == ["no guest of it was booted: --no-try"]
    assert image.depth is Depth.AUTO
    with pytest.raises(UsageError, match="boots by its own boot loader") as caught:
        check_image(guest(kernel_options=("quiet",)), image)
    assert caught.value.where == "guest web-0"
    manifest = image.folder / "image.json"
    known = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**known, "guest": {"system": "Tiny 1", "sshd": "/usr/sbin/sshd"}}))
    tiny = ImageStore(paths.RECIPES, cache).find("mine")
    assert tiny is not None
    check_image(guest(), tiny)
    assert not tiny.has_agent
    assert tiny.not_golden == "its image has no python3"
    assert tiny.depth is Depth.SHELL
    said = "\n".join(summary(tiny))
    assert "agent      no, so without: agent, agent-rtc, domtime-now" in said
    assert (
        f"its guests are looked into by shell: {bounds(Depth.SHELL, ProbeLimits(steady=GuestClock.MONO))}"
        in said
    )
    assert "its guests are always booted: its image has no python3" in said


def cell(spec: GuestSpec, resync: ResyncMechanism, **cycle: Any) -> Cell:
    held = CycleSpec(FreezeMethod.SUSPEND, HoldPatch(NS_PER_S), **cycle)
    return Cell("", (), (spec,), resync, held, Expectations())


SHELL_ALONE = {"system": "Tiny 1", "sshd": "/usr/sbin/sshd", "chrony": "/usr/sbin/chronyd", "agent": "yes"}


@pytest.mark.parametrize(
    ("resync", "what", "why"),
    [
        ("none", {}, ""),
        ("chrony", {}, ""),
        ("agent", {}, ""),
        ("push", {}, "is looked into by a shell, and push needs python3"),
        ("hwclock", {}, "hwclock needs hwclock, which image mine does not have"),
        ("timesyncd", {}, "timesyncd needs systemd, which image mine does not have"),
        ("none", {"effects": True}, "is looked into by a shell, and effects needs python3"),
        ("none", {"load": 0.5}, "is looked into by a shell, and load needs python3"),
    ],
)
def test_what_a_cell_needs_and_its_image_lacks_is_said_before_the_guests_start(
    cache: Path, bios: Path, resync: str, what: dict[str, Any], why: str
) -> None:
    image = replace(take(bios), info={"guest": SHELL_ALONE})
    mechanism = ResyncMechanism(resync)
    if not why:
        check_cell(cell(guest(), mechanism, **what), guest(), image)
        return
    with pytest.raises(Refused) as caught:
        check_cell(cell(guest(), mechanism, **what), guest(), image)
    assert (caught.value.where, caught.value.what) == ("guest web-0", why)


def test_guests_without_ssh_have_the_agents_mechanisms_alone(cache: Path, bios: Path) -> None:
    image = take(bios, probe=Depth.AGENT)
    assert image.depth is Depth.AGENT
    assert image.digest != take(bios).digest
    check_cell(cell(guest(), ResyncMechanism.AGENT), guest(), image)
    for mechanism in (ResyncMechanism.AGENT_RTC, ResyncMechanism.CHRONY, ResyncMechanism.HWCLOCK):
        with pytest.raises(Refused, match=f"by its agent alone, and {mechanism} needs SSH"):
            check_cell(cell(guest(), mechanism), guest(), image)
    with pytest.raises(UsageError, match="unknown: 'shell'"):
        probe_request("shell")
