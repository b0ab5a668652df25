"""Each mechanism's forecast, from its configuration and its state. What is read from a configuration is in
test_core_timesync_configs.py, and forecasts beside measured cycles are in test_core_timesync_cycles.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab.core.clock import Interval
from lab.core.mechanism import Means
from lab.core.plan import ResyncMechanism
from lab.core.resync import Correction
from lab.core.timesync.chronyconf import Makestep, parse
from lab.core.timesync.forecast import Forecast
from lab.core.timesync.rules import forecast
from lab.core.timesync_setup import PUSH_CHANNEL, PUSH_SERIAL, PUSH_SSH, Setup
from tests.unit.simulation import MS, S

M = ResyncMechanism
STEP, SLEW = Correction.STEP, Correction.SLEW


def of(setup: Setup, pause_ns: int, *, stopped: bool = True, watch_ns: int | None = None) -> Forecast:
    return forecast(setup, Interval(pause_ns, pause_ns), stopped, watch_ns)


def chrony(*lines: str, **status: str) -> Setup:
    return Setup(M.CHRONY, config="\n".join(lines), status=status)


SERVER = "server 192.0.2.1 minpoll 0 maxpoll 0 iburst"


def test_the_labs_own_configurations_are_understood() -> None:
    for mechanism in M:
        text = mechanism.config("192.0.2.1", 123, "/dev/ptp0")
        if mechanism.means in (Means.CHRONYD, Means.VMCLOCK):
            conf = parse(text)
            assert len(conf.sources) == 1
            assert isinstance(conf.makestep, Makestep)
        for stopped in (True, False):
            for pause_ns in (5 * MS, 500 * MS, 3 * S, 20 * S, 2000 * S):
                said = of(Setup(mechanism, config=text), pause_ns, stopped=stopped, watch_ns=30 * S)
                assert said.text
                assert said.sources
                assert said.repaired is not None


# -- chronyd ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setup", "pause_ns", "correction"),
    [
        (chrony(SERVER, "makestep 1.0 -1"), 3 * S, STEP),
        (chrony(SERVER, "makestep 1.0 -1"), 500 * MS, SLEW),
        (chrony(SERVER, "makestep 1.0 -1"), 990 * MS, None),  # a line through the samples ends at 4/3 of it
        (chrony(SERVER, "makestep 1.0 -1"), 1400 * MS, None),  # slewed away before it is believed, perhaps
        (chrony(SERVER, "makestep 1 3", updates="4"), 20 * S, SLEW),
        (chrony(SERVER, "makestep 1 3", updates="2"), 20 * S, None),
        (chrony(SERVER, "makestep 1 3"), 20 * S, None),
        (chrony(SERVER, "makestep 0.1 0"), 20 * S, SLEW),
        (chrony(SERVER), 20 * S, SLEW),
        (chrony(SERVER + " maxsamples 1", "makestep 0.05 -1"), 60 * MS, STEP),
        (chrony(SERVER + " maxsamples 1", "makestep 0.05 -1"), 40 * MS, SLEW),
    ],
)
def test_chronyd_steps_or_slews(setup: Setup, pause_ns: int, correction: Correction | None) -> None:
    said = of(setup, pause_ns)
    assert said.correction is correction
    assert said.repaired
    assert said.within is not None
    if correction is SLEW:
        assert said.within.low_ns >= (pause_ns - 30 * MS) * 10 - S
        assert said.within.high_ns > pause_ns * 12
    else:
        assert said.within.low_ns == 0


def test_chronyd_waits_for_its_polls() -> None:
    quick = of(chrony("server a minpoll 0 maxpoll 0", "makestep 1 -1"), 5 * S)
    slow = of(chrony("server a minpoll 6 maxpoll 6", "makestep 1 -1"), 60 * S)
    known = of(chrony("server a minpoll 0 maxpoll 10", "makestep 1 -1", poll="0"), 5 * S)
    unknown = of(chrony("server a minpoll 0 maxpoll 10", "makestep 1 -1", poll="?"), 5 * S)
    latest = [said.within.high_ns if said.within else 0 for said in (quick, known, slow, unknown)]
    assert latest == sorted(latest)
    assert latest[0] < 25 * S < 400 * S < latest[2] < 16 * latest[2] < latest[3] * 1.01


def test_vmclock_has_chronyd_poll_only_after_a_state_was_loaded() -> None:
    setup = Setup(M.VMCLOCK, config=M.VMCLOCK.config("192.0.2.1", 123))
    pause = Interval(3 * S, 3 * S)
    told = forecast(setup, pause, True, 20 * S, migrated=True)
    assert (told.repaired, told.correction) == (True, STEP)
    assert told.within is not None
    assert told.within.high_ns < 10 * S
    alone = forecast(setup, pause, True, 20 * S)
    assert alone.within is not None
    assert alone.within.high_ns > 64 * S
    assert "does not move in a stop" in alone.text
    small = forecast(setup, Interval(20 * MS, 20 * MS), True, 20 * S, migrated=True)
    assert small.correction is SLEW


def test_openntpd_slews_whatever_it_is() -> None:
    config = M.OPENNTPD.config("192.0.2.1", 123)
    for pause_ns in (20 * MS, 3 * S, 60 * S):
        found = of(Setup(M.OPENNTPD, config=config, status={"poll_s": "30"}), pause_ns)
        assert (found.repaired, found.correction) == (True, SLEW)
        assert found.within is not None
        assert found.within.low_ns == pause_ns * 1000  # 500 ppm by adjtime, and 500 ppm of frequency
        assert found.within.high_ns == pause_ns * 2000 + 16 * 35 * S
    assert of(Setup(M.OPENNTPD, config="listen on *\n"), 3 * S).repaired is False


def test_a_touch_of_the_clock_has_timesyncd_poll_at_once() -> None:
    config = M.TIMESYNCD_RESYNC.config("192.0.2.1")
    setup = Setup(M.TIMESYNCD_RESYNC, config=config, status={"PollIntervalUSec": "2048000000"})
    told, alone = of(setup, 3 * S), of(replace(setup, mechanism=M.TIMESYNCD), 3 * S)
    assert (told.correction, alone.correction) == (STEP, STEP)
    assert told.within is not None
    assert alone.within is not None
    assert told.within.high_ns < 10 * S < alone.within.high_ns
    cut = forecast(setup, Interval(3 * S, 3 * S), True, None, cut=True)
    assert cut.within is not None
    assert cut.within.high_ns > told.within.high_ns
    assert of(setup, 300 * MS).correction is SLEW


@pytest.mark.parametrize(
    ("options", "pause_ns", "correction", "low_ns", "high_ns"),
    [
        ("-s /dev/ptp0 -O 0 -R 4 -S 0.05", 3 * S, STEP, 450 * MS, 2 * S),
        ("-s /dev/ptp0 -O 0 -R4 -S0.05", 3 * S, STEP, 450 * MS, 2 * S),
        ("-s /dev/ptp0 -O -37 --step_threshold=0.05", 3 * S, STEP, 1800 * MS, 4 * S),
        ("-s /dev/ptp0 -R 64 -S 0.05", 3 * S, STEP, 70 * MS, 1100 * MS),  # 53 ms are four updates
        ("-s /dev/ptp0 -O 0 -R 4 -S 0.05", 20 * MS, SLEW, 0, 61 * S),
        ("-s /dev/ptp0 -O 0 -R 4 -S 0.05", 50 * MS, None, 0, 61 * S),
        ("-s /dev/ptp0 -O 0 -F 0.001", 3 * S, SLEW, 26 * S, 120 * S),  # the first update was long ago
    ],
)
def test_phc2sys_steps_beyond_its_threshold(
    options: str, pause_ns: int, correction: Correction | None, low_ns: int, high_ns: int
) -> None:
    found = of(Setup(M.PHC2SYS, config=f'OPTIONS="{options}"\n'), pause_ns)
    assert (found.repaired, found.correction) == (True, correction)
    assert found.within is not None
    assert low_ns <= found.within.low_ns <= found.within.high_ns <= high_ns


@pytest.mark.parametrize("options", ["-s /dev/ptp0 -E linreg -S 0.05", "-s /dev/ptp0 -f /etc/phc2sys.conf"])
def test_what_phc2sys_does_by_other_rules_is_open(options: str) -> None:
    assert of(Setup(M.PHC2SYS, config=f'OPTIONS="{options}"\n'), 3 * S).repaired is None


def test_a_slower_slew_takes_longer() -> None:
    fast, slow = (of(chrony(SERVER, f"maxslewrate {ppm}"), 2 * S) for ppm in (83333, 1000))
    assert fast.within is not None
    assert slow.within is not None
    assert slow.within.low_ns == pytest.approx(83.333 * fast.within.low_ns, rel=0.01)
    assert of(chrony(SERVER, "maxslewrate 0"), 2 * S).repaired is False


@pytest.mark.parametrize(
    ("setup", "repaired"),
    [
        (chrony("makestep 1 -1"), False),
        (chrony("makestep 1 -1", "include /etc/more"), None),
        (chrony(""), None),
        (chrony(SERVER, "makestep 1 -1", "maxchange 3 1 -1"), None),
        (chrony(SERVER, "makestep 1 -1", "maxchange 30 1 -1"), True),
    ],
)
def test_what_keeps_chronyd_from_it(setup: Setup, repaired: bool | None) -> None:
    assert of(setup, 5 * S).repaired is repaired


def test_a_long_jump_makes_chronyd_start_anew() -> None:
    assert "anew" in of(chrony(SERVER), 20 * S, stopped=False).text
    assert "anew" not in of(chrony(SERVER), 3 * S, stopped=False).text


# -- timesyncd ---------------------------------------------------------------------------------------


def test_timesyncd_steps_past_four_tenths_at_its_next_poll() -> None:
    for pause_ns, correction in ((3 * S, STEP), (400 * MS, STEP), (399 * MS, SLEW), (50 * MS, SLEW)):
        said = of(Setup(M.TIMESYNCD), pause_ns)
        assert said.correction is correction
        assert said.within is not None
        assert said.within.high_ns >= 2048 * S
    straddling = forecast(Setup(M.TIMESYNCD), Interval(390 * MS, 410 * MS), True, None)
    assert straddling.correction is None
    state = {"PollIntervalUSec": "512000000", "since_poll_s": "10"}
    known = of(Setup(M.TIMESYNCD, status=state), 3 * S, watch_ns=30 * S)
    assert known.within == Interval(442 * S, 532 * S)
    assert "watched for 30 s" in known.text


# -- ntpd --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "pause_ns", "repaired", "correction"),
    [
        ("server a", 3 * S, True, STEP),
        ("server a", 100 * MS, True, SLEW),
        ("server a\ntinker step 0", 3 * S, True, SLEW),
        ("server a", 1001 * S, False, Correction.NONE),
        ("server a\ntinker panic 0", 1001 * S, True, STEP),
        ("restrict 127.0.0.1", 3 * S, False, Correction.NONE),
        ("", 3 * S, None, None),
    ],
)
def test_ntpd_steps_slews_or_ends(
    config: str, pause_ns: int, repaired: bool | None, correction: Correction | None
) -> None:
    said = of(Setup(M.NTPD, config=config), pause_ns)
    assert (said.repaired, said.correction) == (repaired, correction)
    if repaired:
        assert said.within is not None
        assert said.within.high_ns > 300 * S


def test_ntpd_waits_for_the_stepout() -> None:
    known = of(Setup(M.NTPD, config="server a minpoll 3 maxpoll 3", status={"mu": "5", "hpoll": "3"}), 3 * S)
    assert known.within is not None
    assert 100 * S < known.within.low_ns < 300 * S < known.within.high_ns


# -- from the host ----------------------------------------------------------------------------------


def test_the_hosts_repairs_move_a_right_clock_too() -> None:
    """In regime jumped the guest keeps true time; what comes on the resume takes up to a second from it."""
    for mechanism in (M.DOMTIME_NOW, M.AGENT_RTC, M.HWCLOCK):
        said = of(Setup(mechanism), 3 * S, stopped=False)
        assert said.repaired
        assert said.residual is not None
        assert said.residual.low_ns <= -S
        assert said.text.startswith("a right clock")
    assert of(Setup(M.PUSH), 3 * S, stopped=False).residual == Interval(-10 * MS, 10 * MS)


def test_a_push_waits_for_ssh_only_where_it_has_nothing_else() -> None:
    by = {
        channel: forecast(
            Setup(M.PUSH, status={PUSH_CHANNEL: channel} if channel else {}),
            Interval(S, S),
            stopped=True,
            watch_ns=None,
            cut=True,
        )
        for channel in ("", PUSH_SERIAL, PUSH_SSH)
    }
    assert {channel: each.within for channel, each in by.items()} == {
        "": Interval(0, 2 * S), PUSH_SERIAL: Interval(0, 2 * S), PUSH_SSH: Interval(0, 20 * S),
    }  # fmt: skip
    assert by[PUSH_SERIAL].text == "stepped at once, by the offset measured, over virtio-serial"
    assert by[PUSH_SSH].text == "stepped once SSH is back, by the offset measured, over SSH"


@pytest.mark.parametrize("mechanism", [M.AGENT, M.DOMTIME_NOW, M.AGENT_RTC])
def test_an_agent_that_does_not_answer_repairs_nothing(mechanism: M) -> None:
    """V9: it is frozen all the same, and told what will come of it."""
    setup = Setup(mechanism, status={"silent": "its agent does not answer: it is not connected"})
    foreseen = of(setup, 3 * S)
    assert foreseen.repaired is False
    assert foreseen.correction is Correction.NONE
    assert foreseen.residual == Interval(-3 * S, -3 * S)
    assert foreseen.text.endswith("its agent does not answer: it is not connected")


@pytest.mark.parametrize(
    ("pause_ns", "correction"), [(3 * S, STEP), (500 * MS, STEP), (300 * MS, None), (150 * MS, SLEW)]
)
def test_chronyd_follows_the_rtc_through_a_pause(pause_ns: int, correction: Correction | None) -> None:
    """A sample is an average: what is seen of 300 ms first may be below makestep's 200 ms, or above."""
    status = {"rtc_minus_real_ns": "-480000000", "rtc_bound_ns": "5000000"}
    setup = Setup(M.CHRONY_RTC, config=M.CHRONY_RTC.config(rtc_behind_ns=480 * MS), status=status)
    said = of(setup, pause_ns)
    assert said.repaired
    assert said.correction is correction
    assert said.residual is not None
    # An interrupt may be late; but the clock is not where the RTC is, which is half a second behind.
    assert 0 in said.residual
    assert said.residual.low_ns > -300 * MS
    assert said.residual.high_ns < 30 * MS


