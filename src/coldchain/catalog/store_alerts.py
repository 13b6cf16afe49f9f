"""Alerts of stores: each is an event when it begins and when it ends, and stands in a table between.

So a restart says nothing twice, and ends what ended meanwhile.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Select, select

from coldchain.catalog import events
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import StoreAlertRow
from coldchain.model.events import Severity
from coldchain.model.stores import StoreAlert, StoreSubject

KIND = "alert.store"


def standing(catalog: Catalog) -> list[StoreAlert]:
    """Every site's open alerts of stores, oldest first."""
    with catalog.reading() as unit:
        return [_alert(row) for row in unit.scalars(open_query())]


def begin(catalog: Catalog, store: str, subject: StoreSubject, words: str) -> bool:
    """Raise an alert of this site's store, which is a warning among the events; nothing where it stands already.

    Whether it was raised.
    """
    with catalog.writing() as unit:
        if any(_is(row, catalog.site, store, subject) for row in unit.scalars(open_query())):
            return False
        row = StoreAlertRow(
            site=catalog.site, store=store, subject=subject, words=words, raised_at=datetime.now(UTC), ended_at=None
        )
        unit.add(row)
        events.add(unit, Severity.WARNING, KIND, words)
        return True


def end(catalog: Catalog, store: str, subject: StoreSubject, words: str) -> bool:
    """End an alert of this site's store, which is an event; nothing where none stands. Whether it was ended."""
    with catalog.writing() as unit:
        rows = [row for row in unit.scalars(open_query()) if _is(row, catalog.site, store, subject)]
        for row in rows:
            row.ended_at = datetime.now(UTC)
        if rows:
            events.add(unit, Severity.INFO, KIND, words)
        return bool(rows)


def open_query() -> Select[StoreAlertRow]:
    """The alerts that have not ended: few."""
    return select(StoreAlertRow).where(StoreAlertRow.ended_at.is_(None)).order_by(StoreAlertRow.id)


def _is(row: StoreAlertRow, site: str, store: str, subject: StoreSubject) -> bool:
    return (row.site, row.store, row.subject) == (site, store, subject)


def _alert(row: StoreAlertRow) -> StoreAlert:
    return StoreAlert(
        id=row.id,
        site=row.site,
        store=row.store,
        subject=row.subject,
        words=row.words,
        raised_at=row.raised_at,
        ended_at=row.ended_at,
    )
