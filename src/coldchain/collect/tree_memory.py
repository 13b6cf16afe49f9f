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
        """The names in a folder with their fingerprints; it may be changed."""
        return self._names.setdefault(folder, {})

    def set(self, path: str, value: int) -> None:
        """Take note of one name."""
        folder, _, name = path.rpartition("/")
        self.of(folder)[name] = value

    def get(self, folder: str, name: str) -> int | None:
        """The fingerprint of a name in a folder (`FOLDER`, `UNSEEN`, `CLOSED`); None where it is not known."""
        return self._names.get(folder, {}).get(name)

    def folders_in(self, folder: str) -> list[str]:
        """The folders that are known in a folder."""
        names = self._names.get(folder, {})
        return [f"{folder}/{name}" if folder else name for name, value in names.items() if value == FOLDER]

    def forget(self, path: str) -> list[str]:
        """A name is gone, with all that was beneath it; the folders that were known there."""
        folder, _, name = path.rpartition("/")
        if folder in self._names:
            self._names[folder].pop(name, None)
        return self.forget_inside(path)

    def forget_inside(self, folder: str) -> list[str]:
        """What was beneath a folder is gone, or no longer known; the folders that were, with this one."""
        beneath = list(self._beneath(folder))
        for path in beneath:
            del self._names[path]
        return beneath

    def rename_inside(self, old: str, new: str) -> list[str]:
        """What is beneath a folder is from now on beneath another; the folders that were, with this one."""
        beneath = list(self._beneath(old))
        for path in beneath:
            self._names[new + path[len(old) :]] = self._names.pop(path)
        return beneath

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
                waiting += self.folders_in(path)
