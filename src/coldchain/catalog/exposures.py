"""Exposures: found, described, given an input, processed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Select, orm, select

from coldchain.catalog import events
from coldchain.catalog.by_index import by_index
from coldchain.catalog.columns import is_path, path_digest, stem_digest
from coldchain.catalog.documents import metadata_from_json, metadata_to_json, written_over
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import ExposureRow, FileRow
from coldchain.errors import CatalogError, printable
from coldchain.model.events import Severity
from coldchain.model.files import FileKind
from coldchain.model.identity import new_id
from coldchain.model.optics import ExposureMetadata
from coldchain.model.session import DescribedExposure, Exposure, ExposureState

NO_INPUT = "no movie and no micrograph yet"
"""The reason for which an exposure waits that is known from its metadata alone."""
MOST_ALIKE = 50
_STEMS_AT_ONCE = 300
_SEVERITY = {ExposureState.QUARANTINED: Severity.ERROR, ExposureState.WAITING: Severity.WARNING}


def ensure(
    catalog: Catalog, session_id: UUID, name: str, *, grid_square: str | None = None, foil_hole: str | None = None
) -> Exposure:
    """The session's exposure of that name, made WAITING if there is none.

    Grid square and hole fill in what was unknown.
    """
    with catalog.writing() as unit:
        return _exposure(_ensure(unit, session_id, name, grid_square, foil_hole))


def describe(catalog: Catalog, session_id: UUID, said: Sequence[DescribedExposure]) -> list[Exposure]:
    """As `ensure` and `attach_metadata` for each of these, in one transaction: whoever has thousands to tell of gives
    some dozens a time, so that others may write between them."""
    with catalog.writing() as unit:
        rows = [_ensure(unit, session_id, each.name, each.grid_square, each.foil_hole) for each in said]
        for row, each in zip(rows, said, strict=True):
            _lay_over(unit, row, each.metadata)
        return [_exposure(row) for row in rows]


def get(catalog: Catalog, exposure_id: UUID) -> Exposure:
    """The exposure with that id; CatalogError if there is none."""
    with catalog.reading() as unit:
        return _exposure(load_row(unit, exposure_id))


def by_name(catalog: Catalog, session_id: UUID, name: str) -> Exposure | None:
    """The session's exposure of that name."""
    with catalog.reading() as unit:
        row = unit.scalars(by_name_query(session_id, name)).first()
        return None if row is None else _exposure(row)


def by_stems(catalog: Catalog, session_id: UUID, names: Sequence[str]) -> dict[str, list[Exposure]]:
    """By each of these names, the session's exposures whose name's last part is that name's, whatever its case, oldest
    first; at most `MOST_ALIKE` of a name, and none of a name that can be no path's. Of those that two sites have made
    of one name it is the oldest."""
    digests = {name: stem_digest(name) for name in names if is_path(name)}
    alike: dict[bytes, list[Exposure]] = {digest: [] for digest in digests.values()}
    wanted = list(alike)
    seen: set[bytes] = set()
    with catalog.reading() as unit:
        for start in range(0, len(wanted), _STEMS_AT_ONCE):
            query = by_stem_query(session_id, wanted[start : start + _STEMS_AT_ONCE])
            for row in unit.scalars(query).yield_per(_STEMS_AT_ONCE):
                assert row.stem_digest is not None
                if row.name_digest not in seen and len(alike[row.stem_digest]) < MOST_ALIKE:
                    seen.add(row.name_digest)
                    alike[row.stem_digest].append(_exposure(row))
    return {name: alike[digest] for name, digest in digests.items()}


def attach_metadata(catalog: Catalog, exposure_id: UUID, metadata: ExposureMetadata) -> Exposure:
    """Lay new metadata over the old.

    An exposure that waits becomes READY if it has an input; one that is done, or in work, becomes READY again if its
    optics or its defect list changed.
    """
    with catalog.writing() as unit:
        row = load_row(unit, exposure_id)
        _lay_over(unit, row, metadata)
        return _exposure(row)


def attach_input(catalog: Catalog, exposure_id: UUID, file_id: UUID) -> Exposure:
    """Give an exposure what is to be processed, which makes it READY.

    A movie replaces a micrograph, never the other way round. The same file again changes nothing.
    """
    with catalog.writing() as unit:
        row = load_row(unit, exposure_id)
        new = unit.get(FileRow, file_id)
        if new is None:
            raise CatalogError(f"there is no file with the id {file_id}")
        if new.kind not in (FileKind.MOVIE, FileKind.MICROGRAPH):
            raise CatalogError(f"a file of the kind {new.kind} cannot be processed", expected="a movie or a micrograph")
        old = None if row.input_file_id is None else unit.get(FileRow, row.input_file_id)
        worse = old is not None and old.kind == FileKind.MOVIE and new.kind == FileKind.MICROGRAPH
        if row.input_file_id != file_id and not worse:
            row.input_file_id = file_id
            move(unit, row, ExposureState.READY, "")
        return _exposure(row)


