"""A store in memory, for tests: it refuses what other stores refuse, and faults can be planted in it.

Nothing of it is ever used for a copy that somebody wants to keep.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import RLock
from uuid import UUID

from coldchain.errors import StorageError, StoreFullError, VerificationError
from coldchain.model.files import KeptAside, VerificationLevel
from coldchain.storage.portable_names import NameRules, stored_name
from coldchain.storage.posix.names import is_own, parts_for_copy, parts_of
from coldchain.storage.readback import ReadBack
from coldchain.storage.ring import Ring
from coldchain.storage.store import FileFacts, Found, Space, wrong_store


@dataclass(frozen=True, slots=True)
class _Stored:
    content: bytes
    facts: FileFacts


class MemoryStore:
    """A store of at most `capacity_bytes`. `level` is what reading back in it shall prove.

    `away` makes it a store whose root is missing. `contents` tells what stands in it.
    """

    batches = True
    near = True

    def __init__(
        self,
        name: str,
        *,
        identity: UUID | None = None,
        capacity_bytes: int = 1 << 30,
        level: VerificationLevel = VerificationLevel.CACHE,
    ) -> None:
        self.name = name
        self.identity = identity
        self.capacity_bytes = capacity_bytes
        self.level = level
        self.away = False
        self._lock = RLock()
        self._mark: UUID | None = None
        self._files: dict[str, _Stored] = {}
        self._unflushed: set[str] = set()
        self._faults: defaultdict[str, deque[StorageError]] = defaultdict(deque)

    def fail_next(self, method: str, *errors: StorageError) -> None:
        """Have the next calls of that method of the store, or of a copy on its way, raise these errors in turn."""
        self._faults[method].extend(errors)

    def flip(self, stored_as: str, at: int = 0) -> None:
        """Flip one bit of the byte at that place of a stored file."""
        with self._lock:
            stored = self._files[stored_as]
            content = bytearray(stored.content)
            content[at] ^= 1
            self._files[stored_as] = replace(stored, content=bytes(content))

    def swap(self, mark: UUID | None = None) -> None:
        """Put another, empty store in its place, that bears this identity."""
        with self._lock:
            self._files.clear()
            self._mark = mark

    def contents(self) -> dict[str, bytes]:
        """What stands in it, by stored name."""
        with self._lock:
            return {name: stored.content for name, stored in self._files.items()}

    def mark(self) -> UUID | None:
        """The identity that it bears."""
        self._begin("mark", whoever=True)
        return self._mark

    def set_mark(self, identity: UUID) -> None:
        """Have it bear this identity; refused where it bears another."""
        self._begin("set_mark", whoever=True)
        if self._mark not in (None, identity):
            raise self._error(f"it bears an identity already: {self._mark}", remedy="Use it under that identity")
        self._mark = identity

    def space(self) -> Space:
        """What is left."""
        self._begin("space")
        return Space(free_bytes=self._free_bytes(), free_files=1 << 20, total_bytes=self.capacity_bytes)

    def stored_name(self, relative: str) -> str:
        """The path itself, if it is one."""
        return stored_name(relative, NameRules.POSIX)

    def size_of(self, stored_as: str) -> int | None:
        """Size in bytes of what stands there."""
        self._begin("size_of")
        parts_of(stored_as)
        stored = self._files.get(stored_as)
        return None if stored is None else stored.facts.size_bytes

    @contextmanager
    def receive(self, relative: str, facts: FileFacts) -> Iterator[MemoryIncoming]:
        """Begin a copy."""
        self._begin("receive")
        parts = parts_for_copy(self.stored_name(relative))
        if facts.size_bytes > self._free_bytes():
            raise StoreFullError(f"store {self.name!r} is full", remedy="Give it more capacity", path=relative)
        with self._lock:
            for depth in range(1, len(parts)):
                if "/".join(parts[:depth]) in self._files:
                    raise self._error(f"{relative!r} leads through a file", remedy="Move it out of the way")
        yield MemoryIncoming(self, "/".join(parts), facts)

    def flush(self) -> None:
        """Make durable what was published; until then a `power_cut` takes it."""
        self._begin("flush")
        self._unflushed.clear()

    def power_cut(self) -> None:
        """Lose what was not flushed."""
        with self._lock:
            for name in self._unflushed:
                self._files.pop(name, None)
            self._unflushed.clear()

    def read_back(self, stored_as: str, ring: Ring) -> ReadBack:  # noqa: ARG002  # the interface's
        """The digest of what stands there."""
        self._begin("read_back")
        return self._found(self._stored(stored_as).content)

    def confirm(self, stored_as: str, sha256: str, size_bytes: int, ring: Ring) -> ReadBack:  # noqa: ARG002
        """See that what stands there has this digest and size."""
        self._begin("confirm")
        found = self._found(self._stored(stored_as).content)
        self._require(found, sha256, size_bytes, stored_as)
        return found

    @contextmanager
    def reading(self, stored_as: str) -> Iterator[MemoryReading]:
        """Read what stands there."""
        self._begin("reading")
        yield MemoryReading(self, self._stored(stored_as))

    def move(self, stored_as: str, to: str) -> None:
        """Rename; never over anything."""
        self._begin("move")
        parts_of(to)
        with self._lock:
            stored = self._stored(stored_as)
            if to in self._files or self._is_folder(to):
                raise self._error(f"{to!r} is there already", remedy="Move what stands there out of the way")
            del self._files[stored_as]
            self._files[to] = stored

    def remove(self, stored_as: str) -> bool:
        """Remove what stands there."""
        self._begin("remove")
        parts_of(stored_as)
        with self._lock:
            if self._is_folder(stored_as):
                raise self._error(f"{stored_as!r} is a folder", remedy="Name a file")
            return self._files.pop(stored_as, None) is not None

    def walk(self) -> Iterator[Found]:
        """Everything but the trash."""
        self._begin("walk")
        with self._lock:
            found = [Found(name, stored.facts.size_bytes) for name, stored in self._files.items()]
        return (one for one in found if not is_own(one.stored_as.partition("/")[0]))

    def remove_partials(self) -> int:
        """A killed process takes its memory with it."""
        self._begin("remove_partials")
        return 0

    def is_at_fault(self, error: StorageError) -> bool:
        """Whether it is full, away, or not itself."""
        wrong = self.identity is not None and self._mark != self.identity
        return isinstance(error, StoreFullError) or self.away or wrong

    def put(self, incoming: MemoryIncoming, sha256: str, *, durable: bool) -> KeptAside | None:
        """Give a copy its name; what was kept aside for it."""
        with self._lock:
            name, kept = incoming.stored_as, None
            if self._is_folder(name):
                raise self._error(f"{name!r} is a folder", remedy="Move the folder out of the way")
            standing = self._files.get(name)
            if standing is not None and (found := hashlib.sha256(standing.content).hexdigest()) != sha256:
                aside, number = f"{name}.replaced-{found[:8]}", 1
                while aside in self._files:
                    number += 1
                    aside = f"{name}.replaced-{found[:8]}-{number}"
                self._files[aside] = standing
                kept = KeptAside(path=aside, sha256=found)
            self._files[name] = _Stored(bytes(incoming.content), incoming.facts)
            if not durable:
                self._unflushed.add(name)
            return kept

    def begin_copying(self, method: str, more_bytes: int = 0) -> None:
        """What every step of a copy begins with: the planted fault, and whether there is room."""
        self._begin(method)
        if more_bytes > self._free_bytes():
            raise StoreFullError(f"store {self.name!r} is full", remedy="Give it more capacity")

    def prove(self, incoming: MemoryIncoming, sha256: str) -> ReadBack:
        """Compare a copy on its way."""
        found = self._found(bytes(incoming.content))
        self._require(found, sha256, len(incoming.content), incoming.stored_as)
        return found

    def _begin(self, method: str, *, whoever: bool = False) -> None:
        with self._lock:
            if self._faults[method]:
                raise self._faults[method].popleft()
            if self.away:
                raise self._error("its root is not there", remedy="Mount the drive")
            if not whoever and self.identity is not None and self._mark != self.identity:
                raise wrong_store(self.name, self.identity, self._mark)

    def _free_bytes(self) -> int:
        with self._lock:
            return self.capacity_bytes - sum(stored.facts.size_bytes for stored in self._files.values())

    def _stored(self, stored_as: str) -> _Stored:
        parts_of(stored_as)
        stored = self._files.get(stored_as)
        if stored is None:
            raise self._error(f"there is no file {stored_as!r}", remedy="See what removed it")
        return stored

    def _is_folder(self, name: str) -> bool:
        return any(other.startswith(name + "/") for other in self._files)

    def _found(self, content: bytes) -> ReadBack:
        return ReadBack(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content), level=self.level)

    def _require(self, found: ReadBack, sha256: str, size_bytes: int, stored_as: str) -> None:
        if (found.sha256, found.size_bytes) != (sha256, size_bytes):
            raise VerificationError(
                f"store {self.name!r} has {found.size_bytes:,} bytes of SHA-256 {found.sha256} here",
                expected=f"{size_bytes:,} bytes of SHA-256 {sha256}",
                remedy="Take the planted fault away",
                path=stored_as,
            )

    def _error(self, what: str, *, remedy: str) -> StorageError:
        return StorageError(f"store {self.name!r}: {what}", remedy=remedy)


class MemoryIncoming:
    """A copy on its way into memory."""

    def __init__(self, store: MemoryStore, stored_as: str, facts: FileFacts) -> None:
        self.stored_as = stored_as
        self.skip_bytes = 0
        self.kept: KeptAside | None = None
        self.facts = facts
        self.content = bytearray()
        self._store = store

    def write(self, view: memoryview) -> None:
        """Append these bytes."""
        self._store.begin_copying("write", len(self.content) + len(view))
        self.content += view

    def seal(self, *, durable: bool = True) -> None:  # noqa: ARG002  # what has no name yet is lost at once
        """All is written."""
        self._store.begin_copying("seal")
        self.facts = replace(self.facts, size_bytes=len(self.content))

    def prove(self, sha256: str, ring: Ring) -> ReadBack:  # noqa: ARG002  # the interface's
        """Compare."""
        self._store.begin_copying("prove")
        return self._store.prove(self, sha256)

    def publish(self, sha256: str, ring: Ring, *, durable: bool = True) -> None:  # noqa: ARG002
        """Give it its name; `durable` False leaves that to the flush."""
        self._store.begin_copying("publish")
        self.kept = self._store.put(self, sha256, durable=durable)


class MemoryReading:
    """A file in memory that is read."""

    def __init__(self, store: MemoryStore, stored: _Stored) -> None:
        self.facts = stored.facts
        self._store = store
        self._left = memoryview(stored.content)

    def fill(self, view: memoryview) -> int:
        """Read on."""
        self._store.begin_copying("fill")
        count = min(len(view), len(self._left))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count
