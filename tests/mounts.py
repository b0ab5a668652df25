"""Mount namespaces, which many tests need beside root."""

from __future__ import annotations

import functools
import os
import subprocess

import pytest


@functools.cache
def refusal() -> str:
    """Why there are none, in unshare's words; "" where there are."""
    argv = ["unshare", "--mount", "true"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return done.stderr.strip() if done.returncode else ""


def need_namespaces() -> None:
    """Skip where there are none, as in a chroot whose root is no mount point; fail where CI declares them."""
    if why := refusal():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{why}: mount namespaces are required here", pytrace=False)
        pytest.skip(f"no mount namespaces here, as in a chroot whose root is no mount point: {why}")
