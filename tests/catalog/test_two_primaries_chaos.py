"""Two primaries that both write while the link between them is cut and their servers are killed at random.

Short here; `make chaos` goes on for ten minutes.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.two_primaries import TwoPrimaries, contents, two_primaries

SITES = ("microscope", "hpc")
# The clocks of the two sites; a UUIDv7 begins with the time of its making.
OFF_HOURS = (0, 5)
ROWS = 5  # that each side that can write at all has written, at the least, before and during each fault


@dataclass
class Writer:
    """A site's writer, and what the catalog has acknowledged to it: (table, id)."""

    process: subprocess.Popen[str]
    acknowledged: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Let it finish its turn and end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(120) == 0
        self.close()

    def close(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()
        self._thread.join()
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            table, row_id = line.split()
            self.acknowledged.add((table, row_id))


def faked_clock(hours: int) -> dict[str, str]:
    """The environment in which a process's clock is ahead; its steady clock goes as it does."""
    if not hours:
        return {}
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
    if library is None:
        pytest.skip("needs libfaketime (Debian package libfaketime)")
    return {"LD_PRELOAD": str(library), "FAKETIME": f"{hours:+d}h", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def start_writer(pair: TwoPrimaries, number: int, seed: int) -> Writer:
    """A site's writer on its own server."""
    argv = [sys.executable, "-m", "tests.catalog.primary_writer", pair.url(number), SITES[number], str(seed)]
    environment = {**os.environ, **faked_clock(OFF_HOURS[number])}
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=Path(__file__).parents[2]
    )
    return Writer(process)


Fault = Callable[[TwoPrimaries, random.Random], AbstractContextManager[tuple[str, set[int]]]]


@contextmanager
def cut(pair: TwoPrimaries, chance: random.Random) -> Iterator[tuple[str, set[int]]]:
    """One direction of the link, or both, is cut: connections are reset, new ones refused."""
    ways = chance.choice(([0], [1], [0, 1]))
    for way in ways:
        pair.links[way].cut()
    yield f"cut {ways}", {0, 1}
    for way in ways:
        pair.links[way].mend()


@contextmanager
def stall(pair: TwoPrimaries, chance: random.Random) -> Iterator[tuple[str, set[int]]]:
    """The link carries nothing more, and nobody is told."""
    for link in pair.links:
        link.stall()
    yield "stall", {0, 1}
    for link in pair.links:
        link.mend()


@contextmanager
def kill(pair: TwoPrimaries, chance: random.Random) -> Iterator[tuple[str, set[int]]]:
    """A server, or both, are killed in the middle of their work, and start again."""
    numbers = chance.choice(([0], [1], [0, 1]))
    for number in numbers:
        pair.servers[number].kill()
    yield f"kill {numbers}", {0, 1} - set(numbers)
    for number in numbers:
        pair.servers[number].start()


@contextmanager
def kill_while_cut(pair: TwoPrimaries, chance: random.Random) -> Iterator[tuple[str, set[int]]]:
    """A server is killed while the link is cut, and the other goes on alone."""
    for link in pair.links:
        link.cut()
    with kill(pair, chance) as (done, alive):
        yield f"cut, {done}", alive
    for link in pair.links:
        link.mend()


FAULTS: tuple[Fault, ...] = (cut, kill, kill_while_cut, stall)


def progress(writers: Sequence[Writer], sides: set[int], seconds: float) -> None:
    """Wait some time, and until each of these sides has written more."""
    before = {side: len(writers[side].acknowledged) for side in sides}
    until = time.monotonic() + seconds
    deadline = until + 120
    while time.monotonic() < until or any(len(writers[side].acknowledged) < before[side] + ROWS for side in sides):
        assert time.monotonic() < deadline, f"nothing is written any more: {before}"
        time.sleep(0.02)


def assert_same(pair: TwoPrimaries) -> dict[str, list[tuple[object, ...]]]:
    """Both servers hold the same rows, table by table; which these are."""
    here, there = (contents(pair.url(number)) for number in (0, 1))
    assert {table: len(rows) for table, rows in here.items()} == {table: len(rows) for table, rows in there.items()}
    for table, rows in here.items():
        assert rows == there[table], table
    return here


@pytest.mark.parametrize(
    ("faults", "seconds", "seed"),
    [
        pytest.param(3, 1.0, 1, id="3 faults"),
        pytest.param(20, 30.0, 2, id="20 faults in 10 minutes", marks=[pytest.mark.chaos, pytest.mark.timeout(1800)]),
    ],
)
def test_both_sides_agree_after_any_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], faults: int, seconds: float, seed: int
) -> None:
    """Both sites write, with clocks five hours apart, while links are cut and servers killed: no acknowledged row is
    lost, replication never stops by an error, and at the end both hold the same rows."""
    chance = random.Random(seed)
    kinds = [FAULTS[number % len(FAULTS)] for number in range(faults)]
    chance.shuffle(kinds)
    with two_primaries(tmp_path, in_memory=faults < 10) as pair:
        writers = [start_writer(pair, number, seed + number) for number in (0, 1)]
        try:
            done = []
            for fault in kinds:
                progress(writers, {0, 1}, chance.uniform(0.0, seconds))
                with fault(pair, chance) as (words, alive):
                    progress(writers, alive, chance.uniform(0.0, seconds))
                done.append(words)
                pair.assert_never_stopped()
            progress(writers, {0, 1}, 0.0)
            for writer in writers:
                writer.finish()
            lag = pair.wait_until_equal()
        finally:
            for writer in writers:
                writer.close()
        found = assert_same(pair)
        pair.assert_never_stopped()
    for site, writer in zip(SITES, writers, strict=True):
        missing = [(table, row) for table, row in writer.acknowledged if row not in {str(r[0]) for r in found[table]}]
        assert missing == []
        assert len(writer.acknowledged) >= ROWS * faults, site
    rows = {table: len(each) for table, each in found.items() if each}
    measured = {"faults": Counter(done), "rows": rows, "all rows": sum(rows.values()), "lag": round(lag, 2)}
    with capsys.disabled():
        sys.stdout.write(f"{measured}\n")
