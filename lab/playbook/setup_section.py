"""The `setup` section: programs of the user's own in the guests."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from lab.core.setup import (
    COMMAND_NS,
    SERVICE_NS,
    Ready,
    ReadyKind,
    Secret,
    SetupCommand,
    SetupFile,
    SetupService,
    SetupSpec,
)
from lab.playbook.fields import FOLDER, Budget, Or, default, needed, section, section_of
from lab.playbook.hosts import MOST_PATH, file, service
from lab.playbook.mistakes import Wrong, quoted
from lab.playbook.scalars import (
    ScalarReader,
    expect_scalar,
    found,
    is_text,
    shell_line,
    url,
    whole,
)
from lab.playbook.tree import Items, Map

MOST_ENTRIES = 100
MOST_SCRIPT = 20_000

_OF_THE_SHELL = {"PATH", "IFS", "ENV", "LD_PRELOAD", "LD_LIBRARY_PATH"}
_SECRET = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
# Debian Policy, 5.6.1. A final hyphen would have apt remove it.
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*[a-z0-9+]")
_MODE = re.compile(r"0?[0-7]{3}")
_USER = r"[a-z_][a-z0-9_-]{0,31}|[0-9]{1,10}"
_OWNER = re.compile(rf"({_USER})(:({_USER}))?")
_IN_GUEST = re.compile(r"/[^\x00-\x1f\x7f]*[^\x00-\x1f\x7f/]")
_SOURCES = ("env", "file")

At = tuple[str | int, ...]


def package() -> ScalarReader:
    """The name of a package of Debian."""
    return _matching(_PACKAGE, "the name of a package", "write it like redis-server")


def owner() -> ScalarReader:
    """USER or USER:GROUP, in the guest."""
    return _matching(_OWNER, "an owner", "write it like www-data, or www-data:www-data")


def mode() -> ScalarReader:
    """A file's mode."""
    return _matching(_MODE, "a mode", 'write its octal digits in quotes, like "0644"')


def _matching(pattern: re.Pattern[str], wanted: str, advice: str) -> ScalarReader:
    def read(node: object) -> str:
        scalar = expect_scalar(node, wanted, advice)
        if not pattern.fullmatch(scalar.text):
            raise Wrong(f"{quoted(scalar.text)} is not {wanted}", advice)
        if not is_text(scalar):
            raise Wrong(
                f"{wanted} is expected here, not {found(scalar)}", f"write '{scalar.text}', in quotes"
            )
        return scalar.text

    return ScalarReader(read, {"type": "string", "pattern": f"^({pattern.pattern})$"})


def port() -> ScalarReader:
    """A port of TCP."""
    number = whole(1, 65535, "ports")

    def read(node: object) -> object:
        try:
            return number.read(node)
        except Wrong:
            raise Wrong(f"{found(node)} is not a port", "write a whole number from 1 to 65535") from None

    return ScalarReader(read, number.json)


def guest_path() -> ScalarReader:
    """The whole path of a file or folder in the guest."""
    advice = "write the whole path, like /etc/app.conf"

    def read(node: object) -> str:
        path = expect_scalar(node, "a path in the guest", advice).text
        if not _IN_GUEST.fullmatch(path) or len(path) > MOST_PATH or {".", ".."} & set(path.split("/")):
            raise Wrong(f"{quoted(path)} is not the path of a file in the guest", advice)
        return path

    return ScalarReader(read, {"type": "string", "pattern": "^/.*[^/]$", "maxLength": MOST_PATH})


def script() -> ScalarReader:
    """Lines for the guest's shell."""
    advice = 'write it like "make -C /opt/app"'

    def read(node: object) -> str:
        scalar = expect_scalar(node, "a command", advice)
        if not is_text(scalar):
            raise Wrong(f"a command is expected here, not {found(scalar)}", advice)
        if not scalar.text.strip():
            raise Wrong("an empty command", advice)
        if len(scalar.text) > MOST_SCRIPT:
            raise Wrong("the command is too long", "copy a script with files, and run that")
        return scalar.text.strip()

    return ScalarReader(read, {"type": "string", "pattern": r"\S", "maxLength": MOST_SCRIPT})


