"""What will be cleared, from where and when: announced before it is done, withdrawn where it is not."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import Select, select

from coldchain.catalog import events
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import AnnouncementRow
from coldchain.model.events import Severity
from coldchain.model.policy import SOURCE
from coldchain.model.retention import Amount, Announcement, SessionLife, counted


def announce(
    catalog: Catalog,
    session: SessionLife,
    *,
    rule: str,
    store: str,
    amount: Amount,
    now: datetime,
    due_at: datetime,
) -> Announcement:
    """Announce that a rule clears a session's files from a store, with an event that says what, when, and how to hold
    it. Where that is announced already, the announcement that stands is returned as it is."""
    with catalog.writing() as unit:
        for standing in unit.scalars(session_query(session.id)):
            if (standing.site, standing.rule, standing.store) == (catalog.site, rule, store):
                return _announcement(standing)
        row = AnnouncementRow(
            site=catalog.site,
            session_id=session.id,
            rule=rule,
            store=store,
            files=amount.files,
            bytes=amount.size_bytes,
            announced_at=now,
            due_at=due_at,
            ended_at=None,
            outcome="",
        )
        unit.add(row)
        unit.flush()
        where = "the camera's disk" if store == SOURCE else f"store {store}"
        message = (
            f"{amount} {'is' if amount.files == 1 else 'are'} going to be cleared from {where} from "
            f"{due_at:%Y-%m-%d %H:%M} UTC on, by the rule {rule}; verified copies stay elsewhere. "
            f"To keep them there: coldchain store hold {session.shell_word} --reason WHY"
        )
        events.add(unit, Severity.WARNING, "retire.announced", message, session_id=session.id)
        return _announcement(row)


def end(catalog: Catalog, announcement_id: UUID, *, outcome: str, now: datetime, withdrawn: bool) -> None:
    """End an announcement: it was carried out, or it is `withdrawn`, which is an event. Doing it again does nothing."""
    with catalog.writing() as unit:
        row = unit.get(AnnouncementRow, announcement_id)
        if row is None or row.ended_at is not None:
            return
        row.ended_at, row.outcome = now, outcome
        if withdrawn:
            message = f"{counted(row.files, 'file stays', 'files stay')} on {row.store} for now: {outcome}"
            events.add(unit, Severity.INFO, "retire.withdrawn", message, session_id=row.session_id)


def standing(catalog: Catalog) -> list[Announcement]:
    """This site's open announcements, oldest first."""
    with catalog.reading() as unit:
        return [_announcement(row) for row in unit.scalars(open_query(catalog.site))]


def of_session(catalog: Catalog, session_id: UUID) -> list[Announcement]:
    """A session's open announcements, of all sites, oldest first."""
    with catalog.reading() as unit:
        return [_announcement(row) for row in unit.scalars(session_query(session_id))]


def open_query(site: str) -> Select[AnnouncementRow]:
    """A site's announcements that have not ended."""
    return (
        select(AnnouncementRow)
        .where(AnnouncementRow.site == site, AnnouncementRow.ended_at.is_(None))
        .order_by(AnnouncementRow.site, AnnouncementRow.ended_at, AnnouncementRow.id)
    )


def session_query(session_id: UUID) -> Select[AnnouncementRow]:
    """A session's announcements that have not ended."""
    return (
        select(AnnouncementRow)
        .where(AnnouncementRow.session_id == session_id, AnnouncementRow.ended_at.is_(None))
        .order_by(AnnouncementRow.session_id, AnnouncementRow.ended_at, AnnouncementRow.id)
    )


def _announcement(row: AnnouncementRow) -> Announcement:
    return Announcement(
        id=row.id,
        session_id=row.session_id,
        rule=row.rule,
        store=row.store,
        amount=Amount(row.files, row.bytes),
        announced_at=row.announced_at,
        due_at=row.due_at,
        ended_at=row.ended_at,
        outcome=row.outcome,
    )
