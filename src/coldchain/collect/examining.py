"""One file examined: what it turned out to be, provided that it was the same file before and after it was read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coldchain.collect.completeness import Examination, Verdict
from coldchain.collect.content import Content, Identity, identity_of, look_inside
from coldchain.collect.layout import Placement
from coldchain.errors import FormatError, IncompleteFileError, StorageError


@dataclass(frozen=True, slots=True)
class NotWell:
    """A file that stands still and is not whole, or cannot be read."""

    placement: Placement
    error: FormatError | StorageError | OSError


def examine(root: Path, examination: Examination, place: Callable[[str], Placement]) -> Content | NotWell | Verdict:
    """What is in a file below `root`; a verdict where it is not to be journalled now.

    What was read counts only where the path leads to the same file, unchanged, before and after the reading: GONE or
    CHANGED otherwise. `place` says where a file belongs by its path; what it raises is raised.
    """
    before = _identity(root, examination)
    if isinstance(before, Verdict):
        return before
    placement = place(examination.path)
    found: Content | NotWell
    try:
        found = look_inside(root, examination.path, placement)
    except (FormatError, StorageError, OSError) as error:
        found = NotWell(placement, error)
    after = _identity(root, examination)
    if isinstance(after, Verdict):
        return after
    if after != before:
        return Verdict.CHANGED
    if isinstance(found, NotWell) and isinstance(found.error, IncompleteFileError) and not examination.last_try:
        return Verdict.INCOMPLETE
    return found


def _identity(root: Path, examination: Examination) -> Identity | Verdict:
    """The file that was sighted; GONE or CHANGED where it is not there, UNREADABLE where nobody can tell now."""
    try:
        found = identity_of(root, examination.path)
    except OSError:  # the watcher says which folder, and why
        return Verdict.UNREADABLE
    if found is None:
        return Verdict.GONE
    return found if (found.size_bytes, found.modified_ns) == examination.signature else Verdict.CHANGED
