"""What the host is, as the record has it."""

from __future__ import annotations

import os

from lab.host import facts


def test_facts() -> None:
    seen = facts.look()
    assert seen.kernel == os.uname().release
    assert 0 < seen.memory_free_bytes <= seen.memory_bytes
    assert seen.cpus >= 1
    assert seen.governor
