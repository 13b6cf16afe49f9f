"""Files below a root, reached without following a symbolic link anywhere on the way.

`O_NOFOLLOW` guards the last component of a path only: a folder on the way that is swapped for a link leads out of the
tree all the same. So each folder is opened from the one above it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from coldchain.errors import StorageError
from coldchain.model.identity import is_safe_relative

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def folder_beneath(root: Path, relative: str) -> Iterator[int]:
    """A descriptor of the folder `relative` ("." for the root itself) below `root`, closed at the end.

    The root itself may be a link. Raises OSError where a part is missing, is no folder or is a link (ELOOP or ENOTDIR),
    StorageError where the path does not stay below the root.
    """
    parts = PurePosixPath(relative).parts
    if parts and not is_safe_relative(PurePosixPath(relative)):
        raise StorageError("a path that leads out of its folder", expected="a path below it", path=relative)
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            inner = os.open(part, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def lstat_beneath(root: Path, relative: str) -> os.stat_result:
    """The status of a file below `root`, links not followed, neither on the way nor at the end. Raises as above."""
    path = PurePosixPath(relative)
    with folder_beneath(root, str(path.parent)) as folder:
        return lstat_in(folder, path.name)


def open_beneath(root: Path, relative: str) -> int:
    """A descriptor for reading a file below `root`; a pipe is not waited for. Raises as above; the caller closes."""
    path = PurePosixPath(relative)
    with folder_beneath(root, str(path.parent)) as folder:
        return open_in(folder, path.name)


def lstat_in(folder: int, name: str) -> os.stat_result:
    """The status of a file of an open folder, links not followed. Raises OSError."""
    return os.stat(name, dir_fd=folder, follow_symlinks=False)


def open_in(folder: int, name: str) -> int:
    """A descriptor for reading a file of an open folder; no link is followed and no pipe waited for.

    Raises OSError; the caller closes.
    """
    return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
