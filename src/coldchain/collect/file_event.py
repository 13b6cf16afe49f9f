"""What has happened in a watched tree, and what of it has been told already."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from os import stat_result
from typing import NamedTuple

from inotify_simple import flags

from coldchain.collect.event_names import KINDS, TOLD_ANYWAY

_ARRIVED, _GONE = "arrived", "gone"


class FileEvent(NamedTuple):
    """Something that happened. (A tuple, as millions are made where a tree is large.)

    Parameters
    ----------
    mask : one kind of `event_names`, with `flags.ISDIR` where it is a folder's.
    path : to what, relative to the root; "" for the root itself.
    old_path : on MOVED_TO, where it was, relative to the root; None where it came from outside, or nobody knows.
    cookie : what a move's two halves share, else 0.
    is_found : a listing has shown it, not the kernel.
    signature : size in bytes and time stamp in nanoseconds of a regular file that a listing has just shown, else None.
    """

    mask: int
    path: str
    old_path: str | None = None
    cookie: int = 0
    is_found: bool = False
    signature: tuple[int, int] | None = None


class Report:
    """Collects what is to be told, each thing once although both the kernel and listings see it.

    What a listing found is remembered until all has been read that the kernel had told by then.

    Parameters
    ----------
    wanted : the mask of the kinds that are to be told.
    """

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self._events: list[FileEvent] = []
        self._told: set[tuple[str, str]] = set()
        self._expected: set[str] = set()
        self._visited: set[str] = set()

    def take(self) -> list[FileEvent]:
        """What has been told since the last call, in its order."""
        events, self._events = self._events, []
        return events

    def tell(
        self, mask: int, path: str, old_path: str | None = None, cookie: int = 0, *, is_found: bool = False
    ) -> None:
        """Tell what the kernel has told, or a listing has shown, where it is wanted."""
        if mask & self.wanted & (KINDS | TOLD_ANYWAY):
            shown = int(mask) & (KINDS | TOLD_ANYWAY | int(flags.ISDIR))
            self._events.append(FileEvent(shown, path, old_path, cookie, is_found))

    def tell_found(self, path: str, status: stat_result, *, kernel_should_know: bool = False) -> None:
        """Tell, wanted or not, that a listing has shown something new: it may have been made, or moved in.

        `kernel_should_know` : its folder was watched before.
        """
        self._told.add((_ARRIVED, path))
        if kernel_should_know:
            self._expected.add(path)
        is_folder = stat.S_ISDIR(status.st_mode)
        mask = int(flags.CREATE | (flags.ISDIR if is_folder else 0))
        self._events.append(FileEvent(mask, path, is_found=True, signature=_signature(status)))

    def tell_changed(self, path: str, status: stat_result) -> None:
        """Tell as closed what a listing has shown to have changed."""
        mask = int(flags.CLOSE_WRITE)
        self._events.append(FileEvent(mask, path, is_found=True, signature=_signature(status)))

    def tell_missing(self, path: str, *, is_folder: bool) -> None:
        """Tell that a listing does not show something any more."""
        self._told.add((_GONE, path))
        self.tell(flags.DELETE | (flags.ISDIR if is_folder else 0), path, is_found=True)

    def was_told_to_arrive(self, path: str) -> bool:
        """Whether a listing has told this already; once."""
        return self._was_told(_ARRIVED, path)

    def was_told_to_go(self, path: str) -> bool:
        """Whether a listing has told this already; once."""
        return self._was_told(_GONE, path)

    def unlearn_arrival(self, path: str) -> None:
        """It is gone: should it come again, that is to be told."""
        self._told.discard((_ARRIVED, path))

    def note_visit(self, folder: str) -> None:
        """A folder is being listed by ourselves, and those above it opened."""
        self._visited.update(with_all_above(folder))

    def was_visited(self, folder: str) -> bool:
        """Whether that was us."""
        return folder in self._visited

    def all_was_read(self) -> int:
        """The kernel has told all that had happened before: how much of what listings found it should have told, and
        has not."""
        unheard = sum((_ARRIVED, path) in self._told for path in self._expected)
        self._told.clear()
        self._expected.clear()
        self._visited.clear()
        return unheard

    def _was_told(self, what: str, path: str) -> bool:
        if (what, path) in self._told:
            self._told.remove((what, path))
            return True
        return False


def join(folder: str, name: str) -> str:
    """The path of a name in a folder of the tree."""
    return f"{folder}/{name}" if folder else name


def above(path: str) -> str:
    """The folder in which a path lies; "" is the root, and in the root."""
    return path.rpartition("/")[0]


def with_all_above(path: str) -> Iterator[str]:
    """A path and all folders in which it lies, up to the root ("")."""
    yield path
    while path:
        path = above(path)
        yield path


def _signature(status: stat_result) -> tuple[int, int] | None:
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None
