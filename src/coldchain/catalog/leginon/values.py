"""What stands in a row of Leginon's → values that can be trusted: numbers within limits, text that is text.

Pure. Leginon's tables are Latin-1, and hold UTF-8 or anything else, as the client that wrote them had it; so text is
read as bytes. Lists are stored as Python writes them, "(1, 2)", and are parsed here, never evaluated.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

_LONGEST_WORDS = 200
_MOST_IN_LIST = 100_000
_LONGEST_LIST = 16 * _MOST_IN_LIST
_WHOLE = re.compile(r"-?[0-9]{1,9}")
_LAST_SECOND = 4_102_444_800  # the year 2100


def text(value: object) -> str:
    """Text as it was meant: UTF-8 where it is that, else Latin-1; "" for nothing."""
    if value is None:
        return ""
    if isinstance(value, bytes | bytearray):
        try:
            return bytes(value).decode("utf-8")
        except UnicodeDecodeError:
            return bytes(value).decode("latin-1")
    return str(value)


def words(value: object) -> str:
    """Text for people: control characters are left out, and what is longer than 200 characters is cut."""
    shown = "".join(c if c.isprintable() else " " for c in text(value))
    return " ".join(shown.split())[:_LONGEST_WORDS]


def number(value: object) -> float | None:
    """A finite number; None for nothing, and for what is none."""
    if isinstance(value, bytes | bytearray):
        value = text(value)
    try:
        found = float(value)  # type: ignore[arg-type]  # whatever it is
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def whole(value: object) -> int | None:
    """A whole number; None for nothing, and for what is none."""
    found = number(value)
    return int(found) if found is not None and found == int(found) and abs(found) < 2**53 else None


def truth(value: object) -> bool:
    """Whether a flag is set; nothing is not."""
    return bool(number(value))


def moment(seconds: object) -> datetime | None:
    """A time from seconds since 1970, UTC; None for MySQL's zero date, and for what no microscope has seen."""
    found = number(seconds)
    if found is None or not 0 < found < _LAST_SECOND:
        return None
    return datetime.fromtimestamp(found, UTC)


def whole_numbers(value: object) -> tuple[int, ...] | None:
    """The whole numbers of a list that Python wrote, nested or not, in their order; None where it is none."""
    given = text(value)
    if len(given) > _LONGEST_LIST:
        return None
    if re.search(r"[^0-9L,\s()\[\]-]", given):  # Python 2 wrote long integers as 12L
        return () if given in ("", "None") else None
    found = _WHOLE.findall(given)
    return tuple(map(int, found)) if len(found) <= _MOST_IN_LIST else None


def is_file_name(name: str) -> bool:
    """Whether a file in a folder may be called so: one part of a path, without control characters."""
    return bool(name) and name not in (".", "..") and "/" not in name and name.isprintable() and len(name) <= 255
