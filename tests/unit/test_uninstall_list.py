"""What `./freezelab uninstall` removes is what the program makes: its list is held against the source.

tests/guest/runs/test_command.py holds it against what lies in the state folder after a run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.unit.uninstall_lists import ROOT, names_removed

STATE = ("home", "_home", "state", "_state", "default_home")
"""What the state folder is called in lab/: a name, an attribute, or a function that returns it."""

CACHE = ("cache", "_cache", "default_cache")


def called(node: ast.expr) -> str:
    """ "home" of `home`, `self.home`, `paths.home()`; "" of `Path.home()`, which is the user's."""
    if isinstance(node, ast.Call):
        node = node.func
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Path":
            return ""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def constants(tree: ast.Module) -> dict[str, str]:
    """The module's names for texts."""
    return {
        target.id: statement.value.value
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
        for target in statement.targets
        if isinstance(target, ast.Name)
    } | several(tree)


def several(tree: ast.Module) -> dict[str, str]:
    """Of `A, B = "a", "b"`."""
    found = {}
    for statement in tree.body:
        if not isinstance(statement, ast.Assign) or not isinstance(statement.value, ast.Tuple):
            continue
        for target in statement.targets:
            if isinstance(target, ast.Tuple):
                for name, value in zip(target.elts, statement.value.elts, strict=False):
                    if isinstance(name, ast.Name) and isinstance(value, ast.Constant):
                        found[name.id] = str(value.value)
    return found


def below(bases: tuple[str, ...], source: str) -> Iterator[str]:
    """What a module puts below a folder of one of these names, or the line where that is not clear."""
    tree = ast.parse(source)
    texts = constants(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            path, joined = node.func.value, node.func.attr == "joinpath"
            name = node.args[0] if joined and node.args else None
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            path, name = node.left, node.right
        else:
            continue
        if name is None or called(path) not in bases:
            continue
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            yield name.value.split("/")[0]
        elif isinstance(name, ast.Name) and name.id in texts:
            yield texts[name.id].split("/")[0]
        else:
            yield f"line {node.lineno}: {ast.unparse(node)}"


def made(bases: tuple[str, ...]) -> set[str]:
    sources = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "lab").rglob("*.py"))]
    return {name for source in sources for name in below(bases, source)}


def made_by_the_launcher() -> set[str]:
    text = (ROOT / "freezelab").read_text(encoding="utf-8")
    return set(re.findall(r"\$\{?state\}?/([\w.-]+)", text))


def test_all_that_is_made_in_the_state_folder_is_removed_and_nothing_else() -> None:
    assert names_removed("state_names") == made(STATE) | made_by_the_launcher()


def test_all_that_is_made_in_the_cache_is_removed_and_nothing_else() -> None:
    assert names_removed("cache_names") == made(CACHE)


def test_folders_in_memory_have_links_that_uninstall_follows() -> None:
    making = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "lab").rglob("*.py")
        if "shm.folder(" in path.read_text(encoding="utf-8")
    }
    assert making == {"lab/hypervisor/embed.py", "lab/hypervisor/memory.py"}
    text = (ROOT / "lab/cli/uninstall.sh").read_text(encoding="utf-8")
    assert set(re.findall(r'readlink -- "\$each/([\w/]+)"', text)) == {"libvirt/run", "ram"}


def test_a_new_name_is_found_however_it_is_written() -> None:
    source = """
A, B = "one", "two"
C = "three"
def make(home, self, settings, name):
    return home / A, self._home / C / "x", settings.home / "four/five", home().joinpath("six"), home / name
Path.home() / "seven"
"""
    found = sorted(below(STATE, source))
    assert found == ["four", "line 5: home / name", "one", "six", "three"]
