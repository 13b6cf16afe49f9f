"""Tells, when it is time, of metadata without a movie and of movies that lack metadata."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from coldchain.catalog import orphans
from coldchain.catalog.engine import Catalog
from coldchain.catalog.regular_look import RegularLook

log = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 15.0
_LONGEST_PATIENCE_SECONDS = 1e9
"""Thirty years: longer is never, and before the calendar's beginning."""


class OrphanWatch(RegularLook):
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
        pause_seconds = min(_LONGEST_PAUSE_SECONDS, *(seconds / 4 for seconds in patience_seconds.values()))
        super().__init__("orphan watch", pause_seconds=pause_seconds, fault="orphans cannot be looked for")

    def look(self) -> int:
        """Tell of what is old enough now; how many were told. Raises CatalogError."""
        now = datetime.now(UTC)
        return sum(
            orphans.tell(self._catalog, instrument_name=name, found_before=now - patience)
            for name, patience in self._patience.items()
        )
