"""Opening, migrating, transacting and failing."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateTable

from coldchain.catalog import engine, sessions
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import Base
from coldchain.errors import CatalogError
from coldchain.model.session import Session
from tests.catalog.catalog_givens import arrive, execute, known, new_session


def _file(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def test_migrations_give_the_models_tables(url: str) -> None:
    """The migrated tables are exactly those of the models: columns, types, indexes, keys."""
    opened = create_engine(url)
    with opened.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    opened.dispose()


@pytest.mark.only_on("sqlite")
def test_models_and_migrated_tables_agree_on_the_sql(url: str, tmp_path: Path) -> None:
    """The same SQL comes of the models and of the migrations, names of keys and constraints included."""

    def statements(path: Path) -> dict[str, list[str]]:
        with sqlite3.connect(path) as connection:
            rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql NOT NULL").fetchall()
        return {name: sorted(sql.replace(",", "\n").split()) for name, sql in rows if name != "alembic_version"}

    direct = create_engine(f"sqlite:///{tmp_path / 'direct.sqlite'}")
    Base.metadata.create_all(direct)
    direct.dispose()
    assert statements(_file(url)) == statements(tmp_path / "direct.sqlite")


def test_upgrade_twice_changes_nothing(url: str) -> None:
    """An upgrade of an up-to-date catalog keeps its rows and says the same revision."""
    catalog = engine.open_catalog(url, "here")
    session = new_session(catalog)
    assert engine.upgrade(url) == engine.upgrade(url) == engine.head()
    assert sessions.get(catalog, session.id) == session
    catalog.close()


@pytest.mark.parametrize("table", Base.metadata.sorted_tables, ids=lambda table: table.name)
def test_tables_fit_mariadb(table) -> None:
    """No index is longer than 3072 bytes and no row than 65,535, and text compares as code points there."""
    dialect = mysql.dialect()
    ddl = str(CreateTable(table).compile(dialect=dialect))
    assert "DATETIME(6)" in ddl or "DATETIME" not in ddl

    def width_bytes(column) -> int:
        sql = column.type.dialect_impl(dialect).compile(dialect=dialect)
        kind, _, size = sql.partition("(")
        if kind in ("VARCHAR", "CHAR"):
            return 4 * int(size.split(")")[0])
        if kind in ("VARBINARY", "BINARY"):
            return int(size.split(")")[0])
        return 12  # numbers, times, and the stubs of JSON and MEDIUMTEXT

    assert sum(width_bytes(column) for column in table.columns) < 65_535
    for index in table.indexes:
        assert sum(width_bytes(column) for column in index.columns) <= 3072, index.name


def test_an_absent_catalog_is_not_made_by_opening(tmp_path: Path) -> None:
    """Opening what is not there says to upgrade, and leaves no empty file behind."""
    with pytest.raises(CatalogError, match=r"coldchain catalog upgrade"):
        engine.open_catalog(f"sqlite:///{tmp_path / 'none.sqlite'}", "here")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_database_says_upgrade(tmp_path: Path) -> None:
    """A database without tables says to upgrade."""
    (tmp_path / "empty.sqlite").touch()
    with pytest.raises(CatalogError, match=r"no tables yet.*coldchain catalog upgrade"):
        engine.open_catalog(f"sqlite:///{tmp_path / 'empty.sqlite'}", "here")


def test_a_newer_catalog_is_refused(url: str) -> None:
    """A catalog that a newer Coldchain has migrated is neither opened nor touched by an upgrade."""
    execute(url, "UPDATE alembic_version SET version_num = '9999'")
    for attempt in (lambda: engine.open_catalog(url, "here"), lambda: engine.upgrade(url)):
        with pytest.raises(CatalogError, match=r"9999.*upgrade this one"):
            attempt()


@pytest.mark.parametrize(
    "bad", ["", "nonsense", "sqlite://", "sqlite:///:memory:", "mysql://u:secret@h:port/db", "nosuch://u:secret@h/db"]
)
def test_an_unusable_url_shows_no_password(bad: str) -> None:
    """A URL that cannot be used is a stated error without its password."""
    for attempt in (lambda: engine.open_catalog(bad, "here"), lambda: engine.upgrade(bad)):
        with pytest.raises(CatalogError) as caught:
            attempt()
        assert "secret" not in str(caught.value)


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's URL without its driver names the package that is missing, and no password."""
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(CatalogError, match="the Python package pymysql") as caught:
        engine.open_catalog("mysql+pymysql://u:secret@localhost/db", "here")
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_catalog_is_refused(tmp_path: Path) -> None:
    """A file that is not SQLite's is a stated error and stays as it is."""
    path = tmp_path / "notes.txt"
    path.write_bytes(b"not a database" * 100)
    for attempt in (
        lambda: engine.open_catalog(f"sqlite:///{path}", "here"),
        lambda: engine.upgrade(f"sqlite:///{path}"),
    ):
        with pytest.raises(CatalogError, match="not a catalog"):
            attempt()
    assert path.read_bytes() == b"not a database" * 100


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """An upgrade into a folder that is not there names the folder and makes nothing: a disk may not be mounted."""
    with pytest.raises(CatalogError, match="folder is not there"):
        engine.upgrade(f"sqlite:///{tmp_path / 'none' / 'c.sqlite'}")
    assert not (tmp_path / "none").exists()


