"""What is tried, for the table in docs/reliability.md: each test of a fault says it of itself, and is held to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

import pytest

TestT = TypeVar("TestT", bound=Callable[..., None])


class Outcome(StrEnum):
    """What becomes of the copies when the fault is gone."""

    BY_ITSELF = "goes on by itself"
    AFTER_RESTART = "goes on when the service is started again"
    KEPT_ASIDE = "what stood under the name is kept beside the copy"


@dataclass(frozen=True)
class Tried:
    """A row of the table. `says` is what the page says meanwhile (one of these); empty: nothing needs to be said."""

    fault: str
    made: str
    on: str
    says: tuple[str, ...]
    outcome: tuple[Outcome, ...]
    test: str
    file: str


TRIED: list[Tried] = []


def tried(
    fault: str, *, made: str, on: str, says: tuple[str, ...] = (), outcome: tuple[Outcome, ...] = (Outcome.BY_ITSELF,)
) -> Callable[[TestT], TestT]:
    """Enter a test into the table. The fixture `bench` holds it to what it says."""

    def enter(test: TestT) -> TestT:
        # A module is imported under two names: by pytest, and as part of the package by `table`.
        file = f"tests/faults/{test.__module__.rpartition('.')[2]}.py"
        row = Tried(fault, made, on, says, outcome, test.__name__, file)
        if row not in TRIED:
            TRIED.append(row)
        test.tried = row  # type: ignore[attr-defined]
        return test

    return enter


def long(*values: Any) -> Any:
    """Parameters of a test that only `make chaos` tries."""
    return pytest.param(*values, marks=pytest.mark.chaos)
