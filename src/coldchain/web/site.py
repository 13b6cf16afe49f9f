"""What every page needs: the catalog, where the results lie, and the templates."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

import coldchain
from coldchain.catalog.engine import Catalog
from coldchain.catalog.figures import FigureBook
from coldchain.errors import ConfigError
from coldchain.model.optics import Optics
from coldchain.model.policy import RetireRule
from coldchain.web import words

TROUBLES_LIMIT = 8
"""How many of a session's troubles its page lists."""
STATIC_FOLDER = Path(__file__).parent / "static"


def plotly_path() -> Path:
    """Plotly's JavaScript, as its Python package carries it; ConfigError where the package is not whole."""
    spec = importlib.util.find_spec("plotly")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else Path("plotly")
    path = folder / "package_data" / "plotly.min.js"
    if not path.is_file():
        raise ConfigError("Plotly's JavaScript is not there", remedy="Install the package plotly again.", path=path)
    return path


@dataclass(frozen=True, slots=True)
class Site:
    """The parts that the routes share. `static_paths` are the files served under /static by name; `figures` counts what
    the pages say of sessions, and is closed when the site ends."""

    catalog: Catalog
    results_root: Path
    facility_name: str
    instrument_optics: Mapping[str, Optics]
    static_paths: Mapping[str, Path]
    templates: Environment = field(repr=False)
    figures: FigureBook = field(repr=False)
    retire_rules: Sequence[RetireRule] = ()

    def page(self, name: str, *, status: int = 200, **context: object) -> Response:
        """A template as an answer, which the browser asks for anew each time."""
        body = self.templates.get_template(name).render(context)
        return HTMLResponse(body, status_code=status, headers={"Cache-Control": "no-cache"})


def build_site(
    catalog: Catalog,
    results_root: Path,
    facility_name: str,
    instrument_optics: Mapping[str, Optics],
    retire_rules: Sequence[RetireRule] = (),
) -> Site:
    """The site's parts, with the templates' filters and the static files' digests."""
    static_paths = {path.name: path for path in sorted(STATIC_FOLDER.iterdir()) if path.is_file()}
    static_paths["plotly.min.js"] = plotly_path()
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest()[:12] for name, path in static_paths.items()}
    environment = Environment(
        loader=PackageLoader("coldchain.web"),
        autoescape=True,
        finalize=words.safe_text,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(words.FILTERS)
    environment.filters["urlpart"] = lambda text: quote(str(text), safe="")
    environment.globals.update(
        static=lambda name: f"/static/{name}?v={digests[name]}",
        percent=words.percent,
        time_zone=words.time_zone,
        facility_name=facility_name,
        version=coldchain.__version__,
        changes_url=None,
        stamp=None,
        here=None,
    )
    figures = FigureBook(catalog, troubles=TROUBLES_LIMIT + 1)
    return Site(
        catalog, results_root, facility_name, instrument_optics, static_paths, environment, figures, retire_rules
    )


def wants_json(request: Request) -> bool:
    """Whether an error is told to a program rather than to a person."""
    return request.url.path.startswith("/api/")