def ready(catalog: Catalog, limit: int) -> list[Exposure]:
    """This site's exposures that have work that nobody has taken, newest first.

    One whose input has no digest yet is not among them: identity comes before computing.
    """
    with catalog.reading() as unit:
        return [_exposure(row) for row in unit.scalars(ready_query(catalog.site, limit))]


def claim(catalog: Catalog, exposure_id: UUID) -> Exposure | None:
    """Take a READY exposure: it is PROCESSING, and nobody else gets it. None where it is not READY any more, its
    input has no digest (again: other content may just have taken its place), or it is another site's."""
    with catalog.writing() as unit:
        row = load_row(unit, exposure_id)
        given = None if row.input_file_id is None else unit.get(FileRow, row.input_file_id)
        if row.site != catalog.site or row.state != ExposureState.READY or given is None or given.sha256 is None:
            return None
        move(unit, row, ExposureState.PROCESSING, "")
        return _exposure(row)


def waiting(catalog: Catalog, *, limit: int, before: UUID | None) -> list[Exposure]:
    """This site's exposures that wait although their input is there with its digest, newest first, from the one after
    `before` on: for whoever looks whether what they wait for (a gain reference, a mount) has come."""
    with catalog.reading() as unit:
        return [_exposure(row) for row in unit.scalars(waiting_query(catalog.site, limit=limit, before=before))]


def wake_waiting(catalog: Catalog, exposure_ids: Collection[UUID]) -> int:
    """Make those of these exposures READY that still wait and have an input; how many they were.

    Whoever calls it has seen that what they waited for is there. Looking (`waiting`) writes nothing, so what still has
    to wait makes no event however often it is looked at.
    """
    woken = 0
    with catalog.writing() as unit:
        for exposure_id in dict.fromkeys(exposure_ids):
            row = load_row(unit, exposure_id)
            if row.state == ExposureState.WAITING and row.input_file_id is not None:
                move(unit, row, ExposureState.READY, "")
                woken += 1
    return woken


def set_state(
    catalog: Catalog,
    exposure_id: UUID,
    state: ExposureState,
    reason: str = "",
    *,
    only_from: ExposureState | None = None,
) -> Exposure:
    """Move an exposure and return it as it then is.

    With `only_from`, an exposure in another state stays as it is: whoever ends its processing gives PROCESSING, so that
    what made it READY again meanwhile (new metadata, new parameters) is not lost.
    """
    with catalog.writing() as unit:
        row = load_row(unit, exposure_id)
        if only_from is None or row.state == only_from:
            move(unit, row, state, reason)
        return _exposure(row)


def page(catalog: Catalog, session_id: UUID, *, limit: int, before: UUID | None) -> list[Exposure]:
    """The session's exposures, newest first, from the one after `before` on."""
    with catalog.reading() as unit:
        return [_exposure(row) for row in unit.scalars(page_query(session_id, limit=limit, before=before))]


def by_name_query(session_id: UUID, name: str) -> Select[ExposureRow]:
    """The oldest exposure of that name: two sites may both have made one."""
    return (
        select(ExposureRow)
        .where(ExposureRow.session_id == session_id, ExposureRow.name_digest == path_digest(name))
        .order_by(ExposureRow.id)
        .limit(1)
    )


def by_stem_query(session_id: UUID, digests: Sequence[bytes]) -> Select[ExposureRow]:
    """The exposures of stems with these digests, of each the oldest first.

    In the order of the index: for that of the ids alone, SQLite would go through all of the session's exposures.
    """
    return (
        select(ExposureRow)
        .where(ExposureRow.session_id == session_id, ExposureRow.stem_digest.in_(digests))
        .order_by(ExposureRow.stem_digest, ExposureRow.id)
    )


def ready_query(site: str, limit: int) -> Select[ExposureRow]:
    """A site's READY exposures whose input has its digest, newest first."""
    return _with_input(site, ExposureState.READY, limit)


def waiting_query(site: str, *, limit: int, before: UUID | None) -> Select[ExposureRow]:
    """A site's WAITING exposures whose input has its digest, newest first."""
    query = _with_input(site, ExposureState.WAITING, limit)
    return query if before is None else query.where(ExposureRow.id < before)


def _with_input(site: str, state: ExposureState, limit: int) -> Select[ExposureRow]:
    query = (
        select(ExposureRow)
        .join(FileRow, FileRow.id == ExposureRow.input_file_id)
        .where(ExposureRow.site == site, ExposureRow.state == state, FileRow.sha256.is_not(None))
        .order_by(ExposureRow.id.desc())
        .limit(limit)
    )
    return by_index(query, ExposureRow, "ix_exposures_site_state_id")


