"""The application: routes, what every answer carries, and what is said when something is wrong. It changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response

from coldchain.catalog.engine import Catalog
from coldchain.errors import CatalogError
from coldchain.model.optics import Optics
from coldchain.model.policy import RetireRule
from coldchain.web.api import api_router
from coldchain.web.assets import assets_router
from coldchain.web.encoding import PlainResponse
from coldchain.web.guard import HEADERS, LOCAL_HOSTS, Guard
from coldchain.web.pages import pages_router
from coldchain.web.site import Site, build_site, wants_json
from coldchain.web.stores import stores_router

_TITLES = {
    404: "This is not here",
    405: "This site only reads",
    500: "Something went wrong here",
    503: "The catalog does not answer",
}
_NOT_HERE = "There is no session, exposure or file at this address. It may have been mistyped."


def create_app(
    catalog: Catalog,
    *,
    results_root: Path,
    facility_name: str,
    instrument_optics: Mapping[str, Optics] | None = None,
    retire_rules: Sequence[RetireRule] = (),
) -> FastAPI:
    """The site over a catalog and a results folder.

    Parameters
    ----------
    catalog : open; the site writes nothing to it but what it has counted of large sessions.
    results_root : what the paths of step outputs are relative to; nothing outside it is ever served.
    facility_name : shown on every page.
    instrument_optics : each instrument's own values, by its name, for the table of optics.
    retire_rules : how long what was cleared stays in the trash.

    The application answers to this machine's local names; a server adds the name that it is bound to, and at its end
    closes `state.figures`, which may still count (`server`).
    """
    site = build_site(catalog, results_root, facility_name, instrument_optics or {}, retire_rules)
    app = FastAPI(title=facility_name, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.hosts = LOCAL_HOSTS
    app.state.figures = site.figures
    app.include_router(pages_router(site))
    app.include_router(stores_router(site))
    app.include_router(api_router(site))
    app.include_router(assets_router(site))
    _handle_errors(app, site)
    app.add_middleware(GZipMiddleware, minimum_size=2048, compresslevel=5)
    app.add_middleware(Guard)
    return app


def _handle_errors(app: FastAPI, site: Site) -> None:
    """Every failure as a kind, plain page, or as JSON under /api/."""

    def answer(request: Request, status: int, text: str, remedy: str = "") -> Response:
        if wants_json(request):
            return PlainResponse({"status": status, "error": text, "remedy": remedy}, status_code=status)
        title = _TITLES.get(status, "This cannot be answered")
        return site.page("message.html", status=status, code=status, title=title, text=text, remedy=remedy)

    @app.exception_handler(HTTPException)
    def told(request: Request, error: HTTPException) -> Response:
        text = error.detail if error.detail not in ("Not Found", "Method Not Allowed") else ""
        if error.status_code == 405:
            text = "Nothing can be changed through these pages; the command coldchain does that."
        response = answer(request, error.status_code, text or _NOT_HERE)
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> Response:
        if all(fault["loc"][0] == "path" for fault in error.errors()):
            return answer(request, 404, _NOT_HERE)
        names = ", ".join(str(fault["loc"][-1]) for fault in error.errors())
        return answer(request, 400, f"The address asks for something that cannot be: {names}.")

    @app.exception_handler(CatalogError)
    def catalog_refuses(request: Request, error: CatalogError) -> Response:
        expected = f"; expected {error.expected}" if error.expected else ""
        remedy = error.remedy or "Nothing is lost; this page may be loaded again."
        return answer(request, 503, f"{error.found}{expected}", remedy)

    @app.exception_handler(Exception)
    def unforeseen(request: Request, error: Exception) -> Response:
        response = answer(request, 500, f"The page could not be made ({type(error).__name__}); the log says more.")
        response.headers.update(HEADERS)  # this handler stands outside the guard, which sets them for all others
        return response
