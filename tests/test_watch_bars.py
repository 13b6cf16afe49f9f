"""`coldchain watch` as its users run it, held to its bars: nothing missed, nothing told twice."""

from __future__ import annotations

import pytest

from benchmarks import watch
from benchmarks.watch import MAKERS, by_rule, count_burst, count_folders, programs


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
