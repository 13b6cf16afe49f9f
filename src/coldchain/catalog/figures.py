"""What pages say of sessions that costs by a session's size, counted so that nobody waits for it.

A small session is counted while somebody asks, whenever something has happened in it. A large one is counted by one
thread, when somebody asks and something has happened, and only so often that most of the time is left for other work;
who asks meanwhile is given what was counted last, by this process or by one before it (`session_counts`). What lies in
trashes is looked for besides: no copy that is moved there, or from there, is an event of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from coldchain.catalog import newest_events, page, retirement, session_counts, sessions, verdicts
from coldchain.catalog.engine import Catalog
from coldchain.catalog.page import PlaceCount, Trouble
from coldchain.catalog.session_counts import Counted, NewestEvents
from coldchain.errors import CatalogError
from coldchain.model.quality import Grade
from coldchain.model.retention import Trashed
from coldchain.model.session import ExposureState, Session, SessionCounts

_LOG = logging.getLogger(__name__)

RESTS = 10.0
"""For how many times as long as its counting took a large session is not counted again."""
REST_AFTER_FAILURE_SECONDS = 5.0
"""For how long at least a session is not counted again whose counting failed."""
TRASH_SECONDS = 60.0
"""For how long what lies in trashes of a large session is not looked for again, if nothing else has happened."""
MOST_FILES_AT_ONCE = page.SMALL_FILES
"""How many files of small sessions are counted while somebody waits for a list; the thread counts the others."""
_MOST_SHARES = 100
_CLOSING_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Shares:
    """How a session's exposures spread over states, grades, grid squares and holes; its troubles; the paths of its
    overviews, and what of it lies in trashes. Of a large session these last two are left out until they were looked
    for."""

    states: Mapping[ExposureState, int]
    grades: Mapping[Grade, int]
    places: Sequence[PlaceCount]
    troubles: Sequence[Trouble]
    overview_paths: Sequence[str] = ()
    trash: Sequence[Trashed] = ()


@dataclass(frozen=True, slots=True)
class Figures:
    """What a session's page says. `counts` are None while nobody has counted them; something may have happened since
    where it is not `is_current`."""

    counts: SessionCounts | None
    shares: Shares
    is_current: bool


@dataclass(frozen=True, slots=True)
class SessionLine:
    """A session in the list of all; `counts` and `is_current` as those of `Figures`."""

    session: Session
    counts: SessionCounts | None
    last_activity: datetime
    is_current: bool


@dataclass(frozen=True, slots=True)
class _Kept:
    """Shares, what the newest events were before, and until when (by the book's clock) their trash is shown as it is:
    None where it is looked for each time, as that of small sessions."""

    events: NewestEvents
    shares: Shares
    trash_until: float | None


class FigureBook:
    """The figures of a catalog's sessions. Threads may share it; `close` it before the catalog.

    Parameters
    ----------
    troubles : how many of a session's troubles are kept at most.
    clock : seconds that only grow.
    """

    def __init__(self, catalog: Catalog, *, troubles: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._catalog = catalog
        self._troubles = troubles
        self._clock = clock
        self._counted: dict[UUID, Counted] = {}
        self._shares: dict[UUID, _Kept] = {}
        self._activity: dict[UUID, tuple[NewestEvents, datetime]] = {}
        self._rests_until: dict[UUID, float] = {}
        self._asked: deque[UUID] = deque()
        self._busy_with: UUID | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._closes = False
        self._changed = threading.Condition()

    def of(self, session_id: UUID) -> Figures:
        """A session's figures. Raises CatalogError."""
        newest = newest_events.of(self._catalog, session_id)
        counted, kept = self._known(session_id, newest)
        is_current = counted is not None and counted.holds(newest) and kept is not None and kept.events == newest
        if kept is None or not is_current:
            if page.small_size(self._catalog, session_id) is not None:
                counted, is_current = self._count(session_id, newest), True
                kept = self._share(session_id, newest, is_small=True)
            elif kept is None:
                kept = self._keep(session_id, (), self._quick_shares(session_id), self._clock() + TRASH_SECONDS)
        elif kept.trash_until is None:  # clearing is no event for each copy
            kept = replace(kept, shares=replace(kept.shares, trash=retirement.trash_of(self._catalog, session_id)))
        elif self._clock() >= kept.trash_until:
            self._ask(session_id, first=True)
        if not is_current:
            self._ask(session_id, first=True)
        return Figures(None if counted is None else counted.counts, kept.shares, is_current)

    def counts(self, session_id: UUID) -> tuple[SessionCounts | None, bool]:
        """A session's counters alone, None while nobody has counted them, and whether they are those of now. Raises
        CatalogError."""
        newest = newest_events.of(self._catalog, session_id)
        counted, _ = self._known(session_id, newest)
        is_current = counted is not None and counted.holds(newest)
        if not is_current and page.small_size(self._catalog, session_id) is not None:
            counted, is_current = self._count(session_id, newest), True
        if not is_current:
            self._ask(session_id, first=True)
        return None if counted is None else counted.counts, is_current

    def lines(self, *, limit: int, before: UUID | None = None) -> list[SessionLine]:
        """Sessions with their counters and the time of their newest event, newest session first. Raises CatalogError.

        However many there are, these are a few statements, and a few more for each session in which something has
        happened.
        """
        chosen = sessions.list_all(self._catalog, limit=limit, before=before)
        newest = newest_events.of_many(self._catalog, [found.id for found in chosen])
        self._recall(newest)
        times = self._times(newest)
        left = MOST_FILES_AT_ONCE
        lines = []
        for found in chosen:
            if not self._is_current(found.id, newest[found.id]):
                size = page.small_size(self._catalog, found.id)
                if size is not None and size <= left:
                    left -= size
                    self._count(found.id, newest[found.id])
                else:
                    self._ask(found.id)
            counted = self._counted.get(found.id)
            is_current = counted is not None and counted.holds(newest[found.id])
            at = times.get(found.id, found.created_at)
            lines.append(SessionLine(found, None if counted is None else counted.counts, at, is_current))
        return lines

    def close(self) -> None:
        """End the thread, waiting some seconds for what it counts; what takes longer is thrown away. What is asked
        later starts another."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._closes = True
            self._stop.set()
            self._asked.clear()
            self._changed.notify_all()
        if thread is not None:
            thread.join(_CLOSING_SECONDS)
        with self._changed:
            self._closes, self._busy_with = False, None

    def _known(self, session_id: UUID, newest: NewestEvents) -> tuple[Counted | None, _Kept | None]:
        self._recall({session_id: newest})
        return self._counted.get(session_id), self._shares.get(session_id)

    def _recall(self, newest: Mapping[UUID, NewestEvents]) -> None:
        """Take from the catalog what another process may have counted since this one has, or before it began."""
        old = {key: events for key, events in newest.items() if not self._is_current(key, events)}
        for session_id, counted in session_counts.remembered(self._catalog, old).items():
            if session_id not in self._counted or counted.holds(newest[session_id]):
                self._counted[session_id] = counted

    def _is_current(self, session_id: UUID, newest: NewestEvents) -> bool:
        counted = self._counted.get(session_id)
        return counted is not None and counted.holds(newest)

    def _times(self, newest: Mapping[UUID, NewestEvents]) -> dict[UUID, datetime]:
        """When the newest event of each session was that has one."""
        known = {session_id: found for session_id, found in list(self._activity.items()) if session_id in newest}
        changed = {key: events for key, events in newest.items() if key not in known or known[key][0] != events}
        wanted = {event_id for events in changed.values() for event_id in events if event_id is not None}
        at = newest_events.times(self._catalog, wanted) if wanted else {}
        for session_id, events in changed.items():
            if times := [at[event_id] for event_id in events if event_id in at]:
                known[session_id] = self._activity[session_id] = (events, max(times))
        return {session_id: when for session_id, (_, when) in known.items()}

    def _count(self, session_id: UUID, newest: NewestEvents) -> Counted:
        # The events were read before: what happens while it is counted makes the counters old, never wrong.
        at = datetime.now(UTC)
        counted = self._counted[session_id] = Counted(sessions.counts(self._catalog, session_id), newest, at)
        return counted

    def _share(self, session_id: UUID, newest: NewestEvents, *, is_small: bool = False) -> _Kept:
        shares = replace(
            self._quick_shares(session_id),
            overview_paths=page.overview_paths(self._catalog, session_id),
            trash=retirement.trash_of(self._catalog, session_id),
        )
        return self._keep(session_id, newest, shares, None if is_small else self._clock() + TRASH_SECONDS)

    def _quick_shares(self, session_id: UUID) -> Shares:
        """What costs by the session's exposures, and not by its files."""
        return Shares(
            states=page.state_counts(self._catalog, session_id),
            grades=verdicts.counts(self._catalog, session_id),
            places=page.place_counts(self._catalog, session_id),
            troubles=page.troubles(self._catalog, session_id, limit=self._troubles),
        )

    def _keep(self, session_id: UUID, events: NewestEvents, shares: Shares, trash_until: float | None) -> _Kept:
        with self._changed:
            self._shares.pop(session_id, None)
            kept = self._shares[session_id] = _Kept(events, shares, trash_until)
            while len(self._shares) > _MOST_SHARES:
                del self._shares[next(iter(self._shares))]
        return kept

    def _ask(self, session_id: UUID, *, first: bool = False) -> None:
        """Have the thread count a session, before the others where somebody looks at its page, unless it rests."""
        with self._changed:
            if self._closes or session_id == self._busy_with or self._clock() < self._rests_until.get(session_id, 0.0):
                return
            if session_id in self._asked:
                if not first:
                    return
                self._asked.remove(session_id)
            (self._asked.appendleft if first else self._asked.append)(session_id)
            if self._thread is None or not self._thread.is_alive():
                self._stop = threading.Event()
                self._thread = threading.Thread(
                    target=self._work, args=(self._stop,), name="coldchain-figures", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def _work(self, stop: threading.Event) -> None:
        """Count what is asked for until this thread is to stop, whatever others are begun after it."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._asked or stop.is_set())
                if stop.is_set():
                    return
                session_id = self._busy_with = self._asked.popleft()
            begun, rest = self._clock(), REST_AFTER_FAILURE_SECONDS
            try:
                self._count_large(session_id, stop)
                rest = 0.0
            except CatalogError as error:  # it is away: who asks after a rest has it tried again
                _LOG.warning("The session %s could not be counted: %s", session_id, error)
            finally:
                now = self._clock()
                with self._changed:
                    if not stop.is_set():
                        self._rests_until[session_id] = now + max(RESTS * (now - begun), rest)
                        self._busy_with = None

    def _count_large(self, session_id: UUID, stop: threading.Event) -> None:
        newest = newest_events.of(self._catalog, session_id)
        if session_id in self._shares:
            self._share_large(session_id, newest)
        if stop.is_set() or self._is_current(session_id, newest):
            return
        counted = self._count(session_id, newest)
        if stop.is_set():  # the catalog may be closed
            return
        try:
            session_counts.remember(self._catalog, session_id, counted)
        except CatalogError as error:  # a catalog that is only read: it is counted anew by the next process
            _LOG.info("What was counted of the session %s is not kept: %s", session_id, error)

    def _share_large(self, session_id: UUID, newest: NewestEvents) -> None:
        kept = self._shares.get(session_id)
        if kept is None or kept.events != newest or not self._is_current(session_id, newest):
            self._share(session_id, newest)
        else:  # nothing has happened but in trashes
            shares = replace(kept.shares, trash=retirement.trash_of(self._catalog, session_id))
            self._keep(session_id, newest, shares, self._clock() + TRASH_SECONDS)
