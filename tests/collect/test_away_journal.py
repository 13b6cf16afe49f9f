"""What is waited for while the catalog does not answer is noted on the spot, and told when it answers again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldchain.catalog.engine import Catalog
from coldchain.collect.away_journal import AwayJournal, Noted, journal_file, told
from coldchain.errors import CatalogAwayError
from coldchain.model.events import Severity
from coldchain.model.files import FileState
from tests.collect.camera_folder import wait_for, write_movie
from tests.collect.test_collector import Collecting, collect

__all__ = ["collect"]  # a fixture
NAMES = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=20).filter(lambda name: name.strip("."))


def read(file: Path) -> dict[str, int]:
    """What a process that starts takes over."""
    journal = AwayJournal(file)
    journal.read()
    return {path: noted.size_bytes for path, noted in journal.noted.items()}


@given(batches=st.lists(st.dictionaries(NAMES | st.just("a/\udcff"), st.integers(0, 1 << 62), max_size=4), max_size=4))
def test_what_is_noted_is_there_for_the_next_process(batches: list[dict[str, int]]) -> None:
    """Each file once, as it was first seen, whatever its name; nothing is left when all is told."""
    with TemporaryDirectory() as folder:
        journal, first = AwayJournal(Path(folder, "journal")), {}
        for batch in batches:
            journal.note(batch)
            first = batch | first
        assert read(Path(folder, "journal")) == first
        journal.clear()
        assert read(Path(folder, "journal")) == {} == dict(journal.noted)
        assert list(Path(folder).iterdir()) == []


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_that_was_cut_costs_no_other(tmp_path: Path, cut: int) -> None:
    """A power cut leaves a part of a line; what is noted after it counts."""
    file = tmp_path / "journal"
    AwayJournal(file).note({"before": 1, "cut": 2})
    file.write_bytes(file.read_bytes()[:-cut])
    later = AwayJournal(file)
    later.note({"after": 3})
    assert read(file).items() >= {"after": 3}.items()
    assert read(file).get("cut", 2) == 2


NONSENSE = [
    *("", "{}", "[]", "null", "1", "[" * 5000, "9" * 100_000, "\0"),
    *('["x", 1, "p"]', '["2026-01-01", "1", "p"]', '[1, 1, "p"]', '["0001-01-01T00:00:00+23:00", 1, "p"]'),
    *('["2026-01-01", 1, "/etc/passwd"]', '["2026-01-01", 1, "a/../../b"]', '["2026-01-01", 1, ""]'),
    *('["2026-01-01", 1, "a\\u0000"]', '["2026-01-01", 1, "\\ud800"]', '["2026-01-01", 1, "a//b/"]'),
    *('["2026-01-01", 1, ["p"]]', '["2026-01-01", 1, "p", 1]'),
]


@pytest.mark.parametrize("number", range(len(NONSENSE)))
def test_nonsense_is_passed_over(tmp_path: Path, number: int) -> None:
    """Whoever wrote it: no fault, no path outside the root, and the lines beside it count."""
    file = tmp_path / "journal"
    AwayJournal(file).note({"before": 1})
    with file.open("a") as stream:
        stream.write(f"{NONSENSE[number]}\n")
    AwayJournal(file).note({"after": 3})
    assert read(file) == {"before": 1, "after": 3}


def test_every_root_has_its_own(tmp_path: Path) -> None:
    """Two roots of one name do not share a journal."""
    assert journal_file(tmp_path, Path("/a/movies")) != journal_file(tmp_path, Path("/b/movies"))


def test_the_notice_says_what_is_gone(tmp_path: Path) -> None:
    """A warning with names, sizes and times, and only where something is."""
    since = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    noted = {f"{number}.mrc": Noted(since + timedelta(seconds=number), number) for number in range(30)}
    until = since + timedelta(minutes=1)
    well = told(tmp_path, noted, [], until)
    assert well.severity is Severity.INFO
    assert "from 2026-01-02 03:04:05 to 2026-01-02 03:05:05 UTC; 30 files" in well.message
    ill = told(tmp_path, noted, [f"{number}.mrc" for number in range(12)], until)
    assert ill.severity is Severity.WARNING
    assert "11.mrc (11 bytes, 03:04:16)" in ill.message and "and 2 more" in ill.message


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bool]]:
    """The catalog is away while "away" is set."""
    state = {"away": False}

    def refusing(real: Callable[..., object]) -> Callable[..., object]:
        def ask(self: Catalog) -> object:
            if state["away"]:
                raise CatalogAwayError("the catalog's server is away")
            return real(self)

        return ask

    for name in ("reading", "writing"):
        monkeypatch.setattr(Catalog, name, refusing(getattr(Catalog, name)))
    monkeypatch.setattr("coldchain.collect.collector._CATALOG_WAIT_SECONDS", 0.02)
    yield state
    state["away"] = False


def test_nothing_that_comes_during_an_outage_is_lost(
    root: Path, tmp_path: Path, collect: Callable[..., Collecting], outage: dict[str, bool]
) -> None:
    """What stays is taken, what is gone again is named, also by a process that was started after the outage."""
    file = tmp_path / "journal"
    (root / "visit").mkdir()
    first = collect(journal=AwayJournal(file))
    first.wait(first.collector.idle, "idleness")
    outage["away"] = True
    for name in ("stays", "goes"):
        write_movie(root / f"visit/{name}.mrc")
    wait_for(lambda: len(read(file)) == 2, "both in the journal")
    (root / "visit/goes.mrc").unlink()
    first.collector.stop()
    outage["away"] = False
    second = collect(journal=AwayJournal(file))
    second.wait(lambda: second.state("stays.mrc") is FileState.ARRIVED, "the movie that stays")
    second.wait(lambda: not file.exists(), "the end of the journal")
    (event,) = second.events("catalog.back")
    assert "2 files were waited for" in event.message
    assert "visit/goes.mrc" in event.message and "visit/stays.mrc" not in event.message
    assert second.state("goes.mrc") is None


def test_a_journal_that_cannot_be_written_stops_nothing(
    root: Path, tmp_path: Path, collect: Callable[..., Collecting], outage: dict[str, bool]
) -> None:
    """The same process still knows what it waits for."""
    collecting = collect(journal=AwayJournal(tmp_path / "no folder" / "journal"))
    collecting.wait(collecting.collector.idle, "idleness")
    outage["away"] = True
    write_movie(root / "visit/x.mrc")
    wait_for(lambda: bool(collecting.collector._journal.noted), "the note")  # type: ignore[union-attr]
    outage["away"] = False
    collecting.wait(lambda: collecting.state("x.mrc") is FileState.ARRIVED, "the movie")
    collecting.wait(lambda: len(collecting.events("catalog.back")) == 1, "the notice")
