"""One service at a time serves a site by a catalog server; the turn outlives neither its process nor its host."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pymysql
import pytest
from sqlalchemy import Connection, Executable
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from coldchain import config
from coldchain.catalog import engine, events, service_turn, stores
from coldchain.catalog.engine import Catalog
from coldchain.catalog.service_turn import ServiceTurn
from coldchain.cli import store_mend
from coldchain.cli.store import app as store_app
from coldchain.errors import CatalogError, ColdchainError
from coldchain.model.events import Severity
from coldchain.service import site_to_itself
from coldchain.storage.copies.copier import Copier
from coldchain.storage.memory import MemoryStore
from tests.mariadb_servers import MariaDbServer
from tests.two_primaries import wait_until

pytestmark = pytest.mark.only_on("mariadb")
HOLDERS = "SELECT id FROM information_schema.processlist WHERE id = IS_USED_LOCK('{}')"


@pytest.fixture
def make_turn(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ServiceTurn]]:
    """Makes turns of sites, which wait for nobody."""
    monkeypatch.setattr(service_turn, "_KILLED_SECONDS", 0)
    made = []

    def make(site: str = "here", url: str = url) -> ServiceTurn:
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
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It ends with its first look, and says who has the turn; the other goes on."""
    first, second = make_turn(), make_turn()
    first.take()
    first.start()
    first.require()
    _kill_the_holder(mariadb, first)
    second.take()
    first.look()
    assert not first.alive() and "another `coldchain run` serves this site now" in caplog.text
    assert "its connection comes from 127.0.0.1" in caplog.text
    with pytest.raises(CatalogError, match="serves the site 'here' now"):
        first.require()
    first.look()
    second.look()
    assert second._is_held()


def _cut(turn: ServiceTurn) -> Connection:
    """The connection of a turn, which is given up without a word to the server."""
    connection, turn._connection = turn._connection, None
    assert connection is not None
    return connection


def test_a_services_own_dead_connection_is_waited_for(make_turn: Callable[..., ServiceTurn]) -> None:
    """While the server does not know that the connection is dead, it holds the turn: for as long as that takes this
    service works on, and then has the turn again."""
    turn = make_turn()
    turn.take()
    turn.start()
    dead = _cut(turn)
    for _ in range(3):
        turn.look()
        assert turn.alive() and not turn._is_held()
    dead.close()
    wait_until(lambda: turn.look() == 0 and turn._is_held())
    assert turn.alive()


def test_a_service_ends_in_order_after_its_connection_was_lost(
    make_turn: Callable[..., ServiceTurn], mariadb: MariaDbServer
) -> None:
    """The server was started again, or the link was cut, and the service is stopped before it has noticed."""
    turn = make_turn()
    turn.take()
    turn.start()
    _kill_the_holder(mariadb, turn)
    turn.stop()
    make_turn().take()


class _Deaf:
    """A connection that is cut right after the server was asked for a lock of this name, before it answers."""

    def __init__(self, real: Connection, name: str) -> None:
        self._real = real
        self._name = name

    def scalar(self, statement: object, given: dict[str, object]) -> object:
        """What the server answers, unless that gets lost."""
        answer = self._real.scalar(statement, given)  # type: ignore[call-overload]
        if given["name"] == self._name:
            raise OperationalError("GET_LOCK", {}, pymysql.OperationalError(2013, "Lost connection during query"))
        return answer

    def execute(self, statement: Executable) -> object:
        """What the server answers."""
        return self._real.execute(statement)

    def close(self) -> None:
        """The link is cut: the server does not hear of it."""


