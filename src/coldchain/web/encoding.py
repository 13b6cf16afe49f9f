"""Values as JSON, whatever their names are made of."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum

from starlette.responses import Response

from coldchain.errors import printable


def plain(value: object) -> object:
    """The value in JSON's own types.

    Frozen values become objects of their fields, times ISO 8601 in the facility's local time with its offset, numbers
    that are not finite null. Text is made printable, so no file name reaches a page with a control character or an
    undecodable byte in it.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, datetime):
        return value.astimezone().isoformat()
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {printable(str(k)): plain(v) for k, v in value.items()}
    if isinstance(value, Sequence | Set):
        return [plain(v) for v in value]
    return printable(str(value))


class PlainResponse(Response):
    """A JSON answer made by `plain`; never cached without asking again."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """The body, ASCII only."""
        return json.dumps(plain(content), ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")