def test_a_pause_that_leaves_the_clock_where_the_rtc_may_keep_it_takes_no_slew() -> None:
    status = {"rtc_minus_real_ns": "-480000000", "rtc_bound_ns": "5000000"}
    setup = Setup(M.CHRONY_RTC, config=M.CHRONY_RTC.config(rtc_behind_ns=480 * MS), status=status)
    by_rtc, by_ntp = of(setup, 100 * MS).within, of(chrony(SERVER, "makestep 0.2 -1"), 100 * MS).within
    assert by_rtc is not None and by_rtc.low_ns == 0
    assert by_ntp is not None and by_ntp.low_ns > 0


def test_chronyd_by_an_rtc_that_is_not_corrected_for_is_as_far_behind_as_it() -> None:
    status = {"rtc_minus_real_ns": "-480000000", "rtc_bound_ns": "5000000"}
    setup = Setup(M.CHRONY_RTC, config=M.CHRONY_RTC.config(), status=status)
    said = of(setup, 3 * S)
    assert said.residual is not None
    assert said.residual.high_ns < -400 * MS


def test_chronyd_repairs_nothing_by_an_rtc_that_stood_still() -> None:
    config = M.CHRONY_RTC.config()
    said = of(Setup(M.CHRONY_RTC, config=config, rtc_stops=True), 3 * S)
    assert said.repaired is False
    assert said.residual == Interval(-3 * S, -3 * S)
    both = Setup(M.CHRONY_RTC, config=f"{config}server 192.0.2.1 minpoll 0 maxpoll 0\n", rtc_stops=True)
    assert of(both, 3 * S).repaired


