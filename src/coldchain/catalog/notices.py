"""What notification asks of the catalog: this site's events with their names, and how far each rule has come.

Only this site's events: where several sites' catalogs are joined, each site tells its own.
"""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import orm, select

from coldchain.catalog.engine import Catalog
from coldchain.catalog.events import as_event
from coldchain.catalog.tables import EventRow, InstrumentRow, NoticeCursorRow, SessionRow
from coldchain.model.events import Notice


def after(catalog: Catalog, last: UUID, *, limit: int) -> list[Notice]:
    """This site's events after the one with the id `last`, oldest first, with the names of session and instrument."""
    query = (
        select(EventRow, SessionRow.name, InstrumentRow.name)
        .outerjoin(SessionRow, EventRow.session_id == SessionRow.id)
        .outerjoin(InstrumentRow, SessionRow.instrument_id == InstrumentRow.id)
        .where(EventRow.id > last, EventRow.site == catalog.site)
        .order_by(EventRow.id)
        .limit(limit)
    )
    with catalog.reading() as unit:
        return [
            Notice(as_event(row), session or "", instrument or "") for row, session, instrument in unit.execute(query)
        ]


def newest(catalog: Catalog) -> UUID:
    """The id of this site's newest event; the nil UUID, which is before all others, where there is none."""
    query = select(EventRow.id).where(EventRow.site == catalog.site).order_by(EventRow.id.desc()).limit(1)
    with catalog.reading() as unit:
        return unit.scalar(query) or UUID(int=0)


def cursor(catalog: Catalog, rule: str) -> UUID | None:
    """The id up to which that rule of this site has told what it was to tell; None for a rule that is new."""
    with catalog.reading() as unit:
        row = _row(unit, catalog.site, rule)
        return None if row is None else row.event_id


def set_cursor(catalog: Catalog, rule: str, event_id: UUID) -> None:
    """Record how far that rule of this site has come. The id need not be an event's."""
    with catalog.writing() as unit:
        row = _row(unit, catalog.site, rule)
        if row is None:
            row = NoticeCursorRow(site=catalog.site, rule=rule)
            unit.add(row)
        row.event_id, row.updated_at = event_id, datetime.now(UTC)


def _row(unit: orm.Session, site: str, rule: str) -> NoticeCursorRow | None:
    query = select(NoticeCursorRow).where(NoticeCursorRow.site == site, NoticeCursorRow.rule == rule)
    return unit.scalar(query.order_by(NoticeCursorRow.id).limit(1))
