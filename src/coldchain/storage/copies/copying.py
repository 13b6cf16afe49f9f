"""One file, read once, to several stores, and proved on each.

The source is hashed while it is written everywhere at once; each store then makes its copy durable, reads it back,
compares, and gives it its name. A store that fails does not hold up the others. If the source changed meanwhile,
nothing is published anywhere. Small files go in batches (`small`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from coldchain.errors import StorageError
from coldchain.model.files import KeptAside, ReplicaState, VerificationLevel
from coldchain.storage.copies.source import CameraFile, SourceFile, SourceVersion, StoredFile
from coldchain.storage.digests import new_digest
from coldchain.storage.readback import ReadBack
from coldchain.storage.ring import RingPool, stream
from coldchain.storage.store import Incoming, Store

RINGS = RingPool()


@dataclass(frozen=True, slots=True)
class CopyOutcome:
    """What became of one copy. VERIFIED has a level and the digest that was read back; FAILED has its error.

    `kept` is what stood under its name and was kept aside for it, if anything was. `stored_as` is what the store calls
    it, None where that is as its path says.
    """

    store: str
    state: ReplicaState
    level: VerificationLevel | None
    sha256: str | None
    error: StorageError | None
    kept: KeptAside | None = None
    stored_as: str | None = None


@dataclass(frozen=True, slots=True)
class CopyReport:
    """The source's digest and version, and one outcome for each store, in the order in which they were given."""

    sha256: str
    size_bytes: int
    modified_ns: int
    outcomes: tuple[CopyOutcome, ...]


def copy_verified(
    root: Path,
    source: str,
    relative: str,
    stores: Sequence[Store],
    *,
    expected: SourceVersion | None = None,
) -> CopyReport:
    """Copy the file `source` (POSIX, below `root`) to `relative` (POSIX, below each store's root) on every store, and
    prove every copy.

    A store that has a file of that name and size already is first only read: the same content counts as the copy.
    Other content is kept aside (see `posix`) and replaced, for which the source is read a second time. With no
    stores, the source is only hashed. No symbolic link below `root` is followed.

    Parameters
    ----------
    expected : the version that is meant; a source that is another raises SourceChangedError.

    Raises
    ------
    SourceChangedError : size, time, inode or known digest is not what it was; nothing was published.
    StorageError : the source is missing, unreadable, no regular file, or behind a symbolic link; nothing was published.

    A store's own failure is no exception but an outcome.
    """
    with CameraFile(root, source, expected) as opened:
        return _copy(opened, relative, stores, expected.sha256 if expected else None)


def copy_stored(
    good: Store, stored_as: str, relative: str, stores: Sequence[Store], *, expected: SourceVersion
) -> CopyReport:
    """As `copy_verified`, from the copy `stored_as` on the store `good`, whose digest is `expected`'s."""
    with StoredFile(good, stored_as, expected) as opened:
        return _copy(opened, relative, stores, expected.sha256)


def _copy(source: SourceFile, relative: str, stores: Sequence[Store], known_sha256: str | None) -> CopyReport:
    standing = [store for store in stores if stands(store, relative, source.facts.size_bytes)]
    fresh = [store for store in stores if store not in standing]
    sha256, outcomes = _pass(source, relative, fresh, known_sha256)
    known = {s.name: found for s in standing if (found := recognised(s, relative, sha256))}
    renewed = [store for store in standing if store.name not in known]
    outcomes |= known
    if renewed:
        outcomes |= _pass(source, relative, renewed, sha256)[1]
    return CopyReport(
        sha256=sha256,
        size_bytes=source.facts.size_bytes,
        modified_ns=source.facts.modified_ns,
        outcomes=tuple(outcomes[store.name] for store in stores),
    )


