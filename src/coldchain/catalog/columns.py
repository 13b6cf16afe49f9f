"""Column types that keep a value exactly, on SQLite and on MariaDB.

A path may be any bytes and is stored as bytes; a path's index is on its SHA-256 (32 bytes), because a path of 4096
bytes would not fit into the 3072 bytes that InnoDB allows an index. Text is compared as code points on both.
"""

# ruff: noqa: ARG002, D102  # process_bind_param and process_result_value are SQLAlchemy's hooks, documented there

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar
from uuid import UUID, SafeUUID

from sqlalchemy import DateTime, Dialect, Double, LargeBinary, String, Text, Uuid
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator, TypeEngine

from coldchain.errors import CatalogError, printable

MAX_NAME_CHARACTERS = 255
MAX_WORD_CHARACTERS = 32
MAX_PATH_BYTES = 4096  # PATH_MAX of Linux

_SERVER = ("mysql", "mariadb")
# NOPAD and binary: "a" is not "A" and not "a ".
_COLLATION = {"charset": "utf8mb4", "collation": "utf8mb4_nopad_bin"}
_ESCAPE = "␛"
_UNSTORABLE = re.compile("[\ud800-\udfff␛]")
_ESCAPED = re.compile("␛(␛|d[89a-f][0-9a-f]{2})")

EnumT = TypeVar("EnumT", bound=StrEnum)

# A UUID refuses to be set by itself.
_bare, _set = object.__new__, object.__setattr__
_KEY_BYTES = 16


class Key(Uuid[UUID]):
    """A UUID as 32 hexadecimal digits: sorts by time on every database, which MariaDB's own type does not promise."""

    def __init__(self) -> None:
        super().__init__(as_uuid=True, native_uuid=False)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[str | None], UUID | None]:
        """What makes a key of its digits: `UUID` itself takes three times as long; a small file's work reads eight."""
        return _as_key


def _as_key(digits: str | None) -> UUID | None:
    if digits is None:
        return None
    try:
        raw = bytes.fromhex(digits)
    except (TypeError, ValueError):
        raw = b""
    if len(raw) != _KEY_BYTES or len(digits) != 2 * _KEY_BYTES:
        raise CatalogError(
            f"the catalog has the key {printable(str(digits)[:60])!r}",
            expected=f"{2 * _KEY_BYTES} hexadecimal digits",
            remedy="Something else wrote there, or its disk is failing: restore the last backup beside it and compare",
        )
    key = _bare(UUID)
    _set(key, "int", int.from_bytes(raw))
    _set(key, "is_safe", SafeUUID.unknown)
    return key


def path_digest(path: str) -> bytes:
    """SHA-256 of a path's bytes: what a path is looked up by."""
    return hashlib.sha256(path_bytes(path)).digest()


def stem_digest(name: str) -> bytes:
    """SHA-256 of a path's last part with its case folded: what a name that says no folder is looked up by."""
    return path_digest(name.rpartition("/")[2].casefold())


def path_bytes(path: str) -> bytes:
    """A path's bytes as the file system has them; CatalogError if it cannot be a path."""
    try:
        raw = os.fsencode(path)
    except UnicodeEncodeError as error:
        raise CatalogError(
            f"the path {printable(path)!r} holds characters that no file name can",
            expected="text from os.fsdecode",
        ) from error
    if b"\0" in raw:
        raise CatalogError(f"the path {printable(path)!r} holds a NUL", expected="a path as the file system gives it")
    if len(raw) > MAX_PATH_BYTES:
        raise CatalogError(
            f"a path of {len(raw)} bytes, beginning {printable(path[:60])!r}",
            expected=f"at most {MAX_PATH_BYTES} bytes",
            remedy="Shorten the folder's name",
        )
    return raw


def is_path(path: str) -> bool:
    """Whether `path_bytes` takes it: names that metadata give need not be ones that a file can have."""
    try:
        path_bytes(path)
    except CatalogError:
        return False
    return True


def storable_text(text: str) -> str:
    """Text as a database takes it: UTF-8 has no lone surrogates (os.fsdecode's stand-ins for undecodable bytes), so
    they are written as ␛ and their code; a ␛ of the text's own is doubled. `original_text` is the inverse."""
    if "\0" in text:
        raise CatalogError(f"the text {printable(text[:60])!r} holds a NUL", expected="text without NUL characters")
    return _escaped(text)


