"""SHA-256 of files copied at the same time, against `hashlib`: what hashing takes, and what copying then reaches.

    python benchmarks/hashing.py [--folder /dev/shm] [--files 64] [--megabytes 100] [--threads 32] [--buffer-kib 1024]

First the hashing alone, of data in memory. Then copies from memory to memory, where no disk is the limit: each thread
reads into a buffer, hashes it and writes it, one file after another; a copy is removed when it is whole, and two files
are the sources of all, so that memory holds `threads` + 2 files at most. The rounds alternate between the lines, so
that a busy machine is busy for all of them; medians are shown. The processor's time is shown, too, for it does not
count what other programs take: GB for each second of it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from coldchain.kernels import sha256
from coldchain.storage.digests import Digest, lanes_of, processor_flags
from coldchain.storage.hashing import Hasher

MEGABYTE = 1_000_000
BAR_GIGABYTE_PER_SECOND = 1.25
_STREAM_BYTES = 1 << 20
_SOURCES = 2


@dataclass(frozen=True, slots=True)
class Row:
    """One way to hash or to copy. `times_hashlib` is its rate over hashlib's in the same rounds."""

    name: str
    gigabyte_per_second: float
    gigabyte_per_processor_second: float
    times_hashlib: float


@dataclass(frozen=True, slots=True)
class _Run:
    seconds: float
    processor_seconds: float


def measure_hashing(lanes: int, rounds: int = 15) -> list[Row]:
    """Hash 1 MiB of each of `lanes` streams in memory: one thread, and two at once, each with streams of its own."""
    data = np.random.default_rng(1).integers(0, 256, (2, lanes, _STREAM_BYTES), dtype=np.uint8)

    def by_hashlib(thread: int) -> None:
        hashlib.sha256(data[thread, 0])

    def in_lanes(count: int) -> Callable[[int], None]:
        def absorb(thread: int) -> None:
            states = np.tile(sha256.INITIAL_STATE, (count, 1))
            addresses = np.array([stream.ctypes.data for stream in data[thread, :count]])
            blocks = _STREAM_BYTES // sha256.BLOCK_BYTES
            sha256.absorb(states, addresses, np.full(count, blocks), blocks)

        return absorb

    works: dict[str, tuple[Callable[[int], None], int, int]] = {"hashlib, one thread": (by_hashlib, 1, 1)}
    for count in (count for count in (1, 2, 4, 8, 16) if count <= lanes):
        works[f"{count} in lanes, one thread"] = (in_lanes(count), count, 1)
    works["hashlib, two threads"] = (by_hashlib, 1, 2)
    works[f"{lanes} in lanes, two threads"] = (in_lanes(lanes), lanes, 2)
    with ThreadPoolExecutor(2) as pool:
        ways = {
            name: lambda work=work, threads=threads: list(pool.map(work, range(threads)))
            for name, (work, _, threads) in works.items()
        }
        runs = _by_turns(ways, rounds)
    streams = {name: count * threads for name, (_, count, threads) in works.items()}
    return _rows(runs, {name: streams[name] * _STREAM_BYTES for name in works}, "hashlib, one thread")