def secrets() -> ScalarReader:
    """Secrets by name, each with its source."""
    advice = "write it like {DB_PASSWORD: {env: DB_PASSWORD}}"
    path = file("the path of a file", "write it like ./cert.pem")

    def read(node: object) -> tuple[Secret, ...]:
        if not isinstance(node, Map):
            raise Wrong(f"a mapping is expected here, not {found(node)}", advice)
        return tuple(one(name, source) for name, source in node.items())

    def one(name: str, node: object) -> Secret:
        at = (name,)
        if not _SECRET.fullmatch(name):
            todo = "use letters, digits and _, not a digit first: it is an environment variable of commands"
            raise Wrong(f"{quoted(name)} is not the name of a secret", todo, within=at)
        if name in _OF_THE_SHELL:
            raise Wrong(f"{name} has a meaning for the guest's shell", "choose another name", within=at)
        if not isinstance(node, Map):
            what = "its source is expected here"
            raise Wrong(f"{what}; a playbook holds no values of secrets", "write {env: NAME}", within=at)
        for key in node:
            if key not in _SOURCES:
                raise Wrong(f"unknown key {quoted(key)}", "known: env, file", within=(*at, key))
        if len(node) != 1:
            raise Wrong("a secret has one source", "write {env: NAME} or {file: PATH}", within=at)
        ((key, value),) = node.items()
        try:
            if key == "file":
                return Secret(name, file=str(path.read(value)))
            variable = expect_scalar(value, "the name of an environment variable", "write {env: NAME}").text
            if not _SECRET.fullmatch(variable):
                raise Wrong(
                    f"{quoted(variable)} is not the name of an environment variable", "write {env: NAME}"
                )
        except Wrong as wrong:
            raise Wrong(wrong.what, wrong.todo, within=(*at, key)) from None
        return Secret(name, variable)

    def source(key: str, rule: Mapping[str, object]) -> dict[str, object]:
        return {"required": [key], "properties": {key: rule}, "additionalProperties": False}

    variable = {"type": "string", "pattern": f"^{_SECRET.pattern}$"}
    return ScalarReader(
        read,
        {
            "type": "object",
            "propertyNames": {"pattern": f"^{_SECRET.pattern}$"},
            "additionalProperties": {
                "type": "object",
                "oneOf": [source("env", variable), source("file", path.json)],
            },
        },
    )


def _not_too_many(node: object) -> object:
    if isinstance(node, Items) and len(node) > MOST_ENTRIES:
        raise Wrong(f"{len(node)} entries are too many", f"write at most {MOST_ENTRIES}")
    return node


_FEW = BeforeValidator(_not_too_many)
_MOST = Field(json_schema_extra={"maxItems": MOST_ENTRIES})

Package = Annotated[str, package()]
HostFile = Annotated[str, file("the path of a file or folder", "write it like ./app.conf")]
GuestPath = Annotated[str, guest_path()]
Mode = Annotated[str, mode()]
Owner = Annotated[str, owner()]
Script = Annotated[str, script()]
Unit = Annotated[str, service()]
Line = Annotated[str, shell_line()]
Port = Annotated[int, port()]
Url = Annotated[str, url()]
SecretName = Annotated[str, _matching(_SECRET, "the name of a secret", "write a name of secrets")]
Secrets = Annotated[tuple[Secret, ...], secrets()]


def beside(info: ValidationInfo, path: str) -> str:
    """The whole path of what is written relative to the playbook's folder."""
    folder: Path = (info.context or {}).get(FOLDER, Path())
    return os.path.abspath(folder / path)  # noqa: PTH100 - links stay as they are


class FileSection(BaseModel):
    """A file or folder that is copied into the guest, or a secret as a file."""

    model_config = section(
        "{from: ./app.conf, to: /etc/app.conf}", oneOf=[{"required": ["from"]}, {"required": ["secret"]}]
    )

    source: HostFile | None = default(
        None, "A file or folder of the host; relative to the playbook's folder.", alias="from"
    )
    secret: SecretName | None = default(None, "The secret with this name; in place of from.")
    to: GuestPath = needed(
        "Its whole path in the guest. Missing folders are made. A folder is copied into one that exists.",
        "/etc/app.conf",
    )
    mode: Mode | None = default(
        None, 'Its mode, like "0644". Default: that of the file (0644 or 0755); of a secret "0600".'
    )
    owner: Owner | None = default(
        None, "USER or USER:GROUP, which the guest has to know. Default: root:root."
    )

    @field_validator("source", mode="after")
    @classmethod
    def _beside(cls, source: str | None, info: ValidationInfo) -> str | None:
        return source and beside(info, source)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.source is None and self.secret is None:
            raise Wrong("it comes from nowhere", "add from: ./FILE, or secret: NAME")
        if self.source is not None and self.secret is not None:
            raise Wrong("from and secret are two sources", "keep one of them", within=("secret",))
        return self

    def to_plan(self) -> SetupFile:
        """The file as the plan has it."""
        return SetupFile(self.to, self.source or "", self.secret or "", self.mode or "", self.owner or "")


