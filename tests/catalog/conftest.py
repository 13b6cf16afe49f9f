"""A catalog in a real SQLite file and in a real MariaDB, and what most tests of it begin with."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest

from coldchain.catalog import engine
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import Base
from coldchain.model.session import Session
from tests.catalog.catalog_givens import new_session
from tests.mariadb_servers import MariaDbServer, require_mariadb

DATABASE = "catalog"
OTHER_DATABASE = "new"
_MEMORY = Path("/dev/shm")  # a server that flushes to memory: these tests are not about disks
_ENOUGH_BYTES = 1 << 30
_NO_SUCH_TABLE = 1146


def pytest_configure(config: pytest.Config) -> None:
    """Declare what `database` reads."""
    config.addinivalue_line("markers", "only_on(kind): of the databases that the catalog can be in, this one")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what uses a catalog on each kind of database, or on the one that `only_on` says."""
    if "database" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("only_on")
        metafunc.parametrize("database", [marker.args[0]] if marker else ["sqlite", "mariadb"], scope="session")


@pytest.fixture(scope="session")
def database(request: pytest.FixtureRequest) -> str:
    """The kind of database of a test: "sqlite" or "mariadb"."""
    return str(request.param)


@pytest.fixture(scope="session")
def _migrated(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("template") / "catalog.sqlite"
    engine.upgrade(f"sqlite:///{path}")
    assert not path.with_name("catalog.sqlite-wal").exists()
    return path.read_bytes()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDbServer]:
    """A MariaDB for as long as the tests run, without any database."""
    require_mariadb()
    in_memory = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ENOUGH_BYTES
    folder = Path(tempfile.mkdtemp(prefix="catalog-", dir=_MEMORY if in_memory else None))
    try:
        with MariaDbServer(folder) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def url(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> str:
    """The URL of a migrated, empty catalog."""
    if database == "mariadb":
        server = request.getfixturevalue("mariadb")
        _empty(server)
        return str(server.url(DATABASE))
    path = tmp_path / "catalog.sqlite"
    path.write_bytes(request.getfixturevalue("_migrated"))
    return f"sqlite:///{path}"


@pytest.fixture
def empty_url(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> str:
    """The URL of a place for a catalog, without any tables."""
    if database == "mariadb":
        server = request.getfixturevalue("mariadb")
        server.make_database(OTHER_DATABASE)
        return str(server.url(OTHER_DATABASE))
    return f"sqlite:///{tmp_path / 'new.sqlite'}"


def _empty(server: MariaDbServer) -> None:
    """Empty the catalog of the tests before; make it where there is none, or where it is not whole."""
    # 5 ms, where another database takes half a second.
    try:
        with server.connect(DATABASE) as connection, connection.cursor() as cursor:
            cursor.execute("SET foreign_key_checks = 0, innodb_lock_wait_timeout = 5, autocommit = 0")
            for table in Base.metadata.sorted_tables:
                cursor.execute(f"DELETE FROM {table.name}")
            cursor.execute("UPDATE alembic_version SET version_num = %s", [engine.head()])
            connection.commit()
    except (pymysql.ProgrammingError, pymysql.OperationalError) as error:
        assert error.args[0] in (_NO_SUCH_TABLE, 1049), error
        server.make_database(DATABASE)
        engine.upgrade(server.url(DATABASE))


@pytest.fixture
def catalog(url: str) -> Iterator[Catalog]:
    """An open, empty catalog."""
    opened = engine.open_catalog(url, "here")
    yield opened
    opened.close()


@pytest.fixture
def session(catalog: Catalog) -> Session:
    """A session in the catalog."""
    return new_session(catalog)
