"""What the site's pages ask: many exposures with little of each, in few queries.

Paging is by key: a page goes on from the last exposure of the one before, so that what arrives meanwhile neither
repeats nor hides anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, case, func, orm, select, true

from coldchain.catalog import exposures, files, newest_events, replicas, sessions, steps
from coldchain.catalog.by_index import by_index
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import (
    CtfRow,
    ExposureRow,
    FileRow,
    PicksRow,
    ReplicaRow,
    SessionRow,
    StepRunRow,
    VerdictRow,
)
from coldchain.model.files import DataFile, FileState, Replica, ReplicaState
from coldchain.model.identity import digest_of
from coldchain.model.quality import Grade
from coldchain.model.results import Step, StepRun, StepState
from coldchain.model.session import Exposure, ExposureState, Session

NOT_TOLD = ""
SMALL_EXPOSURES, SMALL_FILES = 200, 2000


@dataclass(frozen=True, slots=True)
class ExposureFilter:
    """Which exposures to list; None admits all, `NOT_TOLD` those whose grid square or hole is unknown."""

    state: ExposureState | None = None
    square: str | None = None
    hole: str | None = None
    grade: Grade | None = None


@dataclass(frozen=True, slots=True)
class GalleryCard:
    """An exposure in the gallery, with its newest results; `thumbnail_run_id` is the preview run with its picture.

    `grade` and `verdict`, its reasons in words, are those of a done exposure.
    """

    exposure_id: UUID
    name: str
    state: ExposureState
    reason: str
    found_at: datetime
    thumbnail_run_id: UUID | None
    defocus_angstrom: float | None
    fit_resolution_angstrom: float | None
    trustworthy: bool | None
    picks: int | None
    grade: Grade | None
    verdict: str


@dataclass(frozen=True, slots=True)
class GalleryPage:
    """Cards, newest first; the keys from which the pages beside it go on, None where there is none."""

    cards: tuple[GalleryCard, ...]
    newer: UUID | None
    older: UUID | None


@dataclass(frozen=True, slots=True)
class PlaceCount:
    """How many exposures, and how many of them quarantined, a foil hole of a grid square has. None: not told."""

    grid_square: str | None
    foil_hole: str | None
    exposures: int
    quarantined: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """Exposures in one state for one reason."""

    state: ExposureState
    reason: str
    count: int
    newest_exposure_id: UUID
    newest_name: str


def session(catalog: Catalog, session_id: UUID) -> Session | None:
    """The session, or None."""
    return sessions.known(catalog, session_id)


def exposure(catalog: Catalog, exposure_id: UUID) -> Exposure | None:
    """The exposure, or None."""
    with catalog.reading() as unit:
        is_there = unit.get(ExposureRow, exposure_id) is not None
    return exposures.get(catalog, exposure_id) if is_there else None


def run(catalog: Catalog, run_id: UUID) -> StepRun | None:
    """The run of a step, or None."""
    with catalog.reading() as unit:
        row = unit.get(StepRunRow, run_id)
        exposure_id = None if row is None else row.exposure_id
    if exposure_id is None:
        return None
    return next(found for found in steps.runs_of(catalog, exposure_id) if found.id == run_id)


def stamp(catalog: Catalog, session_id: UUID | None = None) -> str:
    """A text that changes whenever something happens in a session, or in any: what a page asks again and again.

    It costs a look at the ends of a few indexes, however long the session is. Every change of a file, of an exposure's
    state and of a copy that the counters see is an event, and so is a run's end; a run's beginning is a new run. What
    is cleared or put back is told when it begins and when a pass has ended, not copy by copy.
    """
    parts: dict[str, object] = {"events": [str(key) for key in newest_events.of(catalog, session_id)]}
    with catalog.reading() as unit:
        parts["run"] = str(unit.scalar(select(func.max(StepRunRow.id))))
        parts["session"] = str(unit.scalar(select(func.max(SessionRow.id))))
    if session_id is not None:
        parts["session"] = repr(session(catalog, session_id))
    return digest_of(parts)[:20]


def small_size(catalog: Catalog, session_id: UUID) -> int | None:
    """How many files a session has, and None where it is large: where counting it would take longer than somebody
    should wait. It is told by looking at so many and one at most."""
    with catalog.reading() as unit:
        exposures_seen = unit.scalar(few_query(ExposureRow, session_id, SMALL_EXPOSURES + 1)) or 0
        if exposures_seen > SMALL_EXPOSURES:
            return None
        files_seen = unit.scalar(few_query(FileRow, session_id, SMALL_FILES + 1)) or 0
    return None if files_seen > SMALL_FILES else files_seen


def few_query(table: type[ExposureRow] | type[FileRow], session_id: UUID, limit: int) -> Select[int]:
    """How many rows of a table a session has, so many at most."""
    some = select(table.id).where(table.session_id == session_id).limit(limit)
    some = by_index(some, table, f"ix_{table.__tablename__}_session_id_id")
    return select(func.count()).select_from(some.subquery())


def state_counts(catalog: Catalog, session_id: UUID) -> dict[ExposureState, int]:
    """How many exposures of a session are in each state; states without any are left out."""
    with catalog.reading() as unit:
        return dict(unit.execute(sessions.exposure_counts_query(session_id)).all())


def gallery(
    catalog: Catalog,
    session_id: UUID,
    *,
    limit: int,
    chosen: ExposureFilter = ExposureFilter(),
    before: UUID | None = None,
    after: UUID | None = None,
) -> GalleryPage:
    """A page of a session's exposures, newest first: from the newest, those older than `before`, or those just newer
    than `after` (the newest page where these would not fill one)."""
    with catalog.reading() as unit:
        rows = list(unit.execute(gallery_query(session_id, chosen, before=before, after=after, limit=limit + 1)))
        if after is not None and len(rows) < limit:  # a last page that is not full would look like the end
            after = None
            rows = list(unit.execute(gallery_query(session_id, chosen, before=None, after=None, limit=limit + 1)))
        has_more = len(rows) > limit
        rows = rows[:limit]
        if after is not None:
            rows.reverse()
        cards = tuple(_cards(unit, rows))
        edges = gallery_query(session_id, chosen, before=None, after=rows[0].id, limit=1) if rows else None
        has_newer = edges is not None and unit.execute(edges).first() is not None
    has_older = has_more if after is None else True
    return GalleryPage(
        cards=cards,
        newer=cards[0].exposure_id if has_newer else None,
        older=cards[-1].exposure_id if cards and has_older else None,
    )


def gallery_query(
    session_id: UUID, chosen: ExposureFilter, *, before: UUID | None, after: UUID | None, limit: int
) -> Select[*tuple[Any, ...]]:
    """What cards show of exposures, in the order of their keys: newest first, or oldest first where they are to follow
    `after`."""
    # Not the whole rows: those of a page are read with every look at it.
    shown = (ExposureRow.id, ExposureRow.name, ExposureRow.state, ExposureRow.reason, ExposureRow.found_at)
    query = select(*shown).where(ExposureRow.session_id == session_id)
    index = "ix_exposures_session_id_id" if chosen.state is None else "ix_exposures_session_id_state"
    query = by_index(query, ExposureRow, index)
    if chosen.state is not None:
        query = query.where(ExposureRow.state == chosen.state)
    if chosen.square is not None:
        query = query.where(ExposureRow.grid_square == (chosen.square or None))
    if chosen.hole is not None:
        query = query.where(ExposureRow.foil_hole == (chosen.hole or None))
    if chosen.grade is not None:
        judged = select(VerdictRow.exposure_id).where(
            VerdictRow.session_id == session_id, VerdictRow.stands == true(), VerdictRow.grade == chosen.grade
        )
        query = query.where(ExposureRow.state == ExposureState.DONE, ExposureRow.id.in_(judged))
    if after is not None:
        return query.where(ExposureRow.id > after).order_by(ExposureRow.id).limit(limit)
    if before is not None:
        query = query.where(ExposureRow.id < before)
    return query.order_by(ExposureRow.id.desc()).limit(limit)


def neighbours(catalog: Catalog, session_id: UUID, exposure_id: UUID) -> tuple[UUID | None, UUID | None]:
    """The exposures found just after and just before this one in its session."""
    every = ExposureFilter()
    with catalog.reading() as unit:
        newer = unit.execute(gallery_query(session_id, every, before=None, after=exposure_id, limit=1)).first()
        older = unit.execute(gallery_query(session_id, every, before=exposure_id, after=None, limit=1)).first()
        return (None if newer is None else newer.id, None if older is None else older.id)


def place_counts(catalog: Catalog, session_id: UUID) -> list[PlaceCount]:
    """How the session's exposures spread over grid squares and foil holes."""
    with catalog.reading() as unit:
        found = unit.execute(place_counts_query(session_id))
        return [PlaceCount(square, hole, int(count), int(bad)) for square, hole, count, bad in found]


