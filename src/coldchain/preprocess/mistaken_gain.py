"""A gain reference that was named as a movie, as `*.mrc` does where both lie in one folder."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

from coldchain.errors import FormatError, ProcessingError, StorageError
from coldchain.formats.mdoc import read_mdoc
from coldchain.formats.movie import MovieInfo

_GAIN_LIKE = re.compile(r"(?<![a-z])gain|(?:count|super)ref", re.IGNORECASE)
# Every movie has one, and they all name the same reference.
_MOST_MDOCS = 5


def refuse_gain(info: MovieInfo, stated: Path | None) -> None:
    """Raise ProcessingError where a movie is the gain reference that the user (`stated`) or an mdoc in its folder
    names, or one image of floats that is called as one."""
    why = _why_gain(info, stated)
    if why is not None:
        raise ProcessingError(
            f"it seems to be a gain reference and no movie: {why}",
            remedy="Name the movies without it; if it is none, call it otherwise",
            path=info.path,
        )


def _why_gain(info: MovieInfo, stated: Path | None) -> str | None:
    path = info.path
    if stated is not None and stated.exists() and path.samefile(stated):
        return "it is what --gain names"
    if info.frames > 1:
        return None
    if _is_named_by_an_mdoc(path):
        return "an mdoc beside it names it as that"
    if info.dtype.startswith("float") and _GAIN_LIKE.search(path.stem):
        return "it is one image of floats, and called as one"
    return None


def _is_named_by_an_mdoc(path: Path) -> bool:
    for mdoc in islice(sorted(path.parent.glob("*.mdoc")), _MOST_MDOCS):
        try:
            if read_mdoc(mdoc).gain_name == path.name:
                return True
        except (FormatError, StorageError):  # it says nothing
            continue
    return False
