"""One file, read once, to several stores, and proved on each.

The source is hashed while it is written everywhere at once; each store then makes its copy durable, reads it back,
compares, and gives it its name. A store that fails does not hold up the others. If the source changed meanwhile,
nothing is published anywhere.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from coldchain.errors import SourceChangedError, StorageError
from coldchain.formats.beneath import lstat_beneath, open_beneath
from coldchain.model.files import KeptAside, ReplicaState, VerificationLevel
from coldchain.storage.posix import PosixStore
from coldchain.storage.readback import ReadBack
from coldchain.storage.ring import RingPool, stream
from coldchain.storage.store import FileFacts, Incoming

_RINGS = RingPool()


@dataclass(frozen=True, slots=True)
class SourceVersion:
    """Which version of a source is meant: what the catalog knows of it. `sha256` is None before its first copy."""

    size_bytes: int
    modified_ns: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class CopyOutcome:
    """What became of one copy. VERIFIED has a level and the digest that was read back; FAILED has its error.

    `kept` is what stood under its name and was kept aside for it, if anything was.
    """

    store: str
    state: ReplicaState
    level: VerificationLevel | None
    sha256: str | None
    error: StorageError | None
    kept: KeptAside | None = None


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
    stores: Sequence[PosixStore],
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
    with _Source(root, source, expected) as opened:
        standing = [store for store in stores if _stands(store, relative, opened.size_bytes)]
        fresh = [store for store in stores if store not in standing]
        sha256, outcomes = _pass(opened, relative, fresh, expected.sha256 if expected else None)
        recognised = {s.name: found for s in standing if (found := _recognised(s, relative, sha256))}
        renewed = [store for store in standing if store.name not in recognised]
        outcomes |= recognised
        if renewed:
            outcomes |= _pass(opened, relative, renewed, sha256)[1]
        return CopyReport(
            sha256=sha256,
            size_bytes=opened.size_bytes,
            modified_ns=opened.modified_ns,
            outcomes=tuple(outcomes[store.name] for store in stores),
        )


class _Source:
    """The open source, and what it was when it was opened."""

    def __init__(self, root: Path, relative: str, expected: SourceVersion | None) -> None:
        self.path = root / relative
        self._root = root
        self._relative = relative
        with self._stating("opening"):
            self._descriptor = open_beneath(root, relative)
        self._status = os.fstat(self._descriptor)
        self.size_bytes = self._status.st_size
        self.modified_ns = self._status.st_mtime_ns
        self.mode = self._status.st_mode
        try:
            self._require(expected)
        except StorageError:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def rewind(self) -> None:
        os.lseek(self._descriptor, 0, os.SEEK_SET)

    def fill(self, view: memoryview) -> int:
        with self._stating("reading"):
            return os.readv(self._descriptor, [view])

    def require_unchanged(self, read_bytes: int) -> None:
        """Raise SourceChangedError unless the name still leads to the same file of the same size and time."""
        with self._stating("looking at"):
            now = (os.fstat(self._descriptor), lstat_beneath(self._root, self._relative))
        before = (self._status.st_ino, self._status.st_dev, self.size_bytes, self.modified_ns)
        if read_bytes != self.size_bytes or any(
            (status.st_ino, status.st_dev, status.st_size, status.st_mtime_ns) != before for status in now
        ):
            raise self.changed("the source changed while it was being read")

    def changed(self, found: str, expected: str = "") -> SourceChangedError:
        return SourceChangedError(
            found, expected=expected, remedy="Nothing to do: it is copied again when it stands still", path=self.path
        )

    def require_digest(self, sha256: str, known_sha256: str | None) -> None:
        """Raise SourceChangedError where the bytes differ from those of an earlier reading of the same version."""
        if known_sha256 not in (None, sha256):
            raise SourceChangedError(
                f"the source's SHA-256 is {sha256}, though its size and time are as before",
                expected=f"{known_sha256}, as it was read before",
                remedy="Compare the source with a verified copy; if the source is right, touch it to take it in anew",
                path=self.path,
            )

    def _require(self, expected: SourceVersion | None) -> None:
        if not stat.S_ISREG(self.mode):
            raise StorageError(
                "the source is not a regular file", remedy="Remove it from the camera's folder", path=self.path
            )
        if expected and (self.size_bytes, self.modified_ns) != (expected.size_bytes, expected.modified_ns):
            raise self.changed(
                f"the source has {self.size_bytes:,} bytes and time {self.modified_ns} ns",
                expected=f"{expected.size_bytes:,} bytes and time {expected.modified_ns} ns, as catalogued",
            )

    @contextmanager
    def _stating(self, doing: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise StorageError(
                "the source is no longer there",
                remedy="Bring it back, or accept that this version has no copy",
                path=self.path,
            ) from error
        except OSError as error:
            raise StorageError(
                f"{doing} the source failed: {error.strerror or error}",
                remedy="See that the service's user may read it, that it is no symbolic link and that its disk is well",
                path=self.path,
            ) from error


class _Destination:
    """One store's side of a pass: takes bytes until its first failure, which it keeps."""

    def __init__(self, store: PosixStore) -> None:
        self.store = store
        self.error: StorageError | None = None
        self._incoming: Incoming | None = None

    def begin(self, stack: ExitStack, relative: str, facts: FileFacts) -> None:
        try:
            self._incoming = stack.enter_context(self.store.receive(relative, facts))
        except StorageError as error:
            self.error = error

    def take(self, view: memoryview) -> None:
        if self._incoming is None or self.error is not None:
            return
        try:
            self._incoming.write(view)
        except StorageError as error:
            self.error = error

    def finish(self, sha256: str) -> CopyOutcome:
        if self._incoming is None or self.error is not None:
            return _failed(self.store, self.error, None)
        try:
            with _RINGS.borrow() as ring:
                self._incoming.seal()
                found = self._incoming.prove(sha256, ring)
                self._incoming.publish(sha256, ring)
        except StorageError as error:
            return _failed(self.store, error, self._incoming.kept)
        return _verified(self.store, found, self._incoming.kept)