def place_counts_query(session_id: UUID) -> Select[str | None, str | None, int, int]:
    """Grid square, hole, and how many exposures of a session it has, and how many of them are quarantined."""
    quarantined = func.sum(case((ExposureRow.state == ExposureState.QUARANTINED, 1), else_=0))
    query = (
        select(ExposureRow.grid_square, ExposureRow.foil_hole, func.count(), quarantined)
        .where(ExposureRow.session_id == session_id)
        .group_by(ExposureRow.grid_square, ExposureRow.foil_hole)
    )
    return by_index(query, ExposureRow, "ix_exposures_session_id_id")


def overview_paths(catalog: Catalog, session_id: UUID) -> list[str]:
    """Paths of the session's files that belong to no exposure: overviews and metadata of grid squares and holes."""
    with catalog.reading() as unit:
        return list(unit.scalars(overview_query(session_id)))


def overview_query(session_id: UUID) -> Select[str]:
    """Paths of a session's files that belong to no exposure."""
    return select(FileRow.relative_path).where(
        FileRow.session_id == session_id, FileRow.exposure_id.is_(None), FileRow.state != FileState.REPLACED
    )


def troubles(catalog: Catalog, session_id: UUID, *, limit: int) -> list[Trouble]:
    """What is quarantined and what waits, exposures of one reason together, those with the newest exposure first."""
    with catalog.reading() as unit:
        groups = unit.execute(troubles_query(session_id, limit)).all()
        names = dict(
            unit.execute(
                select(ExposureRow.id, ExposureRow.name).where(ExposureRow.id.in_([newest for *_, newest in groups]))
            ).all()
        )
    return [Trouble(state, reason, count, newest, names[newest]) for state, reason, count, newest in groups]


