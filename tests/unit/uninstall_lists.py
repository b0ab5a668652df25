"""The lists of names that `./freezelab uninstall` removes."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def names_removed(name: str) -> set[str]:
    """The names of uninstall's list `state_names` or `cache_names`."""
    text = (ROOT / "lab/cli/uninstall.sh").read_text(encoding="utf-8")
    (names,) = re.findall(rf'^{name}="([^"]*)"$', text, re.MULTILINE)
    return set(names.split())
