"""Reads a journal on, and behind what was read.

Ids begin with the time of their making, and a row is seen when its transaction is through: of two writers the later one
may be seen first, and clocks of two machines differ. So what lies shortly behind the newest event is looked through
again and again for ids that were not there before.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from coldchain.model.events import Notice

# Longer than a transaction takes: on a server one may wait for another's lock for minutes.
LATE_SECONDS = 600.0
# About 20 MB. Where more happened in that time, the newest so many are looked through.
MOST_REMEMBERED = 100_000
PAGE = 500


class Journal(Protocol):
    """Where events stand, and how far each rule has come. What it cannot do now it says by CatalogError."""

    def after(self, last: UUID, *, limit: int) -> list[Notice]:
        """The events after that id, in the order of their ids."""

    def newest(self) -> UUID:
        """The newest event's id; the nil UUID where there is none."""

    def cursor(self, rule: str) -> UUID | None:
        """Up to which id that rule has told everything; None for a new rule."""

    def set_cursor(self, rule: str, event_id: UUID) -> None:
        """Record it."""


class Ledger(Protocol):
    """What a journal must know besides, where events may appear behind those that were read, and which outlives this
    process. What it cannot do now it says by CatalogError."""

    def ids(self, after: UUID, until: UUID, *, limit: int) -> list[UUID]:
        """The ids after the one and up to the other: the newest so many, the newest first."""

    def these(self, ids: Sequence[UUID]) -> list[Notice]:
        """The events with these ids, in the order of their ids."""

    def told(self, rule: str) -> list[UUID]:
        """What that rule has told after its cursor."""

    def sends(self, rule: str) -> list[tuple[float, int]]:
        """When (Unix seconds) that rule has sent how many messages in the last hour, the last first."""

    def record(
        self, rule: str, event_id: UUID, *, told: Sequence[UUID], sends: Sequence[tuple[float, int]] | None
    ) -> None:
        """Record at once the cursor, what was told besides what was recorded as told before, and the messages; None:
        no limit asks for them. What was told up to the cursor is forgotten."""

    def say(self, kind: str, message: str) -> None:
        """Write an event: something that people should know."""


class Follower:
    """Gives each event of a journal once, those too that appear late. Without a ledger the journal is in order."""

    def __init__(self, journal: Journal, ledger: Ledger | None, last: UUID) -> None:
        self.last = last
        self._journal = journal
        self._ledger = ledger
        self._seen: set[UUID] = set()

    def read_on(self) -> list[Notice]:
        """The next events, at most `PAGE`. Raises CatalogError."""
        page = self._journal.after(self.last, limit=PAGE)
        if page:
            self.last = page[-1].event.id
        if self._ledger is not None:
            self._seen.update(notice.event.id for notice in page)
            if len(self._seen) > 2 * MOST_REMEMBERED:
                self._seen = set(heapq.nlargest(MOST_REMEMBERED, self._seen))
        return page

    def look_back(self, now_seconds: float) -> list[Notice]:
        """Events that appeared behind those that were read, at most `PAGE`; ask again where it gives so many.

        The first call gives what is behind the start as well, as nobody has seen it. Raises CatalogError.
        """
        if self._ledger is None:
            return []
        since = late_from(self.last, now_seconds)
        ids = self._ledger.ids(since, self.last, limit=MOST_REMEMBERED)
        late = sorted(each for each in ids if each not in self._seen)
        found = self._ledger.these(late[:PAGE]) if late else []
        # Of what was seen before, what is not within these ids is not looked for again.
        self._seen = set(ids).difference(late[PAGE:])
        return found


def late_from(last: UUID, now_seconds: float) -> UUID:
    """Behind that id nothing is expected any more. A clock that is ahead does not shorten the time."""
    return first_id_of(min(seconds_of(last), now_seconds) - LATE_SECONDS)


def first_id_of(seconds: float) -> UUID:
    """The smallest id of an event of that time (Unix seconds): a UUIDv7 begins with its milliseconds (RFC 9562)."""
    return UUID(int=max(int(seconds * 1000), 0) << 80)


def seconds_of(event_id: UUID) -> float:
    """The time of an event (Unix seconds), as its id says."""
    return (event_id.int >> 80) / 1000
