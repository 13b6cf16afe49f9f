"""The facility's site, from its settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from coldchain.catalog.engine import Catalog
from coldchain.config import Settings
from coldchain.web.app import create_app
from coldchain.web.server import BackgroundServer


@contextmanager
def site(catalog: Catalog, settings: Settings, *, enabled: bool = True) -> Iterator[str]:
    """The facility's site in the background; gives its address."""
    if not enabled:
        yield "The site is off."
        return
    app = create_app(
        catalog,
        results_root=settings.results.folder,
        facility_name=settings.facility.name,
        instrument_optics={i.name: i.optics.as_optics() for i in settings.instrument},
        retire_rules=settings.retire_rules(),
    )
    with BackgroundServer(app, settings.web.host, settings.web.port) as url:
        yield url
