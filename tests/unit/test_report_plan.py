"""What `freezelab plan` prints."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from lab.core.method import WallClock
from lab.core.patch import (
    AnsiblePatch,
    Impact,
    LivepatchPatch,
    MicrocodePatch,
    Patch,
    ReloadKvmPatch,
    ReplaceHostKernelPatch,
    ReplaceHypervisorPatch,
    RestartLibvirtPatch,
    RestartServicePatch,
    UnitScope,
)
from lab.core.plan import (
    Cell,
    CommandPatch,
    CycleSpec,
    Expectations,
    FreezeMethod,
    GuestSpec,
    HoldPatch,
    Plan,
    Regime,
    ResyncMechanism,
    Rollout,
)
from lab.core.plan_warnings import overruns
from lab.core.units import NBSP, NS_PER_MS, NS_PER_S
from lab.errors import MachineError
from lab.playbook import load, parse
from lab.report.plan import duration_ns, render_plan, waiting_ns
from lab.report.plan_fleet import spans
from lab.report.plan_words import patched, predicted, steps
from tests.unit.consoles import output, pipe, terminal, widest

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"

FIRST = Plan(
    "first-freeze",
    "One guest, a host patch of five seconds, its clock set by the guest agent.",
    "00",
    (GuestSpec("web-0"),),
    ResyncMechanism.AGENT,
    CycleSpec(FreezeMethod.SUSPEND, HoldPatch(5 * NS_PER_S)),
    Expectations(
        Regime.RESUMED,
        pause_at_least_ns=5 * NS_PER_S,
        pause_at_most_ns=7 * NS_PER_S,
        in_time_within_ns=5 * NS_PER_S,
        final_offset_ns=100 * NS_PER_MS,
        drift_ppm=50,
    ),
)
RICH = replace(
    FIRST,
    name="[red]x[/red]\x1b[31m",
    guests=tuple(GuestSpec(f"web-{i}", fault_domain=i % 3) for i in range(50)),
    resync=ResyncMechanism.NONE,
    cycle=CycleSpec(
        FreezeMethod.SIGSTOP, CommandPatch(("/bin/echo", "a b", "x" * 120, "\x07"), 60 * NS_PER_S)
    ),
    repeat=10,
    control=3,
)
BRIDGED = replace(
    FIRST,
    guests=tuple(
        GuestSpec(f"web-{i}", fill=0.75, bridge="br0", address=f"10.7.0.1{i}/24", huge_pages=i == 1)
        for i in range(3)
    ),
    cycle=CycleSpec(FreezeMethod.IN_PLACE, ReplaceHypervisorPatch("/opt/\x1bqemu"), prove_memory=True),
)
REBOOT = replace(
    FIRST,
    cycle=CycleSpec(
        FreezeMethod.REBOOT, CommandPatch(("update-firmware",), 60 * NS_PER_S, Impact.REBOOT, ("undo", "it"))
    ),
    expectations=Expectations(in_time_within_ns=5 * NS_PER_S),
)
RUNNING = replace(
    FIRST,
    cycle=CycleSpec(FreezeMethod.NONE, LivepatchPatch("./fix.ko")),
    expectations=Expectations(clean_kernel_log=False),
)
MIXED = b"""\
name: mixed
matrix:
  patch:
    - {hold: 2s}
    - {command: [update-firmware], deadline: 1min, impact: reboot}
    - {livepatch: ./fix.ko}
  resync: [agent, none]
  memory: [1 GiB, 2 GiB]
  exclude: [{resync: none, memory: 2 GiB}]
control: 2
"""
FLEET = b"""\
name: fleet
about: Two sets, told before, one update domain after another.
resync: push
fleet:
  guests: [{name: web, count: 8}, {name: db, count: 3, memory: 1 GiB}]
  availability_sets:
    - {name: web, guests: [web], update_domains: 4}
    - {name: base, guests: [db]}
cycle: {patch: {hold: 2s}}
announce:
  source: user
  description: Hold on.
  cancel_after: 10min
  handler: [./pyproject.toml, --watch-only]
  service: {first_answer: 2min, answers: [410, hang], restart_incarnation: true, rate_limit: true}
