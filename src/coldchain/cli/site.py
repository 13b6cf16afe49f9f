"""The facility's site, from its settings."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from coldchain.catalog.engine import Catalog
from coldchain.config import Settings
from coldchain.web.app import create_app
from coldchain.web.server import BackgroundServer


@contextmanager
def site(catalog: Catalog, settings: Settings, *, bound: socket.socket | None = None) -> Iterator[str]:
    """The facility's site in the background; gives its address. `bound` listens for it already."""
    app = create_app(
        catalog,
        results_root=settings.results.folder,
        facility_name=settings.facility.name,
        instrument_optics={i.name: i.optics.as_optics() for i in settings.instrument},
        retire_rules=settings.retire_rules(),
    )
    with BackgroundServer(app, settings.web.host, settings.web.port, bound=bound) as url:
        yield url
