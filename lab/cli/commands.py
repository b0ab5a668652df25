"""A group of commands whose help names arguments as the manual page does."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

_TYPE = re.compile(r" <.*>$")
_Row = tuple[str, str]
_Function = TypeVar("_Function", bound=Callable[..., Any])


class _Command(TyperCommand):
    """Its help is without Typer's notation of types, "GUEST <str>" and "{GUEST}"."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        formatter.write_dl = partial(_without_types, formatter.write_dl)
        super().format_options(ctx, formatter)


def _without_types(write: Callable[..., None], rows: Sequence[_Row], *more: Any, **named: Any) -> None:
    write([(_TYPE.sub("", name), text) for name, text in rows], *more, **named)


class Commands(typer.Typer):
    """See the module."""

    def command(self, name: str | None = None, **more: Any) -> Callable[[_Function], _Function]:
        return super().command(name, cls=_Command, **more)
