"""The three standard streams: open from the start, and what was printed is not lost without a word."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from lab.errors import MachineError

_MODES = (os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)
"""Of what stands in for a stream that is closed. Results that nobody takes are an error, as with cat(1): a
write to what was opened for reading fails as one to a closed descriptor does. Errors go nowhere."""


class Undelivered(OSError):
    """Standard output took nothing."""


class _CheckedStdout(io.FileIO):
    """Descriptor 1, so that its failures are known from those of other files."""

    def write(self, data: Any) -> Any:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Undelivered(error.errno, error.strerror) from error


class _Stderr(io.FileIO):
    """Descriptor 2: what cannot be said there changes nothing, the exit code least of all."""

    def write(self, data: Any) -> Any:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def prepare() -> None:
    """Have descriptors 0, 1 and 2 open: who is started with one closed would get the next file there, and
    print into it. Have sys.stdout raise Undelivered, and sys.stderr nothing, unless somebody has put another
    stream there."""
    for number, mode in enumerate(_MODES):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest number that is free: this one
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(_CheckedStdout(1, "w", closefd=False), sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Stderr(2, "w", closefd=False), sys.stderr)


def _text(file: io.FileIO, like: TextIO | None) -> io.TextIOWrapper:
    """`file` for text, as `like` was, which is None for a stream that was closed."""
    encoding, errors, at_once = "utf-8", "backslashreplace", True
    if isinstance(like, io.TextIOWrapper):
        encoding, errors, at_once = like.encoding, like.errors or errors, like.line_buffering
    return io.TextIOWrapper(io.BufferedWriter(file), encoding, errors, line_buffering=at_once)


def write(pieces: Iterable[str]) -> None:
    """Write results to standard output as they are made."""
    sys.stdout.writelines(pieces)


def silence_stdout() -> None:
    """What is printed from here on, or was not written yet, goes nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


@contextmanager
def delivered() -> Iterator[None]:
    """At the end all that was printed has been written; otherwise one line on stderr, and SystemExit with
    MachineError's exit code. Whoever reads may leave early (| head)."""
    try:
        try:
            yield
        finally:
            try:
                sys.stdout.flush()
            except BrokenPipeError:
                silence_stdout()
    except Undelivered as error:
        silence_stdout()
        failure = MachineError(f"the results cannot be written to standard output: {error.strerror}")
        print(f"freezelab: {failure}", file=sys.stderr)
        raise SystemExit(failure.exit_code) from None


def note(text: str) -> None:
    """A line or two for the person at the terminal, beside the output. Names of files in it may have any
    characters."""
    from lab.report.text import clean

    lines = "\n".join(map(clean, text.split("\n")))
    print(f"freezelab: {lines}", file=sys.stderr, flush=True)
