"""The host's side of a setup: secrets are read when a run starts, never shown, and missing ones refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lab.cli.main import app
from lab.core.secret_values import MOST_VARIABLE_BYTES, SecretValues
from lab.core.setup import Secret
from lab.errors import UsageError
from lab.playbook import load
from lab.session.setup_sources import MOST_SECRET_BYTES, read_secrets, setup_obstacles

BOOK = """\
name: a
resync: agent
cycle: {patch: {hold: 5s}}
setup:
  secrets: {PASSWORD: {env: TEST_PASSWORD}, CERT: {file: ./cert.pem}}
  files:
    - {from: ./app.conf, to: /etc/app.conf}
    - {from: ./app, to: /opt/app}
    - {secret: CERT, to: /etc/cert.pem}
  run: [make]
"""


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.yaml"
    path.write_text(BOOK)
    return path


@pytest.fixture
def complete(book: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TEST_PASSWORD", "hunter2")
    (book.parent / "cert.pem").write_bytes(b"---\n\xff\n")
    (book.parent / "app.conf").write_text("")
    (book.parent / "app").mkdir()
    return book


def test_values_come_from_variables_and_files(complete: Path) -> None:
    plan = load(complete)
    assert setup_obstacles(plan) == []
    assert read_secrets(plan) == {
        Secret("PASSWORD", "TEST_PASSWORD"): b"hunter2",
        Secret("CERT", file=str(complete.parent / "cert.pem")): b"---\n\xff\n",
    }


def test_all_that_is_missing_is_told_at_once(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_PASSWORD", raising=False)
    with pytest.raises(UsageError) as caught:
        read_secrets(load(book))
    folder = book.parent
    assert str(caught.value).splitlines() == [
        f"setup: no file {folder}/app.conf",
        f"setup: no file {folder}/app",
        "setup: secret PASSWORD: the variable TEST_PASSWORD is not set; export TEST_PASSWORD=…",
        f"setup: secret CERT: no file {folder}/cert.pem",
    ]


def test_a_folder_has_no_mode_and_a_secret_is_small(complete: Path) -> None:
    complete.write_text(BOOK.replace("to: /opt/app}", "to: /opt/app, mode: '0755'}"))
    with (complete.parent / "cert.pem").open("wb") as file:
        file.truncate(MOST_SECRET_BYTES + 1)
    one, two = (str(error) for error in setup_obstacles(load(complete)))
    assert one.endswith("/app is a folder, whose files keep their modes\ndelete mode")
    assert two.endswith("/cert.pem is larger than 1 MiB")


def test_plan_and_run_refuse_what_check_only_notes(book: Path, tmp_path: Path) -> None:
    runner = CliRunner(env={"FREEZELAB_HOME": str(tmp_path / "home"), "TEST_PASSWORD": None})
    planned = runner.invoke(app, ["plan", str(book)])
    assert planned.exit_code == 2
    assert "the variable TEST_PASSWORD" in planned.output
    assert "PASSWORD: the variable TEST_PASSWORD" in planned.output
    assert "app.conf to /etc/app.conf" in planned.output
    started = runner.invoke(app, ["run", str(book)])
    assert started.exit_code == 2
    assert not list((tmp_path / "home").glob("runs/*"))
    checked = runner.invoke(app, ["check", str(book)])
    assert "note: setup: secret PASSWORD: the variable TEST_PASSWORD is not set" in checked.output


def test_values_are_masked_longest_first_and_line_by_line() -> None:
    values = SecretValues(
        {"SHORT": b"abc", "LONG": b"abcdef\n", "PEM": b"BEGIN\nMIIB\nab\nEND!\n", "NONE": b"\n"}
    )
    assert values.mask("x abcdef y abc") == "x [LONG] y [SHORT]"
    assert values.mask("MIIB END! ab") == "[PEM] [PEM] ab"
    assert "abc" not in repr(values)
    assert repr(values) == "SecretValues(SHORT, LONG, PEM, NONE)"


def test_a_value_that_is_quoted_by_a_shell_is_masked_as_well() -> None:
    values = SecretValues({"KEY": b"it's"})
    assert values.mask("""+ KEY='it'"'"'s'""") == "+ KEY=[KEY]"
    assert values.mask(r"+ KEY='it'\''s'") == "+ KEY=[KEY]"


def test_a_value_in_json_or_in_a_url_is_masked_as_well() -> None:
    values = SecretValues({"KEY": 'a "b" \\c@d/\u00e9'.encode()})
    quoted = r'{"key": "a \"b\" \\c@d/é"}'
    assert values.mask(quoted) == '{"key": "[KEY]"}'
    assert values.mask("https://me:a%20%22b%22%20%5Cc%40d%2F%C3%A9@host/") == "https://me:[KEY]@host/"


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("word\nend", "\nend"),
        ("d end", " end"),
        ("password", "password"),
        ("sword [", " ["),
        ("", ""),
        ("x", "x"),
    ],
)
def test_the_rest_of_a_value_that_was_cut_is_dropped(text: str, rest: str) -> None:
    assert SecretValues({"KEY": b"password", "OTHER": b"rd"}).drop_rest(text) == rest


def test_a_shell_reads_the_exports_as_they_were_written() -> None:
    nasty = 'it\'s $HOME `id` \\ "x"\nsecond\n\n'
    values = SecretValues(
        {"NASTY": nasty.encode(), "ZERO": b"a\0b", "HUGE": b"x" * (MOST_VARIABLE_BYTES + 1), "LATIN": b"\xe9"}
    )
    script = values.exports() + b'printf "%s|%s|%s|%s" "$NASTY" "$LATIN" "${ZERO-unset}" "${HUGE-unset}"'
    done = subprocess.run(["/bin/sh"], input=script, capture_output=True, check=True)
    assert done.stdout == nasty.removesuffix("\n").encode() + b"|\xe9|unset|unset"
