"""What decides how a guest's programs keep time, read as it lies in the guest."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lab.core.mechanism import ResyncMechanism
from lab.core.timesync.chronyconf import parse
from lab.core.timesync.timesyncd import most_ns
from lab.core.units import NS_PER_S
from lab.guest.timesync import services
from lab.guest.timesync.daemon import command_line
from lab.guest.timesync.host_actions import adjtime_status


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_what_a_chrony_conf_includes_stands_in_its_place(tmp_path: Path, shell: str) -> None:
    files = {
        "chrony.conf": "makestep 1 3\nConfDir {0}/conf.d {0}/none\n  include {0}/*.inc\nsourcedir {0}/src",
        "conf.d/10-a.conf": "makestep 0.5 -1\n# a * star\ninclude {0}/deep.txt\n",
        "conf.d/20-b.conf": "maxslewrate 1000",
        "conf.d/not.disabled": "makestep 9 9\n",
        "deep.txt": "minsamples 3\n",
        "own.inc": "driftfile /x\n",
        "src/lab.sources": "server 192.0.2.1 minpoll 0\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text.replace("{0}", str(tmp_path)))
    command = services.chrony(ResyncMechanism.CHRONY).whole.replace("/etc/chrony", str(tmp_path))
    done = subprocess.run([shell, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "makestep 1 3", "makestep 0.5 -1", "# a * star", "minsamples 3", "maxslewrate 1000", "driftfile /x",
        "server 192.0.2.1 minpoll 0",
    ]  # fmt: skip
    conf = parse(done.stdout)
    assert not conf.elsewhere
    assert conf.makestep is not None
    assert conf.makestep.limit == -1


def test_timesyncds_drop_ins_follow_its_configuration(tmp_path: Path) -> None:
    for name, text in {
        "etc/systemd/timesyncd.conf": "[Time]\nPollIntervalMaxSec=32\n",
        "usr/lib/systemd/timesyncd.conf.d/10-a.conf": "[Time]\nPollIntervalMaxSec=64\n",
        "usr/lib/systemd/timesyncd.conf.d/20-b.conf": "[Time]\nPollIntervalMaxSec=128\n",
        "etc/systemd/timesyncd.conf.d/20-b.conf": "[Time]\nPollIntervalMaxSec=256\n",
        "etc/systemd/timesyncd.conf.d/30-c.bak": "[Time]\nPollIntervalMaxSec=512\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    command = services.timesyncd("192.0.2.1", 123).whole
    for root in ("/etc/", "/run/", "/usr/lib/"):
        command = command.replace(f" {root}", f" {tmp_path}{root}")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.count("[Time]") == 3
    assert most_ns(done.stdout) == 256 * NS_PER_S


def test_a_programs_command_line_is_that_of_its_process(tmp_path: Path) -> None:
    program = tmp_path / f"sleep{os.getpid()}"  # no other process of this machine has its name
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([program, "30"]) as process:
        try:
            command = ["bash", "-c", command_line(program.name)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        finally:
            process.kill()
    assert done.stdout.split()[0].endswith(program.name)


@pytest.mark.parametrize(
    ("text", "utc", "status"),
    [
        ("", False, {}),
        ("0.0 0 0.0\n0\nUTC\n", False, {}),
        ("0.0 0 0.0\n0\nLOCAL\n", False, {"rtc_zone_s": "7200"}),
        ("0.0 0 0.0\n0\nLOCAL\n", True, {}),
        ("2.0 1764268600 0.5\n1764268600\nUTC\n", True, {"rtc_drift_ns": "2500000000"}),
    ],
)
def test_adjtime_as_hwclock_reads_it(text: str, utc: bool, status: dict[str, str]) -> None:
    assert adjtime_status(text, "1764355000 +0200", utc) == status


def test_zones_west_of_utc() -> None:
    assert adjtime_status("0 0 0\n0\nLOCAL", "1764355000 -0330", False) == {"rtc_zone_s": "-12600"}
