"""A catalog in a real SQLite file, and what most tests of it begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coldchain.catalog import engine
from coldchain.catalog.engine import Catalog
from coldchain.model.session import Session
from tests.catalog.catalog_givens import new_session


@pytest.fixture(scope="session")
def _migrated(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("template") / "catalog.sqlite"
    engine.upgrade(f"sqlite:///{path}")
    assert not path.with_name("catalog.sqlite-wal").exists()
    return path.read_bytes()


@pytest.fixture
def url(tmp_path: Path, _migrated: bytes) -> str:
    """The URL of a migrated, empty catalog."""
    path = tmp_path / "catalog.sqlite"
    path.write_bytes(_migrated)
    return f"sqlite:///{path}"


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
