"""What guests have dated: from lines to counts, against guests whose clocks are known."""

from __future__ import annotations

import base64
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.clock import Interval, Stamp
from lab.core.method import Regime
from lab.core.units import NS_PER_S
from lab.core.verdict import Outcome
from lab.core.workload.findings import outcome, workload_findings
from lab.core.workload.judge import WorkloadWindow, measure_workload
from lab.core.workload.prediction import EVER_NS, happened
from lab.core.workload.sample import NotASample, SampleReader, WorkloadStamp
from lab.core.workload.shipped.timestamps import PROGRAM
from lab.core.workload.spec import WorkloadExpect, WorkloadSpec
from lab.core.workload.stamps import StaleStamps, StampContext, stale_stamps
from lab.host.clients.timestamps import NoToken, claims_of
from tests.unit.shipped_workloads import file_of, guests_of, predicted
from tests.unit.simulated_workloads import MS, START, S
from tests.unit.strategies import cases

AT = Stamp(1_000_000_000, 2_000_000_000)
REAL = 1_790_000_000 * S


def test_a_line_of_what_was_dated() -> None:
    reader = SampleReader()
    reader.read('{"freezelab": 1}', AT)
    (line,) = reader.read('{"stamped": "log line", "stamp": 7, "sent": 5, "done": 9, "by": "a"}', AT)
    assert line == WorkloadStamp("log line", 5, 9, 7, by="a", real_minus_raw_ns=1_000_000_000)
    (token,) = reader.read('{"stamped": "token", "stamp": 1, "until": 6, "unit_ns": 1000000000}', AT)
    assert token == WorkloadStamp("token", AT.raw_ns, AT.raw_ns, 1, 6, S, "", 1_000_000_000)


@pytest.mark.parametrize(
    "line",
    [
        '{"stamped": ""}', '{"stamped": 5, "stamp": 1}', '{"stamped": "token"}',
        '{"stamped": "token", "stamp": -1}', '{"stamped": "token", "stamp": 1.5}',
        '{"stamped": "token", "stamp": 1, "unit_ns": 0}', '{"stamped": "token", "stamp": 1, "until": "x"}',
        '{"stamped": "token", "stamp": 1, "unit_ns": 99999999999999}',
        '{"stamped": "token", "stamp": 1, "sent": 9, "done": 5}',
        '{"stamped": "token", "stamp": 1, "seq": 5, "ok": true}',
    ],
)  # fmt: skip
def test_what_is_no_such_line(line: str) -> None:
    with pytest.raises(NotASample):
        SampleReader().read(line, AT)


def test_a_client_that_invents_kinds_is_no_longer_read() -> None:
    reader = SampleReader()
    for number in range(16):
        reader.read(f'{{"stamped": "kind {number}", "stamp": 1}}', AT)
    with pytest.raises(NotASample, match="more than 16 kinds"):
        reader.read('{"stamped": "kind 16", "stamp": 1}', AT)


# A guest that writes, whose clock is known


class _Dated:
    """What was dated at `at`, by a clock that is off."""

    def __init__(self, at: int, off: int, unit: int, lifetime: int, luck: random.Random, slow: int) -> None:
        self.at, self.off, self.unit = at, off, unit
        self.stamp = (at + REAL + off) // unit * unit
        self.until = self.stamp + lifetime
        self.sent, self.done = at - luck.randrange(slow), at + luck.randrange(slow)

    def is_wrong(self, tolerance: int) -> bool:
        """Whether no right clock would have written this, whatever its error within the tolerance."""
        low = (self.at + REAL - tolerance) // self.unit * self.unit
        high = (self.at + REAL + tolerance) // self.unit * self.unit
        return not low <= self.stamp <= high

    def sample(self, by: str) -> WorkloadStamp:
        return WorkloadStamp("x", self.sent, self.done, self.stamp, self.until, self.unit, by, REAL)


