"""Playbooks that the parser refuses."""

from __future__ import annotations

import pytest

from lab.errors import PlaybookError
from lab.playbook import parse


def mistakes_in(data: str | bytes) -> list[str]:
    """The lines of the answer, without the file's name."""
    with pytest.raises(PlaybookError) as caught:
        parse(data.encode() if isinstance(data, str) else data, "p.yaml")
    assert caught.value.exit_code == 2
    return [line.removeprefix("p.yaml:") for line in str(caught.value).splitlines()]
