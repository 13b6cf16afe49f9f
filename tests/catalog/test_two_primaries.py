"""Two real servers, set up by deploy/two-primaries.sh: what `coldchain catalog status` and the watch say of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from coldchain.catalog import backup, events, replication, sessions
from coldchain.catalog.engine import open_catalog
from coldchain.catalog.replication_watch import KIND, ReplicationWatch, current
from coldchain.cli.catalog import app
from coldchain.errors import CatalogError
from coldchain.model.events import Severity
from coldchain.model.replication import LAG_SECONDS, Trouble, troubles
from tests.catalog.catalog_givens import expose, new_session
from tests.mariadb_servers import PASSWORD, USER, MariaDbServer
from tests.notify.notify_givens import Identity, make_identity
from tests.two_primaries import DATABASE, SCRIPT, TwoPrimaries, contents, two_primaries, wait_until


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity | None:
    """The servers' certificate, and their authority; None where it cannot be made."""
    return make_identity(tmp_path_factory.mktemp("tls")) if shutil.which("openssl") else None


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, identity: Identity | None) -> Iterator[TwoPrimaries]:
    """Two primaries with a catalog; each test leaves them well."""
    with two_primaries(tmp_path_factory.mktemp("pair"), identity=identity) as made:
        yield made


@pytest.fixture
def authority(identity: Identity | None) -> Path:
    """The file of the authority that the servers' certificate is of."""
    if identity is None:
        pytest.skip("the certificate is made by the package openssl")
    return identity.certificate


def _found(pair: TwoPrimaries) -> list[Trouble]:
    """What the first server and the second are judged to be."""
    return troubles(replication.look_at(pair.url(0)), replication.look_at(pair.url(1)))


def _until(pair: TwoPrimaries, *said: str) -> Trouble:
    """Wait until a trouble says all of these."""
    found: list[Trouble] = []

    def says() -> bool:
        found[:] = [trouble for trouble in _found(pair) if all(word in str(trouble) for word in said)]
        return bool(found)

    wait_until(says)
    return found[0]


def _facility(folder: Path, pair: TwoPrimaries) -> Path:
    """A facility on the first server that knows the second."""
    file = folder / "facility.toml"
    file.write_text(
        f'[facility]\nsite = "microscope"\n[catalog]\nurl = "{pair.url(0)}"\npeer_url = "{pair.url(1)}"\n',
        encoding="utf-8",
    )
    return file


def test_rows_arrive_both_ways(pair: TwoPrimaries) -> None:
    """After the script has run on both, what is written on one is read on the other, and nothing is amiss."""
    for number in (0, 1):
        catalog = open_catalog(pair.url(number), f"site{number}")
        session = new_session(catalog, name=f"from{number}", folder=f"from{number}")
        catalog.close()
        pair.wait_until_equal()
        other = open_catalog(pair.url(1 - number), f"site{1 - number}")
        assert sessions.get(other, session.id) == session
        other.close()
    wait_until(lambda: _found(pair) == [])


def test_the_script_does_no_harm_when_it_runs_again(pair: TwoPrimaries) -> None:
    """Run again on servers that are at work, it changes nothing."""
    wait_until(lambda: _found(pair) == [])
    before = pair.servers[0].run("SELECT user, host FROM mysql.user ORDER BY user")
    assert "follows 127.0.0.1" in pair.set_up(0)
    assert pair.servers[0].run("SELECT user, host FROM mysql.user ORDER BY user") == before
    assert _found(pair) == []


