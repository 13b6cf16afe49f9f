"""Threads, processes and kill -9: nothing is lost, nothing is doubled, and cost does not grow with what is there."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from catalog_givens import STORES, arrive
from sqlalchemy import Select, text
from sqlalchemy.dialects import sqlite

from coldchain.catalog import engine, events, exposures, files, results, sessions, steps
from coldchain.catalog.engine import Catalog
from coldchain.model.events import Severity
from coldchain.model.files import FileState, ReplicaState
from coldchain.model.identity import new_id
from coldchain.model.session import ExposureState, Session

WRITER = """
import sys
from uuid import UUID
from coldchain.catalog import engine, files
from coldchain.model.files import FileKind

url, session_id, prefix, count = sys.argv[1:]
catalog = engine.open_catalog(url, "here")
for number in range(int(count)):
    files.record_arrival(
        catalog, session_id=UUID(session_id), relative_path=f"{prefix}/{number}", kind=FileKind.MOVIE,
        size_bytes=number, modified_ns=number, stores=("live", "archive"),
    )
    print(number, flush=True)
catalog.close()
"""


def _writer(url: str, session: Session, prefix: str, count: int) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", WRITER, url, str(session.id), prefix, str(count)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def _integrity(url: str) -> list[str]:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        return found + [str(row) for row in connection.execute("PRAGMA foreign_key_check")]


def _in_threads(count: int, work: Callable[[int], None]) -> None:
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_threads_and_processes_write_at_once(url: str, catalog: Catalog, session: Session) -> None:
    """Two processes and two threads write the same catalog at once: every row is there, once."""
    writers = [_writer(url, session, f"process{number}", 60) for number in range(2)]

    def write(number: int) -> None:
        for index in range(60):
            arrive(catalog, session, f"thread{number}/{index}")

    _in_threads(2, write)
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    known = files.known(catalog, session.id)
    assert Counter(path.split("/")[0] for path in known) == dict.fromkeys(
        ("process0", "process1", "thread0", "thread1"), 60
    )
    assert _integrity(url) == ["ok"]


def test_threads_that_find_the_same_exposure_make_one(catalog: Catalog, session: Session) -> None:
    """Movie and metadata that arrive at the same moment meet in one exposure, and a file in one row."""
    found: list[object] = []

    def find(_: int) -> None:
        found.append((exposures.ensure(catalog, session.id, "a").id, arrive(catalog, session).id))

    _in_threads(8, find)
    assert len(set(found)) == 1


def test_only_one_taker_gets_an_exposure(catalog: Catalog, session: Session) -> None:
    """Of many who take a ready exposure at once, one moves it: the others' moves are no events."""
    exposure = exposures.ensure(catalog, session.id, "a")
    movie = arrive(catalog, session, exposure_id=exposure.id)
    exposures.attach_input(catalog, exposure.id, movie.id)
    _in_threads(
        6,
        lambda _: exposures.set_state(  # type: ignore[arg-type, return-value]
            catalog, exposure.id, ExposureState.PROCESSING, only_from=ExposureState.READY
        ),
    )
    kinds = Counter(event.kind for event in events.recent(catalog, session_id=session.id))
    assert kinds["exposure.processing"] == 1


@pytest.mark.parametrize("after", [1, 25])
def test_kill_9_loses_nothing_that_was_committed(url: str, session: Session, after: int) -> None:
    """A process that is killed while it writes leaves a whole catalog with every file that it reported, each with
    both its replicas and its event."""
    writer = _writer(url, session, "p", 100_000)
    assert writer.stdout is not None
    reported = -1
    while reported < after:
        reported = int(writer.stdout.readline())
    os.kill(writer.pid, signal.SIGKILL)
    reported = max([reported, *(int(line) for line in writer.stdout.read().split("\n")[:-1] if line)])
    writer.wait()
    writer.stdout.close()
    assert _integrity(url) == ["ok"]
    reopened = engine.open_catalog(url, "here")
    known = files.known(reopened, session.id)
    assert set(known) >= {f"p/{number}" for number in range(reported + 1)}
    assert len(known) <= reported + 2
    with reopened.reading() as unit:
        orphans = unit.execute(
            text("SELECT count(*) FROM files f WHERE 2 != (SELECT count(*) FROM replicas r WHERE r.file_id = f.id)")
        ).scalar()
        noted = unit.execute(text("SELECT count(*) FROM events WHERE kind = 'file.arrived'")).scalar()
    assert (orphans, noted) == (0, len(known))
    assert arrive(reopened, session, "after").relative_path == "after"
    reopened.close()


