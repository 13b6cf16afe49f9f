"""Reading a stored file again, past the page cache, and what that proves.

The pages of the file are dropped from the page cache after `fsync` (`POSIX_FADV_DONTNEED`), then it is read with
`O_DIRECT`. The level is `medium` when the file system's type (from `/proc/self/mountinfo`, found by the open file's own
mount id) is one of `MEDIUM_TYPES` *and* every byte came by `O_DIRECT`; otherwise it is `cache`. The type counts because
tmpfs, ZFS before 2.3 and others accept `O_DIRECT` and answer from memory all the same. On a network file system
`medium` means past this host's cache; the server has its own.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from coldchain.model.files import VerificationLevel
from coldchain.storage.digests import new_digest
from coldchain.storage.mounts import mount_of
from coldchain.storage.ring import Ring, stream

# fmt: off
MEDIUM_TYPES = frozenset({
    "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "jfs", "bcachefs", "gfs2", "ocfs2", "exfat", "vfat", "ntfs3",
    "nfs", "nfs4", "cifs", "smb3", "ceph", "lustre", "gpfs", "beegfs",
})
# fmt: on
"""File systems on which `O_DIRECT` is known to pass this host's page cache."""

# O_NONBLOCK: opening a FIFO that stands where a file should must fail, not wait for a writer.
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What reading a stored file again gave, and what that proves."""

    sha256: str
    size_bytes: int
    level: VerificationLevel


def filesystem_type(descriptor: int) -> str:
    """Type of the file system on which an open file lies, as the kernel names it; "" where it does not tell."""
    return mount_of(descriptor).type


def read_back(
    folder: int, name: str, ring: Ring, *, synced: bool = False, types: Mapping[int, str] | None = None
) -> ReadBack:
    """Read the regular file `name` of the open folder. Raises OSError; a symbolic link is ELOOP, a folder EISDIR.

    With `synced`, the caller has made the file durable already. `types` are file systems' types that the caller knows
    for certain, by device number.
    """
    descriptor, direct = _open_past_cache(folder, name)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EISDIR, "something that is not a file has its name")
        if not synced:
            os.fsync(descriptor)  # only clean pages can be dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        reader = _PastCache(descriptor, status.st_size, direct=direct)
        digest = new_digest(status.st_size)
        size_bytes = stream(reader.fill, status.st_size, [digest.update], ring)
        kind = (types or {}).get(status.st_dev) or filesystem_type(descriptor)
        proved = reader.direct and kind in MEDIUM_TYPES
        level = VerificationLevel.MEDIUM if proved else VerificationLevel.CACHE
        return ReadBack(sha256=digest.hexdigest(), size_bytes=size_bytes, level=level)
    finally:
        os.close(descriptor)


def _open_past_cache(folder: int, name: str) -> tuple[int, bool]:
    """The file open for reading, and whether with `O_DIRECT`: asked of `open`, where CIFS decides how it will read."""
    try:
        return os.open(name, _READ_FLAGS | os.O_DIRECT, dir_fd=folder), True
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.open(name, _READ_FLAGS, dir_fd=folder), False


class _PastCache:
    """Reads with `O_DIRECT` for as long as the file system grants it; `direct` says whether it always did."""

    def __init__(self, descriptor: int, size_bytes: int, *, direct: bool) -> None:
        self._descriptor = descriptor
        self._left_bytes = size_bytes
        self.direct = direct

    def fill(self, view: memoryview) -> int:
        # No more than there is: what lies behind the end, the kernel would fill with zeros, 4 MiB for a file of 10 kB.
        count = self._read(view[: -(-self._left_bytes // mmap.PAGESIZE) * mmap.PAGESIZE])
        self._left_bytes -= count
        return count

    def _read(self, view: memoryview) -> int:
        try:
            return os.readv(self._descriptor, [view])
        except OSError as error:
            if not (self.direct and error.errno == errno.EINVAL):
                raise
            self.direct = set_direct(self._descriptor, on=False)
            return os.readv(self._descriptor, [view])


def set_direct(descriptor: int, *, on: bool) -> bool:
    """Turn `O_DIRECT` on or off; whether it is on afterwards."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    wanted = flags | os.O_DIRECT if on else flags & ~os.O_DIRECT
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, wanted)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return on
