"""What the watching engine misses when it is overrun, how soon it tells, and what a million files cost it.

    python -m benchmarks watch_engine [--files 200000] [--rate 200] [--seconds 30] [--million 1000000]

`coldchain watch` runs as its users run it, and its lines are counted as they come; the collector of `coldchain run`
runs in a process of its own with a catalog in which the million files are known.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.table import Bar, Table

_FILES_OF_FOLDER = 1000
_SILENCE_SECONDS = 30.0
_WRITER = """
import os, sys, time
root, count, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
began = time.monotonic()
for number in range(count):
    pause = began + number / rate - time.monotonic()
    if pause > 0:
        time.sleep(pause)
    path = f"{root}/{number % 7}/{number:06d}"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"x" * 4096)
    closing = time.monotonic()
    os.close(descriptor)
    print(closing, path, flush=True)
"""
_COLLECTOR = """
import resource, sys, time
from pathlib import Path
from coldchain.catalog import engine
from coldchain.collect.collector import Collector
from coldchain.collect.intake import Intake

began = time.monotonic()
catalog = engine.open_catalog(sys.argv[1], "here")
root = Path(sys.argv[2])
intake = Intake(catalog, instrument_name="krios", source_root=root, stores=("live",))
collector = Collector(root, intake, scan_seconds=5)
collector.start()
for _ in range(int(sys.argv[3])):
    while not collector.idle():
        time.sleep(0.02)
    print(time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)
    scans = collector._watcher.finished_scans
    while collector._watcher.finished_scans < scans + 2:
        time.sleep(0.02)