def test_two_processes_upgrade_at_once(tmp_path: Path) -> None:
    """Two hosts' services that start together on a new catalog migrate it once."""
    url = f"sqlite:///{tmp_path / 'new.sqlite'}"
    code = "import sys; from coldchain.catalog import engine; print(engine.upgrade(sys.argv[1]))"
    both = [subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == ["0001", "0001"]
    assert _integrity(url) == ["ok"]


SOME = new_id()
HOT: dict[str, Select] = {  # type: ignore[type-arg]
    "ready": exposures.ready_query("here", 10),
    "page": exposures.page_query(SOME, limit=10, before=SOME),
    "by_name": exposures.by_name_query(SOME, "a"),
    "standing": files.standing_query(SOME, "a"),
    "known": files.known_query(SOME),
    "queue": files.queue_query("here", ReplicaState.WANTED, "live", 10),
    "replicas": files.replicas_query(SOME),
    "of_session": files.session_query(SOME, None, 10),
    "of_session in a state": files.session_query(SOME, FileState.DAMAGED, 10),
    "runs": steps.runs_query(SOME),
    "running": steps.running_query("here"),
    "readings": results.readings_query(SOME, 10),
    "events": events.recent_query(Severity.ERROR, session_id=None, limit=10),
    "events of a session": events.recent_query(Severity.ERROR, session_id=SOME, limit=10),
    "counts of exposures": sessions.exposure_counts_query(SOME),
}


def _plan(catalog: Catalog, query: Select) -> list[str]:  # type: ignore[type-arg]
    sql = query.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    with catalog.reading() as unit:
        return [row[3] for row in unit.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}")]


@pytest.mark.parametrize("name", HOT)
def test_hot_queries_scan_and_sort_nothing(catalog: Catalog, name: str) -> None:
    """What the service and the pages ask all the time is read from an index, in its order."""
    plan = _plan(catalog, HOT[name])
    assert plan and not any(line.startswith("SCAN") or "TEMP B-TREE" in line for line in plan), plan


def test_the_counters_read_one_sessions_files(catalog: Catalog) -> None:
    """The file counters are one grouped query that finds its session, and each file's replicas, by index."""
    plan = "\n".join(_plan(catalog, sessions.file_counts_query(SOME)))
    assert "SCAN files" not in plan and "SCAN replicas" not in plan, plan


def _virtual_machine_steps(url: str, work: Callable[[Catalog], object]) -> int:
    """How many hundreds of instructions SQLite's virtual machine executes for some work: a cost without a clock."""
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    catalog = engine.open_catalog(url, "here")
    with catalog.reading() as unit:  # the pool keeps this connection for the work
        driver = unit.connection().connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_progress_handler(count, 100)
    work(catalog)
    catalog.close()
    return counted


def _fill(url: str, session: Session, count: int) -> None:
    """Rows of `count` arrivals, without the wait for as many commits."""
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        numbers = f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {count})"
        connection.execute(
            f"INSERT INTO files SELECT printf('%032x', i), 'here', '{session.id.hex}', NULL, CAST(printf('f/%d', i) AS"
            f" BLOB), CAST(printf('%032d', i) AS BLOB), 'movie', 1, '1', 'arrived', NULL, '', '2026-01-01' "
            f"FROM ({numbers} SELECT i FROM n)"
        )
        connection.execute(
            "INSERT INTO replicas SELECT printf('1%s', substr(id, 2)), 'here', id, 'live', 'wanted', 1, NULL, NULL, 0, '',"
            " NULL FROM files"
        )
        connection.execute(
            f"INSERT INTO events SELECT printf('%032x', rowid), 'here', '2026-01-01', 'info', 'a.b', 'm', '{session.id.hex}',"
            " NULL, id FROM files"
        )


def test_the_cost_of_a_file_does_not_grow_with_the_files(url: str, catalog: Catalog, session: Session) -> None:
    """An arrival, a task, a copy and a look at the events cost the same beside 20,000 files as beside 200."""

    def work(opened: Catalog) -> None:
        for number in range(5):
            arrive(opened, session, f"new/{new_id()}/{number}")
        files.copy_tasks(opened, stores=STORES, limit=5, exclude=[])
        events.recent(opened, session_id=session.id, minimum=Severity.WARNING)
        files.of_session(opened, session.id, states=(FileState.DAMAGED,), limit=5)
        exposures.ready(opened, 5)

    _fill(url, session, 200)
    few = _virtual_machine_steps(url, work)
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        for table in ("events", "replicas", "files"):
            connection.execute(f"DELETE FROM {table}")
    _fill(url, session, 20_000)
    many = _virtual_machine_steps(url, work)
    assert few > 10
    assert many < 1.5 * few


def test_readers_see_whole_transactions(catalog: Catalog, session: Session) -> None:
    """While files arrive, no reader ever sees a file without its replicas."""
    stop = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            for index in range(40):
                arrive(catalog, session, f"{index}")
            stop.set()
        while not stop.is_set():
            for file in files.of_session(catalog, session.id, limit=5):
                assert len(files.replicas_of(catalog, file.id)) == 2

    _in_threads(2, work)
