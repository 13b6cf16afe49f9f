"""What pages and service ask of a catalog of ten million files, and how quickly it takes more in meanwhile.

    python -m benchmarks catalog [--files 10000000] [--databases sqlite,mariadb] [--keep FOLDER] [--seconds 10]

The catalogs are planted first (`catalog_plants`): a tenth of all lies in one big session, the others have 10,000
exposures each. With `--keep` they stay in the folder, and are taken as they are, or gone on with, the next time; the
measurement of what is taken in adds to them. Everything is asked through the catalog's own functions, as the pages and
the service do it, and warm: once before it is timed. MariaDB's server is one of its own, which flushes every commit.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from uuid import UUID

from benchmarks.catalog_plants import FILES_PER_EXPOSURE, SITE, STORES, Planted, plant
from benchmarks.table import Bar, Table
from coldchain.catalog import (
    announcements,
    arrivals,
    capacity,
    engine,
    events,
    exposures,
    files,
    holds,
    notices,
    orphans,
    page,
    results,
    retirement,
    sessions,
    stores,
    tasks,
    verdicts,
)
from coldchain.catalog.engine import Catalog
from coldchain.catalog.figures import FigureBook
from coldchain.model.events import Severity
from coldchain.model.files import FileKind, FileState, ReplicaState
from tests.mariadb_servers import MariaDbServer

QUERY_BAR = Bar(most=50.0)
INSERT_BAR = Bar(least=2000.0)
READER_BAR = Bar(most=100.0)
_ROUNDS = 20
_GALLERY, _FEW, _BATCH = 48, 9, 256
_DATABASE = "catalog"
_SERVER = {
    "innodb_buffer_pool_size": "2G",
    "innodb_log_file_size": "1G",
    "innodb_flush_log_at_trx_commit": "1",
    "innodb_max_dirty_pages_pct": "20",
    "max_allowed_packet": "64M",
}
_HASTY = "SET GLOBAL innodb_flush_log_at_trx_commit = {}"


class Readers:
    """A process that reads pages again and again by a thread for each session, as the site's does; when it has ended,
    `seconds` of each reading."""

    def __init__(self, url: str, session_ids: Sequence[UUID]) -> None:
        self.seconds: list[float] = []
        context = multiprocessing.get_context("spawn")
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_read_galleries, args=(url, session_ids, theirs))

    def __enter__(self) -> Readers:
        self._process.start()
        self._line.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._line.send(None)
        self.seconds = self._line.recv()
        self._process.join()


def _read_galleries(url: str, session_ids: Sequence[UUID], line: Connection) -> None:
    catalog = engine.open_catalog(url, SITE)
    seconds: list[float] = []
    over = threading.Event()

    def read(session_id: UUID) -> None:
        while not over.is_set():
            begun = time.perf_counter()
            page.gallery(catalog, session_id, limit=_GALLERY)
            seconds.append(time.perf_counter() - begun)
            over.wait(0.02)

    for session_id in session_ids:
        page.gallery(catalog, session_id, limit=_GALLERY)
    threads = [threading.Thread(target=read, args=(session_id,)) for session_id in session_ids]
    for thread in threads:
        thread.start()
    line.send(None)
    line.recv()
    over.set()
    for thread in threads:
        thread.join()
    catalog.close()
    line.send(seconds)


def session_page(catalog: Catalog, book: FigureBook, session_id: UUID) -> None:
    """All that a session's page asks of the catalog."""
    page.session(catalog, session_id)
    page.stamp(catalog, session_id)
    book.of(session_id)
    files.of_session(catalog, session_id, states=(FileState.DAMAGED, FileState.UNREADABLE), limit=_FEW)
    page.failed_copies(catalog, session_id, limit=_FEW)
    verdicts.alerts(catalog, session_id)
    holds.standing(catalog, session_id)
    announcements.of_session(catalog, session_id)
    page.gallery(catalog, session_id, limit=_GALLERY)
    orphans.of_session(catalog, session_id, limit=_FEW)
    events.recent(catalog, session_id=session_id, limit=15)


