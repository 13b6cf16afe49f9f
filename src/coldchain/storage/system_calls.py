"""What Linux can do for files and Python does not offer: to make a whole file system durable, and to rename a file only
where its new name is free."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from threading import Lock

_LIBC = ctypes.CDLL(None, use_errno=True)
_SYNCFS = _LIBC.syncfs
_RENAMEAT2 = getattr(_LIBC, "renameat2", None)  # musl has it only since 1.2.6
_RENAME_NOREPLACE = 1
_NO_SUCH_CALL = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_NO_LINKS = _NO_SUCH_CALL | {errno.EPERM, errno.EACCES, errno.EMLINK, errno.EXDEV}
_ONE_AT_A_TIME = Lock()


def sync_file_system(descriptor: int) -> None:
    """Make everything that was written to a file system durable, given any open file or folder of it.

    Raises OSError also for what failed to be written since that descriptor was opened, or last given to this function
    (Linux 5.8 and newer).
    """
    if _SYNCFS(descriptor):
        raise _system_error()


def rename_new(source_folder: int, source: str, target_folder: int, target: str) -> None:
    """Rename a file, given its open folder and that of its new name; FileExistsError where the new name is taken.

    Where the file system cannot do that in one step, a second link is made and the first removed: a kill in between
    leaves both. Where it has no links either, the new name is looked for first, which is safe among the threads of this
    process and not against others. Raises OSError.
    """
    try:
        _rename_no_replace(source_folder, source, target_folder, target)
    except OSError as error:
        if error.errno not in _NO_SUCH_CALL:
            raise
        _rename_by_link(source_folder, source, target_folder, target)


def _rename_no_replace(source_folder: int, source: str, target_folder: int, target: str) -> None:
    if _RENAMEAT2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if _RENAMEAT2(source_folder, os.fsencode(source), target_folder, os.fsencode(target), _RENAME_NOREPLACE):
        raise _system_error()


def _rename_by_link(source_folder: int, source: str, target_folder: int, target: str) -> None:
    try:
        os.link(source, target, src_dir_fd=source_folder, dst_dir_fd=target_folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _rename_if_free(source_folder, source, target_folder, target)
    else:
        os.unlink(source, dir_fd=source_folder)


def _rename_if_free(source_folder: int, source: str, target_folder: int, target: str) -> None:
    with _ONE_AT_A_TIME:
        try:
            os.stat(target, dir_fd=target_folder, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(source, target, src_dir_fd=source_folder, dst_dir_fd=target_folder)
        else:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def sync_folder(descriptor: int) -> None:
    """Make a folder's names durable, where the file system knows how (some network ones answer EINVAL)."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def require_regular(status: os.stat_result) -> None:
    """Raise OSError unless it is a regular file: ELOOP for a symbolic link, EISDIR for anything else."""
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EISDIR, "something that is not a file has its name")


def _system_error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))
