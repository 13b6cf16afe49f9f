"""Throttling, retrying and dry runs, on a store in memory, with clocks and waiting of the test's own."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import time
from threading import Event, Lock, Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldchain.errors import StorageError, StoreFullError, VerificationError
from coldchain.storage.memory import MemoryStore
from coldchain.storage.ring import Ring
from coldchain.storage.store import FileFacts, Store
from coldchain.storage.wrappers.dry_run import Change, DryRun, DryRunError, Intended
from coldchain.storage.wrappers.retrying import Retrying, may_pass
from coldchain.storage.wrappers.throttled import Limit, Throttled, Window, rate_at
from tests.storage.every_store import identity

NAME = "krios/visit/movie.tiff"
RING = Ring(buffer_bytes=4096, count=1)
CONTENT = b"content"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FACTS = FileFacts(len(CONTENT), 0, 0o644)


class Clock:
    """Time that passes only by waiting; the day begins at 0 s."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self._lock = Lock()

    def now(self) -> float:
        """Seconds since it began."""
        return self.seconds

    def day_time(self) -> time:
        """The time of day."""
        second = int(self.seconds) % 86_400
        return time(second // 3600, second // 60 % 60, second % 60)

    def wait(self, seconds: float) -> bool:
        """Let the time pass; nobody stops it."""
        assert seconds > 0
        with self._lock:
            self.seconds += seconds
        return False


def limit_of(clock: Clock, rate: float | None, windows: tuple[Window, ...] = ()) -> Limit:
    """A limit by that clock."""
    return Limit(rate, windows, clock=clock.now, day_time=clock.day_time, wait=clock.wait)


def put(store: Store, content: bytes = CONTENT, name: str = NAME) -> None:
    """Make a copy."""
    sha256 = hashlib.sha256(content).hexdigest()
    with store.receive(name, FileFacts(len(content), 0, 0o644)) as incoming:
        for at in range(0, len(content), 1000):
            incoming.write(memoryview(content)[at : at + 1000])
        incoming.seal()
        incoming.prove(sha256, RING)
        incoming.publish(sha256, RING)


@given(rate=st.floats(1000, 1e7), pieces=st.lists(st.integers(0, 50_000), min_size=1, max_size=30))
def test_no_more_passes_than_the_limit_allows(rate: float, pieces: list[int]) -> None:
    """At any moment, what has passed since the beginning is at most the rate times the time, but for a quarter second;
    and nobody waits longer than that takes."""
    clock, passed = Clock(), 0
    limit = limit_of(clock, rate)
    for piece in pieces:
        limit.take(piece)
        passed += piece
        assert passed <= rate * (clock.seconds + 0.25) + len(pieces)
    assert clock.seconds <= sum(pieces) / rate + 1e-3 * len(pieces)


def test_idle_time_is_not_saved_up() -> None:
    """After an hour of silence the rate is what it was, but for a quarter of a second's worth."""
    clock = Clock()
    limit = limit_of(clock, 1000)
    clock.wait(3600)
    limit.take(10_000)
    assert clock.seconds - 3600 == pytest.approx(9.75, abs=0.01)


def test_threads_share_one_limit() -> None:
    """Four threads together get no more than one would."""
    clock = Clock()
    limit = limit_of(clock, 1e6)
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(limit.take, [100_000] * 40))
    # Waiting at the same time is waiting once; the clock counts each, so it may only run faster than the bytes.
    assert clock.seconds >= 4 - 0.3


OFFICE = Window(time(8), time(18), 20e6)
NIGHT = Window(time(22, 30), time(6), None)


@pytest.mark.parametrize(
    ("now", "rate"),
    [
        (time(7, 59, 59), 5e6),
        (time(8), 20e6),
        (time(17, 59, 59, 999_999), 20e6),
        (time(18), 5e6),
        (time(22, 30), None),
        (time(0), None),
        (time(5, 59, 59), None),
        (time(6), 5e6),
    ],
)
def test_the_hour_decides_the_rate(now: time, rate: float | None) -> None:
    """A window holds from its first until before its last moment, over midnight too; else the plain rate does."""
    assert rate_at([OFFICE, NIGHT], 5e6, now) == rate
    assert rate_at([], 5e6, now) == 5e6
    assert rate_at([Window(time(3), time(3), 1.0), OFFICE], 5e6, now) == 1.0


