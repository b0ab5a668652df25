"""The command line of OpenSSH's client for a guest of a run."""

from __future__ import annotations

from pathlib import Path

from lab.guest.address import Address
from lab.session.kept_guest_access import SAFE
from lab.session.kept_guests import known_host, ssh_files


def ssh_command(address: Address, folder: Path, command: str) -> list[str]:
    """The command line that runs a shell command in the guest. Its host key is written to `folder`."""
    known = folder / f"known_hosts-{address.guest}"
    known.write_text(known_host(address.host, address.port, address.host_key), encoding="ascii")
    options = ssh_files(str(address.key), str(known))
    return [
        "ssh", *SAFE, *options, "-o", "BatchMode=yes", "-p", str(address.port),
        f"{address.user}@{address.host}", "--", command,
    ]  # fmt: skip
