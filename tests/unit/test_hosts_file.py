"""hosts.yaml: what it means, its mistakes with line and column, its schema, and the command it gives."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from lab.cli.main import app
from lab.core.own_domain import SshTarget
from lab.errors import PlaybookError
from lab.hosts.hosts_file import MOST_HOSTS, HostEntry, hosts_schema_text, load_hosts, parse_hosts

SCHEMA_FILE = Path(__file__).resolve().parents[2] / "docs" / "hosts.schema.json"

WHOLE = """\
hosts:
  - rack-1
  - {name: rack-2, ssh: rack-2.example.org, freezelab: ~/freezelab, state: /srv/freezelab/}
  - name: rack-3
    ssh: {host: 10.0.0.8, port: 2222, user: admin, key: keys/id, known_hosts: ~/.ssh/racks}
    freezelab: [/opt/venv/bin/python, -m, lab.cli.main]
"""


def mistakes_in(text: str | bytes) -> list[str]:
    with pytest.raises(PlaybookError) as caught:
        parse_hosts(text.encode() if isinstance(text, str) else text, "h.yaml", Path("/etc"))
    assert caught.value.exit_code == 2
    return [line.removeprefix("h.yaml:") for line in str(caught.value).splitlines()]


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "hosts.yaml"
    path.write_text(WHOLE)
    read = load_hosts(path)
    assert read.path == str(path)
    assert read.hosts == (
        HostEntry("rack-1", SshTarget("rack-1"), ("freezelab",), ""),
        HostEntry("rack-2", SshTarget("rack-2.example.org"), ("~/freezelab",), "/srv/freezelab"),
        HostEntry(
            "rack-3",
            SshTarget("10.0.0.8", 2222, "admin", str(tmp_path / "keys/id"), "~/.ssh/racks"),
            ("/opt/venv/bin/python", "-m", "lab.cli.main"),
        ),
    )


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("", ["1:1: the hosts file is empty; begin with a line like hosts: [rack-1, rack-2]"]),
        ("[a]\n", ["1:1: keys and values are expected here, not a list; begin with a line like hosts: "]),
        ("hosts: a\n", ["1:8: hosts: a list is expected here, not the text 'a'; begin each item with"]),
        ("hosts: []\n", ["1:8: hosts: the list of hosts is empty; add one, like {name: rack-1, ssh: "]),
        ("host: [a]\n", ["1:1: hosts is missing; add hosts: [rack-1, rack-2]", "1:1: unknown key 'host'"]),
        ("hosts: [{ssh: x}]\n", ["1:9: hosts[0]: name is missing; add name: rack-1"]),
        ("hosts: [{name: a, sshh: x}]\n", ["1:19: hosts[0]: unknown key 'sshh'; did you mean ssh?"]),
        ("hosts: [{name: a, port: 1}]\n", ["1:19: hosts[0]: unknown key 'port'; it belongs under hosts.ssh"]),
        ("hosts: [Rack_1]\n", ["1:9: hosts[0].name: 'Rack_1' is not a name; use small letters, digits and"]),
        ("hosts: [[a]]\n", ["1:9: hosts[0]: keys and values are expected here, not a list; write it like"]),
        ("hosts: [{name: a, ssh: -x}]\n", ["1:24: hosts[0].ssh.host: '-x' is not an SSH host; write a Host"]),
        ("hosts: [{name: a, ssh: {host: x, port: 0}}]\n", ["1:40: hosts[0].ssh.port: 0 ports are too few;"]),
        ("hosts: [{name: a, state: srv}]\n", ["1:26: hosts[0].state: 'srv' is not the whole path of a"]),
        ("hosts: [{name: a, state: /}]\n", ["1:26: hosts[0].state: '/' cannot be used as a folder for f"]),
        ("hosts: [{name: a, freezelab: ''}]\n", ["1:30: hosts[0].freezelab: a command, or the folder of a"]),
        ("hosts: [{name: a, freezelab: -v}]\n", ["1:30: hosts[0].freezelab: '-v' begins with a hyphen; put"]),
        ("hosts: [a, b, a]\n", ["1:15: hosts: two hosts are named a, entries 1 and 3 of the list"]),
        ("hosts: [a, {name: b, ssh: a}]\n", ["1:27: hosts: a and b are one host, a; delete one"]),
        ("hosts: [&x a]\n", ["1:9: anchors and aliases (&x) are not part of a hosts file; write the value"]),
        ("hosts: [a]\n---\n", ["2:1: a second document begins here (---); write one hosts file per file"]),
        ("hosts:\n\t- a\n", ["2:1: a tab; YAML wants spaces here; replace each tab by spaces"]),
    ],
)  # fmt: skip
def test_a_mistake_is_answered_at_its_place(text: str, answers: list[str]) -> None:
    found = mistakes_in(text)
    assert len(found) == len(answers)
    for line, start in zip(found, answers, strict=True):
        assert line.startswith(start)


def test_too_many_hosts_are_one_mistake() -> None:
    hosts = ", ".join(f"h{n}" for n in range(MOST_HOSTS + 1))
    assert mistakes_in(f"hosts: [{hosts}]") == ["1:8: hosts: 257 hosts are too many; write at most 256"]


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PlaybookError, match="no such file"):
        load_hosts(tmp_path / "none.yaml")


def _run(entry: HostEntry, home: Path) -> subprocess.CompletedProcess[str]:
    """The command as sshd has the login shell run it."""
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    command = entry.command(["doctor", "it's"])
    return subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False)


PROGRAM = '#!/bin/sh\necho "$FREEZELAB_HOME|$*"\nexit 3\n'


@pytest.mark.parametrize("written", ["~/a clone", "{home}/a clone", "~/a clone/freezelab"])
def test_the_command_is_that_of_a_clone_or_a_program(written: str, tmp_path: Path) -> None:
    clone = tmp_path / "a clone"
    clone.mkdir()
    (clone / "freezelab").write_text(PROGRAM)
    (clone / "freezelab").chmod(0o755)
    entry = HostEntry("a", SshTarget("a"), (written.format(home=tmp_path),), "/srv/it's")
    ran = _run(entry, tmp_path)
    assert (ran.stdout, ran.returncode) == ("/srv/it's|doctor it's\n", 3)


def test_a_command_may_have_words_and_no_state(tmp_path: Path) -> None:
    (tmp_path / "program").write_text(PROGRAM)
    entry = HostEntry("a", SshTarget("a"), ("sh", f"{tmp_path}/program", "x y"))
    ran = _run(entry, tmp_path)
    assert (ran.stdout, ran.returncode) == ("|x y doctor it's\n", 3)


def test_a_host_without_freezelab_is_the_shells_127(tmp_path: Path) -> None:
    assert _run(HostEntry("a", SshTarget("a"), ("no-such-program",)), tmp_path).returncode == 127
    assert _run(HostEntry("a", SshTarget("a"), ("~/none",)), tmp_path).returncode == 127


def test_the_published_schema_is_current() -> None:
    made = hosts_schema_text()
    assert SCHEMA_FILE.read_text() == made, "freezelab schema hosts > docs/hosts.schema.json"
    Draft202012Validator.check_schema(json.loads(made))
    assert CliRunner().invoke(app, ["schema", "hosts"]).stdout == made


@pytest.mark.parametrize(
    ("document", "fits"),
    [
        (yaml.safe_load(WHOLE), True),
        ({"hosts": []}, False),
        ({"hosts": [{"ssh": "a"}]}, False),
        ({"hosts": [{"name": "a", "state": "srv"}]}, False),
        ({"hosts": ["a"], "more": 1}, False),
    ],
)
def test_the_schema_fits_what_is_accepted(document: Any, fits: bool) -> None:
    assert Draft202012Validator(json.loads(hosts_schema_text())).is_valid(document) is fits
