"""A timed part of a freeze or of a patch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """A named part of a freeze or a patch. Host MONOTONIC_RAW."""

    name: str
    began_raw_ns: int
    ended_raw_ns: int

    @property
    def length_ns(self) -> int:
        return self.ended_raw_ns - self.began_raw_ns
