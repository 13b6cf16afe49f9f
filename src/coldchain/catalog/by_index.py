"""By which index MariaDB is to read a table.

Its optimiser goes by statistics, which are behind whenever much has arrived, and where the order is that of the keys it
is tempted by the primary one: it then reads other sessions' rows until it has found enough of the one that is meant.
SQLite has no statistics here, and takes the index that a query is written for.
"""

from __future__ import annotations

from typing import TypeVar

from sqlalchemy.sql.selectable import HasHints

from coldchain.catalog.tables import Base

KEY = "PRIMARY"
"""What MariaDB calls a table's primary key."""
_DIALECTS = ("mysql", "mariadb")

QueryT = TypeVar("QueryT", bound=HasHints)


def by_index(query: QueryT, table: type[Base], name: str) -> QueryT:
    """The query, to be answered by that index of a table in it."""
    for dialect in _DIALECTS:
        query = query.with_hint(table, f"FORCE INDEX (`{name}`)", dialect)
    return query
