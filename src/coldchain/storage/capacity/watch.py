"""Says when a store fills, will be full soon, or is behind with its copies; once when it begins, once when it ends."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from coldchain.catalog import capacity, store_alerts, stores
from coldchain.catalog.capacity import Late
from coldchain.catalog.engine import Catalog
from coldchain.catalog.regular_look import RegularLook
from coldchain.errors import printable
from coldchain.model.policy import CopyPlan
from coldchain.model.stores import StoreState, StoreSubject
from coldchain.storage.capacity.alerts import Limits, changes, patience_hours, promises
from coldchain.storage.capacity.book import CapacityBook

log = logging.getLogger(__name__)

LOOK_SECONDS = 60.0


class CapacityWatch(RegularLook):
    """A part of the facility that looks at what its stores' keepers wrote down.

    Nothing is remembered here: which alerts stand is in the catalog, so that a restart says nothing twice, and ends
    what ended meanwhile.

    Parameters
    ----------
    plan : the facility's stores, and within how many hours its policies promise copies on them.
    above, days : as `Limits`.
    """

    def __init__(self, catalog: Catalog, plan: CopyPlan, *, above: float, days: float) -> None:
        self._catalog = catalog
        self._limits = Limits(above, days)
        self._promises = {place.name: promises(plan, place.name) for place in plan.places}
        self._book = CapacityBook(catalog)
        super().__init__("capacity watch", pause_seconds=LOOK_SECONDS, fault="stores cannot be looked at")

    def look(self) -> int:
        """Say what has begun or ended since; how many alerts these are. Raises CatalogError."""
        site = self._catalog.site
        standing = [alert for alert in store_alerts.standing(self._catalog) if alert.site == site]
        said = 0
        for state in stores.all_stores(self._catalog):
            if state.site == site and state.name in self._promises:
                said += self._look(state, {alert.subject for alert in standing if alert.store == state.name})
        for alert in standing:
            if alert.store not in self._promises:
                words = f"store {printable(alert.store)} is not one of this facility's any more"
                said += store_alerts.end(self._catalog, alert.store, alert.subject, words)
        return said

    def _look(self, state: StoreState, standing: set[StoreSubject]) -> int:
        now = datetime.now(UTC)
        late = self._late(state.name, now, is_told=StoreSubject.LATE in standing)
        foretold = self._book.forecast(state.site, state.name)
        found = changes(state, foretold, late, standing, self._limits, now)
        for change in found:
            tell = store_alerts.begin if change.begins else store_alerts.end
            tell(self._catalog, state.name, change.subject, change.words)
        return len(found)

    def _late(self, store: str, now: datetime, *, is_told: bool) -> dict[float, Late]:
        found = {}
        for hours, kinds in self._promises[store].items():
            before = now - timedelta(hours=patience_hours(min(hours, 1e6), is_told=is_told))
            if (late := capacity.late(self._catalog, store, kinds, before)) is not None:
                found[hours] = late
        return found
