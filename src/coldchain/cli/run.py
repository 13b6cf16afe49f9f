"""`coldchain run`: the facility as a service."""

from __future__ import annotations

import logging
import threading
from typing import Annotated
from uuid import UUID

import typer

from coldchain import config
from coldchain.catalog import events, sessions
from coldchain.catalog.engine import Catalog
from coldchain.cli.console import DEFAULT_CONFIG, ConfigOption, output
from coldchain.cli.log_lines import log_to_terminal
from coldchain.cli.signals import stop_on_signals
from coldchain.cli.site_process import SiteProcess
from coldchain.config import Settings
from coldchain.errors import CatalogAwayError, CatalogError, printable
from coldchain.model.events import Severity
from coldchain.service import Facility, FacilityLock

app = typer.Typer(add_completion=False)
log = logging.getLogger("coldchain")

_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.ERROR: logging.ERROR}
_WATCH_SECONDS = 0.5
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 30.0


@app.command()
def run(
    config_file: ConfigOption = DEFAULT_CONFIG,
    web: Annotated[bool, typer.Option(help="Serve the site as well.")] = True,
) -> None:
    """Run the facility: watch the cameras, copy and verify, compute, serve the site, until SIGTERM or Ctrl-C.

    Both finish what is in hand. A second one ends at once; nothing is lost by that either. A catalog whose server is
    away is waited for.

    Example: coldchain run --config facility.toml
    """
    log_to_terminal()
    settings = config.load(config_file)
    with FacilityLock(settings), stop_on_signals() as stopping:
        for words in settings.copy_plan().gaps():
            log.warning("%s", words)
        begun = begin(settings, stopping)
        if begun is not None:
            facility, last = begun
            try:
                with SiteProcess(settings, enabled=web) as site:
                    output.print(f"{settings.facility.name} is running. {site.url}", markup=False, highlight=False)
                    _watch(facility, site, last, stopping)
            finally:
                log.info("finishing what is in hand")
                facility.stop()
    log.info("stopped")


def begin(settings: Settings, stopping: threading.Event) -> tuple[Facility, UUID] | None:
    """The facility at work, and the newest event before that; None where it was told to stop before its catalog could
    be had. What waiting does not mend is raised."""
    pause = _FIRST_PAUSE_SECONDS
    while not stopping.is_set():
        try:
            return _at_work(settings)
        except CatalogAwayError as error:
            log.warning("the service cannot begin yet, and tries again in %.0f s: %s", pause, error)
            stopping.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
    return None


def _at_work(settings: Settings) -> tuple[Facility, UUID]:
    facility = Facility(settings)
    try:
        last = _newest_event(facility.catalog)
        facility.start()
    except BaseException:
        facility.stop()
        raise
    return facility, last


def _newest_event(catalog: Catalog) -> UUID:
    newest = events.newest_own(catalog)
    return UUID(int=0) if newest is None else newest.id


def _watch(facility: Facility, site: SiteProcess, last: UUID, stopping: threading.Event) -> None:
    """Until told to stop: say what has happened since the event `last`, keep the site up, and end where a part has
    ended."""
    names: dict[UUID, str] = {}
    while not stopping.wait(_WATCH_SECONDS):
        facility.check()
        site.keep()
        try:
            for event in events.since(facility.catalog, last, limit=1000):
                where = _session_name(facility.catalog, event.session_id, names)
                log.log(_LEVELS[event.severity], "%s%s: %s", where, event.kind, printable(event.message))
                last = event.id
        except CatalogError as error:  # away or busy; the parts wait for it too
            log.warning("%s", error)


def _session_name(catalog: Catalog, session_id: UUID | None, names: dict[UUID, str]) -> str:
    """The session's name for a line of the log; `names` keeps those that were asked for."""
    if session_id is None:
        return ""
    if session_id not in names:
        names[session_id] = f"{printable(sessions.get(catalog, session_id).name)}: "
    return names[session_id]
