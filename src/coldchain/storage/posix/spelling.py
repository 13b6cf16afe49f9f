"""How a name is spelt on a drive that takes two spellings for one.

exFAT knows no difference between `Movie.tif` and `movie.tif`, and a Windows computer that reads an NTFS drive neither.
There a copy's folders take the spelling in which they stand already, and a copy whose name stands there in another
spelling is told apart from it: they are two files of the source.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from threading import Lock

from coldchain.storage.portable_names import NameRules, folded, told_apart
from coldchain.storage.posix.names import Parts

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_FRESH_SECONDS = 1.0
_FOLDERS_KEPT = 16

_Names = dict[str, list[str]]  # the spellings that stand in a folder, by what they have in common


class Spelling:
    """The spellings below an open root. What a folder holds is listed at most once a second."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._lock = Lock()
        self._listed: dict[Parts, tuple[float, _Names]] = {}
        self._in_hand: dict[tuple[Parts, str], tuple[str, int]] = {}

    def reserve(self, parts: Parts, rules: NameRules) -> Parts:
        """What a copy is called whose name would be `parts`, and nobody else may be called until `release`.

        Raises OSError where a folder cannot be listed.
        """
        folders: Parts = ()
        with self._lock:
            for part in parts[:-1]:
                folders = (*folders, self._standing(folders, part))
            for name in self._candidates(folders, parts[-1], rules):
                key = (folders, folded(name))
                spelt, holders = self._in_hand.get(key, (name, 0))
                if spelt == name:
                    self._in_hand[key] = (name, holders + 1)
                    return (*folders, name)
        raise FileExistsError("every spelling of this name is another copy's")

    def release(self, parts: Parts) -> None:
        """The copy of that name has come, or will not."""
        key = (parts[:-1], folded(parts[-1]))
        with self._lock:
            spelt, holders = self._in_hand[key]
            if holders > 1:
                self._in_hand[key] = (spelt, holders - 1)
                return
            del self._in_hand[key]
            if parts[:-1] in self._listed:
                names = self._listed[parts[:-1]][1].setdefault(folded(spelt), [])
                if spelt not in names:
                    names.append(spelt)

    def is_exact(self, parts: Parts) -> bool:
        """Whether a name that can be opened is spelt so, in its last part. Raises OSError."""
        with self._lock:
            if parts[-1] not in self._names(parts[:-1]).get(folded(parts[-1]), ()):
                self._listed.pop(parts[:-1], None)  # it may have come since the folder was listed
            return parts[-1] in self._names(parts[:-1]).get(folded(parts[-1]), ())

    def _standing(self, folders: Parts, part: str) -> str:
        spellings = self._names(folders).get(folded(part), [part])
        return part if part in spellings else spellings[0]

    def _candidates(self, folders: Parts, name: str, rules: NameRules) -> list[str]:
        apart = told_apart("/".join((*folders, name)), rules).rpartition("/")[2]
        spellings = self._names(folders).get(folded(name), [name])
        return [name, apart] if name in spellings else [apart]

    def _names(self, folders: Parts) -> _Names:
        listed = self._listed.get(folders)
        now = time.monotonic()
        if listed is not None and now - listed[0] < _FRESH_SECONDS:
            return listed[1]
        self._listed.pop(folders, None)
        while len(self._listed) >= _FOLDERS_KEPT:
            del self._listed[next(iter(self._listed))]
        names: _Names = {}
        with suppress(FileNotFoundError):  # it will be made
            for name in self._list(folders):
                names.setdefault(folded(name), []).append(name)
        self._listed[folders] = (now, names)
        return names

    def _list(self, folders: Parts) -> list[str]:
        descriptor = os.open(".", _FOLDER_FLAGS, dir_fd=self._root)
        try:
            for part in folders:
                inner = os.open(part, _FOLDER_FLAGS, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            return os.listdir(descriptor)  # noqa: PTH208  # a descriptor
        finally:
            os.close(descriptor)
