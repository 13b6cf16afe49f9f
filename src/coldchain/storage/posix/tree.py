"""Going through a folder tree from its open root: what lies there, what killed copies left, which folders are empty."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from coldchain.storage.posix.names import Parts

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH_LIMIT = 256
_NOT_REMOVABLE = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS})


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A regular file on the way through a tree: its path, its name, and its open folder, which is open until the next
    one is asked for."""

    path: str
    name: str
    folder: int
    entry: os.DirEntry[str]


def files_below(root: int, *, skips: Callable[[str], bool] | None) -> Iterator[TreeFile]:
    """Every regular file below an open folder, in no order; of its own names, those that `skips` says are left out.

    No link is followed. Folders are listed piece by piece: of a million files in one folder only a few are in memory,
    and one descriptor a level is open. Raises OSError, for a tree of more than 256 levels as well.
    """
    yield from _files_of(os.dup(root), "", 0, skips)


def _files_of(folder: int, prefix: str, depth: int, skips: Callable[[str], bool] | None) -> Iterator[TreeFile]:
    """The files of a folder and of those in it; closes the folder."""
    try:
        if depth > _DEPTH_LIMIT:
            raise OSError(errno.ELOOP, f"there are folders in folders more than {_DEPTH_LIMIT} deep")
        os.lseek(folder, 0, os.SEEK_SET)
        with os.scandir(folder) as entries:
            for entry in entries:
                if skips is not None and skips(entry.name):
                    continue
                if entry.is_file(follow_symlinks=False):
                    yield TreeFile(prefix + entry.name, entry.name, folder, entry)
                elif entry.is_dir(follow_symlinks=False):
                    with suppress(FileNotFoundError):  # removed since it was listed
                        inner = os.open(entry.name, _FOLDER_FLAGS, dir_fd=folder)
                        yield from _files_of(inner, f"{prefix}{entry.name}/", depth + 1, None)
    finally:
        os.close(folder)


def remove_empty(root: int, parts: Parts) -> tuple[list[Parts], Parts]:
    """Remove the folder `parts` below the open root where it is empty, and then those above it; never the root.

    Returns what was removed, and the innermost folder that is left. What cannot be removed is left. Raises OSError.
    """
    removed: list[Parts] = []
    while parts:
        above = _opened(root, parts[:-1])
        try:
            os.rmdir(parts[-1], dir_fd=above)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in _NOT_REMOVABLE:
                break
            raise
        else:
            removed.append(parts)
        finally:
            os.close(above)
        parts = parts[:-1]
    return removed, parts


def _opened(root: int, parts: Parts) -> int:
    folder = os.dup(root)
    for part in parts:
        try:
            inner = os.open(part, _FOLDER_FLAGS, dir_fd=folder)
        finally:
            os.close(folder)
        folder = inner
    return folder
