from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldchain.storage.ring import Ring, stream

BUFFER_BYTES = 4096
COUNT = 3


def reader(content: bytes, lengths: random.Random) -> Callable[[memoryview], int]:
    """Reads `content` in pieces of any length, as a system call may."""
    at = 0

    def fill(view: memoryview) -> int:
        nonlocal at
        length = min(lengths.randint(1, len(view)), len(content) - at)
        view[:length] = content[at : at + length]
        at += length
        return length

    return fill


def whole(ring: Ring) -> bool:
    """Whether every buffer is back."""
    return ring.free.qsize() == COUNT


@given(size=st.integers(0, 10 * BUFFER_BYTES), consumers=st.integers(1, 4), seed=st.integers(0, 2**32))
def test_every_consumer_gets_every_byte_in_order(size: int, consumers: int, seed: int) -> None:
    """Whatever the lengths of the reads, each consumer sees the whole content, and every buffer comes back."""
    content = random.Random(seed).randbytes(size)
    ring = Ring(buffer_bytes=BUFFER_BYTES, count=COUNT)
    seen = [bytearray() for _ in range(consumers)]
    total = stream(reader(content, random.Random(seed)), size, [s.extend for s in seen], ring)
    assert total == size
    assert all(bytes(s) == content for s in seen)
    assert whole(ring)


@given(size=st.integers(1, 10 * BUFFER_BYTES), after=st.integers(0, 12))
def test_a_failing_consumer_stops_nobody_and_loses_no_buffer(size: int, after: int) -> None:
    """A consumer's error is raised when all is read; the others have seen everything, and every buffer comes back."""
    content = random.Random(size).randbytes(size)
    ring = Ring(buffer_bytes=BUFFER_BYTES, count=COUNT)
    seen = bytearray()
    calls = 0

    def fail(view: memoryview) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise RuntimeError("this one fails")

    failed = False
    try:
        stream(reader(content, random.Random(size)), size, [seen.extend, fail], ring)
    except RuntimeError:
        failed = True
    assert failed == (calls > after)
    assert whole(ring)
    if size > BUFFER_BYTES:
        assert bytes(seen) == content


@pytest.mark.parametrize("size", [100, 10 * BUFFER_BYTES])
def test_a_failing_source_ends_the_stream_and_loses_no_buffer(size: int) -> None:
    """An error of the reader is raised, after every thread has ended and every buffer is back."""
    ring = Ring(buffer_bytes=BUFFER_BYTES, count=COUNT)
    calls = 0

    def fill(view: memoryview) -> int:
        nonlocal calls
        calls += 1
        if calls > size // BUFFER_BYTES // 2:
            raise OSError("unplugged")
        return len(view)

    with pytest.raises(OSError, match="unplugged"):
        stream(fill, size, [lambda view: None] * 2, ring)
    assert whole(ring)


def test_a_source_that_ends_early_ends_the_stream() -> None:
    """Fewer bytes than expected are given as they are, and counted."""
    ring = Ring(buffer_bytes=BUFFER_BYTES, count=COUNT)
    seen = bytearray()
    assert stream(reader(bytes(9000), random.Random(1)), 50_000, [seen.extend], ring) == 9000
    assert len(seen) == 9000
    assert whole(ring)


@pytest.mark.parametrize("started", [0, 1, 2])
def test_a_thread_that_cannot_be_started_ends_the_stream(monkeypatch: pytest.MonkeyPatch, started: int) -> None:
    """Where the machine gives no further thread, the error is raised, nobody waits for ever, and no buffer is lost."""
    ring = Ring(buffer_bytes=BUFFER_BYTES, count=COUNT)
    submit, left = ThreadPoolExecutor.submit, iter(range(started))

    def scarce(self, *given):
        if next(left, None) is None:
            raise RuntimeError("can't start new thread")
        return submit(self, *given)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", scarce)
    with pytest.raises(RuntimeError, match="thread"):
        stream(reader(bytes(50_000), random.Random(1)), 50_000, [lambda view: None] * 3, ring)
    assert whole(ring)
