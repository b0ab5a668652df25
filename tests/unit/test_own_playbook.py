"""Domains of the user's own in playbooks: what is read, and each mistake in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.core.depth import Depth
from lab.core.own_domain import MigrationTarget, SshTarget
from lab.playbook.load import parse
from tests.unit.playbooks import mistakes_in

HEAD = "name: a\nresync: none\ncycle: {patch: {hold: 3s}}\n"


def test_a_domain_and_how_it_is_reached(tmp_path: Path) -> None:
    text = HEAD + (
        "guests:\n"
        "  - {name: db, domain: My VM, ssh: my-vm-host, compute_name: db_0}\n"
        "  - {domain: other, ssh: {host: 10.0.0.7, port: 2222, user: admin, key: ~/.ssh/key, "
        "known_hosts: ./known, config: ../config}}\n"
        "  - {name: web}\n"
    )
    first, second, third = parse(text.encode(), "a.yaml", tmp_path).guests
    assert (first.name, first.domain, first.ssh) == ("db", "My VM", SshTarget("my-vm-host"))
    assert first.event_name == "db_0"
    assert (second.name, second.domain) == ("other", "other")
    assert second.ssh == SshTarget(
        "10.0.0.7", 2222, "admin", "~/.ssh/key", str(tmp_path / "known"), str(tmp_path / ".." / "config")
    )
    assert [guest.is_own for guest in (first, second, third)] == [True, True, False]


@pytest.mark.parametrize(
    ("entry", "depth"),
    [
        ("{domain: x}", Depth.AGENT),
        ("{domain: x, probe: agent}", Depth.AGENT),
        ("{domain: x, ssh: y}", Depth.AUTO),
        ("{domain: x, ssh: y, probe: shell}", Depth.SHELL),
        ("{name: x}", Depth.AUTO),
    ],
)
def test_how_deep_it_is_looked_into(entry: str, depth: Depth) -> None:
    [guest] = parse(f"{HEAD}guests: [{entry}]\n".encode(), "a.yaml").guests
    assert guest.probe is depth


MISTAKES = [
    (
        "guests: [{domain: x, probe: shell}]",
        "4:29: guests[0]: probe: shell needs ssh; add ssh: and a Host of your ssh_config, or",
    ),
    (
        "guests: [{domain: x, ssh: y, probe: agent}]",
        "4:27: guests[0]: ssh does not go with probe: agent; delete one of them",
    ),
    ("guests: [{ssh: x}]", "4:10: guests[0]: name is missing; add name: web-0"),
    ("guests: [{name: x, ssh: y}]", "4:25: guests[0]: ssh goes with domain; delete it, or add domain: my-vm"),
    (
        "guests: [{name: x, probe: shell}]",
        "4:27: guests[0]: probe goes with domain; delete it, or add domain: my-vm",
    ),
    ("guests: [{domain: My VM, ssh: y}]", "4:19: guests[0]: 'My VM' cannot be the name of the guest as well"),
    (
        "guests: [{domain: a/b, ssh: y}]",
        "4:19: guests[0].domain: 'a/b' is not the name of a domain; write it",
    ),
    ("guests: [{domain: x, ssh: -o}]", "4:27: guests[0].ssh.host: '-o' is not an SSH host; write a Host of"),
    ("guests: [{domain: x, ssh: {}}]", "4:22: guests[0].ssh: host is missing; add host: my-vm-host"),
    (
        "guests: [{domain: x, ssh: {host: y, port: 0}}]",
        "4:43: guests[0].ssh.port: 0 ports are too few; write",
    ),
    ("guests: [{domain: x, ssh: {host: y, user: -x}}]", "4:43: guests[0].ssh.user: '-x' is not the name of"),
    (
        "guests: [{domain: x, ssh: y, memory: 1 GiB}]",
        "4:38: guests[0]: memory does not go with domain, whose",
    ),
    ("guests: [{domain: x, ssh: y, count: 2}]", "4:37: guests[0]: count does not go with domain, whose XML"),
    (
        "guests: [{name: a, domain: x, ssh: y}, {name: b, domain: x, ssh: y}]",
        "4:58: guests: two guests are x",
    ),
    (
        "guests: [{domain: x, ssh: y}]\nsetup: {run: [ls]}",
        "5:1: setup is for guests that the lab starts, and all of these are domains of your own; delete it",
    ),
    ("fleet: {scale_sets: [{name: a, domain: x, ssh: y}]}", "4:40: fleet.scale_sets[0]: the instances of a"),
]


@pytest.mark.parametrize(("text", "expected"), MISTAKES)
def test_mistakes(text: str, expected: str) -> None:
    found = mistakes_in(HEAD + text)
    assert found[0].startswith(expected), found


@pytest.mark.parametrize(
    ("cycle", "why"),
    [
        ("{method: in-place, patch: {hold: 3s}}", "its RAM is not shared"),
        ("{method: live-migrate, patch: {hold: 0s}}", "it has no migrate_to"),
        ("{patch: {replace-hypervisor: same}}", "its RAM is not shared"),
        ("{method: save-restore, patch: {replace-hypervisor: same}}", "its emulator is what its XML says"),
        ("{patch: {command: [a], deadline: 3s, impact: reboot}}", "it would have to be shut down"),
    ],
)
def test_freezes_that_would_change_it(cycle: str, why: str) -> None:
    [found] = mistakes_in(f"name: a\nresync: none\ncycle: {cycle}\nguests: [{{domain: x, ssh: y}}]")
    assert found.startswith("3:1: domain x is your own, and is not frozen by")
    assert why in found


TO = "migrate_to: qemu+ssh://b/system"


def test_where_it_is_migrated_to() -> None:
    head = "name: a\nresync: none\ncycle: {method: live-migrate, patch: {hold: 0s}}\n"
    long = "migrate_to: {uri: 'qemu+unix:///system?socket=/run/x', unsafe: true}"
    guests = f"guests: [{{domain: x, {TO}}}, {{domain: y, ssh: z, {long}}}]\n"
    first, second = parse(f"{head}{guests}".encode(), "a.yaml").guests
    assert first.migrate_to == MigrationTarget("qemu+ssh://b/system")
    assert second.migrate_to == MigrationTarget("qemu+unix:///system?socket=/run/x", unsafe=True)


@pytest.mark.parametrize(
    ("cycle", "entry", "expected"),
    [
        ("patch: {hold: 2s}", "domain: x", "it runs on at once in the other daemon, so nothing can be done"),
        ("patch: {hold: 0s}, post_copy: 5s", "domain: x", "in post-copy its memory is in two processes"),
        ("patch: {hold: 0s}", "name: x", "4:32: guests[0]: migrate_to goes with domain; delete it"),
    ],
)
def test_migrations_that_are_refused(cycle: str, entry: str, expected: str) -> None:
    head = f"name: a\nresync: none\ncycle: {{method: live-migrate, {cycle}}}\n"
    [found] = mistakes_in(f"{head}guests: [{{{entry}, {TO}}}]")
    assert expected in found


@pytest.mark.parametrize("uri", ["other-host", "xen+ssh://b/system", "'qemu://b /system'", "qemu://", "[]"])
def test_a_destination_that_is_none(uri: str) -> None:
    head = "name: a\nresync: none\ncycle: {method: live-migrate, patch: {hold: 0s}}\n"
    [found] = mistakes_in(f"{head}guests: [{{domain: x, migrate_to: {uri}}}]")
    assert found.startswith("4:34: guests[0].migrate_to"), found


WINDOWS = "name: a\nresync: w32time\ncycle: {patch: {hold: 3s}}\n"


def test_the_windows_time_service_is_of_windows() -> None:
    assert parse(f"{WINDOWS}guests: [{{domain: x}}]".encode(), "a.yaml").guests[0].probe is Depth.AGENT
    for text, name in (("", "web-0"), ("guests: [{domain: x}, {domain: y, ssh: z}]", "y")):
        [found] = mistakes_in(WINDOWS + text)
        assert found.startswith(f"2:9: guest {name}: w32time is a part of Windows, which is looked into by")


def test_a_matrix_leaves_out_what_would_change_it() -> None:
    text = (
        "name: a\nresync: none\ncycle: {patch: {hold: 3s}}\nguests: [{domain: x, ssh: y}]\n"
        "matrix: {method: [suspend, in-place, save-restore]}"
    )
    plan = parse(text.encode(), "a.yaml")
    assert [cell.cycle.method.value for cell in plan.cells] == ["suspend", "save-restore"]
    assert "is your own" in plan.left_out[0].why
