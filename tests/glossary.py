"""docs/terms.md, made from the glossary of lab.core.terms:

.venv/bin/python -m tests.glossary docs/terms.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from lab.core.terms import glossary

HEAD = """# Terms

Each word of the reports in one line, as `freezelab explain` prints them. This page is made from
[lab/core/terms.py](../lab/core/terms.py) by `python -m tests.glossary`."""


def _lines() -> Iterator[str]:
    yield HEAD
    for title, terms in glossary().items():
        yield from ("", f"## {title}", "", "| term | meaning |", "|---|---|")
        for term in sorted(terms, key=lambda one: one.name.lower().lstrip("|")):
            names = ", ".join(term.names).replace("|", "\\|")
            yield f"| {names} | {term.text} |"


def document() -> str:
    return "\n".join(_lines()) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document(), encoding="utf-8")
