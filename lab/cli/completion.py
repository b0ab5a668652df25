"""Shell completion: what can be typed next, read from folders. The scripts are Typer's.

A shell asks at each TAB, so nothing is made, and little is imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

SHELLS = ("bash", "zsh", "fish")
RUN_STATES = ("passed", "failed", "inconclusive", "interrupted", "running")
NAME = "freezelab"
VARIABLE = "_FREEZELAB_COMPLETE"
"""The environment variable by which a shell asks (Typer's, from the command's name)."""

Completer = Callable[[str], list[str]]


def prepare() -> None:
    """Have a shell's question answered in the form that the script expects."""
    if os.environ.get(VARIABLE):
        from typer.completion import get_completion_inspect_parameters

        get_completion_inspect_parameters()  # registers Typer's shells; its options are not offered


def script(shell: str) -> str:
    """The script for one of SHELLS, which the shell has to read."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    text: str = get_completion_script(prog_name=NAME, complete_var=VARIABLE, shell=shell)
    return text


def words(*known: str) -> Completer:
    """These words."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in known if word.startswith(incomplete)]

    return complete


def playbooks(incomplete: str) -> list[str]:
    """Names of shipped playbooks, and files and folders that may be or have playbooks."""
    from lab.session.paths import PLAYBOOKS

    named = [path.stem for path in PLAYBOOKS.glob("*.yaml")]
    folder, start = Path(incomplete).parent, os.path.basename(incomplete)  # noqa: PTH119 - Path("a/") is "a"
    if incomplete.endswith("/"):
        folder = Path(incomplete)
    here = [
        f"{path}/" if path.is_dir() else str(path)
        for path in _entries(folder)
        if path.name.startswith(start) and (path.is_dir() or path.suffix in (".yaml", ".yml"))
    ]
    return sorted(name for name in {*named, *here} if name.startswith(incomplete))


def kept_guests(incomplete: str) -> list[str]:
    """Names of kept guests."""
    return _stems(_home() / "kept", ".json", incomplete)


def places(incomplete: str) -> list[str]:
    """Kept guests, as the first part of GUEST:PATH."""
    return [f"{name}:" for name in kept_guests(incomplete)]


def runs(incomplete: str) -> list[str]:
    """Ids of runs, the latest first."""
    return _stems(_home() / "runs", "", incomplete)[::-1]


def run_states(incomplete: str) -> list[str]:
    """Outcomes of runs, and what a run without one is."""
    return words(*RUN_STATES)(incomplete)


def figures(incomplete: str) -> list[str]:
    """Figures that runs are compared by."""
    from lab.core.comparison import FigureKind

    return words(*FigureKind)(incomplete)


def recipes(incomplete: str) -> list[str]:
    """Names of images that can be built."""
    from lab.session.paths import RECIPES

    return [name for name in _stems(RECIPES, "", incomplete) if (RECIPES / name / "recipe.toml").is_file()]


def built_images(incomplete: str) -> list[str]:
    """Names of built images, with and without their digests."""
    labels = _stems(_cache() / "images", "", "")
    names = {label.rpartition("-")[0] for label in labels} | set(labels)
    return sorted(name for name in names if name.startswith(incomplete))


def emulators(incomplete: str) -> list[str]:
    """Names of fetched emulators."""
    return _stems(_cache() / "emulators", "", incomplete)


def kept_guest_mechanisms(incomplete: str) -> list[str]:
    """Mechanisms that work without the host's help."""
    from lab.core.mechanism import ResyncMechanism

    return words(*(one.value for one in ResyncMechanism if one.fits_kept_guest))(incomplete)


def mechanisms(incomplete: str) -> list[str]:
    """All mechanisms."""
    from lab.core.mechanism import ResyncMechanism

    return words(*ResyncMechanism)(incomplete)


def methods_by_hand(incomplete: str) -> list[str]:
    """The methods by which `freezelab freeze` freezes a guest that runs already."""
    from lab.core.method import FreezeMethod
    from lab.core.own_domain import refusal
    from lab.core.patch import HoldPatch

    return words(*(one for one in FreezeMethod if one.needs_resume and not refusal(one, HoldPatch(1))))(
        incomplete
    )


def terms(incomplete: str) -> list[str]:
    """Words that `freezelab explain` knows."""
    from lab.core.terms import glossary

    return words(*(term.name for group in glossary().values() for term in group))(incomplete)


def depths(incomplete: str) -> list[str]:
    """What may look into a domain of the user's own."""
    from lab.core.depth import Depth

    return words(*Depth)(incomplete)


def _home() -> Path:
    from lab.session.paths import home_path

    return home_path()


def _cache() -> Path:
    from lab.image.store import default_cache

    return default_cache()


def _stems(folder: Path, suffix: str, incomplete: str) -> list[str]:
    names = [path.name.removesuffix(suffix) for path in _entries(folder) if path.name.endswith(suffix)]
    return sorted(name for name in names if name.startswith(incomplete))


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, hidden names aside; nothing when it cannot be read."""
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError:
        return []
