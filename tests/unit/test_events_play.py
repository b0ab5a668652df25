"""`freezelab events play`: a playbook's announcements without its guests, for real clients in processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from junitparser import JUnitXml

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60
PLAYBOOK = """\
name: t
fleet: {guests: [{name: web, count: 2}], availability_sets: [{name: web, guests: [web]}]}
resync: none
cycle: {patch: {hold: 400ms}, settle: 0s, before: 1s, watch: 5s}
announce:
  notice: 1h
  duration: 5s
  time_factor: 60
  started_for: 300ms
  handler: [drain.py, --every, 0.05, --for-all]
rollout: {sets: together}
expect: {notice: {acknowledged: true, seen: true, started_seen: true, kept: true, at_most: 50s}}
"""
GAPS = """\
import sys, time, urllib.request
last, most = time.monotonic(), 0
request = urllib.request.Request(sys.argv[1] + "/metadata/scheduledevents?api-version=2020-07-01")
request.add_header("Metadata", "true")
while True:
    urllib.request.urlopen(request).read()
    last, most = time.monotonic(), max(most, time.monotonic() - last)
    with open(sys.argv[2], "a") as file:
        print(most, file=file)
    time.sleep(0.02)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a short path, for sockets."""
    made = Path(tempfile.mkdtemp(prefix="fl-"))
    shutil.copy(ROOT / "examples" / "drain.py", made)
    (made / "gaps.py").write_text(GAPS)
    yield made
    shutil.rmtree(made)


def playing(folder: Path, text: str, *arguments: str) -> subprocess.Popen[str]:
    (folder / "t.yaml").write_text(text)
    return subprocess.Popen(
        [sys.executable, "-m", "lab.cli.main", "events", "play", str(folder / "t.yaml"), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "FREEZELAB_HOME": str(folder / "home")},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def played(folder: Path, text: str, *arguments: str) -> tuple[int, str, str]:
    with playing(folder, text, *arguments) as process:
        out, err = process.communicate(timeout=PATIENCE_S)
    assert not (folder / "home" / "events").exists()
    return process.returncode, out, err


def listening(*guests: str) -> list[str]:
    return [word for guest in guests for word in ("--listen", f"127.0.0.1:0={guest}")]


CLIENT = ("--client", "{handler} --url {url}")


def test_a_handler_plays_a_playbook_wave_by_wave(folder: Path) -> None:
    done = played(folder, PLAYBOOK, *listening("web-0", "web-1"), *CLIENT, "--json")
    code, out, err = done
    [told] = json.loads(out)
    assert (code, told["outcome"]) == (0, "passed"), err
    assert [one["resources"] for one in told["events"]] == [["web-0"], ["web-1"]]
    for event in told["events"]:
        [own] = [one for one in event["guests"] if one["guest"] == event["resources"][0]]
        times = [own[f"{name}_s"] for name in ("seen", "approved", "seen_started", "seen_gone")]
        assert times == sorted(times)
        assert event["state"] == "over"
        assert event["gone_s"] - event["started_s"] >= 0.7
    pauses = [one for one in told["findings"] if one["metric"] == "pause announced"]
    assert [one["outcome"] for one in pauses] == ["passed", "passed"]
    assert "back in service" in err


def test_what_the_playbook_expects_decides(folder: Path) -> None:
    text = PLAYBOOK.replace("notice: 1h", "notice: 30s").replace("--for-all", "--watch-only")
    file = folder / "junit.xml"
    code, out, _ = played(folder, text, *listening("web-0", "web-1"), *CLIENT, "--junit", str(file))
    assert code == 1
    [suite] = JUnitXml.fromfile(str(file))
    assert (suite.name, suite.failures, suite.errors) == ("freezelab.t", out.count("\nfailed: "), 0)
    assert "failed: no guest of web approved" in out
    assert out.splitlines()[-2:] == ["t: failed", ""]


def test_a_client_is_stopped_while_its_guest_would_be_frozen(folder: Path) -> None:
    client = f"{sys.executable} {folder}/gaps.py {{url}} {folder}/{{guest}}.gap"
    text = PLAYBOOK.replace("notice: 1h", "notice: 0s").partition("expect:")[0]
    code, _, err = played(folder, text, *listening("web-0", "web-1"), "--client", client)
    assert code == 0, err
    for guest in ("web-0", "web-1"):
        assert float((folder / f"{guest}.gap").read_text().rpartition("\n")[0].split()[-1]) >= 0.4


def test_a_client_of_somebody_else_is_waited_for(folder: Path) -> None:
    code, _, err = played(folder, PLAYBOOK, *listening("web-0", "web-1"), "--wait", "200ms")
    assert code == 4
    assert "web-0: its client has not asked for events within 200 ms" in err
    with playing(folder, PLAYBOOK.replace("count: 2", "count: 1"), *listening("web-0")) as process:
        assert process.stdout is not None
        url = next(line for line in process.stdout if "http://" in line).split()[1]
        client = subprocess.Popen(
            [folder / "drain.py", "--url", url, "--every", "0.05"], stdout=subprocess.DEVNULL
        )
        try:
            assert process.wait(PATIENCE_S) == 0
        finally:
            client.terminate()
            client.wait()


def test_a_client_that_dies_is_a_finding(folder: Path) -> None:
    script = folder / "dies.sh"
    script.write_text(
        "curl -sS --retry 9 -o /dev/null -H Metadata:true "
        '"$1/metadata/scheduledevents?api-version=2020-07-01"; sleep 0.1; exit 3\n'
    )
    text = PLAYBOOK.replace("notice: 1h", "notice: 30s").partition("expect:")[0]
    code, out, _ = played(folder, text, *listening("web-0", "web-1"), "--client", f"sh {script} {{url}}")
    assert code == 1
    assert "the handler sh exited with status 3" in out


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_client_stays_stopped_when_the_player_ends(folder: Path, number: signal.Signals) -> None:
    text = PLAYBOOK.replace("hold: 400ms", "hold: 20s").replace("notice: 1h", "notice: 0s")
    text = text.partition("expect:")[0]
    with playing(folder, text, *listening("web-0", "web-1"), *CLIENT) as process:
        deadline = time.monotonic() + PATIENCE_S
        stopped: list[psutil.Process] = []
        while not stopped:
            assert process.poll() is None
            assert time.monotonic() < deadline
            children = psutil.Process(process.pid).children(recursive=True)
            with suppress(psutil.NoSuchProcess):  # one that only starts another
                stopped = [one for one in children if one.status() == psutil.STATUS_STOPPED]
            time.sleep(0.05)
        process.send_signal(number)
        process.communicate(timeout=PATIENCE_S)
    _, alive = psutil.wait_procs(children, timeout=PATIENCE_S)
    assert not alive
    if number is not signal.SIGKILL:
        assert process.returncode == 130
        assert not (folder / "home" / "events").exists()


@pytest.mark.parametrize(
    ("text", "arguments", "what"),
    [
        (PLAYBOOK.partition("announce:")[0], [], "t announces nothing"),
        (PLAYBOOK, ["--listen", "127.0.0.1:0=web-0"], "web-1 has no listener"),
        (PLAYBOOK, [*listening("web-0", "web-1"), "--client", "'"], "no command line"),
        (PLAYBOOK, [*listening("web-0", "web-1"), "--client", " "], "no command line"),
        (PLAYBOOK, ["--wait", "soon"], "not a duration"),
    ],
)
def test_mistakes_are_told_in_two_lines(folder: Path, text: str, arguments: list[str], what: str) -> None:
    code, _, err = played(folder, text, *arguments)
    assert code == 2
    assert what in err
    assert len(err.splitlines()) <= 2
