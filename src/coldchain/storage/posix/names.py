"""The names in a folder tree that is a store: which are taken from outside, and which the store makes itself."""

from __future__ import annotations

import os
import re

from coldchain.errors import StorageError
from coldchain.storage.portable_names import PART_LIMIT, NameRules, stored_name
from coldchain.storage.store import IDENTITY_NAME, TRASH_FOLDER

Parts = tuple[str, ...]

OF_OTHERS = frozenset({"lost+found", "System Volume Information"})
"""Folders in the root of a drive that belong to its file system."""

_NAME_BYTES = 255
_PLAIN = re.compile(r"(?:(?!\.\.?/)[\x01-.0-\x7f]+/)*(?!\.\.?\Z)[\x01-.0-\x7f]+")
_PARTIAL = re.compile(r"\..*\.[0-9a-f]{32}\.part", re.DOTALL)


def name_under(relative: str, rules: NameRules) -> str:
    """As `portable_names.stored_name`, and quick for what most names are."""
    if rules is NameRules.POSIX and len(relative) <= PART_LIMIT and _PLAIN.fullmatch(relative):
        return relative
    return stored_name(relative, rules)


def parts_of(stored_as: str) -> Parts:
    """The parts of a stored name. StorageError where it leads out of the store or is the store's identity file."""
    parts = tuple(stored_as.split("/"))
    if "\0" in stored_as or "" in parts or "." in parts or ".." in parts:
        raise StorageError(
            "this name leads out of the store",
            expected="a relative path without empty parts, `.` or `..`",
            path=stored_as.replace("\0", "%00"),
        )
    if _is_like(parts[0], IDENTITY_NAME):
        raise StorageError("this name is the store's own", expected="the name of a copy", path=stored_as)
    return parts


def parts_for_copy(stored_as: str) -> Parts:
    """The parts of the name of a new copy. StorageError as above, and for names that the store keeps for itself."""
    parts = parts_of(stored_as)
    if is_partial(parts[-1]):
        raise StorageError(
            "this name is one that unfinished copies bear", remedy="Rename the file at its source", path=stored_as
        )
    if _is_like(parts[0], TRASH_FOLDER):
        raise StorageError("this name is in the store's trash", expected="the name of a copy", path=stored_as)
    return parts


def is_partial(name: str) -> bool:
    """Whether a file's name is one of those that copies bear on their way."""
    return name.endswith(".part") and _PARTIAL.fullmatch(name) is not None


def is_own(name: str) -> bool:
    """Whether a name in the root of a store is the store's own, or the file system's."""
    return name in OF_OTHERS or _is_like(name, IDENTITY_NAME) or _is_like(name, TRASH_FOLDER)


def partial_name(name: str) -> str:
    """A name for a copy on its way that nothing else has."""
    return f".{_shortened(name, _NAME_BYTES - 39)}.{os.urandom(16).hex()}.part"


def free_name(folder: int, name: str, suffix: str) -> str:
    """`name` + `suffix`, or with a number after it where that is taken already in the open folder. Raises OSError."""
    number = 1
    while True:
        ending = suffix if number == 1 else f"{suffix}-{number}"
        candidate = _shortened(name, _NAME_BYTES - len(ending)) + ending
        try:
            os.stat(candidate, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return candidate
        number += 1


def _shortened(name: str, limit_bytes: int) -> str:
    # By whole characters: some file systems refuse a name that ends in half of one.
    if len(name) * 4 <= limit_bytes:
        return name
    while len(os.fsencode(name)) > limit_bytes:
        name = name[:-1]
    return name


def _is_like(name: str, own: str) -> bool:
    # Drives that know no case would open the store's own under any spelling.
    return len(name) == len(own) and name.casefold() == own