def test_the_script_refuses_a_server_that_is_not_configured(tmp_path: Path, pair: TwoPrimaries) -> None:
    """A server without a binary log or with another number is told what is wrong, and nothing is changed on it."""
    secret = tmp_path / "secret"
    secret.write_text("secret word\n")
    argv = [str(SCRIPT), "--number", "2", "--other-host", "127.0.0.1", "--replication-password-file", str(secret)]
    argv += ["--password-file", str(secret), "--socket", str(pair.servers[0].socket)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "server_id is 1, not 2" in done.stderr and "--write-config" in done.stderr
    assert "secret" not in done.stderr.replace(str(secret), "")


@pytest.mark.parametrize(
    ("option", "value"),
    [("--other-host", "h'; DROP TABLE x"), ("--database", "a`b"), ("--number", "3"), ("--user", "x'y")],
)
def test_the_script_takes_nothing_that_would_be_sql(tmp_path: Path, option: str, value: str) -> None:
    """What is given comes into no statement where it could mean something else."""
    given = {"--number": "1", "--other-host": "h", "--replication-password-file": "/x", "--password-file": "/x"}
    argv = [str(SCRIPT), *(word for pair in (given | {option: value}).items() for word in pair)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2) and "DROP" not in done.stderr


def test_the_configuration_is_written_with_the_servers_number(tmp_path: Path) -> None:
    """The file has the number in its three places, an older one is kept, and a second run leaves it as it is."""
    file = tmp_path / "70-coldchain.cnf"
    file.write_text("old")
    argv = [str(SCRIPT), "--number", "2", "--write-config", str(file)]
    assert "start the server again" in subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    lines = file.read_text().splitlines()
    numbered = [line.partition(" = ")[0] for line in lines if " = 2" in line and not line.startswith("#")]
    assert {"server_id", "gtid_domain_id", "auto_increment_offset"} <= set(numbered)
    assert (tmp_path / "70-coldchain.cnf.before").read_text() == "old"
    assert "as it should be" in subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_status_shows_both_directions(tmp_path: Path, pair: TwoPrimaries) -> None:
    """Engine, revision, tables and both directions, for people and for machines, without a password; status 0."""
    wait_until(lambda: _found(pair) == [])
    file = _facility(tmp_path, pair)
    told = CliRunner().invoke(app, ["status", "--config", str(file)])
    assert told.exit_code == 0, told.output
    assert "Replication is well" in told.output and "MariaDB" in told.output and "the other server" in told.output
    machine = CliRunner().invoke(app, ["status", "--json", "--config", str(file)])
    found = json.loads(machine.output)
    assert found["revision"] == found["expected_revision"] and found["troubles"] == []
    assert [found[side]["still_to_come"] for side in ("here", "peer")] == [0, 0]
    assert [len(found[side]["directions"]) for side in ("here", "peer")] == [1, 1]
    assert {table["name"] for table in found["tables"]} > {"files", "exposures", "replicas", "events"}
    for output in (told.output, machine.output):
        assert PASSWORD not in output and "w%25rd" not in output and "w%rd" not in output


def test_a_cut_link_is_said_with_what_to_do(tmp_path: Path, pair: TwoPrimaries) -> None:
    """While the link is cut, status says so and exits with 1; afterwards it is well by itself."""
    pair.links[0].cut()
    trouble = _until(pair, "this server gets nothing", "error 20")
    assert "delivered when it is back" in trouble.remedy
    told = CliRunner().invoke(app, ["status", "--config", str(_facility(tmp_path, pair))])
    assert told.exit_code == 1 and "ERROR: this server gets nothing" in told.output
    pair.links[0].mend()
    wait_until(lambda: _found(pair) == [])


def test_a_key_that_was_written_on_both_sides_is_said(pair: TwoPrimaries) -> None:
    """What someone wrote by hand on both sides stops a thread; status names the error, the watch tells it once and its
    end once, over a restart as well."""
    catalog = open_catalog(pair.url(0), "microscope")
    row = (
        "INSERT INTO projects (id, site, name, created_at) VALUES ('0123456789abcdef0123456789abcdef', 'x', 'x', NOW())"
    )
    pair.servers[0].run("SET sql_log_bin = 0", row, database=DATABASE)
    pair.servers[1].run(row, database=DATABASE)
    trouble = _until(pair, "this server does not apply", "error 1062")
    assert "do not skip" in trouble.remedy
    watch = _watch(catalog)
    assert [watch.look() for _ in range(4)] == [0, 1, 0, 0]
    again = _watch(catalog)
    assert [again.look() for _ in range(3)] == [0, 0, 0]
    pair.servers[0].run(
        "SET sql_log_bin = 0",
        "DELETE FROM projects WHERE id = '0123456789abcdef0123456789abcdef'",
        "START SLAVE",
        database=DATABASE,
    )
    wait_until(lambda: current(catalog, peer_url=None, lag_seconds=LAG_SECONDS) == [])
    last = _watch(catalog)
    assert [last.look() for _ in range(3)] == [1, 0, 0]
    told = [event for event in events.recent(catalog) if event.kind == KIND]
    assert [event.severity for event in told] == [Severity.INFO, Severity.ERROR]
    assert "1062" in told[1].message and "in step again" in told[0].message
    catalog.close()
    wait_until(lambda: _found(pair) == [])


def _watch(catalog: object) -> ReplicationWatch:
    return ReplicationWatch(catalog, peer_url=None, lag_seconds=LAG_SECONDS)  # type: ignore[arg-type]


def test_a_user_that_may_not_ask_is_told_the_grant(pair: TwoPrimaries) -> None:
    """A user without the privilege gets the statement that gives it, and giving it is enough."""
    server = pair.servers[0]
    server.make_user("poor", "poor", grants="SELECT ON coldchain.*")
    look = replication.look_at(server.url(DATABASE, "poor", "poor"))
    assert look.denied == "GRANT REPLICA MONITOR ON *.* TO 'poor'@'%'"
    (trouble,) = troubles(look)
    assert look.denied in trouble.remedy
    server.run("SET sql_log_bin = 0", look.denied)
    assert troubles(replication.look_at(server.url(DATABASE, "poor", "poor"))) == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (lambda server: server.url(DATABASE, USER, "wr0ng"), "Access denied"),
        (lambda server: "mysql+pymysql://u:s3cret@127.0.0.1:1/coldchain", "connect"),
        (lambda server: "nonsense:s3cret", "cannot be read"),
        (lambda server: "sqlite:////tmp/x", "names no server"),
    ],
)
def test_a_peer_that_cannot_be_asked_shows_no_password(
    pair: TwoPrimaries, url: Callable[[MariaDbServer], str], said: str
) -> None:
    """A wrong password, a dead port and a wrong URL are stated errors, none with a password in it."""
    with pytest.raises(CatalogError, match=said) as caught:
        replication.look_at(url(pair.servers[1]))
    assert "wr0ng" not in str(caught.value) and "s3cret" not in str(caught.value)