def test_a_copy_goes_faster_when_the_window_ends() -> None:
    """What waits in a slow window goes on at the new rate, soon after the hour has struck."""
    clock = Clock(17 * 3600 + 59 * 60)
    limit = limit_of(clock, None, (Window(time(8), time(18), 10.0),))
    limit.take(1_000_000)
    assert 18 * 3600 <= clock.seconds < 18 * 3600 + 6


def test_nothing_passes_in_a_closed_window() -> None:
    """A rate of 0 holds everything until the window ends."""
    clock = Clock(17 * 3600)
    limit = limit_of(clock, 1e6, (Window(time(8), time(18), 0.0),))
    limit.take(1)
    assert 18 * 3600 <= clock.seconds < 18 * 3600 + 6


def test_stopping_wakes_whoever_waits() -> None:
    """A copy that waits for bandwidth ends at once with an error that is nobody's fault; its store gets nothing."""
    inner = MemoryStore("usb")
    limit = Limit(1.0)
    store = Throttled(inner, limit)
    errors: list[StorageError] = []
    began = Event()

    def copy() -> None:
        began.set()
        try:
            put(store, bytes(100_000))
        except StorageError as error:
            errors.append(error)

    thread = Thread(target=copy)
    thread.start()
    assert began.wait(10)
    limit.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert len(errors) == 1
    assert not store.is_at_fault(errors[0])
    assert inner.contents() == {}


def test_copies_in_and_out_are_throttled() -> None:
    """Writing a copy and reading a stored file each take their time."""
    clock = Clock()
    store = Throttled(MemoryStore("usb"), limit_of(clock, 1000))
    put(store, bytes(5000))
    written = clock.seconds
    assert written == pytest.approx(5, abs=0.3)
    with store.reading(NAME) as opened:
        buffer = memoryview(bytearray(1000))
        while opened.fill(buffer):
            pass
        assert opened.facts.size_bytes == 5000
    assert clock.seconds - written == pytest.approx(5, abs=0.3)


def passing() -> StorageError:
    """An error of a connection."""
    error = StorageError("reset")
    error.__cause__ = OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    return error


REPEATED: dict[str, Callable[[Store], object]] = {
    "mark": lambda store: store.mark(),
    "set_mark": lambda store: store.set_mark(identity(1)),
    "space": lambda store: store.space(),
    "size_of": lambda store: store.size_of(NAME),
    "read_back": lambda store: store.read_back(NAME, RING),
    "confirm": lambda store: store.confirm(NAME, SHA256, len(CONTENT), RING),
    "receive": put,
    "prove": put,
    "remove_partials": lambda store: store.remove_partials(),
}
ONCE: dict[str, Callable[[Store], object]] = {
    "write": put,
    "seal": put,
    "publish": put,
    "flush": lambda store: store.flush(),
    "move": lambda store: store.move(NAME, "krios/moved"),
    "remove": lambda store: store.remove(NAME),
}


def retrying(inner: MemoryStore) -> tuple[Retrying, list[float]]:
    """A store that tries up to four times, and how long it waited."""
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return False

    return Retrying(inner, attempts=4, first_wait_seconds=1.0, wait=wait), waits


@pytest.mark.parametrize("method", REPEATED)
def test_what_can_be_repeated_is(method: str) -> None:
    """Three errors that pass are three growing waits and no failure; a fourth is raised."""
    inner = MemoryStore("usb")
    put(inner)
    store, waits = retrying(inner)
    inner.fail_next(method, *(passing() for _ in range(3)))
    REPEATED[method](store)
    assert waits == [1.0, 2.0, 4.0]
    inner.fail_next(method, *(passing() for _ in range(4)))
    with pytest.raises(StorageError, match="reset"):
        REPEATED[method](store)


