"""Links between the documents, and from comments to docs/design.md, lead to a heading."""

from __future__ import annotations

import re
from pathlib import Path

from tests.lint.conftest import ROOT

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
IN_COMMENTS = re.compile(r"\b(docs/[a-z-]+\.md)#([a-z_-]+)")


def anchors(document: Path) -> set[str]:
    """The fragments that GitHub gives its headings: small letters, punctuation dropped, blanks to hyphens."""
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in HEADING.findall(text)}


def dead(target: Path, fragment: str) -> bool:
    return not target.exists() or (bool(fragment) and fragment not in anchors(target))


def test_a_link_leads_to_a_heading(own_files: list[Path]) -> None:
    found = []
    for path in own_files:
        text = path.read_text(encoding="utf-8", errors="replace")
        links = [(ROOT / name, fragment) for name, fragment in IN_COMMENTS.findall(text)]
        if path.suffix == ".md":
            local = [link for link in LINK.findall(text) if "://" not in link]
            for link in local:
                name, _, fragment = link.partition("#")
                links.append((path.parent / name if name else path, fragment))
        found += [f"{path.relative_to(ROOT)}: {to.name}#{part}" for to, part in links if dead(to, part)]
    assert not found, "\n".join(found)


def test_a_dead_link_is_found() -> None:
    design = ROOT / "docs" / "design.md"
    assert not dead(design, "chrony-frozen")
    assert dead(design, "no-such-heading")
    assert dead(ROOT / "docs" / "no-such-file.md", "")
