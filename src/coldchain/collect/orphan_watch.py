"""Tells, when it is time, of metadata without a movie and of movies that lack metadata."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from coldchain.catalog import orphans
from coldchain.catalog.engine import Catalog
from coldchain.errors import CatalogError

log = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 15.0
_LONGEST_PATIENCE_SECONDS = 1e9
"""Thirty years: longer is never, and before the calendar's beginning."""


class OrphanWatch:
    """A part of the facility that looks again and again for what has waited too long for its partner.

    Age is the time since the catalog knows of it, by this machine's clock. Nothing is remembered here: what was told
    stands in the catalog, so that a restart tells nothing twice.

    Parameters
    ----------
    catalog : where they are found, and told.
    patience_seconds : by instrument's name, after how long something is an orphan.
    """

    def __init__(self, catalog: Catalog, patience_seconds: Mapping[str, float]) -> None:
        self._catalog = catalog
        self._patience = {
            name: timedelta(seconds=min(seconds, _LONGEST_PATIENCE_SECONDS))
            for name, seconds in patience_seconds.items()
        }
        self._pause_seconds = min(_LONGEST_PAUSE_SECONDS, *(seconds / 4 for seconds in patience_seconds.values()))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="orphan watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End. Calling it again does nothing."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def idle(self) -> bool:
        """Always: that time goes by is no work."""
        return True

    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def look(self) -> int:
        """Tell of what is old enough now; how many were told. Raises CatalogError."""
        now = datetime.now(UTC)
        return sum(
            orphans.tell(self._catalog, instrument_name=name, found_before=now - patience)
            for name, patience in self._patience.items()
        )

    def _run(self) -> None:
        while not self._stopping.wait(self._pause_seconds):
            try:
                self.look()
            except CatalogError as error:
                log.warning("orphans cannot be looked for: %s", error)
