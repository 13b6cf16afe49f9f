"""The pages: `/`, `/sessions/{id}`, `/sessions/{id}/exposures/{id}`, `/events`."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from urllib.parse import parse_qs, quote
from uuid import UUID

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import Response

from coldchain.catalog import (
    announcements,
    events,
    files,
    holds,
    orphans,
    page,
    replicas,
    replication_watch,
    results,
    sessions,
    steps,
    store_alerts,
    stores,
    verdicts,
)
from coldchain.catalog.page import ExposureFilter
from coldchain.model.events import Severity
from coldchain.model.quality import Grade
from coldchain.model.replication import LAG_SECONDS
from coldchain.model.session import ExposureState
from coldchain.web import trash, view
from coldchain.web.site import TROUBLES_LIMIT, Site

GALLERY_LIMIT = 48
OLD_FIGURES = "-old"
SESSIONS_LIMIT = 50
# Of a grid square, a hole or an id; longer ones are nobody's.
_LONGEST_PLACE = 255
EVENTS_LIMIT = 200
RECENT_EVENTS_LIMIT = 15


@dataclass(frozen=True, slots=True)
class GalleryView:
    """What part of a session's gallery is looked at; it lives in the address, so it can be kept and sent."""

    session_id: UUID
    state: ExposureState | None = None
    square: str | None = None
    hole: str | None = None
    grade: Grade | None = None
    before: UUID | None = None
    after: UUID | None = None

    @property
    def chosen(self) -> ExposureFilter:
        """The filter alone, without the page."""
        return ExposureFilter(self.state, self.square, self.hole, self.grade)

    @property
    def is_narrowed(self) -> bool:
        """Whether some exposures may be left out."""
        return self.chosen != ExposureFilter()

    def href(self, **changes: object) -> str:
        """The address of the view with these changes; it begins at the newest unless a page is named."""
        changed = replace(self, **({"before": None, "after": None} | changes))  # type: ignore[arg-type]  # own fields
        pairs = ((name, getattr(changed, name)) for name in ("state", "grade", "square", "hole", "before", "after"))
        query = "&".join(f"{name}={quote(os.fsencode(str(value)))}" for name, value in pairs if value is not None)
        return f"/sessions/{self.session_id}{f'?{query}' if query else ''}"


def gallery_view(session_id: UUID, query: str) -> GalleryView:
    """The view that an address's query names. Names may hold any bytes, so they are decoded as file names are.

    Raises ValueError for a state, a grade or a key that cannot be.
    """
    given = {name: values[-1] for name, values in parse_qs(query, True, errors="surrogateescape").items()}
    if any("\0" in value or len(value) > _LONGEST_PLACE for value in given.values()):
        raise ValueError("no grid square and no hole has such a name")
    return GalleryView(
        session_id=session_id,
        state=ExposureState(given["state"]) if given.get("state") else None,
        square=given.get("square"),
        hole=given.get("hole"),
        grade=Grade(given["grade"]) if given.get("grade") else None,
        before=UUID(given["before"]) if given.get("before") else None,
        after=UUID(given["after"]) if given.get("after") else None,
    )


def pages_router(site: Site) -> APIRouter:
    """The routes of the pages."""
    router = APIRouter()

    @router.get("/")
    def session_list(before: UUID | None = None) -> Response:
        stamp = page.stamp(site.catalog)
        lines = site.figures.lines(limit=SESSIONS_LIMIT + 1, before=before)
        if not all(line.is_current for line in lines):
            stamp += OLD_FIGURES
        return site.page(
            "sessions.html",
            here="sessions",
            changes_url="/api/changes",
            stamp=stamp,
            lines=lines[:SESSIONS_LIMIT],
            older=lines[SESSIONS_LIMIT - 1].session.id if len(lines) > SESSIONS_LIMIT else None,
            before=before,
            troubled=[state for state in stores.all_stores(site.catalog) if state.trouble],
            store_alerts=store_alerts.standing(site.catalog),
            replication_troubles=[
                trouble
                for trouble in replication_watch.current(site.catalog, peer_url=None, lag_seconds=LAG_SECONDS)
                if trouble.is_error
            ],
        )

    @router.get("/sessions/{session_id}")
    def session_page(request: Request, session_id: UUID) -> Response:
        return _session_page(site, session_id, request.url.query)

    @router.get("/sessions/{session_id}/exposures/{exposure_id}")
    def exposure_page(session_id: UUID, exposure_id: UUID) -> Response:
        return _exposure_page(site, session_id, exposure_id)

    @router.get("/events")
    def event_list(session: UUID | None = None, minimum: Severity = Severity.INFO) -> Response:
        about = None if session is None else page.session(site.catalog, session)
        if session is not None and about is None:
            raise HTTPException(404)
        stamp = page.stamp(site.catalog, session)
        return site.page(
            "events.html",
            here="events",
            changes_url="/api/changes" if session is None else f"/api/sessions/{session}/changes",
            stamp=stamp,
            session=about,
            minimum=minimum,
            limit=EVENTS_LIMIT,
            names={found.id: found.name for found in sessions.list_all(site.catalog)} if about is None else {},
            events=events.recent(site.catalog, session_id=session, limit=EVENTS_LIMIT, minimum=minimum),
        )

    return router


