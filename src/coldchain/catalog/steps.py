"""Runs of steps: journalled before they begin, ended once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Select, func, orm, select

from coldchain.catalog import exposures, files, places, results
from coldchain.catalog.engine import Catalog
from coldchain.catalog.ownership import require_own
from coldchain.catalog.tables import ExposureRow, StepRunRow
from coldchain.errors import CatalogError, printable
from coldchain.model.events import Severity
from coldchain.model.files import ProducedFile
from coldchain.model.identity import new_id
from coldchain.model.results import Step, StepResult, StepRun, StepState
from coldchain.model.session import ExposureState


def begin(catalog: Catalog, exposure_id: UUID, step: Step, key: str, parameters: Mapping[str, object]) -> StepRun:
    """Journal a run before it begins. CatalogError where the exposure is another site's."""
    with catalog.writing() as unit:
        require_own(unit, exposures.load_row(unit, exposure_id))
        row = StepRunRow(
            id=_next_id(unit, exposure_id),
            site=catalog.site,
            exposure_id=exposure_id,
            step=step,
            key=key,
            parameters=dict(parameters),
            state=StepState.RUNNING,
            outputs={},
            detail="",
            started_at=datetime.now(UTC),
        )
        unit.add(row)
        unit.flush()
        return _run(row)


def finish(
    catalog: Catalog,
    run_id: UUID,
    *,
    outputs: Mapping[str, str],
    seconds: float,
    result: StepResult | None,
    settle_to: ExposureState | None = None,
    warnings: Sequence[str] = (),
    produced: Sequence[ProducedFile] = (),
) -> StepRun:
    """End a running run as DONE, with its outputs (role → path relative to the results folder) and its result.

    `produced` are those of its files that are to be copied like what a camera wrote: they are journalled with it.

    In the same transaction the exposure moves to `settle_to`, if it is still PROCESSING, and each warning becomes an
    event. A run that has ended already is returned as it is and nothing changes: after a CatalogError, which leaves
    open whether the end was written, the call may be repeated.
    """
    with catalog.writing() as unit:
        row = _load(unit, run_id)
        if row.state == StepState.RUNNING:
            row.outputs = dict(outputs)
            if result is not None:
                results.add(unit, row, result)
            exposure = _end(unit, row, StepState.DONE, " ".join(warnings), seconds)
            _journal(unit, exposure, produced)
            _settle(unit, row, exposure, settle_to, "", warnings)
        return _run(row)


def _journal(unit: orm.Session, exposure: ExposureRow, produced: Sequence[ProducedFile]) -> None:
    for file in produced:
        place = places.ensure_in(unit, exposure.session_id, root=file.root, folder=file.folder)
        files.arrive(
            unit,
            session_id=exposure.session_id,
            relative_path=file.relative_path,
            kind=file.kind,
            size_bytes=file.size_bytes,
            modified_ns=file.modified_ns,
            stores=file.stores,
            priority=file.priority,
            exposure_id=exposure.id,
            place_id=place.id,
        )


def fail(
    catalog: Catalog,
    run_id: UUID,
    *,
    detail: str,
    seconds: float,
    settle_to: ExposureState | None = None,
    reason: str = "",
    warnings: Sequence[str] = (),
) -> StepRun:
    """End a running run as FAILED; its exposure, if still PROCESSING, moves to `settle_to` for that reason.

    One transaction, and it may be repeated, as `finish`.
    """
    with catalog.writing() as unit:
        row = _load(unit, run_id)
        if row.state == StepState.RUNNING:
            exposure = _end(unit, row, StepState.FAILED, detail, seconds)
            _settle(unit, row, exposure, settle_to, reason, warnings)
        return _run(row)


def done(catalog: Catalog, exposure_id: UUID) -> dict[str, StepRun]:
    """The exposure's DONE runs by key; the newest of each."""
    query = runs_query(exposure_id).where(StepRunRow.state == StepState.DONE)
    with catalog.reading() as unit:
        return {row.key: _run(row) for row in unit.scalars(query)}


