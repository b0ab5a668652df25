"""Host patches with real programs: a patch returns by its deadline whatever the program does."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from lab.controller import RESERVE_NS
from lab.core.patch import (
    AnsiblePatch,
    CommandPatch,
    HoldPatch,
    Impact,
    LivepatchPatch,
    MicrocodePatch,
    Patch,
    ReloadKvmPatch,
    ReplaceHostKernelPatch,
    ReplaceHypervisorPatch,
    RestartLibvirtPatch,
    RestartServicePatch,
)
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import HypervisorError, Interrupted, MachineError, Refused
from lab.host import patches
from lab.host.patches.base import Stepwise, Work
from lab.ports import HostPatch, PatchResult
from lab.process.clock import HostClock
from tests.unit.processes import gone

CLOCK = HostClock()


def waited_ns() -> int:
    """How long this process's threads have been ready to run without a CPU so far (proc(5), schedstat)."""
    tasks = Path("/proc/self/task").glob("*/schedstat")
    return sum(int(task.read_text(encoding="ascii").split()[1]) for task in tasks)


def apply(patch: HostPatch, budget_ns: int) -> PatchResult:
    """Apply, and hold the patch to its promise. On a busy host it may be late by what the scheduler takes:
    what is later than the half of the reserve, the budget's guard has in its hands. This tier is run
    at a low priority, so what this process waited for a CPU is allowed for, and as much of the program."""
    deadline, waited = CLOCK.now().raw_ns + budget_ns, waited_ns()
    result = patch.apply(deadline)
    waited = waited_ns() - waited
    assert CLOCK.now().raw_ns <= deadline + RESERVE_NS // 2 + 2 * waited
    return result


def command(*argv: str, deadline_ns: int = 20 * NS_PER_S) -> patches.Command:
    return patches.Command(CommandPatch(argv, deadline_ns), CLOCK)


def test_a_command_that_succeeds() -> None:
    result = apply(command("sh", "-c", "echo patched"), 20 * NS_PER_S)
    assert result.ok
    assert result.facts["status"] == 0
    assert result.facts["stdout"] == "patched\n"


def test_a_command_that_fails_says_its_last_words() -> None:
    result = apply(command("sh", "-c", "echo no space left >&2; exit 3"), 20 * NS_PER_S)
    assert not result.ok
    assert result.why == "exit status 3: no space left"


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("sleep 60", id="sleeps"),
        pytest.param("trap '' TERM; while :; do :; done", id="ignores SIGTERM"),
        pytest.param("exec yes $0", id="floods stdout"),
        pytest.param("exec yes $0 >&2", id="floods stderr"),
        pytest.param(
            "trap '' TERM; (trap '' TERM; exec sleep 60) & wait; sleep 60", id="forks, ignores SIGTERM"
        ),
        pytest.param("kill -STOP $$", id="stops itself"),
    ],
)
@pytest.mark.parametrize("own_deadline", [False, True])
def test_a_command_that_does_not_end_is_killed_in_time(script: str, own_deadline: bool) -> None:
    deadline_ns = 300 * NS_PER_MS if own_deadline else 20 * NS_PER_S
    marker = f"60.{os.getpid()}"  # $0 of the script
    result = apply(
        command("sh", "-c", script, marker, deadline_ns=deadline_ns),
        2 * NS_PER_S if own_deadline else NS_PER_S,
    )
    assert not result.ok
    # A busy host may take longer to end a killed process than the command's grace lasts.
    assert re.fullmatch(r"still running after [^,]+, killed(, and not gone yet)?", result.why)
    assert gone(marker)


def test_nothing_of_the_process_group_outlives_the_patch() -> None:
    marker = f"60.{os.getpid()}"
    assert apply(command("sh", "-c", f"sleep {marker} & exit 0"), 20 * NS_PER_S).ok
    assert gone(marker)
    assert not apply(command("sh", "-c", f"sleep {marker} & sleep {marker}"), NS_PER_S).ok
    assert gone(marker)


