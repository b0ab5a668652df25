"""Shells in which programs for guests without Python are tried."""

from __future__ import annotations

import os
import shutil

import pytest

NOBODY = 65534
SHELLS = [["dash"], ["bash"], ["busybox", "sh"], ["mksh"], ["ksh93"]]
"""mksh and ksh93 stand for the ksh of OpenBSD and of others, busybox and dash for FreeBSD's sh."""


def needed(name: str) -> str:
    """The path of a program of the tests' own (`./freezelab test` installs them)."""
    found = shutil.which(name)
    if found is None:
        if os.environ.get("CI") == "true" or os.environ.get("FREEZELAB_REQUIRE") == "1":
            pytest.fail(f"{name} is not installed, and it is required here", pytrace=False)
        pytest.skip(f"{name} is not installed")
    return found
