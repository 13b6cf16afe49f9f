"""What is thought of each exposure, and what has changed in a session.

A verdict, the end of its exposure's processing and the alerts that follow from it are one transaction: after a restart
nothing is judged that was, and no alert is said twice or forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Select, func, orm, select, true

from coldchain.catalog import events, exposures
from coldchain.catalog.by_index import by_index
from coldchain.catalog.documents import measures_from_json, measures_to_json, reasons_from_json, reasons_to_json
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import AlertRow, ExposureRow, VerdictRow
from coldchain.errors import printable
from coldchain.model.events import Severity
from coldchain.model.quality import Alert, Change, Ending, Grade, Judged, Verdict
from coldchain.model.session import ExposureState

_ENDED_SHOWN = 20
_IN_ORDER = "ix_verdicts_session_id_stands_exposure_id"


def settle(catalog: Catalog, judged: Judged, *, raised: Sequence[Change] = (), ended: Sequence[Ending] = ()) -> bool:
    """End an exposure's processing with its verdict, and raise and end the session's alerts.

    The exposure becomes DONE if it is still PROCESSING; else something changed meanwhile, it will be judged anew, and
    nothing is written. A verdict that stands already, word for word, is not written again. Whether it was done.
    """
    with catalog.writing() as unit:
        exposure = exposures.load_row(unit, judged.exposure_id)
        if exposure.state != ExposureState.PROCESSING:
            return False
        _write_verdict(unit, exposure, judged)
        exposures.move(unit, exposure, ExposureState.DONE, "")
        for ending in ended:
            _end(unit, exposure, ending)
        for change in raised:
            _raise(unit, exposure, change)
    return True


def newest(catalog: Catalog, exposure_id: UUID) -> Verdict | None:
    """The verdict that stands; None where the exposure has none, or is not done: an older one was of other results."""
    query = (
        standing_query(exposure_id)
        .join(ExposureRow, ExposureRow.id == VerdictRow.exposure_id)
        .where(ExposureRow.state == ExposureState.DONE)
    )
    with catalog.reading() as unit:
        row = unit.scalars(query).first()
        return None if row is None else _verdict(row)


def window(catalog: Catalog, session_id: UUID, limit: int) -> list[Judged]:
    """The session's newest `limit` exposures that were judged, with the verdicts that stand, `in_order`."""
    with catalog.reading() as unit:
        return in_order(_judged(row) for row in unit.scalars(window_query(session_id, limit)))


def in_order(judged: Iterable[Judged]) -> list[Judged]:
    """In the order in which they were taken, by the microscope's clock, where it told of every one; else in the order
    in which they were found."""
    found = sorted(judged, key=lambda one: one.exposure_id)
    taken = {one.exposure_id: one.acquired_at for one in found if one.acquired_at is not None}
    return sorted(found, key=lambda one: taken[one.exposure_id]) if len(taken) == len(found) else found


def counts(catalog: Catalog, session_id: UUID) -> dict[Grade, int]:
    """How many of a session's done exposures have each grade; grades without any are left out."""
    with catalog.reading() as unit:
        return dict(unit.execute(counts_query(session_id)).all())


def alerts(catalog: Catalog, session_id: UUID) -> list[Alert]:
    """The session's open alerts and the last of those that ended, oldest first."""
    with catalog.reading() as unit:
        query = select(AlertRow).where(AlertRow.session_id == session_id).order_by(AlertRow.id.desc())
        still = unit.scalars(query.where(AlertRow.ended_at.is_(None))).all()
        over = unit.scalars(query.where(AlertRow.ended_at.is_not(None)).limit(_ENDED_SHOWN)).all()
        return [_alert(row) for row in sorted([*still, *over], key=lambda row: row.id)]


def standing_query(exposure_id: UUID) -> Select[VerdictRow]:
    """An exposure's verdicts that stand: one, unless two sites have written."""
    return select(VerdictRow).where(VerdictRow.exposure_id == exposure_id, VerdictRow.stands == true())


