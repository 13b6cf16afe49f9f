from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coldchain.storage.copies.backoff import LONGEST_WAIT_SECONDS, after_failure, is_stale, may_try, next_try
from coldchain.storage.store import Space

NOW = st.floats(0, 1e9)


@given(failures=st.integers(1, 10_000), now=NOW)
def test_the_wait_grows_and_ends(failures: int, now: float) -> None:
    """Each failure waits at least as long as the one before, never longer than five minutes."""
    waited = next_try(failures, now) - now
    assert 0 < waited <= LONGEST_WAIT_SECONDS + 1e-6
    assert next_try(failures + 1, now) >= next_try(failures, now)


@given(now=NOW, failures=st.integers(1, 50))
def test_a_failure_is_tried_again_when_its_wait_is_over_and_not_before(now: float, failures: int) -> None:
    """Nothing is given up: after its wait, every failure is tried again."""
    trouble = None
    for _ in range(failures):
        trouble = after_failure(trouble, "EIO", now)
    assert trouble is not None
    assert trouble.failures == failures
    assert not may_try(trouble, now)
    assert may_try(trouble, trouble.next_try_seconds)


@given(free=st.integers(0, 1 << 50), grown=st.integers(-(1 << 30), 1 << 30), wanted=st.integers(0, 1 << 31), now=NOW)
def test_a_full_store_is_tried_at_once_when_room_has_come(free: int, grown: int, wanted: int, now: float) -> None:
    """Space that has come, and is enough, ends the wait; space that was there already (a quota) does not."""
    trouble = after_failure(None, "full", now, space_when_full=Space(free, 10), wanted_bytes=wanted)
    free_now = max(free + grown, 0)
    assert may_try(trouble, now, Space(free_now, 10)) == (free_now > free and free_now >= wanted)
    assert may_try(trouble, now, Space(free_now, 11)) == (free_now >= wanted)
    assert not may_try(trouble, now, None)


def test_what_has_no_trouble_is_tried() -> None:
    """No trouble, no wait."""
    assert may_try(None, 0.0)


@given(now=NOW, failures=st.integers(1, 50), later=st.floats(0, 1e6))
def test_only_what_was_due_for_long_is_forgotten(now: float, failures: int, later: float) -> None:
    """A trouble is kept while it waits, and as long again as the longest wait after it was due."""
    trouble = None
    for _ in range(failures):
        trouble = after_failure(trouble, "gone", now)
    assert trouble is not None
    due_for = now + later - trouble.next_try_seconds
    assert is_stale(trouble, now + later) == (due_for > LONGEST_WAIT_SECONDS)
