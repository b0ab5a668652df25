"""SSH and the probe's start, on a real guest: who is refused, and how that is said."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.errors import GuestError, MachineError
from lab.guest import program
from lab.guest.address import Address
from lab.guest.probe import GuestProbe
from lab.guest.probe_command import PROGRAM
from lab.guest.ssh import SSH
from lab.image.identity import make_key, write_key
from lab.session.settings import free_port
from tests.guest.conftest import Lab


@pytest.fixture
def address(lab: Lab) -> Address:
    return lab.address


def test_a_closed_port_is_refused(lab: Lab, address: Address) -> None:
    with pytest.raises(GuestError, match="SSH is refused at root@127"):
        SSH.connect(dataclasses.replace(address, port=free_port()), lab.clock, 30)


def test_another_host_key_is_never_accepted(lab: Lab, address: Address) -> None:
    with pytest.raises(GuestError, match="another host key"):
        SSH.connect(dataclasses.replace(address, host_key=make_key("x")[1]), lab.clock, 30)


def test_a_key_that_the_guest_does_not_know_is_refused(lab: Lab, address: Address, tmp_path: Path) -> None:
    write_key(tmp_path / "key", *make_key("x"))
    with pytest.raises(GuestError, match="login refused"):
        SSH.connect(dataclasses.replace(address, key=tmp_path / "key"), lab.clock, 30)


def test_a_key_open_to_others_is_not_used(lab: Lab, address: Address, tmp_path: Path) -> None:
    write_key(tmp_path / "key", *make_key("x"))
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(MachineError, match="can be read by others"):
        SSH.connect(dataclasses.replace(address, key=tmp_path / "key"), lab.clock, 30)


def test_a_command_that_a_signal_ends_is_told_by_its_first_line(lab: Lab) -> None:
    with pytest.raises(GuestError, match=r"^guest web-0: kill \$\$ …: ended by a signal$"):
        lab.probe.ssh.run("kill $$\nsleep 10")


@pytest.fixture
def without_python(lab: Lab) -> Iterator[None]:
    """Every interpreter in the guest made unexecutable for the time."""
    ssh = lab.probe.ssh
    ssh.check("chmod a-x /usr/bin/python3*")
    yield
    ssh.check("chmod a+x /usr/bin/python3*")


def test_a_guest_without_python_is_told(lab: Lab, address: Address, without_python: None) -> None:
    probe = GuestProbe("web-0", lambda: SSH.connect(address, lab.clock, 30))
    with pytest.raises(GuestError, match=r"no Python 3\.6 or later in the guest"), probe:
        pass


def test_the_probe_runs_without_the_newer_clock_calls(
    lab: Lab, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.6 has clock_gettime but not clock_gettime_ns: the programs' own fallback."""
    text = program.source(PROGRAM)
    assert text.count(b"'clock_gettime_ns'") == 1
    monkeypatch.setattr(program, "source", lambda _: text.replace(b"'clock_gettime_ns'", b"'no_such'"))
    with GuestProbe("web-0", lambda: SSH.connect(address, lab.clock, 30)) as probe:
        reading = probe.read()
    assert reading.resolution_ns == 512
    for clock in reading.t2:
        assert reading.t2[clock] <= reading.t3[clock]