def troubles_query(session_id: UUID, limit: int) -> Select[ExposureState, str, int, UUID]:
    """State, reason, how many, and the newest of a session's exposures that are quarantined or wait."""
    return (
        select(ExposureRow.state, ExposureRow.reason, func.count(), func.max(ExposureRow.id))
        .where(
            ExposureRow.session_id == session_id,
            ExposureRow.state.in_([ExposureState.QUARANTINED, ExposureState.WAITING]),
        )
        .group_by(ExposureRow.state, ExposureRow.reason)
        .order_by(ExposureRow.state, func.max(ExposureRow.id).desc())
        .limit(limit)
    )


def failed_copies(catalog: Catalog, session_id: UUID, *, limit: int) -> list[tuple[DataFile, Replica]]:
    """Copies whose last try failed, newest first."""
    with catalog.reading() as unit:
        found = unit.execute(failed_copies_query(session_id, limit)).all()
    return [
        (files.get(catalog, file_id), replica)
        for replica_id, file_id in found
        for replica in replicas.of_file(catalog, file_id)
        if replica.id == replica_id
    ]


def failed_copies_query(session_id: UUID, limit: int) -> Select[UUID, UUID]:
    """Replica and file of a session's copies whose last try failed, newest first."""
    query = (
        select(ReplicaRow.id, ReplicaRow.file_id)
        .join(FileRow, ReplicaRow.file_id == FileRow.id)
        .join(SessionRow, FileRow.session_id == SessionRow.id)
        .where(
            SessionRow.id == session_id,
            ReplicaRow.site == SessionRow.site,
            ReplicaRow.pending == true(),
            ReplicaRow.state == ReplicaState.FAILED,
        )
        .order_by(ReplicaRow.id.desc())
        .limit(limit)
    )
    return by_index(query, ReplicaRow, "ix_replicas_queue")