def test_an_upgrade_waits_until_the_two_are_in_step(tmp_path: Path, pair: TwoPrimaries) -> None:
    """While a direction stands an upgrade is refused, unless it is said that this side goes alone; else it says that it
    reaches the other by itself."""
    wait_until(lambda: _found(pair) == [])
    file = str(_facility(tmp_path, pair))
    pair.servers[0].run("STOP SLAVE")
    refused = CliRunner().invoke(app, ["upgrade", "--config", file])
    assert isinstance(refused.exception, CatalogError) and "--alone" in str(refused.exception)
    with pytest.raises(CatalogError, match=r"does not answer.*--alone"):
        replication.require_in_step(pair.url(1), "mysql+pymysql://u@127.0.0.1:1/coldchain")
    assert CliRunner().invoke(app, ["upgrade", "--alone", "--config", file]).exit_code == 0
    pair.servers[0].run("START SLAVE")
    wait_until(lambda: _found(pair) == [])
    done = CliRunner().invoke(app, ["upgrade", "--config", file])
    assert done.exit_code == 0 and "reaches the other server by itself" in done.output


def test_a_lost_side_comes_back_from_the_others_backup(tmp_path: Path, pair: TwoPrimaries) -> None:
    """As docs/two-primaries.md says it: a server that lost everything is made anew from a backup of the other, which
    goes on meanwhile; afterwards both write, and both are equal."""
    for number in (0, 1):
        _write_on(pair, number, "before")
    pair.wait_until_equal()
    lost = pair.servers[0]
    lost.lose_everything()
    file = tmp_path / "backup.gz"
    pair.servers[1].make_user("plain", "plain", grants="ALL PRIVILEGES ON coldchain.*")  # what the script gives
    pair.servers[1].run("SET sql_log_bin = 0", "GRANT REPLICA MONITOR, BINLOG MONITOR, RELOAD ON *.* TO 'plain'@'%'")
    label = backup.make(pair.servers[1].url(DATABASE, "plain", "plain"), "hpc", file)
    assert set(label.position.replace("-", ",").split(",")) >= {"1", "2"}
    _write_on(pair, 1, "meanwhile")
    lost.start()
    pair.set_up(0, "--start", "no")
    lost.run("SET sql_log_bin = 0", f"GRANT BINLOG ADMIN ON *.* TO '{USER}'@'%'")
    done = backup.restore(pair.url(0), file, replace=False)
    assert not done.is_logged and len(done.follows) == 1
    lost.run(
        "RESET MASTER",
        f"SET GLOBAL gtid_binlog_state = '{label.position}'",
        f"SET GLOBAL gtid_slave_pos = '{label.position}'",
        "START SLAVE",
    )
    for number in (0, 1):
        _write_on(pair, number, "after")
    pair.wait_until_equal()
    assert contents(pair.url(0)) == contents(pair.url(1))
    pair.assert_never_stopped()
    wait_until(lambda: _found(pair) == [])


