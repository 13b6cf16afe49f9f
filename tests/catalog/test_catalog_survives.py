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
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from sqlalchemy import Select, insert, text
from sqlalchemy.dialects import sqlite

from coldchain.catalog import (
    engine,
    events,
    exposures,
    file_rows,
    files,
    replicas,
    results,
    scans,
    sessions,
    steps,
    tasks,
    verdicts,
    wants,
)
from coldchain.catalog.columns import path_digest
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import Base, EventRow, FileRow, ReplicaRow
from coldchain.model.events import Severity
from coldchain.model.files import FileKind, FileState, ReplicaState
from coldchain.model.identity import new_id
from coldchain.model.session import Session
from tests.catalog.catalog_givens import STORES, arrive, execute, expose, known, new_session

WRITER = """
import sys
from uuid import UUID
from coldchain.catalog import engine, file_rows, files, replicas
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
    if not url.startswith("sqlite"):
        tables = ", ".join(Base.metadata.tables)
        return sorted({row["Msg_text"].lower() for row in execute(url, f"CHECK TABLE {tables} EXTENDED")})
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        return found + [str(row) for row in connection.execute("PRAGMA foreign_key_check")]


def _in_threads(count: int, work: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))


def test_threads_and_processes_write_at_once(url: str, catalog: Catalog, session: Session) -> None:
    """Two processes and two threads write the same catalog at once: every row is there, once."""
    writers = [_writer(url, session, f"process{number}", 30) for number in range(2)]

    def write(number: int) -> None:
        for index in range(30):
            arrive(catalog, session, f"thread{number}/{index}")

    _in_threads(2, write)
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    found = known(catalog, session.id)
    assert Counter(path.split("/")[0] for path in found) == dict.fromkeys(
        ("process0", "process1", "thread0", "thread1"), 30
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
    """Of many who claim a ready exposure at once, one gets it, and one event says so."""
    exposure = expose(catalog, session)
    claims: list[object] = []
    _in_threads(6, lambda _: claims.append(exposures.claim(catalog, exposure.id)))
    assert len([claim for claim in claims if claim is not None]) == 1
    kinds = Counter(event.kind for event in events.recent(catalog, session_id=session.id))
    assert kinds["exposure.processing"] == 1


def test_of_many_who_create_a_session_one_does(catalog: Catalog) -> None:
    """A collector that meets a folder while a user announces it makes no second session."""
    made: list[object] = []
    _in_threads(6, lambda _: made.append(new_session(catalog).id))
    assert len(made) == 6 and len(set(made)) == 1


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
    found = known(reopened, session.id)
    assert set(found) >= {f"p/{number}" for number in range(reported + 1)}
    assert len(found) <= reported + 2
    with reopened.reading() as unit:
        orphans = unit.execute(
            text("SELECT count(*) FROM files f WHERE 2 != (SELECT count(*) FROM replicas r WHERE r.file_id = f.id)")
        ).scalar()
        noted = unit.execute(text("SELECT count(*) FROM events WHERE kind = 'file.arrived'")).scalar()
    assert (orphans, noted) == (0, len(found))
    assert arrive(reopened, session, "after").relative_path == "after"
    reopened.close()


def test_two_processes_upgrade_at_once(empty_url: str) -> None:
    """Two hosts' services that start together on a new catalog migrate it once."""
    url = empty_url
    code = "import sys; from coldchain.catalog import engine; print(engine.upgrade(sys.argv[1]))"
    both = [subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == [engine.head()] * 2
    assert _integrity(url) == ["ok"]


SOME = new_id()
HOT: dict[str, tuple[Select, str]] = {  # type: ignore[type-arg]
    "ready": (
        exposures.ready_query("here", 10),
        "exposures USING INDEX ix_exposures_site_state_id (site=? AND state=?)",
    ),
    "waiting": (
        exposures.waiting_query("here", limit=10, before=SOME),
        "exposures USING INDEX ix_exposures_site_state_id (site=? AND state=? AND id<?)",
    ),
    "lacking": (wants.lacking_query("here", SOME, ["live"], SOME), "ix_files_session_id_id (session_id=? AND id>?)"),
    "page": (exposures.page_query(SOME, limit=10, before=SOME), "ix_exposures_session_id_id (session_id=? AND id<?)"),
    "by_name": (exposures.by_name_query(SOME, "a"), "_name_digest_id (session_id=? AND name_digest=?)"),
    "standing": (files.standing_query(SOME, "a"), "_path_digest_id (session_id=? AND path_digest=?)"),
    "signatures": (files.signatures_query(SOME, [b"0" * 32]), "_path_digest_id (session_id=? AND path_digest=?)"),
    "kind": (files.kind_query(SOME, FileKind.GAIN), "ix_files_session_id_kind_id (session_id=? AND kind=?)"),
    "scanned": (
        scans.rows_query("here", b"0" * 32, [b"0" * 32]),
        "_folder_digest (site=? AND root_digest=? AND folder_digest=?)",
    ),
    "queue": (
        tasks.queue_query("here", ReplicaState.WANTED, "live", 50, 10, SOME),
        "INDEX ix_replicas_queue (site=? AND pending=? AND state=? AND store=? AND priority=? AND id<?)",
    ),
    "priorities": (
        tasks.next_priority_query("here", ReplicaState.WANTED, "live", 10),
        "INDEX ix_replicas_queue (site=? AND pending=? AND state=? AND store=? AND priority>?)",
    ),
    "ready, to be hashed": (
        tasks.ready_query("here", 10, SOME),
        "exposures USING INDEX ix_exposures_site_state_id (site=? AND state=? AND id<?)",
    ),
    "versions": (files.versions_query(SOME, b"d" * 32), "_path_digest_id (session_id=? AND path_digest=?)"),
    "replicas": (file_rows.replicas_query(SOME), "ix_replicas_file_id_id (file_id=?)"),
    "of_session": (files.session_query(SOME, None, 10), "ix_files_session_id_id (session_id=?)"),
    "of_session in a state": (
        files.session_query(SOME, FileState.DAMAGED, 10),
        "ix_files_session_id_state_id (session_id=? AND state=?)",
    ),
    "runs": (steps.runs_query(SOME), "ix_step_runs_exposure_id_step_state_id (exposure_id=?)"),
    "running": (steps.running_query("here"), "ix_step_runs_site_state (site=? AND state=?)"),
    "readings": (results.readings_query(SOME, 10), "ix_ctf_results_run_id (run_id=?)"),
    "events": (
        events.recent_query("here", Severity.ERROR, session_id=None, limit=10),
        "ix_events_site_severity_id (site=? AND severity=?)",
    ),
    "events since": (
        events.since_query("here", Severity.ERROR, SOME, 10),
        "ix_events_site_severity_id (site=? AND severity=? AND id>?)",
    ),
    "events of a session": (
        events.recent_query("here", Severity.ERROR, session_id=SOME, limit=10),
        "ix_events_session_id_site_severity_id (session_id=? AND site=? AND severity=?)",
    ),
    "window of verdicts": (
        verdicts.window_query(SOME, 10),
        "ix_verdicts_session_id_stands_exposure_id (session_id=? AND stands=?)",
    ),
    "counts of exposures": (sessions.exposure_counts_query(SOME), "ix_exposures_session_id_state (session_id=?)"),
}


def _plan(catalog: Catalog, query: Select) -> list[str]:  # type: ignore[type-arg]
    compiled = query.compile(dialect=sqlite.dialect(), compile_kwargs={"render_postcompile": True})
    values = (None,) * len(compiled.positiontup or ())  # without statistics no plan depends on them
    with catalog.reading() as unit:
        return [row[3] for row in unit.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", values)]


@pytest.mark.parametrize("name", HOT)
@pytest.mark.only_on("sqlite")
def test_hot_queries_scan_and_sort_nothing(catalog: Catalog, name: str) -> None:
    """What the service and the pages ask all the time is read from an index, in its order."""
    query, index = HOT[name]
    plan = _plan(catalog, query)
    assert any(index in line for line in plan), plan
    if name == "runs":  # the few of one exposure may be sorted
        plan.remove("USE TEMP B-TREE FOR ORDER BY")
    assert not any(line.startswith("SCAN") or "TEMP B-TREE" in line for line in plan), plan


@pytest.mark.only_on("sqlite")
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


def _fill(catalog: Catalog, session: Session, count: int) -> None:
    """Rows of `count` arrivals, without the wait for as many commits."""
    ids = [new_id() for _ in range(count)]
    at = datetime(2026, 1, 1, tzinfo=UTC)
    common = {"site": "here", "session_id": session.id}
    with catalog.writing() as unit:
        unit.execute(
            insert(FileRow),
            [
                {
                    **common,
                    "id": file_id,
                    "relative_path": f"f/{file_id}",
                    "path_digest": path_digest(f"f/{file_id}"),
                    "kind": FileKind.MOVIE,
                    "size_bytes": 1,
                    "modified_ns": 1,
                    "state": FileState.ARRIVED,
                    "detail": "",
                    "arrived_at": at,
                }
                for file_id in ids
            ],
        )
        replica = {"site": "here", "state": ReplicaState.WANTED, "pending": True, "attempts": 0, "detail": ""}
        unit.execute(insert(ReplicaRow), [{**replica, "file_id": i, "store": s} for i in ids for s in STORES[:1]])
        event = {**common, "at": at, "severity": Severity.INFO, "kind": "file.arrived", "message": "m"}
        unit.execute(insert(EventRow), [{**event, "file_id": file_id} for file_id in ids])


@pytest.mark.only_on("sqlite")
def test_the_cost_of_a_file_does_not_grow_with_the_files(url: str, catalog: Catalog, session: Session) -> None:
    """An arrival, a task, a copy and a look at the events cost the same beside 20,000 files as beside 200."""

    def work(opened: Catalog) -> None:
        for number in range(5):
            arrive(opened, session, f"new/{new_id()}/{number}")
        waiting = [new_id() for _ in range(1000)]
        for state in (ReplicaState.WANTED, ReplicaState.FAILED):
            tasks.to_copy(opened, state=state, stores=STORES, limit=5, exclude=waiting)
        tasks.to_hash(opened, limit=5, exclude=waiting)
        events.recent(opened, session_id=session.id, minimum=Severity.WARNING)
        files.of_session(opened, session.id, states=(FileState.DAMAGED,), limit=5)
        exposures.ready(opened, 5)

    _fill(catalog, session, 200)
    few = _virtual_machine_steps(url, work)
    _fill(catalog, session, 20_000)
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
                assert len(replicas.of_file(catalog, file.id)) == 2

    _in_threads(2, work)
