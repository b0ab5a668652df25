"""The file that names the hosts (docs/hosts.md), read as playbooks are: mistakes have their line and column.

Nothing is looked up here: whether there is such a host, and freezelab on it, only a connection shows.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from lab.core.own_domain import SshTarget
from lab.playbook.explain import explain
from lab.playbook.fields import FOLDER, Name, Or, default, needed, section, section_of
from lab.playbook.hosts import file, folder
from lab.playbook.jsonschema import schema_text
from lab.playbook.mistakes import FileKind, Mistake, Wrong, as_error, printable
from lab.playbook.own_domains import SshSection, SshUser, ssh_host
from lab.playbook.scalars import ScalarReader, argv, found, name
from lab.playbook.source import decode, read
from lab.playbook.tree import Items, Map, compose

MOST_HOSTS = 256
PROGRAM = "freezelab"

HOSTS_FILE = FileKind("hosts file", "begin with a line like hosts: [rack-1, rack-2]", "docs/hosts.md")


@dataclass(frozen=True)
class HostEntry:
    """A host, as the file has it.

    name: unique in the file. ssh: its sshd. freezelab: the command there, as words; one word with a slash may
    also be the folder of a clone, and begin with "~/". state: the state folder there (FREEZELAB_HOME); "":
    the user's own.
    """

    name: str
    ssh: SshTarget
    freezelab: tuple[str, ...] = (PROGRAM,)
    state: str = ""

    def command(self, arguments: Sequence[str]) -> str:
        """The shell command that runs freezelab there. Its exit status is freezelab's; 126 or 127, as sh(1)
        has them, when there is none."""
        steps = [f"export FREEZELAB_HOME={shlex.quote(self.state)}"] if self.state else []
        first, *more = self.freezelab
        words = ['"$p"', *map(shlex.quote, [*more, *arguments])]
        steps.append(f"p={_path(first)}")
        if "/" in first and not more:
            steps.append(f'if [ -d "$p" ]; then p="$p/{PROGRAM}"; fi')
        steps.append(f"exec {' '.join(words)}")
        return f"exec sh -c {shlex.quote('; '.join(steps))}"


@dataclass(frozen=True)
class HostsFile:
    """The hosts of a file, in its order. path: the file, for messages."""

    path: str
    hosts: tuple[HostEntry, ...]


def _path(text: str) -> str:
    """A word of the shell; "~/" at its beginning is the home of whoever logs in."""
    return f'"$HOME"/{shlex.quote(text[2:])}' if text.startswith("~/") else shlex.quote(text)


def _program() -> ScalarReader:
    """A command's words, or one path."""
    words, path = argv(), file("a command, or the folder of a clone", "write it like /opt/freezelab")

    def take(node: object) -> object:
        return words.read(node) if isinstance(node, Items) else (path.read(node),)

    return ScalarReader(take, {"anyOf": [dict(words.json), dict(path.json)]})


class HostSshSection(SshSection):
    """How a host is reached by SSH. What is left out comes from ssh_config."""

    model_config = section("{host: 10.0.0.7, user: admin}, or a Host of your ssh_config")

    user: SshUser | None = default(None, "The user who logs in, and whose freezelab it is.")
    known_hosts: Annotated[str, file("the path of a file", "write it like ~/.ssh/known_hosts")] | None = (
        default(None, "The file with the host's key. Default: ssh_config's, else ~/.ssh/known_hosts.")
    )


HostSsh = Annotated[HostSshSection, section_of("host"), Or(ssh_host().json)]