@given(
    st.integers(-9 * S, 9 * S),
    st.integers(0, 9 * S),
    st.sampled_from([1, 1000, S]),
    st.sampled_from([S, 4 * S, 60 * S]),
    st.sampled_from([MS, 50 * MS, 300 * MS]),
    st.sampled_from([MS, 100 * MS]),
    st.booleans(),
    st.integers(0, 2**32),
)
@cases(1500)
def test_what_was_dated_is_judged_as_it_was(
    off: int, repaired: int, unit: int, lifetime: int, slow: int, tolerance: int, named: bool, seed: int
) -> None:
    """Off from the resume until it is repaired. What was asked for in the pause is dated after it."""
    luck = random.Random(seed)
    stopped, resumed = START + 4 * S, START + 8 * S
    made, asked = [], START
    while asked < START + 30 * S:
        asked += luck.randrange(1, 400 * MS)
        at = asked + luck.randrange(MS)
        if stopped <= at < resumed:
            at = resumed + luck.randrange(20 * MS)
        one = _Dated(at, off if 0 <= at - resumed < repaired else 0, unit, lifetime, luck, slow)
        one.sent = min(one.sent, asked)
        made.append(one)
    paused = Interval(stopped - luck.randrange(MS), resumed + luck.randrange(MS))
    stood = {"g": Interval(stopped + luck.randrange(MS), resumed - luck.randrange(MS))} if named else {}
    context = StampContext(paused.high_ns, tolerance, stood, resumed + repaired)
    samples = [one.sample("g") for one in made]
    luck.shuffle(samples)
    (found,) = stale_stamps(samples, context)
    of = {(one.sent, one.done): one for one in made}
    counted = [of[one.sent_ns, one.done_ns] for one in samples if context.made(one) is not None]
    assert all(one.at >= resumed - MS for one in counted)
    since = stood["g"].low_ns if named else paused.high_ns
    assert found.stamped == len(counted) == sum(one.sent >= since for one in made)
    truth = sum(one.is_wrong(tolerance) for one in counted)
    assert found.wrong <= truth <= found.wrong + found.undecided
    if found.wrong:
        assert found.worst_ns * off > 0
        assert abs(found.worst_ns) <= abs(off) + unit
        assert found.last_ns is not None
        assert found.last_ns <= repaired + 2 * slow + 20 * MS
    assert found.expired == sum(one.until <= one.done + REAL for one in counted)
    assert found.not_yet_valid == sum(one.stamp > one.done + REAL for one in counted)
    in_order = sorted(made, key=lambda one: one.at)
    latest, most = -1, 0
    for one in in_order:
        most += one in counted and one.stamp < latest
        latest = max(latest, one.stamp)
    assert found.disordered <= most, "none is out of order that was not"
    assert found.in_window is not None
    assert found.in_window <= sum(one.at <= resumed + repaired for one in counted)


def _stamp(at: int, stamp: int, by: str = "g", what: str = "log line", **more: int) -> WorkloadStamp:
    return WorkloadStamp(
        what, START + at, START + at, REAL + START + stamp, by=by, real_minus_raw_ns=REAL, **more
    )


def _judged(
    *stamps: WorkloadStamp, wrong_stamps: int | None = None, refused: int | None = None
) -> tuple[tuple[StaleStamps, ...], Outcome]:
    """Frozen from 1 s to 6 s."""
    window = WorkloadWindow(
        0, START, START + 20 * S, frozen=True, stamps=stamps,
        paused=Interval(START + S, START + 6 * S), pause=Interval(5 * S, 5 * S),
        stood={"g": Interval(START + S, START + 6 * S)}, in_time_ns=START + 8 * S,
        peers=frozenset({"peer"}),
    )  # fmt: skip
    spec = WorkloadSpec("it", expect=WorkloadExpect(wrong_stamps=wrong_stamps, refused=refused))
    (result,) = measure_workload([window], spec, 100 * MS)
    return result.stamps, outcome(spec, result)


def test_a_line_that_waited_for_the_guest_is_dated_after_the_wake() -> None:
    waited = WorkloadStamp("log line", START + 3 * S, START + 6 * S, REAL + START + S, None, 1, "g", REAL)
    (kind,), _ = _judged(waited)
    assert (kind.stamped, kind.wrong, kind.worst_ns, kind.in_window) == (1, 1, -5 * S, 1)
    (kind,), _ = _judged(replace(waited, by="other"))
    assert kind.stamped == 0, "another guest may have written it in the pause"
    late = replace(waited, sent_ns=START + 9 * S, done_ns=START + 9 * S)
    assert [_judged(replace(late, by=by))[0][0].stamped for by in ("g", "other", "peer")] == [1, 1, 0]


