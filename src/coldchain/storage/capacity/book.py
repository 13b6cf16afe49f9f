"""How full stores are and will be, and whose that is: for the pages and the watch, which ask again and again.

What was counted is kept. A forecast holds until the store is sampled again; what lies on each store for
`TOTAL_SECONDS`; what lies there by sessions and kinds until something happens in a session, which alone is then counted
again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Lock
from uuid import UUID

from coldchain.catalog import capacity as counted
from coldchain.catalog.capacity import Usage, UsageLine
from coldchain.catalog.engine import Catalog
from coldchain.model.stores import StoreSample, StoreState
from coldchain.storage.capacity.forecast import HISTORY_DAYS, Forecast, forecast

TOTAL_SECONDS = 10.0
# An event may be seen later than one that was written after it: nobody's transaction takes as long as this.
_LATE_EVENTS = timedelta(minutes=5)
# What changed without an event in its session is seen after that.
_COUNT_ALL_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class StoreCapacity:
    """A store with what it holds and what is foretold of it; `samples` are those of the last weeks, oldest first.

    `usage` are the copies of its site, `known_bytes` those of all sites that share the store.
    """

    state: StoreState
    usage: Usage
    known_bytes: int
    oldest_wanted: datetime | None
    foretold: Forecast
    samples: Sequence[StoreSample] = field(repr=False)

    @property
    def used_bytes(self) -> int | None:
        """What is in use; None where it does not tell."""
        total, free = self.state.total_bytes, self.state.free_bytes
        return None if total is None or free is None else total - free

    @property
    def others_bytes(self) -> int | None:
        """What is in use and is no copy that the catalog knows; None where the store does not tell."""
        return None if self.used_bytes is None else max(0, self.used_bytes - self.known_bytes)


class CapacityBook:
    """What was counted and foretold of a catalog's stores. Threads may share one."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._forecasts: dict[tuple[str, str], tuple[datetime | None, Forecast, Sequence[StoreSample]]] = {}
        self._totals: tuple[float, dict[tuple[str, str], Usage]] = (-TOTAL_SECONDS, {})
        self._lines: dict[UUID, list[UsageLine]] = {}
        self._counted_at = datetime.now(UTC)
        self._counted_all = -_COUNT_ALL_SECONDS
        self._lock = Lock()

    def of(self, states: Sequence[StoreState]) -> list[StoreCapacity]:
        """The stores with what they hold and what is foretold of them. Raises CatalogError.

        `states` are to be all that the catalog knows: sites that share a store bear its one identity.
        """
        totals = self._total([(state.site, state.name) for state in states])
        known: Counter[UUID] = Counter()
        for state in states:
            known[state.identity] += totals[state.site, state.name].all_bytes
        return [self._of(state, totals[state.site, state.name], known[state.identity]) for state in states]

    def forecast(self, site: str, store: str) -> Forecast:
        """What is foretold of a site's store. Raises CatalogError."""
        return self._foretold(site, store)[0]

    def lines(self) -> list[UsageLine]:
        """What lies on every store, by session and kind. Raises CatalogError."""
        with self._lock:
            now = datetime.now(UTC)
            changed = counted.sessions_changed(self._catalog, self._counted_at - _LATE_EVENTS)
            if None in changed or time.monotonic() - self._counted_all >= _COUNT_ALL_SECONDS:
                self._count_all()
            else:
                for session_id in changed:
                    if session_id is not None:
                        self._lines[session_id] = counted.lines(self._catalog, session_id)
            self._counted_at = now
            return [line for lines in self._lines.values() for line in lines]

    def _count_all(self) -> None:
        self._lines = {}
        for line in counted.lines(self._catalog):
            self._lines.setdefault(line.session_id, []).append(line)
        self._counted_all = time.monotonic()

    def _of(self, state: StoreState, usage: Usage, known_bytes: int) -> StoreCapacity:
        foretold, samples = self._foretold(state.site, state.name)
        is_own = state.site == self._catalog.site
        oldest = counted.oldest_wanted(self._catalog, state.name) if is_own and state.backlog_files else None
        return StoreCapacity(state, usage, known_bytes, oldest, foretold, samples)

    def _total(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Usage]:
        counted_at, totals = self._totals
        if time.monotonic() - counted_at >= TOTAL_SECONDS or not set(keys) <= set(totals):
            totals = counted.totals(self._catalog, keys)
            self._totals = (time.monotonic(), totals)
        return totals

    def _foretold(self, site: str, store: str) -> tuple[Forecast, Sequence[StoreSample]]:
        key = (site, store)
        newest = counted.newest_sample_at(self._catalog, key)
        known = self._forecasts.get(key)
        if known is None or known[0] != newest:
            samples = counted.history(self._catalog, key, days=HISTORY_DAYS)
            known = (newest, forecast(samples, datetime.now(UTC)), samples)
            self._forecasts[key] = known
        return known[1], known[2]
