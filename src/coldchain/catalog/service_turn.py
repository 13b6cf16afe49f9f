"""Whose turn it is to serve a site: one service at a time for each site of a catalog on a server, wherever it runs.

Two would take the same exposures, make the same copies, and each take what the other has begun for what a killed one
left. The turn is a lock of the server's own (`GET_LOCK`) on a connection that does nothing else. It ends with that
connection: at once where its process is killed, and after `_SILENT_SECONDS` where its host is gone without a word.

Where the connection is lost under a service, because the server was started again or the link was cut, the turn is
taken again as soon as it can be had. The holder may be this service's own connection, of which the server does not know
yet that it is dead: that is waited for. Any other is another service, and this one ends at once. They are told apart by
a second lock that nobody else asks for, the connection's mark, which each takes before the turn: whoever holds both is
this service's own. So an answer that was lost misleads nobody, and neither do the numbers of connections, which a
server that was started again gives once more.

A catalog that is a file has a lock beside it instead (`coldchain.service.FacilityLock`).
"""

from __future__ import annotations

import hashlib
import logging
from contextlib import suppress

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
from coldchain.model.identity import new_id

log = logging.getLogger(__name__)

KIND = "service.began"
_LOOK_SECONDS = 10.0
_SILENT_SECONDS = 60
"""A connection that says nothing for so long is the server's to close: it says something every `_LOOK_SECONDS`."""
_KILLED_SECONDS = 2
"""So long a start waits: the server has not noticed yet that the service before was killed."""
_MARKS = 100
"""So many connections are remembered: one that the server does not know to be dead is its own to close long before."""
_EVENTS_LOOKED_THROUGH = 100_000
_TAKE = text("SELECT GET_LOCK(:name, :seconds)")
_HOLDER = text("SELECT IS_USED_LOCK(:name)")
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
        self._marks: list[str] = []  # of all connections that may hold the turn
        self._is_lost = False
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
        if not self._is_over and not self._is_held():
            self._take_again()
        return 0

    def alive(self) -> bool:
        """Whether it runs, and no other service has the turn."""
        return super().alive() and not self._is_over

    def require(self) -> None:
        """Raise CatalogError where another service has the turn now: this one does no more."""
        if not self.alive():
            raise CatalogError(
                f"another `coldchain run` serves the site {printable(self._catalog.site)!r} now: the connection to the "
                "server was lost meanwhile",
                expected="one service for each site",
                remedy="Stop that one, and start this anew: it goes on where it ended",
            )

    def stop(self) -> None:
        """Give the turn to whoever wants it."""
        super().stop()
        self._let_go()

    def _take_again(self) -> None:
        if not self._is_lost:
            self._is_lost = True
            log.warning("the connection that holds the site's turn is lost; the turn is taken again")
        try:
            if self._get(0):
                log.warning("the site's turn is taken again")
                self._is_lost = False
        except CatalogAwayError:
            pass  # it has been said
        if self._is_over:
            log.error("another `coldchain run` serves this site now, and this one ends")
            log.error("the other one: %s", self._holder())

    def _get(self, wait_seconds: int) -> bool:
        """Take the turn on a new connection; whether it was to be had."""
        self._let_go()
        connection = self._catalog.lasting_connection()
        is_ours = False
        try:
            with translated(self._url):
                connection.execute(text(f"SET SESSION wait_timeout = {_SILENT_SECONDS}"))
                self._mark(connection)
                is_ours = bool(connection.scalar(_TAKE, {"name": self._name, "seconds": wait_seconds}))
                if not is_ours and self._is_lost:
                    self._is_over = self._is_anothers(connection)
        finally:
            if not is_ours:
                _close(connection)
        if is_ours:
            self._connection = connection
        return is_ours

    def _mark(self, connection: Connection) -> None:
        mark = f"coldchain.mark.{new_id().hex}"
        self._marks = [*self._marks[-_MARKS:], mark]  # before it is asked for: the answer may be lost
        connection.scalar(_TAKE, {"name": mark, "seconds": 0})

    def _is_anothers(self, connection: Connection) -> bool:
        # The marks first: whoever ends between the questions has the turn no more, and is not taken for another.
        marked = {mark: connection.scalar(_HOLDER, {"name": mark}) for mark in self._marks}
        holder = connection.scalar(_HOLDER, {"name": self._name})
        self._marks = [mark for mark, by in marked.items() if by is not None]
        return holder is not None and holder not in marked.values()

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
            _close(self._connection)
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


def _close(connection: Connection) -> None:
    with suppress(SQLAlchemyError):  # it was lost, and nobody had noticed
        connection.close()
