"""The newest events: what pages compare to see whether anything has happened.

Whatever the counters of a session see is an event, so what was counted holds while its newest events are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, ColumnElement, Select, Subquery, bindparam, orm, select, true

from coldchain.catalog.by_index import by_index
from coldchain.catalog.engine import Catalog
from coldchain.catalog.session_counts import NewestEvents
from coldchain.catalog.tables import EventRow, SessionRow, SiteRow
from coldchain.model.events import Severity
from coldchain.model.identity import first_id_at

_SESSION_IDS, _BEFORE = "session_ids", "before"
_EVENTS_OF_SESSION = "ix_events_session_id_site_severity_id"


def of(catalog: Catalog, session_id: UUID | None) -> NewestEvents:
    """The newest event of each site and severity, in a session or in any: of all sites the newest would hide what
    another writes whose clock is behind.

    Where one of them lies ahead of this machine's clock, the newest up to now follow: else it would hide all that
    happens after a clock was set back.
    """
    if session_id is not None:
        return of_many(catalog, [session_id])[session_id]
    with catalog.reading() as unit:
        rows = sorted(unit.execute(query()), key=lambda row: row[0])
        now = _first_after(datetime.now(UTC))
        if any(_is_ahead(keys, now) for _, *keys in rows):
            rows += sorted(unit.execute(query(is_bounded=True), {_BEFORE: now}), key=lambda row: row[0])
    return tuple(key for _, *keys in rows for key in keys)


def of_many(catalog: Catalog, session_ids: Sequence[UUID]) -> dict[UUID, NewestEvents]:
    """The same of many sessions, by one statement, and another for those with an event ahead of the clock."""
    found: dict[UUID, NewestEvents] = dict.fromkeys(session_ids, ())
    with catalog.reading() as unit:
        rows = unit.execute(_of_sessions(), {_SESSION_IDS: session_ids}).all()
        now = _first_after(datetime.now(UTC))
        ahead = list({session_id for session_id, _, *keys in rows if _is_ahead(keys, now)})
        given = {_SESSION_IDS: ahead, _BEFORE: now}
        until_now = unit.execute(_of_sessions(is_bounded=True), given).all() if ahead else []
    for some in (rows, until_now):
        for session_id, _, *keys in sorted(some, key=lambda row: row[1]):
            found[session_id] += tuple(keys)
    return found


def _is_ahead(keys: Iterable[UUID | None], now: UUID) -> bool:
    return any(key is not None and key >= now for key in keys)


def _first_after(time: datetime) -> UUID:
    """The least key of the millisecond after a time: before it are all those that were minted until then."""
    return first_id_at(time + timedelta(milliseconds=1))


def times(catalog: Catalog, event_ids: Iterable[UUID]) -> dict[UUID, datetime]:
    """When these events were."""
    with catalog.reading() as unit:
        found = unit.execute(select(EventRow.id, EventRow.at).where(EventRow.id.in_(list(event_ids))))
        return dict(found.all())


@cache
def query(*, is_bounded: bool = False) -> Select[*tuple[Any, ...]]:
    """Each site, and its newest event of each severity; where it is bounded, of those before the parameter `before`."""
    named = _sites()
    return select(named, *(_newest(named, severity, None, is_bounded) for severity in Severity))


@cache
def _of_sessions(*, is_bounded: bool = False) -> Select[*tuple[Any, ...]]:
    # Pages ask it all the time, and making it takes longer than its answer.
    return of_sessions_query(bindparam(_SESSION_IDS, expanding=True), is_bounded=is_bounded)


def of_sessions_query(
    session_ids: Sequence[UUID] | BindParameter[UUID], *, is_bounded: bool = False
) -> Select[*tuple[Any, ...]]:
    """Each of these sessions with each site, and the newest event of each severity; bounded as the other."""
    named = _sites()
    looks = (_newest(named, severity, SessionRow.id, is_bounded) for severity in Severity)
    return select(SessionRow.id, named, *looks).join(named, true()).where(SessionRow.id.in_(session_ids))


def _sites() -> Subquery:
    return select(SiteRow.site).distinct().subquery()


def _newest(
    named: Subquery, severity: Severity, session_id: orm.InstrumentedAttribute[UUID] | None, is_bounded: bool
) -> ColumnElement[UUID]:
    """A site's newest event of a severity, from the end of an index. MariaDB would read all of them for a `max`."""
    of_these = (EventRow.site == named.c.site, EventRow.severity == severity)
    query = select(EventRow.id).where(*of_these).order_by(EventRow.id.desc()).limit(1)
    if is_bounded:
        query = query.where(EventRow.id < bindparam(_BEFORE))
    if session_id is None:
        query = by_index(query, EventRow, "ix_events_site_severity_id")
    else:
        query = by_index(query.where(EventRow.session_id == session_id), EventRow, _EVENTS_OF_SESSION)
    return query.correlate(named, SessionRow).scalar_subquery()