def test_a_site_needs_a_name(url: str) -> None:
    """Rows must have an owner."""
    with pytest.raises(CatalogError, match="site"):
        engine.open_catalog(url, "")


@pytest.mark.only_on("sqlite")
def test_sqlite_is_set_up_to_survive_power_cuts(catalog: Catalog) -> None:
    """Every connection has WAL, full synchronisation, foreign keys and a busy time-out of 30 s."""
    with catalog.reading() as unit:
        pragmas = {
            name: unit.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}


def test_a_reader_is_not_blocked_by_a_writer(catalog: Catalog, session: Session) -> None:
    """Pages are served, from what is committed, while a transaction writes."""
    with catalog.writing() as unit:
        unit.execute(text("UPDATE sessions SET owner_name = 'changed'"))
        assert sessions.get(catalog, session.id).owner_name == ""
    assert sessions.get(catalog, session.id).owner_name == "changed"


@pytest.mark.only_on("sqlite")
def test_a_locked_catalog_says_so(
    url: str, catalog: Catalog, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that waits in vain for another process gets a stated error with a remedy."""
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.05)
    impatient = engine.open_catalog(url, "here")
    other = sqlite3.connect(_file(url), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(CatalogError, match="another process holds the catalog"):
        arrive(impatient, session)
    other.execute("ROLLBACK")
    other.close()
    assert arrive(impatient, session).relative_path == "a/movie.tiff"
    impatient.close()


def _broken(catalog: Catalog, pragma: str) -> None:
    with catalog.reading() as unit:  # the pool keeps this connection for the next transaction
        unit.execute(text(pragma))


@pytest.mark.only_on("sqlite")
def test_a_full_disk_says_so_and_loses_nothing(catalog: Catalog, session: Session) -> None:
    """Where no page can be added, the transaction is undone and the error says to free space."""
    first = arrive(catalog, session, "first")
    _broken(catalog, "PRAGMA max_page_count = 1")
    with pytest.raises(CatalogError, match="no space is left") as caught:
        for number in range(2000):
            arrive(catalog, session, f"{number}/" + "x" * 200)
    assert "Free space" in caught.value.remedy
    assert first.relative_path in known(catalog, session.id)


@pytest.mark.only_on("sqlite")
def test_a_read_only_catalog_says_so(catalog: Catalog, session: Session) -> None:
    """A catalog that cannot be written names the permission that it lacks."""
    _broken(catalog, "PRAGMA query_only = 1")
    with pytest.raises(CatalogError, match="cannot be written"):
        arrive(catalog, session)


def test_a_missing_table_says_upgrade(url: str, catalog: Catalog, session: Session) -> None:
    """A table that is gone is a stated error with the command to run."""
    execute(url, "DROP TABLE events")
    with pytest.raises(CatalogError, match="coldchain catalog upgrade"):
        arrive(catalog, session)
    assert known(catalog, session.id) == {}


@pytest.mark.only_on("sqlite")
def test_a_damaged_catalog_says_restore(url: str) -> None:
    """A catalog whose pages are overwritten is a stated error that says to restore it."""
    path = _file(url)
    raw = bytearray(path.read_bytes())
    raw[4096:] = b"\xa5" * (len(raw) - 4096)
    path.write_bytes(raw)
    with pytest.raises(CatalogError, match="damaged"):
        catalog = engine.open_catalog(url, "here")
        sessions.list_all(catalog)


def test_an_exception_undoes_the_whole_transaction(catalog: Catalog, session: Session) -> None:
    """What fails in its middle leaves nothing: neither file nor event."""
    with pytest.raises(CatalogError):
        arrive(catalog, session, "fine", stores=("live", "bad\0name"))
    assert known(catalog, session.id) == {}


def test_close_twice_does_no_harm(url: str) -> None:
    """Closing is idempotent."""
    catalog = engine.open_catalog(url, "here")
    catalog.close()
    catalog.close()
