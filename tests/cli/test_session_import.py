"""`coldchain session import`: Leginon's sessions and folders, as they are typed."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pymysql
import pytest
from pymysql.constants import CLIENT

from coldchain.catalog import exposures, results, sessions
from coldchain.cli.session_import import PASSWORD_VARIABLE, URL_VARIABLE
from coldchain.formats.mrc import write_mrc
from coldchain.model.session import ExposureState
from tests.cli.answer import Typed
from tests.facility import TestFacility, make_facility, write_small_movie
from tests.mariadb_servers import MariaDbServer, running_server

DUMP = "leginon/docker-innodb.sql.gz"
READER, PASSWORD = "reader", "se$ame/%x"
NAME = "06jul12a"


@pytest.fixture(scope="module")
def real_leginon(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDbServer]:
    """A server with the real Leginon database; the test skips, saying so, where that is not there."""
    if not (real_data / DUMP).is_file():
        pytest.skip(f"the folder of real files has no {DUMP}")
    # Its two hundred tables are not worth a flush each.
    hasty = {"sync_frm": "OFF", "innodb_file_per_table": "OFF", "innodb_doublewrite": "OFF"}
    for server in running_server(tmp_path_factory.mktemp("leginon") / "db", options=hasty):
        connection = pymysql.connect(
            user="root", unix_socket=str(server.socket), client_flag=CLIENT.MULTI_STATEMENTS, autocommit=True
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(gzip.decompress((real_data / DUMP).read_bytes()).decode("utf-8"))
            while cursor.nextset():
                pass
        server.make_user(READER, PASSWORD, grants="SELECT ON *.*")
        yield server


@pytest.fixture
def facility(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestFacility:
    """A facility in whose folder the commands are typed."""
    made = make_facility(tmp_path / "facility", optics="dose_e_per_square_angstrom = 20")
    monkeypatch.chdir(made.root)
    for name in (URL_VARIABLE, PASSWORD_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    return made


def _images(root: Path, names: list[str]) -> None:
    folder = root / "emg/data/leginon" / NAME / "rawdata"
    folder.mkdir(parents=True)
    for name in names:
        write_mrc(folder / f"{name}.mrc", np.ones((64, 64), dtype=np.float32), pixel_size_angstrom=1.0)


def test_the_real_database_is_listed_and_imported(
    real_leginon: MariaDbServer, facility: TestFacility, typed: Typed, tmp_path: Path
) -> None:
    """Of the session that a real Leginon database holds come its twelve exposures with their optics, its project, the
    files that are there, and the 730 particles that were picked; once, however often it is done."""
    url = real_leginon.url("leginondb", READER, PASSWORD)
    listed = json.loads(typed("session", "import", "leginon", "--url", url, "--list", "--json").out)
    assert [(each["name"], each["project"], each["images"]) for each in listed] == [(NAME, "GroEL", 12)]
    assert NAME in typed("session", "import", "leginon", "--url", url, "--list").out
    first = f"{NAME}_15gr_28sq_04hl_02em"
    _images(tmp_path, [first])
    words = ("session", "import", "leginon", "--url", url, "--path-map", f"/emg={tmp_path / 'emg'}", NAME)
    dry = json.loads(typed(*words, "--dry-run", "--json").out)
    assert (dry["images"], dry["awaited_images"], dry["exposures"]) == (12, 11, 0)
    with facility.catalog() as catalog:
        assert sessions.list_all(catalog) == []
    answer = typed(*words, "--json")
    told = json.loads(answer.out)
    assert (answer.status, told["exposures"], told["files"]["taken"], told["results"]) == (0, 12, 1, 12)
    assert (told["awaited_images"], told["complaints"]) == (11, [])
    again = typed(*words)
    assert again.status == 0 and "0 exposures new, 0 described anew; files: 0 taken, 1 known" in again.out
    with facility.catalog() as catalog:
        (session,) = sessions.list_all(catalog)
        assert session.project is not None and session.project.name == "GroEL"
        found = exposures.page(catalog, session.id, limit=50, before=None)
        assert {each.state for each in found} == {ExposureState.READY, ExposureState.WAITING}
        picked = [results.newest(catalog, each.id).picks for each in found]
        assert sum(len(picks.picks) for picks in picked if picks is not None) == 730
        exposure = exposures.by_name(catalog, session.id, f"rawdata/{first}")
    assert exposure is not None
    optics, said = exposure.metadata.optics, exposure.metadata
    assert (optics.pixel_size_angstrom, optics.voltage_kilovolt, optics.spherical_aberration_millimeter) == (
        1.63,
        120,
        2,
    )
    assert (said.applied_defocus_micrometer, said.magnification, said.microscope) == (-1.8, 50000, "AppionTEM")
    assert (exposure.grid_square, exposure.foil_hole) == ("15gr_28sq", "04hl")


def test_a_password_is_taken_from_a_file_or_the_environment_and_never_shown(
    real_leginon: MariaDbServer, facility: TestFacility, typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a right nor a wrong password, wherever it came from, is in what is printed or in the catalog."""
    bare = f"mysql+pymysql://{READER}@127.0.0.1:{real_leginon.port}/leginondb"
    secret = tmp_path / "password"
    secret.write_text(f"{PASSWORD}\n", encoding="utf-8")
    answers = [typed("session", "import", "leginon", "--url", bare, "--password-file", secret, "--list", "--json")]
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    monkeypatch.setenv(URL_VARIABLE, bare)
    answers.append(typed("session", "import", "leginon", "--list", "--json"))
    answers.append(typed("session", "import", "leginon", NAME, "--json"))
    assert [answer.status for answer in answers] == [0, 0, 0]
    monkeypatch.setenv(PASSWORD_VARIABLE, "wr0ng-word")
    refused = typed("session", "import", "leginon", "--list")
    assert refused.status == 1 and "refuses the user or the password" in refused.err
    monkeypatch.delenv(PASSWORD_VARIABLE)
    of_url = typed("session", "import", "leginon", "--url", bare.replace("@", ":wr0ng-word@"), "--list")
    assert of_url.status == 1
    shown = "".join(answer.out + answer.err for answer in (*answers, refused, of_url))
    for word in (PASSWORD, "se$ame", "wr0ng-word"):
        assert word not in shown
        assert word.encode() not in (facility.root / "catalog.sqlite").read_bytes()


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--url", "sqlite:///x", NAME), 1, "MySQL or MariaDB"),
        (("--url", "mysql+pymysql://u:hidden@h:x/db", NAME), 1, "cannot be read"),
        (("--url", "mysql+pymysql://u:hidden@h/", NAME), 1, "names no database"),
        (("--url", "mysql+pymysql://u:hidden@127.0.0.1:1/db", NAME), 1, "cannot be reached"),
        ((NAME,), 2, "--url is not given"),
        (("--url", "mysql+pymysql://h/db"), 2, "one thing"),
        (("--url", "mysql+pymysql://h/db", NAME, "--follow", "--dry-run"), 2, "one thing"),
        (("--url", "mysql+pymysql://h/db", NAME, "--password-file", "absent"), 1, "empty or not there"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(
    facility: TestFacility, typed: Typed, words: tuple[str, ...], status: int, said: str
) -> None:
    """Each refusal says what is wrong; no password of a URL is in it."""
    answer = typed("session", "import", "leginon", *words)
    assert answer.status == status
    assert said in answer.err and "hidden" not in answer.err + answer.out
    assert "Traceback" not in answer.err


def test_a_port_where_something_else_answers_is_said(facility: TestFacility, typed: Typed) -> None:
    """A server that speaks no MySQL is told from one that is away."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            for _ in range(3):
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" * 3)

        threading.Thread(target=greet, daemon=True).start()
        url = f"mysql+pymysql://u@127.0.0.1:{listening.getsockname()[1]}/db"
        answer = typed("session", "import", "leginon", "--url", url, "--list")
    assert answer.status == 1 and "Leginon's database" in answer.err and "Traceback" not in answer.err


def test_following_ends_in_order_when_it_is_told_to(
    real_leginon: MariaDbServer, facility: TestFacility, tmp_path: Path
) -> None:
    """A followed session's files are taken as they come; SIGTERM ends it with status 0, and what it has done stands."""
    names = [f"{NAME}_15gr_28sq_04hl_02em", f"{NAME}_15gr_28sq_11hl_03em"]
    _images(tmp_path, names[:1])
    url = f"mysql+pymysql://{READER}@127.0.0.1:{real_leginon.port}/leginondb"
    argv = [sys.executable, "-m", "coldchain", "session", "import", "leginon", "--follow", "--every", "0.2"]
    argv += ["--path-map", f"/emg={tmp_path / 'emg'}", NAME]
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            argv, stdout=out, stderr=out, env={**os.environ, PASSWORD_VARIABLE: PASSWORD, URL_VARIABLE: url}
        )
    try:
        _wait(facility, 1, log)
        source = tmp_path / "emg/data/leginon" / NAME / "rawdata"
        write_mrc(source / f"{names[1]}.mrc", np.ones((64, 64), dtype=np.float32), pixel_size_angstrom=1.0)
        _wait(facility, 2, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text(encoding="utf-8")
    finally:
        process.kill()
        process.wait()
    assert "12 exposures new" in log.read_text(encoding="utf-8")


def _wait(facility: TestFacility, files: int, log: Path) -> None:
    until = time.monotonic() + 120
    with facility.catalog() as catalog:
        while True:
            known = sessions.list_all(catalog)
            if known and sessions.counts(catalog, known[0].id).files_arrived >= files:
                return
            assert time.monotonic() < until, log.read_text(encoding="utf-8")
            time.sleep(0.1)


def test_a_folder_is_imported_and_its_faults_make_the_status(
    facility: TestFacility, typed: Typed, tmp_path: Path
) -> None:
    """Project, owner and name are as typed; a damaged movie makes the status 1, in words and in JSON; a dry run writes
    nothing."""
    folder = tmp_path / "old" / "visit 1"
    for name in ("a", "b"):
        write_small_movie(folder / f"{name}.tif")
    words = ("session", "import", "folder", folder)
    dry = typed(*words, "--dry-run")
    assert dry.status == 0 and "2 files are there" in dry.out
    options = ("--name", "visit", "--project", "P1", "--owner", "Ann", "--mail", "a@x.org", "--layout", "plain")
    answer = typed(*words, *options)
    assert answer.status == 0 and "2 exposures new" in answer.out
    write_small_movie(folder / "c.tif")
    (folder / "c.tif").write_bytes((folder / "c.tif").read_bytes()[:-9])
    told = typed(*words, "--json")
    assert told.status == 1
    assert json.loads(told.out)["files"]["damaged"] == 1
    shown = json.loads(typed("session", "show", "visit", "--json").out)
    assert (shown["session"]["project"]["name"], shown["session"]["owner_name"]) == ("P1", "Ann")
    assert shown["counts"]["quarantined"] == 1


def test_a_folder_of_the_facilitys_own_is_refused(facility: TestFacility, typed: Typed) -> None:
    """Neither a store nor what holds it is a camera's folder; nor is one that is not there."""
    for folder in ("stores/live", "stores", "."):
        answer = typed("session", "import", "folder", folder)
        assert answer.status == 2 and "overlap" in answer.err, folder
    assert "no such folder" in typed("session", "import", "folder", "absent").err
    assert typed("session", "import", "folder", "/").status == 2
