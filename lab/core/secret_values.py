"""The values of a guest's secrets, and texts without them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from urllib.parse import quote

MOST_VARIABLE_BYTES = 64 << 10
"""The longest secret that is passed to commands as an environment variable; Linux allows 128 KiB (execve(2),
MAX_ARG_STRLEN)."""

_LEAST = 4
"""The fewest characters of a line of a secret that are hidden by themselves."""


class SecretValues(Mapping[str, bytes]):
    """Values by name. Its repr has only the names."""

    def __init__(self, values: Mapping[str, bytes]) -> None:
        self._values = dict(values)
        hidden = {text: name for name, value in self._values.items() for text in _forms(value)}
        self._hidden = sorted(hidden.items(), key=lambda item: -len(item[0]))

    def __getitem__(self, name: str) -> bytes:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"SecretValues({', '.join(self._values)})"

    def mask(self, text: str) -> str:
        """`text` with "[NAME]" in place of each value, and of each line of a value."""
        for value, name in self._hidden:
            text = text.replace(value, f"[{name}]")
        return text

    def drop_rest(self, text: str) -> str:
        """`text`, which was cut off before, without the end of a value that it may begin with."""
        longest = 0
        for value, _ in self._hidden:
            most = min(len(value) - 1, len(text))
            longest = max(
                longest, next((n for n in range(most, longest, -1) if text.startswith(value[-n:])), 0)
            )
        return text[longest:]

    def exports(self) -> bytes:
        """Lines for a shell that export them as environment variables, each without its final newline. Left
        out are those that cannot be variables: with zero bytes, or longer than MOST_VARIABLE_BYTES."""
        lines = []
        for name, value in self._values.items():
            if b"\0" not in value and len(value) <= MOST_VARIABLE_BYTES:
                quoted = value.removesuffix(b"\n").replace(b"'", b"'\\''")
                lines.append(b"export " + name.encode() + b"='" + quoted + b"'\n")
        return b"".join(lines)


def _forms(value: bytes) -> Iterator[str]:
    """The texts that show a value: itself, as shells' traces and JSON quote it, in a URL, line by line."""
    text = value.decode(errors="replace").strip()
    if text:
        yield text
        yield shlex.quote(text)
        yield "'" + text.replace("'", "'\\''") + "'"
        yield json.dumps(text, ensure_ascii=False)[1:-1]
        yield quote(text, safe="")
        yield from (line for raw in text.splitlines() if len(line := raw.strip()) >= _LEAST)
