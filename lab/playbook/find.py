"""Which file a playbook's name stands for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from lab.errors import PlaybookError
from lab.playbook.mistakes import quoted

_SUFFIXES = (".yaml", ".yml")


def shipped(folders: Iterable[Path]) -> list[Path]:
    """The playbooks in `folders`, by name; of two with one name the one in the earlier folder."""
    names: dict[str, Path] = {}
    for folder in folders:
        try:
            files = sorted(folder.iterdir())
        except OSError:
            continue  # a folder that is not there has no playbooks
        for file in files:
            if file.suffix in _SUFFIXES:
                names.setdefault(file.stem, file)
    return [names[name] for name in sorted(names)]


def resolve(name_or_path: str, folders: Sequence[Path]) -> Path:
    """The file meant by "first-freeze", "first-freeze.yaml" or a path.

    With a "/" it is a path and nothing else. A bare name is a playbook in `folders`, but a file
    of exactly this name in the current folder goes first when the suffix is written too.
    PlaybookError, with close matches and what there is, when nothing fits.
    """
    here = Path(name_or_path)
    known = shipped(folders)
    if "/" not in name_or_path and name_or_path:
        if here.suffix in _SUFFIXES and _exists(here):
            return here
        for file in known:
            if name_or_path in (file.stem, file.name):
                return file
    if name_or_path and _exists(here):
        return here
    raise _unknown(name_or_path, known)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, a folder not ours, a NUL
        return False


def _unknown(asked: str, known: list[Path]) -> PlaybookError:
    names = [file.stem for file in known]
    hint = f"There are: {', '.join(names)}." if names else "Give the path of a .yaml file."
    as_path = Path(f"{asked}.yaml")
    if asked and _exists(as_path):
        return PlaybookError(f"no playbook {quoted(asked, 80)}; did you mean {as_path}?", hint=hint)
    close = get_close_matches(Path(asked[-80:]).stem.lower(), names, n=2)
    guess = f"; did you mean {' or '.join(close)}?" if close else ""
    return PlaybookError(f"no playbook {quoted(asked, 80)}{guess}", hint=hint)
