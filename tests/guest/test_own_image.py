"""A real guest of an image that extends the shipped one."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.core.plan import GuestSpec
from tests.guest.conftest import running_lab


@pytest.mark.timeout(1200)  # the image is built, if it is not cached, and a golden guest made of it
def test_guests_of_an_image_of_ones_own_start_with_its_services_up(home: Path) -> None:
    image = Path(__file__).resolve().parents[2] / "examples/service/debian-redis"
    with running_lab(home, GuestSpec("web-0", image=str(image))) as own:
        assert '"started":"golden"' in (own.folder / "events.jsonl").read_text()
        assert own.probe.ssh.check("systemctl is-active redis-server; redis-cli ping") == "active\nPONG\n"
