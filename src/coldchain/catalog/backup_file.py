"""The file of a backup: a gzip that any gunzip opens, whose last, empty member bears what was backed up and its digest.

    gzip member     a SQLite database, or the statements of a server's dump
    gzip member     empty; its comment is one line of JSON: engine, revision, site, time, SHA-256 of all bytes before it

So the digest cannot be parted from the file, a file that ends early has none, and where Coldchain itself is gone,
`gunzip -c FILE` still gives the database (RFC 1952 allows several members and a comment in each).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from coldchain.errors import CatalogError

_CHUNK_BYTES = 1 << 20
_LEVEL = 1  # three times as fast as the usual 6, and a tenth larger
# Magic, deflate, "has a comment", no time, no hint, unknown system; then the comment; then nothing, with its sums.
_HEAD = b"\x1f\x8b\x08\x10\x00\x00\x00\x00\x00\xff"
_FOOT = b"\x03\x00" + struct.pack("<II", zlib.crc32(b""), 0)
_LONGEST_COMMENT = 4096
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Label:
    """What a backup is of. `engine` is "sqlite" or "mariadb"; `position` is a server's GTID position at its moment, ""
    where it has none; `rows_bytes` is the size of what was backed up, before compression."""

    engine: str
    revision: str
    site: str
    made_at: datetime
    position: str = ""
    rows_bytes: int = 0


class Sink(Protocol):
    """What takes bytes."""

    def write(self, data: bytes, /) -> object:
        """Take them."""


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that bears the name `path` once its block has ended well, and is on the medium then; until then nothing
    does. What bears that name already is never replaced. Raises CatalogError, OSError."""
    _refuse_taken(path)
    if not path.parent.is_dir():
        raise CatalogError("the backup's folder is not there", remedy="Make it, or mount it", path=path.parent)
    hidden = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with private_file(hidden) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _publish(hidden, path)
    finally:
        with suppress(OSError):
            hidden.unlink(missing_ok=True)


def private_file(path: Path) -> BinaryIO:
    """A new file that only its owner may read: a catalog holds people's names and mail addresses."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


class Digesting:
    """A file that is digested as it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def write(self, data: bytes, /) -> int:
        """Write and digest."""
        self._digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        """As the file does."""
        self._file.flush()

    def hexdigest(self) -> str:
        """SHA-256 of what was written."""
        return self._digest.hexdigest()


def compressed(file: Digesting) -> gzip.GzipFile:
    """What is written to it goes into the file's first member."""
    return gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=file, mtime=0)


def seal(file: BinaryIO, label: Label, sha256: str) -> None:
    """Write the last member."""
    said = {
        "coldchain_backup": _FORMAT,
        "engine": label.engine,
        "revision": label.revision,
        "site": label.site,
        "made_at": label.made_at.isoformat(),
        "position": label.position,
        "rows_bytes": label.rows_bytes,
        "sha256": sha256,
    }
    comment = json.dumps(said, ensure_ascii=True).encode("ascii")
    assert len(comment) < _LONGEST_COMMENT and b"\0" not in comment
    file.write(_HEAD + comment + b"\0" + _FOOT)


def verify(path: Path) -> Label:
    """What a backup is of, once all of its bytes were read and have the digest that it bears. Raises CatalogError."""
    try:
        with path.open("rb") as file:
            sealed_bytes, said = _seal_of(file, path)
            file.seek(0)
            if _sha256(file, sealed_bytes) != said.get("sha256"):
                raise CatalogError(
                    "the backup's bytes have another digest than the one that it bears",
                    remedy="It was damaged since it was made: use another copy of it, or another backup",
                    path=path,
                )
        return _label(said, path)
    except FileNotFoundError:
        raise CatalogError("there is no such backup", path=path) from None


def payload(path: Path) -> gzip.GzipFile:
    """What was backed up, to be read."""
    return gzip.open(path, "rb")


def copy(source: BinaryIO | gzip.GzipFile, sink: Sink) -> int:
    """Copy all; how many bytes."""
    copied = 0
    while chunk := source.read(_CHUNK_BYTES):
        sink.write(chunk)
        copied += len(chunk)
    return copied


def _refuse_taken(path: Path) -> None:
    if os.path.lexists(path):
        raise CatalogError("something of that name is there already", remedy="Give the backup another name", path=path)


def _publish(hidden: Path, path: Path) -> None:
    try:
        os.link(hidden, path)  # never replaces anything
    except FileExistsError:
        _refuse_taken(path)
        raise
    except OSError:  # a file system without links
        _refuse_taken(path)
        hidden.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _seal_of(file: BinaryIO, path: Path) -> tuple[int, dict[str, object]]:
    """How many bytes come before the last member, and what it says."""
    size = file.seek(0, os.SEEK_END)
    longest = len(_HEAD) + _LONGEST_COMMENT + 1 + len(_FOOT)
    file.seek(max(0, size - longest))
    tail = file.read(longest)
    found = tail.rfind(_HEAD)
    if found < 0 or not tail.endswith(b"\0" + _FOOT):
        raise CatalogError(
            "this is no backup of a catalog, or not the whole of one",
            expected="what `coldchain catalog backup` has written",
            remedy="Use another copy of it, or another backup",
            path=path,
        )
    try:
        said = json.loads(tail[found + len(_HEAD) : -1 - len(_FOOT)])
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or said.get("coldchain_backup") != _FORMAT:
        raise CatalogError(
            "the backup's label cannot be read", remedy="A newer Coldchain may have made it: use that one", path=path
        )
    return size - len(tail) + found, said


def _sha256(file: BinaryIO, length: int) -> str:
    digest = hashlib.sha256()
    while length > 0 and (chunk := file.read(min(length, _CHUNK_BYTES))):
        digest.update(chunk)
        length -= len(chunk)
    return digest.hexdigest()


def _label(said: dict[str, object], path: Path) -> Label:
    try:
        return Label(
            engine=str(said["engine"]),
            revision=str(said["revision"]),
            site=str(said["site"]),
            made_at=datetime.fromisoformat(str(said["made_at"])),
            position=str(said["position"]),
            rows_bytes=int(str(said["rows_bytes"])),
        )
    except (KeyError, ValueError) as error:
        raise CatalogError(f"the backup's label lacks something ({error})", path=path) from error
