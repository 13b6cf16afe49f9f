"""Metadata without a movie, and movies that lack metadata: found when they are old enough, said once, listed.

What is well is not looked at: the search reads the exposures that wait, and the list an index of what was told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, func, orm, select, true
from sqlalchemy import update as sql_update

from coldchain.catalog import events
from coldchain.catalog.by_index import by_index
from coldchain.catalog.engine import Catalog
from coldchain.catalog.exposures import NO_INPUT
from coldchain.catalog.tables import ExposureRow, FrameSetRow, InstrumentRow, SessionRow
from coldchain.errors import printable
from coldchain.model.events import Severity
from coldchain.model.session import ExposureState, Orphan, OrphanKind

TOLD_ONE_BY_ONE = 20
_BATCH = 500
# `ExposureMetadata.source` where nothing but the image's own header spoke.
_NO_DESCRIPTION = ("", "header", "fei1", "fei2")
_WORDS = {
    OrphanKind.METADATA: "metadata without a movie",
    OrphanKind.MOVIE: "a movie without metadata",
}


@dataclass(frozen=True, slots=True)
class _New:
    """What is to be told: a row of exposures, or with `is_frame_set` of frame sets."""

    session_id: UUID
    session_name: str
    kind: OrphanKind
    name: str
    reason: str
    id: UUID
    is_frame_set: bool


def tell(catalog: Catalog, *, instrument_name: str, found_before: datetime) -> int:
    """Note what has waited for its partner since before that time and was not told yet; return how many these are.

    Of each session there is an event for each of them, or one for all where they are more than `TOLD_ONE_BY_ONE`.
    Only this site's are meant.
    """
    with catalog.reading() as unit:
        if not _new(unit, catalog.site, instrument_name, found_before):
            return 0
    with catalog.writing() as unit:
        new = sorted(
            _new(unit, catalog.site, instrument_name, found_before), key=lambda each: (each.session_id, each.id)
        )
        _mark(unit, new)
        for _, group in groupby(new, key=lambda each: each.session_id):
            _say(unit, list(group))
    return len(new)


def of_session(catalog: Catalog, session_id: UUID, *, limit: int) -> list[Orphan]:
    """What was told of a session and still lacks its partner, in the order of the telling."""
    with catalog.reading() as unit:
        found = [_of_exposure(row) for row in unit.scalars(exposures_query(session_id).limit(limit))]
        found += [_of_frame_set(row) for row in unit.scalars(frame_sets_query(session_id).limit(limit))]
    return sorted(found, key=lambda orphan: (orphan.told_at, orphan.name))[:limit]


def count(catalog: Catalog, session_id: UUID) -> int:
    """How many a session has."""
    with catalog.reading() as unit:
        queries = (exposures_query(session_id).order_by(None), frame_sets_query(session_id).order_by(None))
        return sum(unit.scalar(select(func.count()).select_from(query.subquery())) or 0 for query in queries)


def exposures_query(session_id: UUID) -> Select[ExposureRow]:
    """A session's exposures that were told to be orphans, the first told first."""
    query = (
        select(ExposureRow)
        .where(
            ExposureRow.session_id == session_id,
            ExposureRow.orphaned_at.is_not(None),
            ExposureRow.state == ExposureState.WAITING,
        )
        .order_by(ExposureRow.orphaned_at, ExposureRow.id)
    )
    return by_index(query, ExposureRow, "ix_exposures_session_id_orphaned_at_id")


def frame_sets_query(session_id: UUID) -> Select[FrameSetRow]:
    """A session's movies of which an mdoc of many tells, and that were told not to come, the first told first."""
    return (
        select(FrameSetRow)
        .where(FrameSetRow.session_id == session_id, FrameSetRow.orphaned_at.is_not(None))
        .order_by(FrameSetRow.orphaned_at, FrameSetRow.id)
    )


