"""The controller's two promises, with fake ports on a clock that only the test moves."""

from __future__ import annotations

from itertools import pairwise

import pytest

from lab.controller import RESERVE_NS, Controller, CycleGuest
from lab.controller.clock_reader import LEAST_CPU_WAIT_NS
from lab.controller.cycle import reserve_ns
from lab.core.clock import Stamp
from lab.core.history import (
    CpuUsed,
    CpuWaited,
    CycleBegan,
    ExchangeEnded,
    PatchApplied,
    ProblemMet,
    ResumeCalled,
    StopCalled,
    VersionsCompared,
)
from lab.core.plan import FreezeMethod
from lab.core.timeline import Call
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import FreezelabError, GuestError, GuestGone, HypervisorError, Interrupted
from lab.ports import PatchResult, Resumed
from tests.unit.controller_ports import SPEC, FakePatch, FakeProbe, FakeResync, FakeView, World, cycle


def test_the_order_of_a_cycle() -> None:
    world = World()
    cycle(world)
    order = [
        "prepare a", "prepare b",
        "phase settle", "start a", "facts a", "start b", "facts b", "phase measure", "read a", "phase freeze",
        "guard", "freeze a", "frozen a", "freeze b", "frozen b", "patch", "before resume a",
        "before resume b", "resume a", "resync a", "resume b", "resync b",
        "guard ends", "phase watch", "samples a", "samples b",
    ]  # fmt: skip
    places = [world.log.index(line) for line in order]
    assert places == sorted(places)
    last_read = max(i for i, line in enumerate(world.log[: world.log.index("freeze a")]) if line == "read b")
    assert last_read < world.log.index("freeze a")
    for guest in "ab":
        kinds = world.kinds(guest)
        wanted = [
            "cycle",
            "facts",
            "readings",
            "stop",
            "resume",
            "samples",
            "beats",
            "resync",
        ]
        assert [k for k in dict.fromkeys(kinds) if k in wanted] == wanted
        assert {"cpu", "patch"} <= set(kinds)
        assert kinds[-1] == "cycle-end"
    assert not world.frozen


def test_the_patch_and_the_guard_are_given_the_budget() -> None:
    world = World()
    cycle(world)
    began = world.of(StopCalled)[0].call.called.raw_ns
    assert world.patch_deadline <= began + SPEC.budget_ns - RESERVE_NS
    assert world.patch_deadline >= began + SPEC.budget_ns - RESERVE_NS - NS_PER_MS
    assert world.guarded == ["a", "b"]


@pytest.mark.parametrize(
    ("pace", "budget_ms", "reserve_ms"),
    [
        (1.0, 6000, 250),
        (1.0, 400, 250),
        (3.0, 6000, 750),
        (3.0, 2000, 500),
        (30.0, 30_000, 7500),
        (3.0, 400, 250),
    ],
)
def test_a_slow_host_has_a_larger_reserve(pace: float, budget_ms: int, reserve_ms: int) -> None:
    assert reserve_ns(budget_ms * NS_PER_MS, pace) == reserve_ms * NS_PER_MS


def test_a_control_cycle_freezes_nobody() -> None:
    world = World()
    cycle(world, frozen=False)
    assert not [line for line in world.log if line.startswith(("freeze", "frozen", "before", "resync"))]
    assert "patch" in world.log
    assert "cpu" not in world.kinds("a")
    assert world.of(CycleBegan)[0].frozen is False


@pytest.mark.parametrize(
    "error",
    [RuntimeError("bug"), HypervisorError("gone"), Interrupted("^C"), KeyboardInterrupt(), SystemExit(1)],
)
def test_guests_are_resumed_when_the_patch_raises(error: BaseException) -> None:
    world = World()
    world.fail["patch"] = error
    with pytest.raises(type(error)):
        cycle(world)
    assert not world.frozen
    assert {"resume a", "resume b"} <= set(world.log)


def test_guests_are_resumed_when_the_second_cannot_be_frozen() -> None:
    world = World()
    world.fail["freeze b"] = HypervisorError("refused", where="b")
    with pytest.raises(HypervisorError, match="refused"):
        cycle(world)
    assert not world.frozen
    assert "patch" not in world.log
    assert "resume a" in world.log


def test_one_that_cannot_be_resumed_does_not_keep_the_others() -> None:
    world = World()
    world.fail["resume a"] = HypervisorError("gone", where="a")
    with pytest.raises(HypervisorError, match="gone"):
        cycle(world)
    assert world.frozen == {"a"}
    assert "resume b" in world.log


def test_a_resync_that_fails_does_not_keep_the_others() -> None:
    world = World()
    world.fail["resync a"] = GuestError("no agent", where="a")
    with pytest.raises(FreezelabError):
        cycle(world)
    assert not world.frozen


