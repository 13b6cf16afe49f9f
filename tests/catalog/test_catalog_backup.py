"""`coldchain catalog backup` and `restore`, on both kinds of database."""

from __future__ import annotations

import gzip
import os
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from coldchain.catalog import backup, engine, sessions, sizes
from coldchain.catalog.engine import Catalog
from coldchain.cli.catalog import app
from coldchain.errors import CatalogError
from coldchain.model.session import Session
from tests.catalog.catalog_givens import STORES, arrive, expose, new_session
from tests.mariadb_servers import PASSWORD, MariaDbServer
from tests.two_primaries import contents

ELSEWHERE = "elsewhere"


@pytest.fixture
def other_url(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> Iterator[str]:
    """The URL of a catalog that is not there yet."""
    if database == "sqlite":
        (tmp_path / "other").mkdir()
        yield f"sqlite:///{tmp_path / 'other' / 'catalog.sqlite'}"
        return
    server: MariaDbServer = request.getfixturevalue("mariadb")
    server.make_database(ELSEWHERE)
    yield server.url(ELSEWHERE)
    server.run(f"DROP DATABASE {ELSEWHERE}")


def _filled(catalog: Catalog) -> Session:
    session = new_session(catalog, name="besök\udcff")
    for number in range(5):
        expose(catalog, session, f"a/{number}")
    return session


def test_a_restored_catalog_is_what_was_backed_up(catalog: Catalog, url: str, other_url: str, tmp_path: Path) -> None:
    """Table by table and row by row, bytes that are no text included; it opens, and goes on."""
    session = _filled(catalog)
    file = tmp_path / "backup.gz"
    label = backup.make(url, "here", file)
    assert (label.revision, label.site) == (engine.head(), "here")
    done = backup.restore(other_url, file, replace=False)
    assert done.label == label and done.aside is None
    assert contents(other_url) == contents(url)
    again = engine.open_catalog(other_url, "here")
    assert sessions.get(again, session.id) == session
    arrive(again, session, "later")
    again.close()


def test_a_backup_is_one_moment_of_a_catalog_at_work(
    catalog: Catalog, url: str, other_url: str, tmp_path: Path
) -> None:
    """While files arrive, every backup has whole transactions only: each file with its replicas and its event."""
    session = _filled(catalog)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            arrive(catalog, session, f"b/{(number := number + 1)}")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        before = len(contents(url)["files"])
        backup.make(url, "here", tmp_path / "backup.gz")
        after = len(contents(url)["files"])
    finally:
        stop.set()
        thread.join()
    backup.restore(other_url, tmp_path / "backup.gz", replace=False)
    again = engine.open_catalog(other_url, "here")
    with again.reading() as unit:
        counted = [
            unit.execute(text(query)).scalar()
            for query in (
                "SELECT count(*) FROM files",
                "SELECT count(*) FROM events WHERE kind = 'file.arrived'",
                "SELECT count(*) FROM replicas",
                "SELECT count(*) FROM replicas r WHERE NOT EXISTS (SELECT 1 FROM files f WHERE f.id = r.file_id)",
            )
        ]
    again.close()
    assert before <= counted[0] <= after
    assert counted == [counted[0], counted[0], len(STORES) * counted[0], 0]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda raw: raw[:-1], id="the last byte is missing"),
        pytest.param(lambda raw: raw[: len(raw) // 2], id="half is missing"),
        pytest.param(lambda raw: b"", id="empty"),
        pytest.param(lambda raw: bytes([raw[0] ^ 1]) + raw[1:], id="the first byte"),
        pytest.param(lambda raw: raw[:999] + bytes([raw[999] ^ 1]) + raw[1000:], id="a middle byte"),
        pytest.param(lambda raw: raw[:-300] + bytes([raw[-300] ^ 1]) + raw[-299:], id="the label"),
        pytest.param(lambda raw: raw + b"\0", id="a byte too many"),
        pytest.param(lambda raw: bytes(len(raw)), id="zeros"),
        pytest.param(lambda raw: gzip.compress(b"something else"), id="another gzip"),
    ],
)
@pytest.mark.only_on("sqlite")
def test_a_damaged_backup_is_refused(
    catalog: Catalog, url: str, other_url: str, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    """Whatever was done to its bytes, nothing is restored, and nothing is left."""
    _filled(catalog)
    file = tmp_path / "backup.gz"
    backup.make(url, "here", file)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CatalogError):
        backup.restore(other_url, file, replace=False)
    assert list((tmp_path / "other").iterdir()) == []


