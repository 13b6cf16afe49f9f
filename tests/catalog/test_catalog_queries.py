"""Every query of a big table is listed, and is read from an index on SQLite and on MariaDB."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Connection, Select, create_engine

from benchmarks.catalog_plants import SITE, STORES, plant
from coldchain.catalog import engine, newest_events, queries
from coldchain.catalog.by_index import KEY
from coldchain.catalog.engine import Catalog
from coldchain.catalog.queries import BIG, BY_KEY, OTHERS, PARTS, QUERIES, Example, Listed
from coldchain.catalog.tables import Base

FOLDER = Path(queries.__file__).parent
EXPOSURES, PER_SESSION = 600, 50
TABLES = {row.__tablename__ for row in BIG}
SEARCHED = re.compile(r"^(?:SEARCH|SCAN) (\w+)(?: USING (?:COVERING )?INDEX (\w+))?(?: \((.*)\))?")


@pytest.fixture
def filled(url: str) -> Iterator[tuple[Catalog, Example]]:
    """A catalog with what there is after months, on a small scale, and what to ask it with."""
    planted = plant(url, EXPOSURES, per_session=PER_SESSION)
    catalog = engine.open_catalog(url, SITE)
    opened = create_engine(url)
    with opened.connect() as connection:

        def some(table: str) -> UUID:
            found = connection.exec_driver_sql(f"SELECT id FROM {table} ORDER BY id LIMIT 1 OFFSET {EXPOSURES // 2}")
            return UUID(str(found.scalar_one()))

        session_id = connection.exec_driver_sql(
            f"SELECT session_id FROM exposures ORDER BY id LIMIT 1 OFFSET {EXPOSURES // 2}"
        ).scalar_one()
        example = Example(
            site=SITE,
            store=STORES[1],
            session_id=UUID(str(session_id)),
            exposure_id=some("exposures"),
            file_id=some("files"),
            replica_id=some("replicas"),
            run_id=some("step_runs"),
            event_id=some("events"),
            time=datetime.now(UTC) - timedelta(minutes=20),
        )
    opened.dispose()
    assert len(planted.sessions) > 10
    yield catalog, example
    catalog.close()


def test_every_query_is_read_from_an_index(filled: tuple[Catalog, Example]) -> None:
    """None scans a big table; none sorts, but what says by what it costs; each takes the index that it names."""
    catalog, example = filled
    faults = []
    with catalog.reading() as unit:
        connection = unit.connection()
        explained = _faults_of_sqlite if connection.dialect.name == "sqlite" else _faults_of_mariadb
        for name, listed in QUERIES.items():
            faults += [f"{name}: {fault}" for fault in explained(connection, listed, listed.example(example))]
        if connection.dialect.name != "sqlite":
            faults += _many_rows_of_mariadb(connection, newest_events.query())
            faults += _many_rows_of_mariadb(connection, newest_events.of_sessions_query([example.session_id]))
    assert not faults, "\n".join(faults)


def _many_rows_of_mariadb(connection: Connection, query: Select) -> Iterator[str]:  # type: ignore[type-arg]
    # EXPLAIN does not tell the last row of an index's range from all of them.
    read = "SHOW SESSION STATUS LIKE 'Handler_read%%'"
    before = sum(int(row[1]) for row in connection.exec_driver_sql(read))
    connection.execute(query).all()
    rows = sum(int(row[1]) for row in connection.exec_driver_sql(read)) - before
    if rows > 50:
        yield f"{rows} rows are read for the newest events"


def _faults_of_sqlite(connection: Connection, listed: Listed, query: Select) -> Iterator[str]:  # type: ignore[type-arg]
    compiled = query.compile(dialect=connection.dialect, compile_kwargs={"render_postcompile": True})
    values = (None,) * len(compiled.positiontup or ())  # without statistics no plan depends on them
    for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", values):
        line = str(row[3])
        if "TEMP B-TREE" in line and not listed.cost:
            yield line
        found = SEARCHED.match(line)
        if found is None or found[1] not in TABLES:
            continue
        index = KEY if (found[2] or "").startswith("sqlite_autoindex") else found[2]
        by_key = index == KEY and found[3] == "id=?"
        if line.startswith("SCAN") or not (by_key or index in listed.indexes):
            yield line


def _faults_of_mariadb(connection: Connection, listed: Listed, query: Select) -> Iterator[str]:  # type: ignore[type-arg]
    compiled = query.compile(dialect=connection.dialect, compile_kwargs={"render_postcompile": True})
    stored = compiled._bind_processors
    values = {name: stored[name](value) if name in stored else value for name, value in compiled.params.items()}
    for row in connection.exec_driver_sql(f"EXPLAIN {compiled}", values).mappings():
        line = ", ".join(f"{key} {row[key]}" for key in ("table", "type", "key", "key_len", "rows", "Extra"))
        if not listed.cost and ("filesort" in (row["Extra"] or "") or "temporary" in (row["Extra"] or "")):
            yield line
        if row["table"] not in TABLES:
            continue
        by_key = row["key"] == KEY and row["type"] in ("const", "eq_ref")
        if row["type"] in ("ALL", "index") or not (by_key or row["key"] in listed.indexes):
            yield line


def test_every_select_of_a_big_table_is_listed() -> None:
    """A function that selects from a big table, or from what is no table by name, is in the list or says why not."""
    known = {name.partition(",")[0] for name in QUERIES} | set(PARTS) | set(BY_KEY) | set(OTHERS)
    found = {where for path in sorted(FOLDER.glob("*.py")) for where in _selects(path)}
    assert found - known == set(), "to be listed in catalog/queries.py, with an index"
    assert (set(PARTS) | set(BY_KEY) | set(OTHERS)) - found == set(), "named, and nowhere any more"


def _selects(path: Path) -> Iterator[str]:
    """Where a module selects from a big table: by function, or the module itself."""
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    outside = [node for node in ast.walk(tree) if id(node) not in inside]
    for name, nodes in [(f".{function.name}", list(ast.walk(function))) for function in functions] + [("", outside)]:
        calls = [
            node
            for node in nodes
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "select"
        ]
        rows = {node.id for node in nodes if isinstance(node, ast.Name)}
        small = {mapper.class_.__name__ for mapper in Base.registry.mappers} - {row.__name__ for row in BIG}
        if calls and ({row.__name__ for row in BIG} & rows or not small & rows):
            yield f"{path.stem}{name}"
