"""How a movie is read: numbers that cannot be, frames that are left out, and work shared out to threads."""

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldchain.errors import FormatError, IncompleteFileError, UsageError
from coldchain.formats.loading import BadFrames, MovieReading, loaded
from coldchain.formats.workers import run_all

PATH = Path("movie.tif")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"eer_fractions": 0}, "0 EER fractions; expected 1 or more"),
        ({"eer_upsampling": 3}, "an EER upsampling of 3; expected 1 or 2"),
        ({"first_frame": 0}, "a first frame of 0"),
        ({"first_frame": 5, "last_frame": 4}, "frames 5 to 4"),
        ({"tolerate_frames": -1}, "-1 bad frames"),
        ({"threads": 0}, "0 threads"),
    ],
)
def test_numbers_that_cannot_be_are_refused(values: dict[str, Any], words: str) -> None:
    """Before any file is looked at."""
    with pytest.raises(UsageError, match=words):
        MovieReading(**values)


@given(total=st.integers(1, 60), first=st.integers(1, 60), length=st.none() | st.integers(1, 60))
def test_frames_are_chosen_from_one_and_with_both_ends(total: int, first: int, length: int | None) -> None:
    """As a person counts them; what there is not is an error that says how many there are."""
    last = None if length is None else first + length - 1
    how = MovieReading(first_frame=first, last_frame=last)
    if first <= total and (last is None or last <= total):
        assert [index + 1 for index in how.chosen(total, PATH)] == list(range(first, (last or total) + 1))
    else:
        with pytest.raises(UsageError, match=f"the movie has {total} frames; expected frames between 1 and {total}"):
            how.chosen(total, PATH)


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(1, 9))
def test_frames_move_up_where_others_are_left_out(good: list[bool], first: int) -> None:
    """The stack keeps its order, its numbers and its memory."""
    stack = np.arange(len(good))[:, None, None] * np.ones((1, 2, 3), int)
    held = np.array([3 * each for each in good])
    bad = BadFrames(len(good), PATH)
    for index in np.flatnonzero(held == 0):
        bad.add(int(index) + first, FormatError(f"frame {index + first} is bad"))
    if not any(good):
        with pytest.raises(FormatError, match=f"no frame is left: frame {first} is bad"):
            loaded(stack, held, first, bad, PATH)
        return
    movie = loaded(stack.copy(), held, first, bad, PATH)
    assert np.array_equal(movie.frames, stack[good])
    assert movie.numbers == tuple(int(index) + first for index in np.flatnonzero(good))
    assert movie.camera_frames == (3,) * sum(good)
    assert [left.number for left in movie.left_out] == [int(i) + first for i in np.flatnonzero(held == 0)]


def test_bad_frames_are_counted_once_and_told_by_their_first_strip() -> None:
    """However many strips of a frame are bad, and in whatever order threads find them."""
    bad = BadFrames(1, PATH)
    for strip in (5, 2, 7):
        bad.add(3, FormatError(f"strip {strip}"), part=strip)
    assert 3 in bad
    assert 2 not in bad
    assert [(left.number, left.reason) for left in bad.left_out()] == [(3, "strip 2")]
    with pytest.raises(FormatError, match="at least 2 frames cannot be used; strip 0; expected at most 1"):
        bad.add(1, FormatError("strip 0"))


def test_too_many_cut_frames_are_an_incomplete_file() -> None:
    """A file that may still grow says so, if that is all that is wrong with it."""
    for second, kind in ((IncompleteFileError("cut"), IncompleteFileError), (FormatError("bad"), FormatError)):
        bad = BadFrames(1, PATH)
        bad.add(1, IncompleteFileError("cut"))
        with pytest.raises(kind) as caught:
            bad.add(2, second)
        assert type(caught.value) is kind


@given(count=st.integers(0, 50), threads=st.integers(1, 5))
def test_every_task_is_run_once(count: int, threads: int) -> None:
    """Whatever the number of tasks and of threads."""
    done: Counter[int] = Counter()
    lock = threading.Lock()

    def task(number: int) -> None:
        with lock:
            done[number] += 1

    run_all(task, count, threads)
    assert done == Counter(range(count))


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_error_stops_the_taking_of_tasks(threads: int) -> None:
    """No thread takes another task once one has failed, and the error is raised when all have stopped."""
    started: list[int] = []

    def task(number: int) -> None:
        started.append(number)
        if number == 2:
            raise FormatError("two")

    with pytest.raises(FormatError, match="two"):
        run_all(task, 100_000, threads)
    assert len(started) < 100_000
    assert threading.active_count() < 10


def test_threads_work_at_the_same_time() -> None:
    """Two tasks that wait for each other both end."""
    barrier = threading.Barrier(2, timeout=30)
    run_all(lambda number: (barrier.wait(), None)[1], 2, 2)
