"""Kept guests, which outlive the command that starts them: their files, `freezelab list` and `down`.

Each kept guest has a file with the data for access, HOME/kept/NAME.json, which only the user can read (0600).
Its domain is marked as kept, so `run` and `recover` do not touch it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lab.core.scheduled.instance import InstanceInfo, size_name
from lab.errors import RecordError, UsageError
from lab.guest.address import Address
from lab.hypervisor.accelerators import take_stored_pace
from lab.hypervisor.domain_status import ENDED, domain_status
from lab.image.seed import USER_NETWORK
from lab.process.runner import quote
from lab.process.signals import shield
from lab.session.paths import made

SCHEMA = "freezelab.kept/1"
START = "freezelab up --name web-0"


@dataclass(frozen=True)
class KeptGuest:
    """A kept guest. run: the name of its files below HOME/guests. domain, uuid: libvirt's. host_key: the line
    of its public host key. since: the time of its start, ISO 8601. machine_uuid, mac: as inside the guest; ""
    in files of an older freezelab."""

    name: str
    run: str
    domain: str
    uuid: str
    image: str
    memory_bytes: int
    vcpus: int
    resync: str
    since: str
    host: str
    port: int
    user: str
    key: str
    host_key: str
    known_hosts: str
    console: str
    sockets: tuple[str, ...]
    accelerator: str
    machine_uuid: str = ""
    mac: str = ""

    @property
    def address(self) -> Address:
        return Address(self.name, self.host, self.port, self.user, Path(self.key), self.host_key)

    def about(self) -> InstanceInfo:
        """The guest's data for the metadata service. UsageError when its file has too little."""
        if not self.mac or not self.machine_uuid:
            what = "it was started by an older freezelab, which did not record its UUID and MAC address"
            raise UsageError(
                what, where=f"guest {self.name}", hint=f"freezelab down {self.name}, and up again"
            )
        key = Path(f"{self.key}.pub")
        address, _, prefix = USER_NETWORK.partition("/")
        return InstanceInfo(
            guest=self.name,
            name=self.name,
            vm_id=self.machine_uuid,
            size=size_name(self.vcpus, self.memory_bytes),
            mac=self.mac,
            address=address,
            prefix=int(prefix),
            public_key=key.read_text(encoding="ascii").strip() if key.is_file() else "",
        )

    @property
    def login(self) -> str:
        """The shell command to log in."""
        return quote(["ssh", *self.ssh_options, "-p", str(self.port), f"{self.user}@{self.host}"])

    @property
    def ssh_options(self) -> list[str]:
        """Options of ssh and scp: the key, and the file that has the host key."""
        return ssh_files(self.key, self.known_hosts)


def read_all(home: Path) -> list[KeptGuest]:
    """All kept guests, by name. RecordError when a file is not valid."""
    return [_read(path) for path in sorted((home / "kept").glob("*.json"))]


def find(home: Path, name: str) -> KeptGuest:
    """The kept guest of this name. UsageError when there is none, with the existing names. Time limits are
    then scaled to this host, as when the guest was started."""
    there = read_all(home)
    for guest in there:
        if guest.name == name:
            take_stored_pace(home)
            return guest
    names = ", ".join(guest.name for guest in there)
    raise UsageError(
        f"there is no kept guest {name!r}", hint=f"kept: {names}" if names else f"start one: {START}"
    )


def state(home: Path, guest: KeptGuest) -> str:
    """libvirt's state of it, "stopped" or "gone"; see domain_status. Works while another process uses the
    hypervisor."""
    return domain_status(home, guest.domain, guest.uuid)


def listing(home: Path) -> list[dict[str, Any]]:
    """All kept guests as JSON values: every member of KeptGuest, `state`, `ended` (it runs no more) and
    `login`."""
    found = []
    for guest in read_all(home):
        now = state(home, guest)
        found.append({**asdict(guest), "state": now, "ended": now in ENDED, "login": guest.login})
    return found


def down(home: Path, names: Sequence[str], *, everything: bool = False) -> Iterator[str]:
    """Remove kept guests and all of their files; a line for each. UsageError for an unknown name."""
    from lab.hypervisor.connection import connect
    from lab.process.clock import HostClock

    if bool(names) == everything:
        raise UsageError("name the guests, or use --all", hint="freezelab list shows their names")
    wanted = read_all(home) if everything else [find(home, name) for name in dict.fromkeys(names)]
    if not wanted:
        yield "there are no kept guests"
        return
    uuids = {guest.uuid for guest in wanted}
    with connect(None, home, clock=HostClock(), ends=lambda guest: guest.uuid in uuids) as hypervisor:
        for guest in wanted:
            with shield():
                hypervisor.destroy_kept_guest(guest.uuid)
                remove_files(home, guest)
                hypervisor.drop_logs(guest.run)
            yield f"removed guest {guest.name}"


def remove_files(home: Path, guest: KeptGuest) -> None:
    """Remove the files of a guest that is gone."""
    if guest.run:
        shutil.rmtree(home / "guests" / guest.run, ignore_errors=True)
    for socket in guest.sockets:
        Path(socket).unlink(missing_ok=True)
    _path(home, guest.name).unlink(missing_ok=True)
    for folder in (home / "kept", home / "guests", home / "agents"):
        with suppress(OSError):
            folder.rmdir()


def ssh_files(key: str, known_hosts: str) -> list[str]:
    """Options of ssh and scp: the key, and the file that has the host key."""
    files = {"IdentityFile": key, "UserKnownHostsFile": known_hosts}
    return [word for name, path in files.items() for word in ("-o", f"{name}={_in_ssh_option(path)}")]


def known_host(host: str, port: int, key: str) -> str:
    """The line of known_hosts for a host key (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    return f"[{host}]:{port} {' '.join(key.split()[:2])}\n"


def _in_ssh_option(path: str) -> str:
    """A file's name in an option, where % begins a token and a blank ends a word (ssh_config(5))."""
    escaped = path.replace("%", "%%")
    return f'"{escaped}"' if " " in escaped else escaped


def _path(home: Path, name: str) -> Path:
    return home / "kept" / f"{name}.json"


def _read(path: Path) -> KeptGuest:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("schema") != SCHEMA:
            raise ValueError("its schema is unknown")
        known = {field.name for field in fields(KeptGuest)}
        data["sockets"] = tuple(data["sockets"])
        return KeptGuest(**{name: value for name, value in data.items() if name in known})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RecordError(
            "not the file of a kept guest", where=str(path), hint=f"remove {path}, then: freezelab recover"
        ) from error


def write(home: Path, guest: KeptGuest) -> None:
    """Write the guest's file atomically, readable only by the user, and that of its host key."""
    path = _path(home, guest.name)
    made(path.parent)
    line = known_host(guest.host, guest.port, guest.host_key)
    Path(guest.known_hosts).write_text(line, encoding="ascii")
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump({"schema": SCHEMA, **asdict(guest)}, file, indent=1)
        file.write("\n")
    draft.replace(path)