def test_the_rtcs_first_interrupt_after_a_pause_is_outvoted_by_three_more() -> None:
    """Seen with filter 1: after 3 s of SIGSTOP a right clock went back by 0.58 s, for one second."""
    config = M.CHRONY_RTC.config()
    assert of(Setup(M.CHRONY_RTC, config=config), 3 * S, stopped=False).correction is Correction.NONE
    for spoiled in (config.replace("filter 4", "filter 1"), config.replace("poll 2", "poll 0")):
        assert of(Setup(M.CHRONY_RTC, config=spoiled), 3 * S, stopped=False).repaired is None


def test_an_rtc_that_was_read_is_known_better() -> None:
    status = {"rtc_minus_real_ns": "-480000000", "rtc_bound_ns": "5000000"}
    known = of(Setup(M.HWCLOCK, status=status), 3 * S).residual
    unknown = of(Setup(M.HWCLOCK, status={"rtc_minus_real_ns": "none"}), 3 * S).residual
    assert known is not None
    assert unknown is not None
    assert -480 * MS in known
    assert 3 * known.half_width_ns < unknown.half_width_ns


def test_an_rtc_that_stops_repairs_nothing() -> None:
    for mechanism in (M.AGENT_RTC, M.HWCLOCK):
        said = of(Setup(mechanism, rtc_stops=True), 5 * S)
        assert said.repaired is False
        assert said.residual is not None
        assert said.residual.high_ns < -4 * S
        assert of(Setup(mechanism, rtc_stops=True), 5 * S, stopped=False).repaired


