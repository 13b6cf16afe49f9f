"""The root of a folder tree, held open while something in it is in hand.

Every path is walked from the one open root, folder by folder and without following links. An open root keeps its file
system from going away and its device number from being given to another: as long as the root's path leads to it, it is
the store that was looked at, and what was learnt of it (its identity, its type, its folders) stays true. A drive can be
unmounted whenever nothing is in hand.
"""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock

from coldchain.storage.posix.names import Parts
from coldchain.storage.posix.spelling import Spelling
from coldchain.storage.readback import filesystem_type
from coldchain.storage.system_calls import sync_file_system, sync_folder

SYNCED_WHOLE = frozenset({"ext3", "ext4", "xfs", "btrfs", "f2fs", "bcachefs", "zfs", "nfs", "nfs4", "ceph", "tmpfs"})
"""File systems whose `syncfs` makes data and names durable, down through the device's own cache. FUSE's does not reach
the program behind it, and FAT's not the device; there, each file and each folder is synced by itself."""

_ROOT_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FOLDER_FLAGS = _ROOT_FLAGS | os.O_NOFOLLOW
_FOLDERS_KEPT = 64
_DURABLE_KEPT = 100_000
_FRESH_SECONDS = 1.0


class _Folder:
    """An open folder of the tree, closed when the last of its users has let go of it."""

    __slots__ = ("descriptor", "opened_at", "users")

    def __init__(self, descriptor: int, opened_at: float) -> None:
        self.descriptor = descriptor
        self.opened_at = opened_at
        self.users = 1