def test_a_name_that_is_taken_is_left_alone(catalog: Catalog, url: str, tmp_path: Path) -> None:
    """A backup replaces nothing, be it a file, a folder or a link that leads nowhere."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "folder", "link"):
        with pytest.raises(CatalogError, match="there already"):
            backup.make(url, "here", tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())


@pytest.mark.root
def test_a_full_disk_leaves_nothing(catalog: Catalog, url: str, tmp_path: Path) -> None:
    """Where the backup does not fit, that is said, and nothing of it stays; the catalog is well."""
    if os.geteuid() != 0:
        pytest.skip("needs root for a small file system")
    session = _filled(catalog)
    for number in range(30):
        arrive(catalog, session, f"{number}/" + os.urandom(1500).hex())
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(small)], check=True)
    try:
        with pytest.raises(CatalogError, match="no space is left"):
            backup.make(url, "here", small / "backup.gz")
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)
    arrive(catalog, session, "after")


def test_what_is_there_is_not_overwritten(catalog: Catalog, url: str, tmp_path: Path) -> None:
    """A catalog with rows in it is in the way of a restore, and stays as it is."""
    _filled(catalog)
    file = tmp_path / "backup.gz"
    backup.make(url, "here", file)
    new_session(catalog, name="newer", folder="newer")
    before = contents(url)
    with pytest.raises(CatalogError, match="already"):
        backup.restore(url, file, replace=False)
    assert contents(url) == before


@pytest.mark.only_on("mariadb")
def test_a_servers_database_is_never_replaced(catalog: Catalog, url: str, tmp_path: Path) -> None:
    """With --replace a server's database stays, and another one is asked for."""
    file = tmp_path / "backup.gz"
    backup.make(url, "here", file)
    with pytest.raises(CatalogError, match="CREATE DATABASE"):
        backup.restore(url, file, replace=True)


@pytest.mark.only_on("sqlite")
def test_a_replaced_catalog_is_kept(catalog: Catalog, url: str, tmp_path: Path) -> None:
    """With --replace the catalog that was there lies beside the new one, with all its rows; while it is open, nothing
    is done."""
    _filled(catalog)
    file = tmp_path / "backup.gz"
    backup.make(url, "here", file)
    kept = contents(url)
    new_session(catalog, name="newer", folder="newer")
    newer = contents(url)
    with catalog.reading() as unit:
        unit.execute(text("SELECT count(*) FROM files")).scalar()
        with pytest.raises(CatalogError, match="open"):
            backup.restore(url, file, replace=True)
    catalog.close()
    done = backup.restore(url, file, replace=True)
    assert contents(url) == kept
    assert done.aside is not None and contents(f"sqlite:///{done.aside}") == newer


@pytest.mark.only_on("sqlite")
def test_a_damaged_catalog_can_be_replaced(catalog: Catalog, url: str, tmp_path: Path) -> None:
    """A catalog that cannot be read any more is what backups are for."""
    _filled(catalog)
    file = tmp_path / "backup.gz"
    backup.make(url, "here", file)
    kept = contents(url)
    catalog.close()
    path = Path(url.removeprefix("sqlite:///"))
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(CatalogError):
        backup.restore(url, file, replace=False)
    done = backup.restore(url, file, replace=True)
    assert contents(url) == kept
    assert done.aside is not None and done.aside.read_bytes() == b"not a database" * 1000


@pytest.mark.only_on("sqlite")
def test_a_damaged_catalog_is_not_backed_up(catalog: Catalog, url: str, tmp_path: Path) -> None:
    """A backup of what is not whole would be found out when it is too late."""
    session = _filled(catalog)
    catalog.close()
    path = Path(url.removeprefix("sqlite:///"))
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute("DELETE FROM sessions WHERE id = ?", (session.id.hex,))
    connection.close()
    with pytest.raises(CatalogError, match="damaged"):
        backup.make(url, "here", tmp_path / "backup.gz")
    assert not any("backup" in path.name for path in tmp_path.iterdir())