def _cards(unit: orm.Session, rows: Sequence[Row[Any]]) -> Iterator[GalleryCard]:
    """Cards for exposures, with what the newest done run of each step found."""
    exposure_ids = [row.id for row in rows]
    newest = _newest_runs(unit, exposure_ids)
    fits = [run_id for (_, step), run_id in newest.items() if step is Step.CTF]
    picked = [run_id for (_, step), run_id in newest.items() if step is Step.PICK]
    ctf = {found.run_id: found for found in unit.execute(ctf_query(fits))}
    picks = dict(unit.execute(picks_query(picked)).all())
    verdicts = {found.exposure_id: found for found in unit.execute(verdicts_query(exposure_ids))}
    for row in rows:
        verdict = verdicts.get(row.id) if row.state == ExposureState.DONE else None
        fit = ctf.get(newest.get((row.id, Step.CTF), row.id))
        yield GalleryCard(
            exposure_id=row.id,
            name=row.name,
            state=row.state,
            reason=row.reason,
            found_at=row.found_at,
            thumbnail_run_id=newest.get((row.id, Step.PREVIEW)),
            defocus_angstrom=None if fit is None else (fit.defocus_u_angstrom + fit.defocus_v_angstrom) / 2,
            fit_resolution_angstrom=None if fit is None else fit.fit_resolution_angstrom,
            trustworthy=None if fit is None else fit.trustworthy,
            picks=picks.get(newest.get((row.id, Step.PICK), row.id)),
            grade=None if verdict is None else verdict.grade,
            verdict="" if verdict is None else " ".join(words for _, _, words in verdict.reasons),
        )


def ctf_query(run_ids: Sequence[UUID]) -> Select[UUID, float, float, float, bool]:
    """What these runs found of the CTF, as cards show it."""
    return select(
        CtfRow.run_id,
        CtfRow.defocus_u_angstrom,
        CtfRow.defocus_v_angstrom,
        CtfRow.fit_resolution_angstrom,
        CtfRow.trustworthy,
    ).where(CtfRow.run_id.in_(run_ids))


def picks_query(run_ids: Sequence[UUID]) -> Select[UUID, int]:
    """How many particles these runs found. Counts only: positions may be long."""
    return select(PicksRow.run_id, PicksRow.count).where(PicksRow.run_id.in_(run_ids))


def verdicts_query(exposure_ids: Sequence[UUID]) -> Select[UUID, Grade, list[list[str]]]:
    """Exposure, grade and reasons of the verdicts of these exposures that stand."""
    return select(VerdictRow.exposure_id, VerdictRow.grade, VerdictRow.reasons).where(
        VerdictRow.exposure_id.in_(exposure_ids), VerdictRow.stands == true()
    )


def newest_runs_query(exposure_ids: Sequence[UUID]) -> Select[UUID, Step, UUID]:
    """Exposure, step, and the newest done run of each."""
    return (
        select(StepRunRow.exposure_id, StepRunRow.step, func.max(StepRunRow.id))
        .where(StepRunRow.exposure_id.in_(exposure_ids), StepRunRow.state == StepState.DONE)
        .group_by(StepRunRow.exposure_id, StepRunRow.step)
    )


def _newest_runs(unit: orm.Session, exposure_ids: Sequence[UUID]) -> dict[tuple[UUID, Step], UUID]:
    found = unit.execute(newest_runs_query(exposure_ids))
    return {(exposure_id, step): run_id for exposure_id, step, run_id in found}
