"""A planted facility, its site on a real port, and a client that asks it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.web.planted import Facility, migrated_catalog, open_facility, served


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of an empty catalog."""
    return migrated_catalog(tmp_path_factory.mktemp("migrated"))


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium, as Debian packages it."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium fonts-dejavu-core)")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        yield launched
        launched.close()


@pytest.fixture
def facility(tmp_path: Path, migrated: bytes) -> Iterator[Facility]:
    """An empty facility."""
    made = open_facility(tmp_path, migrated)
    yield made
    made.catalog.close()


@pytest.fixture
def client(facility: Facility) -> Iterator[httpx.Client]:
    """A client of the facility's site."""
    with served(facility) as url, httpx.Client(base_url=url, trust_env=False) as made:
        yield made
