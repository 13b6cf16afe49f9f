"""Files that pages need: style, scripts, and the outputs of step runs."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, HTTPException
from starlette.responses import FileResponse

from coldchain.catalog import page
from coldchain.model.results import StepState
from coldchain.web.outputs import MEDIA_TYPES, output_path
from coldchain.web.site import Site

_FOREVER = "max-age=31536000, immutable"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def assets_router(site: Site) -> APIRouter:
    """`/static/{name}`, versioned by `?v=` so that browsers may keep it, and `/runs/{run_id}/{role}`."""
    router = APIRouter()

    @router.get("/static/{name}")
    def static_file(name: str) -> FileResponse:
        path = site.static_paths.get(name)
        if path is None:
            raise HTTPException(404, "There is no such file.")
        return FileResponse(path, media_type=_TYPES.get(path.suffix), headers={"Cache-Control": f"public, {_FOREVER}"})

    @router.get("/runs/{run_id}/{role}")
    def run_output(run_id: UUID, role: str) -> FileResponse:
        run = page.run(site.catalog, run_id)
        path = None if run is None else output_path(site.results_root, run, role)
        if run is None or path is None:
            raise HTTPException(404, "There is no such output of a step; it may have been cleared away.")
        # A run's outputs never change once it is done: what is computed again is another run.
        cache = f"private, {_FOREVER}" if run.state is StepState.DONE else "no-store"
        media_type = MEDIA_TYPES.get(path.suffix.lower())
        return FileResponse(
            path,
            media_type=media_type or "application/octet-stream",
            filename=None if media_type else f"{run.step}-{role}{path.suffix}",
            headers={"Cache-Control": cache},
        )

    return router
