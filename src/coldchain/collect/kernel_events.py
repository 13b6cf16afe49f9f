"""What the kernel tells of a watched tree, and what follows from it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from inotify_simple import Event as KernelEvent
from inotify_simple import flags

from coldchain.collect.event_names import TOLD_ANYWAY
from coldchain.collect.file_event import join
from coldchain.collect.tree_memory import FOLDER, UNSEEN
from coldchain.collect.tree_visits import SELF_MASK, TreeVisits, Visit
from coldchain.collect.tree_watches import AWAY
from coldchain.collect.watched_tree import WatchedTree
from coldchain.model.events import Severity

_MOVE_SECONDS = 0.5
"""How long a move's second half is waited for. The kernel tells both at once."""

_CONTENT = int(flags.CLOSE_WRITE | flags.MODIFY)
_READING = int(flags.OPEN | flags.ACCESS | flags.CLOSE_NOWRITE)


@dataclass(slots=True)
class _Leaving:
    place: str
    path: str
    settling: dict[str, int]
    since: float


class KernelEvents:
    """Takes the kernel's events of a tree.

    Parameters
    ----------
    lose_root : called when the root's path leads elsewhere from now on; with True where what is watched was moved.
    note_root_content : called when the file that is itself the root was closed.
    moves_are_arrivals : whether all that a renamed folder holds is told as new under its new path.
    """

    def __init__(
        self,
        tree: WatchedTree,
        visits: TreeVisits,
        *,
        lose_root: Callable[[bool], None],
        note_root_content: Callable[[], None],
        moves_are_arrivals: bool,
    ) -> None:
        self._tree = tree
        self._visits = visits
        self._lose_root = lose_root
        self._note_root_content = note_root_content
        self._moves_are_arrivals = moves_are_arrivals
        self._leaving: dict[int, _Leaving] = {}
        self.has_overflowed = False
        """Whether events were lost since the owner put this back."""

    def read(self, now: float) -> int:
        """All that the kernel has told by now. Returns how much of what listings found it should have told."""
        for event in self._tree.watches.read():
            self._handle(event, now)
        self._end_moves(now)
        return self._tree.report.all_was_read()

    def _end_moves(self, now: float) -> None:
        """What has left and came nowhere is out of the tree."""
        for cookie, leaving in list(self._leaving.items()):
            if now - leaving.since > _MOVE_SECONDS:
                del self._leaving[cookie]
                self._tree.watches.remove_inside(leaving.place)
                self._tree.forget_inside(leaving.place)

    def _handle(self, event: KernelEvent, now: float) -> None:
        if event.mask & flags.Q_OVERFLOW:
            self._tree.report.tell(flags.Q_OVERFLOW, "")
            self.has_overflowed = True
            return
        folder = self._tree.watches.path_of(event.wd)
        if folder is None or (folder.startswith(AWAY) and not event.mask & flags.IGNORED):
            return
        if event.mask & TOLD_ANYWAY:
            self._handle_end_of_watch(event, folder)
        elif not event.name:
            self._handle_self(event, folder)
        else:
            self._handle_name(event, join(folder, event.name), now)

    def _handle_end_of_watch(self, event: KernelEvent, folder: str) -> None:
        tree = self._tree
        if event.mask & flags.UNMOUNT:
            tree.report.tell(flags.UNMOUNT, folder)
            tree.forget_devices()
            if folder in tree.mount_points:  # of what is beneath it the kernel tells the same
                tree.unmounted.add(folder)
                remedy = "Mount it again; it is waited for. What is written into the empty folder is taken too"
                tree.voice.say(Severity.WARNING, "mount.gone", folder, "what was mounted here is gone", remedy)
            return
        tree.watches.forget(event.wd)
        if folder.startswith(AWAY):
            return
        tree.report.tell(flags.IGNORED, folder)
        if folder == "":
            self._lose_root(False)

    def _handle_self(self, event: KernelEvent, folder: str) -> None:
        report = self._tree.report
        if event.mask & flags.ISDIR and event.mask & _READING and report.was_visited(folder):
            return  # that was us
        report.tell(event.mask, folder)
        if event.mask & SELF_MASK and folder == "":
            self._tree.forget_inside("")
            self._lose_root(bool(event.mask & flags.MOVE_SELF))
        elif event.mask & _CONTENT:
            self._note_content(event, folder, time.monotonic())

    def _handle_name(self, event: KernelEvent, path: str, now: float) -> None:
        report = self._tree.report
        if event.mask & flags.MOVED_TO:
            self._handle_moved_to(event, path, now)
        elif event.mask & flags.MOVED_FROM:
            self._handle_moved_from(event, path, now)
        elif event.mask & flags.CREATE:
            self._handle_create(event, path)
        elif event.mask & flags.DELETE:
            if event.mask & flags.ISDIR:
                self._visits.drop_inside(path)
            self._tree.part_with(path)  # a folder's watches are dropped by the kernel, once it has told their end
            if not report.was_told_to_go(path):
                report.tell(event.mask, path)
        elif not (event.mask & flags.ISDIR and event.mask & _READING and report.was_visited(path)):
            report.tell(event.mask, path)
            if event.mask & _CONTENT:
                self._note_content(event, path, now)

    def _handle_create(self, event: KernelEvent, path: str) -> None:
        if self._tree.report.was_told_to_arrive(path):
            return
        self._tree.report.tell(event.mask, path)
        if event.mask & flags.ISDIR:
            self._enter(path)
        else:
            self._tree.memory.set(path, UNSEEN)

    def _handle_moved_from(self, event: KernelEvent, path: str, now: float) -> None:
        tree = self._tree
        settling = {} if tree.settling is None else tree.settling.take_inside(path)
        place = f"{AWAY}{event.cookie}"
        self._leaving[event.cookie] = _Leaving(place, path, settling, now)
        if event.mask & flags.ISDIR:
            self._visits.drop_inside(path)
            tree.stamps.forget(tree.memory.rename_inside(path, place))
            tree.watches.rename_inside(path, place)
        tree.memory.forget(path)
        if not tree.report.was_told_to_go(path):
            tree.report.tell(event.mask, path, cookie=event.cookie)

    def _handle_moved_to(self, event: KernelEvent, path: str, now: float) -> None:
        tree = self._tree
        leaving = self._leaving.pop(event.cookie, None)
        known = tree.memory.get(*_split(path))
        is_other = not event.mask & flags.ISDIR and known not in {None, tree.fingerprint_now(path)}
        if not tree.report.was_told_to_arrive(path) or is_other:
            tree.part_with(path)  # what it replaced
            tree.report.tell(event.mask, path, leaving.path if leaving else None, event.cookie)
        if not event.mask & flags.ISDIR:
            tree.memory.set(path, tree.fingerprint_now(path))
        elif leaving is None:
            self._enter(path)
        else:
            self._move_folder(leaving, path)
        if leaving is not None and tree.settling is not None:
            for inner, value in leaving.settling.items():
                tree.settling.wait(path + inner[len(leaving.path) :], value, now)

    def _move_folder(self, leaving: _Leaving, path: str) -> None:
        """A folder has another place in the tree from now on, with its watches and what is known of it."""
        tree = self._tree
        tree.forget_inside(path)
        tree.watches.rename_inside(leaving.place, path)
        if self._moves_are_arrivals:
            tree.forget_inside(leaving.place)
            self._enter(path)
            return
        tree.memory.rename_inside(leaving.place, path)
        tree.memory.set(path, FOLDER)
        if tree.recursive:
            self._visits.queue(Visit(path, tells=True, goes_deep=True, is_urgent=True))

    def _note_content(self, event: KernelEvent, path: str, now: float) -> None:
        tree = self._tree
        if event.mask & flags.CLOSE_WRITE:
            if tree.settling is not None:
                tree.settling.forget(path)
            if path:
                tree.memory.set(path, tree.fingerprint_now(path))
            else:
                self._note_root_content()
        elif tree.settling is not None:
            tree.settling.stir(path, now)

    def _enter(self, path: str) -> None:
        """A folder is new here: whatever was known under its name was another."""
        self._tree.forget_inside(path)
        self._tree.memory.set(path, FOLDER)
        if self._tree.recursive:
            self._visits.queue(Visit(path, tells=True, is_urgent=True))


def _split(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return folder, name
