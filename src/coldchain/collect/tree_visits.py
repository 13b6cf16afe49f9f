"""Visits of folders: watch, **then** list, and compare with what was known.

Whatever appears between the two is seen by one or the other. New folders, moved-in trees, the first listing, periodic
scans and the scan after a queue overflow are all visits. They are made in slices, so that the kernel's events are read
in time however large a folder is.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from inotify_simple import flags

from coldchain.collect.event_names import KINDS
from coldchain.collect.file_event import join
from coldchain.collect.folder_stamps import Stamp
from coldchain.collect.tree_memory import CLOSED, FOLDER, UNSEEN, fingerprint
from coldchain.collect.tree_watches import is_inside
from coldchain.collect.watched_tree import WatchedTree
from coldchain.formats.beneath import folder_beneath

SELF_MASK = int(flags.DELETE_SELF | flags.MOVE_SELF)
_STRUCTURE_MASK = int(flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO | flags.ONLYDIR)
_SLICE_ENTRIES = 2000
_DONE = object()


@dataclass(frozen=True, slots=True)
class Visit:
    """A folder to be visited.

    Parameters
    ----------
    tells : whether what is new is told, or only taken note of (what was there at the start).
    goes_deep : whether known folders in it are visited too.
    trusts : whether a folder whose stamp is as it was need not be listed.
    keeps : whether what is missing stays known and is not told (another file system was mounted here, or is no more).
    is_urgent : goes ahead of all others, with what it finds: what was just made is what somebody is waiting for.
    """

    folder: str
    tells: bool
    goes_deep: bool = False
    trusts: bool = False
    keeps: bool = False
    is_urgent: bool = False


class TreeVisits:
    """The visits of a tree that are waiting and under way."""

    def __init__(self, tree: WatchedTree) -> None:
        self._tree = tree
        self._waiting: deque[Visit] = deque()
        self._urgent: list[Visit] = []
        self._under_way: list[tuple[Visit, Iterator[None]]] = []

    @property
    def are_waiting(self) -> bool:
        """Whether there is something to visit."""
        return bool(self._waiting or self._urgent or self._under_way)

    @property
    def _has_urgent(self) -> bool:
        return bool(self._urgent) or any(visit.is_urgent for visit, _ in self._under_way)

    def queue(self, visit: Visit) -> None:
        """Have a folder visited."""
        (self._urgent if visit.is_urgent else self._waiting).append(visit)

    def run_for(self, seconds: float, now: float, *, urgent_only: bool = False) -> None:
        """Visit for so long, but a slice at least, or until there is nothing to visit."""
        until = time.monotonic() + seconds
        while self._has_urgent if urgent_only else self.are_waiting:
            # One urgent visit at a time: each that is under way keeps its folder open.
            is_free = not self._under_way or (bool(self._urgent) and not self._under_way[-1][0].is_urgent)
            if is_free:
                visit = self._urgent.pop() if self._urgent else self._waiting.popleft()
                self._under_way.append((visit, self._steps(visit, now)))
            if next(self._under_way[-1][1], _DONE) is _DONE:
                self._under_way.pop()
            if time.monotonic() >= until:
                return

    def drop_inside(self, folder: str) -> None:
        """A folder has left its place: what is listed in it now would be told under a wrong path."""
        for visit, steps in self._under_way:
            if is_inside(visit.folder, folder):
                steps.close()  # type: ignore[attr-defined]  # a generator; it is done then
        self._under_way = [each for each in self._under_way if not is_inside(each[0].folder, folder)]

    def _steps(self, visit: Visit, now: float) -> Iterator[None]:
        tree, folder = self._tree, visit.folder
        if folder in tree.unmounted:
            return
        if not tree.enters(folder):
            tree.kept_out.add(folder)
            return
        try:
            with folder_beneath(tree.root, folder or ".") as descriptor:
                yield from self._visit(visit, descriptor, now)
        except OSError as error:
            self._note_unvisited(folder, error)
        else:
            tree.voice.unsay("folder.unreadable", path=folder)

    def _visit(self, visit: Visit, descriptor: int, now: float) -> Iterator[None]:
        tree, folder = self._tree, visit.folder
        was_watched = tree.watches.has(folder) and tree.stamps.was_listed(folder)
        tree.report.note_visit(folder)
        tree.watches.add(folder, descriptor, tree.report.wanted & KINDS | SELF_MASK | _STRUCTURE_MASK)
        status = os.fstat(descriptor)
        self._note_mount(folder, status, descriptor)
        tree.meet_device(folder, status.st_dev)
        stamp = _stamp(status)
        if visit.trusts and tree.stamps.is_unchanged(folder, stamp, status.st_dev):
            for inner in tree.memory.folders_in(folder):
                self.queue(replace(visit, folder=inner))
            return
        missing, news = set(tree.memory.of(folder)), 0
        with os.scandir(descriptor) as entries:
            for count, entry in enumerate(entries, start=1):
                missing.discard(entry.name)
                news += self._meet(visit, entry, now, was_watched=was_watched)
                if count % _SLICE_ENTRIES == 0:
                    yield
        for name in () if visit.keeps else missing:
            news += self._miss(visit, name, descriptor)
        stands = stamp == _stamp(os.fstat(descriptor))
        tree.stamps.note_listing(folder, stamp, now, device=status.st_dev, has_changed=bool(news) and stands)

    def _note_mount(self, folder: str, status: os.stat_result, descriptor: int) -> None:
        if folder and os.stat("..", dir_fd=descriptor).st_dev != status.st_dev:
            self._tree.mount_points.add(folder)
        else:
            self._tree.mount_points.discard(folder)

    def _meet(self, visit: Visit, entry: os.DirEntry[str], now: float, *, was_watched: bool) -> bool:
        """Compare a name with what was known; whether it is new."""
        path = join(visit.folder, entry.name)
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # gone since it was listed
            return False
        except OSError as error:
            self._tree.voice.say_unreadable(path, error)
            self._tree.stamps.forget([visit.folder])
            return False
        tree = self._tree
        before = tree.memory.get(visit.folder, entry.name)
        is_folder = stat.S_ISDIR(status.st_mode)
        value = FOLDER if is_folder else fingerprint(status)
        is_new = before is None or (before == FOLDER) != is_folder
        tree.memory.of(visit.folder)[entry.name] = value
        if is_folder and tree.recursive and (is_new or visit.goes_deep):
            self.queue(replace(visit, folder=path, trusts=visit.trusts and not is_new))
        if not visit.tells:
            return is_new
        if is_new:
            tree.report.tell_found(path, status, kernel_should_know=was_watched)
            tree.settle(path, status, now)
        elif before not in {value, CLOSED} and stat.S_ISREG(status.st_mode):
            self._tell_changed(path, status, now, was_seen=before != UNSEEN)
        return is_new

    def _tell_changed(self, path: str, status: os.stat_result, now: float, *, was_seen: bool) -> None:
        if self._tree.settling is None:
            self._tree.report.tell_changed(path, status)
            return
        if was_seen:
            self._tree.report.tell(flags.MODIFY, path, is_found=True)
        self._tree.settle(path, status, now)

    def _miss(self, visit: Visit, name: str, descriptor: int) -> bool:
        """A name was known when the listing began, and the listing did not show it; whether it is gone untold."""
        tree, path = self._tree, join(visit.folder, name)
        before = tree.memory.get(visit.folder, name)
        if before is None or _is_there(name, descriptor):  # told to be gone, or made anew, while it was listed
            return False
        if visit.tells:
            tree.report.tell_missing(path, is_folder=before == FOLDER)
        tree.part_with(path)
        if before == FOLDER:
            tree.watches.remove_inside(path)
        return True

    def _note_unvisited(self, folder: str, error: OSError) -> None:
        if isinstance(error, FileNotFoundError | NotADirectoryError) or error.errno == errno.ELOOP:
            # Gone, or something else has taken its place: the folder above tells.
            self._tree.watches.unwatched.discard(folder)
        else:
            self._tree.voice.say_unreadable(folder, error)
            self._tree.watches.unwatched.add(folder)  # looked at until it can be read


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_mtime_ns, status.st_ctime_ns


def _is_there(name: str, descriptor: int) -> bool:
    try:
        os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except OSError:
        return False
    return True
