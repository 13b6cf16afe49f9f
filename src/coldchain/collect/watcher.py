"""Which files there are under a folder, and which of them were just closed.

inotify is a hint, the scan is the truth: both always run. The two meet in one operation, the *visit* of a folder: watch
it, **then** list it, so that whatever appears between the two is seen by one or the other. A folder that was made or
moved in, the first scan, the periodic scan and the scan after a queue overflow are all visits, taken from one queue.

What is not taken, and why:

- Names that begin with a dot, end in `.part`, `.tmp` or `~`, and files with "downloading" in their name: somebody is
  still at work on them, and renames them when done (the rename is then seen).
- Pipes, sockets and devices.
- Symbolic links, wherever they point, with one notice each: a file's identity is its real path, so a link inside the
  tree would be the same file under a second name, and a link out of it would let a folder reach anything on this
  machine. The root itself may be a link. A folder that is swapped for a link between two steps is not followed either:
  each is opened from the one above it, and what is open is what is watched and listed.

Names are bytes: every path here is `os.fsdecode`d, so that any name, valid UTF-8 or not, comes back by `os.fsencode`.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

from inotify_simple import Event as KernelEvent
from inotify_simple import INotify, flags

from coldchain.errors import printable
from coldchain.formats.beneath import folder_beneath, lstat_beneath
from coldchain.model.events import Severity

log = logging.getLogger(__name__)

_WATCH_MASK = flags.CREATE | flags.CLOSE_WRITE | flags.MOVED_TO | flags.MOVED_FROM | flags.ONLYDIR | flags.EXCL_UNLINK
_TEMPORARY_ENDINGS = (".part", ".tmp", "~")
_VISITING_SECONDS = 0.1
"""How long visits may go on before waiting events are read again: bounds the delay from close to sighting."""

_ACCESS_REMEDY = "Give the account that runs Coldchain read permission (and, on folders, execute permission)"
_WATCH_LIMIT_REMEDY = (
    "Raise the limit: sysctl fs.inotify.max_user_watches=1048576 (and in /etc/sysctl.d to keep it). "
    "Until then what is not watched is found by scanning"
)
_INSTANCE_LIMIT_REMEDY = (
    "Raise the limit: sysctl fs.inotify.max_user_instances=1024 (and in /etc/sysctl.d to keep it). "
    "Until the next start everything is found by scanning"
)


@dataclass(frozen=True, slots=True)
class Sighting:
    """A regular file as it stood at one moment.

    `path` is relative to the watched root, POSIX, `os.fsdecode`d. `modified_ns` is the source's own time stamp: compare
    it for equality only. `closed` means that the kernel said so: it was closed after writing, or moved in whole.
    """

    path: str
    size_bytes: int
    modified_ns: int
    closed: bool


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about the tree that a person should read once. `path` is relative to the root ("" for the root)."""

    severity: Severity
    kind: str
    message: str
    path: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What one `poll` found: at most one sighting a path, in the order of finding."""

    sightings: tuple[Sighting, ...] = ()
    notices: tuple[Notice, ...] = ()


def is_passed_over(name: str, *, folder: bool) -> bool:
    """Whether a name says that its file or folder is hidden or still temporary.

    Folders may be called "downloading": passing over a folder hides everything in it.
    """
    lower = name.lower()
    if lower.startswith(".") or lower.endswith(_TEMPORARY_ENDINGS):
        return True
    return not folder and "downloading" in lower


class FolderWatcher:
    """Watches one folder and everything beneath it. No thread: the owner calls `poll`, and `close` at the end.

    Parameters
    ----------
    root : the folder; it need not exist yet, and may go and come back (a mount).
    scan_seconds : the period of the reconciling scan, from the end of one to the start of the next.
    use_inotify : False relies on scanning alone (mounts whose other side's changes the kernel does not tell).
    """

    def __init__(self, root: Path, *, scan_seconds: float = 30.0, use_inotify: bool = True) -> None:
        self.root = root
        self._scan_seconds = scan_seconds
        self._next_scan = float("-inf")
        self._scanning = False
        self._scan_again = False
        self._finished_scans = 0
        self._to_visit: deque[str] = deque()
        self._path_of_watch: dict[int, str] = {}
        self._watch_of_path: dict[str, int] = {}
        self._watches_exhausted = False
        self._said: set[tuple[str, str]] = set()
        self._sightings: dict[str, Sighting] = {}
        self._notices: list[Notice] = []
        self._inotify = self._open_inotify() if use_inotify else None

    def poll(self, now: float, timeout_seconds: float) -> Findings:
        """What has been found since the last call; waits at most `timeout_seconds` where there is nothing to do.

        `now` is the owner's monotonic clock. Never raises for what lies under the root.
        """
        self._begin_scan_when_due(now)
        self._read_events(0.0 if self._to_visit else timeout_seconds)
        self._visit_for(_VISITING_SECONDS)
        if self._scanning and not self._to_visit:
            self._end_scan(now)
        findings = Findings(tuple(self._sightings.values()), tuple(self._notices))
        self._sightings.clear()
        self._notices.clear()
        return findings

    def look(self, path: str) -> Sighting | None:
        """The file as it stands now; None where it is gone, is no regular file any more, or cannot be reached."""
        try:
            status = lstat_beneath(self.root, path)
        except OSError:
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return Sighting(path, status.st_size, status.st_mtime_ns, closed=False)

    @property
    def finished_scans(self) -> int:
        """How often the whole tree has been gone through."""
        return self._finished_scans

    @property
    def is_scanning(self) -> bool:
        """Whether folders wait to be visited."""
        return self._scanning or bool(self._to_visit)

    def close(self) -> None:
        """Stop watching. Calling it again does nothing."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    # -- the scan -------------------------------------------------------------------------------------------------

    def _begin_scan_when_due(self, now: float) -> None:
        if self._scanning or not (self._scan_again or now >= self._next_scan):
            return
        self._scanning = True
        self._scan_again = False
        self._watches_exhausted = False
        self._to_visit.append("")

    def _end_scan(self, now: float) -> None:
        self._scanning = False
        self._finished_scans += 1
        self._next_scan = now + self._scan_seconds

    def _visit_for(self, seconds: float) -> None:
        # The only clock in this module: it bounds how long events wait, and decides nothing about files.
        until = time.monotonic() + seconds
        while self._to_visit and time.monotonic() < until:
            self._visit(self._to_visit.popleft())

    def _visit(self, folder: str) -> None:
        """Watch a folder, then list it."""
        try:
            with folder_beneath(self.root, folder) as descriptor:
                self._watch(folder, descriptor)
                with os.scandir(descriptor) as entries:
                    for entry in entries:
                        self._meet_entry(_join(folder, entry.name), entry)
        except OSError as error:
            self._note_unvisited(folder, error)
            return
        self._unsay("folder.missing", folder)
        self._unsay("folder.unreadable", folder)

    def _note_unvisited(self, folder: str, error: OSError) -> None:
        gone = isinstance(error, FileNotFoundError)
        if gone or _is_no_folder(error):
            self._unwatch(folder)
        if gone and folder == "":
            remedy = "Mount it or correct the path; it is waited for"
            self._say(Severity.ERROR, "folder.missing", "", "the folder is not there", remedy)
        elif not gone and not (_is_no_folder(error) and folder):
            self._say_unreadable(folder, error)

    def _meet_entry(self, path: str, entry: os.DirEntry[str]) -> None:
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError as error:
            self._note_unmet(path, error)
            return
        self._meet(path, status, closed=False)

    def _meet_by_path(self, path: str, *, closed: bool) -> None:
        try:
            status = lstat_beneath(self.root, path)
        except OSError as error:
            self._note_unmet(path, error)
            return
        self._meet(path, status, closed=closed)

    def _note_unmet(self, path: str, error: OSError) -> None:
        if isinstance(error, FileNotFoundError) or _is_no_folder(error):
            return
        if not is_passed_over(path.rpartition("/")[2], folder=False):
            self._say_unreadable(path, error)

    def _meet(self, path: str, status: os.stat_result, *, closed: bool) -> None:
        """Take note of whatever bears this path now."""
        if is_passed_over(path.rpartition("/")[2], folder=stat.S_ISDIR(status.st_mode)):
            return
        if stat.S_ISDIR(status.st_mode):
            self._to_visit.append(path)
        elif stat.S_ISLNK(status.st_mode):
            self._refuse_link(path)
        elif stat.S_ISREG(status.st_mode):
            self._sight(Sighting(path, status.st_size, status.st_mtime_ns, closed))

    def _sight(self, sighting: Sighting) -> None:
        earlier = self._sightings.pop(sighting.path, None)
        # A listing knows nothing of closing: it must not take back what the kernel said a moment ago.
        if earlier is not None and replace(earlier, closed=False) == sighting:
            sighting = earlier
        self._sightings[sighting.path] = sighting

    # -- the kernel's events ----------------------------------------------------------------------------------------

    def _open_inotify(self) -> INotify | None:
        try:
            return INotify()
        except OSError as error:
            found = f"inotify is not to be had ({error.strerror})"
            self._say(Severity.WARNING, "watch.unavailable", "", found, _INSTANCE_LIMIT_REMEDY)
            return None

    def _read_events(self, timeout_seconds: float) -> None:
        if self._inotify is None:
            time.sleep(timeout_seconds)
            return
        for event in self._inotify.read(timeout=int(timeout_seconds * 1000)):
            self._handle(event)

    def _handle(self, event: KernelEvent) -> None:
        if event.mask & flags.Q_OVERFLOW:
            log.info("inotify's queue overflowed under %s; scanning", printable(str(self.root)))
            self._scan_again = True
            return
        folder = self._path_of_watch.get(event.wd)
        if folder is None:
            return
        if event.mask & flags.IGNORED:
            self._forget_watch(event.wd)
            return
        if not event.name:
            return
        path = _join(folder, event.name)
        if not event.mask & flags.ISDIR:
            if not event.mask & flags.MOVED_FROM:
                self._meet_by_path(path, closed=bool(event.mask & (flags.CLOSE_WRITE | flags.MOVED_TO)))
        elif event.mask & flags.MOVED_FROM:
            self._unwatch_tree(path)
        elif event.mask & (flags.CREATE | flags.MOVED_TO) and not is_passed_over(event.name, folder=True):
            # Ahead of the scan: what was just made is what somebody is waiting for.
            self._to_visit.appendleft(path)

    # -- watches ----------------------------------------------------------------------------------------------------

    def _watch(self, folder: str, descriptor: int) -> None:
        if self._inotify is None or self._watches_exhausted:
            return
        try:
            # inotify takes paths only, and follows links on the way; this path leads to what is open and nowhere else.
            watch = self._inotify.add_watch(f"/proc/self/fd/{descriptor}", _WATCH_MASK)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                self._watches_exhausted = True
                found = "not every folder can be watched: fs.inotify.max_user_watches is reached"
                self._say(Severity.WARNING, "watch.limit", "", found, _WATCH_LIMIT_REMEDY)
            # Whatever the reason, what is not watched is found by scanning.
            return
        earlier = self._watch_of_path.get(folder)
        if earlier is not None and earlier != watch:
            self._unwatch(folder)
        # A folder that was renamed keeps its watch: the watch learns its new path here.
        self._forget_watch(watch)
        self._path_of_watch[watch] = folder
        self._watch_of_path[folder] = watch

    def _forget_watch(self, watch: int) -> None:
        folder = self._path_of_watch.pop(watch, None)
        if folder is not None and self._watch_of_path.get(folder) == watch:
            del self._watch_of_path[folder]

    def _unwatch(self, folder: str) -> None:
        watch = self._watch_of_path.get(folder)
        if watch is None or self._inotify is None:
            return
        self._forget_watch(watch)
        try:
            self._inotify.rm_watch(watch)
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: the kernel had dropped it with its folder
                raise

    def _unwatch_tree(self, folder: str) -> None:
        """A folder that moved away would report its files under a path that is no longer theirs."""
        inside = folder + "/"
        for path in [path for path in self._watch_of_path if path == folder or path.startswith(inside)]:
            self._unwatch(path)

    # -- notices ----------------------------------------------------------------------------------------------------

    def _refuse_link(self, path: str) -> None:
        root = os.path.realpath(self.root)
        target = os.path.realpath(self._absolute(path))
        inside = target == root or target.startswith(root + "/")
        where = "to another place in this folder, where its target is taken" if inside else "out of this folder"
        found = f"a symbolic link {where} is not followed ({printable(target)})"
        remedy = "Move or hard-link the file itself here if it belongs to the session"
        self._say(Severity.WARNING, "link.refused", path, found, remedy)

    def _say_unreadable(self, path: str, error: OSError) -> None:
        self._say(Severity.ERROR, "folder.unreadable", path, f"cannot be read ({error.strerror})", _ACCESS_REMEDY)

    def _say(self, severity: Severity, kind: str, path: str, found: str, remedy: str) -> None:
        if (kind, path) in self._said:
            return
        self._said.add((kind, path))
        message = f"{printable(self._absolute(path))}: {found}. {remedy}"
        self._notices.append(Notice(severity, kind, message, path))

    def _unsay(self, kind: str, path: str) -> None:
        """The trouble is over: should it come back, it is worth saying again."""
        self._said.discard((kind, path))

    def _absolute(self, path: str) -> str:
        return f"{self.root}/{path}" if path else str(self.root)


def _is_no_folder(error: OSError) -> bool:
    """Whether something else, perhaps a link, has taken the place of a folder on the way."""
    return isinstance(error, NotADirectoryError) or error.errno == errno.ELOOP


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