def original_text(stored: str) -> str:
    """The inverse of `storable_text`."""
    if _ESCAPE not in stored:
        return stored
    return _ESCAPED.sub(lambda m: _ESCAPE if m[1] == _ESCAPE else chr(int(m[1], 16)), stored)


def json_text(value: object) -> str:
    """A JSON value as text without lone surrogates, which MariaDB takes for invalid JSON: as `storable_text` has them.
    NaN is no JSON. `json_value` is the inverse."""
    return _escaped(json.dumps(value, allow_nan=False, ensure_ascii=False))


def json_value(text: str) -> Any:
    """The inverse of `json_text`."""
    return json.loads(original_text(text))


def _escaped(text: str) -> str:
    return _UNSTORABLE.sub(lambda m: _ESCAPE * 2 if m[0] == _ESCAPE else f"{_ESCAPE}{ord(m[0]):04x}", text)


class _Text(TypeDecorator[str]):
    """Any text but NUL, exactly."""

    impl: TypeEngine[str] | type[TypeEngine[str]] = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else original_text(value)


class Prose(_Text):
    """Text of any length: messages and reasons."""

    impl = Text().with_variant(mysql.MEDIUMTEXT(**_COLLATION), *_SERVER)
    cache_ok = True


class Name(_Text):
    """Text of at most `MAX_NAME_CHARACTERS`, which may be indexed."""

    impl = String(MAX_NAME_CHARACTERS).with_variant(mysql.VARCHAR(MAX_NAME_CHARACTERS, **_COLLATION), *_SERVER)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        stored = super().process_bind_param(value, dialect)
        if stored is not None and len(stored) > MAX_NAME_CHARACTERS:
            raise CatalogError(
                f"a name of {len(stored)} characters, beginning {printable(stored[:60])!r}",
                expected=f"at most {MAX_NAME_CHARACTERS} characters",
                remedy="Shorten the name",
            )
        return stored


class PathBytes(TypeDecorator[str]):
    """A path: `str` from os.fsdecode outside, the file system's bytes inside."""

    impl = LargeBinary(MAX_PATH_BYTES).with_variant(mysql.VARBINARY(MAX_PATH_BYTES), *_SERVER)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        return None if value is None else path_bytes(value)

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:
        return None if value is None else os.fsdecode(value)


class Digest(TypeDecorator[bytes]):
    """The 32 bytes of a SHA-256."""

    impl = LargeBinary(32).with_variant(mysql.BINARY(32), *_SERVER)
    cache_ok = True


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time outside, naive UTC with microseconds inside."""

    impl = DateTime().with_variant(mysql.DATETIME(fsp=6), *_SERVER)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise CatalogError(f"the time {value.isoformat()} has no time zone", expected="an aware time")
        return (value if value.tzinfo is UTC else value.astimezone(UTC)).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Word(TypeDecorator[EnumT], Generic[EnumT]):
    """A member of a StrEnum, stored as its value."""

    impl = String(MAX_WORD_CHARACTERS)
    cache_ok = True

    def __init__(self, kind: type[EnumT]) -> None:
        super().__init__()
        self.kind = kind
        self._members = {member.value: member for member in kind}

    def process_bind_param(self, value: EnumT | None, dialect: Dialect) -> str | None:
        return None if value is None else self.kind(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> EnumT | None:
        if value is None:
            return None
        try:
            return self._members[value]
        except KeyError as error:
            raise CatalogError(
                f"the catalog says {printable(value)!r}",
                expected="one of " + ", ".join(self.kind),
                remedy="A newer Coldchain may have written it: upgrade this one",
            ) from error


class Real(TypeDecorator[float]):
    """A float, exactly. MariaDB knows neither NaN nor infinity and SQLite turns NaN into NULL: NaN is NULL here, and
    infinity is the largest double."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        if value is None or math.isnan(value):
            return None
        return max(-sys.float_info.max, min(sys.float_info.max, float(value)))

    def process_result_value(self, value: float | None, dialect: Dialect) -> float:
        if value is None:
            return math.nan
        return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value


class Whole(TypeDecorator[int]):
    """An integer of any size as decimal digits: a file's time stamp in nanoseconds can exceed 64 bits."""

    impl = String(MAX_WORD_CHARACTERS)
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> int | None:
        return None if value is None else int(value)