def questions(catalog: Catalog, book: FigureBook, session_id: UUID) -> dict[str, Callable[[], object]]:
    """What is asked while somebody waits, by words."""
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    last = notices.newest(catalog)
    return {
        "session page, all that it asks": lambda: session_page(catalog, book, session_id),
        "… its gallery": lambda: page.gallery(catalog, session_id, limit=_GALLERY),
        "newest exposures": lambda: exposures.page(catalog, session_id, limit=_GALLERY, before=None),
        "work to do: steps": lambda: exposures.ready(catalog, 100),
        "work to do: digests": lambda: tasks.to_hash(catalog, limit=100, exclude=()),
        "replicas wanted": lambda: tasks.to_copy(
            catalog, state=ReplicaState.WANTED, stores=STORES, limit=100, exclude=()
        ),
        "whether a session has changed": lambda: page.stamp(catalog, session_id),
        "newest events": lambda: events.recent(catalog, limit=200),
        "newest events of the session": lambda: events.recent(catalog, session_id=session_id, limit=15),
        "events to be told": lambda: notices.after(catalog, last, limit=1000),
        "all sessions, none changed": lambda: book.lines(limit=51),
        "alerts' window of verdicts": lambda: verdicts.window(catalog, session_id, 100),
        "a store's late copies": lambda: capacity.late(catalog, STORES[1], list(FileKind), hour_ago),
    }


def after_an_event(catalog: Catalog, book: FigureBook, session_id: UUID) -> dict[str, Callable[[], object]]:
    """What is asked while somebody waits just after something has happened in the session. The book's thread counts a
    large one meanwhile."""
    return {
        "session page, after an event": lambda: session_page(catalog, book, session_id),
        "all sessions, after an event": lambda: book.lines(limit=51),
    }


def by_size(catalog: Catalog, session_id: UUID) -> dict[str, Callable[[], object]]:
    """What costs by the size of a session, of a store or of what it still wants: counted in the background or at times,
    that of a session by the thread of its figures (`figures`)."""
    return {
        "counters of files and copies": lambda: sessions.counts(catalog, session_id),
        "counters of exposures": lambda: page.state_counts(catalog, session_id),
        "counters of grades": lambda: verdicts.counts(catalog, session_id),
        "grid squares and holes": lambda: page.place_counts(catalog, session_id),
        "paths of overviews": lambda: page.overview_paths(catalog, session_id),
        "troubles": lambda: page.troubles(catalog, session_id, limit=_FEW),
        "failed copies": lambda: page.failed_copies(catalog, session_id, limit=_FEW),
        "trash": lambda: retirement.trash_of(catalog, session_id),
        "orphans": lambda: orphans.of_session(catalog, session_id, limit=_FEW),
        "readings, 5,000": lambda: results.readings(catalog, session_id),
        "what a store still wants": lambda: capacity.to_do(catalog),
        "what lies on stores": lambda: capacity.totals(catalog, [(SITE, store) for store in STORES]),
        "a store's sample": lambda: stores.record_sample(catalog, STORES[1], datetime.now(UTC) - timedelta(days=1)),
    }


def timed(work: Callable[[], object], rounds: int, before: Callable[[], object] = lambda: None) -> tuple[float, float]:
    """Median and longest of some rounds, in milliseconds, after one that is not timed; nor is what comes `before`
    each."""
    work()
    took = []
    for _ in range(rounds):
        before()
        begun = time.perf_counter()
        work()
        took.append((time.perf_counter() - begun) * 1000)
    return median(took), max(took)


def take_in(
    catalog: Catalog, url: str, session_id: UUID, readers_of: Sequence[UUID], seconds: float
) -> tuple[float, list[float]]:
    """Journal files for so long while another process reads; files a second, and the seconds of each reading."""
    mark, number = time.time_ns(), 0
    with Readers(url, readers_of) as readers:
        begun = time.perf_counter()
        while (took := time.perf_counter() - begun) < seconds:
            batch = [_arrival(f"taken-in/{mark}/{number + i}.tiff") for i in range(_BATCH)]
            arrivals.record(catalog, session_id, batch)
            number += _BATCH
    return number / took, readers.seconds


def _arrival(path: str) -> arrivals.Arrival:
    return arrivals.Arrival(
        relative_path=path, kind=FileKind.OTHER, size_bytes=1000, modified_ns=1, stores=STORES, priority=50
    )


