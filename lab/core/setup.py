"""What a playbook puts into a guest after its start, before the first cycle: files, commands, services.

Of secrets only names and sources are here. Their values are read when a run starts, and are never recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lab.core.units import NS_PER_S

COMMAND_NS = 300 * NS_PER_S
SERVICE_NS = 120 * NS_PER_S


@dataclass(frozen=True)
class Secret:
    """The source of a secret: an environment variable of the lab, or a file of the host; the other is ""."""

    name: str
    variable: str = ""
    file: str = ""

    @property
    def source(self) -> str:
        """ "the variable DB_PASSWORD"."""
        return f"the variable {self.variable}" if self.variable else f"the file {self.file}"


@dataclass(frozen=True)
class SetupFile:
    """A file or folder that is copied to `to` in the guest.

    source: its path on the host; "": it is the secret of the name `secret`, or `content`. mode: octal digits;
    "": that of the source, 0600 for a secret, or 0644. owner: USER or USER:GROUP; "": root:root.
    """

    to: str
    source: str = ""
    secret: str = ""
    mode: str = ""
    owner: str = ""
    content: str = ""

    @property
    def label(self) -> str:
        """ "app.conf to /etc/app.conf"."""
        if self.content:
            return self.to
        what = f"the secret {self.secret}" if self.secret else self.source.rstrip("/").rpartition("/")[2]
        return f"{what} to {self.to}"


@dataclass(frozen=True)
class SetupCommand:
    """Lines for the guest's shell, which has to exit with 0 within within_ns."""

    text: str
    within_ns: int = COMMAND_NS

    @property
    def label(self) -> str:
        """Its first line."""
        first, _, more = self.text.strip().partition("\n")
        return f"{first} …" if more else first


class ReadyKind(StrEnum):
    """What shows that a service is ready."""

    COMMAND = "command"  # a line for the guest's shell exits with 0
    PORT = "port"  # a TCP connection to 127.0.0.1 in the guest is accepted
    URL = "url"  # an HTTP request from the guest is answered with 2xx


@dataclass(frozen=True)
class Ready:
    """How a service shows that it is ready. text: the command, the port or the URL."""

    kind: ReadyKind
    text: str

    @property
    def label(self) -> str:
        return f"{self.kind} {self.text}"


@dataclass(frozen=True)
class SetupService:
    """A unit of systemd that is started. within_ns: the longest time until it is ready; ready: None: as soon
    as systemd has started it."""

    unit: str
    ready: Ready | None = None
    within_ns: int = SERVICE_NS

    @property
    def name(self) -> str:
        return self.unit.removesuffix(".service")

    @property
    def label(self) -> str:
        """ "app, ready by port 8080"."""
        return f"{self.name}, ready by {self.ready.label}" if self.ready else self.name


@dataclass(frozen=True)
class SetupSpec:
    """The set-up of a guest: files, then commands, then services, each in order. packages: those of the
    distribution that are added to its image."""

    packages: tuple[str, ...] = ()
    secrets: tuple[Secret, ...] = ()
    files: tuple[SetupFile, ...] = ()
    run: tuple[SetupCommand, ...] = ()
    services: tuple[SetupService, ...] = ()

    @property
    def in_guest(self) -> bool:
        """True when something has to be done in the running guest."""
        return bool(self.files or self.run or self.services)

    def then(self, more: SetupSpec) -> SetupSpec:
        """This and then `more`, whose secrets replace those of the same name."""
        secrets = {secret.name: secret for secret in (*self.secrets, *more.secrets)}
        return SetupSpec(
            tuple(dict.fromkeys((*self.packages, *more.packages))),
            tuple(secrets.values()),
            (*self.files, *more.files),
            (*self.run, *more.run),
            (*self.services, *more.services),
        )


NO_SETUP = SetupSpec()
