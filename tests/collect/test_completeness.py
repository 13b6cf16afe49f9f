"""When a file counts as whole, decided by our own clock and by the file itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coldchain.collect.completeness import CompletenessTracker, Examination, Signature, Timing, Verdict
from coldchain.collect.watcher import Sighting

TIMING = Timing(settle_seconds=5, patience_seconds=60, growing_seconds=600, retry_seconds=30)


def tracker() -> CompletenessTracker:
    """A tracker that has seen nothing."""
    return CompletenessTracker(TIMING)


def sighting(size_bytes: int = 1, modified_ns: int = 0, *, closed: bool = False, path: str = "f") -> Sighting:
    """One sighting of the one file."""
    return Sighting(path, size_bytes, modified_ns, closed)


def test_a_closed_file_is_examined_at_once() -> None:
    """The kernel's word is enough to look into a file."""
    files = tracker()
    files.see(sighting(closed=True), 0)
    assert files.due(0) == [Examination("f", (1, 0), last_try=False)]


def test_a_file_that_nobody_saw_closing_is_examined_when_it_stood_still() -> None:
    """Unchanged for the settling time on our clock, whenever it was looked at in between."""
    files = tracker()
    files.see(sighting(), 0)
    files.see(sighting(), 4.9)
    assert not files.due(4.9)
    assert files.due(5)