@contextmanager
def database(kind: str, folder: Path, *, keeps: bool) -> Iterator[tuple[str, Callable[[bool], None]]]:
    """The URL of a database, and what makes it careless of power cuts while it is planted (True), and not (False)."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'catalog.sqlite'}", lambda _: None
        return
    at = folder / "mariadb"
    at.mkdir(exist_ok=True)
    # A large server may take longer to shut down than a test's may: it is whole all the same when it starts again.
    with suppress(subprocess.TimeoutExpired), MariaDbServer(at, options=_SERVER, keeps=keeps) as server:
        server.run(f"CREATE DATABASE IF NOT EXISTS {_DATABASE}")

        def be_hasty(is_hasty: bool) -> None:
            server.run(_HASTY.format(0 if is_hasty else 1))

        yield server.url(_DATABASE), be_hasty


def measure(table: Table, url: str, planted: Planted, seconds: float) -> None:
    """Ask and time everything of one catalog."""
    big, usual = planted.sessions[0], planted.sessions[-1]
    catalog = engine.open_catalog(url, SITE)
    book = FigureBook(catalog, troubles=_FEW)
    try:
        for session_id, size in (usual, big):
            table.head(f"  of a session of {size:,} exposures: median of {_ROUNDS}, and the longest")
            _until_counted(book, session_id)
            for what, work in questions(catalog, book, session_id).items():
                middle, longest = timed(work, _ROUNDS)
                table.judge(what, middle, QUERY_BAR, digits=1, unit=" ms")
                table.row("", f"{longest:.1f} ms")
            for what, work in after_an_event(catalog, book, session_id).items():
                middle, longest = timed(work, _ROUNDS, before=partial(_happen, catalog, session_id))
                table.judge(what, middle, QUERY_BAR, digits=1, unit=" ms")
                table.row("", f"{longest:.1f} ms")
            for what, work in by_size(catalog, session_id).items():
                middle, longest = timed(work, 3)
                table.row(what, f"{middle:.1f} ms", f"longest {longest:.1f} ms, by what it counts")
        table.head(
            f"  files taken in for {seconds:.0f} s, by {_BATCH}, while two threads of the site's process read galleries"
        )
        rate, waits = take_in(catalog, url, usual[0], (usual[0], big[0]), seconds)
        table.judge("files a second", rate, INSERT_BAR, digits=0)
        table.judge("longest reading", max(waits) * 1000, READER_BAR, digits=1, unit=" ms")
        table.row("its median", f"{median(waits) * 1000:.1f} ms", f"of {len(waits):,}")
    finally:
        book.close()
        catalog.close()


def _until_counted(book: FigureBook, session_id: UUID) -> None:
    """Wait until the book's thread has counted a session and all of the list."""
    while not (book.of(session_id).is_current and all(line.is_current for line in book.lines(limit=51))):
        time.sleep(0.2)


def _happen(catalog: Catalog, session_id: UUID) -> None:
    events.record(catalog, Severity.INFO, "bench.happened", "something has happened", session_id=session_id)


def main(arguments: Sequence[str] = ()) -> None:
    """Measure and print; without arguments, with the defaults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000_000)
    parser.add_argument("--databases", default="sqlite,mariadb")
    parser.add_argument("--keep", type=Path, help="where the planted catalogs stay; 3 GB for a million files")
    parser.add_argument("--folder", type=Path, help="where to work, if nothing is kept")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long files are taken in")
    given = parser.parse_args(arguments)
    table = Table()
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="coldchain-bench-") as name:
        folder = given.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        for kind in given.databases.split(","):
            with database(kind, folder, keeps=given.keep is not None) as (url, be_hasty):
                table.head(f"{kind}, {given.files:,} files")
                begun = time.perf_counter()
                be_hasty(True)
                planted = plant(url, given.files // FILES_PER_EXPOSURE, told=_tell)
                be_hasty(False)
                table.row("planted in", f"{time.perf_counter() - begun:.0f} s")
                measure(table, url, planted, given.seconds)
    if table.missed:
        print(f"\nmissed: {', '.join(table.missed)}")


def _tell(words: str) -> None:
    print(f"\r  planted {words}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
