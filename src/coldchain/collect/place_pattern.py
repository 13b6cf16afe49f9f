"""Where files belong by a pattern that the facility gives for their paths: for folders that follow no known layout.

The pattern is one regular expression for the whole path relative to the root, with the groups `session` and `exposure`
and perhaps `grid_square` and `foil_hole`:

    2026/visit42_007.tif      2026/(?P<session>[a-z]+[0-9]+)_(?P<exposure>[0-9]+)\\.\\w+

What `session` matched names the session. Where that is a folder's whole name, that folder is the session's own; where
it is a part of a name, the session lies in the folder that holds that name, perhaps with others, and its copies go to a
folder of the session's name in there. What `exposure` matched is the exposure's name: files that agree in it are one
exposure, in whatever folder they lie.

A path that the pattern does not match, or not within `MATCH_SECONDS`, is placed as if there were no pattern.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from coldchain.collect.layout import Placement, kind_of_name, split_suffix
from coldchain.collect.name_pattern import NamePattern
from coldchain.errors import UsageError
from coldchain.model.files import FileKind
from coldchain.model.identity import is_safe_relative
from coldchain.model.session import Layout

_NEEDED = frozenset({"session", "exposure"})
_KNOWN = _NEEDED | {"grid_square", "foil_hole"}
_OF_EXPOSURE = (FileKind.MOVIE, FileKind.MICROGRAPH, FileKind.METADATA, FileKind.PREVIEW)
_LONGEST_PLACE = 255


class PlacePattern:
    """A pattern of paths. Raises UsageError where it does not compile, lacks a group or has one that means nothing."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._pattern = NamePattern(source)
        missing, strange = _NEEDED - self._pattern.groups, self._pattern.groups - _KNOWN
        if missing or strange:
            found = f"no group {sorted(missing)[0]!r}" if missing else f"a group {sorted(strange)[0]!r}"
            raise UsageError(
                f"the pattern has {found}",
                expected="(?P<session>…) and (?P<exposure>…), perhaps (?P<grid_square>…) and (?P<foil_hole>…)",
                remedy="Mend it",
            )

    def place(self, path: str) -> Placement | None:
        """Where a file belongs; None where the pattern does not match its path, or matches no name that can be one.

        `path` is relative to the root. Raises TimeoutError where matching takes too long.
        """
        spans = self._pattern.spans(path)
        if spans is None or "session" not in spans:
            return None
        folder, lies_in = _folders(path, *spans["session"])
        inside = path if lies_in == "." else path.removeprefix(f"{lies_in}/")
        told = {group: path[slice(*span)] for group, span in spans.items()}
        exposure = told.get("exposure") or None
        if not all(_is_plain(name) for name in (folder, inside, exposure or inside)):
            return None
        kind = kind_of_name(path.rpartition("/")[2])
        return Placement(
            session_folder=folder,
            layout=Layout.SERIALEM if split_suffix(path)[1] == ".mdoc" else Layout.PLAIN,
            path_in_session=inside,
            kind=kind,
            exposure_name=exposure if kind in _OF_EXPOSURE else None,
            grid_square=(told.get("grid_square") or "")[:_LONGEST_PLACE] or None,
            foil_hole=(told.get("foil_hole") or "")[:_LONGEST_PLACE] or None,
            lies_in=None if lies_in == folder else lies_in,
        )


def _folders(path: str, begin: int, end: int) -> tuple[str, str]:
    """The session's folder, and the folder in which its files lie, from where its name stands in a path."""
    while path[end - 1 : end] == "/":
        end -= 1
    start = path.rfind("/", 0, end) + 1
    above = path[: max(start - 1, 0)] or "."
    name = path[max(start, begin) : end]
    folder = name if above == "." else f"{above}/{name}"
    is_whole = begin <= start and path[end : end + 1] == "/"
    return folder, folder if is_whole else above


def _is_plain(path: str) -> bool:
    return str(PurePosixPath(path)) == path and is_safe_relative(PurePosixPath(path))
