"""A store that is asked again where an error may pass: a connection that was reset, a server that was busy.

Only what can be repeated whole is repeated. A copy that failed in the middle is begun anew by the copier; a flush is
never repeated, because the system tells once, and once only, that something was lost; a move or a removal may have
happened though its answer did not come.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar
from uuid import UUID

from coldchain.errors import SourceChangedError, StorageError, StoreFullError, VerificationError
from coldchain.storage.readback import ReadBack
from coldchain.storage.ring import Ring
from coldchain.storage.store import FileFacts, Incoming, Reading, Space, Store
from coldchain.storage.wrappers.wrapped import WrappedIncoming, WrappedStore

ATTEMPTS = 4
FIRST_WAIT_SECONDS = 0.5

_Result = TypeVar("_Result")

_PASSING = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.EPIPE,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)


def may_pass(error: StorageError) -> bool:
    """Whether the same call may succeed soon: the error says so, or the system's error is a connection's or a server's.

    A full store may get room, a changed source be whole and a damaged copy be made again, but not by asking again.
    """
    if isinstance(error, StoreFullError | SourceChangedError | VerificationError):
        return False
    cause = error.__cause__
    passing = isinstance(cause, ConnectionError | TimeoutError) or (
        isinstance(cause, OSError) and cause.errno in _PASSING
    )
    return error.retry or passing


class Retrying(WrappedStore):
    """Asks `inner` up to `attempts` times in all, with a wait that doubles from `first_wait_seconds`.

    `wait` waits so many seconds and says whether it was stopped; then the error is raised at once.
    """

    def __init__(
        self,
        inner: Store,
        *,
        attempts: int = ATTEMPTS,
        first_wait_seconds: float = FIRST_WAIT_SECONDS,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        super().__init__(inner)
        self._attempts = attempts
        self._first_wait_seconds = first_wait_seconds
        self._wait = _sleep if wait is None else wait

    def mark(self) -> UUID | None:
        """As the inner store, asked again."""
        return self._again(self.inner.mark)

    def set_mark(self, identity: UUID) -> None:
        """As the inner store, asked again: to set it twice is to set it once."""
        self._again(lambda: self.inner.set_mark(identity))

    def space(self) -> Space | None:
        """As the inner store, asked again."""
        return self._again(self.inner.space)

    def stored_name(self, relative: str) -> str:
        """As the inner store, asked again."""
        return self._again(lambda: self.inner.stored_name(relative))

    def size_of(self, stored_as: str) -> int | None:
        """As the inner store, asked again."""
        return self._again(lambda: self.inner.size_of(stored_as))

    def read_back(self, stored_as: str, ring: Ring) -> ReadBack:
        """As the inner store, asked again."""
        return self._again(lambda: self.inner.read_back(stored_as, ring))

    def confirm(self, stored_as: str, sha256: str, size_bytes: int, ring: Ring) -> ReadBack:
        """As the inner store, asked again; not where the copy is another."""
        return self._again(lambda: self.inner.confirm(stored_as, sha256, size_bytes, ring))

    @contextmanager
    def receive(self, relative: str, facts: FileFacts) -> Iterator[Incoming]:
        """As the inner store, begun again, and proved again; what is between is not repeated."""
        with ExitStack() as stack:
            incoming = self._again(lambda: stack.enter_context(self.inner.receive(relative, facts)))
            yield _ProvedAgain(incoming, self)

    @contextmanager
    def reading(self, stored_as: str) -> Iterator[Reading]:
        """As the inner store, opened again."""
        with ExitStack() as stack:
            yield self._again(lambda: stack.enter_context(self.inner.reading(stored_as)))

    def remove_partials(self) -> int:
        """As the inner store, asked again."""
        return self._again(self.inner.remove_partials)

    def prove(self, incoming: Incoming, sha256: str, ring: Ring) -> ReadBack:
        """Prove a copy of the inner store, again where that failed for a reason that may pass."""
        return self._again(lambda: incoming.prove(sha256, ring))

    def _again(self, ask: Callable[[], _Result]) -> _Result:
        for attempt in range(self._attempts - 1):
            try:
                return ask()
            except StorageError as error:
                if not may_pass(error) or self._wait(self._first_wait_seconds * 2.0**attempt):
                    raise
        return ask()


class _ProvedAgain(WrappedIncoming):
    def __init__(self, inner: Incoming, store: Retrying) -> None:
        super().__init__(inner)
        self._store = store

    def prove(self, sha256: str, ring: Ring) -> ReadBack:
        return self._store.prove(self.inner, sha256, ring)


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False