def waiting_query(
    site: str, instrument_name: str, found_before: datetime
) -> Select[UUID, UUID, str, UUID | None, str, str]:
    """A site's exposures that wait without a partner and were not told yet."""
    source = ExposureRow.details["source"].as_string()
    return (
        select(
            ExposureRow.id,
            ExposureRow.session_id,
            ExposureRow.name,
            ExposureRow.input_file_id,
            ExposureRow.reason,
            SessionRow.name,
        )
        .join(SessionRow, ExposureRow.session_id == SessionRow.id)
        .join(InstrumentRow, SessionRow.instrument_id == InstrumentRow.id)
        .where(
            ExposureRow.site == site,
            ExposureRow.state == ExposureState.WAITING,
            ExposureRow.orphaned_at.is_(None),
            ExposureRow.found_at <= found_before,
            InstrumentRow.name == instrument_name,
            (ExposureRow.reason == NO_INPUT) | _is_image_alone(source),
        )
    )


def _is_image_alone(source: ColumnElement[str]) -> ColumnElement[bool]:
    return and_(ExposureRow.input_file_id.is_not(None), source.in_(_NO_DESCRIPTION))


def frame_sets_waiting_query(
    site: str, instrument_name: str, found_before: datetime
) -> Select[UUID, UUID, str, str, str]:
    """A site's movies of which an mdoc of many tells, and that have not come and were not told yet."""
    query = (
        select(FrameSetRow.id, FrameSetRow.session_id, FrameSetRow.movie, FrameSetRow.described_in, SessionRow.name)
        .join(SessionRow, FrameSetRow.session_id == SessionRow.id)
        .join(InstrumentRow, SessionRow.instrument_id == InstrumentRow.id)
        .where(
            FrameSetRow.site == site,
            FrameSetRow.waiting == true(),
            FrameSetRow.orphaned_at.is_(None),
            FrameSetRow.found_at <= found_before,
            InstrumentRow.name == instrument_name,
        )
    )
    return by_index(query, FrameSetRow, "ix_frame_sets_site_waiting_id")


def _new(unit: orm.Session, site: str, instrument_name: str, found_before: datetime) -> list[_New]:
    new = [
        _New(session_id, session, OrphanKind.METADATA if given is None else OrphanKind.MOVIE, name, reason, key, False)
        for key, session_id, name, given, reason, session in unit.execute(
            waiting_query(site, instrument_name, found_before)
        )
    ]
    new += [
        _New(session_id, session, OrphanKind.METADATA, movie, _said_in(described_in), key, True)
        for key, session_id, movie, described_in, session in unit.execute(
            frame_sets_waiting_query(site, instrument_name, found_before)
        )
    ]
    return new


def _mark(unit: orm.Session, new: Sequence[_New]) -> None:
    now = datetime.now(UTC)
    for table, is_frame_set in ((ExposureRow, False), (FrameSetRow, True)):
        ids = [each.id for each in new if each.is_frame_set is is_frame_set]
        for start in range(0, len(ids), _BATCH):
            its_own = (table.site == unit.info["site"], table.id.in_(ids[start : start + _BATCH]))
            change = sql_update(table).where(*its_own).values(orphaned_at=now)
            unit.execute(change.execution_options(synchronize_session=False))


def _say(unit: orm.Session, new: Sequence[_New]) -> None:
    """The events of one session."""
    if len(new) > TOLD_ONE_BY_ONE:
        counts = ", ".join(
            f"{number:,} × {_WORDS[kind]}" for kind in OrphanKind if (number := sum(one.kind is kind for one in new))
        )
        message = f"{counts}; `coldchain session orphans` and the page of {printable(new[0].session_name)} list them"
        events.add(unit, Severity.WARNING, "orphan.many", message, session_id=new[0].session_id)
        return
    for one in new:
        message = f"{printable(one.name)}: {_WORDS[one.kind]}: {one.reason}"
        exposure_id = None if one.is_frame_set else one.id
        kind = f"orphan.{one.kind}"
        events.add(unit, Severity.WARNING, kind, message, session_id=one.session_id, exposure_id=exposure_id)


def _said_in(described_in: str) -> str:
    return f"{printable(described_in)} tells of it"


def _of_exposure(row: ExposureRow) -> Orphan:
    assert row.orphaned_at is not None
    kind = OrphanKind.METADATA if row.input_file_id is None else OrphanKind.MOVIE
    return Orphan(kind, row.name, row.id, row.reason, row.found_at, row.orphaned_at)


def _of_frame_set(row: FrameSetRow) -> Orphan:
    assert row.orphaned_at is not None
    reason = _said_in(row.described_in)
    return Orphan(OrphanKind.METADATA, row.movie, None, reason, row.found_at, row.orphaned_at)
