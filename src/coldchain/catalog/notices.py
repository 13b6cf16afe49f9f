"""What notification asks of the catalog: this site's events with their names, and how far each rule has come.

That is a cursor, up to which nothing is left to be told, and the ids behind it that were told: an event may still
appear between them.

Only this site's events: where several sites' catalogs are joined, each site tells its own.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from uuid import UUID

from sqlalchemy import ColumnElement, Select, delete, orm, select

from coldchain.catalog.engine import Catalog
from coldchain.catalog.events import as_event, newest_own, of_session
from coldchain.catalog.tables import EventRow, InstrumentRow, NoticeCursorRow, NoticeToldRow, SessionRow
from coldchain.model.events import Notice, Severity


def after(catalog: Catalog, last: UUID, *, limit: int) -> list[Notice]:
    """This site's events after the one with the id `last`, oldest first, with the names of session and instrument."""
    # One query for each severity: an index gives each in order, however many events there are.
    found = [_told_of(catalog, after_query(catalog.site, severity, last, limit)) for severity in Severity]
    return list(islice(heapq.merge(*found, key=lambda notice: notice.event.id), limit))


def ids(catalog: Catalog, after: UUID, until: UUID, *, limit: int) -> list[UUID]:
    """The ids of this site's events after the one and up to the other: the newest so many, the newest first."""
    with catalog.reading() as unit:
        queries = [ids_query(catalog.site, severity, after, until, limit) for severity in Severity]
        return sorted((found for query in queries for found in unit.scalars(query)), reverse=True)[:limit]


def these(catalog: Catalog, wanted: Sequence[UUID]) -> list[Notice]:
    """This site's events with these ids (a thousand at most), oldest first."""
    return _told_of(catalog, these_query(catalog.site, wanted))


def newest(catalog: Catalog) -> UUID:
    """The id of this site's newest event; the nil UUID, which is before all others, where there is none."""
    found = newest_own(catalog)
    return UUID(int=0) if found is None else found.id


def cursor(catalog: Catalog, rule: str) -> UUID | None:
    """The id up to which that rule of this site has told what it was to tell; None for a rule that is new."""
    with catalog.reading() as unit:
        row = _row(unit, catalog.site, rule)
        return None if row is None else row.event_id


def set_cursor(catalog: Catalog, rule: str, event_id: UUID) -> None:
    """Record how far that rule of this site has come. The id need not be an event's."""
    with catalog.writing() as unit:
        _set(unit, catalog.site, rule, event_id)


def told(catalog: Catalog, rule: str) -> list[UUID]:
    """The ids after its cursor of which that rule of this site has told."""
    with catalog.reading() as unit:
        return list(unit.scalars(select(NoticeToldRow.event_id).where(*_told_by(catalog.site, rule))))


def sends(catalog: Catalog, rule: str) -> list[tuple[float, int]]:
    """When (Unix seconds) that rule of this site has sent how many messages, as it was recorded."""
    with catalog.reading() as unit:
        row = _row(unit, catalog.site, rule)
        return [(at, int(count)) for at, count in (row.sends or [])] if row is not None else []


def record(
    catalog: Catalog,
    rule: str,
    event_id: UUID,
    *,
    told: Sequence[UUID],
    sends: Sequence[tuple[float, int]] | None,
) -> None:
    """Record that rule's cursor, what else it has told and when it has sent how many messages, in one transaction.

    What was told up to the cursor is forgotten.
    """
    with catalog.writing() as unit:
        row = _set(unit, catalog.site, rule, event_id)
        row.sends = None if sends is None else [[at, count] for at, count in sends]
        unit.execute(delete(NoticeToldRow).where(*_told_by(catalog.site, rule), NoticeToldRow.event_id <= event_id))
        unit.add_all(NoticeToldRow(site=catalog.site, rule=rule, event_id=each) for each in told if each > event_id)


def after_query(site: str, severity: Severity, last: UUID, limit: int) -> Select[EventRow, str, str, str]:
    """A site's events of one severity after one, oldest first, with the names of session and instrument."""
    query = _with_names(site).where(EventRow.severity == severity, EventRow.id > last).limit(limit)
    return of_session(query, None)


def these_query(site: str, wanted: Sequence[UUID]) -> Select[EventRow, str, str, str]:
    """A site's events with these ids, oldest first, with the names of session and instrument."""
    return _with_names(site).where(EventRow.id.in_(wanted))


def ids_query(site: str, severity: Severity, after: UUID, until: UUID, limit: int) -> Select[UUID]:
    """The ids of a site's events of one severity after one and up to another, newest first."""
    of_these = (EventRow.site == site, EventRow.severity == severity)
    query = select(EventRow.id).where(*of_these, EventRow.id > after, EventRow.id <= until)
    return of_session(query.order_by(EventRow.id.desc()).limit(limit), None)


def _with_names(site: str) -> Select[EventRow, str, str, str]:
    return (
        select(EventRow, SessionRow.name, InstrumentRow.name, SessionRow.owner_mail)
        .outerjoin(SessionRow, EventRow.session_id == SessionRow.id)
        .outerjoin(InstrumentRow, SessionRow.instrument_id == InstrumentRow.id)
        .where(EventRow.site == site)
        .order_by(EventRow.id)
    )


def _told_of(catalog: Catalog, query: Select[EventRow, str, str, str]) -> list[Notice]:
    with catalog.reading() as unit:
        return [
            Notice(as_event(row), session or "", instrument or "", owner_mail or "")
            for row, session, instrument, owner_mail in unit.execute(query)
        ]


def _told_by(site: str, rule: str) -> tuple[ColumnElement[bool], ...]:
    return (NoticeToldRow.site == site, NoticeToldRow.rule == rule)


def _set(unit: orm.Session, site: str, rule: str, event_id: UUID) -> NoticeCursorRow:
    row = _row(unit, site, rule)
    if row is None:
        row = NoticeCursorRow(site=site, rule=rule)
        unit.add(row)
    row.event_id, row.updated_at = event_id, datetime.now(UTC)
    return row


def _row(unit: orm.Session, site: str, rule: str) -> NoticeCursorRow | None:
    query = select(NoticeCursorRow).where(NoticeCursorRow.site == site, NoticeCursorRow.rule == rule)
    return unit.scalar(query.order_by(NoticeCursorRow.id).limit(1))
