"""A store that is a folder tree: a RAID, a parallel file system, a mounted drive.

A copy comes in under a hidden name (`.NAME.<32 hex>.part`) beside its final one, is made durable, read back, and only
then renamed; a final name therefore only ever holds whole, proved content. Nothing that stands in a store is
overwritten: other content under the same name is kept aside as `NAME.replaced-<8 hex of its digest>`, and said to be.

Every path is walked from the root by directory descriptors without following symbolic links, so that nothing inside a
store can lead a write out of it. One service owns a store: two that write to one root would sweep each other's `.part`.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from threading import Lock
from types import TracebackType
from typing import Self
from uuid import uuid4

from coldchain.errors import StorageError, StoreFullError, VerificationError
from coldchain.model.files import KeptAside
from coldchain.model.identity import is_safe_relative
from coldchain.storage.readback import ReadBack, read_back, set_direct
from coldchain.storage.ring import Ring
from coldchain.storage.store import FileFacts, Space

_PAGE_BYTES = 4096
_NAME_BYTES = 255
_PARTIAL = re.compile(r"\..*\.[0-9a-f]{32}\.part", re.DOTALL)
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What the whole store answers with; any other error is one name's: too long, in the way, not allowed there.
_OF_THE_STORE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN})
_REMEDIES = {
    errno.EACCES: "Give the service's user the right to write in the store",
    errno.EPERM: "Give the service's user the right to write in the store",
    errno.EROFS: "The file system is read-only, perhaps since an error: see the kernel's log, then mount it again",
    errno.EIO: "The device reports errors: see the kernel's log and replace the disk or cable",
    errno.ESTALE: "Mount the network file system again",
    errno.ENOTCONN: "Mount the network file system again",
    errno.ENAMETOOLONG: "The store's file system cannot hold so long a name: use another store for it",
    errno.EFBIG: "The store's file system cannot hold so large a file: use another store for it",
    errno.ELOOP: "Move the symbolic link out of the store",
    errno.ENOTDIR: "Move what stands there out of the way: the store needs a folder of that name",
    errno.EISDIR: "Move the folder out of the way: the store needs a file of that name",
}


class PosixStore:
    """The store `name` with its tree at `root`. The root must exist: what is under a missing mount is never filled."""

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.root = root
        self._lock = Lock()
        self._durable_folders: set[tuple[str, ...]] = set()
        self._partials_in_hand: set[str] = set()

    def space(self) -> Space:
        """What is left. Raises StorageError where the root is missing."""
        with self._stating("asking for its free space"):
            usage = os.statvfs(self.root)
        return Space(
            free_bytes=usage.f_bavail * usage.f_frsize,
            free_files=usage.f_favail,
            total_bytes=usage.f_blocks * usage.f_frsize,
        )

    def size_of(self, relative: str) -> int | None:
        """Size in bytes of the regular file of that name; None where there is none. StorageError as for `receive`."""
        parts = _parts(relative)
        with self._stating("looking at it", relative):
            try:
                with self._folder(parts[:-1], make=False) as folder:
                    found = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                self._require_root()
                return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def read_back(self, relative: str, ring: Ring) -> ReadBack:
        """Read a stored file past the page cache, where that is possible, and see that its name is durable.

        Raises StorageError where it cannot be read.
        """
        parts = _parts(relative)
        with self._stating("reading it back", relative), self._folder(parts[:-1], make=False) as folder:
            found = read_back(folder, parts[-1], ring)
            _sync_folder(folder)
            return found

    @contextmanager
    def receive(self, relative: str, facts: FileFacts) -> Iterator[Incoming]:
        """Begin a copy that shall be called `relative`; unless published, leaving removes it again.

        Missing folders below the root are made, and made durable. Raises StorageError (root missing, no right, a link
        or a file in the path, a name that cannot be) and StoreFullError.
        """
        parts = _parts(relative)
        partial = _partial_name(parts[-1])
        with self._stating("beginning the copy", relative):
            self._require_root()
            self._require_space(facts.size_bytes)
            folder = self._open_folder(parts[:-1], make=True)
        with self._lock:
            self._partials_in_hand.add(partial)
        try:
            with self._stating("beginning the copy", relative):
                incoming = Incoming(self, relative, facts, folder, partial)
            with incoming:
                yield incoming
        finally:
            with self._lock:
                self._partials_in_hand.discard(partial)
            os.close(folder)

    def remove_partials(self) -> int:
        """Remove what killed copies left, and say how many there were.

        Only names of our own pattern go, and none that this object is writing; since one service owns a store, any
        other is a leftover. Symbolic links are not followed. Raises StorageError where the root is missing.
        """
        removed = 0
        with self._stating("removing what killed copies left"), self._folder((), make=False) as root:
            for _, _, names, folder in os.fwalk(".", follow_symlinks=False, dir_fd=root):
                removed += self._remove_partials_of(folder, names)
        return removed

    def _remove_partials_of(self, folder: int, names: Sequence[str]) -> int:
        with self._lock:
            left_over = [n for n in names if _PARTIAL.fullmatch(n) and n not in self._partials_in_hand]
        removed = 0
        for name in left_over:
            with suppress(FileNotFoundError):  # finished, and so renamed, since the folder was listed
                os.unlink(name, dir_fd=folder)
                removed += 1
        return removed

    def _require_root(self) -> None:
        if not _is_folder(self.root):
            raise StorageError(
                f"the root of store {self.name!r} is not there",
                expected="a folder",
                remedy="Mount the drive, or correct the store's path in facility.toml",
                path=self.root,
            )

    def _require_space(self, size_bytes: int) -> None:
        usage = os.statvfs(self.root)
        # Some FUSE file systems report no blocks at all; those are asked by writing.
        if usage.f_blocks and usage.f_bavail * usage.f_frsize < size_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextmanager
    def _folder(self, parts: Sequence[str], *, make: bool) -> Iterator[int]:
        folder = self._open_folder(parts, make=make)
        try:
            yield folder
        finally:
            os.close(folder)

    def _open_folder(self, parts: Sequence[str], *, make: bool) -> int:
        self._require_root()
        folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for depth, part in enumerate(parts, start=1):
            try:
                inner = self._open_inner(folder, part, tuple(parts[:depth]), make=make)
            finally:
                os.close(folder)
            folder = inner
        return folder

    def _open_inner(self, folder: int, part: str, whole: tuple[str, ...], *, make: bool) -> int:
        made = False
        if make:
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=folder)
                made = True
        inner = os.open(part, _FOLDER_FLAGS, dir_fd=folder)
        # A folder that stands already may have been made by a process that was killed before it synced.
        if make and (made or whole not in self._durable_folders):
            _sync_folder(folder)
            self._durable_folders.add(whole)
        return inner

    @contextmanager
    def _stating(self, doing: str, relative: str = "") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self.stated(error, doing, relative) from error

    def is_at_fault(self, error: StorageError) -> bool:
        """Whether an error of this store is the whole store's and not one name's: it is full, read-only, failing, away
        or its root is missing. Other files then need not be tried before it is well again."""
        cause = error.__cause__
        code = cause.errno if isinstance(cause, OSError) else None
        return isinstance(error, StoreFullError) or code in _OF_THE_STORE or not _is_folder(self.root)

    def stated(self, error: OSError, doing: str, relative: str = "") -> StorageError:
        """The system's error in the house's words."""
        path = self.root / relative
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StoreFullError(
                f"store {self.name!r} is full: {self._free_words()}",
                remedy="Free space on it or raise the quota; the copy is tried again by itself",
                path=path,
            )
        if not _is_folder(self.root):
            remedy = "Mount the drive, or correct the store's path in facility.toml"
        else:
            remedy = _REMEDIES.get(error.errno or 0, "See the kernel's log")
        return StorageError(f"store {self.name!r}: {doing} failed: {error.strerror or error}", remedy=remedy, path=path)

    def _free_words(self) -> str:
        try:
            usage = os.statvfs(self.root)
        except OSError:
            return "how much is free it does not say"
        free_bytes = usage.f_bavail * usage.f_frsize
        inodes = f" and {usage.f_favail:,} inodes" if usage.f_files else ""
        return f"{free_bytes:,} bytes{inodes} are free"


class Incoming:
    """A copy on its way into a store: `write` every byte, `seal`, `prove`, `publish`. Made by `PosixStore.receive`.

    `kept` is what stood under its name and was renamed for it, also where publishing failed after that.
    """

    def __init__(self, store: PosixStore, relative: str, facts: FileFacts, folder: int, partial: str) -> None:
        self._store = store
        self._relative = relative
        self._facts = facts
        self._folder = folder
        self._partial = partial
        self._name = PurePosixPath(relative).name
        self._published = False
        self.kept: KeptAside | None = None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(partial, flags, 0o600, dir_fd=folder)
        self._direct = set_direct(self._descriptor, on=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        if not self._published:
            # What cannot be removed now (the device is gone) is swept at the next start.
            with suppress(OSError):
                os.unlink(self._partial, dir_fd=self._folder)

    def write(self, view: memoryview) -> None:
        """Append these bytes. Raises StoreFullError and StorageError."""
        with self._stating("writing the copy"):
            while view:
                if self._direct and len(view) % _PAGE_BYTES:
                    self._direct = set_direct(self._descriptor, on=False)
                try:
                    written = os.write(self._descriptor, view)
                except OSError as error:
                    if not (self._direct and error.errno == errno.EINVAL):
                        raise
                    self._direct = set_direct(self._descriptor, on=False)
                    continue
                view = view[written:]

    def seal(self) -> None:
        """Give the copy its time and mode, and make it durable. Its owner may always read it, to prove it again."""
        with self._stating("making the copy durable"):
            with suppress(PermissionError):  # FAT holds no modes; the content is what counts
                os.fchmod(self._descriptor, (self._facts.mode & 0o777) | stat.S_IRUSR)
            os.utime(self._descriptor, ns=(self._facts.modified_ns, self._facts.modified_ns))
            os.fsync(self._descriptor)
            self._close()

    def prove(self, sha256: str, ring: Ring) -> ReadBack:
        """Read the copy back and compare. VerificationError where it is not what was written."""
        with self._stating("reading the copy back"):
            found = read_back(self._folder, self._partial, ring)
        if found.sha256 != sha256:
            raise VerificationError(
                f"store {self._store.name!r} gave back {found.size_bytes:,} bytes of SHA-256 {found.sha256}",
                expected=f"SHA-256 {sha256}",
                remedy="The copy is removed and made again; if this comes back, test the disk, cable and memory",
                path=self._store.root / self._relative,
            )
        return found

    def publish(self, sha256: str, ring: Ring) -> None:
        """Give the copy its final name, durably; other content of that name is kept aside first."""
        with self._stating("giving the copy its name"):
            self._keep_aside(sha256, ring)
            os.rename(self._partial, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            self._published = True
            _sync_folder(self._folder)

    def _keep_aside(self, sha256: str, ring: Ring) -> None:
        try:
            standing = os.stat(self._name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISLNK(standing.st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if not stat.S_ISREG(standing.st_mode):
            raise OSError(errno.EISDIR, "something that is not a file has its name")
        found = _digest_of(self._folder, self._name, ring)
        if found != sha256:
            aside = _free_name(self._folder, self._name, f".replaced-{found[:8] if found else 'unreadable'}")
            os.rename(self._name, aside, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            self.kept = KeptAside(path=str(PurePosixPath(self._relative).parent / aside), sha256=found)

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    @contextmanager
    def _stating(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._store.stated(error, doing, self._relative) from error


def _parts(relative: str) -> tuple[str, ...]:
    path = PurePosixPath(relative)
    if not is_safe_relative(path) or "\0" in relative:
        raise StorageError("this name leads out of the store", expected="a relative path without `..`", path=relative)
    if _PARTIAL.fullmatch(path.name):
        raise StorageError(
            "this name is one that unfinished copies bear", remedy="Rename the file at its source", path=relative
        )
    return path.parts


def _partial_name(name: str) -> str:
    return f".{_shortened(name, _NAME_BYTES - 39)}.{uuid4().hex}.part"


def _shortened(name: str, limit_bytes: int) -> str:
    # By whole characters: some file systems refuse a name that ends in half of one.
    while len(os.fsencode(name)) > limit_bytes:
        name = name[:-1]
    return name


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False


def _free_name(folder: int, name: str, suffix: str) -> str:
    """`name` + `suffix`, or with a number after it where that is taken already."""
    number = 1
    while True:
        ending = suffix if number == 1 else f"{suffix}-{number}"
        candidate = _shortened(name, _NAME_BYTES - len(ending)) + ending
        try:
            os.stat(candidate, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return candidate
        number += 1


def _digest_of(folder: int, name: str, ring: Ring) -> str | None:
    """SHA-256 of what stands under a name; None where it cannot be read: its bytes may still be wanted by somebody with
    better tools."""
    try:
        return read_back(folder, name, ring).sha256
    except OSError:
        return None


def _sync_folder(descriptor: int) -> None:
    """Make a folder's names durable, where the file system knows how (some network ones answer EINVAL)."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
