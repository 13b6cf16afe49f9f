"""What a session's page says that costs by the session's size: counted anew when something has happened, but of a large
session only so often that most of the time is left for other work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from coldchain.catalog import page, sessions, verdicts
from coldchain.catalog.engine import Catalog
from coldchain.catalog.page import PlaceCount, Trouble
from coldchain.model.quality import Grade
from coldchain.model.session import ExposureState, SessionCounts

_MOST_KEPT = 100


@dataclass(frozen=True, slots=True)
class Figures:
    """A session's counters, its exposures by state and by grade, by grid square and hole, the paths of its overviews,
    and its troubles."""

    counts: SessionCounts
    states: Mapping[ExposureState, int]
    grades: Mapping[Grade, int]
    places: Sequence[PlaceCount]
    overview_paths: Sequence[str]
    troubles: Sequence[Trouble]


@dataclass(frozen=True, slots=True)
class _Counted:
    figures: Figures
    events: tuple[UUID | None, ...]
    rests_until: float


class FigureBook:
    """The figures of the sessions that somebody looks at. Threads may share it.

    Parameters
    ----------
    clock : seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counted: dict[UUID, _Counted] = {}
        self._lock = threading.Lock()

    def of(self, catalog: Catalog, session_id: UUID, *, troubles: int) -> tuple[Figures, bool]:
        """A session's figures, with so many troubles at most, and whether they are those of now."""
        newest = page.newest_events(catalog, session_id)
        with self._lock:
            known = self._counted.get(session_id)
        if known is not None and known.events == newest:
            return known.figures, True
        begun = self._clock()
        if known is not None and begun < known.rests_until:
            return known.figures, False
        figures = _count(catalog, session_id, troubles)
        now = self._clock()
        rest = page.rest_seconds(figures.counts.exposures, now - begun)
        with self._lock:
            self._counted.pop(session_id, None)
            self._counted[session_id] = _Counted(figures, newest, now + rest)
            while len(self._counted) > _MOST_KEPT:
                del self._counted[next(iter(self._counted))]
        return figures, True


def _count(catalog: Catalog, session_id: UUID, troubles: int) -> Figures:
    return Figures(
        counts=sessions.counts(catalog, session_id),
        states=page.state_counts(catalog, session_id),
        grades=verdicts.counts(catalog, session_id),
        places=page.place_counts(catalog, session_id),
        overview_paths=page.overview_paths(catalog, session_id),
        troubles=page.troubles(catalog, session_id, limit=troubles),
    )
