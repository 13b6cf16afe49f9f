"""What happened: written beside every change of a state, read by the pages.

Events are read site by site and laid together: keys begin with the time of their making by their site's clock, and of
two sites' clocks one may be hours ahead. So each site's newest is its own, and nothing hides behind another's.
"""

from __future__ import annotations

import heapq
from datetime import UTC, datetime
from itertools import islice
from typing import TypeVarTuple
from uuid import UUID

from sqlalchemy import Select, orm, select

from coldchain.catalog import sites
from coldchain.catalog.by_index import by_index
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import EventRow
from coldchain.model.events import Event, Severity

Chosen = TypeVarTuple("Chosen")

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
    """The newest events, newest first by their sites' clocks, of one session or of all, of at least the severity
    `minimum`."""
    # One query for each site and severity: an index gives each in order, however many of the others lie between.
    with catalog.reading() as unit:
        newest = [
            unit.scalars(recent_query(site, severity, session_id=session_id, limit=limit)).all()
            for site in sites.names(unit)
            for severity in Severity
            if _RANK[severity] >= _RANK[minimum]
        ]
    merged = heapq.merge(*newest, key=lambda row: row.id, reverse=True)
    return [as_event(row) for row in islice(merged, limit)]


def since(catalog: Catalog, last: UUID, *, limit: int) -> list[Event]:
    """This site's events after the one with the id `last`, oldest first. Their keys grow with the time of their
    writing."""
    with catalog.reading() as unit:
        found = [unit.scalars(since_query(catalog.site, severity, last, limit)).all() for severity in Severity]
    return [as_event(row) for row in islice(heapq.merge(*found, key=lambda row: row.id), limit)]


def newest_own(catalog: Catalog) -> Event | None:
    """This site's newest event: the last that its own clock has seen."""
    with catalog.reading() as unit:
        queries = [recent_query(catalog.site, severity, session_id=None, limit=1) for severity in Severity]
        newest = max((row for query in queries for row in unit.scalars(query)), key=lambda row: row.id, default=None)
        return None if newest is None else as_event(newest)


def recent_query(site: str, severity: Severity, *, session_id: UUID | None, limit: int) -> Select[EventRow]:
    """A site's newest events of one severity."""
    query = (
        select(EventRow)
        .where(EventRow.site == site, EventRow.severity == severity)
        .order_by(EventRow.id.desc())
        .limit(limit)
    )
    return of_session(query, session_id)


def since_query(site: str, severity: Severity, last: UUID, limit: int) -> Select[EventRow]:
    """A site's events of one severity after one, oldest first."""
    query = (
        select(EventRow)
        .where(EventRow.site == site, EventRow.severity == severity, EventRow.id > last)
        .order_by(EventRow.id)
        .limit(limit)
    )
    return of_session(query, None)


def of_session(query: Select[*Chosen], session_id: UUID | None) -> Select[*Chosen]:
    """A query of a site's events of one severity, of a session or of all, by the index that has them in order. For this
    room's modules."""
    if session_id is None:
        return by_index(query, EventRow, "ix_events_site_severity_id")
    query = query.where(EventRow.session_id == session_id)
    return by_index(query, EventRow, "ix_events_session_id_site_severity_id")


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
