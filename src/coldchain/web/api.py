"""The same as JSON, under /api/: what the pages' scripts ask, and what a program may.

Text in answers is made printable (`encoding.plain`); times carry their offset. A large session is counted in the
background: its `counts` are null while nobody has counted them, and those of before where `counts_are_current` is
false; who asks again later is given the new ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import Response

from coldchain.catalog import events, files, orphans, page, replicas, results, steps, verdicts
from coldchain.catalog.engine import Catalog
from coldchain.catalog.figures import SessionLine
from coldchain.model.events import Severity
from coldchain.model.results import Reading
from coldchain.model.session import Exposure, Session
from coldchain.web.encoding import PlainResponse
from coldchain.web.site import Site

READINGS_LIMIT = 5000
ORPHANS_LIMIT = 1000
_COLUMNS = (
    "exposure_id",
    "name",
    "defocus_angstrom",
    "fit_resolution_angstrom",
    "trustworthy",
    "total_motion_angstrom",
    "picks",
    "astigmatism_angstrom",
    "ice_thickness",
    "grade",
    "reason",
)


def api_router(site: Site) -> APIRouter:
    """The routes under /api/."""
    router = APIRouter(prefix="/api")
    catalog = site.catalog

    @router.get("/changes")
    def changes(request: Request) -> Response:
        return stamped(request, page.stamp(catalog))

    @router.get("/sessions")
    def session_list() -> Response:
        return PlainResponse([_line(line) for line in site.figures.lines(limit=1000)])

    @router.get("/sessions/{session_id}")
    def session(session_id: UUID) -> Response:
        found = _session(catalog, session_id)
        counts, is_current = site.figures.counts(session_id)
        return PlainResponse({"session": found, "counts": counts, "counts_are_current": is_current})

    @router.get("/sessions/{session_id}/changes")
    def session_changes(request: Request, session_id: UUID) -> Response:
        _session(catalog, session_id)
        return stamped(request, page.stamp(catalog, session_id))

    @router.get("/sessions/{session_id}/readings")
    def readings(session_id: UUID) -> Response:
        _session(catalog, session_id)
        return PlainResponse(reading_columns(results.readings(catalog, session_id, limit=READINGS_LIMIT)))

    @router.get("/sessions/{session_id}/alerts")
    def alerts(session_id: UUID) -> Response:
        _session(catalog, session_id)
        return PlainResponse(verdicts.alerts(catalog, session_id))

    @router.get("/sessions/{session_id}/orphans")
    def session_orphans(session_id: UUID) -> Response:
        _session(catalog, session_id)
        return PlainResponse(orphans.of_session(catalog, session_id, limit=ORPHANS_LIMIT))

    @router.get("/exposures/{exposure_id}")
    def exposure(exposure_id: UUID) -> Response:
        found = page.exposure(catalog, exposure_id)
        if found is None:
            raise HTTPException(404)
        return PlainResponse(_about(catalog, found))

    @router.get("/events")
    def event_list(session: UUID | None = None, minimum: Severity = Severity.INFO) -> Response:
        return PlainResponse(events.recent(catalog, session_id=session, limit=200, minimum=minimum))

    return router


def _session(catalog: Catalog, session_id: UUID) -> Session:
    found = page.session(catalog, session_id)
    if found is None:
        raise HTTPException(404)
    return found


def _line(line: SessionLine) -> dict[str, object]:
    return {
        "session": line.session,
        "counts": line.counts,
        "counts_are_current": line.is_current,
        "last_activity": line.last_activity,
    }


def _about(catalog: Catalog, exposure: Exposure) -> dict[str, object]:
    newest = results.newest(catalog, exposure.id)
    return {
        "exposure": exposure,
        "results": newest,
        # An infinite error, which JSON cannot say, is how a motion that was not found is told from one of 0.
        "motion_found": None if newest.motion is None else newest.motion.is_found,
        "verdict": verdicts.newest(catalog, exposure.id),
        "runs": steps.runs_of(catalog, exposure.id),
        "files": [
            {"file": file, "replicas": replicas.of_file(catalog, file.id)}
            for file in files.of_exposure(catalog, exposure.id)
        ],
    }


def reading_columns(readings: Sequence[Reading]) -> dict[str, object]:
    """Readings as columns, in the order of time.

    `clock` says whose time it is: "acquired", the microscope's, where every exposure has one; else "found", ours.
    The two are never mixed, as the microscope's clock may be anything.
    """
    is_acquired = bool(readings) and all(reading.acquired_at is not None for reading in readings)
    timed = [(reading.acquired_at if is_acquired else reading.found_at, reading) for reading in readings]
    ordered = sorted(timed, key=lambda pair: (pair[0], pair[1].exposure_id))
    columns: dict[str, object] = {name: [getattr(reading, name) for _, reading in ordered] for name in _COLUMNS}
    return {"clock": "acquired" if is_acquired else "found", "time": [time for time, _ in ordered]} | columns


def stamped(request: Request, stamp: str) -> Response:
    """304 without a body while the reader has seen this stamp, else 200 with it."""
    tag = f'"{stamp}"'
    headers = {"ETag": tag, "Cache-Control": "no-store"}
    seen = {part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")}
    return (
        Response(status_code=304, headers=headers) if tag in seen else PlainResponse({"stamp": stamp}, headers=headers)
    )
