"""Programs of the user's own, put into a real guest."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from lab.core.secret_values import SecretValues
from lab.core.setup import (
    Ready,
    ReadyKind,
    SetupCommand,
    SetupFile,
    SetupService,
    SetupSpec,
)
from lab.core.units import NS_PER_S
from lab.errors import GuestError
from lab.guest.installer import GuestInstaller
from tests.guest.conftest import Cli, Lab

PASSWORD = 'it\'s a "secret" $HOME'
CERT = b"-----BEGIN-----\n\xff\0\nMIIBsecretline\n"

SITE = """\
[Service]
ExecStart=/bin/busybox httpd -f -p 127.0.0.1:8080 -h /opt/site
"""
DEAF = """\
[Service]
ExecStart=/usr/bin/python3 -c "import socket, time; s = socket.create_server(('', 8090)); time.sleep(600)"
"""
"""Its kernel accepts connections, and nobody answers."""

BROKEN = """\
[Service]
Type=exec
ExecStart=/bin/sh -c 'cat /etc/app/password; echo no port today; exit 3'
"""


def install(lab: Lab, setup: SetupSpec) -> list[str]:
    """Set the guest up; the steps that it reports."""
    steps: list[str] = []
    values = SecretValues({"PASSWORD": PASSWORD.encode(), "CERT": CERT})
    GuestInstaller("web-0", lambda: lab.probe.ssh, lab.clock, values, steps.append).install(setup)
    return steps


def refused(lab: Lab, setup: SetupSpec) -> str:
    with pytest.raises(GuestError) as caught:
        install(lab, setup)
    assert caught.value.exit_code == 4
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


def in_guest(lab: Lab, command: str) -> str:
    return lab.probe.ssh.check(command).strip()


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    (tmp_path / "app.conf").write_text("port = 1\n")
    site = tmp_path / "site"
    (site / "deep").mkdir(parents=True)
    (site / "index.html").write_text("hello")
    (site / "deep/tool").write_text("#!/bin/sh\necho done\n")
    (site / "deep/tool").chmod(0o775)
    (site / "link").symlink_to("index.html")
    (tmp_path / "site.service").write_text(SITE)
    (tmp_path / "broken.service").write_text(BROKEN)
    (tmp_path / "deaf.service").write_text(DEAF)
    return tmp_path


def units(sources: Path, *names: str) -> tuple[SetupFile, ...]:
    return tuple(SetupFile(f"/etc/systemd/system/{one}", str(sources / one)) for one in names)


def test_files_have_their_contents_modes_and_owners(lab: Lab, sources: Path) -> None:
    files = (
        SetupFile("/etc/my app/app.conf", str(sources / "app.conf"), mode="0640", owner="root:adm"),
        SetupFile("/etc/app/password", secret="PASSWORD", owner="nobody"),
        SetupFile("/etc/app/cert.pem", secret="CERT"),
        SetupFile("/opt/site", str(sources / "site"), owner="nobody:nogroup"),
        SetupFile("/etc", str(sources / "site/deep")),
    )
    before = in_guest(lab, "stat -c '%a %U' /etc")
    assert install(lab, SetupSpec(files=files))[0] == "app.conf to /etc/my app/app.conf"
    stat = "stat -c '%a %U %G' "
    assert in_guest(lab, f"{stat} '/etc/my app/app.conf' '/etc/my app'") == "640 root adm\n755 root root"
    assert in_guest(lab, f"{stat} /etc/app/password /etc/app/cert.pem") == "600 nobody root\n600 root root"
    assert in_guest(lab, "cat /etc/app/password") == PASSWORD
    assert in_guest(lab, "od -An -tx1 -v /etc/app/cert.pem | tr -d ' \\n'") == CERT.hex()
    assert in_guest(lab, f"{stat} /opt/site /opt/site/index.html") == (
        "755 nobody nogroup\n644 nobody nogroup"
    )
    assert in_guest(lab, "/opt/site/deep/tool; readlink /opt/site/link; cat /etc/tool | head -n 1") == (
        "done\nindex.html\n#!/bin/sh"
    )
    assert in_guest(lab, "stat -c '%a %U' /etc") == before, "a folder that exists stays as it is"


def test_commands_have_the_secrets_and_nobody_sees_them(lab: Lab) -> None:
    script = """\
