"""The type of a view's factory: this package starts guests and writes to no terminal itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from lab.image.build import Progress
from lab.ports import View

Views = Callable[[Sequence[str]], AbstractContextManager[tuple[View, Progress]]]
"""Opens the view of guests with these names, and the progress of an image build that may come before."""
