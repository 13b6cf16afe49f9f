"""What `coldchain watch` misses, tells twice, and how fast its commands run; iwatch beside it where it is installed.

    python -m benchmarks watch [--folders 1000] [--files 20000] [--load 2] [--jobs 1] [--no-iwatch]

Each program runs as its users run it, with a command that writes a line for each event. Folders are made while `--load`
processes do nothing but compute. A count is final when it is complete, or when no line has come for a while.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.table import Bar, Table

IWATCH_PER_SECOND = 150.0
"""What iwatch 0.2.2 managed where it was first measured."""

_SILENCE_SECONDS = 20.0
_AFTER_SECONDS = 5.0
"""For what is told twice: longer than files take to settle."""

_RULE = """
[[watch]]
name = "bench"
path = "root"
events = [{events}]
exec = ["printf", '%s %s\\n', "{{events}}", "{{path}}"]
jobs = {jobs}
"""
"""What a command prints, the watcher prints: so the log is written without a shell."""

_SHELL = 'i=0; while [ $i -lt {n} ]; do mkdir -p "$i/b/c" && touch "$i/b/c/f"; i=$((i+1)); done'
_PYTHON = "import os, pathlib\nfor i in range({n}): os.makedirs(f'{{i}}/b/c'); pathlib.Path(f'{{i}}/b/c/f').touch()"
_BURST = "import os\nfor i in range({n}): os.close(os.open(f'{{i:06d}}', os.O_CREAT | os.O_WRONLY))"
MAKERS = {"a shell": ["sh", "-c", _SHELL], "Python": [sys.executable, "-c", _PYTHON]}


@dataclass(frozen=True, slots=True)
class Count:
    """What became of what was expected: each line once. `seconds` from the first file's making to the last line."""

    expected: int
    missed: int
    twice: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Commands that were run in a second."""
        return (self.expected - self.missed) / self.seconds


def programs(jobs: int, *, with_iwatch: bool) -> dict[str, list[str]]:
    """The command lines to measure, without their commands and targets."""
    found = {"coldchain watch": [sys.executable, "-m", "coldchain", "watch", "--jobs", str(jobs)]}
    if with_iwatch and shutil.which("iwatch"):
        found["iwatch"] = ["iwatch"]
    return found


def by_rule(jobs: int) -> list[str]:
    """The same by a `[[watch]]` rule, whose commands have no shell. How many at a time is the last word."""
    return [sys.executable, "-m", "coldchain", "watch", "--config", str(jobs)]


def count_folders(program: Sequence[str], words: Sequence[str], folders: int) -> Count:
    """`mkdir -p a/b/c && touch a/b/c/f` so many times: how many files are told as created and as closed, once each."""
    with _watching(program, "create,close_write") as (root, log):
        expected = [f"{kind} {root}/{i}/b/c/f" for i in range(folders) for kind in ("IN_CREATE", "IN_CLOSE_WRITE")]
        return _count(root, log, [*words[:-1], words[-1].format(n=folders)], expected)


def count_burst(program: Sequence[str], files: int) -> Count:
    """So many files, one after the other without a pause, in a folder that is watched, with a command each."""
    with _watching(program, "close_write") as (root, log):
        expected = [f"IN_CLOSE_WRITE {root}/{i:06d}" for i in range(files)]
        return _count(root, log, [sys.executable, "-c", _BURST.format(n=files)], expected)


def _count(root: Path, log: Path, maker: Sequence[str], expected: Sequence[str]) -> Count:
    began = time.perf_counter()
    subprocess.run(maker, cwd=root, check=True)
    wanted, before, last = set(expected), -1, time.perf_counter()
    while time.perf_counter() - last < _SILENCE_SECONDS:
        size = log.stat().st_size
        if size != before:
            before, last = size, time.perf_counter()
            if wanted <= set(log.read_text().splitlines()):
                break
        time.sleep(0.2)
    seconds = last - began
    time.sleep(_AFTER_SECONDS)
    lines = Counter(log.read_text().splitlines())
    missed = sum(line not in lines for line in expected)
    return Count(len(expected), missed, sum(lines[line] > 1 for line in expected), seconds)


@contextlib.contextmanager
def _watching(program: Sequence[str], events: str) -> Iterator[tuple[Path, Path]]:
    """A program that watches a new folder: the folder, and the file to which its commands write."""
    with tempfile.TemporaryDirectory(prefix="coldchain-watch-") as name:
        root, log = Path(name, "root"), Path(name, "log")
        root.mkdir()
        log.touch()
        with log.open("ab") as printed:
            is_rule = "--config" in program
            process = subprocess.Popen(
                _words(program, events, root, log),
                stdout=printed if is_rule else subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        try:
            _wait_until_ready(root, log)
            yield root, log
        finally:
            process.terminate()
            process.wait()


def _words(program: Sequence[str], events: str, root: Path, log: Path) -> list[str]:
    if "--config" not in program:
        return [*program, "-r", "-e", events, "-c", f"echo %e %f >> {log}", str(root)]
    names = ", ".join(f'"{name}"' for name in events.split(","))
    file = root.with_name("facility.toml")
    file.write_text(_RULE.format(events=names, jobs=program[-1]))
    return [*program[:-1], str(file)]


def _wait_until_ready(root: Path, log: Path) -> None:
    end = time.perf_counter() + 60
    while not log.stat().st_size:
        (root / "probe").write_text("x")
        time.sleep(0.2)
        if time.perf_counter() > end:
            raise SystemExit("a program does not report anything")


@contextlib.contextmanager
def _load(count: int) -> Iterator[None]:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def main(arguments: Sequence[str] = ()) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--folders", type=int, default=1000)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--load", type=int, default=os.cpu_count() or 2, help="processes that compute meanwhile")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--no-iwatch", action="store_true")
    given = parser.parse_args(arguments)
    table = Table()
    for name, program in programs(given.jobs, with_iwatch=not given.no_iwatch).items():
        bars = name != "iwatch"
        for maker, words in MAKERS.items():
            table.head(f"{name}: {given.folders:,} × mkdir -p a/b/c && touch a/b/c/f from {maker}, {given.load} busy")
            with _load(given.load):
                count = count_folders(program, words, given.folders)
            _tell(table, count, bars=bars)
        table.head(f"{name}: a burst of {given.files:,} files, a command each, {given.jobs} at a time")
        count = count_burst(program, given.files)
        _tell(table, count, bars=bars)
        if bars:
            table.judge("commands a second", count.per_second, Bar(least=IWATCH_PER_SECOND), digits=0)
        else:
            table.row("commands a second", f"{count.per_second:.0f}")
    table.head(f"[[watch]], no shell: a burst of {given.files:,} files, a command each, {given.jobs} at a time")
    count = count_burst(by_rule(given.jobs), given.files)
    _tell(table, count, bars=True)
    table.judge("commands a second", count.per_second, Bar(least=IWATCH_PER_SECOND), digits=0)


def _tell(table: Table, count: Count, *, bars: bool) -> None:
    if bars:
        table.judge("missed", count.missed, Bar(most=0), digits=0)
        table.judge("told twice", count.twice, Bar(most=0), digits=0)
    else:
        table.row("missed", f"{count.missed}", f"of {count.expected:,}")
        table.row("told twice", f"{count.twice}")


if __name__ == "__main__":
    main(sys.argv[1:])