class HeldRoot:
    """The open root. `durable` are the folders whose names are known to be durable; `holders` and `seen_until` are the
    keeper's: how many hold it, and until when it need not be looked at again.

    Raises OSError where the root cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, _ROOT_FLAGS)
        status = os.fstat(self.descriptor)
        self.device = status.st_dev
        self.inode = status.st_ino
        self.holders = 0
        self.seen_until = 0.0
        self.durable: set[Parts] = set()
        self.failure: OSError | None = None
        self.spelling = Spelling(self.descriptor)
        self._path = path
        self._lock = Lock()
        self._flushing = Lock()
        self._folders: dict[Parts, _Folder] = {}
        self._unsynced: set[Parts] = set()
        self._names = 0
        self._names_flushed = 0
        self._flushes_begun = 0
        self._flushed = 0
        self._room_bytes = -1.0
        self._room_until = 0.0
        self._type: str | None = None

    def close(self) -> None:
        """Let go of the root and of every folder; nobody uses them any more."""
        for folder in self._folders.values():
            os.close(folder.descriptor)
        os.close(self.descriptor)

    def is_in_place(self) -> bool:
        """Whether the root's path still leads here, and nothing was found to be lost on the way to the medium."""
        if self.failure is not None:
            return False
        try:
            status = os.stat(self._path)  # noqa: PTH116  # the path made once, not at every look
        except OSError:
            return False
        return status.st_ino == self.inode and status.st_dev == self.device

    @property
    def type(self) -> str:
        """The file system's type as the kernel names it, "" where it does not tell."""
        if self._type is None:
            self._type = filesystem_type(self.descriptor)
        return self._type

    def types(self) -> dict[int, str]:
        """The type of the file system, by its device number."""
        return {self.device: self.type}

    def require_room(self, size_bytes: int) -> None:
        """Raise OSError (ENOSPC) where so many bytes have no room. Asked once a second, or where it looks scarce."""
        now = time.monotonic()
        if size_bytes > self._room_bytes or now > self._room_until:
            usage = os.fstatvfs(self.descriptor)
            # Some FUSE file systems report no blocks at all; those are asked by writing.
            self._room_bytes = usage.f_bavail * usage.f_frsize if usage.f_blocks else math.inf
            self._room_until = now + _FRESH_SECONDS
            if size_bytes > self._room_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._room_bytes -= size_bytes

    @contextmanager
    def folder(self, parts: Parts, *, make: bool = False) -> Iterator[int]:
        """A folder of the tree, opened anew; with `make`, what is missing is made, durably. Raises OSError."""
        descriptor = self._walk(parts, make=make)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def take(self, parts: Parts, *, make: bool = False) -> _Folder:
        """A folder of the tree, open, perhaps since up to a second; to be given back. Raises OSError."""
        now = time.monotonic()
        with self._lock:
            known = self._folders.get(parts)
            if known is not None and now - known.opened_at < _FRESH_SECONDS and (not make or parts in self.durable):
                known.users += 1
                return known
        opened = _Folder(self._walk(parts, make=make), now)
        with self._lock:
            self._drop(parts)
            while len(self._folders) >= _FOLDERS_KEPT:
                self._drop(next(iter(self._folders)))
            self._folders[parts] = opened
            opened.users += 1
        return opened

    def give_back(self, folder: _Folder) -> None:
        """Let go of a folder that was taken."""
        with self._lock:
            self._let_go(folder)

    def forget(self, parts: Parts) -> None:
        """Remember nothing of a folder: it may be gone."""
        with self._lock:
            self._drop(parts)
            self.durable.discard(parts)

    def _drop(self, parts: Parts) -> None:
        folder = self._folders.pop(parts, None)
        if folder is not None:
            self._let_go(folder)

    @staticmethod
    def _let_go(folder: _Folder) -> None:
        folder.users -= 1
        if not folder.users:
            os.close(folder.descriptor)

    def _walk(self, parts: Parts, *, make: bool) -> int:
        folder = os.dup(self.descriptor)
        for depth, part in enumerate(parts, start=1):
            try:
                inner = self._open_inner(folder, part, parts[:depth], make=make)
            finally:
                os.close(folder)
            folder = inner
        return folder

    def _open_inner(self, folder: int, part: str, whole: Parts, *, make: bool) -> int:
        if not make:
            return os.open(part, _FOLDER_FLAGS, dir_fd=folder)
        made = False
        with suppress(FileExistsError):
            os.mkdir(part, dir_fd=folder)
            made = True
        inner = os.open(part, _FOLDER_FLAGS, dir_fd=folder)
        # A folder that stands already may have been made by a process that was killed before it synced.
        if made or whole not in self.durable:
            try:
                sync_folder(folder)
            except OSError:
                os.close(inner)
                raise
            if len(self.durable) >= _DURABLE_KEPT:
                self.durable.clear()
            self.durable.add(whole)
        return inner

    @property
    def flushes_whole(self) -> bool:
        """Whether `flush` makes files durable that were not synced one by one."""
        return self.type in SYNCED_WHOLE

    @property
    def has_new_names(self) -> bool:
        """Whether copies got their names in it of which no flush has made sure."""
        return self.failure is not None or self._names > self._names_flushed

    def named_in(self, parts: Parts) -> None:
        """A folder got a name that the next flush must make durable."""
        with self._lock:
            self._names += 1
        if not self.flushes_whole:
            with self._lock:
                self._unsynced.add(parts)

    def turn(self) -> int:
        """How many flushes were begun: what is written before this is covered by a flush of a higher number."""
        return self._flushes_begun

    def has_flushed(self, turn: int) -> bool:
        """Whether a flush that was begun after that turn has succeeded."""
        return self._flushed > turn

    def flush(self) -> None:
        """Make durable what was written. Raises OSError, from then on always: what was lost on the way to the medium is
        told once by the kernel, and concerns everyone who has something in hand here."""
        with self._flushing:
            if self.failure is not None:
                raise OSError(self.failure.errno, self.failure.strerror) from self.failure
            self._flushes_begun += 1
            number = self._flushes_begun
            names = self._names
            try:
                self._sync()
            except OSError as error:
                self.failure, self.seen_until = error, 0.0
                raise
            self._flushed, self._names_flushed = number, names

    def _sync(self) -> None:
        if self.flushes_whole:
            sync_file_system(self.descriptor)
            return
        with self._lock:
            folders, self._unsynced = self._unsynced, set()
        for parts in folders:
            with suppress(FileNotFoundError), self.folder(parts) as descriptor:  # it was removed since
                sync_folder(descriptor)
