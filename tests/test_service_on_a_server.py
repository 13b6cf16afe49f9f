"""A facility whose catalog is on a database server."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from coldchain.catalog import events
from coldchain.catalog.engine import Catalog, upgrade
from coldchain.model.results import Step
from tests.facility import DEADLINE_SECONDS, TestFacility, make_facility, write_small_movie
from tests.mariadb_servers import PASSWORD, MariaDbServer, require_mariadb
from tests.test_service import all_done, assert_copies_are_whole, done_steps, progress


@pytest.fixture
def on_a_server(tmp_path: Path) -> tuple[TestFacility, MariaDbServer]:
    """A facility, and the server that its catalog is on; the password is in a file."""
    require_mariadb()
    facility, server = make_facility(tmp_path / "facility"), MariaDbServer(tmp_path / "server")
    (facility.root / "catalog.sqlite").unlink()
    (facility.root / "password").write_text(PASSWORD)
    place = f"mysql+pymysql://coldchain@127.0.0.1:{server.port}/facility"
    with facility.config_file.open("a") as file:
        file.write(f'[catalog]\nurl = "{place}"\npassword_file = "password"\n')
    return facility, server


def test_the_server_dies_and_comes_back_under_a_running_service(
    on_a_server: tuple[TestFacility, MariaDbServer],
) -> None:
    """Movies come before, while and after the server is away, and one goes again: it is noted on the spot and named
    later. The page says what is the matter. In the end each movie that is there is copied and each step done once, and
    the log says what was wrong, without the password."""
    facility, server = on_a_server
    with server:
        server.make_database("facility")
        upgrade(server.url("facility"))
        with facility.running() as process:
            write_small_movie(facility.camera / "visit" / "before.tif", seed=1)
            facility.wait(lambda catalog: progress(catalog) > 2)
            server.kill()
            for number, name in enumerate(("while", "gone"), start=2):
                write_small_movie(facility.camera / "visit" / f"{name}.tif", seed=number)
            _wait(facility, lambda: "the catalog's server is away" in facility.log())
            _wait(facility, lambda: all(f"visit/{name}.tif" in _noted(facility) for name in ("while", "gone")))
            (facility.camera / "visit" / "gone.tif").unlink()
            for path in ("/", "/api/sessions"):
                answer = httpx.get(facility.url() + path, timeout=60)
                assert answer.status_code == 503
                assert "server is away" in answer.text and "Traceback" not in answer.text
                assert PASSWORD not in answer.text
            assert process.poll() is None
            server.start()
            write_small_movie(facility.camera / "visit" / "after.tif", seed=4)
            facility.wait(lambda catalog: all_done(catalog, 3))
            facility.wait(lambda catalog: bool(_told(catalog)) and not _noted(facility))
        with facility.catalog() as catalog:
            assert set(done_steps(catalog).values()) == {1}
            assert len(done_steps(catalog)) == 3 * len(Step)
            assert_copies_are_whole(facility, catalog)
            assert any("visit/gone.tif" in message for message in _told(catalog))
            assert not any("visit/while.tif" in message for message in _told(catalog))
    assert PASSWORD not in facility.log() and "p%40ss" not in facility.log()


def _wait(facility: TestFacility, holds: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < until, facility.log()
        time.sleep(0.1)


def _noted(facility: TestFacility) -> str:
    """What stands in the journals of what is waited for."""
    return "".join(file.read_text() for file in facility.root.glob(".coldchain.away-*"))


def _told(catalog: Catalog) -> list[str]:
    return [event.message for event in events.recent(catalog, limit=1000) if event.kind == "catalog.back"]