def test_output_is_capped() -> None:
    result = apply(command("sh", "-c", "head -c 10000000 /dev/zero | tr '\\0' x; echo end"), 20 * NS_PER_S)
    assert result.ok
    assert len(result.facts["stdout"]) <= 2000
    assert result.facts["stdout"].endswith("end\n")


def test_no_time_left() -> None:
    result = patches.make(CommandPatch(("true",), NS_PER_S), CLOCK).apply(CLOCK.now().raw_ns)
    assert not result.ok
    assert result.why == "no time left to start it"


@pytest.mark.parametrize("program", ["freezelab-no-such-program", "/no/such/program", "/etc/passwd", "/"])
def test_what_cannot_be_run_is_known_before_the_freeze(program: str) -> None:
    patch = command(program)
    with pytest.raises(MachineError):
        patch.check()
    assert not apply(patch, NS_PER_S).ok


def test_a_file_that_exec_refuses_is_no_crash(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF nothing follows")
    broken.chmod(0o755)
    result = apply(command(str(broken)), NS_PER_S)
    assert not result.ok
    assert "cannot be run" in result.why


def test_a_hold_holds() -> None:
    began = CLOCK.now().raw_ns
    result = apply(patches.Hold(HoldPatch(100 * NS_PER_MS), CLOCK), 20 * NS_PER_S)
    assert result.ok
    assert result.facts["held_ns"] >= 100 * NS_PER_MS
    assert CLOCK.now().raw_ns - began >= 100 * NS_PER_MS


def test_a_hold_longer_than_the_deadline_is_cut() -> None:
    result = apply(patches.Hold(HoldPatch(60 * NS_PER_S), CLOCK), 300 * NS_PER_MS)
    assert not result.ok
    assert "out of time" in result.why


def test_only_patches_that_are_the_freeze_itself_have_nothing_to_do() -> None:
    plans: list[Patch] = [HoldPatch(0), ReplaceHypervisorPatch(""), HoldPatch(1), CommandPatch(("true",), 1)]
    assert [patches.make(plan, CLOCK).acts for plan in plans] == [False, False, True, True]


def test_make_follows_the_plan() -> None:
    assert isinstance(patches.make(HoldPatch(1), CLOCK), patches.Hold)
    assert patches.make(CommandPatch(("true",), 1), CLOCK).label == "command true"


@pytest.mark.parametrize("impact", list(Impact))
def test_a_commands_impact_is_the_plans(impact: Impact) -> None:
    assert patches.make(CommandPatch(("true",), NS_PER_S, impact), CLOCK).impact is impact


def test_a_command_is_undone(tmp_path: Path) -> None:
    made = str(tmp_path / "made")
    patch = patches.make(CommandPatch(("touch", made), 20 * NS_PER_S, undo=("rm", made)), CLOCK)
    patch.check()
    assert patch.apply(CLOCK.now().raw_ns + 20 * NS_PER_S).ok
    assert patch.undo().startswith(f"rm {made}: done in ")
    assert not Path(made).exists()
    with pytest.raises(MachineError, match="not undone: rm: exit status 1") as caught:
        patch.undo()
    assert f"by hand: rm {made}" in caught.value.hint


def test_an_undo_has_a_deadline_and_has_to_be_there() -> None:
    patch = patches.make(CommandPatch(("true",), NS_PER_S // 2, undo=("sleep", "60")), CLOCK)
    with pytest.raises(MachineError, match=r"still running after .*, killed"):
        patch.undo()
    with pytest.raises(MachineError, match="no such program"):
        patches.make(CommandPatch(("true",), 1, undo=("freezelab-no-such-program",)), CLOCK).check()
    assert patches.make(CommandPatch(("true",), 1), CLOCK).undo() == ""


@pytest.mark.parametrize(
    "spec",
    [
        HoldPatch(1),
        CommandPatch(("true",), 1),
        ReplaceHypervisorPatch(),
        RestartLibvirtPatch(),
        RestartServicePatch("x.service"),
        ReloadKvmPatch(),
        MicrocodePatch(),
        LivepatchPatch("/x.ko"),
        AnsiblePatch("/x.yaml", 1),
    ],
    ids=lambda spec: spec.kind,
)
def test_every_patch_is_made_without_looking_at_the_host(spec: Patch) -> None:
    patch = patches.make(spec, CLOCK)
    assert patch.label == spec.label
    assert patch.impact is spec.impact
    assert patch.successor.cold is isinstance(spec, ReloadKvmPatch)  # no emulator may run during it
    if not isinstance(spec, HoldPatch | ReplaceHypervisorPatch):  # nothing of the others starts without time
        late = patch.apply(CLOCK.now().raw_ns)
        assert late.why == "no time left to start it"


def test_this_host_keeps_its_kernel() -> None:
    patch = patches.make(ReplaceHostKernelPatch(("6.12",)), CLOCK)
    with pytest.raises(Refused, match="this host's kernel is not replaced") as error:
        patch.check()
    assert "--on labhost" in error.value.hint


def test_daemons_of_a_command_do_not_outlive_its_deadline() -> None:
    marker = f"65.{os.getpid()}"
    script = f"(setsid sh -c 'sleep {marker} & exit 0' &) ; sleep {marker}"
    result = command("sh", "-c", script, deadline_ns=NS_PER_S).apply(CLOCK.now().raw_ns + 10 * NS_PER_S)
    assert not result.ok
    assert "killed" in result.why
    assert gone(marker)


class Halves(Stepwise):
    """Two halves, of which the second must follow the first."""

    whole = True
    done: tuple[str, ...] = ()

    def _do(self, work: Work) -> None:
        for name in ("one", "two"):
            with work.step(name):
                self._clock.sleep_until(self._clock.now().raw_ns + 200 * NS_PER_MS)
            self.done += (name,)


def test_what_must_be_whole_is_not_cut_by_a_signal() -> None:
    patch = Halves("halves", Impact.FREEZE, CLOCK, 20 * NS_PER_S)

    def interrupt(*_: object) -> None:
        raise Interrupted("stop")

    usual = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(Interrupted):
            patch.apply(CLOCK.now().raw_ns + 20 * NS_PER_S)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)
    assert patch.done == ("one", "two")


def test_what_must_be_whole_is_left_behind_at_the_deadline() -> None:
    patch = Halves("halves", Impact.FREEZE, CLOCK, 20 * NS_PER_S)
    result = apply(patch, 100 * NS_PER_MS)
    assert result.why == "halves is still running"
    end = time.monotonic() + 20
    while patch.done != ("one", "two"):
        assert time.monotonic() < end
        time.sleep(0.02)


class Broken(Stepwise):
    """Fails with what it is given, within a step."""

    whole = True

    def __init__(self, error: Exception) -> None:
        super().__init__("broken", Impact.FREEZE, CLOCK, 20 * NS_PER_S)
        self.error = error

    def _do(self, work: Work) -> None:
        with work.step("only"):
            raise self.error


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (MachineError("gone", where="/x"), "/x: gone"),
        (HypervisorError("cannot connect\nat all", hint="?"), "cannot connect at all"),
        (
            FileNotFoundError(2, "No such file or directory", "/proc/7/stat"),
            "/proc/7/stat: No such file or directory",
        ),
    ],
)
def test_a_step_that_fails_is_told_in_one_line(error: Exception, why: str) -> None:
    result = apply(Broken(error), 20 * NS_PER_S)
    assert result.why == why
    assert [step.name for step in result.steps] == ["only"]


def test_a_bug_is_no_failed_patch() -> None:
    with pytest.raises(ZeroDivisionError):
        apply(Broken(ZeroDivisionError()), 20 * NS_PER_S)
