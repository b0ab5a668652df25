"""A wheel without the clone runs what the clone runs, on the clone's image."""

from __future__ import annotations

import json
from pathlib import Path

from lab.image.store import ImageStore, default_cache
from lab.session.paths import RECIPES
from tests.guest.conftest import Cli
from tests.unit.installed_wheel import InstalledWheel


def test_an_installed_wheel_freezes_a_guest_of_the_clones_image(cli: Cli, tmp_path: Path) -> None:
    store = ImageStore(RECIPES, default_cache())
    built = [(one.image, one.image.folder.stat().st_ino) for one in store.listing()]
    assert any(image.name == "debian" for image, _ in built)
    wheel = InstalledWheel(tmp_path)
    done = wheel.freezelab("run", "first-freeze", "--json", environment=cli.environment, timeout_s=240)
    assert done.returncode in (0, 3), done.stderr  # 3: this machine is busy
    run = json.loads(done.stdout)
    [guest] = run["guests"]
    [cycle] = guest["cycles"]
    assert cycle["pause"]["low_ns"] > 4_900_000_000
    assert [(one.image, one.image.folder.stat().st_ino) for one in store.listing()] == built
    assert cli.left() == []