def window_query(session_id: UUID, limit: int) -> Select[VerdictRow]:
    """The verdicts that stand, newest exposure first."""
    query = (
        select(VerdictRow)
        .where(VerdictRow.session_id == session_id, VerdictRow.stands == true())
        .order_by(VerdictRow.exposure_id.desc())
        .limit(limit)
    )
    return by_index(query, VerdictRow, _IN_ORDER)


def counts_query(session_id: UUID) -> Select[Grade, int]:
    """Grades and how many done exposures have each."""
    query = (
        select(VerdictRow.grade, func.count())
        .join(ExposureRow, ExposureRow.id == VerdictRow.exposure_id)
        .where(
            VerdictRow.session_id == session_id,
            VerdictRow.stands == true(),
            ExposureRow.state == ExposureState.DONE,
        )
        .group_by(VerdictRow.grade)
    )
    return by_index(query, VerdictRow, _IN_ORDER)


def _write_verdict(unit: orm.Session, exposure: ExposureRow, judged: Judged) -> None:
    standing = unit.scalars(standing_query(exposure.id)).all()
    if [(_verdict(row), row.pattern or "") for row in standing] == [(judged.verdict, judged.pattern)]:
        return
    for row in standing:
        row.stands = False
    verdict = judged.verdict
    unit.add(
        VerdictRow(
            site=unit.info["site"],
            session_id=exposure.session_id,
            exposure_id=exposure.id,
            stands=True,
            grade=verdict.grade,
            reasons=reasons_to_json(verdict.reasons),
            measures=measures_to_json(verdict.measures),
            pattern=judged.pattern or None,
            acquired_at=judged.acquired_at,
            judged_at=datetime.now(UTC),
        )
    )
    if verdict.grade is not Grade.GOOD:
        why = " ".join(reason.words for reason in verdict.reasons)
        exposures.note(
            unit,
            exposure,
            Severity.INFO,
            f"verdict.{verdict.grade}",
            f"{printable(exposure.name)} is {verdict.grade}: {why}",
        )


def _raise(unit: orm.Session, exposure: ExposureRow, change: Change) -> None:
    unit.add(
        AlertRow(
            site=unit.info["site"],
            session_id=exposure.session_id,
            quantity=change.quantity,
            since_exposure_id=change.since,
            seen_exposure_id=change.seen,
            usual=change.usual,
            spread=change.spread,
            level=change.level,
            words=change.words,
            raised_at=datetime.now(UTC),
            ending="",
            settled=False,
        )
    )
    _say(unit, exposure.session_id, Severity.WARNING, "alert.raised", change.words, change.since)


def _end(unit: orm.Session, exposure: ExposureRow, ending: Ending) -> None:
    row = unit.get(AlertRow, ending.alert_id)
    if row is None or row.ended_at is not None:
        return
    row.ended_at, row.ended_by, row.ending, row.settled = datetime.now(UTC), ending.by, ending.words, ending.settled
    _say(unit, exposure.session_id, Severity.INFO, "alert.ended", ending.words, ending.by)


def _say(unit: orm.Session, session_id: UUID, severity: Severity, kind: str, message: str, exposure_id: UUID) -> None:
    events.add(unit, severity, kind, message, session_id=session_id, exposure_id=exposure_id)


def _judged(row: VerdictRow) -> Judged:
    return Judged(row.exposure_id, row.acquired_at, _verdict(row), row.pattern or "")


def _verdict(row: VerdictRow) -> Verdict:
    return Verdict(row.grade, reasons_from_json(row.reasons), measures_from_json(row.measures))


def _alert(row: AlertRow) -> Alert:
    return Alert(
        id=row.id,
        session_id=row.session_id,
        change=Change(
            quantity=row.quantity,
            since=row.since_exposure_id,
            seen=row.seen_exposure_id,
            usual=row.usual,
            spread=row.spread,
            level=row.level,
            words=row.words,
        ),
        raised_at=row.raised_at,
        ended_at=row.ended_at,
        ended_by=row.ended_by,
        ending=row.ending,
        settled=row.settled,
    )
