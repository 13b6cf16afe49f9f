"""`coldchain run`: the facility as a service."""

from __future__ import annotations

import logging
import sys
import threading
from typing import Annotated
from uuid import UUID

import typer

from coldchain import config
from coldchain.catalog import events
from coldchain.cli.console import DEFAULT_CONFIG, ConfigOption, output
from coldchain.cli.signals import stop_on_signals
from coldchain.cli.site import site
from coldchain.errors import CatalogError, printable
from coldchain.model.events import Severity
from coldchain.service import Facility, FacilityLock

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


def log_to_terminal() -> None:
    """One line for each thing that happens, on standard error, with the time."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s")
    for talkative in ("alembic", "uvicorn"):
        logging.getLogger(talkative).setLevel(logging.WARNING)


def _watch(facility: Facility, stopping: threading.Event) -> None:
    """Until told to stop: say what happens, and end where a part has ended."""
    last: UUID | None = None
    while not stopping.wait(_WATCH_SECONDS):
        facility.check()
        try:
            last = _tell(facility, last)
        except CatalogError as error:  # away or busy; the parts wait for it too
            log.warning("%s", error)


def _tell(facility: Facility, last: UUID | None) -> UUID:
    """Log the events after the one with the id `last`, from now on where it is None; gives the newest one's id."""
    if last is None:
        newest = events.recent(facility.catalog, limit=1)
        return newest[0].id if newest else UUID(int=0)
    for event in events.since(facility.catalog, last, limit=1000):
        log.log(_LEVELS[event.severity], "%s: %s", event.kind, printable(event.message))
        last = event.id
    return last
