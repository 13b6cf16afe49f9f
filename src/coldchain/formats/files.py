"""Files as bytes: opened, measured and replaced, with the operating system's refusals said as ours."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from coldchain.errors import StorageError, StoreFullError


def _cannot(verb: str, path: Path, reason: OSError | ValueError) -> StorageError:
    if isinstance(reason, OSError) and reason.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFullError("the disk is full", remedy="Make room on it", path=path)
    why = reason.strerror if isinstance(reason, OSError) else str(reason)
    return StorageError(
        f"the file cannot be {verb}: {why or type(reason).__name__}",
        remedy="See that it is there, that its permissions allow it and that its disk answers",
        path=path,
    )


def _open_regular(name: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a named pipe that nobody writes to would never return.
    descriptor = os.open(name, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file")
    return descriptor


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """The regular file at `path`, open for reading bytes; a refusal of the operating system becomes a StorageError."""
    try:
        with open(path, "rb", opener=_open_regular) as stream:  # pathlib's open has no opener
            yield stream
    except OSError as refusal:
        raise _cannot("read", path, refusal) from refusal
    except ValueError as refusal:  # a NUL in the name: pathlib refuses before the operating system can
        if "null" not in str(refusal):
            raise
        raise _cannot("read", path, refusal) from refusal


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file beside `path`, renamed over it when the block ends well and removed when it does not.

    Nobody sees half a file under the final name. Nothing is synced to the medium: results can be computed again.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w+b") as stream:
            yield stream
        part.replace(path)
    except OSError as refusal:
        raise _cannot("written", path, refusal) from refusal
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def size_of(stream: BinaryIO) -> int:
    """The size in bytes of an open file."""
    return os.fstat(stream.fileno()).st_size
