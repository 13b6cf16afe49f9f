"""How two primaries keep in step: what each server says of it, asked in plain statements. Judging is the model's.

MariaDB and MySQL of several generations call the same things by different names; they are asked by the newest first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from coldchain.catalog import server
from coldchain.catalog.engine import Catalog
from coldchain.catalog.faults import shown, translated
from coldchain.errors import CatalogError, printable
from coldchain.model.replication import (
    IDENTITIES,
    SETTINGS,
    Direction,
    ReaderState,
    ServerLook,
    still_to_come,
    troubles,
)

_STATUS = ("SHOW ALL REPLICAS STATUS", "SHOW ALL SLAVES STATUS", "SHOW REPLICA STATUS", "SHOW SLAVE STATUS")
_SYNTAX_ERROR = 1064
_DENIED = (1142, 1227)
# A peer that is cut off without a word must not hold up who asks.
_PEER_SECONDS = {"connect_timeout": 5, "read_timeout": 10, "write_timeout": 10}
_POSITIONS = ("gtid_binlog_pos", "gtid_slave_pos")
_FILTER = "Replicate_"
_LONGEST_WORDS = 500
_SERVER_URLS = ("mysql", "mariadb")


def look(catalog: Catalog) -> ServerLook | None:
    """What the catalog's server says of its replication; None where the catalog is a file. Raises CatalogError."""
    with catalog.reading() as unit:
        connection = unit.connection()
        return None if connection.dialect.name == "sqlite" else _look(connection)


def look_at(url: str) -> ServerLook:
    """What another server says of its replication. Raises CatalogError, also where it is silent for seconds."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # not chained: their texts show the URL, and a password in it
        raise CatalogError("the other server's URL cannot be read", expected="mysql+pymysql://USER@HOST/NAME") from None
    if not server.is_server(parsed):
        raise CatalogError("the other server's URL names no server", expected="mysql+pymysql://USER@HOST/NAME")
    arguments = server.connect_arguments(parsed, busy_seconds=1, is_patient=True) | _PEER_SECONDS
    with translated(parsed):
        engine = create_engine(parsed, connect_args=arguments, poolclass=NullPool, hide_parameters=True)
        with engine.connect() as connection:
            return _look(connection)


def shown_url(url: str) -> str:
    """A catalog's URL without anything that may be secret."""
    try:
        return shown(make_url(url))
    except (ArgumentError, ValueError):
        return "a URL that cannot be read"


def require_in_step(url: str, peer_url: str | None) -> bool:
    """Whether another server follows, and is followed by, the one that is to be upgraded.

    Raises CatalogError where a direction stands or rows are still to come: an upgrade of both sides at once, or before
    the other has what was written, stops the replication.
    """
    if not url.startswith(_SERVER_URLS):
        return False
    here = look_at(url)
    if not here.directions:
        return False
    peer, fault, coming = None, "", 0
    if peer_url is not None:
        try:
            peer = look_at(peer_url)
            coming = (still_to_come(peer, here) or 0) + (still_to_come(here, peer) or 0)
        except CatalogError as error:
            fault = error.found
    reasons = [trouble.found for trouble in troubles(here, peer, peer_fault=fault) if trouble.is_error]
    reasons += [f"{coming} transactions are still to come"] if coming else []
    if reasons:
        raise CatalogError(
            f"the two servers are not in step ({'; '.join(reasons)})",
            remedy="Stop the services on both sides and wait until `coldchain catalog status` is well; where the link "
            "cannot be had, --alone upgrades this side, and the other's service waits for it",
        )
    return True


def _look(connection: Connection) -> ServerLook:
    version = str(connection.exec_driver_sql("SELECT VERSION()").scalar())
    rows, denied = _status_rows(connection, is_mariadb="mariadb" in version.lower())
    variables = _variables(connection)
    return ServerLook(
        version=version,
        variables=variables,
        directions=tuple(_direction(row) for row in rows),
        written=variables.get("gtid_binlog_pos", ""),
        applied=variables.get("gtid_slave_pos", ""),
        denied=denied,
    )


def _variables(connection: Connection) -> dict[str, str]:
    names = [setting.name for setting in SETTINGS] + [*IDENTITIES, *_POSITIONS]
    listed = ", ".join(f"'{name}'" for name in names)
    rows = connection.exec_driver_sql(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({listed})")
    return {str(name).lower(): str(value) for name, value in rows}


def _status_rows(connection: Connection, *, is_mariadb: bool) -> tuple[list[Mapping[str, Any]], str]:
    """A row for each server that this one follows, and the GRANT without which that is not told."""
    for statement in _STATUS:
        try:
            return [dict(row) for row in connection.exec_driver_sql(statement).mappings()], ""
        except DBAPIError as error:
            number = error.orig.args[0] if error.orig is not None and error.orig.args else 0
            if number in _DENIED:
                return [], _grant(connection, is_mariadb=is_mariadb)
            if number != _SYNTAX_ERROR:
                raise
    return [], ""


def _grant(connection: Connection, *, is_mariadb: bool) -> str:
    user, _, host = str(connection.exec_driver_sql("SELECT CURRENT_USER()").scalar()).rpartition("@")
    privilege = "REPLICA MONITOR" if is_mariadb else "REPLICATION CLIENT"
    return f"GRANT {privilege} ON *.* TO '{printable(user)}'@'{printable(host)}'"


def _direction(row: Mapping[str, Any]) -> Direction:
    def told(name: str) -> Any:
        newer = name.replace("Master", "Source").replace("Slave", "Replica")
        return row[name] if name in row else row.get(newer)

    def words(name: str) -> str:
        return printable(str(told(name) or ""))[:_LONGEST_WORDS]

    reader = str(told("Slave_IO_Running"))
    lag = told("Seconds_Behind_Master")
    return Direction(
        source=f"{words('Master_Host')}:{told('Master_Port')}",
        reader=ReaderState(reader) if reader in set(ReaderState) else ReaderState.STOPPED,
        is_applying=told("Slave_SQL_Running") == "Yes",
        lag_seconds=None if lag is None else int(lag),
        reader_error=int(told("Last_IO_Errno") or 0),
        reader_words=words("Last_IO_Error"),
        applier_error=int(told("Last_SQL_Errno") or 0),
        applier_words=words("Last_SQL_Error"),
        gtid_mode=str(row.get("Using_Gtid", "")),
        filters=tuple(
            f"{name} {printable(str(value))}"[:_LONGEST_WORDS]
            for name, value in sorted(row.items())
            if name.startswith(_FILTER) and value and name != "Replicate_Ignore_Server_Ids"
        ),
    )