def test_lines_of_a_guest_that_is_behind_come_before_those_that_are_older() -> None:
    (kind,), _ = _judged(_stamp(4 * S, 4 * S, "peer"), _stamp(7 * S, 2 * S), _stamp(9 * S, 9 * S))
    assert kind.disordered == 1
    (kind,), _ = _judged(_stamp(0, 0), _stamp(7 * S, 2 * S), _stamp(9 * S, 9 * S))
    assert kind.disordered == 0, "its own clock has stood, and not gone back"


def test_kinds_are_told_apart_and_each_is_held_to_the_limit() -> None:
    stamps = [_stamp(7 * S, 2 * S), _stamp(7 * S, 7 * S, what="file")]
    (lines, files), verdict = _judged(*stamps, wrong_stamps=0)
    assert (lines.what, lines.wrong, files.what, files.wrong) == ("log line", 1, "file", 0)
    assert verdict is Outcome.FAILED
    assert _judged(*stamps, wrong_stamps=1)[1] is Outcome.PASSED
    assert _judged(*stamps)[1] is Outcome.PASSED


def test_a_token_is_refused_from_the_moment_at_which_it_ends() -> None:
    def token(stamp: int, until: int) -> WorkloadStamp:
        return _stamp(7 * S, stamp, what="token", until_ns=REAL + START + until)

    for given_, expired, early in (
        (token(2 * S, 7 * S), 1, 0), (token(2 * S, 7 * S + 1), 0, 0), (token(7 * S + 1, 9 * S), 0, 1),
    ):  # fmt: skip
        (kind,), verdict = _judged(given_, refused=0)
        assert (kind.expired, kind.not_yet_valid) == (expired, early)
        assert verdict is (Outcome.FAILED if expired + early else Outcome.PASSED)
    assert _judged(refused=0)[1] is Outcome.INCONCLUSIVE


def test_a_client_that_only_dates_is_a_client() -> None:
    window = WorkloadWindow(0, START, START + S, stamps=[_stamp(5, 5)])
    (result,) = measure_workload([window], WorkloadSpec("it"), MS)
    assert [one.outcome for one in workload_findings(WorkloadSpec("it"), result)] == [Outcome.PASSED]
    assert happened("refused", result) is False


# The lab's own


def test_a_token_of_the_guests_program_is_read_and_a_forged_one_is_not(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(file_of(guests_of("timestamps", lifetime="7s")["stamps-0"], "/etc/lab-timestamps.json"))
    source = PROGRAM.partition("lines = []")[0].replace("/etc/lab-timestamps.json", str(config))
    inside: dict[str, object] = {}
    exec(source, inside)  # noqa: S102 - the lab's own program
    token = inside["token"](5)  # type: ignore[operator]
    issued, until = claims_of(token)
    assert until - issued == 7 * NS_PER_S
    head, body, signature = token.split(".")
    other = base64.urlsafe_b64encode(json.dumps({"iat": 1, "exp": 2}).encode()).rstrip(b"=").decode()
    for forged in ("", "a.b", f"{head}.{other}.{signature}", f"{head}.{body}.", token + "x"):
        with pytest.raises(NoToken):
            claims_of(forged)


def test_tokens_expire_before_they_are_there_only_where_the_clock_stood() -> None:
    guest = guests_of("timestamps", lifetime="8s")["stamps-0"]
    config = {"stamps-0": file_of(guest, "/etc/lab-timestamps.json")}
    assert predicted("timestamps", config, Regime.JUMPED)["refused"].pause is None
    assert predicted("timestamps", config, Regime.RESUMED)["refused"].pause == Interval(7 * S, EVER_NS)
    assert "refused" not in predicted("timestamps", {}, Regime.RESUMED)
    for value in ("1500ms", "0s", "x"):
        with pytest.raises(ValueError, match=r"^lifetime: "):
            guests_of("timestamps", lifetime=value)
