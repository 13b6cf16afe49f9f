"""Keys, digests and paths: how things are told apart.

A file's identity is its path relative to its session's root plus the SHA-256 of its content, never its base name and
never a clock. A row's key is a UUIDv7 (RFC 9562) minted by whoever writes the row, so that two sites never collide.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePosixPath
from uuid import UUID

import uuid_utils.compat

UNNAMED_FACILITY = "Our facility"
"""What a facility is called that nobody has named."""


def new_id() -> UUID:
    """A new UUIDv7: unique everywhere, and sortable by the time of its making."""
    return uuid_utils.compat.uuid7()


def first_id_at(time: datetime) -> UUID:
    """The least UUIDv7 that could have been minted at a time: keys that are greater were minted then or later."""
    milliseconds = max(0, int(time.timestamp() * 1000))
    return UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62)


def digest_of(value: Mapping[str, object]) -> str:
    """SHA-256, in hexadecimal, of a mapping of JSON values, whatever the order of its keys."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def is_safe_relative(path: PurePosixPath) -> bool:
    """Whether a relative path stays where it is put: not empty, not absolute, without `..`."""
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts
