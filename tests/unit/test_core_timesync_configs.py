"""What is read from the configurations of chronyd, timesyncd and ntpd, as people write them."""

from __future__ import annotations

import pytest

from lab.core.timesync.chronyconf import MAX_SLEW_PPM, ChronyConf, Source, parse
from lab.core.timesync.ntpd import parse as ntp_conf
from lab.core.timesync.timesyncd import most_ns, span_ns
from tests.unit.simulation import MS, S

# -- chrony.conf ------------------------------------------------------------------------------------


def test_chrony_conf_as_people_write_it() -> None:
    conf = parse(
        """
        ! a comment
        # makestep 9 9
        Server ntp.example.net iburst MinPoll 4
        pool 2.debian.pool.ntp.org
        makestep 1 3
        MAKESTEP 0.5 -1
        maxslewrate 1000
        minsamples 3
        confdir /etc/chrony/conf.d
        peer
        makestep 7
        """
    )
    assert conf.sources == (
        Source("server", "ntp.example.net", 4, 10, 3),
        Source("pool", "2.debian.pool.ntp.org", 6, 10, 3),
    )
    assert conf.makestep is not None
    assert (float(conf.makestep.threshold_s), conf.makestep.limit) == (0.5, -1)
    assert conf.max_slew_ppm == 1000
    assert conf.elsewhere


@pytest.mark.parametrize(
    ("line", "low", "high", "samples"),
    [
        ("server a", 6, 10, 6),
        ("server a minpoll 3 maxpoll 1", 3, 3, 6),
        ("server a minpoll x maxpoll 4", 6, 6, 6),
        ("server a minpoll -2 maxpoll -2 maxsamples 1 iburst", -2, -2, 1),
        ("server a minpoll 0 maxpoll 2 filter 5", 3, 5, 6),
        ("server a minpoll 99 maxpoll 99", 6, 10, 6),
        ("refclock PHC /dev/ptp0 poll 2 dpoll -2", 2, 2, 6),
        ("refclock SHM 0", 4, 4, 6),
    ],
)
def test_a_sources_polls(line: str, low: int, high: int, samples: int) -> None:
    (source,) = parse(line).sources
    assert (source.minpoll, source.maxpoll, source.samples) == (low, high, samples)


@pytest.mark.parametrize("text", ["", "nonsense", "server", "refclock PHC", "makestep x y", "\0 \n\t!", "%"])
def test_what_is_no_configuration_is_read_as_none(text: str) -> None:
    assert parse(text) == ChronyConf(max_slew_ppm=MAX_SLEW_PPM)


# -- timesyncd --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ns"),
    [("32", 32 * S), ("34min 8s", 2048 * S), ("1h", 3600 * S), ("250ms", 250 * MS), ("1min4s", 64 * S),
     ("", None), ("soon", None), ("5 parsecs", None), ("1s !", None)],
)  # fmt: skip
def test_time_spans(text: str, ns: int | None) -> None:
    assert span_ns(text) == ns


@pytest.mark.parametrize(
    ("config", "seconds"),
    [
        ("", 2048),
        ("[Time]\nPollIntervalMaxSec=64\n", 64),
        ("[Time]\n#PollIntervalMaxSec=64\nNTP=a", 2048),
        ("[Other]\nPollIntervalMaxSec=64\n", 2048),
        ("[Time]\nPollIntervalMinSec = 1min\nPollIntervalMaxSec = 40", 2048),  # refused: below the least
        ("[Time]\nPollIntervalMinSec=2\nPollIntervalMaxSec=40s", 40),  # the least is refused: below 16 s
    ],
)
def test_timesyncd_conf(config: str, seconds: int) -> None:
    assert most_ns(config) == seconds * S


# -- ntpd -------------------------------------------------------------------------------------------


def test_ntp_conf() -> None:
    conf = ntp_conf("server a iburst\nserver b minpoll 4 maxpoll 6\ntinker panic 0 stepout 30 step 0.5 # x\n")
    assert (conf.servers, conf.minpoll, conf.maxpoll) == (2, 6, 10)
    assert [float(x or 0) for x in (conf.panic_s, conf.stepout_s, conf.step_s)] == [0, 30, 0.5]
    plain = ntp_conf("driftfile x\npool a maxpoll 5 minpoll 9")
    assert (plain.minpoll, plain.maxpoll, float(plain.step_s)) == (9, 9, 0.128)