def test_a_backup_of_a_newer_version_is_refused(
    catalog: Catalog, url: str, other_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup that a newer Coldchain has made is refused with its revision."""
    file = tmp_path / "backup.gz"
    backup.make(url, "here", file)
    monkeypatch.setattr(engine, "head", lambda: "0001")
    with pytest.raises(CatalogError, match="upgrade this one"):
        backup.restore(other_url, file, replace=False)


@pytest.mark.only_on("sqlite")
def test_a_backup_opens_without_coldchain(catalog: Catalog, url: str, tmp_path: Path) -> None:
    """gunzip gives the database itself, whole, whoever has it; nobody else may read it."""
    _filled(catalog)
    file = tmp_path / "backup.gz"
    backup.make(url, "here", file)
    assert file.stat().st_mode & 0o777 == 0o600
    plain = tmp_path / "plain.sqlite"
    plain.write_bytes(subprocess.run(["gunzip", "-c", str(file)], capture_output=True, check=True).stdout)
    assert contents(f"sqlite:///{plain}") == contents(url)


@pytest.mark.only_on("mariadb")
def test_a_restore_that_fails_leaves_the_database_empty(
    catalog: Catalog, url: str, other_url: str, mariadb: MariaDbServer, tmp_path: Path
) -> None:
    """A restore that fails in its middle leaves the empty database empty."""
    _filled(catalog)
    file = tmp_path / "backup.gz"
    backup.make(url, "here", file)
    mariadb.make_user("poor", "p\"o'o\\\\r #;%", grants="SELECT, CREATE, ALTER, DROP, INDEX, REFERENCES ON elsewhere.*")
    poor = mariadb.url(ELSEWHERE, "poor", "p\"o'o\\r #;%")
    with pytest.raises(CatalogError, match="INSERT command denied") as caught:
        backup.restore(poor, file, replace=False)
    assert "o'o" not in str(caught.value)
    assert mariadb.run("SHOW TABLES", database=ELSEWHERE) == []


@pytest.mark.only_on("mariadb")
def test_a_missing_program_and_a_wrong_password_are_said(
    catalog: Catalog, url: str, mariadb: MariaDbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the client package its name is given, and nothing is left behind."""
    with pytest.raises(CatalogError, match="Access denied") as caught:
        backup.make(mariadb.url("catalog", password="wr0ng"), "here", tmp_path / "backup.gz")
    assert "wr0ng" not in str(caught.value)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(CatalogError, match="package mariadb-client"):
        backup.make(url, "here", tmp_path / "backup.gz")
    assert not any("backup" in path.name for path in tmp_path.iterdir())


@pytest.mark.only_on("mariadb")
def test_no_password_shows_on_the_machine(
    catalog: Catalog, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the arguments nor the environment of the programs that are started bear the password."""
    started: list[str] = []
    popen = subprocess.Popen

    def watched(argv: list[str], **options: object) -> object:
        started.append(repr((argv, options.get("env"))))
        return popen(argv, **options)  # type: ignore[call-overload]

    monkeypatch.setenv("MYSQL_PWD", PASSWORD)
    monkeypatch.setattr(subprocess, "Popen", watched)
    backup.make(url, "here", tmp_path / "backup.gz")
    assert len(started) == 1 and "mariadb-dump" in started[0] and PASSWORD not in started[0]


def test_the_commands_say_what_they_did(catalog: Catalog, url: str, other_url: str, tmp_path: Path) -> None:
    """`backup` and `restore` of a facility, with what there is to know afterwards, and no password."""
    _filled(catalog)
    catalog.close()
    runner = CliRunner()
    for name, of in (("a", url), ("b", other_url)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "facility.toml").write_text(f'[catalog]\nurl = "{of}"\n')
    file = str(tmp_path / "backup.gz")
    made = runner.invoke(app, ["backup", file, "--config", str(tmp_path / "a/facility.toml")])
    assert made.exit_code == 0 and "its digest is right" in made.output, made.output
    put = runner.invoke(app, ["restore", file, "--config", str(tmp_path / "b/facility.toml")])
    assert put.exit_code == 0 and "on site main" in put.output, put.output
    told = runner.invoke(app, ["status", "--config", str(tmp_path / "b/facility.toml")])
    assert "exposures" in told.output and PASSWORD not in told.output + made.output + put.output
    assert contents(other_url) == contents(url)


@pytest.mark.only_on("mariadb")
def test_a_catalog_that_is_restored_onto_another_server_is_claimed(
    url: str, other_url: str, mariadb: MariaDbServer, tmp_path: Path
) -> None:
    """A server with another server_id is refused until `coldchain catalog claim`, as docs/two-primaries.md has it."""
    first = engine.open_catalog(url, "main", "Krios house")
    _filled(first)
    first.close()
    backup.make(url, "main", tmp_path / "backup.gz")
    backup.restore(other_url, tmp_path / "backup.gz", replace=False)
    config_file = tmp_path / "facility.toml"
    config_file.write_text(f'[facility]\nname = "Krios house"\n[catalog]\nurl = "{other_url}"\n')
    number = mariadb.run("SELECT @@server_id AS n")[0]["n"]
    mariadb.run(f"SET GLOBAL server_id = {number + 6}")
    try:
        with pytest.raises(CatalogError, match=rf"server_id {number}, and this one has {number + 6}.*catalog claim"):
            engine.open_catalog(other_url, "main", "Krios house")
        assert CliRunner().invoke(app, ["claim", "--config", str(config_file)]).exit_code == 0
        again = engine.open_catalog(other_url, "main", "Krios house")
        new_session(again, folder="later")
        again.close()
    finally:
        mariadb.run(f"SET GLOBAL server_id = {number}")


def test_sizes_are_told_without_counting(catalog: Catalog) -> None:
    """Tables and their rows, about; the whole in bytes."""
    _filled(catalog)
    found = sizes.of(catalog)
    assert found.size_bytes > 0 and ("SQLite" in found.version or "MariaDB" in found.version)
    assert {table.name for table in found.tables} >= {"files", "sessions"}
    if "SQLite" in found.version:
        assert {table.name: table.rows for table in found.tables}["files"] == 5


@pytest.mark.only_on("sqlite")
def test_a_restored_catalog_is_its_owners(catalog: Catalog, url: str, tmp_path: Path) -> None:
    """What takes a catalog's place has its mode, and lies where a link to it leads."""
    _filled(catalog)
    file = tmp_path / "backup.gz"
    backup.make(url, "here", file)
    catalog.close()
    path = Path(url.removeprefix("sqlite:///"))
    path.chmod(0o640)
    link = tmp_path / "link.sqlite"
    link.symlink_to(path)
    kept = contents(url)
    backup.restore(f"sqlite:///{link}", file, replace=True)
    assert link.is_symlink() and path.stat().st_mode & 0o777 == 0o640
    assert contents(url) == kept
