"""Readers of what a playbook names on the host: files, folders, emulators, bridges, addresses.

Only the form is checked. Whether it is there is the run's question: a plan is pure.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re

from lab.core.patch import SYSTEM
from lab.playbook.mistakes import Wrong, quoted
from lab.playbook.scalars import ScalarReader, argv, expect_scalar
from lab.playbook.tree import Items

MOST_PATH = 1000
MOST_UNIT = 255 - len(".service")  # systemd.unit(5)
SAME = "same"

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_EMULATOR = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
_MODULE = re.compile(r".*\.ko(\.(gz|xz|zst))?")
_BRIDGE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")  # IFNAMSIZ is 16, with the final zero
_ADDRESS = re.compile(r"[0-9a-fA-F:.]+/[0-9.]+")
_SERVICE = re.compile(r"[A-Za-z0-9:_.\\][A-Za-z0-9:_.@\\-]*")  # systemd.unit(5)
_OTHER_UNIT = re.compile(r".*\.(socket|device|mount|automount|swap|target|path|timer|slice|scope)")
_RELEASE = re.compile(r"[1-9][0-9]{0,2}[.][0-9][A-Za-z0-9.+~_-]{0,80}")
_OPTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,+=-]*")


def _path(node: object, wanted: str, advice: str) -> str:
    text = expect_scalar(node, wanted, advice).text.strip()
    if not text:
        raise Wrong(f"{wanted} is expected here, not an empty text", advice)
    if len(text) > MOST_PATH or "\n" in text:
        raise Wrong(f"not {wanted}: {quoted(text)}", f"use one line of at most {MOST_PATH} characters")
    if text.startswith("-"):
        # A program would take it for an option.
        raise Wrong(f"{quoted(text)} begins with a hyphen", "put ./ before it")
    return text


def file(wanted: str, advice: str, endings: re.Pattern[str] | None = None) -> ScalarReader:
    """The path of a file, as written; relative ones are meant from where freezelab is started."""

    def read(node: object) -> str:
        text = _path(node, wanted, advice)
        if endings is not None and not endings.fullmatch(text):
            raise Wrong(f"{quoted(text)} is not {wanted}", advice)
        return text

    rule = {} if endings is None else {"pattern": f"^{endings.pattern}$"}
    return ScalarReader(read, {"type": "string", "minLength": 1, "maxLength": MOST_PATH, **rule})


def module() -> ScalarReader:
    """The path of a kernel module."""
    return file("the path of a kernel module", "write it like ./fix.ko", _MODULE)


def ansible_playbook() -> ScalarReader:
    """The path of an Ansible playbook."""
    return file("the path of an Ansible playbook", "write it like ./site.yml", re.compile(r".*\.(yml|yaml)"))


def folder(purpose: str = "saved guests", example: str = "tmp/freezelab-save") -> ScalarReader:
    """The absolute path of a folder, without "." and "..", without a slash at its end. purpose: what it is a
    folder for, in messages. example: without the "/var/" at its beginning."""
    advice = f"write the whole path, like /var/{example}"

    def read(node: object) -> str:
        text = _path(node, "a folder", advice)
        if not text.startswith("/"):
            raise Wrong(f"{quoted(text)} is not the whole path of a folder", advice)
        plain = "/" + posixpath.normpath(text).lstrip("/")
        if plain == "/" or ".." in text.split("/"):
            raise Wrong(f"{quoted(text)} cannot be used as a folder for {purpose}", advice)
        return plain

    return ScalarReader(read, {"type": "string", "pattern": "^/.*[^/].*$", "maxLength": MOST_PATH})


def emulator(*, same: bool = True) -> ScalarReader:
    """A path, the name of a fetched emulator, SYSTEM, or, where it may be, "" for `same`."""
    names = ", ".join((SAME, SYSTEM) if same else (SYSTEM,))
    advice = f"write {names}, a path, or a name that `freezelab emulator fetch` knows"

    def read(node: object) -> str:
        text = _path(node, "an emulator", advice)
        if text == SAME and same:
            return ""
        if text == SAME or ("/" not in text and not _EMULATOR.fullmatch(text)):
            raise Wrong(f"{quoted(text)} is not an emulator", advice)
        return text

    return ScalarReader(read, {"type": "string", "pattern": rf"^(.*/.*|{_EMULATOR.pattern})$"})


def option(wanted: str, advice: str) -> ScalarReader:
    """A machine type or CPU model, as QEMU writes it."""

    def read(node: object) -> str:
        text = expect_scalar(node, wanted, advice).text
        if not _OPTION.fullmatch(text) or len(text) > 200:
            raise Wrong(f"{quoted(text)} is not {wanted}", advice)
        return text

    return ScalarReader(read, {"type": "string", "pattern": f"^{_OPTION.pattern}$", "maxLength": 200})


def service() -> ScalarReader:
    """The name of a systemd service; `.service` may be left out."""
    advice = "write it like nginx.service"

    def read(node: object) -> str:
        text = expect_scalar(node, "a service", advice).text.strip()
        if not _SERVICE.fullmatch(text) or len(text) > MOST_UNIT:
            raise Wrong(f"{quoted(text)} is not the name of a service", advice)
        if _OTHER_UNIT.fullmatch(text):
            raise Wrong(f"{quoted(text)} is not a service: it has no process", advice)
        name = text if text.endswith(".service") else f"{text}.service"
        if name.endswith("@.service"):
            raise Wrong(f"{quoted(text)} is a template", "name one of its instances, like getty@tty1.service")
        return name

    rule = {"pattern": f"^{_SERVICE.pattern}$", "maxLength": MOST_UNIT}
    return ScalarReader(read, {"type": "string", **rule})


def release() -> ScalarReader:
    """A kernel's release, or the beginning of one."""
    advice = "write it like 6.12"

    def read(node: object) -> str:
        text = expect_scalar(node, "a kernel's release", advice).text.strip()
        if not _RELEASE.fullmatch(text):
            raise Wrong(f"{quoted(text)} is not a kernel's release", advice)
        return text

    return ScalarReader(read, {"type": ["string", "number"], "pattern": f"^{_RELEASE.pattern}$"})