def test_interrupted_anywhere_no_guest_stays_frozen() -> None:
    """At every single thing that the controller does, before it is done; the resumes are shielded, and the
    ends of what is left over."""
    whole = World()
    cycle(whole)
    done = [line for line in whole.log if line != "guard ends"]  # which nothing interrupts
    for place in range(1, whole.steps + 1):
        world = World()
        world.interrupt_at = place
        try:
            cycle(world)
        except Interrupted:
            assert not done[place - 1].startswith("finish"), "what is left over would stay"
        else:
            shielded = ("before resume", "resume", "resync", "finish")
            assert done[place - 1].startswith(shielded), "only a shielded place goes on"
        assert not world.frozen, done[place - 1]
        assert "prepare a" not in world.log or set(world.finished) == {"a", "b"}


@pytest.mark.parametrize("place", ["freeze a", "freeze b", "cpu a", "cpu b", "view frozen", "patch"])
def test_interrupted_when_it_was_just_done(place: str) -> None:
    world = World()
    world.after[place] = Interrupted("^C")
    with pytest.raises(Interrupted):
        cycle(world)
    assert not world.frozen


def test_interrupted_on_the_way_into_the_shield() -> None:
    world = World()
    world.interrupted_on_the_way = True
    with pytest.raises(Interrupted):
        cycle(world)
    assert not world.frozen


def test_a_bug_in_one_guests_resume_does_not_keep_the_others() -> None:
    world = World()
    world.fail["resync a"] = RuntimeError("bug")
    with pytest.raises(RuntimeError):
        cycle(world)
    assert not world.frozen


def test_cpu_time_that_was_read_only_once_is_not_journalled() -> None:
    world = World()
    world.after["patch"] = None
    with pytest.raises(HypervisorError):
        cycle(world)
    assert all(used.used_ns is not None and used.used_ns >= 0 for used in world.of(CpuUsed))


def test_how_long_the_guests_waited_for_a_cpu_is_in_the_history() -> None:
    """Looked at before anything is frozen, never while it is, and to the end of the watch."""
    world = World()
    cycle(world, watch_ns=NS_PER_S)
    assert world.log.index("cpu wait b") < world.log.index("freeze a")
    frozen = world.log[world.log.index("freeze a") : world.log.index("resume b")]
    assert not [line for line in frozen if line.startswith("cpu wait")]
    for name in "ab":
        (waited,) = world.of(CpuWaited, name)
        (stop,), (resume,) = world.of(StopCalled, name), world.of(ResumeCalled, name)
        times = [wait.at_raw_ns for wait in waited.waits]
        assert times[0] < stop.call.called.raw_ns
        assert times[-1] > resume.call.returned.raw_ns + NS_PER_S // 2
        assert all(
            later.waited_ns >= one.waited_ns + LEAST_CPU_WAIT_NS for one, later in pairwise(waited.waits)
        )


def test_what_the_guard_resumed_is_not_resumed_again() -> None:
    world = World()
    call = Call(Stamp(5, 5), Stamp(6, 6))
    world.by_guard = {"a": Resumed(call)}
    cycle(world)
    assert "resume a" not in world.log
    assert "resume b" in world.log
    assert [event.call for event in world.of(ResumeCalled, "a")] == [call]


def test_a_lost_probe_is_a_problem_of_its_guest_only() -> None:
    world = World()
    world.fail["read a"] = GuestError("the probe's channel was lost", where="guest a")
    cycle(world)
    assert problems_of(world, "a") == ["guest a: the probe's channel was lost"]
    assert "freeze a" not in world.log
    assert "problem" not in world.kinds("b")
    assert world.kinds("b")[-1] == world.kinds("a")[-1] == "cycle-end"
    assert {"freeze b", "resume b", "samples b"} <= set(world.log)


def test_a_probe_lost_after_the_resume() -> None:
    world = World()
    world.fail["samples a"] = GuestError("the probe did not answer within 15 s", where="guest a")
    cycle(world)
    assert "stop" in world.kinds("a")
    assert "resume" in world.kinds("a")
    assert "problem" in world.kinds("a")
    assert "samples" in world.kinds("b")


def test_all_probes_lost_ends_the_cycle_without_a_freeze() -> None:
    world = World()
    world.fail |= {f"start {n}": GuestError("gone") for n in "ab"}
    cycle(world)
    assert not [line for line in world.log if line.startswith("freeze")]
    assert world.kinds("a")[-1] == "cycle-end"


ENDED = GuestGone("has ended: it powered itself off", where="guest a", ended=True)
ASLEEP = GuestGone("is asleep: it suspended itself to RAM", where="guest a")


def problems_of(world: World, guest: str) -> list[str]:
    return [problem.text for problem in world.of(ProblemMet, guest)]


@pytest.mark.parametrize("gone", [ENDED, ASLEEP])
def test_a_guest_that_is_known_to_be_gone_does_not_hold_up_the_others(gone: GuestGone) -> None:
    """Nothing is asked of it, and the living are frozen as ever; what has ended is raised after the cycle."""
    world = World()
    world.gone["a"] = gone
    if gone.ended:
        with pytest.raises(GuestGone, match="powered itself off"):
            cycle(world)
    else:
        cycle(world)
    assert problems_of(world, "a") == [str(gone)]
    assert not {"prepare a", "start a", "read a", "freeze a", "samples a"} & set(world.log)
    assert {"freeze b", "patch", "resume b", "samples b"} <= set(world.log)
    assert world.kinds("a")[-1] == world.kinds("b")[-1] == "cycle-end"


