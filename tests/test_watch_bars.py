"""`coldchain watch` as its users run it, held to its bars: nothing missed, nothing told twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import watch
from benchmarks.watch import MAKERS, by_rule, count_burst, count_folders, programs
from benchmarks.watch_engine import count_overrun, delays_milliseconds


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    # Longer than files take to settle.
    monkeypatch.setattr(watch, "_AFTER_SECONDS", 2.5)


def test_files_in_new_folders_are_told_once_each() -> None:
    """`mkdir -p a/b/c && touch a/b/c/f`, 100 times: each file created once and closed once."""
    (program,) = programs(1, with_iwatch=False).values()
    count = count_folders(program, MAKERS["a shell"], 100)
    assert (count.expected, count.missed, count.twice) == (200, 0, 0)


def test_a_burst_is_told_whole() -> None:
    """500 files without a pause, a command each, two at a time: each once."""
    (program,) = programs(2, with_iwatch=False).values()
    count = count_burst(program, 500)
    assert (count.expected, count.missed, count.twice) == (500, 0, 0)


def test_a_burst_is_told_whole_without_a_shell() -> None:
    """200 files by a rule of facility.toml."""
    count = count_burst(by_rule(2), 200)
    assert (count.expected, count.missed, count.twice) == (200, 0, 0)


def test_a_reader_that_sleeps_misses_nothing() -> None:
    """More files than the kernel keeps events for while the process is stopped: each told once."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 20_000:
        pytest.skip(f"fs.inotify.max_queued_events is {limit}: too many files to write here")
    assert count_overrun(limit + 1000) == (0, 0)


def test_each_file_is_told_soon_or_late() -> None:
    """A delay for each file that was written, and none is negative."""
    delays = delays_milliseconds(rate=100, seconds=1)
    assert len(delays) == 100
    assert min(delays) >= 0
