"""Says when the replication between two primaries is in trouble; once when it begins, once when it ends.

What was said is in the events, so that a restart says nothing twice and ends what ended meanwhile.
"""

from __future__ import annotations

import logging
from uuid import UUID

from sqlalchemy import Select, select

from coldchain.catalog import events, replication
from coldchain.catalog.engine import Catalog
from coldchain.catalog.regular_look import RegularLook
from coldchain.catalog.tables import EventRow
from coldchain.errors import CatalogError
from coldchain.model.events import Severity
from coldchain.model.replication import Trouble, changed, troubles

log = logging.getLogger(__name__)

KIND = "catalog.replication"
LOOK_SECONDS = 15.0
# A server that was started just now, or a link that was cut for a moment, is no trouble yet.
_LOOKS_UNTIL_TOLD = 2
_ERRORS_LOOKED_THROUGH = 1000
_WELL = "the two catalog servers are in step again, as far as this one sees"


class ReplicationWatch(RegularLook):
    """A part of the facility that asks the catalog's servers how they are.

    Parameters
    ----------
    peer_url : the other server, if it is to be asked too.
    lag_seconds : how far a direction may be behind before that is said.
    """

    def __init__(self, catalog: Catalog, *, peer_url: str | None, lag_seconds: float) -> None:
        self._catalog = catalog
        self._peer_url = peer_url
        self._lag_seconds = lag_seconds
        self._told: list[str] | None = None
        self._seen: dict[str, int] = {}
        super().__init__(
            "replication watch", pause_seconds=LOOK_SECONDS, fault="the catalog's replication cannot be looked at"
        )

    def look(self) -> int:
        """Ask, and say what has begun or ended; how many events that made. Raises CatalogError."""
        found = current(self._catalog, peer_url=self._peer_url, lag_seconds=self._lag_seconds)
        self._seen = {trouble.key: self._seen.get(trouble.key, 0) + 1 for trouble in found}
        lasting = [trouble for trouble in found if self._seen[trouble.key] >= _LOOKS_UNTIL_TOLD]
        if self._told is None:  # after a start: what stood before it is not told again
            stood = standing(self._catalog) is not None
            self._told = [trouble.key for trouble in found] or [KIND] if stood else []
        new, is_over = changed(self._told, lasting)
        if is_over and not found:
            events.record(self._catalog, Severity.INFO, KIND, _WELL)
            self._told = []
            return 1
        for trouble in new:
            severity = Severity.ERROR if trouble.is_error else Severity.WARNING
            events.record(self._catalog, severity, KIND, str(trouble))
            self._told.append(trouble.key)
        return len(new)


def current(catalog: Catalog, *, peer_url: str | None, lag_seconds: float) -> list[Trouble]:
    """What is not as it should be now; nothing of a catalog that is a file. Raises CatalogError."""
    here = replication.look(catalog)
    if here is None:
        return []
    if peer_url is None:
        return troubles(here, lag_seconds=lag_seconds)
    try:
        peer = replication.look_at(peer_url)
    except CatalogError as error:
        return troubles(here, peer_fault=error.found, lag_seconds=lag_seconds)
    return troubles(here, peer, lag_seconds=lag_seconds)


def standing(catalog: Catalog) -> UUID | None:
    """The event with which this site last told of trouble that has not ended; None where there is none."""
    with catalog.reading() as unit:
        begun = [
            row_id
            for severity in (Severity.ERROR, Severity.WARNING)
            for row_id, kind in unit.execute(newest_query(catalog.site, severity))
            if kind == KIND
        ]
        if not begun:
            return None
        return None if unit.scalar(ended_query(catalog.site, max(begun))) else max(begun)


def newest_query(site: str, severity: Severity) -> Select[UUID, str]:
    """A site's newest events of a severity, with their kinds."""
    query = (
        select(EventRow.id, EventRow.kind)
        .where(EventRow.site == site, EventRow.severity == severity)
        .order_by(EventRow.id.desc())
        .limit(_ERRORS_LOOKED_THROUGH)
    )
    return events.of_session(query, None)


def ended_query(site: str, begun: UUID) -> Select[UUID]:
    """A site's event after one that says that trouble with the replication is over."""
    query = select(EventRow.id).where(
        EventRow.site == site, EventRow.severity == Severity.INFO, EventRow.id > begun, EventRow.kind == KIND
    )
    return events.of_session(query.limit(1), None)
