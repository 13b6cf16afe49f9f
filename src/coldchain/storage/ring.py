"""A few page-aligned buffers that go round between one reader and several consumers.

Reading, hashing and writing overlap: each consumer has its own thread, hashing and the system calls release the
interpreter's lock, and a buffer is filled again when the last consumer has let go of it. Where many files are on their
way at once, they overlap with each other, and each has but one thread. Memory is bounded by the ring whatever the
file's size. The buffers are anonymous mappings because `O_DIRECT` wants page-aligned memory.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, LifoQueue, SimpleQueue
from threading import Lock

BUFFER_BYTES = 1 << 20
BUFFER_COUNT = 4
_CROWD = 4

Fill = Callable[[memoryview], int]
Consume = Callable[[memoryview], object]


class Ring:
    """`count` buffers of `buffer_bytes` each (a multiple of the page size). One `stream` at a time uses it.

    `crowded`: so many others are in use that a thread for each consumer would only get in their way.
    """

    def __init__(self, *, buffer_bytes: int = BUFFER_BYTES, count: int = BUFFER_COUNT) -> None:
        self.buffer_bytes = buffer_bytes
        self.crowded = False
        self.free: SimpleQueue[memoryview] = SimpleQueue()
        for _ in range(count):
            self.free.put(memoryview(mmap.mmap(-1, buffer_bytes)))


class RingPool:
    """Rings kept for reuse: mapping and zeroing fresh pages for every small file would cost more than its copy."""

    def __init__(self) -> None:
        self._idle: LifoQueue[Ring] = LifoQueue()
        self._lock = Lock()
        self._lent = 0

    def borrow(self) -> _Loan:
        """A ring that nobody else uses meanwhile, as a context."""
        return _Loan(self)

    def take(self) -> Ring:
        """A ring, to be given back."""
        try:
            ring = self._idle.get_nowait()
        except Empty:
            ring = Ring()
        with self._lock:
            self._lent += 1
            ring.crowded = self._lent > _CROWD
        return ring

    def give_back(self, ring: Ring) -> None:
        """Let go of a ring that was taken."""
        with self._lock:
            self._lent -= 1
        self._idle.put(ring)


class _Loan:
    """A ring for as long as the context lasts. A class, since it is entered for every small file."""

    __slots__ = ("_pool", "_ring")

    def __init__(self, pool: RingPool) -> None:
        self._pool = pool

    def __enter__(self) -> Ring:
        self._ring = self._pool.take()
        return self._ring

    def __exit__(self, *_: object) -> None:
        self._pool.give_back(self._ring)


class _Chunk:
    """A filled buffer; it goes back to the ring when every consumer has released it."""

    def __init__(self, buffer: memoryview, length: int, consumers: int, ring: Ring) -> None:
        self.view = buffer[:length]
        self._buffer = buffer
        self._holders = consumers
        self._ring = ring
        self._lock = Lock()

    def release(self) -> None:
        with self._lock:
            self._holders -= 1
            last = self._holders == 0
        if last:
            self._ring.free.put(self._buffer)


_Inbox = SimpleQueue[_Chunk | None]


def stream(fill: Fill, size_bytes: int, consumers: Sequence[Consume], ring: Ring) -> int:
    """Give the bytes that `fill` produces to every consumer, in order, until `size_bytes` are read or the end comes.

    Parameters
    ----------
    fill : reads into the whole view that it is given and returns the number of bytes read; 0 is the end.
    size_bytes : how much is expected; decides only when to stop and whether threads are worth starting.
    consumers : called with a view that is valid until they return.

    Returns the number of bytes read. What `fill` or a consumer raises is raised here, after every thread has ended.
    """
    if size_bytes <= ring.buffer_bytes or ring.crowded:
        return _stream_in_line(fill, size_bytes, consumers, ring)
    inboxes: list[_Inbox] = [SimpleQueue() for _ in consumers]
    with ThreadPoolExecutor(max_workers=len(consumers), thread_name_prefix="copy") as pool:
        try:
            drains = [pool.submit(_drain, inbox, use) for inbox, use in zip(inboxes, consumers, strict=True)]
            total = _feed(fill, size_bytes, inboxes, ring)
        finally:  # also where no further thread could be started: those that run wait for their end
            for inbox in inboxes:
                inbox.put(None)
    for drain in drains:
        drain.result()
    return total


def _stream_in_line(fill: Fill, size_bytes: int, consumers: Sequence[Consume], ring: Ring) -> int:
    buffer = ring.free.get()
    total = 0
    try:
        while total < size_bytes and (length := fill(buffer)):
            for use in consumers:
                use(buffer[:length])
            total += length
    finally:
        ring.free.put(buffer)
    return total


def _feed(fill: Fill, size_bytes: int, inboxes: Sequence[_Inbox], ring: Ring) -> int:
    total = 0
    while total < size_bytes:
        buffer = ring.free.get()
        length = 0
        try:
            length = fill(buffer)
        finally:
            if not length:
                ring.free.put(buffer)
        if not length:
            break
        chunk = _Chunk(buffer, length, len(inboxes), ring)
        for inbox in inboxes:
            inbox.put(chunk)
        total += length
    return total


def _drain(inbox: _Inbox, use: Consume) -> None:
    chunk = inbox.get()
    try:
        while chunk is not None:
            use(chunk.view)
            chunk.release()
            chunk = inbox.get()
    finally:
        # After a failure the rest is let go unused: the reader and the other consumers wait for these buffers.
        while chunk is not None:
            chunk.release()
            chunk = inbox.get()