def test_a_file_is_opened_again() -> None:
    """Opening a stored file to be read is repeated; once it is open, reading is not."""
    inner = MemoryStore("usb")
    put(inner)
    store, waits = retrying(inner)
    inner.fail_next("reading", passing())
    with store.reading(NAME) as opened:
        assert opened.fill(memoryview(bytearray(100))) == len(CONTENT)
    assert waits == [1.0]


@pytest.mark.parametrize("method", ONCE)
def test_what_may_have_happened_is_not_repeated(method: str) -> None:
    """Writing, sealing, naming, flushing, moving and removing are tried once: the caller begins anew."""
    inner = MemoryStore("usb")
    put(inner)
    store, waits = retrying(inner)
    inner.fail_next(method, passing())
    with pytest.raises(StorageError, match="reset"):
        ONCE[method](store)
    assert waits == []


@pytest.mark.parametrize("error", [StorageError("no"), StoreFullError("full"), VerificationError("another")])
def test_what_does_not_pass_is_not_repeated(error: StorageError) -> None:
    """A refusal, a full store and a damaged copy are said at once."""
    inner = MemoryStore("usb")
    store, waits = retrying(inner)
    inner.fail_next("read_back", error)
    with pytest.raises(type(error)):
        store.read_back(NAME, RING)
    assert waits == []
    assert not may_pass(error)


def test_stopping_ends_the_retries() -> None:
    """Where the waiting is stopped, the error is raised and nothing is asked again."""
    inner = MemoryStore("usb")
    store = Retrying(inner, wait=lambda seconds: True)
    inner.fail_next("space", passing(), passing())
    with pytest.raises(StorageError, match="reset"):
        store.space()
    with pytest.raises(StorageError, match="reset"):
        inner.space()


def test_a_dry_run_changes_nothing_and_says_what_would_be_done() -> None:
    """Every change is refused and listed, everything else answers as the store does."""
    inner = MemoryStore("raid")
    put(inner)
    store = DryRun(inner)
    changes: list[Callable[[], object]] = [
        lambda: store.set_mark(identity(3)),
        lambda: put(store, b"other", "krios/other"),
        lambda: store.move(NAME, "krios/moved"),
        lambda: store.remove(NAME),
        store.remove_partials,
    ]
    for change in changes:
        with pytest.raises(DryRunError, match="dry run") as caught:
            change()
        assert not store.is_at_fault(caught.value)
    store.flush()
    assert inner.contents() == {NAME: CONTENT}
    assert inner.mark() is None
    assert store.intended == [
        Intended(Change.MARK, str(identity(3))),
        Intended(Change.COPY, "krios/other", size_bytes=5),
        Intended(Change.MOVE, NAME, "krios/moved", size_bytes=7),
        Intended(Change.REMOVE, NAME, size_bytes=7),
        Intended(Change.SWEEP),
    ]
    assert store.confirm(NAME, SHA256, 7, RING) == inner.confirm(NAME, SHA256, 7, RING)
    assert [found.stored_as for found in store.walk()] == [NAME]
    assert (store.name, store.size_of(NAME), store.mark()) == ("raid", 7, None)
    with store.reading(NAME) as opened:
        assert opened.facts.size_bytes == FACTS.size_bytes


def test_a_store_in_memory_loses_what_was_not_flushed() -> None:
    """A power cut takes copies that were published without being made durable, and only those."""
    store = MemoryStore("raid")
    put(store)
    for name, flushed in (("krios/a", True), ("krios/b", False)):
        with store.receive(name, FACTS) as incoming:
            incoming.write(memoryview(CONTENT))
            incoming.seal(durable=False)
            incoming.publish(SHA256, RING, durable=False)
        if flushed:
            store.flush()
    store.power_cut()
    assert set(store.contents()) == {NAME, "krios/a"}


def test_a_store_in_memory_can_be_full_or_away() -> None:
    """Both are refused, and the whole store's fault; afterwards it goes on."""
    store = MemoryStore("raid", capacity_bytes=10)
    with pytest.raises(StoreFullError) as full:
        put(store, bytes(11))
    assert store.is_at_fault(full.value)
    store.away = True
    with pytest.raises(StorageError, match="not there") as away:
        put(store)
    assert store.is_at_fault(away.value)
    store.away = False
    put(store)
    assert store.contents() == {NAME: CONTENT}
