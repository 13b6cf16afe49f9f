"""What the steps found: kept for every run; the newest done run of a step counts."""

from __future__ import annotations

import math
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ScalarSelect, Select, orm, select, true

from coldchain.catalog.by_index import by_index
from coldchain.catalog.documents import time_from_json
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import CtfRow, ExposureRow, MotionRow, PicksRow, QualityRow, StepRunRow, VerdictRow
from coldchain.model.results import (
    CtfResult,
    ExposureResults,
    MotionResult,
    Pick,
    PickResult,
    QualityResult,
    Reading,
    Step,
    StepResult,
    StepState,
)
from coldchain.model.session import ExposureState

_ResultRow = TypeVar("_ResultRow", MotionRow, CtfRow, PicksRow, QualityRow)


def newest(catalog: Catalog, exposure_id: UUID) -> ExposureResults:
    """The results of the newest DONE run of each step."""
    with catalog.reading() as unit:
        motion = _of_newest(unit, MotionRow, exposure_id, Step.ALIGN)
        ctf = _of_newest(unit, CtfRow, exposure_id, Step.CTF)
        picks = _of_newest(unit, PicksRow, exposure_id, Step.PICK)
        quality = _of_newest(unit, QualityRow, exposure_id, Step.QUALITY)
        return ExposureResults(
            motion=None if motion is None else _motion(motion),
            ctf=None if ctf is None else _ctf(ctf),
            picks=None if picks is None else _picks(picks),
            quality=None
            if quality is None
            else QualityResult(_finite(quality.transmission), _finite(quality.unevenness)),
        )


def readings(catalog: Catalog, session_id: UUID, *, limit: int = 5000) -> list[Reading]:
    """A point for each of the session's newest `limit` exposures, oldest first. What is not finite is None."""
    with catalog.reading() as unit:
        rows = unit.execute(readings_query(session_id, limit)).all()
    return [
        Reading(
            exposure_id=row.id,
            name=row.name,
            found_at=row.found_at,
            acquired_at=time_from_json(row.acquired_at),
            defocus_angstrom=_finite(_mean(row.defocus_u_angstrom, row.defocus_v_angstrom)),
            fit_resolution_angstrom=_finite(row.fit_resolution_angstrom),
            trustworthy=row.trustworthy,
            total_motion_angstrom=_motion_if_found(row.total_motion_angstrom, row.error_angstrom),
            picks=row.count_of_picks,
            astigmatism_angstrom=_finite(_difference(row.defocus_u_angstrom, row.defocus_v_angstrom)),
            ice_thickness=(row.measures or {}).get("ice_thickness"),
            grade=row.grade,
            reason=" ".join(words for _, _, words in row.reasons or []),
        )
        for row in reversed(rows)
    ]


def readings_query(session_id: UUID, limit: int) -> Select[*tuple[Any, ...]]:
    """One row for each exposure, newest first."""
    query = (
        select(
            ExposureRow.id,
            ExposureRow.name,
            ExposureRow.found_at,
            ExposureRow.details["acquired_at"].as_string().label("acquired_at"),
            CtfRow.defocus_u_angstrom,
            CtfRow.defocus_v_angstrom,
            CtfRow.fit_resolution_angstrom,
            CtfRow.trustworthy,
            MotionRow.total_motion_angstrom,
            MotionRow.error_angstrom,
            VerdictRow.grade,
            VerdictRow.reasons,
            VerdictRow.measures,
            PicksRow.count.label("count_of_picks"),
        )
        .select_from(ExposureRow)
        .join(MotionRow, MotionRow.run_id == _newest_run(ExposureRow.id, Step.ALIGN), isouter=True)
        .join(CtfRow, CtfRow.run_id == _newest_run(ExposureRow.id, Step.CTF), isouter=True)
        .join(PicksRow, PicksRow.run_id == _newest_run(ExposureRow.id, Step.PICK), isouter=True)
        .join(VerdictRow, VerdictRow.id == _standing_verdict(), isouter=True)
        .where(ExposureRow.session_id == session_id)
        .order_by(ExposureRow.id.desc())
        .limit(limit)
    )
    return by_index(query, ExposureRow, "ix_exposures_session_id_id")


def add(unit: orm.Session, run: StepRunRow, result: StepResult) -> None:
    """Write down a run's result inside a transaction."""
    unit.add(_row(unit.info["site"], run.id, result))


def repeat(unit: orm.Session, run: StepRunRow, again: StepRunRow) -> None:
    """Write a run's result down for another run as well, inside a transaction."""
    for kind in (MotionRow, CtfRow, PicksRow, QualityRow):
        for row in unit.scalars(select(kind).where(kind.run_id == run.id)).all():
            names = {column.key for column in kind.__table__.columns} - {"id", "run_id"}
            values = {name: getattr(row, name) for name in names}
            unit.add(kind(run_id=again.id, **values))


