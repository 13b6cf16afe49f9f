"""Which facility a catalog is of, and on which server each of its sites writes.

A site says so with its first row, and checks it whenever it opens the catalog: two facilities that are pointed at one
catalog by mistake, and two hosts that call themselves the same site on two servers, are told apart before they harm
each other. What has changed on purpose is said once more (`claim`); of a site's rows the one with the highest turn
counts, so that no clock matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Select, orm, select

from coldchain.catalog.tables import SiteRow
from coldchain.errors import CatalogError, printable
from coldchain.model.identity import UNNAMED_FACILITY

CLAIM = "run `coldchain catalog claim`"


@dataclass(frozen=True, slots=True)
class Writer:
    """Who opens a catalog: a facility's site. `server` is the number of the server that it writes on, "" for a file.

    A `facility` of "" is anybody's: nothing is checked, and what it says of itself counts for nothing.
    """

    facility: str
    site: str
    server: str


def query() -> Select[SiteRow]:
    """What every site has said, the last it said at the end: a few rows."""
    return select(SiteRow).order_by(SiteRow.turn, SiteRow.id)


def names(unit: orm.Session) -> list[str]:
    """The sites that have ever written here."""
    return sorted({row.site for row in unit.scalars(query())})


def check(unit: orm.Session, writer: Writer) -> None:
    """Raise CatalogError where another facility writes here, or this site writes on another server."""
    _check(unit.scalars(query()).all(), writer)


def register(unit: orm.Session, writer: Writer) -> None:
    """Say who writes here, if that is not said yet, in a transaction that this room has begun. Raises as `check`."""
    rows = unit.scalars(query()).all()
    _check(rows, writer)
    if writer.server and writer.facility == UNNAMED_FACILITY:
        raise CatalogError(
            "facility.toml does not name the facility, by which a catalog on a server is known",
            expected='name = "…" in [facility], other than ' + repr(UNNAMED_FACILITY),
            remedy="Give the facility its name",
        )
    own = [row for row in rows if row.site == writer.site]
    if not own or (writer.facility and not own[-1].facility):
        _add(unit, writer, turn=len(own))


def claim(unit: orm.Session, writer: Writer) -> None:
    """Say who writes here, whatever was said before: the facility has another name, or the site another server."""
    turns = [row.turn for row in unit.scalars(query()) if row.site == writer.site]
    _add(unit, writer, turn=max(turns, default=-1) + 1)


def _add(unit: orm.Session, writer: Writer, turn: int) -> None:
    row = SiteRow(
        site=writer.site, facility=writer.facility, server=writer.server, turn=turn, said_at=datetime.now(UTC)
    )
    unit.add(row)
    unit.flush()


def _check(rows: Sequence[SiteRow], writer: Writer) -> None:
    known = list(dict.fromkeys(row.facility for row in rows if row.facility))
    if known and writer.facility and writer.facility not in known:
        raise CatalogError(
            f"the catalog is that of the facility {printable(known[-1])!r}, and facility.toml is of "
            f"{printable(writer.facility)!r}",
            expected="a catalog of its own for each facility",
            remedy=f"Correct [catalog] url; if the facility has another name now, {CLAIM}",
        )
    servers = [row.server for row in rows if row.site == writer.site and row.facility]
    if writer.facility and servers and servers[-1] != writer.server:
        raise CatalogError(
            f"the site {printable(writer.site)!r} writes on the server with the server_id {printable(servers[-1])}, "
            f"and this one has {printable(writer.server)}",
            expected="a site of its own for each of two servers",
            remedy=f"Give this host another [facility] site; if the site writes here from now on, {CLAIM}",
        )
