"""Every file event in a tree, each once, none missed.

The kernel tells what happens in folders that are watched. A folder that was just made is not yet: what appears in it
before it is watched is found by listing it **after** the watch was set, so that each name is seen by one or by the
other. What both see is told once: what a listing finds is remembered until everything has been read that the kernel had
told by then, and the kernel's word on it is passed over.

A file that only a listing has shown was created, and is told as created at once. Whether it was closed nobody knows: it
is told as closed when it is, or when it has stood unchanged for the settling time on our own clock.

A listing is also what follows a queue that overflowed and a mount that came back, what makes sure now and then, and
what takes the place of events where there are none: on file systems that others write to, and in folders for which the
kernel has no watches left. That a file system does not tell is known by its type, and seen where listings find what the
kernel should have told.

The parts: `tree_watches` (the kernel's watches), `kernel_events` (what it tells), `tree_visits` (watch, then list),
`tree_memory` and `folder_stamps` (what is known), `settling` (what may still be written to), `file_event` (what is
told).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from inotify_simple import flags

from coldchain.collect.event_names import KINDS
from coldchain.collect.file_event import FileEvent, Report, above, with_all_above
from coldchain.collect.folder_stamps import FolderStamps, Stamp
from coldchain.collect.kernel_events import KernelEvents
from coldchain.collect.notice import Notice, Voice
from coldchain.collect.settling import Settling
from coldchain.collect.tree_memory import FOLDER, UNSEEN, fingerprint
from coldchain.collect.tree_visits import SELF_MASK, TreeVisits, Visit
from coldchain.collect.tree_watches import TreeWatches
from coldchain.collect.watched_tree import WatchedTree
from coldchain.formats.beneath import folder_beneath
from coldchain.model.events import Severity

SETTLE_SECONDS = 2.0
POLL_SECONDS = 5.0
SCAN_SECONDS = 300.0
FULL_SECONDS = 3600.0
ROOT_SECONDS = 1.0
_VISITING_SECONDS = 0.05
"""How long visits may go on before waiting events are read again: bounds the delay from an event to its being told."""
_FIRST_FULL_SECONDS = 600.0
"""What was written anew in its place while nobody watched is found after so long."""
_SETTLED_AT_ONCE = 1000
_DEAF_SCANS = 2
"""After so many scans that found what the kernel should have told it is not relied on."""
_GONE_KINDS = ("folder.missing", "folder.unreadable", "watch.refused")


class EventTree:
    """Watches a file, a folder, or a folder with all beneath it. No thread: the owner calls `poll`, then `close`.

    Parameters
    ----------
    root : need not exist yet, and may go and come back.
    recursive : whether folders in it are watched too. Links are not followed, but the root may be one.
    events : the mask of the kinds that are to be told.
    notice : called with what a person should read, once for each trouble.
    initial : tell what is there at the start as if it had just come.
    enters : whether a folder (relative to the root) is to be watched.
    settle_seconds : unchanged for so long, a file that nobody saw closing is told as closed; None where the owner waits
        for that: such a file is told as it is found, and again when a listing shows it changed.
    poll_seconds : how often what the kernel does not tell of is looked at.
    scan_seconds : how often everything is looked at, whatever the kernel tells.
    full_seconds : how often such a scan lists folders whose time stamps say that nothing has changed.
    polls_whole : whether looking at what the kernel does not tell of lists all folders every time, which alone shows
        files that were written anew in their place.
    use_inotify : False relies on looking alone.
    moves_are_arrivals : tell all that a renamed folder holds as new under its new path.
    """

    def __init__(
        self,
        root: Path,
        *,
        recursive: bool,
        events: int,
        notice: Callable[[Notice], None],
        initial: bool = False,
        enters: Callable[[str], bool] = lambda _: True,
        settle_seconds: float | None = SETTLE_SECONDS,
        poll_seconds: float = POLL_SECONDS,
        scan_seconds: float = SCAN_SECONDS,
        full_seconds: float = FULL_SECONDS,
        polls_whole: bool = True,
        use_inotify: bool = True,
        moves_are_arrivals: bool = False,
    ) -> None:
        self.root = root
        voice = Voice(root, notice)
        self._tree = WatchedTree(
            root=root,
            recursive=recursive,
            enters=enters,
            voice=voice,
            report=Report(events),
            watches=TreeWatches(voice, wanted=use_inotify),
            settling=None if settle_seconds is None else Settling(settle_seconds),
            stamps=FolderStamps(),
        )
        self._visits = TreeVisits(self._tree)
        self._kernel = KernelEvents(
            self._tree,
            self._visits,
            lose_root=self._lose_root,
            note_root_content=self._note_root_content,
            moves_are_arrivals=moves_are_arrivals,
        )
        self._tells_first = initial
        self._poll_seconds, self._scan_seconds, self._full_seconds = poll_seconds, scan_seconds, full_seconds
        self._polls_whole = polls_whole
        self._root_identity: tuple[int, int] | None = None
        self._root_device: int | None = None
        self._root_is_folder = True
        self._root_print = UNSEEN
        self._is_deaf = False
        self._is_first = True
        self._is_scanning = False
        self._finished_scans = 0
        self._has_more_due = False
        self._can_hear = False
        """Whether the kernel should have told what is found now: not where its queue has overflowed."""
        self._deaf_scans = 0
        self._unheard = 0
        self._next_look = self._next_poll = self._next_scan = float("-inf")
        self._next_full: float | None = None

    # -- what the owner calls ---------------------------------------------------------------------------------------

    def fileno(self) -> int | None:
        """The descriptor that can be read when there are events; None where there is none."""
        return self._tree.watches.fileno()

    @property
    def is_busy(self) -> bool:
        """Whether `poll` has work to do at once."""
        return self._visits.are_waiting or self._has_more_due or (self._kernel.has_overflowed and self._root_is_folder)

    @property
    def finished_scans(self) -> int:
        """How often the whole tree has been gone through."""
        return self._finished_scans

    def poll(self, now: float, *, visits: bool = True) -> list[FileEvent]:
        """What has happened since the last call, in its order. `now` is the owner's monotonic clock. Does not wait.

        Without `visits` nothing is looked for but what lies in folders that were just made: for an owner who has enough
        to do.
        """
        self._listen(now)
        if now >= self._next_look:
            self._next_look = now + ROOT_SECONDS
            self._look_at_root(now)
            self._look_at_unmounted()
        # The scan first: however many folders are not watched, they must not keep it from its turn.
        self._begin_scan_when_due(now)
        if now >= self._next_poll:
            self._next_poll = now + self._poll_seconds
            self._poll_unwatched()
        self._visits.run_for(_VISITING_SECONDS, now, urgent_only=not visits)
        self._tell_remote()
        if self._is_scanning and not self._visits.are_waiting:
            self._listen(now)
            self._end_scan(now)
        self._tell_settled(now)
        return self._tree.report.take()

    def trust(self, stamps: Mapping[str, Stamp]) -> None:
        """Before the first poll: folders, relative to the root, whose names an earlier process has dealt with, as long
        as their stamps are these (`stamp_changes`). What is there at the start is told for the other folders only."""
        self._tree.stamps.trust(stamps)
        known = {folder for stamped in stamps for folder in with_all_above(stamped)}
        for folder in known - {""}:
            self._tree.memory.set(folder, FOLDER)

    def change(self, events: int) -> None:
        """Tell other kinds from now on, and ask `enters` again, without missing anything between."""
        tree = self._tree
        if events != tree.report.wanted:
            tree.report.wanted = events
            self._kernel.has_overflowed = True
        for folder in tree.watches.paths():
            if not tree.enters(folder):
                tree.watches.remove_inside(folder)
                tree.forget_inside(folder)
                tree.kept_out.add(folder)
        for folder in [folder for folder in tree.kept_out if tree.enters(folder)]:
            tree.kept_out.discard(folder)
            # What it holds has not just come.
            self._visits.queue(Visit(folder, tells=False))

    def forget(self, path: str) -> None:
        """Tell of this name again if a listing shows it: the owner has not dealt with what it was told."""
        self._tree.part_with(path)
        self._tree.stamps.forget([above(path)])

    def stamp_changes(self) -> dict[str, Stamp | None]:
        """The stamps of folders all of whose names have been told, as they came to be known since the last call; None
        for a folder that is gone, or is to be listed again."""
        return self._tree.stamps.take_changes()

    def give_back_stamps(self, folders: list[str]) -> None:
        """Stamps that were taken and are to be given out again."""
        self._tree.stamps.give_back(folders)

    def folders_in(self, folder: str) -> list[str]:
        """The folders that are known in a folder."""
        return self._tree.memory.folders_in(folder)

    def close(self) -> None:
        """Stop watching."""
        self._tree.watches.close()

    # -- the root ---------------------------------------------------------------------------------------------------

    def _look_at_root(self, now: float) -> None:
        """Whether the root is there, and still the same."""
        tree = self._tree
        try:
            status = self.root.stat()
        except OSError as error:
            self._root_identity = None
            self._is_first = False  # what appears later has not been there at the start
            found = f"it cannot be watched ({error.strerror})"
            tree.voice.say(
                Severity.ERROR, "folder.missing", "", found, "Mount it or correct the path; it is waited for"
            )
            return
        identity = (status.st_dev, status.st_ino)
        self._root_is_folder = stat.S_ISDIR(status.st_mode)
        if identity == self._root_identity:
            self._compare_file_root(status, now)
            return
        tree.watches.remove_inside("")
        self._root_identity = identity
        is_other_mount = self._root_device not in {None, status.st_dev}
        self._root_device = status.st_dev
        tree.voice.unsay(*_GONE_KINDS)
        tree.forget_devices()
        tree.meet_device("", status.st_dev)
        tells = not self._is_first or self._tells_first
        is_start, self._is_first = self._is_first, False
        if self._root_is_folder:
            self._is_scanning, self._can_hear = True, False
            self._visits.queue(Visit("", tells=tells, goes_deep=True, trusts=is_start, keeps=is_other_mount))
        else:
            self._root_print = fingerprint(status)
            self._watch_file_root()
            if tells:
                tree.report.tell_found("", status)
                tree.settle("", status, now)

    @property
    def _is_polled(self) -> bool:
        """Whether the kernel does not tell all that happens here."""
        return not self._tree.watches.is_there or self._is_deaf or bool(self._tree.remote)

    def _tell_remote(self) -> None:
        for folder, kind in self._tree.remote.items():
            found = f"{kind} does not tell what others do there"
            self._tree.voice.say(Severity.INFO, "watch.polled", folder, found, self._looked_at())

    def _period(self) -> float:
        return min(self._poll_seconds, self._scan_seconds)

    def _looked_at(self) -> str:
        return f"It is looked at every {self._period():g} s"

    def _watch_file_root(self) -> None:
        try:
            descriptor = os.open(self.root, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            self._tree.voice.say_unreadable("", error)
            return
        try:
            self._tree.watches.add("", descriptor, self._tree.report.wanted & KINDS | SELF_MASK)
        finally:
            os.close(descriptor)

    def _compare_file_root(self, status: os.stat_result, now: float) -> None:
        """A file that is itself the root, where the kernel tells nothing of it, or may have lost its word."""
        is_told = not (self._is_polled or self._kernel.has_overflowed or "" in self._tree.watches.unwatched)
        if self._root_is_folder or is_told:
            return
        self._watch_file_root()
        self._kernel.has_overflowed = False
        value = fingerprint(status)
        if value != self._root_print:
            self._root_print = value
            self._tree.report.tell(flags.MODIFY, "", is_found=True)
            self._tree.settle("", status, now)

    def _note_root_content(self) -> None:
        self._root_print = self._tree.fingerprint_now("")

    def _lose_root(self, is_moved: bool) -> None:
        """What the root's path leads to is no longer what is watched."""
        if is_moved:  # else the kernel drops the watch, and tells it
            self._tree.watches.remove_inside("")
        self._root_identity = None
        self._next_look = float("-inf")

    def _look_at_unmounted(self) -> None:
        """Folders below the root whose mount went away: whether something is mounted, or written, there again."""
        tree = self._tree
        for folder in list(tree.unmounted):
            try:
                with folder_beneath(self.root, folder) as descriptor, os.scandir(descriptor) as entries:
                    is_mounted = os.fstat(descriptor).st_dev != os.stat("..", dir_fd=descriptor).st_dev
                    is_back = is_mounted or next(entries, None) is not None
            except (FileNotFoundError, NotADirectoryError):
                is_back = True  # the folder above tells what became of it
            except OSError:
                continue
            if is_back:
                tree.unmounted.discard(folder)
                tree.voice.unsay("mount.gone", path=folder)
                self._visits.queue(Visit(folder, tells=True, goes_deep=True, keeps=True))

    # -- looking at everything --------------------------------------------------------------------------------------

    def _poll_unwatched(self) -> None:
        if self._visits.are_waiting or not self._root_is_folder:
            return
        for folder in list(self._tree.watches.unwatched):
            self._visits.queue(Visit(folder, tells=True, trusts=not self._polls_whole))

    def _begin_scan_when_due(self, now: float) -> None:
        if self._next_full is None:
            self._next_full = now + min(self._full_seconds, _FIRST_FULL_SECONDS)
        if self._is_scanning or self._visits.are_waiting or not self._root_is_folder:
            return
        if self._root_identity is None:
            if now >= self._next_scan:  # nothing to go through
                self._end_scan(now)
        elif self._kernel.has_overflowed or now >= self._next_full:
            self._next_full = now + self._full_seconds
            self._scan(trusts=False)
        elif now >= self._next_scan:
            self._scan(trusts=not (self._is_polled and self._polls_whole))

    def _scan(self, *, trusts: bool) -> None:
        self._is_scanning = True
        self._can_hear = not self._kernel.has_overflowed
        self._kernel.has_overflowed = False
        self._visits.queue(Visit("", tells=True, goes_deep=True, trusts=trusts))

    def _listen(self, now: float) -> None:
        unheard = self._kernel.read(now)
        self._unheard += unheard if self._can_hear else 0

    def _end_scan(self, now: float) -> None:
        self._is_scanning = False
        self._finished_scans += 1
        self._deaf_scans += bool(self._unheard) and not self._kernel.has_overflowed
        self._unheard, self._can_hear = 0, False
        if self._deaf_scans >= _DEAF_SCANS and not self._is_polled:
            self._is_deaf = True
            found = "the kernel does not tell what is written there"
            self._tree.voice.say(Severity.WARNING, "watch.deaf", "", found, self._looked_at())
        self._next_scan = now + (self._period() if self._is_polled else self._scan_seconds)

    # -- settling ---------------------------------------------------------------------------------------------------

    def _tell_settled(self, now: float) -> None:
        """Closed, as far as can be told: it stands unchanged, and the kernel said nothing."""
        tree = self._tree
        if tree.settling is None:
            return
        due = tree.settling.take_due(now, _SETTLED_AT_ONCE)
        self._has_more_due = len(due) == _SETTLED_AT_ONCE
        for path, before in due:
            try:
                status = os.lstat(tree.absolute(path)) if path else self.root.stat()
            except OSError:
                # Gone, perhaps with its mount. Should it be there again, it has still to be told as closed.
                if path:
                    tree.memory.set(path, UNSEEN)
                    tree.stamps.forget([above(path)])
                continue
            value = fingerprint(status)
            if value != before:
                tree.settling.wait(path, value, now)
                continue
            tree.report.tell(flags.CLOSE_WRITE, path, is_found=True)
            if path:
                tree.memory.set(path, value)
