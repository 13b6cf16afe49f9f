"""When something that failed is tried again. Pure: the time and the free space are passed in."""

from __future__ import annotations

from dataclasses import dataclass

from coldchain.storage.store import Space

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 300.0
# Whether a store is back costs one look, and everything waits for it.
LONGEST_STORE_WAIT_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """What stands in the way of a store or of one copy. Times are of one monotonic clock, in seconds.

    `space_when_full` is what a full store had left after it refused `wanted_bytes`, None for every other trouble.
    """

    reason: str
    failures: int
    next_try_seconds: float
    space_when_full: Space | None = None
    wanted_bytes: int = 0


def next_try(failures: int, now_seconds: float, longest_seconds: float | None = None) -> float:
    """When to try again after so many failures in a row: the wait doubles from 1 s, up to `longest_seconds`, which is
    `LONGEST_WAIT_SECONDS` where it is not given."""
    longest = LONGEST_WAIT_SECONDS if longest_seconds is None else longest_seconds
    doublings = min(max(failures - 1, 0), 32)  # beyond any cap; keeps the power finite
    return now_seconds + min(FIRST_WAIT_SECONDS * 2.0**doublings, longest)


def after_failure(
    before: Trouble | None,
    reason: str,
    now_seconds: float,
    *,
    longest_seconds: float | None = None,
    space_when_full: Space | None = None,
    wanted_bytes: int = 0,
) -> Trouble:
    """The trouble that stands after one more failure; `longest_seconds` as in `next_try`."""
    failures = 1 if before is None else before.failures + 1
    due = next_try(failures, now_seconds, longest_seconds)
    return Trouble(reason, failures, due, space_when_full, wanted_bytes)


def may_try(trouble: Trouble | None, now_seconds: float, space: Space | None = None) -> bool:
    """Whether to try now: there is no trouble, its wait is over, or a full store has got room since.

    `space` is what the store has left now. Only growth counts: a store that is full by quota reports free bytes all the
    time, and would be asked without end.
    """
    if trouble is None or now_seconds >= trouble.next_try_seconds:
        return True
    full = trouble.space_when_full
    if full is None or space is None or space.free_bytes < trouble.wanted_bytes:
        return False
    return space.free_bytes > full.free_bytes or space.free_files > full.free_files


def is_stale(trouble: Trouble, now_seconds: float) -> bool:
    """Whether nobody took it up for long after its wait was over: then what it is about is no longer wanted (verified
    since, replaced), or its store is away, which is a trouble of its own."""
    return now_seconds > trouble.next_try_seconds + LONGEST_WAIT_SECONDS
