"""Python programs that are sent to a guest as text, on the command line of the shell that starts them, so
that standard input is the program's from the first byte."""

from __future__ import annotations

import re
import shlex
import zlib
from base64 import b64encode
from collections.abc import Iterator
from importlib import resources

NO_PYTHON = "freezelab: no python3"


_PART = re.compile(r"^from lab\.guest\.inside\.(\w+) import .*\n", re.MULTILINE)


def source(name: str) -> bytes:
    """The text of the program lab/guest/inside/NAME.py, after those of the parts that it imports from there,
    each of them once."""
    return "".join(_texts(name, set())).encode()


def _texts(name: str, sent: set[str]) -> Iterator[str]:
    """What `name` needs, and itself, without what was sent before."""
    if name in sent:
        return
    sent.add(name)
    text = resources.files("lab.guest.inside").joinpath(f"{name}.py").read_text(encoding="utf-8")
    for part in _PART.findall(text):
        yield from _texts(part, sent)
    yield _PART.sub("", text)


def command(text: bytes, *arguments: str) -> str:
    """The shell command that becomes the program `text`, on any Python from 3.6 on."""
    packed = b64encode(zlib.compress(text, 9)).decode()
    # Not base64, which imports re: that takes Python as long as its own start.
    program = (
        f"import binascii,zlib;exec(compile(zlib.decompress(binascii.a2b_base64('{packed}')),'probe','exec'))"
    )
    run = f'exec "$p" -I -S -u -c {shlex.join([program, *arguments])}'
    return (
        "for p in python3 /usr/bin/python3 /usr/libexec/platform-python; do "
        'if "$p" -I -S -c "import sys; sys.exit(sys.version_info < (3, 6))" 2>/dev/null; then '
        f"{run}; fi; done; "
        f"echo {NO_PYTHON} >&2; exit 127"
    )
