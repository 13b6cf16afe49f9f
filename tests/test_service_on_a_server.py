"""A facility whose catalog is on a database server."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from coldchain.catalog.engine import upgrade
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
    """Movies come before, while and after the server is away; in the end each is copied and each step done once, and
    the log says what was wrong, without the password."""
    facility, server = on_a_server
    with server:
        server.make_database("facility")
        upgrade(server.url("facility"))
        with facility.running():
            write_small_movie(facility.camera / "visit" / "before.tif", seed=1)
            facility.wait(lambda catalog: progress(catalog) > 2)
            server.kill()
            write_small_movie(facility.camera / "visit" / "while.tif", seed=2)
            until = time.monotonic() + DEADLINE_SECONDS
            while "the catalog's server is away" not in facility.log():
                assert time.monotonic() < until, facility.log()
                time.sleep(0.1)
            server.start()
            write_small_movie(facility.camera / "visit" / "after.tif", seed=3)
            facility.wait(lambda catalog: all_done(catalog, 3))
        with facility.catalog() as catalog:
            assert set(done_steps(catalog).values()) == {1}
            assert len(done_steps(catalog)) == 3 * len(Step)
            assert_copies_are_whole(facility, catalog)
    assert PASSWORD not in facility.log() and "p%40ss" not in facility.log()