def processing_query(site: str) -> Select[ExposureRow]:
    """A site's exposures that are in work."""
    return select(ExposureRow).where(ExposureRow.site == site, ExposureRow.state == ExposureState.PROCESSING)


def page_query(session_id: UUID, *, limit: int, before: UUID | None) -> Select[ExposureRow]:
    """A session's exposures, newest first."""
    query = select(ExposureRow).where(ExposureRow.session_id == session_id)
    query = by_index(query, ExposureRow, "ix_exposures_session_id_id")
    if before is not None:
        query = query.where(ExposureRow.id < before)
    return query.order_by(ExposureRow.id.desc()).limit(limit)


def load_row(unit: orm.Session, exposure_id: UUID) -> ExposureRow:
    """The exposure's row, for this room's modules; CatalogError if there is none."""
    row = unit.get(ExposureRow, exposure_id)
    if row is None:
        raise CatalogError(f"there is no exposure with the id {exposure_id}")
    return row


def release(unit: orm.Session, site: str, keep: frozenset[UUID]) -> int:
    """Make a site's PROCESSING exposures but those in `keep` READY inside a transaction; how many they were."""
    left = [row for row in unit.scalars(processing_query(site)) if row.id not in keep]
    for row in left:
        move(unit, row, ExposureState.READY, "")
    return len(left)


def move(unit: orm.Session, row: ExposureRow, state: ExposureState, reason: str) -> None:
    """Change an exposure's state and reason inside a transaction, with its event; nothing if nothing changes."""
    if not change(row, state, reason):
        return
    why = f": {reason}" if reason else ""
    note(unit, row, _SEVERITY.get(state, Severity.INFO), f"exposure.{state}", f"{printable(row.name)} is {state}{why}")


def change(row: ExposureRow, state: ExposureState, reason: str) -> bool:
    """As `move`, without the event, which is the caller's to write where this is True."""
    if (row.state, row.reason) == (state, reason):
        return False
    row.state, row.reason, row.orphaned_at = state, reason, None
    return True


def note(unit: orm.Session, row: ExposureRow, severity: Severity, kind: str, message: str) -> None:
    """An event about an exposure, inside a transaction."""
    events.add(unit, severity, kind, message, session_id=row.session_id, exposure_id=row.id)


def _ensure(
    unit: orm.Session, session_id: UUID, name: str, grid_square: str | None, foil_hole: str | None
) -> ExposureRow:
    row = unit.scalars(by_name_query(session_id, name)).first()
    if row is None:
        row = new_row(unit, session_id, name)
        unit.flush()
        note(unit, row, Severity.INFO, "exposure.found", f"exposure {printable(name)}")
    fill_in(row, grid_square, foil_hole)
    return row


def new_row(unit: orm.Session, session_id: UUID, name: str) -> ExposureRow:
    """An exposure that waits, added to a transaction; its event is the caller's to write."""
    row = ExposureRow(
        id=new_id(),
        site=unit.info["site"],
        session_id=session_id,
        name=name,
        name_digest=path_digest(name),
        details=metadata_to_json(ExposureMetadata()),
        state=ExposureState.WAITING,
        reason=NO_INPUT,
        found_at=datetime.now(UTC),
        stem_digest=stem_digest(name),
    )
    unit.add(row)
    return row


def fill_in(row: ExposureRow, grid_square: str | None, foil_hole: str | None) -> None:
    """Say on which square and in which hole it is, where that was unknown."""
    if grid_square and not row.grid_square:
        row.grid_square = grid_square
    if foil_hole and not row.foil_hole:
        row.foil_hole = foil_hole


def _lay_over(unit: orm.Session, row: ExposureRow, metadata: ExposureMetadata) -> None:
    old = metadata_from_json(row.details)
    if put_metadata(row, old, metadata.over(old)):
        move(unit, row, ExposureState.READY, "")


def put_metadata(row: ExposureRow, old: ExposureMetadata, new: ExposureMetadata) -> bool:
    """Write other metadata in the place of what the row says, inside a transaction; whether that makes the exposure
    READY, which is left to the caller."""
    if new != old:
        row.details = written_over(row.details, metadata_to_json(new))
    waiting = row.state == ExposureState.WAITING and row.input_file_id is not None
    changed = (new.optics, new.defects_name) != (old.optics, old.defects_name)
    stale = changed and row.state in (ExposureState.DONE, ExposureState.PROCESSING)
    return waiting or stale


def _exposure(row: ExposureRow) -> Exposure:
    return Exposure(
        id=row.id,
        session_id=row.session_id,
        name=row.name,
        grid_square=row.grid_square,
        foil_hole=row.foil_hole,
        metadata=metadata_from_json(row.details),
        input_file_id=row.input_file_id,
        state=row.state,
        reason=row.reason,
        found_at=row.found_at,
    )
