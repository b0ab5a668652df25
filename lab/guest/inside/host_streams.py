"""Standard input and output, at whose other end the host is: a part of most programs."""

import json
import os


def line_of(letter: str, data: object) -> bytes:
    return ("%s %s\n" % (letter, json.dumps(data, separators=(",", ":")))).encode()


def drop_streams() -> None:
    """Standard input, output and error lead nowhere from now on."""
    null = os.open("/dev/null", os.O_RDWR)
    for number in 0, 1, 2:
        os.dup2(null, number)
    os.close(null)
