"""Staff's word that nothing of a session is cleared anywhere, until it is lifted."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Select, orm, select

from coldchain.catalog import events
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import HoldRow, SessionRow
from coldchain.errors import CatalogError, printable
from coldchain.model.events import Severity
from coldchain.model.retention import Hold


def hold(catalog: Catalog, session_id: UUID, *, reason: str, by: str) -> Hold:
    """Hold a session: from now on nothing of it is cleared, and what lies in the trash stays there.

    A session may be held for several reasons. Raises CatalogError where there is no such session.
    """
    with catalog.writing() as unit:
        session = unit.get(SessionRow, session_id)
        if session is None:
            raise CatalogError(f"there is no session with the id {session_id}", remedy="Run `coldchain session list`")
        row = HoldRow(
            site=catalog.site,
            session_id=session_id,
            reason=reason,
            set_by=by,
            set_at=datetime.now(UTC),
            lifted_by=None,
            lifted_at=None,
        )
        unit.add(row)
        unit.flush()
        message = f"session {printable(session.name)} is held by {printable(by)}: {printable(reason)}"
        events.add(unit, Severity.INFO, "hold.set", message, session_id=session_id)
        return _hold(row)


def lift(catalog: Catalog, session_id: UUID, *, by: str) -> list[Hold]:
    """Lift all that holds a session; what that was, nothing where it was not held."""
    with catalog.writing() as unit:
        rows = list(unit.scalars(open_query(session_id)))
        for row in rows:
            row.lifted_by, row.lifted_at = by, datetime.now(UTC)
            message = f"lifted by {printable(by)}: {printable(row.reason)}"
            events.add(unit, Severity.INFO, "hold.lifted", message, session_id=session_id)
        return [_hold(row) for row in rows]


def standing(catalog: Catalog, session_id: UUID) -> list[Hold]:
    """What holds a session now, oldest first."""
    with catalog.reading() as unit:
        return [_hold(row) for row in unit.scalars(open_query(session_id))]


def reasons(unit: orm.Session, session_id: UUID) -> str:
    """Why a session is held, "" where it is not; in a transaction that this room has begun."""
    return "; ".join(row.reason for row in unit.scalars(open_query(session_id)))


def open_query(session_id: UUID) -> Select[HoldRow]:
    """The holds of a session that are not lifted, whichever site set them."""
    return (
        select(HoldRow)
        .where(HoldRow.session_id == session_id, HoldRow.lifted_at.is_(None))
        .order_by(HoldRow.session_id, HoldRow.lifted_at, HoldRow.id)
    )


def _hold(row: HoldRow) -> Hold:
    return Hold(row.id, row.session_id, row.reason, row.set_by, row.set_at, row.lifted_by, row.lifted_at)
