"""The verified copy's rate against `cp` of the same files, side by side on one disk.

    python benchmarks/storage.py [--folder FOLDER] [--files 4] [--megabytes 100] [--seconds 45]

Every line is timed until its copies are durable. The source is in the page cache for all, as a movie is that a camera
has just written. The rounds alternate between the lines, so that a busy machine is busy for all of them, and go on
until the time is over; medians are shown. `cp` proves nothing; the line below it does by hand what ours does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from coldchain.errors import StorageError
from coldchain.storage.copying import copy_verified
from coldchain.storage.posix import PosixStore

MEGABYTE = 1_000_000
THREADS = 2  # the copier's own default
_LEAST_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One way to copy. `times_cp` is its median time over that of `cp` and `sync`: 1 is as fast, 3 three times slower.

    `rate_megabyte_per_second` counts the source's bytes once.
    """

    name: str
    seconds: float
    rate_megabyte_per_second: float
    times_cp: float
    rounds: int


def measure(
    *, folder: Path | None = None, files: int = 4, megabytes: int = 100, budget_seconds: float = 45.0
) -> list[Row]:
    """Copy `files` × `megabytes` MB in each way, by turns, until the budget is spent; at least three times each.

    `folder` is where to work (a temporary folder in it is made and removed); the disk below it is what is measured.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="coldchain-bench-") as name:
        source = Path(name, "source")
        source.mkdir()
        for n in range(files):
            (source / f"movie_{n:02}.tiff").write_bytes(os.urandom(megabytes * MEGABYTE))
        os.sync()
        seconds = _rounds(source, Path(name), budget_seconds)
    cp_seconds = median(seconds["cp, sync"])
    return [
        Row(
            name=way,
            seconds=median(measured),
            rate_megabyte_per_second=files * megabytes / median(measured),
            times_cp=median(measured) / cp_seconds,
            rounds=len(measured),
        )
        for way, measured in seconds.items()
    ]


def _rounds(source: Path, folder: Path, budget_seconds: float) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    end = time.perf_counter() + budget_seconds
    longest = 0.0
    while len(seconds["cp, sync"]) < _LEAST_ROUNDS or time.perf_counter() + longest < end:
        begun = time.perf_counter()
        for way, copy in WAYS.items():
            _warm(source)
            destinations = [folder / "one", folder / "two"]
            for destination in destinations:
                destination.mkdir()
            started = time.perf_counter()
            copy(source, destinations)
            seconds[way].append(time.perf_counter() - started)
            for destination in destinations:
                shutil.rmtree(destination)
            os.sync()
        longest = max(longest, time.perf_counter() - begun)
    return seconds


def _warm(source: Path) -> None:
    for path in source.iterdir():
        path.read_bytes()


def _cp(source: Path, destinations: list[Path]) -> None:
    subprocess.run(["cp", "-a", f"{source}/.", str(destinations[0])], check=True)
    subprocess.run(["sync", "-f", str(destinations[0])], check=True)


def _cp_and_check(source: Path, destinations: list[Path]) -> None:
    _cp(source, destinations)
    copies = sorted(destinations[0].iterdir())
    for path in copies:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    subprocess.run(["sha256sum", *sorted(source.iterdir()), *copies], check=True, capture_output=True)


def _verified(source: Path, destinations: list[Path]) -> None:
    stores = [PosixStore(destination.name, destination) for destination in destinations]

    def copy(path: Path) -> None:
        for outcome in copy_verified(source, path.name, f"krios/session/{path.name}", stores).outcomes:
            if outcome.error is not None:
                raise outcome.error

    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        list(pool.map(copy, sorted(source.iterdir())))


WAYS: dict[str, Callable[[Path, list[Path]], None]] = {
    "cp, sync": _cp,
    "cp, sync, sha256sum of both": _cp_and_check,
    "one verified copy": lambda source, destinations: _verified(source, destinations[:1]),
    "two verified copies": _verified,
}


def main(arguments: Sequence[str] = ()) -> None:
    """Measure and print; without arguments, with the defaults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where to work; its disk is what is measured")
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=45.0)
    given = parser.parse_args(arguments)
    try:
        rows = measure(folder=given.folder, files=given.files, megabytes=given.megabytes, budget_seconds=given.seconds)
    except StorageError as error:
        raise SystemExit(str(error)) from error
    print(f"{given.files} × {given.megabytes} MB, median of {rows[0].rounds} rounds")
    print(f"{'':30} {'seconds':>8} {'MB/s':>7} {'× cp':>6}")
    for row in rows:
        print(f"{row.name:30} {row.seconds:8.2f} {row.rate_megabyte_per_second:7.0f} {row.times_cp:6.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