collector.stop()
"""


@dataclass(frozen=True, slots=True)
class Start:
    """What a start costs: until everything is watched and listed, and at the most."""

    seconds: float
    peak_mebibyte: float


class Lines:
    """The lines of a running `coldchain watch`, each with the time at which it came."""

    def __init__(self, root: Path, events: str) -> None:
        command = [sys.executable, "-m", "coldchain", "watch", "-r", "-e", events, str(root)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._queue: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def take(self, seconds: float) -> tuple[float, str, str] | None:
        """When the next line came, its kind and its path; None where none comes for so long."""
        try:
            at, line = self._queue.get(timeout=seconds)
        except queue.Empty:
            return None
        kind, _, path = os.fsdecode(line).rstrip("\n").partition("] ")[2].partition(" ")
        return at, kind, path

    def wait_until_watched(self, folders: int) -> float:
        """Seconds until the kernel has as many watches as there are folders."""
        began, end = time.monotonic(), time.monotonic() + 600
        while self.watches() < folders:
            if time.monotonic() > end:
                raise SystemExit("a tree is not watched within 10 minutes")
            time.sleep(0.05)
        return time.monotonic() - began

    def watches(self) -> int:
        """How many watches the kernel keeps for it."""
        count = 0
        with contextlib.suppress(OSError):
            for entry in Path(f"/proc/{self.process.pid}/fdinfo").iterdir():
                count += entry.read_text().count("inotify wd:")
        return count

    def peak_mebibyte(self) -> float:
        """The most memory that it has had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put((time.monotonic(), line))

    def close(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def _watching(root: Path, events: str, folders: int) -> Iterator[Lines]:
    lines = Lines(root, events)
    try:
        lines.wait_until_watched(folders)
        yield lines
    finally:
        lines.close()


def count_overrun(files: int) -> tuple[int, int]:
    """How many of so many files are missed and told twice, where the reader sleeps while they are made."""
    with tempfile.TemporaryDirectory(prefix="coldchain-watch-") as name, _watching(Path(name), "create", 1) as lines:
        lines.process.send_signal(signal.SIGSTOP)
        _make(Path(name), files)
        lines.process.send_signal(signal.SIGCONT)
        told: Counter[str] = Counter()
        while len(told) < files and (line := lines.take(_SILENCE_SECONDS)) is not None:
            told.update([line[2]] if line[1] == "IN_CREATE" else [])
        while (line := lines.take(3)) is not None:
            told.update([line[2]] if line[1] == "IN_CREATE" else [])
    return files - len(told), sum(count > 1 for count in told.values())


def delays_milliseconds(rate: float, seconds: float) -> list[float]:
    """From a file's close to its line, at so many files in a second."""
    with tempfile.TemporaryDirectory(prefix="coldchain-watch-") as name:
        for number in range(7):
            Path(name, str(number)).mkdir()
        with _watching(Path(name), "close_write", 8) as lines:
            count = int(rate * seconds)
            command = [sys.executable, "-c", _WRITER, name, str(count), str(rate)]
            written = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
            closed = {path: float(at) for at, path in (line.split(" ", 1) for line in written)}
            told: dict[str, float] = {}
            while len(told) < count and (line := lines.take(_SILENCE_SECONDS)) is not None:
                told.setdefault(line[2], line[0])
    if missed := closed.keys() - told.keys():
        raise SystemExit(f"{len(missed)} files were never told")
    return [1000 * (told[path] - at) for path, at in closed.items()]


def start_of_watcher(root: Path, folders: int) -> Start:
    """`coldchain watch` on a tree that is there."""
    began = time.monotonic()
    with _watching(root, "close_write", folders) as lines:
        seconds = time.monotonic() - began
        _probe(root, lines)
        return Start(seconds, lines.peak_mebibyte())


def starts_of_collector(root: Path, url: str) -> list[Start]:
    """The collector where the catalog knows all files: first, after it has noted the folders' stamps, and again."""
    starts = []
    for rounds in (2, 1):
        command = [sys.executable, "-c", _COLLECTOR, url, str(root), str(rounds)]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        starts.append(Start(*map(float, lines[0].split())))
    return starts


def _probe(root: Path, lines: Lines) -> None:
    (root / "probe").write_text("x")
    while (line := lines.take(_SILENCE_SECONDS)) is not None:
        if line[2].endswith("/probe"):
            return
    raise SystemExit("a file is not told")


def _make(root: Path, files: int) -> int:
    """So many empty files, a thousand to a folder; how many folders there are then, with the root."""
    for start in range(0, files, _FILES_OF_FOLDER):
        folder = root / f"visit/GridSquare_{start // _FILES_OF_FOLDER:06d}"
        folder.mkdir(parents=True)
        descriptor = os.open(folder, os.O_RDONLY)
        for number in range(start, min(files, start + _FILES_OF_FOLDER)):
            os.close(os.open(_name(number), os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
        os.close(descriptor)
    return 2 + -(-files // _FILES_OF_FOLDER)


def _name(number: int) -> str:
    return f"FoilHole_{number:09d}_Data_1234567_8_20260101_123456_fractions.tiff"


def _fill_catalog(root: Path, url: str) -> None:
    """A catalog in which every file under the root is known and copied nowhere yet."""
    from sqlalchemy import insert  # the other measurements need no catalog

    from coldchain.catalog import engine, sessions
    from coldchain.catalog.columns import path_digest
    from coldchain.catalog.tables import FileRow, ReplicaRow
    from coldchain.model.files import FileKind, FileState, ReplicaState
    from coldchain.model.identity import new_id
    from coldchain.model.session import Layout

    engine.upgrade(url)
    catalog = engine.open_catalog(url, "here")
    session = sessions.create(
        catalog, name="visit", instrument_name="krios", source_root=str(root), folder="visit", layout=Layout.PLAIN
    )
    for folder in sorted((root / "visit").iterdir()):
        rows, replicas = [], []
        for entry in os.scandir(folder):
            status, path, file_id = entry.stat(), f"{folder.name}/{entry.name}", new_id()
            rows.append(
                {
                    "id": file_id, "site": "here", "session_id": session.id, "relative_path": path,
                    "path_digest": path_digest(path), "kind": FileKind.OTHER, "size_bytes": status.st_size,
                    "modified_ns": status.st_mtime_ns, "state": FileState.ARRIVED, "detail": "",
                    "arrived_at": session.created_at,
                }
            )  # fmt: skip
            replicas.append(
                {
                    "site": "here", "file_id": file_id, "store": "live", "state": ReplicaState.VERIFIED,
                    "pending": False, "attempts": 1, "detail": "",
                }
            )  # fmt: skip
        with catalog.writing() as unit:
            unit.execute(insert(FileRow), rows)
            unit.execute(insert(ReplicaRow), replicas)
    catalog.close()


def main(arguments: Sequence[str] = ()) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--million", type=int, default=1_000_000)
    given = parser.parse_args(arguments)
    table = Table()
    table.head(f"coldchain watch: {given.files:,} files while the reader sleeps, so that the kernel's queue overflows")
    missed, twice = count_overrun(given.files)
    table.judge("missed", missed, Bar(most=0), digits=0)
    table.judge("told twice", twice, Bar(most=0), digits=0)
    table.head(f"coldchain watch: from close to the line, {given.rate:g} files a second for {given.seconds:g} s")
    delays = delays_milliseconds(given.rate, given.seconds)
    table.judge("median", float(np.median(delays)), Bar(most=20), digits=1, unit=" ms")
    table.judge("99 %", float(np.quantile(delays, 0.99)), Bar(most=100), digits=1, unit=" ms")
    table.row("longest", f"{max(delays):.1f} ms")
    _measure_million(given.million, table)


def _measure_million(files: int, table: Table) -> None:
    with tempfile.TemporaryDirectory(prefix="coldchain-million-") as name:
        root = Path(name, "root")
        folders = _make(root, files) if not root.exists() else 0
        table.head(f"{files:,} files that are there")
        _tell(table, "coldchain watch", start_of_watcher(root, folders))
        (root / "probe").unlink()
        url = f"sqlite:///{name}/catalog.sqlite"
        _fill_catalog(root, url)
        first, again = starts_of_collector(root, url)
        _tell(table, "coldchain run, all in the catalog", first)
        _tell(table, "coldchain run, started again", again)
        shutil.rmtree(root)


def _tell(table: Table, what: str, start: Start) -> None:
    table.judge(f"{what}: watched and listed", start.seconds, Bar(most=60), digits=1, unit=" s")
    table.judge(f"{what}: memory", start.peak_mebibyte, Bar(most=500), digits=0, unit=" MiB")


if __name__ == "__main__":
    main(sys.argv[1:])