printf %s "$PASSWORD" >/root/got
tr '\\0' ' ' </proc/$PPID/cmdline >/root/line
cd /tmp
pwd >/root/where"""
    install(lab, SetupSpec(run=(SetupCommand(script), SetupCommand("test ! -t 0 && ! read -r line"))))
    assert in_guest(lab, "cat /root/got") == PASSWORD
    assert PASSWORD not in in_guest(lab, "cat /root/line")
    assert in_guest(lab, "cat /root/where") == "/tmp"
    grep = "grep -rlF -e 'a \"secret\" ' /run /tmp /var 2>/dev/null; journalctl | grep -cF 'a \"secret\" '"
    assert lab.probe.ssh.run(grep).out.strip() == "0"


def test_a_command_that_fails_is_told_with_its_last_lines(lab: Lab) -> None:
    script = 'seq 30\necho "$PASSWORD" >&2\nls /nowhere\necho not reached'
    lines = refused(
        lab, SetupSpec(run=(SetupCommand(script), SetupCommand("touch /root/later")))
    ).splitlines()
    assert lines[0] == "guest web-0: set-up failed: seq 30 …: exited with 2"
    assert lines[-2:] == ["  [PASSWORD]", "  ls: cannot access '/nowhere': No such file or directory"]
    assert len(lines) == 9
    assert lab.probe.ssh.run("test -e /root/later").status == 1


def test_of_a_line_that_is_longer_than_what_is_read_the_end_is_told(lab: Lab) -> None:
    script = "head -c 9000 /dev/zero | tr '\\0' x; printf the-end; exit 1"
    assert refused(lab, SetupSpec(run=(SetupCommand(script),))).splitlines()[1:] == [f"  …{'x' * 193}the-end"]


def test_the_rest_of_a_secret_that_was_cut_is_not_shown(lab: Lab) -> None:
    padding = 4096 - len(PASSWORD) // 2 - len("\nend\n") + 1
    for char, more in (("x", [f"  …{'x' * 200}"]), ("\\n", [])):
        fill = f"head -c {padding} /dev/zero | tr '\\0' '{char}'"
        script = f"printf '%s' \"$PASSWORD\"; {fill}; echo; echo end; exit 1"
        lines = refused(lab, SetupSpec(run=(SetupCommand(script),))).splitlines()[1:]
        assert lines == [*more, "  end"]


@pytest.mark.parametrize("stays", ["", "trap '' TERM; "])
def test_a_command_that_hangs_is_ended(lab: Lab, stays: str) -> None:
    command = SetupCommand(f"{stays}echo waiting; sleep 4321", 3 * NS_PER_S)
    told = refused(lab, SetupSpec(run=(command,)))
    assert told.splitlines() == [
        f"guest web-0: set-up failed: {stays}echo waiting; sleep 4321: did not end within 3 s",
        "  waiting",
    ]
    assert lab.probe.ssh.run("pgrep -f 'sleep 432[1]'").status == 1


def test_nothing_keeps_a_command_waiting_that_has_ended(lab: Lab) -> None:
    """Neither its input, nor a program that it leaves behind with its output."""
    commands = ("cat; ! read -r line", "sleep 60 &", "setsid sh -c 'echo begun; sleep 60' &")
    install(lab, SetupSpec(run=tuple(SetupCommand(each, 30 * NS_PER_S) for each in commands)))


def test_services_are_awaited_by_port_url_and_command(lab: Lab, sources: Path) -> None:
    service = SetupService("site.service", within_ns=60 * NS_PER_S)
    ways = [
        Ready(ReadyKind.PORT, "8080"),
        Ready(ReadyKind.URL, "http://127.0.0.1:8080/index.html"),
        Ready(ReadyKind.COMMAND, 'test "$(cat /opt/site/index.html)" = hello'),
    ]
    setup = SetupSpec(
        files=(SetupFile("/opt/site", str(sources / "site")), *units(sources, "site.service")),
        services=tuple(replace(service, ready=ready) for ready in ways),
    )
    assert install(lab, setup)[-1].startswith("site, ready by command test")
    assert in_guest(lab, "systemctl is-active site") == "active"


def test_a_service_that_does_not_get_ready_is_told_with_its_journal(lab: Lab, sources: Path) -> None:
    files = (
        SetupFile("/etc/app/password", secret="PASSWORD"),
        *units(sources, "site.service", "broken.service", "deaf.service"),
    )
    missing = Ready(ReadyKind.URL, "http://127.0.0.1:8080/nothing")
    site = SetupService("site.service", missing, 3 * NS_PER_S)
    told = refused(lab, SetupSpec(files=files, services=(site,))).splitlines()
    assert told[0] == (
        "guest web-0: set-up failed: the service site: not ready within 3 s by url "
        "http://127.0.0.1:8080/nothing: answered 404"
    )
    broken = SetupService("broken.service", Ready(ReadyKind.PORT, "81"), 60 * NS_PER_S)
    told = refused(lab, SetupSpec(files=files, services=(broken,))).splitlines()
    assert "the service broken: has failed before it was ready (127.0.0.1:81 does not accept" in told[0]
    assert any("no port today" in line for line in told[1:])
    deaf = SetupService("deaf.service", Ready(ReadyKind.URL, "http://127.0.0.1:8090/"), 10 * NS_PER_S)
    told = refused(lab, SetupSpec(files=files, services=(deaf,))).splitlines()
    assert (
        "the service deaf: not ready within 10 s by url http://127.0.0.1:8090/: no answer within" in told[0]
    )
    endless = Ready(ReadyKind.COMMAND, "cat /etc/app/password >&2; sleep 4322")
    told = refused(
        lab, SetupSpec(services=(SetupService("deaf.service", endless, 3 * NS_PER_S),))
    ).splitlines()
    assert re.search("3 s by command cat .*; sleep 4322: (not finished|no answer) within", told[0])
    unknown = SetupService("nowhere.service")
    assert "the service nowhere: not started: Failed to start nowhere.service: Unit nowhere" in refused(
        lab, SetupSpec(services=(unknown,))
    )


def test_a_run_that_fails_in_its_setup_records_no_secret(cli: Cli, tmp_path: Path) -> None:
    book = tmp_path / "book.yaml"
    book.write_text(
        "name: failing\nresync: agent\ncycle: {patch: {hold: 1s}}\n"
        "setup:\n  secrets: {PASSWORD: {file: ./password}}\n"
        "  files: [{secret: PASSWORD, to: /root/password}]\n"
        "  run: ['set -x; cat /root/password; head -c 4000 /dev/zero; echo \"$PASSWORD\" >&2; exit 7']\n"
    )
    (tmp_path / "password").write_text("hunter2-" + "x" * 20)
    done = cli("run", str(book), timeout=400)
    assert done.returncode == 4, done.stderr
    assert "exited with 7" in done.stderr
    assert "[PASSWORD]" in done.stderr
    assert '"kind":"freeze"' not in cli.journal()
    assert cli.qemu() == []
    shown = (done.stdout + done.stderr).encode()
    files = [path for path in cli.home.rglob("*") if path.is_file()]
    assert [path for path in files if path.name == "events.jsonl"]
    for content in (shown, *(path.read_bytes() for path in files)):
        assert b"hunter2" not in content
