"""Paths of another host → paths of this one, by their beginnings. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from coldchain.errors import UsageError, printable

_EXPECTED = "OLD=NEW, both absolute, as in /mydata/frames=/mnt/frames"


class PathMap:
    """What `--path-map OLD=NEW` says, any number of times; of several that fit a path, the longest counts.

    A path that none fits is as it is. OLD fits whole parts of a path: /data fits /data/a, not /database. Raises
    UsageError for a map that makes no sense.
    """

    def __init__(self, maps: Iterable[str] = ()) -> None:
        pairs = [_pair(each) for each in maps]
        self._pairs = sorted(pairs, key=lambda pair: len(pair[0].parts), reverse=True)

    def here(self, path: str) -> PurePosixPath | None:
        """A path of the other host as this one has it; None for one that is not absolute, or leads out of itself."""
        found = _absolute(path)
        if found is None:
            return None
        for old, new in self._pairs:
            if found == old or old in found.parents:
                return new / found.relative_to(old)
        return found


def _pair(given: str) -> tuple[PurePosixPath, PurePosixPath]:
    before, equals, after = given.partition("=")
    old, new = _absolute(before), _absolute(after)
    if not equals or old is None or new is None:
        raise UsageError(f"--path-map {printable(given)!r} maps nothing", expected=_EXPECTED)
    return old, new


def _absolute(text: str) -> PurePosixPath | None:
    if not text.isprintable() or len(text) > 4096:
        return None
    if not text.startswith("/"):
        return None
    path = PurePosixPath("/" + text.lstrip("/"))  # two slashes at the beginning would be another root
    return path if ".." not in path.parts else None
