"""The keys of an entry of `guests` that name a domain of the user's own: `domain`, `ssh`, `migrate_to`.

Nothing is looked up here: whether there is such a domain, and such a Host in ssh_config, the run finds out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ValidationInfo, field_validator

from lab.core.own_domain import MigrationTarget, SshTarget
from lab.playbook.fields import FOLDER, Flag, Or, default, needed, section, section_of
from lab.playbook.hosts import file
from lab.playbook.mistakes import Wrong, quoted
from lab.playbook.scalars import ScalarReader, expect_scalar, whole

MOST_DOMAIN = 200
MOST_HOST = 255
MOST_URI = 1000

_DOMAIN = re.compile(r"[^/\s\x00-\x1f]([^/\x00-\x1f]*[^/\s\x00-\x1f])?")
_HOST = re.compile(r"[A-Za-z0-9_.:%*][A-Za-z0-9_.:%*-]*")
_LIBVIRT = re.compile(r"qemu(\+[a-z0-9]+)?://[^\s\x00-\x1f]+")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\-]*\$?")


def _plain(pattern: re.Pattern[str], wanted: str, advice: str, most: int) -> ScalarReader:
    def read(node: object) -> str:
        text = expect_scalar(node, wanted, advice).text
        if len(text) > most or not pattern.fullmatch(text):
            raise Wrong(f"{quoted(text)} is not {wanted}", advice)
        return text

    return ScalarReader(read, {"type": "string", "pattern": f"^{pattern.pattern}$", "maxLength": most})


def domain_name() -> ScalarReader:
    """The name of a libvirt domain."""
    return _plain(_DOMAIN, "the name of a domain", "write it as virsh list shows it", MOST_DOMAIN)


def ssh_host() -> ScalarReader:
    """A Host of ssh_config, a host name, or an address."""
    advice = "write a Host of your ssh_config, a host name or an address, or a section {host: 10.0.0.7}"
    return _plain(_HOST, "an SSH host", advice, MOST_HOST)


def libvirt_uri() -> ScalarReader:
    """The URI of a libvirt daemon's QEMU driver."""
    advice = "write it like qemu+ssh://other-host/system"
    return _plain(_LIBVIRT, "the URI of a libvirt daemon", advice, MOST_URI)


DomainName = Annotated[str, domain_name()]
SshHost = Annotated[str, ssh_host()]
LibvirtUri = Annotated[str, libvirt_uri()]
SshUser = Annotated[str, _plain(_USER, "the name of a user", "write it like admin", 64)]
SshPort = Annotated[int, whole(1, 65535, "ports")]
SshFile = Annotated[str, file("the path of a file", "write it like ~/.ssh/id_ed25519")]


class SshSection(BaseModel):
    """How a domain of your own is reached by SSH. What is left out comes from ssh_config."""

    model_config = section("{host: 10.0.0.7, user: admin}, or a Host of your ssh_config")

    host: SshHost = needed("A Host of your ssh_config, a host name, or an address.", "my-vm-host")
    port: SshPort | None = default(None, "TCP port of its sshd. Default: ssh_config's, else 22.")
    user: SshUser | None = default(
        None, "The user to log in as. One other than root needs sudo without a password for some mechanisms."
    )
    key: SshFile | None = default(
        None, "The private key. Default: ssh_config's, the agent's, and those in ~/.ssh."
    )
    known_hosts: SshFile | None = default(
        None, "The file with the guest's host key. Default: ssh_config's, else ~/.ssh/known_hosts."
    )
    config: SshFile | None = default(
        None, "The ssh_config to read. Default: ~/.ssh/config and /etc/ssh/ssh_config."
    )

    @field_validator("key", "known_hosts", "config", mode="after")
    @classmethod
    def _beside_the_playbook(cls, path: str | None, info: ValidationInfo) -> str | None:
        if path is None or path.startswith("~"):
            return path
        folder = (info.context or {}).get(FOLDER, Path())
        return str((Path(folder) / path).absolute())

    def to_plan(self) -> SshTarget:
        """The target as the plan has it."""
        return SshTarget(
            self.host,
            self.port or 0,
            self.user or "",
            self.key or "",
            self.known_hosts or "",
            self.config or "",
        )


OwnSsh = Annotated[SshSection, section_of("host"), Or(ssh_host().json)]


class MigrateToSection(BaseModel):
    """Another libvirt daemon, to which live-migrate takes a domain of your own, and from which it takes it
    back."""

    model_config = section(
        "qemu+ssh://other-host/system, or {uri: qemu+ssh://other-host/system, unsafe: true}"
    )

    uri: LibvirtUri = needed(
        "Its URI, as this command and the domain's own daemon reach it.", "qemu+ssh://other-host/system"
    )
    unsafe: Flag = default(
        MigrationTarget.unsafe,
        "Migrate the domain even if libvirt takes its disks for unsafe to be used by both daemons "
        "(VIR_MIGRATE_UNSAFE). Only where both have the same file or device under the same path.",
    )

    def to_plan(self) -> MigrationTarget:
        """The target as the plan has it."""
        return MigrationTarget(self.uri, self.unsafe)


MigrateTo = Annotated[MigrateToSection, section_of("uri"), Or(libvirt_uri().json)]
