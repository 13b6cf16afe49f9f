"""What the system says of a store, in the house's words, with what to do about it."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from coldchain.errors import StorageError, StoreFullError

# What the whole store answers with; any other error is one name's: too long, in the way, not allowed there.
_OF_THE_STORE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN})
_MOUNT_IT = "Mount the drive, or correct the store's path in facility.toml"
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
    errno.EEXIST: "Move what stands there out of the way: nothing in a store is overwritten",
    errno.ENOENT: "See what removed it; `coldchain store verify` lists what is missing",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Which store an error is about: its name, and the root of its tree."""

    name: str
    root: Path

    def stated(self, error: OSError, doing: str, relative: str = "") -> StorageError:
        """The system's error in the house's words."""
        path = self.root / relative
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StoreFullError(
                f"store {self.name!r} is full: {self._free_words()}",
                remedy="Free space on it or raise the quota; the copy is tried again by itself",
                path=path,
            )
        there = is_folder(self.root)
        remedy = _REMEDIES.get(error.errno or 0, "See the kernel's log") if there else _MOUNT_IT
        return StorageError(f"store {self.name!r}: {doing} failed: {error.strerror or error}", remedy=remedy, path=path)

    def stating(self, doing: str, relative: str = "") -> _Stating:
        """Raise the system's errors as stated ones."""
        return _Stating(self, doing, relative)

    def missing(self) -> StorageError:
        """The error of a root that is not there."""
        return StorageError(
            f"the root of store {self.name!r} is not there", expected="a folder", remedy=_MOUNT_IT, path=self.root
        )

    def is_at_fault(self, error: StorageError) -> bool:
        """Whether an error is the whole store's: it is full, read-only, failing or away, or its root is missing."""
        cause = error.__cause__
        code = cause.errno if isinstance(cause, OSError) else None
        return isinstance(error, StoreFullError) or code in _OF_THE_STORE or not is_folder(self.root)

    def _free_words(self) -> str:
        try:
            usage = os.statvfs(self.root)
        except OSError:
            return "how much is free it does not say"
        free_bytes = usage.f_bavail * usage.f_frsize
        inodes = f" and {usage.f_favail:,} inodes" if usage.f_files else ""
        return f"{free_bytes:,} bytes{inodes} are free"


class _Stating:
    """A context in which the system's errors become stated ones. A class, since it is entered for every small file."""

    __slots__ = ("_doing", "_place", "_relative")

    def __init__(self, place: Place, doing: str, relative: str) -> None:
        self._place = place
        self._doing = doing
        self._relative = relative

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, OSError):
            raise self._place.stated(error, self._doing, self._relative) from error


def is_folder(path: Path) -> bool:
    """Whether there is a folder of that path, by links or not."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False
