"""The `setup` section: what it becomes in the plan, and its mistakes at their places."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.core.plan import GuestSpec
from lab.core.setup import (
    COMMAND_NS,
    NO_SETUP,
    SERVICE_NS,
    Ready,
    ReadyKind,
    Secret,
    SetupCommand,
    SetupFile,
    SetupService,
)
from lab.core.units import NS_PER_S
from lab.playbook import parse
from tests.unit.playbooks import mistakes_in

HEAD = "name: a\nresync: agent\ncycle: {patch: {hold: 5s}}\n"

WHOLE = """\
setup:
  packages: [redis-server, g++, redis-server]
  secrets: {DB_PASSWORD: {env: DB_PASS}, CERT: {file: ./cert.pem}}
  files:
    - {from: ./app.conf, to: /etc/app.conf, mode: "0640", owner: "root:adm"}
    - {secret: CERT, to: /etc/app/cert.pem}
  run:
    - make -C /opt/app
    - command: |
        cd /opt/app
        ./migrate
      within: 10min
  services:
    - redis-server
    - {unit: app, ready: {port: 8080}, within: 30s}
    - {unit: web, ready: {url: "http://127.0.0.1/health"}}
    - {unit: queue@1.service, ready: {command: queue ping}}
"""


def guests_of(text: str, folder: Path = Path("/books")) -> tuple[GuestSpec, ...]:
    return parse(text.encode(), "p.yaml", folder).guests


def test_every_part_is_in_the_plan() -> None:
    (guest,) = guests_of(HEAD + WHOLE)
    setup = guest.setup
    assert setup.packages == ("redis-server", "g++")
    assert setup.secrets == (Secret("DB_PASSWORD", "DB_PASS"), Secret("CERT", file="/books/cert.pem"))
    assert setup.files == (
        SetupFile("/etc/app.conf", "/books/app.conf", mode="0640", owner="root:adm"),
        SetupFile("/etc/app/cert.pem", secret="CERT"),
    )
    assert setup.run == (
        SetupCommand("make -C /opt/app", COMMAND_NS),
        SetupCommand("cd /opt/app\n./migrate", 600 * NS_PER_S),
    )
    assert setup.services == (
        SetupService("redis-server.service", None, SERVICE_NS),
        SetupService("app.service", Ready(ReadyKind.PORT, "8080"), 30 * NS_PER_S),
        SetupService("web.service", Ready(ReadyKind.URL, "http://127.0.0.1/health")),
        SetupService("queue@1.service", Ready(ReadyKind.COMMAND, "queue ping")),
    )


def test_without_one_there_is_nothing_to_set_up() -> None:
    (guest,) = guests_of(HEAD)
    assert guest.setup == NO_SETUP
    assert not guest.setup.in_guest


def test_a_guests_own_setup_comes_after_that_of_all() -> None:
    web, db = guests_of(
        HEAD
        + "setup: {secrets: {KEY: {env: ONE}}, run: [first]}\n"
        + "guests:\n  - {name: web}\n"
        + "  - {name: db, setup: {secrets: {KEY: {env: TWO}}, run: [second], services: [db]}}\n"
    )
    assert [command.text for command in web.setup.run] == ["first"]
    assert [command.text for command in db.setup.run] == ["first", "second"]
    assert web.setup.secrets == (Secret("KEY", "ONE"),)
    assert db.setup.secrets == (Secret("KEY", "TWO"),)
    assert not web.setup.services
    assert [service.name for service in db.setup.services] == ["db"]


def test_guests_of_a_fleet_have_it_as_well() -> None:
    fleet = (
        "fleet:\n  scale_sets: [{name: web, count: 2, setup: {run: [own]}}]\n  guests: [{name: db}]\n"
        "setup: {run: [all]}\n"
    )
    runs = {guest.name: [one.text for one in guest.setup.run] for guest in guests_of(HEAD + fleet)}
    assert runs == {"db": ["all"], "web000000": ["all", "own"], "web000001": ["all", "own"]}


def test_an_image_may_be_a_folder_beside_the_playbook() -> None:
    web, db = guests_of(HEAD + "guests: [{name: a, image: ./my-image}, {name: b, image: debian}]\n")
    assert (web.image, db.image) == ("/books/my-image", "debian")
    assert web.image_key == "/books/my-image"
    (guest,) = guests_of(HEAD + "setup: {packages: [b, a]}\n".replace("[b, a]", "[bb, aa]"))
    assert guest.image_key == "debian with aa, bb"


def test_a_matrix_may_have_such_images() -> None:
    plan = parse((HEAD + "matrix: {image: [debian, ../my-image]}\n").encode(), "p.yaml", Path("/books"))
    assert [cell.guests[0].image for cell in plan.cells] == ["debian", "/my-image"]
    assert [cell.id for cell in plan.cells] == ["debian", "my-image"]


MISTAKES = [
    ("{packages: redis}", "4:19: setup.packages: a list is expected here, not the text 'redis'; begin"),
    ("{packages: [redis-]}", "4:20: setup.packages[0]: 'redis-' is not the name of a package; write it"),
    ("{packages: [-y]}", "4:20: setup.packages[0]: '-y' is not the name of a package; write it like"),
    ("{packages: [7.5]}", "4:20: setup.packages[0]: the name of a package is expected here, not the"),
    ("{rnu: [x]}", "4:9: setup: unknown key 'rnu'; did you mean run?"),
    ("{run: make}", "4:14: setup.run: a list is expected here, not the text 'make'; begin each"),
    ("{run: ['']}", "4:15: setup.run[0].command: an empty command; write it like"),
    ("{run: [5]}", "4:15: setup.run[0].command: a command is expected here, not the number 5; write"),
    ("{run: [{within: 5s}]}", "4:15: setup.run[0]: command is missing; add command: make -C"),
    ("{run: [{command: x, within: 2h}]}", "4:36: setup.run[0].within: '2h' is too long; write at most 1 h"),
    ("{run: [{command: x, within: 0s}]}", "4:36: setup.run[0].within: zero is not allowed here;"),
    ("{files: [{to: /a/b}]}", "4:17: setup.files[0]: it comes from nowhere; add from: ./FILE, or secret:"),
    ("{files: [{from: a}]}", "4:17: setup.files[0]: to is missing; add to: /etc/app.conf"),
    ("{files: [{from: a, to: etc/b}]}", "4:31: setup.files[0].to: 'etc/b' is not the path of a file in the"),
    ("{files: [{from: a, to: /etc/}]}", "4:31: setup.files[0].to: '/etc/' is not the path of a file in"),
    ("{files: [{from: a, to: /a/../b}]}", "4:31: setup.files[0].to: '/a/../b' is not the path of a file"),
    ("{files: [{from: a, to: /b, mode: 0644}]}", "4:41: setup.files[0].mode: a mode is expected here, not"),
    ("{files: [{from: a, to: /b, mode: '0999'}]}", "4:41: setup.files[0].mode: '0999' is not a mode; write"),
    ("{files: [{from: a, to: /b, mode: '4755'}]}", "4:41: setup.files[0].mode: '4755' is not a mode; write"),
    ("{files: [{from: a, to: /b, owner: 'a b'}]}", "4:42: setup.files[0].owner: 'a b' is not an owner;"),
    ("{files: [{from: a, secret: B, to: /b}]}", "4:35: setup.files[0]: from and secret are two sources;"),
    ("{files: [{secret: B, to: /b}]}", "4:26: no secret is named 'B'; add it to setup.secrets"),
    ("{secrets: [A]}", "4:18: setup.secrets: a mapping is expected here, not a list; write it like"),
    ("{secrets: {A: hunter2}}", "4:22: setup.secrets: its source is expected here; a playbook holds no"),
    ("{secrets: {1A: {env: B}}}", "4:19: setup.secrets: '1A' is not the name of a secret; use letters"),
    (
        "{secrets: {PATH: {env: B}}}",
        "4:19: setup.secrets: PATH has a meaning for the guest's shell; choose another",
    ),
    ("{secrets: {A: {}}}", "4:19: setup.secrets: a secret has one source; write {env: NAME} or {file:"),
    ("{secrets: {A: {env: B, file: c}}}", "4:19: setup.secrets: a secret has one source; write"),
    ("{secrets: {A: {envv: B}}}", "4:29: setup.secrets: unknown key 'envv'; known: env, file"),
    ("{secrets: {A: {env: B-C}}}", "4:28: setup.secrets: 'B-C' is not the name of an environment variable"),
    ("{secrets: {A: {file: ''}}}", "4:29: setup.secrets: the path of a file is expected here, not an empty"),
    ("{services: [a b]}", "4:20: setup.services[0].unit: 'a b' is not the name of a service; write it"),
    ("{services: [x.socket]}", "4:20: setup.services[0].unit: 'x.socket' is not a service: it has no"),
    ("{services: [{unit: a, ready: {}}]}", "4:30: setup.services[0].ready: ready has no condition; write"),
    (
        "{services: [{unit: a, ready: {port: 0}}]}",
        "4:44: setup.services[0].ready.port: the number 0 is not a port",
    ),
    ("{services: [{unit: a, ready: {port: 1, command: x}}]}", "4:44: setup.services[0].ready: ready has one"),
    ("{services: [{unit: a, ready: {url: 'ftp://x'}}]}", "4:43: setup.services[0].ready.url: 'ftp://x' is"),
    ("{services: [{unit: a, ready: {url: 'https://x'}}]}", "4:43: setup.services[0].ready: https is not"),
    (f"{{run: [{', '.join('x' * 101)}]}}", "4:14: setup.run: 101 entries are too many; write at most 100"),
]


@pytest.mark.parametrize(("setup", "told"), MISTAKES)
def test_a_mistake_is_told_at_its_place(setup: str, told: str) -> None:
    lines = mistakes_in(f"{HEAD}setup: {setup}\n")
    assert [line[: len(told)] for line in lines] == [told]


def test_a_secret_may_be_that_of_all_guests() -> None:
    file = "setup: {files: [{secret: KEY, to: /k}]}"
    (guest,) = guests_of(HEAD + f"setup: {{secrets: {{KEY: {{env: K}}}}}}\nguests: [{{name: a, {file}}}]\n")
    assert guest.setup.files[0].secret == "KEY"
    (told,) = mistakes_in(HEAD + f"guests: [{{name: a, {file}}}]\n")
    assert told.startswith("4:45: no secret is named 'KEY'")
