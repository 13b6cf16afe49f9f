"""`coldchain run`: the facility as a service."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated
from uuid import UUID

import typer

from coldchain import config
from coldchain.catalog import events
from coldchain.catalog.engine import Catalog
from coldchain.cli.console import DEFAULT_CONFIG, ConfigOption, output
from coldchain.config import Settings
from coldchain.errors import printable
from coldchain.model.events import Severity
from coldchain.service import Facility, FacilityLock
from coldchain.web.app import create_app
from coldchain.web.server import BackgroundServer

app = typer.Typer(add_completion=False)
log = logging.getLogger("coldchain")

_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.ERROR: logging.ERROR}
_WATCH_SECONDS = 0.5


@app.command()
def run(
    config_file: ConfigOption = DEFAULT_CONFIG,
    web: Annotated[bool, typer.Option(help="Serve the site as well.")] = True,
) -> None:
    """Run the facility: watch the cameras, copy and verify, compute, serve the site, until SIGTERM or Ctrl-C.

    Both finish what is in hand. A second one ends at once; nothing is lost by that either.

    Example: coldchain run --config facility.toml
    """
    log_to_terminal()
    settings = config.load(config_file)
    with FacilityLock(settings), stop_on_signals() as stopping:
        facility = Facility(settings)
        facility.start()
        try:
            with site(facility.catalog, settings, enabled=web) as url:
                output.print(f"{settings.facility.name} is running. {url}", markup=False, highlight=False)
                _watch(facility, stopping)
        finally:
            log.info("finishing what is in hand")
            facility.stop()
    log.info("stopped")


@contextmanager
def site(catalog: Catalog, settings: Settings, *, enabled: bool = True) -> Iterator[str]:
    """The facility's site in the background; gives its address."""
    if not enabled:
        yield "The site is off."
        return
    app = create_app(catalog, results_root=settings.results.folder, facility_name=settings.facility.name)
    server = BackgroundServer(app, settings.web.host, settings.web.port)
    try:
        yield server.start()
    finally:
        server.stop()


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set; a second one ends the process at once."""
    stopping = threading.Event()

    def handle(number: int, _frame: FrameType | None) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        stopping.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def log_to_terminal() -> None:
    """One line for each thing that happens, on standard error, with the time."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _watch(facility: Facility, stopping: threading.Event) -> None:
    """Until told to stop: say what happens, and end where a part has ended."""
    last: UUID | None = None
    while not stopping.wait(_WATCH_SECONDS):
        facility.check()
        last = _tell_events(facility.catalog, last)


def _tell_events(catalog: Catalog, last: UUID | None) -> UUID | None:
    """Log the events after `last` (from now on, where it is None); their keys grow with time."""
    recent = events.recent(catalog, limit=500)
    if last is not None:
        for event in reversed([e for e in recent if e.id > last]):
            log.log(_LEVELS[event.severity], "%s: %s", event.kind, printable(event.message))
    return recent[0].id if recent else (last or UUID(int=0))
