"""Who may write which row: the rule by which two primaries cannot conflict (docs/decisions/0019).

A table is append-only, or each of its rows is owned by the site that it names and is changed by that site alone. So no
row is ever written on both of two servers, and what replication brings never meets another version of itself. `Unit`
holds every transaction of this room to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import event, orm

from coldchain.catalog.tables import Base
from coldchain.errors import CatalogError, printable


class Kind(StrEnum):
    """How rows live."""

    APPENDED = "append-only"
    OWNED = "owned"


@dataclass(frozen=True, slots=True)
class Rule:
    """How a table's rows live, and who writes them. `deleted`: their owner deletes them; nothing refers to them."""

    kind: Kind
    writer: str
    deleted: bool = False


RULES = {
    "sites": Rule(Kind.APPENDED, "the site itself"),
    "instruments": Rule(Kind.APPENDED, "the site that first names it"),
    "projects": Rule(Kind.APPENDED, "the site that first names it"),
    "sessions": Rule(Kind.OWNED, "the site that found its folder, or where it was created"),
    "session_places": Rule(Kind.OWNED, "the site that found its files there"),
    "session_counts": Rule(Kind.OWNED, "the site that counted"),
    "exposures": Rule(Kind.OWNED, "the site that found it"),
    "files": Rule(Kind.OWNED, "the site that took it in"),
    "replicas": Rule(Kind.OWNED, "the site of its store", deleted=True),
    "stores": Rule(Kind.OWNED, "the site that knows it"),
    "store_samples": Rule(Kind.APPENDED, "the store's site"),
    "store_alerts": Rule(Kind.OWNED, "the store's site"),
    "holds": Rule(Kind.OWNED, "the site where it was set, and where it is lifted"),
    "announcements": Rule(Kind.OWNED, "the store's site"),
    "frame_sets": Rule(Kind.OWNED, "the site that read its mdoc"),
    "step_runs": Rule(Kind.OWNED, "the exposure's owner"),
    "motion_results": Rule(Kind.APPENDED, "the run's owner"),
    "ctf_results": Rule(Kind.APPENDED, "the run's owner"),
    "pick_results": Rule(Kind.APPENDED, "the run's owner"),
    "quality_results": Rule(Kind.APPENDED, "the run's owner"),
    "verdicts": Rule(Kind.OWNED, "the exposure's owner"),
    "alerts": Rule(Kind.OWNED, "the owner of the exposure that raised it"),
    "events": Rule(Kind.APPENDED, "the site where it happened"),
    "notice_cursors": Rule(Kind.OWNED, "the site whose rule it is"),
    "notice_told": Rule(Kind.OWNED, "the site whose rule it is", deleted=True),
    "scanned_folders": Rule(Kind.OWNED, "the site that scans it", deleted=True),
}


class Unit(orm.Session):
    """A transaction in which rows are written as `RULES` say. Statements that change many rows at once name their site
    themselves."""


def require_own(unit: orm.Session, row: Base) -> None:
    """Raise CatalogError where a row is another site's."""
    require_own_site(unit, row.site, row.__tablename__)


def require_own_site(unit: orm.Session, site: str, table: str) -> None:
    """Raise CatalogError where that, of a row of a table, is another site."""
    if site != unit.info["site"]:
        what = table.removesuffix("s").replace("_", " ")
        raise CatalogError(
            f"this {what} belongs to the site {printable(site)}, not to {printable(unit.info['site'])}",
            expected="a row of this site's own",
            remedy=f"Do it where facility.toml names the site {printable(site)}",
        )


@event.listens_for(Unit, "before_flush")
def _hold_to_the_rules(unit: orm.Session, _context: Any, _instances: Any) -> None:
    changed = [row for row in unit.dirty if unit.is_modified(row)]
    for row in (*unit.new, *changed, *unit.deleted):
        require_own(unit, row)
    for row in changed:
        assert RULES[row.__tablename__].kind is Kind.OWNED, f"{row.__tablename__} are only ever added"
    for row in unit.deleted:
        assert RULES[row.__tablename__].deleted, f"{row.__tablename__} are never deleted"