def _session_page(site: Site, session_id: UUID, query: str) -> Response:
    catalog = site.catalog
    session = page.session(catalog, session_id)
    if session is None:
        raise HTTPException(404)
    try:
        shown = gallery_view(session_id, query)
    except ValueError as error:
        raise HTTPException(400, "The address asks for a state or a page that cannot be.") from error
    stamp = page.stamp(catalog, session_id)  # before all else: what changes while this is made shows as a change
    figures = site.figures.of(session_id)
    if not figures.is_current:
        stamp += OLD_FIGURES  # no stamp of the catalog's: the reader asks again until they are new
    troubles = figures.shares.troubles
    bad_files = view.bad_files(catalog, session_id, limit=TROUBLES_LIMIT + 1)
    states, grades = figures.shares.states, figures.shares.grades
    return site.page(
        "session.html",
        changes_url=f"/api/sessions/{session_id}/changes",
        stamp=stamp,
        session=session,
        parameters=view.parameter_rows(session.parameters),
        counts=figures.counts,
        exposure_count=sum(states.values()),
        states_by_name=states,
        states=[(state, states[state]) for state in ExposureState if state in states],
        grades=[(grade, grades.get(grade, 0)) for grade in Grade],
        judged=sum(grades.values()),
        alerts=list(reversed(verdicts.alerts(catalog, session_id))),
        holds=holds.standing(catalog, session_id),
        announcements=announcements.of_session(catalog, session_id),
        trash=trash.boxes(site, figures.shares.trash),
        view=shown,
        gallery=page.gallery(
            catalog, session_id, limit=GALLERY_LIMIT, chosen=shown.chosen, before=shown.before, after=shown.after
        ),
        attention=troubles[:TROUBLES_LIMIT],
        files=bad_files[:TROUBLES_LIMIT],
        attention_cut=len(troubles) > TROUBLES_LIMIT or len(bad_files) > TROUBLES_LIMIT,
        todo=view.advice(session),
        orphans=(alone := orphans.of_session(catalog, session_id, limit=TROUBLES_LIMIT)),
        orphan_count=orphans.count(catalog, session_id) if alone else 0,
        squares=view.squares(figures.shares.places, figures.shares.overview_paths),
        events=events.recent(catalog, session_id=session_id, limit=RECENT_EVENTS_LIMIT),
    )


def _exposure_page(site: Site, session_id: UUID, exposure_id: UUID) -> Response:
    catalog = site.catalog
    session, exposure = page.session(catalog, session_id), page.exposure(catalog, exposure_id)
    if session is None or exposure is None or exposure.session_id != session_id:
        raise HTTPException(404)
    stamp = page.stamp(catalog, session_id)
    found = results.newest(catalog, exposure_id)
    runs = steps.runs_of(catalog, exposure_id)
    newer, older = page.neighbours(catalog, session_id, exposure_id)
    assumed = site.instrument_optics.get(session.instrument.name)
    return site.page(
        "exposure.html",
        changes_url=f"/api/sessions/{session_id}/changes",
        stamp=stamp,
        session=session,
        exposure=exposure,
        todo=view.advice(session),
        newer=newer,
        older=older,
        results=found,
        verdict=(verdict := verdicts.newest(catalog, exposure_id)),
        measures=view.measure_rows(verdict),
        picture=view.picture(site.results_root, runs, found.picks),
        spectrum_url=view.output_url(site.results_root, runs, "spectrum_png"),
        profile_url=view.output_url(site.results_root, runs, "profile"),
        optics=view.optics_rows(session, exposure, assumed),
        runs=list(reversed(runs)),
        files=[(file, replicas.of_file(catalog, file.id)) for file in files.of_exposure(catalog, exposure_id)],
    )
