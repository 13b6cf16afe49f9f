"""A facility whose catalog is on a database server."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from coldchain import config
from coldchain.catalog import events
from coldchain.catalog.engine import Catalog, upgrade
from coldchain.cli.run import begin
from coldchain.errors import CatalogError
from coldchain.model.results import Step
from tests.facility import DEADLINE_SECONDS, TestFacility, make_facility, standing_files, write_small_movie
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


@pytest.mark.parametrize(
    ("movies", "seconds"), [pytest.param(1, 0, id="short"), pytest.param(20, 60, id="60 s", marks=pytest.mark.chaos)]
)
def test_the_server_dies_and_comes_back_under_a_running_service(
    on_a_server: tuple[TestFacility, MariaDbServer], capsys: pytest.CaptureFixture[str], movies: int, seconds: int
) -> None:
    """Started before its catalog's server, the service waits for it; it alone serves its site. Movies come before,
    while and after the server is away, and one goes again: it is noted on the spot and named later. The page says what
    is the matter. In the end each movie that is there is copied and each step done once, and the log says what was
    wrong, without the password."""
    facility, server = on_a_server
    names = [f"while{number}" for number in range(movies)]
    with server:
        server.make_database("facility")
        upgrade(server.url("facility"))
        server.stop()
        with facility.running() as process:
            _wait(facility, lambda: "cannot begin yet, and tries again in 1 s" in facility.log())
            assert "server is away" in facility.log() and "Look whether the server runs" in facility.log()
            server.start()
            write_small_movie(facility.camera / "visit" / "before.tif", seed=1)
            facility.wait(lambda catalog: progress(catalog) > 2)
            said = (
                rf"serves the site 'main': `coldchain run`, process {process.pid} on .*, since \d{{4}}-.* 127\.0\.0\.1"
            )
            _refuses_at_once(facility, server.url("facility"), said)
            _refuses_at_once(facility, server.url("facility", password="wr0ng"), "refuses the login")
            server.kill()
            killed_at = time.monotonic()
            for number, name in enumerate((*names, "gone"), start=2):
                write_small_movie(facility.camera / "visit" / f"{name}.tif", seed=number)
                time.sleep(0.8 * seconds / movies)
            _wait(facility, lambda: "the catalog's server is away" in facility.log())
            _wait(facility, lambda: all(f"visit/{name}.tif" in _noted(facility) for name in (*names, "gone")))
            (facility.camera / "visit" / "gone.tif").unlink()
            for path in ("/", "/api/sessions"):
                answer = httpx.get(facility.url() + path, timeout=60)
                assert answer.status_code == 503
                assert "server is away" in answer.text and "Traceback" not in answer.text
                assert PASSWORD not in answer.text
            time.sleep(max(0.0, seconds - (time.monotonic() - killed_at)))
            assert process.poll() is None
            away_seconds = time.monotonic() - killed_at
            server.start()
            back_at = time.monotonic()
            write_small_movie(facility.camera / "visit" / "after.tif", seed=movies + 3)
            facility.wait(lambda catalog: len(standing_files(catalog)) == movies + 2)
            delivered_seconds = time.monotonic() - back_at
            facility.wait(lambda catalog: all_done(catalog, movies + 2))
            facility.wait(lambda catalog: bool(_told(catalog)) and not _noted(facility))
            if seconds:
                _wait(facility, lambda: "the site's turn is taken again" in facility.log())
        with facility.catalog() as catalog:
            assert set(done_steps(catalog).values()) == {1}
            assert len(done_steps(catalog)) == (movies + 2) * len(Step)
            assert_copies_are_whole(facility, catalog)
            assert any("visit/gone.tif" in message for message in _told(catalog))
            assert not any("visit/while" in message for message in _told(catalog))
    assert PASSWORD not in facility.log() and "p%40ss" not in facility.log()
    if seconds:
        with capsys.disabled():
            sys.stdout.write(
                f"the server was away for {away_seconds:.0f} s, {movies} movies came meanwhile and stay, 1 went again; "
                f"all were journalled {delivered_seconds:.1f} s after it was back\n"
            )


def test_whoever_waits_for_a_server_can_be_stopped(on_a_server: tuple[TestFacility, MariaDbServer]) -> None:
    """A service that waits for its catalog ends where it is told to."""
    facility, _ = on_a_server
    stopping = threading.Event()
    threading.Timer(0.5, stopping.set).start()
    assert begin(config.load(facility.config_file), stopping) is None


def _refuses_at_once(facility: TestFacility, url: str, said: str) -> None:
    """What no waiting mends ends the start."""
    settings = config.load(facility.config_file)
    wrong = settings.model_copy(update={"catalog": settings.catalog.model_copy(update={"url": url})})
    with pytest.raises(CatalogError, match=said):
        begin(wrong, threading.Event())


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
