"""What a copy is made from: the camera's file, or a verified copy on another store where that is gone."""

from __future__ import annotations

import os
import stat
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from coldchain.errors import SourceChangedError, StorageError
from coldchain.formats.beneath import folder_beneath, lstat_beneath, lstat_in, open_beneath, open_in
from coldchain.storage.store import FileFacts, Reading, Store


@dataclass(frozen=True, slots=True)
class SourceVersion:
    """Which version of a source is meant: what the catalog knows of it. `sha256` is None before its first copy."""

    size_bytes: int
    modified_ns: int
    sha256: str | None = None


class SourceFile(Protocol):
    """An open source, and what it was when it was opened."""

    @property
    def facts(self) -> FileFacts:
        """Its size, time and mode."""

    def rewind(self) -> None:
        """Begin again."""

    def fill(self, view: memoryview) -> int:
        """Read on into the view; how many bytes, 0 at the end."""

    def require_unchanged(self, read_bytes: int) -> None:
        """Raise SourceChangedError unless it still is what it was, and was read whole."""

    def require_digest(self, sha256: str, known_sha256: str | None) -> None:
        """Raise SourceChangedError where the bytes differ from those of an earlier reading of the same version."""


class SourceFolders:
    """Folders of sources, kept open while many of their files are read: each is walked to but once."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._folders: dict[tuple[str, str], int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def folder(self, root: str, parent: str) -> int:
        """A folder below a root, reached without following a link. Raises OSError and StorageError."""
        known = self._folders.get((root, parent))
        if known is None:
            known = self._folders[root, parent] = self._open.enter_context(folder_beneath(Path(root), parent))
        return known


class CameraFile:
    """A file below a root; no symbolic link below the root is followed. With `folders`, its folder is kept open there.

    Raises StorageError where it is missing, unreadable, no regular file or behind a link, SourceChangedError where it
    is not the version that is meant.
    """

    def __init__(
        self, root: Path | str, relative: str, expected: SourceVersion | None, folders: SourceFolders | None = None
    ) -> None:
        self._root = root
        self._relative = relative
        self._parent, _, self._name = relative.rpartition("/")
        self._folders = folders
        try:
            self._descriptor = self._opened()
        except OSError as error:
            raise self._stated(error, "opening") from error
        self._status = os.fstat(self._descriptor)
        self.facts = FileFacts(self._status.st_size, self._status.st_mtime_ns, self._status.st_mode)
        try:
            self._require(expected)
        except StorageError:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    @property
    def path(self) -> Path:
        """Where it lies."""
        return Path(self._root, self._relative)

    def _opened(self) -> int:
        if self._folders is None:
            return open_beneath(Path(self._root), self._relative)
        return open_in(self._folders.folder(str(self._root), self._parent or "."), self._name)

    def _looked_at(self) -> os.stat_result:
        if self._folders is None:
            return lstat_beneath(Path(self._root), self._relative)
        return lstat_in(self._folders.folder(str(self._root), self._parent or "."), self._name)

    def rewind(self) -> None:
        """See `SourceFile`."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)

    def fill(self, view: memoryview) -> int:
        """See `SourceFile`."""
        try:
            return os.readv(self._descriptor, [view])
        except OSError as error:
            raise self._stated(error, "reading") from error

    def require_unchanged(self, read_bytes: int) -> None:
        """Raise SourceChangedError unless the name still leads to the same file of the same size and time."""
        try:
            now = (os.fstat(self._descriptor), self._looked_at())
        except OSError as error:
            raise self._stated(error, "looking at") from error
        before = (self._status.st_ino, self._status.st_dev, self.facts.size_bytes, self.facts.modified_ns)
        if read_bytes != self.facts.size_bytes or any(
            (status.st_ino, status.st_dev, status.st_size, status.st_mtime_ns) != before for status in now
        ):
            raise self._changed("the source changed while it was being read")

    def require_digest(self, sha256: str, known_sha256: str | None) -> None:
        """See `SourceFile`."""
        if known_sha256 not in (None, sha256):
            raise SourceChangedError(
                f"the source's SHA-256 is {sha256}, though its size and time are as before",
                expected=f"{known_sha256}, as it was read before",
                remedy="Compare the source with a verified copy; if the source is right, touch it to take it in anew",
                path=self.path,
            )

    def _require(self, expected: SourceVersion | None) -> None:
        facts = self.facts
        if not stat.S_ISREG(facts.mode):
            raise StorageError(
                "the source is not a regular file", remedy="Remove it from the camera's folder", path=self.path
            )
        if expected and (facts.size_bytes, facts.modified_ns) != (expected.size_bytes, expected.modified_ns):
            raise self._changed(
                f"the source has {facts.size_bytes:,} bytes and time {facts.modified_ns} ns",
                expected=f"{expected.size_bytes:,} bytes and time {expected.modified_ns} ns, as catalogued",
            )

    def _changed(self, found: str, expected: str = "") -> SourceChangedError:
        return SourceChangedError(
            found, expected=expected, remedy="Nothing to do: it is copied again when it stands still", path=self.path
        )

    def _stated(self, error: OSError, doing: str) -> StorageError:
        if isinstance(error, FileNotFoundError):
            return StorageError(
                "the source is no longer there",
                remedy="Bring it back, or accept that this version has no copy",
                path=self.path,
            )
        return StorageError(
            f"{doing} the source failed: {error.strerror or error}",
            remedy="See that the service's user may read it, that it is no symbolic link and that its disk is well",
            path=self.path,
        )


class StoredFile:
    """A verified copy on a store, as a source. Its digest is known, and what is read of it is held against that.

    Its time is `expected`'s: a store need not keep it.
    """

    def __init__(self, store: Store, stored_as: str, expected: SourceVersion) -> None:
        self._store = store
        self._stored_as = stored_as
        self._open = ExitStack()
        self._reading = self._open.enter_context(self._opened())
        self.facts = FileFacts(expected.size_bytes, expected.modified_ns, self._reading.facts.mode)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _opened(self) -> AbstractContextManager[Reading]:
        return self._store.reading(self._stored_as)

    def rewind(self) -> None:
        """See `SourceFile`."""
        self._open.close()
        self._reading = self._open.enter_context(self._opened())

    def fill(self, view: memoryview) -> int:
        """See `SourceFile`."""
        return self._reading.fill(view)

    def require_unchanged(self, read_bytes: int) -> None:
        """Raise SourceChangedError unless it was read whole."""
        if read_bytes != self.facts.size_bytes:
            raise self._other(f"{read_bytes:,} bytes", f"{self.facts.size_bytes:,} bytes")

    def require_digest(self, sha256: str, known_sha256: str | None) -> None:
        """See `SourceFile`."""
        if sha256 != known_sha256:
            raise self._other(f"SHA-256 {sha256}", f"{known_sha256}")

    def _other(self, found: str, expected: str) -> SourceChangedError:
        return SourceChangedError(
            f"the copy on store {self._store.name!r} is no longer what was verified: {found}",
            expected=expected,
            remedy="Run `coldchain store verify` on that store; another copy is taken meanwhile",
            path=self._stored_as,
        )