class _Destination:
    """One store's side of a pass: takes bytes until its first failure, which it keeps."""

    def __init__(self, store: Store, relative: str) -> None:
        self.store = store
        self.error: StorageError | None = None
        self._relative = relative
        self._incoming: Incoming | None = None
        self._to_skip = 0

    def begin(self, stack: ExitStack, source: SourceFile) -> None:
        try:
            self._incoming = stack.enter_context(self.store.receive(self._relative, source.facts))
            self._to_skip = self._incoming.skip_bytes
        except StorageError as error:
            self.error = error

    def take(self, view: memoryview) -> None:
        if self._incoming is None or self.error is not None:
            return
        skipped = min(self._to_skip, len(view))
        self._to_skip -= skipped
        try:
            if skipped < len(view):
                self._incoming.write(view[skipped:])
        except StorageError as error:
            self.error = error

    def finish(self, sha256: str) -> CopyOutcome:
        if self._incoming is None or self.error is not None:
            return failed(self.store, self.error, None)
        try:
            with RINGS.borrow() as ring:
                self._incoming.seal()
                found = self._incoming.prove(sha256, ring)
                self._incoming.publish(sha256, ring)
        except StorageError as error:
            return failed(self.store, error, self._incoming.kept)
        return verified(self.store, found, self._relative, self._incoming.stored_as, self._incoming.kept)


def _pass(
    source: SourceFile, relative: str, stores: Sequence[Store], known_sha256: str | None
) -> tuple[str, dict[str, CopyOutcome]]:
    """Read the source once, to all of these stores; nothing is published unless it is what it was."""
    destinations = [_Destination(store, relative) for store in stores]
    with ExitStack() as stack:
        for destination in destinations:
            destination.begin(stack, source)
        sha256 = _pump(source, [destination.take for destination in destinations])
        source.require_digest(sha256, known_sha256)
        outcomes = _each(destinations, lambda destination: destination.finish(sha256))
    return sha256, {outcome.store: outcome for outcome in outcomes}


def _pump(source: SourceFile, takers: Sequence[Callable[[memoryview], None]]) -> str:
    digest = new_digest(source.facts.size_bytes)
    source.rewind()
    with RINGS.borrow() as ring:
        read_bytes = stream(source.fill, source.facts.size_bytes, [digest.update, *takers], ring)
    source.require_unchanged(read_bytes)
    return digest.hexdigest()


def _each(destinations: Sequence[_Destination], finish: Callable[[_Destination], CopyOutcome]) -> Sequence[CopyOutcome]:
    """Finish every destination, side by side: each waits for its own disk."""
    if len(destinations) < 2:
        return [finish(destination) for destination in destinations]
    with ThreadPoolExecutor(max_workers=len(destinations), thread_name_prefix="prove") as pool:
        return list(pool.map(finish, destinations))


def stands(store: Store, relative: str, size_bytes: int) -> bool:
    """Whether a store has a file of that name and size."""
    try:
        return store.size_of(store.stored_name(relative)) == size_bytes
    except StorageError:
        return False  # beginning the copy will meet the same trouble and state it


def recognised(store: Store, relative: str, sha256: str) -> CopyOutcome | None:
    """The outcome of a copy that lies there already, read back; None where that has not this content."""
    try:
        stored_as = store.stored_name(relative)
        with RINGS.borrow() as ring:
            found = store.read_back(stored_as, ring)
    except StorageError:
        return None  # what cannot be read is kept aside like other content
    return verified(store, found, relative, stored_as, None) if found.sha256 == sha256 else None


def verified(store: Store, found: ReadBack, relative: str, stored_as: str, kept: KeptAside | None) -> CopyOutcome:
    """The outcome of a copy that was proved."""
    return CopyOutcome(
        store=store.name,
        state=ReplicaState.VERIFIED,
        level=found.level,
        sha256=found.sha256,
        error=None,
        kept=kept,
        stored_as=None if stored_as == relative else stored_as,
    )


def failed(store: Store, error: StorageError | None, kept: KeptAside | None) -> CopyOutcome:
    """The outcome of a copy that was not made."""
    return CopyOutcome(store=store.name, state=ReplicaState.FAILED, level=None, sha256=None, error=error, kept=kept)
