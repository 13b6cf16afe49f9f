"""One service at a time serves a site by a catalog server; the turn outlives neither its process nor its host."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coldchain import config
from coldchain.catalog import engine, events, service_turn
from coldchain.catalog.service_turn import ServiceTurn
from coldchain.cli.store import app as store_app
from coldchain.errors import CatalogError, ColdchainError
from coldchain.model.events import Severity
from coldchain.service import site_to_itself
from tests.mariadb_servers import MariaDbServer
from tests.two_primaries import wait_until

pytestmark = pytest.mark.only_on("mariadb")
HOLDERS = "SELECT id FROM information_schema.processlist WHERE id = IS_USED_LOCK('{}')"


@pytest.fixture
def make_turn(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ServiceTurn]]:
    """Makes turns of sites, which wait for nobody."""
    monkeypatch.setattr(service_turn, "_KILLED_SECONDS", 0)
    made = []

    def make(site: str = "here") -> ServiceTurn:
        catalog = engine.open_catalog(url, site)
        made.append((ServiceTurn(catalog), catalog))
        return made[-1][0]

    yield make
    for turn, catalog in made:
        turn.stop()
        catalog.close()


def _kill_the_holder(server: MariaDbServer, turn: ServiceTurn) -> None:
    query = HOLDERS.format(turn._name)
    (holder,) = server.run(query)
    server.run(f"KILL {holder['id']}")
    wait_until(lambda: not server.run(query))


def test_a_second_service_of_a_site_is_told_who_serves_it(make_turn: Callable[..., ServiceTurn]) -> None:
    """It is refused with process, host, time and address of the first, and what to do; another site has its own turn,
    and what is given back can be had."""
    first, second = make_turn(), make_turn()
    first.take()
    with pytest.raises(CatalogError, match=r"serves the site 'here': its connection comes from 127\.0\.0\.1") as caught:
        second.take()
    assert "Stop that one first" in caught.value.remedy and not caught.value.retry
    events.record(first._catalog, Severity.INFO, service_turn.KIND, "process 7 on scope")
    events.record(first._catalog, Severity.INFO, "a.b", "later")
    with pytest.raises(CatalogError, match=r"process 7 on scope, since \d{4}-\d\d-\d\d .* UTC; its connection"):
        second.take()
    make_turn("there").take()
    first.stop()
    second.take()


def test_a_turn_whose_connection_was_lost_is_taken_again(
    make_turn: Callable[..., ServiceTurn], mariadb: MariaDbServer
) -> None:
    """As after a restart of the server: it is the same service's again, and nobody else gets it."""
    turn = make_turn()
    turn.take()
    turn.start()
    _kill_the_holder(mariadb, turn)
    turn.look()
    assert turn.alive()
    with pytest.raises(CatalogError, match="serves the site"):
        make_turn().take()


def test_a_service_whose_turn_another_has_taken_ends(
    make_turn: Callable[..., ServiceTurn],
    mariadb: MariaDbServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At first the holder may be its own lost connection; later it is another service, which is said."""
    first, second = make_turn(), make_turn()
    first.take()
    first.start()
    _kill_the_holder(mariadb, first)
    second.take()
    first.look()
    assert first.alive()
    monkeypatch.setattr(service_turn, "_OWN_SECONDS", -1.0)
    first.look()
    assert not first.alive() and "another `coldchain run` serves this site now" in caplog.text
    first.look()
    second.look()
    assert second._is_held()


def test_a_store_is_not_mended_beside_a_service_elsewhere(
    make_turn: Callable[..., ServiceTurn], url: str, tmp_path: Path
) -> None:
    """`coldchain store adopt` and `repair` have the site to themselves, and hold it while they work."""
    (tmp_path / "facility.toml").write_text(
        f'[facility]\nname = "A"\nsite = "here"\n[catalog]\nurl = "{url}"\n[[store]]\nname = "live"\nurl = "live"\n'
    )
    turn = make_turn()
    turn.take()
    for words in (["adopt", "live"], ["repair", "live"]):
        done = CliRunner().invoke(store_app, [*words, "--config", str(tmp_path / "facility.toml")])
        assert isinstance(done.exception, ColdchainError) and "serves the site 'here'" in str(done.exception)
    turn.stop()
    settings = config.load(tmp_path / "facility.toml")
    with site_to_itself(settings, turn._catalog), pytest.raises(CatalogError, match="serves the site"):
        make_turn().take()
    make_turn().take()


def test_a_turn_ends_with_its_process(
    make_turn: Callable[..., ServiceTurn], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is killed holds up nobody: whoever starts at once waits until the server has noticed."""
    take = "import sys; from coldchain.catalog import engine, service_turn as t; "
    take += "turn = t.ServiceTurn(engine.open_catalog(sys.argv[1], 'here')); turn.take(); print(flush=True); input()"
    first = subprocess.Popen([sys.executable, "-c", take, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with first:
        assert first.stdout is not None and first.stdout.readline() == b"\n"
        with pytest.raises(CatalogError, match="serves the site"):
            make_turn().take()
        first.kill()
    monkeypatch.setattr(service_turn, "_KILLED_SECONDS", 30)
    make_turn().take()


def test_a_turn_ends_with_its_host(make_turn: Callable[..., ServiceTurn], monkeypatch: pytest.MonkeyPatch) -> None:
    """What says nothing any more holds up nobody for long: the server itself closes its connection."""
    monkeypatch.setattr(service_turn, "_SILENT_SECONDS", 1)
    gone, second = make_turn(), make_turn()
    gone.take()

    def is_free() -> bool:
        try:
            second.take()
        except CatalogError:
            return False
        return True

    wait_until(is_free)
    assert not gone._is_held()
