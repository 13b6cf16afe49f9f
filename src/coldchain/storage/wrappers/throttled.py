"""A store that takes and gives no more bytes a second than it is allowed to, by the hour of the day.

The limit belongs to the link, not to the copy: several threads, and several stores, may share one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, time
from threading import Event, Lock
from time import monotonic

from coldchain.errors import StorageError
from coldchain.storage.store import FileFacts, Incoming, Reading, Store
from coldchain.storage.wrappers.wrapped import WrappedIncoming, WrappedStore

_BURST_SECONDS = 0.25
_LONGEST_WAIT_SECONDS = 5.0  # a window may begin or end meanwhile, and clocks are set


@dataclass(frozen=True, slots=True)
class Window:
    """From `begins` until just before `ends`, by the local clock, every day; over midnight where it ends before it
    begins, and all day where both are the same. `bytes_per_second` 0 lets nothing pass, None everything."""

    begins: time
    ends: time
    bytes_per_second: float | None

    def holds_at(self, now: time) -> bool:
        """Whether that time of day lies in it."""
        if self.begins < self.ends:
            return self.begins <= now < self.ends
        return now >= self.begins or now < self.ends


def rate_at(windows: Sequence[Window], otherwise: float | None, now: time) -> float | None:
    """Bytes a second at a time of day: the first window's that holds it, else `otherwise`; None where there is no
    limit."""
    for window in windows:
        if window.holds_at(now):
            return window.bytes_per_second
    return otherwise


def _local_now() -> time:
    return datetime.now().astimezone().time()


class Limit:
    """How many bytes may pass. All who share it get no more than its rate together.

    Parameters
    ----------
    bytes_per_second : outside of all windows; None where there is no limit then.
    windows : by the hours of the day; of several that hold, the first counts.
    clock, day_time, wait : a monotonic clock in seconds, the local time of day, and what waits so many seconds unless
        it is stopped, and says whether it was.
    """

    def __init__(
        self,
        bytes_per_second: float | None,
        windows: Sequence[Window] = (),
        *,
        clock: Callable[[], float] = monotonic,
        day_time: Callable[[], time] = _local_now,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._stopping = Event()
        self._otherwise = bytes_per_second
        self._windows = tuple(windows)
        self._clock = clock
        self._day_time = day_time
        self._wait = self._stopping.wait if wait is None else wait
        self._lock = Lock()
        self._tokens = 0.0
        self._filled_at = clock()

    def stop(self) -> None:
        """Wake everyone who waits; they and all who come later are refused."""
        self._stopping.set()

    def take(self, count: int) -> None:
        """Wait until so many bytes may pass. Raises StorageError where it is stopped meanwhile."""
        left = float(count)
        while (seconds := self._taken(left)) is not None:
            left, delay_seconds = seconds
            if self._stopping.is_set() or self._wait(min(delay_seconds, _LONGEST_WAIT_SECONDS)):
                raise StorageError(
                    "a copy was stopped while it waited for its share of the bandwidth",
                    remedy="Nothing: it is made again at the next start",
                )

    def _taken(self, wanted: float) -> tuple[float, float] | None:
        """Take what may pass now; None if that is all, else what is left and how long to wait for more."""
        rate = rate_at(self._windows, self._otherwise, self._day_time())
        with self._lock:
            now = self._clock()
            passed_seconds, self._filled_at = now - self._filled_at, now
            if rate is None:
                self._tokens = 0.0
                return None
            self._tokens = min(self._tokens + max(passed_seconds, 0.0) * rate, rate * _BURST_SECONDS)
            given = min(self._tokens, wanted)
            self._tokens -= given
        left = wanted - given
        if left < 0.5:  # less than a byte is rounding
            return None
        return left, _LONGEST_WAIT_SECONDS if rate <= 0 else min(left / rate, _BURST_SECONDS)


class Throttled(WrappedStore):
    """A store whose copies, in and out, keep to a limit. What a store reads by itself, to prove it, is not counted."""

    def __init__(self, inner: Store, limit: Limit) -> None:
        super().__init__(inner)
        self.limit = limit
        self.near = False

    @contextmanager
    def receive(self, relative: str, facts: FileFacts) -> Iterator[Incoming]:
        """Begin a copy that is written no faster than the limit allows."""
        with self.inner.receive(relative, facts) as incoming:
            yield _SlowIncoming(incoming, self.limit)

    @contextmanager
    def reading(self, stored_as: str) -> Iterator[Reading]:
        """Open a file that is read no faster than the limit allows."""
        with self.inner.reading(stored_as) as opened:
            yield _SlowReading(opened, self.limit)


class _SlowIncoming(WrappedIncoming):
    def __init__(self, inner: Incoming, limit: Limit) -> None:
        super().__init__(inner)
        self.limit = limit

    def write(self, view: memoryview) -> None:
        self.limit.take(len(view))
        self.inner.write(view)


class _SlowReading:
    def __init__(self, inner: Reading, limit: Limit) -> None:
        self._inner = inner
        self.limit = limit

    @property
    def facts(self) -> FileFacts:
        return self._inner.facts

    def fill(self, view: memoryview) -> int:
        count = self._inner.fill(view)
        self.limit.take(count)  # afterwards: only then is it known how many they are
        return count