class CommandSection(BaseModel):
    """Lines for the guest's shell, as root in /root. They have to exit with 0."""

    model_config = section("{command: make -C /opt/app, within: 10min}, or the command alone")

    command: Script = needed("The command; several lines end at the first that fails.", "make -C /opt/app")
    within: Budget = default(COMMAND_NS, "The longest time that it may take.", "5min")

    def to_plan(self) -> SetupCommand:
        """The command as the plan has it."""
        return SetupCommand(self.command, self.within)


_READY = {kind.value: kind for kind in ReadyKind}


class ReadySection(BaseModel):
    """What shows that a service is ready: exactly one of command, port and url."""

    model_config = section("{port: 8080}", oneOf=[{"required": [kind]} for kind in _READY])

    command: Line | None = default(None, "A line for the guest's shell, which has to exit with 0.")
    port: Port | None = default(
        None, "A TCP port at 127.0.0.1 in the guest, which has to accept a connection."
    )
    url: Url | None = default(
        None, "A URL of http that is asked for from inside the guest, and has to be answered with 2xx."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [kind for kind in _READY if getattr(self, kind) is not None]
        if not kinds:
            raise Wrong("ready has no condition", "write {port: 8080}, or a command or url")
        if len(kinds) > 1:
            what = f"ready has one condition, and {kinds[0]} and {kinds[1]} are two"
            raise Wrong(what, "keep one of them", within=(kinds[1],))
        if self.url is not None and not self.url.startswith("http://"):
            raise Wrong("https is not spoken here", "write {port: 443}, or a command", within=("url",))
        return self

    def to_plan(self) -> Ready:
        """The condition as the plan has it."""
        kind = next(kind for key, kind in _READY.items() if getattr(self, key) is not None)
        return Ready(kind, str(getattr(self, kind.value)))


class ServiceToStart(BaseModel):
    """A service of the guest's systemd that is started."""

    model_config = section("{unit: app, ready: {port: 8080}}, or its name")

    unit: Unit = needed("Its name in systemd; .service may be left out.", "redis-server")
    ready: ReadySection | None = default(
        None, "What shows that it is ready. Default: that systemd has started it."
    )
    within: Budget = default(SERVICE_NS, "The longest time until it is ready.", "2min")

    def to_plan(self) -> SetupService:
        """The service as the plan has it."""
        return SetupService(self.unit, self.ready.to_plan() if self.ready else None, self.within)


class SetupSection(BaseModel):
    """Programs of the user's own in the guests: packages when the image is made; then, in each guest before
    its first cycle, files, commands and services, in this order."""

    model_config = section("{packages: [redis-server], services: [redis-server]}")

    packages: Annotated[list[Package], _FEW, _MOST] = Field(
        default=[], description="Packages of the image's distribution, which are installed when it is made."
    )
    secrets: Secrets = default(
        (),
        "Secrets by name, each from an environment variable {env: NAME} or a file {file: PATH}. Commands "
        "of run have them as environment variables. Their values are not recorded.",
        "",
    )
    files: Annotated[list[FileSection], _FEW, _MOST] = Field(
        default=[], description="Files and folders that are copied into the guest."
    )
    run: Annotated[list[Annotated[CommandSection, section_of("command"), Or(script().json)]], _FEW, _MOST] = (
        Field(default=[], description="Commands that are run once, as root.")
    )
    services: Annotated[
        list[Annotated[ServiceToStart, section_of("unit"), Or(service().json)]], _FEW, _MOST
    ] = Field(default=[], description="Services that are started, and awaited.")

    @field_validator("secrets", mode="after")
    @classmethod
    def _beside(cls, given: tuple[Secret, ...], info: ValidationInfo) -> tuple[Secret, ...]:
        return tuple(Secret(one.name, file=beside(info, one.file)) if one.file else one for one in given)

    def unknown(self, outer: SetupSection | None = None) -> Iterator[tuple[At, str]]:
        """Secrets that files name and neither this section nor `outer` has: their places here, and names."""
        there = {one.name for one in (*self.secrets, *(outer.secrets if outer else ()))}
        for number, one in enumerate(self.files):
            if one.secret is not None and one.secret not in there:
                yield ("files", number, "secret"), one.secret

    def to_plan(self) -> SetupSpec:
        """The set-up as the plan has it."""
        return SetupSpec(
            packages=tuple(dict.fromkeys(self.packages)),
            secrets=self.secrets,
            files=tuple(one.to_plan() for one in self.files),
            run=tuple(one.to_plan() for one in self.run),
            services=tuple(one.to_plan() for one in self.services),
        )