def test_a_guest_that_sleeps_when_the_cycle_begins_is_woken_if_that_was_asked_for() -> None:
    world = World()
    world.gone["a"] = ASLEEP
    cycle(world, wake=True)
    assert problems_of(world, "a") == []
    order = ["wake a", "wake b", "prepare a", "freeze a", "freeze b", "samples a"]
    places = [world.log.index(line) for line in order]
    assert places == sorted(places)


def test_a_guest_that_has_ended_is_not_woken() -> None:
    world = World()
    world.gone["a"] = ENDED
    with pytest.raises(GuestGone, match="powered itself off"):
        cycle(world, wake=True)
    assert problems_of(world, "a") == [str(ENDED)]
    assert "freeze b" in world.log


def test_a_guest_that_ends_in_the_watch_ends_the_run_when_the_cycle_is_whole() -> None:
    world = World()

    watch = world.phase

    def phase(name: str, *, guest: str = "", length_ns: int | None = None) -> None:
        if name == "watch":
            world.fail["read a"] = ENDED
            world.gone["a"] = ENDED
        watch(name, guest=guest, length_ns=length_ns)

    world.phase = phase  # type: ignore[method-assign]
    with pytest.raises(GuestGone, match="powered itself off"):
        cycle(world)
    assert {"stop", "resume", "problem"} <= set(world.kinds("a"))
    assert "samples a" not in world.log
    assert {"samples", "verified"} <= set(world.kinds("b"))
    assert "verified" not in world.kinds("a"), "QEMU is not there to be asked for its version"


def test_a_failing_patch_is_journalled() -> None:
    world = World()
    controller = Controller(world, world, world, FakeView(world), world.shield)
    patch = FakePatch(world)
    patch.result = PatchResult(False, "exit status 3", {"status": 3})
    subjects = {"a": CycleGuest("a", FakeProbe(world, "a"), FakeResync(world, "a"))}
    controller.run_cycle(3, subjects, SPEC, patch, frozen=True)
    assert world.of(PatchApplied) == [PatchApplied("a", 3, False, "exit status 3", {"status": 3})]


def test_a_freeze_that_was_called_off_leaves_the_host_unpatched() -> None:
    world = World()
    world.called_off["b"] = "the successor died"
    cycle(world)
    assert "patch" not in world.log
    assert "resume b" not in world.log
    assert {"resume a", "resync a", "resync b"} <= set(world.log)
    assert not world.frozen
    assert [event.called_off for event in world.of(ExchangeEnded, "b")] == ["the successor died"]
    patched = world.of(PatchApplied)
    assert {event.ok for event in patched} == {False}
    assert "the successor died" in patched[0].why


def test_guests_that_are_resumed_in_their_freeze_go_one_after_another() -> None:
    world = World()
    world.at_once = {"a", "b"}
    cycle(world)
    order = ["freeze a", "resync a", "freeze b", "resync b", "patch", "phase watch"]
    places = [world.log.index(line) for line in order]
    assert places == sorted(places)
    assert not {"resume a", "resume b"} & set(world.log)
    for guest in "ab":
        kinds = world.kinds(guest)
        assert kinds.count("stop") == kinds.count("resume") == kinds.count("migration") == 1
        assert kinds.index("migration") > kinds.index("samples")  # only then it is over
    patched = [event for event in world.events if isinstance(event, PatchApplied)]
    assert [event.ok for event in patched] == [True, True]  # nothing was called off


def test_what_is_left_is_ended_whatever_happens() -> None:
    world = World()
    world.fail["patch"] = RuntimeError("bug")
    with pytest.raises(RuntimeError):
        cycle(world)
    assert set(world.finished) == {"a", "b"}


def test_a_reboot_shuts_down_patches_and_starts() -> None:
    world = World()
    cycle(world, method=FreezeMethod.REBOOT)
    order = ["shutdown a", "shutdown b", "patch", "boot a", "boot b", "restart a", "resync a", "phase watch"]
    places = [world.log.index(line) for line in order]
    assert places == sorted(places)
    assert not [line for line in world.log if line.startswith(("freeze", "guard"))]
    assert {event.frozen for event in world.of(CycleBegan)} == {False}


@pytest.mark.parametrize("place", ["patch", "shutdown b"])
def test_what_was_shut_down_is_started_whatever_happens(place: str) -> None:
    world = World()
    world.fail[place] = Interrupted("^C")
    with pytest.raises(Interrupted):
        cycle(world, method=FreezeMethod.REBOOT)
    assert not world.down
    assert "boot a" in world.log


def test_versions_are_taken_before_and_after() -> None:
    world = World()
    cycle(world)
    verified = world.of(VersionsCompared, "a")[0]
    assert verified.before != verified.after
    assert verified.why == ""
