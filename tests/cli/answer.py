"""What a command that was typed ended with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """Its exit status and what it printed."""

    status: object
    out: str
    err: str


Typed = Callable[..., Answer]