def bridge() -> ScalarReader:
    """The name of a network interface."""
    advice = "write it like br0"

    def read(node: object) -> str:
        text = expect_scalar(node, "a bridge", advice).text
        if not _BRIDGE.fullmatch(text):
            raise Wrong(f"{quoted(text)} is not the name of a bridge", f"{advice}, at most 15 characters")
        return text

    return ScalarReader(read, {"type": "string", "pattern": f"^{_BRIDGE.pattern}$"})


def address() -> ScalarReader:
    """An address that a guest can have, with the prefix length of its network."""
    advice = "write it like 10.7.0.10/24"

    def read(node: object) -> Interface:
        text = expect_scalar(node, "an address", advice).text.strip()
        if "/" not in text:
            raise Wrong(f"an address without a prefix length: {quoted(text)}", advice)
        try:
            if not _ADDRESS.fullmatch(text) or len(text) > 60:
                raise ValueError
            value = ipaddress.ip_interface(text)
        except ValueError:
            raise Wrong(f"not an address: {quoted(text)}", advice) from None
        if why := unfit(value):
            raise Wrong(f"{quoted(text)} {why}", "write the address of one guest")
        return value

    return ScalarReader(read, {"type": "string", "pattern": f"^{_ADDRESS.pattern}$"})


def unfit(value: Interface) -> str:
    """Why no guest can have this address; "" when one can."""
    if value.is_loopback or value.is_multicast or value.ip.is_unspecified:
        return "cannot be a guest's address"
    if value.network.num_addresses > 2:
        if value.ip == value.network.network_address:
            return "is the network's own address"
        if value.version == 4 and value.ip == value.network.broadcast_address:
            return "is the network's broadcast address"
    return ""


def way_back() -> ScalarReader:
    """What undoes a patch: a command's words, or the path of an Ansible playbook."""
    command, playbook = argv(), ansible_playbook()

    def read(node: object) -> object:
        return command.read(node) if isinstance(node, Items) else playbook.read(node)

    return ScalarReader(read, {"anyOf": [dict(command.json), dict(playbook.json)]})
