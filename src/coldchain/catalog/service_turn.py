"""Whose turn it is to serve a site: one service at a time for each site of a catalog on a server, wherever it runs.

Two would take the same exposures, make the same copies, and each take what the other has begun for what a killed one
left. The turn is a lock of the server's own (`GET_LOCK`) on a connection that does nothing else. It ends with that
connection: at once where its process is killed, and after `_SILENT_SECONDS` where its host is gone without a word.

Where the connection is lost under a service, because the server was started again or the link was cut, the turn is
taken again as soon as it can be had. For a while the holder may be this service's own connection, of which the server
does not know yet that it is dead; whoever holds it after that is another service, and this one ends.

A catalog that is a file has a lock beside it instead (`coldchain.service.FacilityLock`).
"""

from __future__ import annotations

import hashlib
import logging
import time

from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from coldchain.catalog import events
from coldchain.catalog.engine import Catalog
from coldchain.catalog.faults import translated
from coldchain.catalog.regular_look import RegularLook
from coldchain.catalog.tables import EventRow
from coldchain.errors import CatalogAwayError, CatalogError, printable
from coldchain.model.events import Severity

log = logging.getLogger(__name__)

KIND = "service.began"
_LOOK_SECONDS = 10.0
_SILENT_SECONDS = 60
"""A connection that says nothing for so long is the server's to close: it says something every `_LOOK_SECONDS`."""
_OWN_SECONDS = 2.0 * _SILENT_SECONDS
"""So long after its connection was lost, the holder may be that connection."""
_KILLED_SECONDS = 2
"""So long a start waits: the server has not noticed yet that the service before was killed."""
_EVENTS_LOOKED_THROUGH = 100_000
_TAKE = text("SELECT GET_LOCK(:name, :seconds)")
_IS_OURS = text("SELECT IS_USED_LOCK(:name) = CONNECTION_ID()")
_ADDRESS = text("SELECT host FROM information_schema.processlist WHERE id = IS_USED_LOCK(:name)")


class ServiceTurn(RegularLook):
    """A part of the facility that holds its site's turn on a catalog server, from `take` until `stop`."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._url = make_url(catalog.url)
        # 64 characters at most; a server's locks are those of all its databases.
        of = f"{self._url.database}\n{catalog.site}"
        self._name = "coldchain.site." + hashlib.sha256(of.encode()).hexdigest()[:40]
        self._connection: Connection | None = None
        self._lost_at: float | None = None
        self._is_over = False
        super().__init__(
            "turn of the site", pause_seconds=_LOOK_SECONDS, fault="the site's turn on the server cannot be looked at"
        )

    def take(self) -> None:
        """Take the turn. Raises CatalogError where another service has it."""
        if not self._get(_KILLED_SECONDS):
            raise CatalogError(
                f"another `coldchain run` serves the site {printable(self._catalog.site)!r}: {self._holder()}",
                expected="one service for each site",
                remedy="Stop that one first, or give this host another [facility] site. If its host is gone, the "
                f"server lets go of it within {_SILENT_SECONDS} s: start this one again then",
            )

    def look(self) -> int:
        """Hold the turn, or take it again; always 0. Raises CatalogError."""
        if self._is_over or self._is_held():
            return 0
        if self._lost_at is None:
            self._lost_at = time.monotonic()
            log.warning("the connection that holds the site's turn is lost; the turn is taken again")
        try:
            if self._get(0):
                log.warning("the site's turn is taken again")
                self._lost_at = None
            elif time.monotonic() - self._lost_at > _OWN_SECONDS:
                self._is_over = True
                log.error("another `coldchain run` serves this site now: %s", self._holder())
        except CatalogAwayError:
            pass  # it has been said
        return 0

    def alive(self) -> bool:
        """Whether it runs, and no other service has the turn."""
        return super().alive() and not self._is_over

    def stop(self) -> None:
        """Give the turn to whoever wants it."""
        super().stop()
        self._let_go()

    def _get(self, wait_seconds: int) -> bool:
        self._let_go()
        connection = self._catalog.lasting_connection()
        is_ours = False
        try:
            with translated(self._url):
                connection.execute(text(f"SET SESSION wait_timeout = {_SILENT_SECONDS}"))
                is_ours = bool(connection.scalar(_TAKE, {"name": self._name, "seconds": wait_seconds}))
        finally:
            if not is_ours:
                connection.close()
        if is_ours:
            self._connection = connection
        return is_ours

    def _is_held(self) -> bool:
        if self._connection is None:
            return False
        try:
            # Never on a connection that was made anew in its place, which holds nothing.
            return bool(self._connection.scalar(_IS_OURS, {"name": self._name}))
        except SQLAlchemyError:
            return False

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _holder(self) -> str:
        """Who has the turn, as far as it can be known."""
        with self._catalog.reading() as unit:
            address = unit.scalar(_ADDRESS, {"name": self._name})
            newest = events.recent_query(
                self._catalog.site, Severity.INFO, session_id=None, limit=_EVENTS_LOOKED_THROUGH
            )
            kinds = unit.execute(newest.with_only_columns(EventRow.id, EventRow.kind))
            began = next((unit.get(EventRow, key) for key, kind in kinds if kind == KIND), None)
        known = [] if began is None else [f"{began.message}, since {began.at:%Y-%m-%d %H:%M:%S} UTC"]
        known += [f"its connection comes from {printable(address)}"] if address else []
        return "; ".join(known) or "who it is cannot be known"
