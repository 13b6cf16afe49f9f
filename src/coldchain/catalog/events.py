"""What happened: written beside every change of a state, read by the pages."""

from __future__ import annotations

import heapq
from datetime import UTC, datetime
from itertools import islice
from uuid import UUID

from sqlalchemy import Select, orm, select

from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import EventRow
from coldchain.model.events import Event, Severity

_RANK = {Severity.INFO: 0, Severity.WARNING: 1, Severity.ERROR: 2}


def record(
    catalog: Catalog,
    severity: Severity,
    kind: str,
    message: str,
    *,
    session_id: UUID | None = None,
    exposure_id: UUID | None = None,
    file_id: UUID | None = None,
) -> Event:
    """Write one event. `kind` is a dotted noun and verb ("file.damaged")."""
    with catalog.writing() as unit:
        row = add(
            unit,
            severity,
            kind,
            message,
            session_id=session_id,
            exposure_id=exposure_id,
            file_id=file_id,
        )
        unit.flush()
        return as_event(row)


def recent(
    catalog: Catalog, *, session_id: UUID | None = None, limit: int = 100, minimum: Severity = Severity.INFO
) -> list[Event]:
    """The newest events, newest first, of one session or of all, of at least the severity `minimum`."""
    # One query for each severity: an index gives each in order, however many events of the others lie between.
    with catalog.reading() as unit:
        newest = [
            unit.scalars(recent_query(severity, session_id=session_id, limit=limit)).all()
            for severity in Severity
            if _RANK[severity] >= _RANK[minimum]
        ]
    merged = heapq.merge(*newest, key=lambda row: row.id, reverse=True)
    return [as_event(row) for row in islice(merged, limit)]


def since(catalog: Catalog, last: UUID, *, limit: int) -> list[Event]:
    """The events after the one with the id `last`, oldest first. Their keys grow with the time of their writing."""
    with catalog.reading() as unit:
        rows = unit.scalars(select(EventRow).where(EventRow.id > last).order_by(EventRow.id).limit(limit))
        return [as_event(row) for row in rows]


def recent_query(severity: Severity, *, session_id: UUID | None, limit: int) -> Select[EventRow]:
    """The newest events of one severity."""
    query = select(EventRow).where(EventRow.severity == severity).order_by(EventRow.id.desc()).limit(limit)
    return query if session_id is None else query.where(EventRow.session_id == session_id)


def add(
    unit: orm.Session,
    severity: Severity,
    kind: str,
    message: str,
    *,
    session_id: UUID | None = None,
    exposure_id: UUID | None = None,
    file_id: UUID | None = None,
) -> EventRow:
    """Add an event to a transaction that this room has begun."""
    row = EventRow(
        site=unit.info["site"],
        at=datetime.now(UTC),
        severity=severity,
        kind=kind,
        message=message,
        session_id=session_id,
        exposure_id=exposure_id,
        file_id=file_id,
    )
    unit.add(row)
    return row


def as_event(row: EventRow) -> Event:
    """The row as a model value."""
    return Event(
        id=row.id,
        at=row.at,
        severity=row.severity,
        kind=row.kind,
        message=row.message,
        session_id=row.session_id,
        exposure_id=row.exposure_id,
        file_id=row.file_id,
    )