def test_the_catalog_is_reached_by_tls(tmp_path: Path, pair: TwoPrimaries, authority: Path) -> None:
    """`ssl_ca` in the URL: what is read and written goes encrypted, and so does the look at the other's replication. A
    server whose certificate is another authority's does not get to hear the password, and is told apart from one that
    is away; no secret is shown."""
    url = f"{pair.url(0)}?ssl_ca={authority}"
    catalog = open_catalog(url, "site0")
    session = new_session(catalog, name="by tls", folder="tls")
    for opened in (catalog.reading, catalog.writing):
        with opened() as unit:
            assert unit.execute(text("SHOW STATUS LIKE 'Ssl_cipher'")).one()[1]
    assert sessions.get(catalog, session.id) == session and "ssl_ca" not in catalog.url
    catalog.close()
    assert replication.look_at(url).directions
    wrong = f"{pair.url(0)}?ssl_ca={make_identity(tmp_path).certificate}"
    for ask in (lambda: open_catalog(wrong, "site0"), lambda: replication.look_at(wrong)):
        with pytest.raises(CatalogError, match="certificate that is not believed") as caught:
            ask()
        assert "ssl_ca" in caught.value.remedy and not caught.value.retry
        assert PASSWORD not in str(caught.value) and "p%40ss" not in str(caught.value)


def test_the_servers_follow_each_other_by_tls(tmp_path: Path, pair: TwoPrimaries, authority: Path) -> None:
    """The script's `--tls-ca`: the servers' user is not let in without TLS, and rows arrive. Another authority, given
    to a server that follows already, is believed from then on: the certificate is refused, which status says."""
    for number in (0, 1):
        (shown,) = pair.servers[number].run("SHOW CREATE USER coldchain_replication")[0].values()
        assert "REQUIRE SSL" in shown
        status = pair.status(number)
        assert (status["Master_SSL_Allowed"], status["Master_SSL_CA_File"]) == ("Yes", str(authority))
    assert "does not follow" in pair.set_up(0, "--tls-ca", str(make_identity(tmp_path).certificate))
    assert "certificate" in str(_until(pair, "this server gets nothing"))
    _write_on(pair, 1, "by tls")
    pair.set_up(0)
    pair.wait_until_equal()
    wait_until(lambda: _found(pair) == [])


def _write_on(pair: TwoPrimaries, number: int, when: str) -> None:
    catalog = open_catalog(pair.url(number), f"site{number}")
    expose(catalog, new_session(catalog, name=f"{when}{number}", folder=f"{when}{number}"))
    catalog.close()
