"""What a session's page says is counted when something has happened, and of a large session not all the time."""

from __future__ import annotations

import pytest

from coldchain.catalog import page
from coldchain.catalog.engine import Catalog
from coldchain.catalog.figures import FigureBook
from coldchain.model.session import Session
from tests.catalog.catalog_givens import arrive, expose


class Clock:
    """A clock that goes on by a second whenever it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time."""
        self.now += 1.0
        return self.now


def test_a_small_session_is_always_counted_anew(catalog: Catalog, session: Session) -> None:
    """What has arrived is in the figures at once."""
    book = FigureBook(Clock())
    for number in range(3):
        expose(catalog, session, f"a/{number}")
        found, is_current = book.of(catalog, session.id, troubles=5)
        assert (found.counts.exposures, sum(found.states.values()), is_current) == (number + 1, number + 1, True)


def test_a_large_session_rests(catalog: Catalog, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its figures are said to be old until it has rested ten times as long as the counting took; what has not changed
    is current."""
    monkeypatch.setattr(page, "SMALL_EXPOSURES", 0)
    clock = Clock()
    book = FigureBook(clock)
    expose(catalog, session)
    assert book.of(catalog, session.id, troubles=5)[1]
    assert book.of(catalog, session.id, troubles=5)[1]
    arrive(catalog, session, "another")
    found, is_current = book.of(catalog, session.id, troubles=5)
    assert (found.counts.files_arrived, is_current) == (1, False)
    clock.now += 20.0
    found, is_current = book.of(catalog, session.id, troubles=5)
    assert (found.counts.files_arrived, is_current) == (2, True)
