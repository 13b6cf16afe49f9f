"""Migrations from every revision, with rows in the tables, and killed at every statement."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, Table, Uuid, create_engine, event, inspect, select

from coldchain.catalog import engine, events, exposures, files, sessions
from coldchain.catalog.columns import (
    Digest,
    Name,
    PathBytes,
    Prose,
    Real,
    UtcDateTime,
    Whole,
    Word,
    json_text,
    json_value,
)
from coldchain.catalog.migrations import again
from coldchain.catalog.tables import Base
from coldchain.errors import CatalogError
from coldchain.model.identity import new_id
from tests.catalog.catalog_givens import execute

REVISIONS = engine.revisions()[::-1]
AT = datetime(2026, 5, 1, 12, 30, 15, 250_000, tzinfo=UTC)
Rows = dict[str, dict[UUID, dict[str, Any]]]


class _Killed(BaseException):
    """What a process that is killed does not survive."""


def _value(table: Table, name: str, made: dict[str, UUID]) -> Any:
    """A value that the models can read, whatever the revision."""
    column = table.c[name]
    if name == "id":
        return made[table.name]
    if column.foreign_keys:
        return made.get(next(iter(column.foreign_keys)).column.table.name)
    plain = {Name: f"{name} é ␛", Prose: "many\nwords", Digest: b"d" * 32, UtcDateTime: AT, Whole: 3, Real: 1.25}
    for kind, value in plain.items():
        if isinstance(column.type, kind):
            return value
    if isinstance(column.type, PathBytes):
        return f"folder/{name}\udcff"
    if isinstance(column.type, Word):
        return next(iter(column.type.kind))
    if type(column.type).__name__ == "JSON":
        lists = {"picks": [[1.0, 2.0, 3.0]], "reasons": [], "sends": None}
        return lists.get(name, [0.5] if name.startswith("shift") else {})
    if isinstance(column.type, Uuid):
        return new_id()
    if type(column.type).__name__ == "String":
        return "ab" * 32
    return {"Boolean": True, "Double": 2.5}.get(type(column.type).__name__, 7)


def _fill(connection: Connection, kept: Rows) -> None:
    """A row in each table that is there, of the columns that it has."""
    there = inspect(connection)
    made: dict[str, UUID] = {}
    for table in Base.metadata.sorted_tables:
        if not there.has_table(table.name):
            continue
        made[table.name] = new_id()
        names = [column["name"] for column in there.get_columns(table.name)]
        row = {name: _value(table, name, made) for name in names}
        connection.execute(table.insert().values(row).inline())
        kept.setdefault(table.name, {})[row["id"]] = row


def _opened(url: str, work: Callable[[Connection], None]) -> None:
    opened = create_engine(url, json_serializer=json_text, json_deserializer=json_value)
    with opened.begin() as connection:
        work(connection)
    opened.dispose()


def _assert_kept(url: str, kept: Rows, changed: set[tuple[str, str]]) -> None:
    def compare(connection: Connection) -> None:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
        for name, rows in kept.items():
            table = Base.metadata.tables[name]
            found = {row["id"]: dict(row) for row in connection.execute(select(table)).mappings()}
            assert set(found) == set(rows), name
            for key, row in rows.items():
                same = {column for column in row if (name, column) not in changed}
                assert {column: found[key][column] for column in same} == {column: row[column] for column in same}

    _opened(url, compare)


CHANGED = {
    ("sessions", "state_since"),
    ("replicas", "priority"),
    ("replicas", "size_bytes"),
    ("replicas", "checked_at"),
}
"""What a migration fills, or fills anew."""
CHANGED |= {("exposures", "stem_digest")}


def test_every_revision_with_rows_becomes_this_one(empty_url: str) -> None:
    """Rows that were written under each revision are all there under the newest, each value as it was, and are read."""
    kept: Rows = {}
    for revision in REVISIONS:
        engine.upgrade(empty_url, revision)
        _opened(empty_url, lambda connection: _fill(connection, kept))
    assert engine.upgrade(empty_url) == engine.head() == REVISIONS[-1]
    _assert_kept(empty_url, kept, CHANGED)
    catalog = engine.open_catalog(empty_url, "here")
    found = sessions.list_all(catalog)
    assert len(found) == len(REVISIONS)
    for session in found:
        assert len(exposures.page(catalog, session.id, limit=10, before=None)) == 1
        assert len(files.of_session(catalog, session.id, limit=10)) == 1
        assert len(events.recent(catalog, session_id=session.id)) == 1
    catalog.close()


@contextmanager
def _killed_by_what_is_new(seen: set[str]) -> Iterator[None]:
    """In it, whoever migrates dies as soon as a change was executed that none before has executed."""

    def executed(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.split()[0] in ("CREATE", "ALTER", "DROP", "UPDATE", "INSERT") and statement not in seen:
            seen.add(statement)
            raise _Killed

    event.listen(Engine, "after_cursor_execute", executed)
    try:
        yield
    finally:
        event.remove(Engine, "after_cursor_execute", executed)


def test_an_upgrade_that_is_killed_at_any_statement_is_completed_by_the_next(empty_url: str) -> None:
    """Killed after each statement of the newest migrations in turn: nothing opens the catalog then, and in the end
    there are the same tables and rows as without a kill."""
    kept: Rows = {}
    engine.upgrade(empty_url, REVISIONS[5])
    _opened(empty_url, lambda connection: _fill(connection, kept))
    seen: set[str] = set()
    while True:
        try:
            with _killed_by_what_is_new(seen):
                engine.upgrade(empty_url)
            break
        except _Killed:
            pass
        if len(seen) % 10 == 1:
            with pytest.raises(CatalogError, match="coldchain catalog upgrade"):
                engine.open_catalog(empty_url, "here")
    assert len(seen) > 20
    _assert_kept(empty_url, kept, CHANGED)
    engine.open_catalog(empty_url, "here").close()


def test_a_killed_upgrade_of_an_embedded_catalog_leaves_the_old_one(tmp_path: Path) -> None:
    """SQLite's migration is one transaction: nothing of one that was killed is there."""
    url = f"sqlite:///{tmp_path / 'c.sqlite'}"
    engine.upgrade(url, REVISIONS[0])
    tables = execute(url, "SELECT name, sql FROM sqlite_master ORDER BY name")
    seen: set[str] = set()
    for _ in range(5):
        with pytest.raises(_Killed), _killed_by_what_is_new(seen):
            engine.upgrade(url)
        assert execute(url, "SELECT name, sql FROM sqlite_master ORDER BY name") == tables


@pytest.mark.parametrize("revision", REVISIONS)
def test_migrations_use_only_what_can_be_done_again(revision: str) -> None:
    """Every `op.` in a migration is one that looks first whether it was done."""
    (path,) = (Path(again.__file__).parent / "versions").glob(f"{revision}_*.py")
    used = {
        node.func.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if isinstance(node.func.value, ast.Name) and node.func.value.id == "op"
    }
    assert used <= {"create_table", "create_index", "drop_index", "add_column", "execute", "get_bind"}
