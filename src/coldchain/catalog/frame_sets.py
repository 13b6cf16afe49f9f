"""What mdocs of many movies say of each: kept until the movie comes, and after it for the next version of the mdoc."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy import update as sql_update

from coldchain.catalog.columns import is_path, stem_digest
from coldchain.catalog.documents import metadata_from_json, metadata_to_json
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import FrameSetRow
from coldchain.model.optics import ExposureMetadata

_BATCH = 300
_MOST_OF_A_STEM = 100


@dataclass(frozen=True, slots=True)
class KnownFrameSet:
    """What the mdoc `described_in` (its path in the session) says of the movie that it calls `movie`."""

    id: UUID
    movie: str
    described_in: str
    metadata: ExposureMetadata


def record(
    catalog: Catalog, session_id: UUID, described_in: str, found: Iterable[tuple[str, str, ExposureMetadata]]
) -> list[KnownFrameSet]:
    """Keep what an mdoc says; `found` are a movie's stem, its name in the mdoc, and its metadata.

    Returns those that are to reach an exposure: the new, those that say something else than before, and those that
    found none yet. Names that no file can have are left out.
    """
    usable = [given for given in found if is_path(given[0]) and is_path(given[1])]
    waiting: list[KnownFrameSet] = []
    for start in range(0, len(usable), _BATCH):
        waiting += _record(catalog, session_id, described_in, usable[start : start + _BATCH])
    return waiting


def waiting_for(catalog: Catalog, session_id: UUID, name: str) -> list[KnownFrameSet]:
    """What waits for an exposure of that name: what was said of a movie of its stem, oldest first. Where two sites have
    read one mdoc, this one's reading counts, of others' the oldest."""
    with catalog.reading() as unit:
        rows = unit.scalars(by_stem_query(session_id, name).limit(_MOST_OF_A_STEM)).all()
        counts = {(row.movie, row.described_in): row for row in _own_last(rows, catalog.site)}
        return [_known(row) for row in rows if row.waiting and counts[row.movie, row.described_in] is row]


def awaited(catalog: Catalog, session_id: UUID, names: Sequence[str]) -> set[str]:
    """Those of these exposures' names for which something waits (`waiting_for`); by another site's word, too."""
    digests = {name: stem_digest(name) for name in names}
    wanted = list(dict.fromkeys(digests.values()))
    found: set[bytes] = set()
    with catalog.reading() as unit:
        for start in range(0, len(wanted), _BATCH):
            found.update(unit.scalars(awaited_query(session_id, wanted[start : start + _BATCH])))
    return {name for name, digest in digests.items() if digest in found}


def mark_used(catalog: Catalog, frame_set_ids: Sequence[UUID]) -> None:
    """These have reached their exposures."""
    with catalog.writing() as unit:
        for start in range(0, len(frame_set_ids), _BATCH):
            change = sql_update(FrameSetRow).where(
                FrameSetRow.site == catalog.site, FrameSetRow.id.in_(frame_set_ids[start : start + _BATCH])
            )
            unit.execute(change.values(waiting=False, orphaned_at=None).execution_options(synchronize_session=False))


def by_stem_query(session_id: UUID, name: str) -> Select[FrameSetRow]:
    """What was said of movies of that stem, oldest first."""
    return (
        select(FrameSetRow)
        .where(FrameSetRow.session_id == session_id, FrameSetRow.stem_digest == stem_digest(name))
        .order_by(FrameSetRow.id)
    )


def awaited_query(session_id: UUID, digests: Sequence[bytes]) -> Select[bytes]:
    """The stems, of these, of movies of which something was said that has not reached its exposure."""
    return select(FrameSetRow.stem_digest).where(
        FrameSetRow.session_id == session_id, FrameSetRow.stem_digest.in_(digests), FrameSetRow.waiting.is_(True)
    )


def _record(
    catalog: Catalog, session_id: UUID, described_in: str, found: Sequence[tuple[str, str, ExposureMetadata]]
) -> list[KnownFrameSet]:
    digests = {stem_digest(stem) for stem, _, _ in found}
    waiting = []
    with catalog.writing() as unit:
        query = select(FrameSetRow).where(FrameSetRow.session_id == session_id, FrameSetRow.stem_digest.in_(digests))
        known = _own_last(unit.scalars(query).all(), catalog.site)
        rows = {row.movie: row for row in known if row.described_in == described_in}
        for stem, movie, metadata in found:
            row, details = rows.get(movie), metadata_to_json(metadata)
            if row is None or (row.details != details and row.site != catalog.site):
                row = rows[movie] = FrameSetRow(
                    site=catalog.site,
                    session_id=session_id,
                    stem_digest=stem_digest(stem),
                    movie=movie,
                    described_in=described_in,
                    details=details,
                    waiting=True,
                    found_at=datetime.now(UTC),
                )
                unit.add(row)
            elif row.details != details:
                row.details, row.waiting = details, True
            if row.waiting:
                waiting.append(row)
        unit.flush()
        return [_known(row) for row in waiting]


def _own_last(rows: Sequence[FrameSetRow], site: str) -> list[FrameSetRow]:
    """Rows in such an order that what counts of several is the last: a site's own, or the oldest."""
    return sorted(rows, key=lambda row: (row.site == site, -row.id.int))


def _known(row: FrameSetRow) -> KnownFrameSet:
    return KnownFrameSet(row.id, row.movie, row.described_in, metadata_from_json(row.details))