def _newest_run(exposure_id: UUID | orm.InstrumentedAttribute[UUID], step: Step) -> ScalarSelect[UUID]:
    return (
        select(StepRunRow.id)
        .where(StepRunRow.exposure_id == exposure_id, StepRunRow.step == step, StepRunRow.state == StepState.DONE)
        .order_by(StepRunRow.id.desc())
        .limit(1)
        .correlate(ExposureRow)
        .scalar_subquery()
    )


def _standing_verdict() -> ScalarSelect[UUID]:
    # Exposures that are not done have none that counts: an older one was of other results.
    return (
        select(VerdictRow.id)
        .where(
            VerdictRow.exposure_id == ExposureRow.id,
            VerdictRow.stands == true(),
            ExposureRow.state == ExposureState.DONE,
        )
        .order_by(VerdictRow.id.desc())
        .limit(1)
        .correlate(ExposureRow)
        .scalar_subquery()
    )


def _of_newest(unit: orm.Session, kind: type[_ResultRow], exposure_id: UUID, step: Step) -> _ResultRow | None:
    return unit.scalars(select(kind).where(kind.run_id == _newest_run(exposure_id, step)).limit(1)).first()


def _row(site: str, run_id: UUID, result: StepResult) -> MotionRow | CtfRow | PicksRow | QualityRow:
    if isinstance(result, MotionResult):
        return MotionRow(
            site=site,
            run_id=run_id,
            shift_x_angstrom=list(result.shift_x_angstrom),
            shift_y_angstrom=list(result.shift_y_angstrom),
            total_motion_angstrom=result.total_motion_angstrom,
            early_motion_angstrom=result.early_motion_angstrom,
            late_motion_angstrom=result.late_motion_angstrom,
            dose_weighted=result.dose_weighted,
            error_angstrom=result.error_angstrom,
            gain_verdict=result.gain_verdict,
            gain_share=result.gain_share,
        )
    if isinstance(result, QualityResult):
        return QualityRow(site=site, run_id=run_id, transmission=result.transmission, unevenness=result.unevenness)
    if isinstance(result, CtfResult):
        return CtfRow(
            site=site,
            run_id=run_id,
            defocus_u_angstrom=result.defocus_u_angstrom,
            defocus_v_angstrom=result.defocus_v_angstrom,
            defocus_angle_degrees=result.defocus_angle_degrees,
            phase_shift_degrees=result.phase_shift_degrees,
            score=result.score,
            fit_resolution_angstrom=result.fit_resolution_angstrom,
            ice_ring_density=result.ice_ring_density,
            uncertainty_angstrom=result.uncertainty_angstrom,
            trustworthy=result.trustworthy,
            reason=result.reason,
        )
    return PicksRow(
        site=site,
        run_id=run_id,
        diameter_angstrom=result.diameter_angstrom,
        count=len(result.picks),
        picks=[[pick.x_pixel, pick.y_pixel, pick.figure_of_merit] for pick in result.picks],
        contamination_fraction=result.contamination_fraction,
    )


def _motion(row: MotionRow) -> MotionResult:
    return MotionResult(
        shift_x_angstrom=tuple(row.shift_x_angstrom),
        shift_y_angstrom=tuple(row.shift_y_angstrom),
        total_motion_angstrom=row.total_motion_angstrom,
        early_motion_angstrom=row.early_motion_angstrom,
        late_motion_angstrom=row.late_motion_angstrom,
        dose_weighted=row.dose_weighted,
        error_angstrom=_known(row.error_angstrom),
        gain_verdict=row.gain_verdict,
        gain_share=_known(row.gain_share),
    )


def _ctf(row: CtfRow) -> CtfResult:
    return CtfResult(
        defocus_u_angstrom=row.defocus_u_angstrom,
        defocus_v_angstrom=row.defocus_v_angstrom,
        defocus_angle_degrees=row.defocus_angle_degrees,
        phase_shift_degrees=row.phase_shift_degrees,
        score=row.score,
        fit_resolution_angstrom=row.fit_resolution_angstrom,
        ice_ring_density=row.ice_ring_density,
        uncertainty_angstrom=row.uncertainty_angstrom,
        trustworthy=row.trustworthy,
        reason=row.reason,
    )


def _picks(row: PicksRow) -> PickResult:
    return PickResult(
        diameter_angstrom=row.diameter_angstrom,
        picks=tuple(Pick(x, y, merit) for x, y, merit in row.picks),
        contamination_fraction=_known(row.contamination_fraction),
    )


def _motion_if_found(total: float | None, error: float | None) -> float | None:
    return None if error is not None and math.isinf(error) else _finite(total)


def _difference(u: float | None, v: float | None) -> float | None:
    return None if u is None or v is None else u - v


def _known(value: float | None) -> float | None:
    """NULL, which `columns.Real` reads as NaN, is None here."""
    return None if value is None or math.isnan(value) else value


def _mean(u: float | None, v: float | None) -> float | None:
    return None if u is None or v is None else (u + v) / 2


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
