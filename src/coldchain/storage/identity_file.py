"""The file in a store's root that says which store it is.

It is JSON, `{"store": "<UUID>", "name": "<the store's name when it was made>"}`. The UUID alone counts; the name is for
the person who finds the disk in a drawer. Whatever lies under its name is hostile until it has been read so.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from contextlib import suppress
from uuid import UUID, uuid4

from coldchain.errors import StorageError
from coldchain.storage.store import IDENTITY_NAME
from coldchain.storage.system_calls import rename_new, sync_folder

LIMIT_BYTES = 4096
"""What is longer is no identity file."""

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def identity_bytes(identity: UUID, name: str) -> bytes:
    """The content of an identity file."""
    return json.dumps({"store": str(identity), "name": name}).encode("ascii") + b"\n"


def identity_of(content: bytes) -> UUID:
    """The identity that such content states. Raises StorageError where it states none."""
    try:
        return UUID(str(json.loads(content[: LIMIT_BYTES + 1].decode("utf-8"))["store"]))
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        raise _no_identity(f"{type(error).__name__}: {error}") from error


def read_identity(folder: int) -> UUID | None:
    """The identity in an open folder; None where there is no such file.

    Raises OSError where it cannot be read, StorageError as above, and for what is no regular file.
    """
    try:
        descriptor = os.open(IDENTITY_NAME, _READ_FLAGS, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise _no_identity("it is a symbolic link") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _no_identity("it is no regular file")
        return identity_of(_first_bytes(descriptor, LIMIT_BYTES + 1))
    finally:
        os.close(descriptor)


def partial_of_identity() -> str:
    """The name under which an identity file is written, of the pattern of all that is unfinished."""
    return f".{IDENTITY_NAME}.{uuid4().hex}.part"


def write_identity(folder: int, identity: UUID, name: str, partial: str) -> None:
    """Have an open folder bear this identity, durably. FileExistsError where there is an identity file already."""
    descriptor = os.open(partial, _WRITE_FLAGS, 0o644, dir_fd=folder)
    try:
        try:
            os.write(descriptor, identity_bytes(identity, name))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        rename_new(folder, partial, folder, IDENTITY_NAME)
    except OSError:
        with suppress(OSError):  # swept later
            os.unlink(partial, dir_fd=folder)
        raise
    sync_folder(folder)


def _no_identity(why: str) -> StorageError:
    return StorageError(
        f"what is in {IDENTITY_NAME} is no store's identity: {why}",
        expected='{"store": "<UUID>", "name": "…"}',
        remedy="See what wrote it; if it is damaged, remove it and run `coldchain store adopt`",
        path=IDENTITY_NAME,
    )


def _first_bytes(descriptor: int, count: int) -> bytes:
    content = b""
    while len(content) < count and (piece := os.read(descriptor, count - len(content))):
        content += piece
    return content
