"""What stands in the way of opening a catalog is a stated error: what was found, and what to do."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from coldchain import config
from coldchain.catalog import engine, events, sessions
from coldchain.catalog.engine import Catalog
from coldchain.errors import CatalogAwayError, CatalogError
from coldchain.model.events import Severity
from tests.catalog.catalog_givens import arrive, execute, known, new_session
from tests.mariadb_servers import PASSWORD, MariaDbServer, free_port
from tests.notify.notify_givens import make_identity

on_mariadb = pytest.mark.only_on("mariadb")


def _refused(url: str) -> CatalogError:
    with pytest.raises(CatalogError) as caught:
        engine.open_catalog(url, "here").close()
    assert PASSWORD not in str(caught.value) and "p%40ss" not in str(caught.value)
    return caught.value


@on_mariadb
def test_a_wrong_password_says_so(url: str, mariadb: MariaDbServer) -> None:
    """A login that the server refuses is not a server that is away, and shows neither of the passwords."""
    wrong = _refused(mariadb.url("catalog", password="wr0ng secret"))
    assert "refuses the login" in str(wrong) and "password" in wrong.remedy and not wrong.retry
    assert "wr0ng" not in str(wrong)
    assert "refuses the login" in str(_refused(mariadb.url("catalog", user="nobody")))


@on_mariadb
def test_a_password_of_any_letters_opens(url: str, mariadb: MariaDbServer) -> None:
    """What the driver takes for Latin-1 is sent as the server stored it."""
    mariadb.make_user("polyglot", "žluťoučký ☃ kůň")
    catalog = engine.open_catalog(mariadb.url("catalog", "polyglot", "žluťoučký ☃ kůň"), "here")
    assert sessions.list_all(catalog) == []
    catalog.close()


@on_mariadb
def test_a_password_in_the_query_is_not_shown(mariadb: MariaDbServer) -> None:
    """The drivers take a password after the question mark, too."""
    error = _refused(f"mysql+pymysql://nobody@127.0.0.1:{mariadb.port}/catalog?password=wr0ngsecret")
    assert "wr0ngsecret" not in str(error)


@on_mariadb
def test_an_unknown_database_says_so(mariadb: MariaDbServer) -> None:
    """A database that the server does not have is named with how to make it."""
    error = _refused(mariadb.url("nowhere"))
    assert "no such database" in str(error) and "CREATE DATABASE" in error.remedy


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_no_server_there_may_be_tried_again(host: str) -> None:
    """A server that does not answer is away: the same call may succeed later."""
    with pytest.raises(CatalogAwayError, match="away") as caught:
        engine.open_catalog(f"mysql+pymysql://u:s3cret@{host}:{free_port()}/c", "here")
    assert caught.value.retry and "s3cret" not in str(caught.value)


def _by_tls(authority: Path) -> str:
    return f"mysql+pymysql://u:s3cret@127.0.0.1:{free_port()}/c?ssl_ca={authority}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"", "no certificate"),
        (b"no certificate", "no certificate"),
        (b"Autorit\xe9", "no certificate"),
        (b"\x30\x82\x01\x0a\x02\x82\x01\x01", "no certificate"),
    ],
    ids=["no file", "empty", "other text", "not ASCII", "DER"],
)
def test_a_file_that_is_no_certificate_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    """What `ssl_ca` names must be there and be one, which is said before any server is asked."""
    file = tmp_path / "authority.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CatalogError, match=rf"ssl_ca in the catalog's URL names is of no use: .*{said}") as caught:
        engine.open_catalog(_by_tls(file), "here")
    assert str(file) in str(caught.value) and "s3cret" not in str(caught.value) and not caught.value.retry


@pytest.mark.parametrize("before", ["", "# Autorit\N{LATIN SMALL LETTER E WITH ACUTE}\n"], ids=["bare", "commented"])
def test_a_certificate_may_have_any_words_before_it(tmp_path: Path, before: str) -> None:
    """What the driver takes is not refused for what stands beside it: nothing but the server is missing."""
    if shutil.which("openssl") is None:
        pytest.skip("the certificate is made by the package openssl")
    file = tmp_path / "authority.pem"
    file.write_bytes(before.encode() + make_identity(tmp_path).certificate.read_bytes())
    with pytest.raises(CatalogAwayError, match="away"):
        engine.open_catalog(_by_tls(file), "here")


@on_mariadb
def test_an_empty_database_on_a_server_says_upgrade(empty_url: str) -> None:
    """A database without tables says to upgrade."""
    assert "no tables yet" in str(_refused(empty_url)) and "coldchain catalog upgrade" in _refused(empty_url).remedy


@on_mariadb
@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mariadb+pymysql"])
def test_a_server_may_be_named_by_either_name(empty_url: str, scheme: str) -> None:
    """The driver need not be named, and both names make the same catalog."""
    url = empty_url.replace("mysql+pymysql", scheme)
    engine.upgrade(url)
    catalog = engine.open_catalog(url, "here")
    assert known(catalog, new_session(catalog).id) == {}
    catalog.close()
    made = "SELECT DISTINCT table_collation AS c FROM information_schema.tables WHERE table_schema = database()"
    assert {"c": "utf8mb4_nopad_bin"} in execute(empty_url, made)


@on_mariadb
def test_a_user_who_may_only_read_opens_and_is_refused_a_write(url: str, mariadb: MariaDbServer) -> None:
    """The pages need no more than SELECT; a write says what the user lacks."""
    mariadb.make_user("reader", "r", grants="SELECT ON catalog.*")
    catalog = engine.open_catalog(mariadb.url("catalog", "reader", "r"), "here", "A")
    assert sessions.list_all(catalog) == []
    with pytest.raises(CatalogError, match="lets this user not do it") as caught:
        new_session(catalog)
    assert "GRANT" in caught.value.remedy
    catalog.close()


@pytest.fixture
def read_only(url: str, mariadb: MariaDbServer) -> Iterator[None]:
    """A server that takes no writes of plain users."""
    mariadb.run("SET GLOBAL read_only = 1")
    yield
    mariadb.run("SET GLOBAL read_only = 0")


@on_mariadb
def test_a_read_only_server_says_so(read_only: None, mariadb: MariaDbServer) -> None:
    """A server that was made read-only is read, and a write says so."""
    mariadb.make_user("plain", "p", grants="ALL PRIVILEGES ON catalog.*")
    catalog = engine.open_catalog(mariadb.url("catalog", "plain", "p"), "here")
    with pytest.raises(CatalogError, match="cannot be written") as caught:
        new_session(catalog)
    assert "read-only" in caught.value.remedy
    catalog.close()


@on_mariadb
def test_a_reading_transaction_cannot_write(catalog: Catalog) -> None:
    """On a server, what was begun in order to read is refused a write; SQLite knows no such transactions."""
    with pytest.raises(CatalogError, match="cannot be written"), catalog.reading() as unit:
        unit.execute(text("DELETE FROM events"))


@on_mariadb
def test_the_servers_own_settings_decide_nothing(url: str, mariadb: MariaDbServer) -> None:
    """However lax the server is: values are stored whole or refused, names are not folded, times are UTC."""
    mariadb.run(
        "SET GLOBAL sql_mode = 'ANSI_QUOTES', GLOBAL time_zone = '-11:00', GLOBAL tx_isolation = 'SERIALIZABLE'"
    )
    try:
        catalog = engine.open_catalog(url, "here")
        with catalog.writing() as unit:
            shown = unit.execute(text("SELECT @@sql_mode, @@time_zone, @@tx_isolation, @@tx_read_only")).one()
        with catalog.reading() as unit:
            reading = unit.execute(text("SELECT @@tx_isolation, @@tx_read_only")).one()
        assert "STRICT_ALL_TABLES" in shown[0] and "ANSI" not in shown[0]
        assert tuple(shown[1:]) == ("+00:00", "READ-COMMITTED", 0) and tuple(reading) == ("REPEATABLE-READ", 1)
        assert known(catalog, new_session(catalog).id) == {}
        catalog.close()
    finally:
        mariadb.run("SET GLOBAL sql_mode = DEFAULT, GLOBAL time_zone = DEFAULT, GLOBAL tx_isolation = DEFAULT")


@on_mariadb
def test_a_connection_that_was_killed_is_made_again(catalog: Catalog, mariadb: MariaDbServer) -> None:
    """What the server ended between two transactions is not noticed; what it ended in one may be called again."""
    session = new_session(catalog)
    killed = [row["Id"] for row in mariadb.run("SHOW PROCESSLIST") if row["User"] == "coldchain"]
    mariadb.run(*(f"KILL {number}" for number in killed))
    arrive(catalog, session, "after")
    with pytest.raises(CatalogAwayError), catalog.writing() as unit:
        mariadb.run(f"KILL {unit.execute(text('SELECT connection_id()')).scalar()}")
        unit.execute(text("UPDATE sessions SET owner_name = 'changed'"))
    assert list(known(catalog, session.id)) == ["after"]
    assert sessions.get(catalog, session.id).owner_name == ""


@on_mariadb
def test_a_writer_that_waits_in_vain_may_try_again(
    catalog: Catalog, mariadb: MariaDbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program's lock is waited for, then stated; nothing of the transaction stays."""
    session = new_session(catalog)
    monkeypatch.setattr(engine, "BUSY_SECONDS", 1)
    impatient = engine.open_catalog(mariadb.url("catalog"), "here")
    with mariadb.connect("catalog") as other, other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT version_num FROM alembic_version FOR UPDATE")
        with pytest.raises(CatalogAwayError, match="another connection holds"):
            arrive(impatient, session)
    assert known(impatient, session.id) == {}
    assert arrive(impatient, session).relative_path == "a/movie.tiff"
    impatient.close()


