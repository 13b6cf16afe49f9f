"""What was counted of sessions, kept for the next process: a memory, never the truth.

Counting a session of a million files takes seconds. What a site has counted stands in the catalog, in one row for each
session, with the newest events that there were before the counting. It holds while those are the newest: whatever the
counters see is an event.

Which events are the newest is told by their keys, and so by a clock: where that was set back, what happens next may lie
behind what was written before. So a counting is believed for an hour, and for good only where its newest event was an
hour old already.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, Text, select, type_coerce
from sqlalchemy.orm import load_only

from coldchain.catalog.columns import json_value
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import SessionCountsRow
from coldchain.model.session import SessionCounts

NewestEvents = tuple[UUID | None, ...]
BELIEVED = timedelta(hours=1)
"""For how long a counting is believed that was made sooner than this after its newest event."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A session's counters, what its newest events were before they were counted (`newest_events.of`), and when that
    was, by the clock of whoever counted."""

    counts: SessionCounts
    events: NewestEvents
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def holds(self, newest: NewestEvents) -> bool:
        """Whether these are the counters of now, where the newest events are these."""
        if self.events != newest:
            return False
        age = datetime.now(UTC) - self.at
        if timedelta() <= age < BELIEVED:
            return True
        last_ms = max((key.int >> 80 for key in newest if key is not None), default=0)
        settled_ms = last_ms + BELIEVED // timedelta(milliseconds=1)
        return age >= BELIEVED and self.at.timestamp() * 1000 >= settled_ms


def remembered(catalog: Catalog, newest: dict[UUID, NewestEvents]) -> dict[UUID, Counted]:
    """What was counted of these sessions, each with its newest events: by whatever site what holds, else what this
    site has counted, else what another has. Sessions of which nothing is known, or nothing sensible, are left out."""
    found: dict[UUID, tuple[int, Counted]] = {}
    if not newest:
        return {}
    with catalog.reading() as unit:
        rows = unit.execute(rows_query(newest)).all()
    for session_id, site, text_of_counts, text_of_events, at in rows:
        counts = _counts(_value(text_of_counts))
        if counts is None:
            continue
        counted = Counted(counts, _events(_value(text_of_events)), at)
        rank = 2 if counted.holds(newest[session_id]) else int(site == catalog.site)
        if session_id not in found or rank > found[session_id][0]:
            found[session_id] = (rank, counted)
    return {session_id: counted for session_id, (_, counted) in found.items()}


def remember(catalog: Catalog, session_id: UUID, counted: Counted) -> None:
    """Write down what was counted, in the place of what this site had counted before. Raises CatalogError."""
    # Without what the row says: that may be what nobody can read.
    known = select(SessionCountsRow).options(load_only(SessionCountsRow.site))
    known = known.where(SessionCountsRow.session_id == session_id, SessionCountsRow.site == catalog.site)
    with catalog.writing() as unit:
        row = unit.scalars(known.order_by(SessionCountsRow.id).limit(1)).first()
        if row is None:
            row = SessionCountsRow(site=catalog.site, session_id=session_id)
            unit.add(row)
        row.counts = asdict(counted.counts)
        row.events = [None if key is None else str(key) for key in counted.events]
        row.counted_at = counted.at


def rows_query(session_ids: Iterable[UUID]) -> Select[UUID, str, str, str, datetime]:
    """What was counted of sessions, a row of each and each site: session, site, counts and events as they are written,
    and when."""
    return (
        select(
            SessionCountsRow.session_id,
            SessionCountsRow.site,
            type_coerce(SessionCountsRow.counts, Text),
            type_coerce(SessionCountsRow.events, Text),
            SessionCountsRow.counted_at,
        )
        .where(SessionCountsRow.session_id.in_(list(session_ids)))
        .order_by(SessionCountsRow.session_id, SessionCountsRow.site, SessionCountsRow.id)
    )


def _value(text: str) -> Any:
    """What a JSON text says, None where it cannot be read."""
    try:
        return json_value(text)
    except (RecursionError, TypeError, ValueError):
        return None


def _counts(document: Any) -> SessionCounts | None:
    """The counters, or None where one is missing or no number: another version may have counted otherwise."""
    if not isinstance(document, dict):
        return None
    values: dict[str, Any] = {each.name: document.get(each.name) for each in fields(SessionCounts)}
    return SessionCounts(**values) if all(type(value) is int for value in values.values()) else None


def _events(document: Any) -> NewestEvents:
    """The events; none where that cannot be read, which is no session's."""
    try:
        return tuple(None if text is None else UUID(text) for text in document)
    except (TypeError, ValueError, AttributeError):
        return ()
