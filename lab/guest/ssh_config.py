"""What the user's ssh_config says of a host, as ssh(1) would use it: one SshHop for each machine on the way.

paramiko reads the files. It does not know Include, so included files are put in place first.
"""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import paramiko

from lab.core.own_domain import SshTarget
from lab.errors import UsageError

SYSTEM = Path("/etc/ssh/ssh_config")
KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
"""The private keys that are tried when none is named, in ~/.ssh (ssh_config(5), IdentityFile)."""

KNOWN = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
SYSTEM_KNOWN = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
MOST_HOPS = 8
_DEEPEST = 16
"""How deep files may be included in each other (OpenSSH, readconf.h, READCONF_MAX_DEPTH)."""

_INCLUDE = re.compile(r"\s*include[\s=]+(.+)", re.I)
_JUMP = re.compile(r"(?:ssh://)?(?:(?P<user>[^@\s]+)@)?(?P<host>\[[^\]]+\]|[^:\s\[\]]+)(?::(?P<port>\d+))?/?")


@dataclass(frozen=True)
class SshHop:
    """One machine: the guest, or one on the way to it.

    host, port, user: where and as whom. alias: its name in known_hosts. keys: private keys, in order. agent:
    the socket of the agent whose keys are tried as well; "": none. only_named: of them, only those of `keys`
    (IdentitiesOnly). jumps: the machines
    before it, in order. proxy: the command whose input and output is the connection; "": TCP.
    """

    host: str
    port: int
    user: str
    alias: str
    keys: tuple[Path, ...]
    agent: str
    known_hosts: tuple[Path, ...]
    jumps: tuple[SshHop, ...] = ()
    proxy: str = ""
    only_named: bool = False

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"


def resolve(target: SshTarget, where: str) -> SshHop:
    """The guest's sshd as target and ssh_config describe it. where: the guest. UsageError when a file cannot
    be read or is not valid, or the jump hosts go round in a circle."""
    return _resolved(_config(target, where), target, where, 0)


def _resolved(config: paramiko.SSHConfig, target: SshTarget, where: str, depth: int) -> SshHop:
    if depth > MOST_HOPS:
        what = f"more than {MOST_HOPS} jump hosts on the way to {target.host}"
        raise UsageError(what, where=where, hint="does a ProxyJump of your ssh_config lead back to itself?")
    try:
        found = config.lookup(target.host)
    except Exception as error:  # paramiko raises whatever a Match or a token makes fail
        raise UsageError(f"ssh_config cannot be used for {target.host}: {error}", where=where) from error
    port = target.port or _port(found.get("port", "22"), where)
    host = found.get("hostname", target.host)
    user = target.user or found.get("user") or getpass.getuser()
    known = _paths(target.known_hosts or found.get("userknownhostsfile", ""), KNOWN)
    known += _paths(found.get("globalknownhostsfile", ""), SYSTEM_KNOWN)
    jump, proxy = found.get("proxyjump", ""), found.get("proxycommand", "")
    return SshHop(
        host,
        port,
        user,
        found.get("hostkeyalias", host),
        _keys(target, found),
        _agent(found.get("identityagent", "")),
        known,
        _jumps(config, jump, where, depth) if jump.lower() not in ("", "none") else (),
        proxy if proxy.lower() != "none" and jump.lower() in ("", "none") else "",
        str(found.get("identitiesonly", "no")).lower() in ("yes", "true"),
    )


def _jumps(config: paramiko.SSHConfig, written: str, where: str, depth: int) -> tuple[SshHop, ...]:
    """The machines of a ProxyJump. The first is reached as its own entry says, the others through the one
    before (ssh_config(5))."""
    hops: list[SshHop] = []
    for each in written.split(","):
        match = _JUMP.fullmatch(each.strip())
        if match is None:
            raise UsageError(f"not a jump host of ssh_config: {each.strip()!r}", where=where)
        target = SshTarget(match["host"].strip("[]"), int(match["port"] or 0), match["user"] or "")
        hop = _resolved(config, target, where, depth + 1 + len(hops))
        hops += (*hop.jumps, _alone(hop)) if not hops else (_alone(hop),)
    return tuple(hops)


def _alone(hop: SshHop) -> SshHop:
    return replace(hop, jumps=())


def _port(text: str, where: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 1 << 16:
        raise UsageError(f"not a port in ssh_config: {text!r}", where=where)
    return int(text)


def _paths(written: str, otherwise: Sequence[str]) -> tuple[Path, ...]:
    words = [word.strip('"') for word in written.split()] or list(otherwise)
    return tuple(Path(word).expanduser() for word in words if word.lower() != "none")


def _keys(target: SshTarget, found: paramiko.SSHConfigDict) -> tuple[Path, ...]:
    named = [target.key] if target.key else list(found.get("identityfile", []))
    if named:
        return tuple(Path(name.strip('"')).expanduser() for name in named if name.lower() != "none")
    folder = Path("~/.ssh").expanduser()
    return tuple(folder / name for name in KEYS if (folder / name).exists())


def _agent(written: str) -> str:
    """The agent's socket (ssh_config(5), IdentityAgent)."""
    if written.lower() == "none":
        return ""
    if not written or written == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK", "")
    if written.startswith("$"):
        return os.environ.get(written.strip("${}"), "")
    return str(Path(written.strip('"')).expanduser())


def _config(target: SshTarget, where: str) -> paramiko.SSHConfig:
    """The files' settings; of each, the first counts."""
    own = Path(target.config).expanduser() if target.config else Path("~/.ssh/config").expanduser()
    lines = list(_lines(own, Path("~/.ssh").expanduser(), where, must_exist=bool(target.config)))
    config = paramiko.SSHConfig()
    texts = [lines] if target.config else [lines, list(_lines(SYSTEM, SYSTEM.parent, where))]
    for text in texts:
        try:
            config.parse(iter(text))
        except Exception as error:  # paramiko's, shlex's and re's
            raise UsageError(f"not a valid ssh_config: {error}", where=str(own)) from error
    return config


def _lines(
    file: Path, folder: Path, where: str, depth: int = 0, *, must_exist: bool = False
) -> Iterator[str]:
    """The lines of a file, with those of included files in place. A block goes on after an Include in it."""
    if depth > _DEEPEST:
        raise UsageError("ssh_config files include each other", where=str(file))
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not must_exist:
            return
        raise UsageError(
            f"its ssh_config cannot be read: {error.strerror}", where=f"{where}: {file}"
        ) from error
    block = ""
    for line in text.splitlines():
        match = _INCLUDE.fullmatch(line)
        if match is None:
            if line.strip().lower().startswith(("host ", "host=", "match ", "host\t", "match\t")):
                block = line
            yield line
            continue
        for word in match[1].split():
            named = folder / Path(word.strip('"')).expanduser()
            for each in sorted(Path(named.anchor).glob(str(named.relative_to(named.anchor)))):
                if each.is_file():
                    yield from _lines(each, folder, where, depth + 1)
        yield block or "Host *"
