"""Short ways to put a file, an exposure or a result into a catalog."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import create_engine

from coldchain.catalog import exposures, files, sessions, steps
from coldchain.catalog.engine import Catalog
from coldchain.model.files import DataFile, FileKind, FileState
from coldchain.model.results import CtfResult, MotionResult, Pick, PickResult, Step, StepRun
from coldchain.model.session import Exposure, Layout, Session

STORES = ("live", "archive")
SHA256 = "ab" * 32


def new_session(catalog: Catalog, *, name: str = "visit", folder: str = "visit") -> Session:
    """Another session in the catalog."""
    return sessions.create(
        catalog, name=name, instrument_name="krios", source_root="/camera", folder=folder, layout=Layout.EPU
    )


def execute(url: str, *statements: str) -> list[dict[str, object]]:
    """Execute statements in a catalog's database as somebody else would; the rows of the last."""
    opened = create_engine(url)
    rows: list[dict[str, object]] = []
    with opened.begin() as connection:
        for statement in statements:
            found = connection.exec_driver_sql(statement)
            rows = [dict(row) for row in found.mappings()] if found.returns_rows else []
    opened.dispose()
    return rows


def known(catalog: Catalog, session_id: UUID) -> dict[str, tuple[int, int, FileState]]:
    """Size, time stamp and state of every path of a session, as last recorded."""
    rows = files.of_session(catalog, session_id, limit=100_000)
    return {
        row.relative_path: (row.size_bytes, row.modified_ns, row.state)
        for row in reversed(rows)
        if row.state is not FileState.REPLACED
    }


def arrive(
    catalog: Catalog,
    session: Session,
    path: str = "a/movie.tiff",
    *,
    kind: FileKind = FileKind.MOVIE,
    size_bytes: int = 100,
    modified_ns: int = 1,
    stores: tuple[str, ...] = STORES,
    exposure_id: UUID | None = None,
    state: FileState = FileState.ARRIVED,
    detail: str = "",
) -> DataFile:
    """A file arrives."""
    return files.record_arrival(
        catalog,
        session_id=session.id,
        relative_path=path,
        kind=kind,
        size_bytes=size_bytes,
        modified_ns=modified_ns,
        stores=stores,
        exposure_id=exposure_id,
        state=state,
        detail=detail,
    )


def expose(catalog: Catalog, session: Session, name: str = "a/movie") -> Exposure:
    """An exposure whose movie has arrived and has its digest: READY."""
    exposure = exposures.ensure(catalog, session.id, name)
    movie = arrive(catalog, session, f"{name}.tiff", exposure_id=exposure.id)
    files.set_digest(catalog, movie.id, SHA256)
    return exposures.attach_input(catalog, exposure.id, movie.id)


def run_step(
    catalog: Catalog,
    exposure: Exposure,
    step: Step,
    result: MotionResult | CtfResult | PickResult | None = None,
    *,
    key: str = "key",
) -> StepRun:
    """A step runs and is done."""
    run = steps.begin(catalog, exposure.id, step, key, {"threads": 1})
    return steps.finish(catalog, run.id, outputs={"micrograph": "a/m.mrc"}, seconds=1.5, result=result)


def motion(total_angstrom: float = 9.0) -> MotionResult:
    """A motion result."""
    return MotionResult(
        shift_x_angstrom=(0.0, 1.25),
        shift_y_angstrom=(0.0, -0.1),
        total_motion_angstrom=total_angstrom,
        early_motion_angstrom=4.0,
        late_motion_angstrom=5.0,
        dose_weighted=True,
    )


def ctf(defocus_u_angstrom: float = 15_000.0, *, fit_resolution_angstrom: float = 3.9) -> CtfResult:
    """A CTF result."""
    return CtfResult(
        defocus_u_angstrom=defocus_u_angstrom,
        defocus_v_angstrom=defocus_u_angstrom - 200,
        defocus_angle_degrees=86.1,
        phase_shift_degrees=0.0,
        score=0.2,
        fit_resolution_angstrom=fit_resolution_angstrom,
        ice_ring_density=1.1,
        uncertainty_angstrom=40.0,
        trustworthy=True,
        reason="",
    )


def picks(count: int = 2) -> PickResult:
    """A pick result."""
    return PickResult(diameter_angstrom=120.0, picks=tuple(Pick(10.5 * i, 20.25, 1.0 / (i + 1)) for i in range(count)))
