"""A camera's folder and an empty catalog."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from coldchain.catalog import engine
from coldchain.catalog.engine import Catalog


@pytest.fixture(scope="session")
def empty_catalog(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a migrated catalog with nothing in it."""
    path = tmp_path_factory.mktemp("template") / "catalog.sqlite"
    engine.upgrade(f"sqlite:///{path}")
    return path.read_bytes()


@pytest.fixture
def catalog_url(tmp_path: Path, empty_catalog: bytes) -> str:
    """The URL of an empty catalog."""
    path = tmp_path / "catalog.sqlite"
    path.write_bytes(empty_catalog)
    return f"sqlite:///{path}"


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    """An empty catalog, open."""
    opened = engine.open_catalog(catalog_url, "here")
    yield opened
    opened.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty movie root."""
    folder = tmp_path / "movies"
    folder.mkdir()
    return folder


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach (pytest's own folders are closed to them)."""
    folder = Path(tempfile.mkdtemp(prefix="coldchain-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)