def measure_copying(
    *, folder: Path, files: int, megabytes: int, threads: int, buffer_bytes: int, lanes: int, rounds: int = 3
) -> list[Row]:
    """Copy `files` × `megabytes` MB within `folder` (its disk should be memory), in each way, by turns.

    Raises RuntimeError where a digest is not that of the source.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="coldchain-bench-") as name:
        copies = _Copies(Path(name), megabytes * MEGABYTE, files, threads, buffer_bytes)
        hasher = Hasher(lanes, len(os.sched_getaffinity(0)))
        ways: dict[str, Callable[[], object]] = {
            "copy": lambda: copies.run(None),
            "copy, hashlib": lambda: copies.run(hashlib.sha256),
            "copy, in lanes": lambda: copies.run(hasher.new_digest),
        }
        runs = _by_turns(ways, rounds)
    return _rows(runs, dict.fromkeys(ways, files * megabytes * MEGABYTE), "copy, hashlib")


class _Copies:
    """Sources, and the copying of them."""

    def __init__(self, folder: Path, size_bytes: int, files: int, threads: int, buffer_bytes: int) -> None:
        self._folder = folder
        self._files = files
        self._threads = threads
        self._buffer_bytes = buffer_bytes
        self._digests: dict[Path, str] = {}
        for n in range(_SOURCES):
            path = folder / f"source_{n}"
            with path.open("wb") as file:
                for written in range(0, size_bytes, MEGABYTE):
                    file.write(os.urandom(min(MEGABYTE, size_bytes - written)))
            with path.open("rb") as file:
                self._digests[path] = hashlib.file_digest(file, "sha256").hexdigest()

    def run(self, new_digest: Callable[[], Digest] | None) -> None:
        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(lambda n: self._copy(n, new_digest), range(self._files)))

    def _copy(self, n: int, new_digest: Callable[[], Digest] | None) -> None:
        source, copy = self._folder / f"source_{n % _SOURCES}", self._folder / f"copy_{n}"
        buffer = memoryview(bytearray(self._buffer_bytes))
        digest = None if new_digest is None else new_digest()
        with source.open("rb", buffering=0) as reading, copy.open("wb", buffering=0) as writing:
            while length := reading.readinto(buffer):
                if digest is not None:
                    digest.update(buffer[:length])
                writing.write(buffer[:length])
        copy.unlink()
        if digest is not None and digest.hexdigest() != self._digests[source]:
            raise RuntimeError(f"copy {n} has a wrong digest")


def _by_turns(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[_Run]]:
    """Time each way in every round, after one round that only warms up."""
    runs: dict[str, list[_Run]] = {name: [] for name in ways}
    for round_ in range(rounds + 1):
        for name, way in ways.items():
            started, spent = time.perf_counter(), time.process_time()
            way()
            run = _Run(time.perf_counter() - started, time.process_time() - spent)
            if round_:
                runs[name].append(run)
    return runs


def _rows(runs: dict[str, list[_Run]], sizes_bytes: dict[str, int], reference: str) -> list[Row]:
    rates = {name: [sizes_bytes[name] / 1e9 / run.seconds for run in measured] for name, measured in runs.items()}
    return [
        Row(
            name=name,
            gigabyte_per_second=median(rates[name]),
            gigabyte_per_processor_second=sizes_bytes[name] / 1e9 / median(run.processor_seconds for run in measured),
            times_hashlib=median(own / other for own, other in zip(rates[name], rates[reference], strict=True)),
        )
        for name, measured in runs.items()
    ]


def _print(rows: Iterable[Row]) -> None:
    print(f"{'':32} {'GB/s':>6} {'GB/CPU s':>9} {'× hashlib':>10}")
    for row in rows:
        print(
            f"{row.name:32} {row.gigabyte_per_second:6.2f} {row.gigabyte_per_processor_second:9.2f} "
            f"{row.times_hashlib:10.2f}"
        )
    print()


def main(arguments: Sequence[str] = ()) -> None:
    """Measure and print; without arguments, with the defaults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where to work; should be memory")
    parser.add_argument("--files", type=int, default=64)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--threads", type=int, default=32, help="files in flight")
    parser.add_argument("--buffer-kib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    lanes = lanes_of(processor_flags())
    print(f"hashing uses {'hashlib' if lanes == 1 else f'{lanes} lanes'} on this processor; below both are measured")
    lanes = max(lanes, 4)
    _print(measure_hashing(lanes))
    print(
        f"{given.files} × {given.megabytes} MB in {given.folder}, {given.threads} in flight, buffers of "
        f"{given.buffer_kib} KiB; to be reached: {BAR_GIGABYTE_PER_SECOND} GB/s"
    )
    _print(
        measure_copying(
            folder=given.folder,
            files=given.files,
            megabytes=given.megabytes,
            threads=given.threads,
            buffer_bytes=given.buffer_kib << 10,
            lanes=lanes,
            rounds=given.rounds,
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
