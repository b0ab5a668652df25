"""Host patches with real programs: a patch returns by its deadline whatever the program does."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psutil
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
    ReplaceHypervisorPatch,
    RestartLibvirtPatch,
    releases_hypervisor,
)
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import HypervisorError, Interrupted, MachineError
from lab.host import patches, run, scope
from lab.host.clocks import HostClock
from lab.host.patches.base import Stepwise, Work
from lab.ports import HostPatch, PatchResult

CLOCK = HostClock()


def apply(patch: HostPatch, budget_ns: int) -> PatchResult:
    """Apply, and hold the patch to its promise. On a busy host it may be late by what the scheduler takes:
    what is later than the half of the reserve, the budget's guard has in its hands."""
    deadline = CLOCK.now().raw_ns + budget_ns
    result = patch.apply(deadline)
    assert CLOCK.now().raw_ns <= deadline + RESERVE_NS // 2
    return result


def command(*argv: str, deadline_ns: int = 20 * NS_PER_S) -> patches.Command:
    return patches.Command(CommandPatch(argv, deadline_ns), CLOCK)


def alive(marker: str) -> list[int]:
    return [p.pid for p in psutil.process_iter(["cmdline"]) if marker in (p.info["cmdline"] or [])]


def gone(marker: str) -> bool:
    """Killed processes are reaped by init a moment later."""
    for _ in range(100):
        if not alive(marker):
            return True
        time.sleep(0.02)
    return False


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
        pytest.param("exec yes", id="floods stdout"),
        pytest.param("exec yes >&2", id="floods stderr"),
        pytest.param(
            "trap '' TERM; (trap '' TERM; exec sleep 60) & wait; sleep 60", id="forks, ignores SIGTERM"
        ),
        pytest.param("kill -STOP $$", id="stops itself"),
    ],
)
@pytest.mark.parametrize("own_deadline", [False, True])
def test_a_command_that_does_not_end_is_killed_in_time(script: str, own_deadline: bool) -> None:
    deadline_ns = 300 * NS_PER_MS if own_deadline else 20 * NS_PER_S
    result = apply(
        command("sh", "-c", script, deadline_ns=deadline_ns), 2 * NS_PER_S if own_deadline else NS_PER_S
    )
    assert not result.ok
    assert result.why.startswith("still running after ")
    assert result.why.endswith(", killed")


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
    assert patch.successor.cold is releases_hypervisor(spec)
    if not isinstance(spec, HoldPatch | ReplaceHypervisorPatch):  # nothing of the others starts without time
        late = patch.apply(CLOCK.now().raw_ns)
        assert late.why == "no time left to start it"


def test_descendants_in_other_sessions_die_too() -> None:
    marker = f"62.{os.getpid()}"
    stop_at = CLOCK.now().raw_ns + NS_PER_S
    done = run.execute(
        ("sh", "-c", f"setsid sleep {marker} & wait"), CLOCK, stop_at_raw_ns=stop_at, tree=True
    )
    assert done.overran
    assert gone(marker)


DAEMON = "(setsid sh -c 'sleep {0} & exit 0' &) ; "
"""A daemon as daemons start: in a session of its own, its parent gone."""


@pytest.fixture(params=["cgroup", "mark"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the processes of a patch are known."""
    if request.param == "mark":
        monkeypatch.setattr(scope, "_make", lambda _name: None)
    elif not scope.may_be_sure():
        pytest.skip("no cgroup may be had here")
    return str(request.param)


def cgroups() -> list[str]:
    return [str(path) for path in Path("/sys/fs/cgroup").rglob("freezelab-*")]


@pytest.mark.usefixtures("way")
def test_daemons_do_not_outlive_the_deadline() -> None:
    """D8: not even those that have a session of their own and no parent any more."""
    marker = f"66.{os.getpid()}"
    patch = command("sh", "-c", f"{DAEMON.format(marker)} sleep {marker}", deadline_ns=NS_PER_S)
    deadline = CLOCK.now().raw_ns + 10 * NS_PER_S
    result = patch.apply(deadline)
    assert not result.ok
    assert "killed" in result.why
    assert gone(marker)
    assert cgroups() == []


@pytest.mark.usefixtures("way")
def test_daemons_of_an_interrupted_patch_die_too() -> None:
    marker = f"67.{os.getpid()}"

    def interrupt(_number: int, _frame: object) -> None:
        raise Interrupted("SIGUSR1")

    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(1, signal.pthread_kill, (threading.main_thread().ident, signal.SIGUSR1))
    timer.start()
    try:
        with pytest.raises(Interrupted):
            run.execute(
                ("sh", "-c", f"{DAEMON.format(marker)} sleep {marker}"),
                CLOCK,
                stop_at_raw_ns=CLOCK.now().raw_ns + 60 * NS_PER_S,
                tree=True,
            )
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    assert gone(marker)
    assert cgroups() == []


def test_in_a_cgroup_nothing_escapes(way: str) -> None:
    """Not even a daemon that has cleared its environment."""
    if way != "cgroup":
        return
    marker = f"68.{os.getpid()}"
    done = run.execute(
        ("sh", "-c", f"(env -i setsid sh -c 'sleep {marker} & exit 0' &) ; sleep {marker}"),
        CLOCK,
        stop_at_raw_ns=CLOCK.now().raw_ns + NS_PER_S,
        tree=True,
    )
    assert done.overran
    assert gone(marker)


@pytest.mark.usefixtures("way")
def test_a_daemon_of_a_patch_that_was_in_time_lives_on() -> None:
    marker = f"69.{os.getpid()}"
    patch = command("sh", "-c", f"{DAEMON.format(marker)} sleep 1")
    result = patch.apply(CLOCK.now().raw_ns + 20 * NS_PER_S)
    assert result.ok, result.why
    there = alive(marker)
    assert there
    for pid in there:
        os.kill(pid, signal.SIGKILL)
    assert cgroups() == []


def test_a_service_is_started_for_good(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        service = run.launch(
            ("sh", "-c", "echo $MARK $PWD; exec sleep 60"),
            env={"MARK": "here", "PATH": os.environ["PATH"]},
            cwd=tmp_path,
            stdout=out.fileno(),
            stderr=out.fileno(),
        )
    try:
        assert os.getsid(service.pid) == service.pid
        end = time.monotonic() + 20
        while (tmp_path / "out").read_text() != f"here {tmp_path}\n":
            assert time.monotonic() < end
            time.sleep(0.02)
        assert service.poll() is None
    finally:
        service.kill()
        service.wait()
    with pytest.raises(MachineError, match="cannot be run"):
        run.launch(("/no/such/program",), env={}, cwd=tmp_path, stdout=1, stderr=2)


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
    assert result.why == "halves is still under way"
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