rollout:
  order: shuffled
  seed: 7
  between: 5s
  gates: [{clock: in-time}, {command: systemctl is-active x, on: [db]}, {members: healthy}]
expect:
  notice: {acknowledged: true, seen: true, started_seen: true, kept: true, at_least: 1s, at_most: 20s}
  skew: {within: 100ms}
"""
WIDE = b"""\
name: wide
resync: none
cycle: {method: suspend}
matrix:
  hold: [1s, 2s, 3s, 4s, 5s, 6s, 7s, 8s, 9s, 10s, 11s, 12s, 13s, 14s]
  fill: [0%, 50%]
  image: [debian, debian-13-with-a-long-name]
  prove_memory: [true, false]
"""


def mixed() -> Plan:
    return parse(MIXED, "mixed.yaml")


def fleet() -> Plan:
    return parse(FLEET, "fleet.yaml", PLAYBOOKS.parent)


def large(sets: int, rollout: Rollout) -> Plan:
    """A thousand guests."""
    guests = tuple(
        GuestSpec(
            f"web-{number}",
            availability_set=f"set-{number % sets}",
            update_domain=number // sets % 20,
            fault_domain=number // sets % 3,
        )
        for number in range(1000)
    )
    return replace(FIRST, guests=guests, rollout=rollout, golden=True)


@cache
def everything() -> list[Plan]:
    shipped = [load(path) for path in sorted(PLAYBOOKS.glob("*.yaml"))]
    fleets = [fleet(), large(50, Rollout())]
    return [FIRST, RICH, BRIDGED, REBOOT, RUNNING, mixed(), parse(WIDE, "wide.yaml"), *fleets, *shipped]


def shown(plan: Plan, width: int) -> str:
    console = terminal(width)
    render_plan(plan, console)
    return output(console).replace(NBSP, " ")


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(
    "plan", [FIRST, BRIDGED, REBOOT, RUNNING], ids=["first", "bridged", "reboot", "none"]
)
def test_plan_on_a_terminal(plan: Plan, width: int, snapshot: SnapshotAssertion) -> None:
    assert shown(plan, width) == snapshot


@pytest.mark.parametrize("width", [80, 120])
def test_matrix_on_a_terminal(width: int, snapshot: SnapshotAssertion) -> None:
    assert shown(mixed(), width) == snapshot


@pytest.mark.parametrize("matrix", ["", "matrix: {method: [suspend, sigstop]}\n"])
def test_a_search_is_shown_as_one(matrix: str) -> None:
    text = "name: a\nresync: push\nworkload: udp-echo\ntolerance: {longest: 45s}\ncontrol: 1\n"
    words = shown(parse((text + matrix).encode(), "a.yaml"), 120)
    assert re.search(r"patch +≤ 45 s .*1 s to 45 s, as the search has it", words)
    assert "hold 1 s " not in words.replace("hold 1 s to 45 s", "")
    assert ("search + 1" in words) == bool(matrix)
    assert "1 cycle" not in words


@pytest.mark.parametrize("width", [80, 120])
def test_fleet_on_a_terminal(width: int, snapshot: SnapshotAssertion) -> None:
    assert shown(fleet(), width) == snapshot


@pytest.mark.parametrize("sets", [1, 50, 500])
@pytest.mark.parametrize("together", [True, False])
def test_a_plan_of_a_thousand_guests_is_read_in_a_minute(sets: int, together: bool) -> None:
    text = shown(large(sets, Rollout(together=together)), 80)
    assert len(text.splitlines()) < 120
    assert "1000" in text or "web-999" in text


def test_an_order_that_is_not_drawn_yet_is_not_shown() -> None:
    plan = fleet()
    assert plan.rollout is not None
    text = shown(replace(plan, rollout=replace(plan.rollout, seed=None)), 120)
    assert "the run chooses" in text
    assert "web UD 0" not in text


def test_waves_take_their_time() -> None:
    plan = fleet()
    assert plan.rollout is not None
    # Four waves of 1 s, 4 s, 2 s and 8 s, with 5 s between; three pauses.
    assert duration_ns(plan) == (4 * 15 + 3 * 5) * NS_PER_S
    assert duration_ns(replace(plan, repeat=2)) == 2 * duration_ns(plan)
    assert waiting_ns(plan) == 4 * 10 * NS_PER_S, "called off after 10 min, 60 times as fast"
    announce = plan.cycle.announce
    assert announce is not None
    unheard = replace(plan, cycle=replace(plan.cycle, announce=replace(announce, handler=())))
    assert waiting_ns(unheard) == 0


@pytest.mark.parametrize("path", sorted(PLAYBOOKS.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_is_announced_is_rehearsed_in_a_minute(path: Path) -> None:
    plan = load(path)
    if plan.cycle.announce is not None:
        if plan.name == "update-domains-with-etcd":
            return  # a cluster needs its time between two domains
        waiting = waiting_ns(plan) if plan.name != "rollout" else 0
        assert duration_ns(plan) + waiting < 60 * NS_PER_S


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["web-0", "web-1", "web-2", "db"], ["web-0 to web-2", "db"]),
        (["web-0", "web-1"], ["web-0", "web-1"]),
        (["web-0", "web-2", "web-4"], ["web-0", "web-2", "web-4"]),
        (["web-9", "web-10", "web-11", "web-011"], ["web-9 to web-11", "web-011"]),
        (["a-1", "b-2", "c-3"], ["a-1", "b-2", "c-3"]),
        ([], []),
    ],
)
def test_names_that_count_on(names: list[str], short: list[str]) -> None:
    assert spans(names) == short


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", ["methods", "in-place-vs-save", "hypervisor-upgrade"])
def test_shipped_matrices_on_a_terminal(name: str, width: int, snapshot: SnapshotAssertion) -> None:
    assert shown(load(PLAYBOOKS / f"{name}.yaml"), width) == snapshot


def test_plan_as_plain_lines(snapshot: SnapshotAssertion) -> None:
    console = pipe()
    render_plan(replace(RICH, guests=RICH.guests[:3]), console)
    assert output(console) == snapshot


@pytest.mark.parametrize("width", range(40, 201, 7))
def test_plan_fits(width: int) -> None:
    for plan in everything():
        assert widest(shown(plan, width)) <= width, plan.name


@pytest.mark.parametrize(
    ("clocksource", "hold", "words"),
    [
        ("acpi_pm", "6s", "acpi_pm wraps every 4.69 s: correct only up to 2.24 s"),
        ("acpi_pm", "2s", ""),
        ("hpet", "30s", "hpet wraps every 42.95 s: correct only up to 21.4 s"),
        ("tsc", "30s", ""),
    ],
)
def test_a_pause_beyond_a_clocksources_limit_is_told(clocksource: str, hold: str, words: str) -> None:
    text = (
        f"name: t\nguests: [{{name: web-0, kernel_options: [clocksource={clocksource}]}}]\nresync: none\n"
        f"cycle: {{method: sigstop, budget: 60s, patch: {{hold: {hold}}}}}\n"
    )
    told = " ".join(shown(parse(text.encode(), "t.yaml"), 120).split())
    assert ("wraps" in told) is bool(words)
    assert words in told


def test_plan_knows_how_long_it_takes() -> None:
    assert duration_ns(FIRST) == 18 * NS_PER_S
    # A command is stopped at the end of the budget, 30 s.
    assert duration_ns(RICH) == 13 * 43 * NS_PER_S
    # A guest that is down has no budget: the command may take its minute.
    assert duration_ns(REBOOT) == 73 * NS_PER_S


def test_all_cells_count() -> None:
    plan = mixed()
    assert duration_ns(plan) == sum(duration_ns(replace(plan, cells=(cell,))) for cell in plan.cells)
    assert len(plan.cells) == 9


def test_what_runs_side_by_side_takes_the_time_of_one() -> None:
    plan = load(PLAYBOOKS / "resync-matrix.yaml")
    # 3 batches of 4 cells for each of 2 methods and 3 holds; 1 s + 4 s + hold + 20 s.
    assert duration_ns(plan) == 3 * 2 * (3 * 25 * NS_PER_S + 23_500 * NS_PER_MS)
    text = shown(plan, 120)
    assert "72 cells, up to 4 at the same time, each on guests of its own:" in text
    assert [line.split()[0] for line in text.splitlines() if line.startswith("web")] == [
        "web-a", "web-b", "web-c", "web-d",
    ]  # fmt: skip


def test_obstacles_are_shown_in_the_plan() -> None:
    plan = replace(FIRST, cycle=CycleSpec(FreezeMethod.SUSPEND, HoldPatch(30 * NS_PER_S)))
    console = terminal(120)
    render_plan(plan, console, [MachineError("no\x1b[31m bridge", hint="make one")])
    text = output(console).replace(NBSP, " ")
    assert "missing   no[31m bridge; make one" in text
    assert "note  the budget of 30 s ends the hold of 30 s, so its patch fails in every cycle" in text
    assert "note" not in shown(FIRST, 120)
    assert overruns(replace(plan, cycle=replace(plan.cycle, method=FreezeMethod.REBOOT))) == []


def test_every_cell_and_every_omission_is_shown() -> None:
    plan = load(PLAYBOOKS / "in-place-vs-save.yaml")
    console = pipe()
    render_plan(plan, console)
    lines = output(console).splitlines()
    for cell in plan.cells:
        [line] = [line for line in lines if line.split()[:1] == [cell.id]]
        assert cell.cycle.method in line
        assert cell.cycle.save_to in line
    assert sum("6 combinations left out" in line for line in lines) == 1


def test_a_reboot_is_no_freeze() -> None:
    names = [step.name for step in steps(REBOOT.parts[0])]
    assert names == ["settle", "measure", "shut down", "patch", "start", "watch"]
    assert "freeze" not in [step.name for step in steps(RUNNING.parts[0])]


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        (HoldPatch(0), "(class freeze)"),
        (CommandPatch(("a", "b c"), 1, Impact.NONE, ("d",)), "a 'b c'; undo: d (class none)"),
        (ReplaceHypervisorPatch(), "the emulator restarted (class freeze)"),
        (ReplaceHypervisorPatch("x", "q35", "max"), "replaced by x, machine q35, CPU max"),
        (RestartLibvirtPatch(), "libvirt"),
        (RestartServicePatch("a.service"), "a.service restarted (class freeze)"),
        (
            RestartServicePatch("a.service", UnitScope.USER, impact=Impact.NONE),
            "a.service restarted (systemd --user) (class none)",
        ),
        (ReloadKvmPatch(), "KVM"),
        (ReplaceHostKernelPatch(("6.12",)), "replaced by Linux 6.12 (kexec)"),
        (MicrocodePatch(), "microcode"),
        (LivepatchPatch("./fix.ko"), "loaded into the host's kernel (class none)"),
        (
            AnsiblePatch("a.yml", 1, "", Impact.REBOOT, "b.yml"),
            "a.yml on localhost; undo: b.yml (class reboot)",
        ),
    ],
    ids=lambda value: getattr(value, "label", ""),
)
def test_every_patch_has_words(patch: Patch, says: str) -> None:
    assert says in patched(patch)[1]


@pytest.mark.parametrize("method", FreezeMethod)
@pytest.mark.parametrize("resync", ResyncMechanism)
def test_every_prediction_has_words(method: FreezeMethod, resync: ResyncMechanism) -> None:
    cell = Cell("", (), FIRST.guests, resync, CycleSpec(method, HoldPatch(5 * NS_PER_S)), Expectations())
    text = predicted(cell)
    assert method.predicts.wall_clock in text
    assert (method.predicts.regime or "clocks restart") in text or method.runs_on
    assert all(step.text for step in steps(cell))
    # Nothing is told to stay behind that is not behind.
    assert ("stays behind" in text) == (
        resync is ResyncMechanism.NONE and method.predicts.wall_clock is WallClock.BEHIND
    )


@pytest.mark.parametrize("method", [FreezeMethod.SUSPEND, FreezeMethod.IN_PLACE, FreezeMethod.SIGSTOP])
def test_a_plan_tells_that_the_tsc_runs_on_on_kvm(method: FreezeMethod) -> None:
    guests = (replace(FIRST.guests[0], kernel_options=("clocksource=tsc",)),)
    cycle = CycleSpec(method, HoldPatch(5 * NS_PER_S))
    text = predicted(Cell("", (), guests, ResyncMechanism.NONE, cycle, Expectations()))
    assert ("On KVM tsc runs on; time right" in text) is (method is FreezeMethod.SUSPEND)