def test_a_growing_file_waits() -> None:
    """Every change starts the settling time anew, a changed time stamp of equal size too."""
    files = tracker()
    for second in range(20):
        files.see(sighting(size_bytes=second // 2, modified_ns=second), second)
        assert not files.due(second)
    assert not files.due(23.9)
    assert files.due(24)


def test_time_stamps_in_the_future_or_the_past_change_nothing() -> None:
    """The source's clock may be wrong by decades in either direction."""
    for stamp in (-(2**62), 0, 2**62):
        files = tracker()
        files.see(sighting(modified_ns=stamp), 1000)
        assert not files.due(1004)
        assert files.due(1005)


def test_what_is_taken_is_not_kept() -> None:
    """Nothing is known any more of a file that was taken, damaged or gone; seen again, it is examined again."""
    files = tracker()
    for verdict in (Verdict.TAKEN, Verdict.DAMAGED, Verdict.GONE):
        files.see(sighting(closed=True), 0)
        assert files.is_pending("f")
        assert files.untried == 1
        files.judge(files.due(0)[0], verdict, 0)
        assert not files.is_pending("f")
        assert not list(files.paths)
        assert files.pending == files.untried == 0


def test_what_was_tried_is_not_untried() -> None:
    """A file that cannot be read, or is not whole, is pending and no longer untried."""
    files = tracker()
    for path, verdict in (("f", Verdict.UNREADABLE), ("g", Verdict.INCOMPLETE)):
        files.see(sighting(closed=True, path=path), 0)
        files.judge(files.due(0)[0], verdict, 0)
    assert (files.pending, files.untried) == (2, 0)


def test_an_incomplete_file_is_declared_damaged_only_after_patience() -> None:
    """It waits for a change; without one it is examined a last time; a change afterwards opens the question again."""
    files = tracker()
    files.see(sighting(closed=True), 0)
    files.judge(files.due(0)[0], Verdict.INCOMPLETE, 0)
    assert not files.due(59.9)
    (last,) = files.due(60)
    assert last.last_try
    files.judge(last, Verdict.DAMAGED, 60)
    assert files.pending == 0
    files.see(sighting(size_bytes=2, closed=True), 100)
    assert files.due(100) == [Examination("f", (2, 0), last_try=False)]


def test_an_incomplete_file_that_changes_gets_its_whole_patience_again() -> None:
    """Patience counts from the last change, not from the first sight."""
    files = tracker()
    files.see(sighting(closed=True), 0)
    files.judge(files.due(0)[0], Verdict.INCOMPLETE, 0)
    files.see(sighting(size_bytes=2), 50)
    (again,) = files.due(55)
    assert not again.last_try
    files.judge(again, Verdict.INCOMPLETE, 55)
    assert not files.due(109.9)
    assert files.due(110)[0].last_try


def test_an_incomplete_file_that_is_closed_again_is_examined_again() -> None:
    """Written through a memory map, a file can become whole under the same size and time stamp."""
    files = tracker()
    files.see(sighting(closed=True), 0)
    files.judge(files.due(0)[0], Verdict.INCOMPLETE, 0)
    files.see(sighting(closed=True), 10)
    assert files.due(10) == [Examination("f", (1, 0), last_try=False)]


def test_an_unreadable_file_is_tried_again_after_a_pause() -> None:
    """Giving permission changes neither size nor time stamp, so it is tried without a sign."""
    files = tracker()
    files.see(sighting(closed=True), 0)
    files.judge(files.due(0)[0], Verdict.UNREADABLE, 0)
    assert not files.due(29.9)
    assert files.due(30)


def test_a_file_that_changes_while_it_is_examined_starts_anew() -> None:
    """Neither the old verdict counts, nor is the new content overlooked."""
    files = tracker()
    files.see(sighting(closed=True), 0)
    (old,) = files.due(0)
    files.see(sighting(size_bytes=2, closed=True), 1)
    files.judge(old, Verdict.TAKEN, 1)
    assert files.due(1) == [Examination("f", (2, 0), last_try=False)]
    files.judge(files.due(1)[0], Verdict.CHANGED, 1)
    assert not files.due(5.9)
    assert files.due(6)


def test_a_file_that_is_gone_is_forgotten() -> None:
    """Gone and back with the same size and stamp, it is a new file."""
    files = tracker()
    files.see(sighting(closed=True), 0)
    files.judge(files.due(0)[0], Verdict.GONE, 0)
    assert files.pending == 0
    files.see(sighting(closed=True), 1)
    assert files.due(1)
    files.forget("f")
    assert not files.due(1)


def test_a_file_that_never_stops_growing_is_told_once() -> None:
    """After the stated time one report, however long it goes on; it is still waited for."""
    files = tracker()
    told = []
    for second in range(0, 2000, 2):
        files.see(sighting(size_bytes=second), second)
        assert not files.due(second)
        told += files.growing_too_long(second)
    assert [(growing.path, growing.seconds, growing.size_bytes) for growing in told] == [("f", 600, 600)]
    assert files.pending == 1


def test_a_file_that_grows_slowly_and_is_never_whole_is_told_too() -> None:
    """Pauses longer than the settling time do not hide it."""
    files = tracker()
    told = []
    for second in range(0, 1000, 20):
        files.see(sighting(size_bytes=second), second)
        for examination in files.due(second + 10):
            files.judge(examination, Verdict.INCOMPLETE, second + 10)
        told += files.growing_too_long(second + 10)
    assert len(told) == 1


def test_a_file_that_merely_cannot_be_read_does_not_grow() -> None:
    """Its own event says what is wrong with it."""
    files = tracker()
    files.see(sighting(closed=True), 0)
    for second in range(0, 2000, 30):
        for examination in files.due(second):
            files.judge(examination, Verdict.UNREADABLE, second)
        assert not files.growing_too_long(second)


def test_pending_files_are_looked_at_between_scans() -> None:
    """Settling is noticed within a fraction of the settling time, whatever the scan's period."""
    files = tracker()
    files.see(sighting(), 0)
    assert not files.to_look_at(1)
    assert files.to_look_at(1.25) == ["f"]
    files.see(sighting(), 1.25)
    assert not files.to_look_at(2)


steps = st.lists(
    st.tuples(st.floats(0, 10), st.sampled_from("ab"), st.integers(0, 3), st.booleans(), st.booleans()), max_size=60
)


@given(steps)
def test_whatever_is_seen_in_whatever_order_is_taken_as_it_last_stood(
    moves: list[tuple[float, str, int, bool, bool]],
) -> None:
    """Random sightings and pauses: an examination is always of the newest sighting, one for each sighting at most, and
    in the end every file is taken as it last stood."""
    files = tracker()
    newest: dict[str, Signature] = {}
    taken: dict[str, Signature] = {}
    unexamined: set[str] = set()
    now = 0.0

    def examine() -> None:
        for examination in files.due(now):
            assert examination.signature == newest[examination.path]
            unexamined.remove(examination.path)
            taken[examination.path] = examination.signature
            files.judge(examination, Verdict.TAKEN, now)

    for pause, path, stamp, closed, pending_only in moves:
        now += pause
        if not pending_only:
            newest[path] = (stamp, stamp)
            unexamined.add(path)
            files.see(sighting(stamp, stamp, closed=closed, path=path), now)
        examine()
    now += TIMING.settle_seconds
    examine()
    assert files.pending == 0
    assert taken == newest
