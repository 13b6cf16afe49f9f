"""What was counted of sessions, kept for the next process: a memory, never the truth.

Counting a session of a million files takes seconds. What a site has counted stands in the catalog, in one row for each
session, with the newest events that there were before the counting. It holds while those are the newest: whatever the
counters see is an event.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select

from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import SessionCountsRow
from coldchain.model.session import SessionCounts

NewestEvents = tuple[UUID | None, ...]


@dataclass(frozen=True, slots=True)
class Counted:
    """A session's counters, and what its newest events were before they were counted (`page.newest_events`)."""

    counts: SessionCounts
    events: NewestEvents


def remembered(catalog: Catalog, newest: dict[UUID, NewestEvents]) -> dict[UUID, Counted]:
    """What was counted of these sessions, each with its newest events: by whatever site what holds, else what this
    site has counted, else what another has. Sessions of which nothing is known, or nothing sensible, are left out."""
    found: dict[UUID, tuple[int, Counted]] = {}
    if not newest:
        return {}
    with catalog.reading() as unit:
        rows = unit.scalars(rows_query(newest)).all()
    for row in rows:
        counts = _counts(row.counts)
        if counts is None:
            continue
        counted = Counted(counts, _events(row.events))
        rank = 2 if counted.events == newest[row.session_id] else int(row.site == catalog.site)
        if row.session_id not in found or rank > found[row.session_id][0]:
            found[row.session_id] = (rank, counted)
    return {session_id: counted for session_id, (_, counted) in found.items()}


def remember(catalog: Catalog, session_id: UUID, counted: Counted) -> None:
    """Write down what was counted, in the place of what this site had counted before. Raises CatalogError."""
    with catalog.writing() as unit:
        row = unit.scalars(rows_query([session_id]).where(SessionCountsRow.site == catalog.site)).first()
        if row is None:
            row = SessionCountsRow(site=catalog.site, session_id=session_id)
            unit.add(row)
        row.counts = asdict(counted.counts)
        row.events = [None if key is None else str(key) for key in counted.events]
        row.counted_at = datetime.now(UTC)


def rows_query(session_ids: Iterable[UUID]) -> Select[SessionCountsRow]:
    """What was counted of sessions: a row of each and each site."""
    return (
        select(SessionCountsRow)
        .where(SessionCountsRow.session_id.in_(list(session_ids)))
        .order_by(SessionCountsRow.session_id, SessionCountsRow.site, SessionCountsRow.id)
    )


def _counts(document: dict[str, Any]) -> SessionCounts | None:
    """The counters, or None where one is missing or no number: another version may have counted otherwise."""
    values: dict[str, Any] = {field.name: document.get(field.name) for field in fields(SessionCounts)}
    return SessionCounts(**values) if all(type(value) is int for value in values.values()) else None


def _events(document: Sequence[str | None]) -> NewestEvents:
    """The events; none where that cannot be read, which is no session's."""
    try:
        return tuple(None if text is None else UUID(text) for text in document)
    except (TypeError, ValueError, AttributeError):
        return ()
