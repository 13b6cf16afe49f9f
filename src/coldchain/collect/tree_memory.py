"""What a watched tree was last known to hold: folders with their names, and how each file stood."""

from __future__ import annotations

import os
from collections.abc import Iterator

FOLDER = -1
UNSEEN = 0
"""A file that is known by name only: how it stands has not been looked at."""

CLOSED = -2
"""The same, but it has been told as closed."""


def fingerprint(status: os.stat_result) -> int:
    """A number that changes with a file's size and time stamp; inode numbers do not outlive some mounts."""
    value = hash((status.st_size, status.st_mtime_ns))
    return value if value not in (FOLDER, UNSEEN, CLOSED) else 1


class TreeMemory:
    """Names by folder; all paths are relative to the tree's root, "" is the root itself."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, int]] = {}

    def of(self, folder: str) -> dict[str, int]:
        """The names in a folder with their fingerprints (`FOLDER`, `UNSEEN`); it may be changed."""
        return self._names.setdefault(folder, {})

    def set(self, path: str, value: int) -> None:
        """Take note of one name."""
        folder, _, name = path.rpartition("/")
        self.of(folder)[name] = value

    def forget(self, path: str) -> None:
        """A name is gone, with all that was beneath it."""
        folder, _, name = path.rpartition("/")
        if folder in self._names:
            self._names[folder].pop(name, None)
        self.forget_inside(path)

    def forget_inside(self, folder: str) -> None:
        """What was beneath a folder is gone, or no longer known."""
        for path in list(self._beneath(folder)):
            del self._names[path]

    def rename_inside(self, old: str, new: str) -> None:
        """What is beneath a folder is from now on beneath another."""
        for path in list(self._beneath(old)):
            self._names[new + path[len(old) :]] = self._names.pop(path)

    def _beneath(self, folder: str) -> Iterator[str]:
        """The folder and all folders inside it."""
        if folder == "":
            yield from self._names
            return
        # By way of the names, where they lead all the way; a search through everything would be slow for each folder.
        waiting = [folder]
        while waiting:
            path = waiting.pop()
            names = self._names.get(path)
            if names is not None:
                yield path
                waiting += [f"{path}/{name}" for name, value in names.items() if value == FOLDER]