def _pass(
    source: _Source, relative: str, stores: Sequence[PosixStore], known_sha256: str | None
) -> tuple[str, dict[str, CopyOutcome]]:
    """Read the source once, to all of these stores; nothing is published unless it is what it was."""
    destinations = [_Destination(store) for store in stores]
    with ExitStack() as stack:
        for destination in destinations:
            destination.begin(stack, relative, FileFacts(source.size_bytes, source.modified_ns, source.mode))
        sha256 = _pump(source, [destination.take for destination in destinations])
        source.require_digest(sha256, known_sha256)
        outcomes = _each(destinations, lambda destination: destination.finish(sha256))
    return sha256, {outcome.store: outcome for outcome in outcomes}


def _pump(source: _Source, takers: Sequence[Callable[[memoryview], None]]) -> str:
    digest = hashlib.sha256()
    source.rewind()
    with _RINGS.borrow() as ring:
        read_bytes = stream(source.fill, source.size_bytes, [digest.update, *takers], ring)
    source.require_unchanged(read_bytes)
    return digest.hexdigest()


def _each(destinations: Sequence[_Destination], finish: Callable[[_Destination], CopyOutcome]) -> Sequence[CopyOutcome]:
    """Finish every destination, side by side: each waits for its own disk."""
    if len(destinations) < 2:
        return [finish(destination) for destination in destinations]
    with ThreadPoolExecutor(max_workers=len(destinations), thread_name_prefix="prove") as pool:
        return list(pool.map(finish, destinations))


def _stands(store: PosixStore, relative: str, size_bytes: int) -> bool:
    try:
        return store.size_of(relative) == size_bytes
    except StorageError:
        return False  # beginning the copy will meet the same trouble and state it


def _recognised(store: PosixStore, relative: str, sha256: str) -> CopyOutcome | None:
    try:
        with _RINGS.borrow() as ring:
            found = store.read_back(relative, ring)
    except StorageError:
        return None  # what cannot be read is kept aside like other content
    return _verified(store, found, None) if found.sha256 == sha256 else None


def _verified(store: PosixStore, found: ReadBack, kept: KeptAside | None) -> CopyOutcome:
    return CopyOutcome(
        store=store.name, state=ReplicaState.VERIFIED, level=found.level, sha256=found.sha256, error=None, kept=kept
    )


def _failed(store: PosixStore, error: StorageError | None, kept: KeptAside | None) -> CopyOutcome:
    return CopyOutcome(store=store.name, state=ReplicaState.FAILED, level=None, sha256=None, error=error, kept=kept)
