"""SSH keys of guests and of the lab: Ed25519, in OpenSSH's own format."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from lab.errors import ImageError, MachineError


def make_key(comment: str = "freezelab") -> tuple[bytes, str]:
    """A new key: (private key file's content, public key's line without a newline)."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return private, f"{public.decode('ascii')} {comment}"


def write_key(path: Path, private: bytes, public_line: str) -> None:
    """Write `path` (0600 from its first byte on) and `path`.pub. An existing key is never overwritten."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)  # whatever the umask
            file.write(private)
        path.with_name(path.name + ".pub").write_text(public_line + "\n", encoding="ascii")
    except FileExistsError as error:
        raise ImageError("there is a key already", where=str(path)) from error
    except OSError as error:
        raise MachineError(f"the key cannot be written: {error.strerror}", where=str(path)) from error