class HostSection(BaseModel):
    """A host."""

    model_config = section("{name: rack-1, ssh: rack-1.example.org}, or a Host of your ssh_config")

    name: Name = needed("Its name in tables and records: an RFC 1123 label.", "rack-1")
    ssh: HostSsh | None = default(None, "How it is reached. Default: by its name, as a Host of ssh_config.")
    freezelab: Annotated[tuple[str, ...], _program()] = default(
        HostEntry.freezelab,
        "freezelab there: a command, as a word or a list of words, or the folder of a clone.",
        PROGRAM,
    )
    state: Annotated[str, folder("freezelab's state", "lib/freezelab")] | None = default(
        None, "The state folder there, FREEZELAB_HOME. Default: that of the user."
    )

    def to_entry(self) -> HostEntry:
        """The host as the rest of the program has it."""
        ssh = self.ssh.to_plan() if self.ssh else SshTarget(self.name)
        return HostEntry(self.name, ssh, self.freezelab, self.state or "")


def _number_of_hosts(hosts: object) -> object:
    # Asked first: a list of ten thousand needs one answer, not ten thousand.
    if isinstance(hosts, list):
        if not hosts:
            raise Wrong("the list of hosts is empty", "add one, like {name: rack-1, ssh: rack-1.example.org}")
        if len(hosts) > MOST_HOSTS:
            raise Wrong(f"{len(hosts)} hosts are too many", f"write at most {MOST_HOSTS}")
    return hosts


HostList = Annotated[
    list[Annotated[HostSection, section_of("name"), Or(name().json)]],
    BeforeValidator(_number_of_hosts),
    Field(json_schema_extra={"minItems": 1, "maxItems": MOST_HOSTS}),
]


class HostsDocument(BaseModel):
    """The hosts that freezelab runs on, beside or instead of this machine."""

    model_config = section("hosts: [rack-1, rack-2]")

    hosts: HostList = needed("The hosts.", "[rack-1, rack-2]")

    @field_validator("hosts", mode="after")
    @classmethod
    def _distinct(cls, hosts: list[HostSection]) -> list[HostSection]:
        """One machine may still be named by two addresses: only the machines themselves know."""
        names: dict[str, int] = {}
        targets: dict[SshTarget, int] = {}
        for index, each in enumerate(hosts):
            entry = each.to_entry()
            if entry.name in names:
                both = f"entries {names[entry.name] + 1} and {index + 1} of the list"
                raise Wrong(f"two hosts are named {entry.name}, {both}", "rename one", within=(index, "name"))
            if entry.ssh in targets:
                both = f"{hosts[targets[entry.ssh]].name} and {entry.name}"
                raise Wrong(f"{both} are one host, {entry.ssh.host}", "delete one", within=(index, "ssh"))
            names[entry.name] = targets[entry.ssh] = index
        return hosts


def load_hosts(path: Path) -> HostsFile:
    """The hosts in the file at `path`. PlaybookError tells all mistakes, a line each."""
    return parse_hosts(read(path, HOSTS_FILE), str(path), path.parent)


def parse_hosts(data: bytes, file: str, folder: Path) -> HostsFile:
    """The hosts in a file's bytes; `file` is what messages call it, `folder` where the paths of keys begin.
    PlaybookError as load_hosts()."""
    file = printable(file)
    root, mistakes = compose(decode(data, file), HOSTS_FILE)
    if root is None:
        raise as_error(file, mistakes)
    if not isinstance(root, Map):
        what = f"keys and values are expected here, not {found(root)}"
        raise as_error(file, [*mistakes, Mistake(root.place, what, HOSTS_FILE.begin)])
    mistakes += [explain(error, root, HostsDocument, HOSTS_FILE) for error in _errors(root, folder)]
    if mistakes:
        raise as_error(file, mistakes)
    document = HostsDocument.model_validate(root, context={FOLDER: folder})
    return HostsFile(file, tuple(each.to_entry() for each in document.hosts))


def _errors(root: Map, folder: Path) -> list[ErrorDetails]:
    try:
        HostsDocument.model_validate(root, context={FOLDER: folder})
    except ValidationError as error:
        return error.errors(include_url=False)
    return []


def hosts_schema_text() -> str:
    """The JSON schema, as docs/hosts.schema.json holds it."""
    return schema_text(HostsDocument, "freezelab hosts file")
