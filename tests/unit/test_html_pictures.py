"""Pictures of a page: what is drawn lies where the record says."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from markupsafe import Markup

from lab.core.clock import Interval
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.verdict import Outcome
from lab.core.workload.latency import quantiles_of
from lab.record.journal import read_history
from lab.record.run import Run, Witnesses, judge
from lab.report.cycles import rows_of
from lab.report.html.axis import Span, even
from lab.report.html.clocks import offsets
from lab.report.html.document import PictureIds
from lab.report.html.downloads import downloads
from lab.report.html.findings import findings
from lab.report.html.fleet import rollout_pictures
from lab.report.html.matrix import cell_cards, heat_table
from lab.report.html.parts import pause_bars
from lab.report.html.resync import COLUMNS, HEIGHT, resync_curve
from lab.report.html.timeline import timeline, witnesses
from lab.report.html.workloads import searches, workload_pictures
from lab.report.text import cleaned
from tests.unit.builders import RUNS, cycle, finding, guest, ms, resync, resync_matrix, run
from tests.unit.real_histories import unpacked


def drawn(picture: Markup, number: int = 0) -> ET.Element:
    """The SVG of a figure, without its legend."""
    figure = ET.fromstring(f"<div>{picture}</div>").findall("figure")[number]  # noqa: S314 - ours
    chart = figure.find("svg")
    assert chart is not None
    return chart


def bars(figure: ET.Element, kind: str) -> list[tuple[float, float]]:
    found = [one for one in figure.iter("rect") if kind in (one.get("class") or "").split()]
    return [(float((r.get("x") or "").rstrip("%")), float((r.get("width") or "").rstrip("%"))) for r in found]


def real(name: str, folder: Path) -> Run:
    return judge(read_history(unpacked(name, folder)))[0]


@pytest.mark.parametrize(("low", "high", "most"), [(0, 1, 6), (-3.2, 17, 4), (0.001, 0.0011, 5), (0, 9e9, 6)])
def test_ticks_are_few_round_and_inside(low: float, high: float, most: int) -> None:
    found = even(low, high, most)
    assert 1 <= len(found) <= most
    assert all(low <= one <= high for one in found)


def test_a_place_is_never_outside_of_the_picture() -> None:
    span = Span(10, 20, 40, 30)
    assert [span.place(value) for value in (0, 10, 15, 20, 99)] == [40, 40, 55, 70, 70]
    assert span.across(19.999, 20) == (69.65, 0.35)


def test_a_witness_is_solid_to_its_lower_bound_and_light_to_its_upper_one() -> None:
    given = cycle(
        pause=ms(1000, 10),
        witnesses=Witnesses(
            hypervisor=Interval(500 * NS_PER_MS, 1010 * NS_PER_MS), lag=None, gap=None, silence=None
        ),
        agreeing=("hypervisor",),
        steps=(),
    )
    figure = drawn(timeline("web-0", given, None, "web-0", PictureIds()))
    pause_end = max(x + width for x, width in bars(figure, "track") if x == 0)
    assert pause_end == 100
    (x, certain), *_ = bars(figure, "sure")
    (after, uncertain), *_ = bars(figure, "maybe")
    assert x == 0 and after == pytest.approx(certain)
    assert uncertain / certain == pytest.approx(510 / 500, rel=0.01)


def test_a_timeline_has_the_notice_the_pause_and_the_way_back(tmp_path: Path) -> None:
    made = real("announced", tmp_path)
    row = rows_of(made)[0]
    assert row.cycle is not None
    figure = drawn(timeline("web-0", row.cycle, made.events[0], "web-0", PictureIds()))
    texts = ["".join(one.itertext()) for one in figure.iter("text")]
    assert texts[:6] == [
        "announced",
        "3.67 s",
        "pause",
        "1 003.4 ± 0.5 ms".replace(" ", "\u00a0", 1),
        "in time after",
        "92 ms",
    ]
    assert {"announcement", "host", "hypervisor", "lag", "gap", "silence", "clock"} < set(texts)
    marks = [("".join(one.itertext())) for one in figure.iter("circle")]
    assert marks == ["published 0.00 s", "seen 1.03 s", "approved 1.32 s", "started 1.32 s"]


def test_the_pause_lies_where_the_witnesses_meet(tmp_path: Path) -> None:
    made = real("announced", tmp_path)
    given = made.guests[0].cycles[0]
    figure = drawn(witnesses("web-0", given, PictureIds()))
    ((x, width),) = bars(figure, "result")
    for begin, length in bars(figure, "maybe"):
        assert begin <= x + 0.7 and begin + length >= x + width - 0.7
    assert bars(figure, "sure")[0][0] == pytest.approx(x, abs=0.4)


def test_witnesses_bound_what_the_guest_felt(tmp_path: Path) -> None:
    """With the proof of its memory, which the pause is without."""
    given = real("in-place", tmp_path).guests[0].cycles[0]
    assert (
        given.felt is not None and given.pause is not None and given.felt.value_ns > 5 * given.pause.value_ns
    )
    picture = witnesses("web-0", given, PictureIds())
    assert "without the proof of its memory" in picture
    ((x, width),) = bars(drawn(picture), "result")
    assert all(
        begin <= x + 0.7 and begin + length >= x + width - 0.7
        for begin, length in bars(drawn(picture), "maybe")
    )
    lanes = [
        "".join(one.itertext())
        for one in drawn(timeline("web-0", given, None, "web-0", PictureIds())).iter("text")
    ]
    assert lanes.index("felt pause") < lanes.index("pause", lanes.index("felt pause"))


def test_a_clock_that_was_not_watched_long_enough_is_undecided() -> None:
    for outcome, text, kind in (
        ("undecided", "undecided", "maybe"),
        ("not synced", "not within ± 100 ms", "sure"),
    ):
        given = cycle(resync=resync(outcome=outcome, time_ns=None, time_low_ns=None))
        figure = drawn(timeline("web-0", given, None, "web-0", PictureIds()))
        assert ["".join(one.itertext()) for one in figure.iter("text")][-1].replace("\u00a0", " ") == text
        assert [one.get("class") for one in figure.iter("rect")][-1] == kind


def test_the_curve_s_band_covers_every_reading(tmp_path: Path) -> None:
    made = real("resync-cells", tmp_path)
    ranges = 0
    for each in (c for g in made.guests for c in g.cycles):
        picture = resync_curve("web-0", each, PictureIds())
        for path in drawn(picture).iter("path") if picture else ():
            xs = [int(one) for one in re.findall(r"[MH](\d+)", path.get("d") or "")]
            ys = [int(float(one)) for one in re.findall(r"V([\d.]+)", path.get("d") or "")]
            assert 0 <= min(xs) < max(xs) <= 1000 and (not ys or 0 <= min(ys) <= max(ys) <= HEIGHT)
            ranges += max(xs) - min(xs)
    assert ranges > 500 and COLUMNS <= 1000


def test_the_forecast_is_behind_the_curve(tmp_path: Path) -> None:
    given = real("announced", tmp_path).guests[0].cycles[0]
    figure = drawn(resync_curve("web-0", given, PictureIds()))
    tags = [one.get("class") or one.tag for one in figure.iter() if one.tag in ("rect", "path")]
    assert tags.index("forecast") < tags.index("area")
    assert any("Predicted" in (one.text or "") for one in figure.iter("desc"))


def test_parts_of_the_pause_fill_their_bar() -> None:
    figure = drawn(
        pause_bars("x", [("a", [("suspend", 1.0), ("patch", 3.0)]), ("b", [("save", 2.0)])], PictureIds())
    )
    assert bars(figure, "patch") == [(25, 75)]
    assert bars(figure, "stop") == [(0, 25), (0, 50)]


def test_offsets_are_on_their_side(tmp_path: Path) -> None:
    made = real("announced", tmp_path)
    figure = drawn(offsets(made, PictureIds()))
    groups = {one.get("class"): one for one in figure.iter("g")}
    resume = next(one for one in groups["m-resume"].iter("rect"))
    final = next(one for one in groups["m-final"].iter("rect"))
    assert float((resume.get("x") or "").rstrip("%")) < 50 < float((final.get("x") or "").rstrip("%"))


def test_domains_are_down_one_after_another(tmp_path: Path) -> None:
    figure = drawn(rollout_pictures(real("rollout", tmp_path), PictureIds()))
    (first, width), (second, _) = bars(figure, "b-down")
    assert first + width < second
    assert all(
        x <= d <= x + w for (x, w), (d, _) in zip(bars(figure, "b-wave"), bars(figure, "b-down"), strict=True)
    )


def test_a_cell_has_its_verdict_its_figure_and_its_card() -> None:
    late = cycle(outcome=Outcome.FAILED, resync=resync(outcome="not synced", time_ns=None, time_low_ns=None))
    made = resync_matrix(
        ("none", "3s", late), ("agent", "3s", cycle()), ("none", "1s", cycle()), ("agent", "1s", None)
    )
    cards, ids = cell_cards(made, PictureIds())
    table = ET.fromstring(str(heat_table(made, ids)).partition("</p>")[2])  # noqa: S314 - ours
    found = {one.get("aria-label"): one.get("href") for one in table.iter("a")}
    assert set(found) == {"3s-none: failed, never", "3s-agent: passed, 0.14 s", "1s-none: passed, 0.14 s",
                          "1s-agent: inconclusive, refused"}  # fmt: skip
    assert all(f'id="{(target or "#")[1:]}"' in cards for target in found.values())
    assert str(cards).index("3s-none") < str(cards).index("1s-agent") < str(cards).index("3s-agent")


def test_searches_and_latencies_are_drawn(tmp_path: Path) -> None:
    made = real("tolerance", tmp_path)
    figure = drawn(searches(made, PictureIds()))
    ((edge, _),) = bars(figure, "b-edge")
    passed = [
        float((c.get("cx") or "").rstrip("%"))
        for c in figure.iter("circle")
        if c.get("class") == "p-t-passed"
    ]
    assert max(x for x in passed if x) == pytest.approx(edge)
    latencies = made.workloads[0].cycles[0].latencies
    assert latencies is not None
    assert quantiles_of(latencies, [0.5, 0.99]) == [latencies.p50_ns, latencies.p99_ns]
    assert "udp-echo: outages" in workload_pictures(made, PictureIds())


def test_findings_that_did_not_pass_come_first() -> None:
    made = run(found=(finding(Outcome.FAILED, "in time", "too late"),))
    text = str(findings(made, {("", "web-0", 0): "card"}))
    assert text.index("too late") < text.index("<details") < text.index("closure")


def files_of(made: Run) -> dict[str, bytes]:
    links = ET.fromstring(str(downloads(made, cleaned(made)))).iter("a")  # noqa: S314 - ours
    return {
        one.get("download") or "": base64.b64decode((one.get("href") or "").partition(",")[2])
        for one in links
    }


@pytest.mark.parametrize("name", RUNS)
def test_files_are_whole(name: str) -> None:
    made = RUNS[name]()
    files = files_of(made)
    packed = files.get("run.json.gz")
    record = json.loads(files["run.json"] if packed is None else gzip.decompress(packed))
    assert record["id"] == made.id
    rows = list(csv.DictReader(io.StringIO(files["findings.csv"].decode())))
    assert [row["outcome"] for row in rows] == [one.outcome.value for one in made.findings]


def test_a_spreadsheet_takes_no_name_for_a_formula() -> None:
    made = run(guest("=1+1", cycle()))
    row = next(csv.DictReader(io.StringIO(files_of(made)["cycles.csv"].decode())))
    assert row["guest"] == "'=1+1"
    assert int(row["pause_ns"]) > NS_PER_S
    assert replace(made, guests=()).guests == ()