# -- the offset before the freeze ---------------------------------------------------------------------

H = 3600 * S
USED_UP = chrony(SERVER, "makestep 1 3", updates="9", poll="0")
TIMESYNCD = Setup(M.TIMESYNCD, config="[Time]\nPollIntervalMaxSec=32\n", status={"PollIntervalUSec": "32s"})
NTPD = Setup(M.NTPD, config="server 192.0.2.1\ntinker stepback 0\n")


def off_before(setup: Setup, before_ns: int, *, stopped: bool = True) -> Forecast:
    before = Interval(before_ns - MS, before_ns + MS)
    return forecast(setup, Interval(5 * S, 5 * S), stopped, 20 * S, None, before)


@pytest.mark.parametrize("before_ns", [2 * H, -H // 2])
def test_an_rtc_that_stops_still_sets_a_clock_that_was_off(before_ns: int) -> None:
    said = off_before(Setup(M.HWCLOCK, rtc_stops=True), before_ns)
    assert said.repaired
    assert said.correction is STEP
    assert said.residual is not None
    assert -7 * S < said.residual.low_ns < -5 * S < said.residual.high_ns < -4 * S
    assert "left behind by 5 s" in said.text
    assert off_before(Setup(M.HWCLOCK, rtc_stops=True), 0).repaired is False


@pytest.mark.parametrize("stopped", [True, False])
def test_a_guest_two_hours_ahead_is_slewed_for_a_day(stopped: bool) -> None:
    """chronyd slews 83.3 ms a second, whatever the pause is: 79.6 s were forecast."""
    said = off_before(USED_UP, 2 * H, stopped=stopped)
    assert said.correction is SLEW
    assert said.within is not None
    assert 19 * H < said.within.low_ns < 20 * H  # the fit's frequency helps it on
    assert 23.9 * H < said.within.high_ns < 24.1 * H
    assert "within 24 h (watched for 20 s)" in said.text


def test_what_was_off_before_decides_between_step_and_slew() -> None:
    assert off_before(TIMESYNCD, -300 * MS, stopped=False).correction is SLEW
    assert off_before(TIMESYNCD, -500 * MS, stopped=False).correction is STEP
    assert off_before(NTPD, -H // 6).correction is STEP
    assert off_before(NTPD, H // 6).correction is SLEW  # it may not step backward
    assert off_before(NTPD, 2 * H).repaired is False
    assert off_before(Setup(M.NONE), 3 * H).text == "stays ahead by 3 h"
    assert off_before(Setup(M.AGENT), 2 * H, stopped=False).correction is STEP
    assert off_before(Setup(M.AGENT), 0, stopped=False).correction is None


def test_what_is_in_time_before_is_forecast_as_ever() -> None:
    for setup in (USED_UP, TIMESYNCD, NTPD, Setup(M.NONE), Setup(M.AGENT)):
        assert off_before(setup, 0).text == forecast(setup, Interval(5 * S, 5 * S), True, 20 * S).text


# -- all that decides ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setup", "correction", "words"),
    [
        (chrony(SERVER, "makestep 1 -1", options="/usr/sbin/chronyd -F 1"), STEP, "stepped"),
        (chrony(SERVER, "makestep 1 -1", options="/usr/sbin/chronyd -4nx"), Correction.NONE, "chronyd -x"),
        (chrony(SERVER, "makestep 1 3", updates="0", options="chronyd -R"), SLEW, "no makestep"),
        (chrony(SERVER, "makestep 1 3", updates="0", options="chronyd -u -R"), None, "stepped or slewed"),
        (chrony(SERVER, "makestep 1 -1", online="0", offline="1"), Correction.NONE, "sources are offline"),
        (chrony(SERVER, "makestep 1 -1", online="1", offline="1"), STEP, "stepped"),
        (chrony(f"{SERVER} offline", "makestep 1 -1"), Correction.NONE, "sources are offline"),
        (chrony(f"{SERVER} offline", "makestep 1 -1", online="1", offline="0"), STEP, "stepped"),
        (Setup(M.NTPD, config="server a", status={"options": "ntpd -p /run/x -g"}), STEP, "stepped"),
        (Setup(M.NTPD, config="server a", status={"options": "/usr/sbin/ntpd -gx"}), SLEW, "slewed"),
        (Setup(M.NTPD, config="server a", status={"options": "ntpd --slew"}), SLEW, "slewed"),
        (
            Setup(M.NTPD, config="server a\ntinker step 1", status={"options": "ntpd -x"}), STEP, "stepped",
        ),
    ],
)  # fmt: skip
def test_a_programs_options_and_what_it_was_told_count(
    setup: Setup, correction: Correction | None, words: str
) -> None:
    said = of(setup, 5 * S)
    assert said.correction is correction
    assert words in said.text


def test_an_rtc_in_local_time_is_read_as_such() -> None:
    """/etc/adjtime says LOCAL, two hours east of UTC: a clock set from it is two hours behind."""
    setup = Setup(M.AGENT_RTC, status={"rtc_minus_real_ns": "0", "rtc_bound_ns": "0", "rtc_zone_s": "7200"})
    said = of(setup, 5 * S)
    assert said.residual is not None
    assert -2 * H - S < said.residual.low_ns < said.residual.high_ns < -2 * H + S
    assert said.text == "one step, to the RTC's second, read as local time, 2 h east of UTC"
    drifted = replace(
        setup, status={"rtc_minus_real_ns": "0", "rtc_bound_ns": "0", "rtc_drift_ns": str(3 * S)}
    )
    where = of(drifted, 5 * S).residual
    assert where is not None
    assert where.low_ns < 3 * S < where.high_ns