@on_mariadb
def test_a_row_that_is_too_long_for_the_server_says_so(catalog: Catalog) -> None:
    """What exceeds the server's packets names the setting, and the catalog goes on."""
    with pytest.raises(CatalogError, match="max_allowed_packet"):
        events.record(catalog, Severity.INFO, "a.b", "x" * (17 << 20))
    assert events.record(catalog, Severity.INFO, "a.b", "short").message == "short"


@on_mariadb
def test_a_catalog_that_was_migrated_meanwhile_is_not_written(url: str, catalog: Catalog) -> None:
    """On a server, a service that goes on after somebody migrated its catalog is refused at its next write."""
    execute(url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(CatalogError, match=r"9999 since it was opened.*Start this program again"):
        new_session(catalog)


@pytest.mark.only_on("sqlite")
def test_text_that_is_not_utf8_is_a_stated_error(url: str, catalog: Catalog) -> None:
    """A row that another program wrote in another encoding is named, and others are read."""
    session, other = new_session(catalog), new_session(catalog, folder="other")
    execute(url, "UPDATE sessions SET owner_name = CAST(x'4dfc6c6c6572' AS TEXT) WHERE folder = CAST('visit' AS BLOB)")
    with pytest.raises(CatalogError, match=r"not UTF-8.*owner_name"):
        sessions.get(catalog, session.id)
    assert sessions.get(catalog, other.id) == other


@on_mariadb
def test_a_server_takes_no_text_that_is_not_utf8(url: str, mariadb: MariaDbServer) -> None:
    """What is not UTF-8 cannot get into a server's catalog at all."""
    catalog = engine.open_catalog(url, "here")
    new_session(catalog)
    with pytest.raises(Exception, match="Incorrect string value"):
        mariadb.run("UPDATE sessions SET owner_name = x'4dfc6c6c6572'", database="catalog")
    catalog.close()


def test_two_facilities_on_one_catalog_are_told_apart(url: str) -> None:
    """Whoever writes first names the catalog; another facility is refused with both names, and nothing is changed."""
    first = engine.open_catalog(url, "main", "Krios house")
    session = new_session(first)
    with pytest.raises(CatalogError, match=r"Krios house.*Talos house.*catalog claim") as caught:
        engine.open_catalog(url, "main", "Talos house")
    assert "[catalog] url" in caught.value.remedy
    again = engine.open_catalog(url, "main", "Krios house")
    second_site = engine.open_catalog(url, "hpc", "Krios house")
    assert sessions.list_all(again) == sessions.list_all(second_site) == [session]
    for opened in (first, again, second_site):
        opened.close()


def test_a_facility_that_opened_an_empty_catalog_beside_another_is_refused_its_first_write(url: str) -> None:
    """Both opened before either wrote: the second's first transaction is refused whole."""
    first, second = (engine.open_catalog(url, "main", name) for name in ("Krios house", "Talos house"))
    new_session(first)
    with pytest.raises(CatalogError, match=r"Krios house.*Talos house"):
        new_session(second, folder="other")
    assert len(sessions.list_all(first)) == 1
    first.close()
    second.close()


@on_mariadb
def test_a_facility_on_a_server_needs_a_name(url: str) -> None:
    """Two that nobody has named could not be told apart: such a one reads, and is refused its first write."""
    catalog = engine.open_catalog(url, "main", config.FacilitySection().name)
    assert sessions.list_all(catalog) == []
    with pytest.raises(CatalogError, match=r"does not name the facility.*\[facility\]"):
        new_session(catalog)
    catalog.close()


def test_a_facility_may_change_its_name(url: str) -> None:
    """After a claim the new name opens the catalog; a site whose settings still have the old one goes on."""
    old = engine.open_catalog(url, "main", "Krios house")
    new_session(old)
    renamed = engine.open_catalog(url, "main", "House of Krios", claims=True)
    renamed.claim()
    for opened in (
        renamed,
        engine.open_catalog(url, "main", "House of Krios"),
        engine.open_catalog(url, "b", "Krios house"),
    ):
        new_session(opened, folder=opened.site)
        opened.close()
    new_session(old, folder="old")
    old.close()


@on_mariadb
def test_one_site_on_two_servers_is_recognised(url: str, mariadb: MariaDbServer) -> None:
    """Two hosts that call themselves the same site would write the same rows: the second is refused, until it claims
    the site, and then the first is."""
    number = mariadb.run("SELECT @@server_id AS n")[0]["n"]
    first = engine.open_catalog(url, "main", "Krios house")
    new_session(first)
    mariadb.run(f"SET GLOBAL server_id = {number + 1}")
    try:
        with pytest.raises(CatalogError, match=r"the site 'main' writes on the server.*catalog claim"):
            engine.open_catalog(url, "main", "Krios house")
        moved = engine.open_catalog(url, "main", "Krios house", claims=True)
        moved.claim()
        moved.close()
        engine.open_catalog(url, "main", "Krios house").close()
    finally:
        mariadb.run(f"SET GLOBAL server_id = {number}")
    with pytest.raises(CatalogError, match="writes on the server"):
        engine.open_catalog(url, "main", "Krios house")
    first.close()


def test_no_log_and_no_error_shows_the_password(url: str, database: str, caplog: pytest.LogCaptureFixture) -> None:
    """Opened, upgraded, used and refused with everything logged: the password is nowhere, nor in what the catalog
    calls its URL."""
    with caplog.at_level(logging.DEBUG):
        engine.upgrade(url)
        catalog = engine.open_catalog(url, "here", "A")
        new_session(catalog)
        with pytest.raises(CatalogError) as caught:
            arrive(catalog, new_session(catalog), detail="a\0b")
        catalog.close()
    shown = caplog.text + str(caught.value) + repr(caught.value) + json.dumps(catalog.url) + repr(catalog)
    assert database == "sqlite" or "***" in catalog.url
    assert PASSWORD not in shown and "p%40ss" not in shown


@pytest.mark.parametrize("named", ["file", "variable"])
def test_the_password_comes_from_where_the_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """A file beside facility.toml, or a variable, holds the password of both servers' user; the settings hide it."""
    (tmp_path / "secret").write_text(PASSWORD + "\n")
    monkeypatch.setenv("CATALOG_SECRET", PASSWORD)
    value = {"file": "secret", "variable": "CATALOG_SECRET"}[named]
    (tmp_path / "facility.toml").write_text(
        '[catalog]\nurl = "mysql+pymysql://c@one/x"\npeer_url = "mysql+pymysql://c:own@two/x"\n'
        f'password_{named} = "{value}"\n'
    )
    settings = config.load(tmp_path / "facility.toml")
    assert settings.catalog.url == "mysql+pymysql://c:p%40ss%3A%2Fw%25rd@one/x"
    assert settings.catalog.peer_url == "mysql+pymysql://c:own@two/x"
    assert "p%40ss" not in repr(settings) and "own" not in repr(settings.catalog)
    (tmp_path / "secret").unlink()
    monkeypatch.delenv("CATALOG_SECRET")
    with pytest.raises(Exception, match=rf"catalog.password_{named} names is empty or not there"):
        config.load(tmp_path / "facility.toml")