@pytest.mark.parametrize("lost", ["turn", "mark"])
def test_a_turn_whose_answer_was_lost_is_this_services(
    make_turn: Callable[..., ServiceTurn], mariadb: MariaDbServer, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """The server gave the turn, or its mark, to a connection that was cut before it could say so: no other service has
    it, and this one goes on."""
    turn = make_turn()
    turn.take()
    turn.start()
    _kill_the_holder(mariadb, turn)
    real = turn._catalog.lasting_connection()
    with monkeypatch.context() as patch:
        if lost == "mark":
            patch.setattr(service_turn, "new_id", lambda: UUID(int=7))
        name = turn._name if lost == "turn" else f"coldchain.mark.{UUID(int=7).hex}"
        patch.setattr(turn._catalog, "lasting_connection", lambda: _Deaf(real, name))
        turn.look()
    assert bool(mariadb.run(HOLDERS.format(name)))
    turn.look()
    assert turn.alive() and turn._is_held() is (lost == "mark")
    real.close()
    wait_until(lambda: turn.look() == 0 and turn._is_held())
    assert turn.alive()


def test_a_server_that_was_started_again_has_no_holder_of_before(
    make_turn: Callable[..., ServiceTurn], tmp_path: Path
) -> None:
    """It counts its connections from the beginning: another service whose connection has the number that this one's
    had is another all the same."""

    def number() -> int:
        (row,) = server.run("SELECT CONNECTION_ID() AS id")
        return int(row["id"])

    with MariaDbServer(tmp_path / "server") as server:
        server.make_database("catalog")
        there = str(server.url("catalog"))
        engine.upgrade(there)
        while number() < 60:
            pass
        first, second = make_turn(url=there), make_turn(url=there)
        first.take()
        first.start()
        (before,) = server.run(HOLDERS.format(first._name))
        second._catalog.close()
        server.restart()
        while number() < before["id"] - 1:
            pass
        second.take()
        (after,) = server.run(HOLDERS.format(second._name))
        assert after["id"] == before["id"]
        first.look()
        assert not first.alive() and second._is_held()
        for turn in (first, second):
            turn.stop()


def test_what_has_a_site_to_itself_hears_when_it_has_no_more(
    make_turn: Callable[..., ServiceTurn],
    url: str,
    mariadb: MariaDbServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A service that waits for the turn gets it when the holder's connection is lost, and whoever has made sure of the
    site is told before the next piece of work."""
    monkeypatch.setattr(service_turn, "_KILLED_SECONDS", 30)
    monkeypatch.setattr(service_turn, "_LOOK_SECONDS", 0.01)
    (tmp_path / "facility.toml").write_text(f'[facility]\nname = "A"\nsite = "here"\n[catalog]\nurl = "{url}"\n')
    other = make_turn()
    waiting = threading.Thread(target=other.take)
    with site_to_itself(config.load(tmp_path / "facility.toml"), other._catalog) as require_turn:
        require_turn()
        waiting.start()
        wait_until(lambda: mariadb.run("SELECT 1 FROM information_schema.processlist WHERE state = 'User lock'"))
        (holder,) = mariadb.run(HOLDERS.format(other._name))
        mariadb.run(f"KILL {holder['id']}")
        waiting.join()
        assert other._is_held()

        def is_told() -> bool:
            try:
                require_turn()
            except CatalogError:
                return True
            return False

        wait_until(is_told)


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


class _Lost:
    """What is asked before each piece of work; after some times it says that the site is another's."""

    def __init__(self, well: int) -> None:
        self.left = well

    def __call__(self) -> None:
        """Ask."""
        self.left -= 1
        if self.left < 0:
            raise CatalogError("another serves it")


def test_mending_a_store_ends_where_the_site_is_anothers(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """`repair` asks again and again, and finishes only what is in hand; `adopt` asks once more after its question,
    before it changes anything."""
    stopped: list[Copier] = []
    monkeypatch.setattr(Copier, "idle", lambda _: False)
    monkeypatch.setattr(Copier, "stop", lambda copier, stop=Copier.stop: stop(copier) or stopped.append(copier))
    monkeypatch.setattr(store_mend, "_LOOK_SECONDS", 0.0)
    store = MemoryStore("live")
    known = stores.enrol(catalog, name="live", tier="live", url="live")
    with pytest.raises(CatalogError, match="another serves it"):
        store_mend._repair(catalog, {"live": store}, "live", 1, _Lost(3))
    assert len(stopped) == 1
    with pytest.raises(CatalogError, match="another serves it"):
        store_mend._adopt(catalog, store, _Lost(0), sure=True)
    assert store.mark() is None and stores.find(catalog, "live") == known


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