def adopt(catalog: Catalog, run_id: UUID) -> StepRun:
    """Let a run that is done count as its step's newest: what was computed for these values before counts again.

    The run and its result are written down once more, under a new id and the same key.
    """
    now = datetime.now(UTC)
    with catalog.writing() as unit:
        row = _load(unit, run_id)
        require_own(unit, row)
        again = StepRunRow(
            id=_next_id(unit, row.exposure_id),
            site=row.site,
            exposure_id=row.exposure_id,
            step=row.step,
            key=row.key,
            parameters=dict(row.parameters),
            state=row.state,
            outputs=dict(row.outputs),
            seconds=0.0,
            detail="computed before, from the same input with the same values",
            started_at=now,
            ended_at=now,
        )
        unit.add(again)
        unit.flush()
        results.repeat(unit, row, again)
        return _run(again)


def runs_of(catalog: Catalog, exposure_id: UUID) -> list[StepRun]:
    """All runs of an exposure, oldest first."""
    with catalog.reading() as unit:
        return [_run(row) for row in unit.scalars(runs_query(exposure_id))]


def interrupt_running(catalog: Catalog, *, keep: Collection[UUID] = ()) -> list[StepRun]:
    """What this site left RUNNING is INTERRUPTED, what it left PROCESSING is READY; the exposures in `keep` stay.

    After a start that is what the last process left; later, what a catalog that balked left half written. Returns the
    runs that were interrupted, oldest first: what they left half written is no use to anybody. Only whoever runs this
    site's steps calls it, with the exposures that it has in hand.
    """
    kept = frozenset(keep)
    with catalog.writing() as unit:
        running = unit.scalars(running_query(catalog.site))
        left = sorted((row for row in running if row.exposure_id not in kept), key=lambda row: row.id)
        for row in left:
            _end(unit, row, StepState.INTERRUPTED, "its process ended before it did", None)
        exposures.release(unit, catalog.site, kept)
        return [_run(row) for row in left]


def runs_query(exposure_id: UUID) -> Select[StepRunRow]:
    """An exposure's runs, oldest first."""
    return select(StepRunRow).where(StepRunRow.exposure_id == exposure_id).order_by(StepRunRow.id)


def running_query(site: str) -> Select[StepRunRow]:
    """A site's running runs."""
    return select(StepRunRow).where(StepRunRow.site == site, StepRunRow.state == StepState.RUNNING)


def newest_query(exposure_id: UUID) -> Select[UUID]:
    """An exposure's newest run."""
    return select(func.max(StepRunRow.id)).where(StepRunRow.exposure_id == exposure_id)


def _next_id(unit: orm.Session, exposure_id: UUID) -> UUID:
    """A key after those of the exposure's runs, the newest of which counts, also where the clock was set back."""
    newest = unit.scalar(newest_query(exposure_id))
    made = new_id()
    return made if newest is None or newest < made else UUID(int=newest.int + 1)


def _load(unit: orm.Session, run_id: UUID) -> StepRunRow:
    row = unit.get(StepRunRow, run_id)
    if row is None:
        raise CatalogError(f"there is no run with the id {run_id}")
    return row


def _end(unit: orm.Session, row: StepRunRow, state: StepState, detail: str, seconds: float | None) -> ExposureRow:
    row.state, row.detail, row.seconds, row.ended_at = state, detail, seconds, datetime.now(UTC)
    exposure = exposures.load_row(unit, row.exposure_id)
    severity = Severity.INFO if state == StepState.DONE else Severity.WARNING
    why = f": {detail}" if detail else ""
    exposures.note(
        unit, exposure, severity, f"step.{state}", f"{row.step} of {printable(exposure.name)} is {state}{why}"
    )
    return exposure


def _settle(
    unit: orm.Session,
    row: StepRunRow,
    exposure: ExposureRow,
    state: ExposureState | None,
    reason: str,
    warnings: Sequence[str],
) -> None:
    for warning in warnings:
        message = f"{printable(exposure.name)}: {warning}"
        exposures.note(unit, exposure, Severity.WARNING, f"{row.step}.warning", message)
    if state is not None and exposure.state == ExposureState.PROCESSING:
        exposures.move(unit, exposure, state, reason)


def _run(row: StepRunRow) -> StepRun:
    return StepRun(
        id=row.id,
        exposure_id=row.exposure_id,
        step=row.step,
        key=row.key,
        parameters=dict(row.parameters),
        state=row.state,
        outputs=dict(row.outputs),
        seconds=row.seconds,
        detail=row.detail,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )
