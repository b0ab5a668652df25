"""Whatever is in the file: a plan or a PlaybookError, soon, and nothing else."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.core.plan import Plan
from lab.errors import PlaybookError
from lab.playbook import parse

SHIPPED = [path.read_bytes() for path in sorted((Path(__file__).parents[2] / "playbooks").glob("*.yaml"))]
BUSY = settings(
    max_examples=200,
    deadline=timedelta(seconds=5),
    suppress_health_check=[HealthCheck.too_slow],
)

# What YAML, its resolvers and our own readers treat specially.
PIECES = st.sampled_from([
    "\t", "\n", "  ", "- ", ": ", "? ", "&a ", "*a", "<<: ", "!!int ", "!", "|", ">-", "'", '"', "{", "}",
    "[", "]", ",", "#", "%", "---\n", "...\n", "@", "`", "\\", "~", "null", "no", "0o7", "1:30", ".nan",
    "5s", "-1", "99999999999999999999", "1e999", "name", "guests", "cycle", "patch", "hold", "count",
    "matrix", "exclude", "method", "in-place", "save_to", "/x/y", "75%", "true", "10.7.0.1/24", "fe80::/10",
    "microcode", "replace-hypervisor", "undo", "impact", "reboot", "./a.ko", "4 GiB",
    "fleet", "announce", "rollout", "gates", "notice", "handler", "web", "web-0", "410", "unknown", "in-time",
    "\x00", "\x85", "\u2028", "\ufeff", "\U0001f600", '"\\ud800"', '"\\UFFFFFFFF"', "{{ x }}",
])  # fmt: skip


def answer(data: bytes) -> Plan | None:
    try:
        return parse(data, "p.yaml")
    except PlaybookError as error:
        lines = str(error).splitlines()
        assert 1 <= len(lines) <= 21
        assert all(line.isprintable() for line in lines)
        assert all(line.startswith("p.yaml:") for line in lines)
        assert not any("Input should" in line for line in lines), "pydantic's own words"
        str(error).encode()  # no lone surrogate reaches the terminal
        return None


@BUSY
@given(st.binary(max_size=300))
def test_bytes(data: bytes) -> None:
    answer(data)


@BUSY
@given(st.text(max_size=300))
def test_text(text: str) -> None:
    answer(text.encode("utf-8", "surrogatepass"))


@BUSY
@given(st.lists(PIECES, max_size=40))
def test_pieces(pieces: list[str]) -> None:
    answer("".join(pieces).encode())


@BUSY
@given(st.sampled_from(SHIPPED), st.data())
def test_a_playbook_with_changes(playbook: bytes, data: st.DataObject) -> None:
    text = playbook.decode()
    for _ in range(data.draw(st.integers(1, 4))):
        begin = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(begin, min(len(text), begin + 20)))
        text = text[:begin] + data.draw(PIECES | st.text(max_size=3)) + text[end:]
    answer(text.encode("utf-8", "surrogatepass"))


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | PIECES
KEYS = st.sampled_from([
    "name", "about", "guests", "resync", "cycle", "expect", "repeat", "patch", "hold", "command", "deadline",
    "pause", "at_least", "in_time", "within", "drift", "count", "memory", "budget", "zzz", "<<", "", "matrix",
    "exclude", "method", "replace-hypervisor", "emulator", "microcode", "livepatch", "ansible", "impact",
    "undo",
    "fleet", "availability_sets", "update_domains", "fault_domains", "boot", "announce", "notice", "type",
    "duration", "time_factor", "cancel_after", "handler", "service", "answers", "rollout", "gates", "clock",
    "http", "members", "on", "order", "seed", "between", "skew", "acknowledged", "cancelled", "kept",
    "fill", "network", "bridge", "address", "huge_pages", "prove_memory", "save_to", "vcpus", "image", "hold",
])  # fmt: skip
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=30,
)


@BUSY
@given(TREES)
def test_trees_of_the_wrong_shape(tree: object) -> None:
    answer(as_yaml(tree).encode("utf-8", "surrogatepass"))


SECTIONS = st.sampled_from([
    "cycle: {patch: {hold: 1s}}\nmatrix", "cycle: {method: in-place}\nmatrix: {patch: [microcode]}\nx",
    "matrix: {hold: [1s, 2s], method: [suspend, reboot]}\ncycle", "cycle: {patch: {hold: 1s}}\nguests",
    "guests: [{name: a}]\nmatrix: {memory: [1GiB], patch", "matrix: {hold: [1s, 2s], exclude",
    "matrix: {hold: [0s], save_to: [/x, /y], method: [save-restore, in-place], vcpus", "cycle: {patch",
    "cycle: {patch: {hold: 1s}}\nfleet", "cycle: {patch: {hold: 1s}}\nannounce",
    "cycle: {patch: {hold: 1s}}\nfleet: {guests: [{name: web, count: 3}], availability_sets",
    "cycle: {patch: {hold: 1s}}\nannounce: {cancel_after: 5s}\nexpect: {notice",
    "cycle: {patch: {hold: 1s}}\nfleet: {availability_sets: [{name: a, guests: [web-0]}]}\nrollout",
    "cycle: {}\nmatrix: {memory: [1 GiB], hold: [1s, 2s]}\nfleet",
    "cycle: {}\nmatrix: {hold: [1s]}\nannounce",
])  # fmt: skip


@BUSY
@given(SECTIONS, TREES)
def test_a_section_of_the_wrong_shape(section: str, tree: object) -> None:
    closing = "}" * (section.count("{") - section.count("}"))
    answer(f"name: a\nresync: none\n{section}: {as_yaml(tree)}{closing}\n".encode("utf-8", "surrogatepass"))


def as_yaml(tree: object) -> str:
    """`tree` in YAML's flow style, leaves as they come: valid or not."""
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key}: {as_yaml(value)}" for key, value in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(as_yaml(item) for item in tree) + "]"
    return str(tree)


QUANTITIES = st.sampled_from(["0s", "1ms", "5s", "20 s", "2min", "1h", "5", "-5s"])


@BUSY
@given(
    method=st.sampled_from(["suspend", "sigstop", "in-place", "none"]),
    hold=QUANTITIES,
    budget=QUANTITIES,
    watch=QUANTITIES,
    within=QUANTITIES,
    least=QUANTITIES,
    most=QUANTITIES,
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=4),
)
def test_a_plan_keeps_the_rules(
    method: str, hold: str, budget: str, watch: str, within: str, least: str, most: str, counts: list[int]
) -> None:
    guests = ", ".join(f"{{name: g{n}, count: {count}}}" for n, count in enumerate(counts))
    plan = answer(
        f"name: a\nresync: none\nguests: [{guests}]\n"
        f"cycle: {{method: {method}, patch: {{hold: {hold}}}, budget: {budget}, watch: {watch}}}\n"
        f"expect: {{pause: {{at_least: {least}, at_most: {most}}}, in_time: {{within: {within}}}}}\n".encode()
    )
    if plan is None:
        return
    asked = plan.expectations
    assert 1 <= len(plan.guests) == sum(counts) <= 64
    assert plan.cycle.method.freezes, "a pause is asked for"
    assert 0 < plan.cycle.budget_ns <= 3600 * 10**9
    assert asked.in_time_within_ns is not None
    assert asked.pause_at_least_ns is not None
    assert asked.pause_at_most_ns is not None
    assert asked.in_time_within_ns + asked.hold_ns <= plan.cycle.watch_ns
    assert asked.pause_at_least_ns <= asked.pause_at_most_ns
