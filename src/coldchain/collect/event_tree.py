"""Every file event in a tree, each once, none missed.

The kernel tells what happens in folders that are watched. A folder that was just made is not yet: what appears in it
before it is watched is found by listing it **after** the watch was set, so that each name is seen by one or by the
other. What both see is told once: what a listing finds is remembered until everything has been read that the kernel had
told by then, and the kernel's word on it is passed over.

A file that only a listing has shown was created, and is told as created at once. Whether it was closed nobody knows: it
is told as closed when it is, or when it has stood unchanged for the settling time on our own clock.

A listing is also what follows a queue that overflowed, a mount that came back, and what takes the place of events where
there are none: on file systems that others write to, and in folders for which the kernel has no watches left.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from inotify_simple import Event as KernelEvent
from inotify_simple import flags

from coldchain.collect.event_names import KINDS, TOLD_ANYWAY
from coldchain.collect.mounts import filesystem_type, is_remote
from coldchain.collect.tree_memory import CLOSED, FOLDER, UNSEEN, TreeMemory, fingerprint
from coldchain.collect.tree_watches import AWAY, TreeWatches, is_inside
from coldchain.errors import printable
from coldchain.formats.beneath import folder_beneath

SETTLE_SECONDS = 2.0
POLL_SECONDS = 5.0
ROOT_SECONDS = 1.0
_VISITING_SECONDS = 0.1
_MOVE_SECONDS = 0.5
"""How long a move's second half is waited for. The kernel tells both at once."""

_ARRIVED, _GONE = "arrived", "gone"
_STRUCTURE = int(flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO | flags.ONLYDIR)
_SELF = int(flags.DELETE_SELF | flags.MOVE_SELF)
_CONTENT = int(flags.CLOSE_WRITE | flags.MODIFY)
_READING = int(flags.OPEN | flags.ACCESS | flags.CLOSE_NOWRITE)


@dataclass(frozen=True, slots=True)
class FileEvent:
    """Something that happened.

    Parameters
    ----------
    mask : one kind of `event_names`, with `flags.ISDIR` where it is a folder's.
    path : to what, relative to the root; "" for the root itself.
    old_path : on MOVED_TO, where it was, relative to the root; None where it came from outside, or nobody knows.
    cookie : what a move's two halves share, else 0.
    is_found : a listing has shown it, not the kernel.
    """

    mask: int
    path: str
    old_path: str | None = None
    cookie: int = 0
    is_found: bool = False


@dataclass(frozen=True, slots=True)
class _Visit:
    folder: str
    tells: bool
    """Whether what is new is told, or only taken note of (what was there at the start)."""
    goes_deep: bool = False
    """Whether known folders in it are visited too."""
    keeps: bool = False
    """Whether what is missing stays known and is not told (another file system was mounted here, or is no more)."""


@dataclass(slots=True)
class _Leaving:
    place: str
    path: str
    settling: dict[str, tuple[int, float]]
    since: float


class EventTree:
    """Watches a file, a folder, or a folder with all beneath it. No thread: the owner calls `poll`, then `close`.

    Parameters
    ----------
    root : need not exist yet, and may go and come back.
    recursive : whether folders in it are watched too. Links are not followed, but the root may be one.
    events : the mask of the kinds that are to be told.
    initial : tell what is there at the start as if it had just come.
    enters : whether a folder (relative to the root) is to be watched.
    notice : called with what a person should read, once for each trouble.
    """

    def __init__(
        self,
        root: Path,
        *,
        recursive: bool,
        events: int,
        notice: Callable[[str], None],
        initial: bool = False,
        enters: Callable[[str], bool] = lambda _: True,
        settle_seconds: float = SETTLE_SECONDS,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self.root = root
        self._recursive = recursive
        self._wanted = events
        self._notice = notice
        self._tells_first = initial
        self._enters = enters
        self._settle_seconds = settle_seconds
        self._poll_seconds = poll_seconds
        self._events: list[FileEvent] = []
        self._memory = TreeMemory()
        self._to_visit: deque[_Visit] = deque()
        self._told: set[tuple[str, str]] = set()
        self._visited: set[str] = set()
        self._settling: dict[str, tuple[int, float]] = {}
        self._leaving: dict[int, _Leaving] = {}
        self._unmounted: set[str] = set()
        self._kept_out: set[str] = set()
        self._root_identity: tuple[int, int] | None = None
        self._root_device: int | None = None
        self._root_is_folder = True
        self._root_print = UNSEEN
        self._is_polled = False
        self._is_first = True
        self._rescan = False
        self._next_look = float("-inf")
        self._next_poll = float("-inf")
        self._said: set[str] = set()
        self._watches = TreeWatches(self._say)

    # -- what the owner calls ---------------------------------------------------------------------------------------

    def fileno(self) -> int | None:
        """The descriptor that can be read when there are events; None where there is none."""
        return self._watches.fileno()

    @property
    def is_busy(self) -> bool:
        """Whether `poll` has work to do at once."""
        return bool(self._to_visit) or (self._rescan and self._root_is_folder)

    def poll(self, now: float) -> list[FileEvent]:
        """What has happened since the last call, in its order. `now` is the owner's monotonic clock. Does not wait."""
        self._read_events(now)
        if now >= self._next_look:
            self._next_look = now + ROOT_SECONDS
            self._look_at_root()
            self._look_at_unmounted()
        if now >= self._next_poll:
            self._next_poll = now + self._poll_seconds
            self._poll_unwatched()
        if self._rescan and self._root_is_folder and not self._to_visit:
            self._rescan = False
            self._to_visit.append(_Visit("", tells=True, goes_deep=True))
        self._visit_for(_VISITING_SECONDS, now)
        self._tell_settled(now)
        events, self._events = self._events, []
        return events

    def change(self, events: int) -> None:
        """Tell other kinds from now on, and ask `enters` again, without missing anything between."""
        if events != self._wanted:
            self._wanted = events
            self._rescan = True
        for folder in self._watches.paths():
            if not self._enters(folder):
                self._watches.remove_inside(folder)
                self._memory.forget_inside(folder)
                self._kept_out.add(folder)
        for folder in [folder for folder in self._kept_out if self._enters(folder)]:
            self._kept_out.discard(folder)
            # What it holds has not just come.
            self._to_visit.append(_Visit(folder, tells=False))

    def close(self) -> None:
        """Stop watching."""
        self._watches.close()

    # -- the root ---------------------------------------------------------------------------------------------------

    def _look_at_root(self) -> None:
        """Whether the root is there, and still the same."""
        try:
            status = self.root.stat()
        except OSError as error:
            self._root_identity = None
            self._is_first = False  # what appears later has not been there at the start
            self._say(f"it cannot be watched ({error.strerror}). It is waited for")
            return
        identity = (status.st_dev, status.st_ino)
        self._root_is_folder = stat.S_ISDIR(status.st_mode)
        if identity == self._root_identity:
            self._compare_file_root(status)
            return
        self._watches.remove_inside("")
        self._root_identity = identity
        is_other_mount = self._root_device not in {None, status.st_dev}
        self._root_device = status.st_dev
        self._is_polled = not self._watches.is_there or self._is_remote()
        tells = not self._is_first or self._tells_first
        self._is_first = False
        self._said.clear()
        if self._root_is_folder:
            self._to_visit.append(_Visit("", tells=tells, goes_deep=True, keeps=is_other_mount))
        else:
            self._root_print = fingerprint(status)
            self._watch_file_root()
            if tells:
                self._tell_found("", status)

    def _is_remote(self) -> bool:
        kind = filesystem_type(self.root)
        if is_remote(kind):
            self._say(f"{kind} does not tell what others do there; it is looked at every {self._poll_seconds:g} s")
        return is_remote(kind)

    def _watch_file_root(self) -> None:
        try:
            descriptor = os.open(self.root, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            self._say(f"it cannot be watched ({error.strerror})")
            return
        try:
            self._watches.add("", descriptor, self._wanted & KINDS | _SELF)
        finally:
            os.close(descriptor)

    def _compare_file_root(self, status: os.stat_result) -> None:
        """A file that is itself the root, where the kernel tells nothing of it, or may have lost its word."""
        is_told = not (self._is_polled or self._rescan or "" in self._watches.unwatched)
        if self._root_is_folder or is_told:
            return
        self._watch_file_root()
        self._rescan = False
        value = fingerprint(status)
        if value != self._root_print:
            self._root_print = value
            self._tell(flags.MODIFY, "", is_found=True)
            self._settle("", value, time.monotonic())

    def _lose_root(self, *, is_moved: bool) -> None:
        """What the root's path leads to is no longer what is watched."""
        if is_moved:  # else the kernel drops the watch, and tells it
            self._watches.remove_inside("")
        self._memory.forget_inside("")
        self._root_identity = None
        self._next_look = float("-inf")

    def _look_at_unmounted(self) -> None:
        """Folders below the root whose mount went away: whether something is mounted there again."""
        for folder in list(self._unmounted):
            try:
                back = os.lstat(self._absolute(folder)).st_dev != os.lstat(self._absolute(_above(folder))).st_dev
            except OSError:
                continue
            if back:
                self._unmounted.discard(folder)
                self._to_visit.append(_Visit(folder, tells=True, goes_deep=True, keeps=True))

    def _poll_unwatched(self) -> None:
        if self._root_identity is None or self._to_visit or not self._root_is_folder:
            return
        if self._is_polled:
            self._rescan = True
            return
        for folder in self._watches.unwatched:
            self._to_visit.append(_Visit(folder, tells=True))

    # -- visits -----------------------------------------------------------------------------------------------------

    def _visit_for(self, seconds: float, now: float) -> None:
        until = time.monotonic() + seconds
        while self._to_visit and time.monotonic() < until:
            self._visit(self._to_visit.popleft(), now)

    def _visit(self, visit: _Visit, now: float) -> None:
        """Watch a folder, then list it."""
        folder = visit.folder
        if folder in self._unmounted:
            return
        if not self._enters(folder):
            self._kept_out.add(folder)
            return
        try:
            with folder_beneath(self.root, folder or ".") as descriptor:
                self._visited.update(_with_all_above(folder))
                self._watches.add(folder, descriptor, self._wanted & KINDS | _SELF | _STRUCTURE)
                with os.scandir(descriptor) as entries:
                    listed = dict(_statuses(entries))
        except OSError as error:
            self._note_unvisited(folder, error)
            return
        known = self._memory.of(folder)
        for name, status in listed.items():
            self._compare(visit, name, known.get(name), status, now)
        for name in () if visit.keeps else known.keys() - listed.keys():
            self._miss(_join(folder, name), known[name], tells=visit.tells)

    def _compare(self, visit: _Visit, name: str, before: int | None, status: os.stat_result, now: float) -> None:
        path = _join(visit.folder, name)
        is_folder = stat.S_ISDIR(status.st_mode)
        value = FOLDER if is_folder else fingerprint(status)
        is_new = before is None or (before == FOLDER) != is_folder
        self._memory.set(path, value)
        if is_folder and self._recursive and (is_new or visit.goes_deep):
            self._to_visit.append(_Visit(path, visit.tells, visit.goes_deep, visit.keeps))
        if not visit.tells:
            return
        if is_new:
            self._told.add((_ARRIVED, path))
            self._tell_found(path, status, now)
        elif before not in {value, CLOSED} and stat.S_ISREG(status.st_mode):
            if before != UNSEEN:
                self._tell(flags.MODIFY, path, is_found=True)
            self._settle(path, value, now)

    def _tell_found(self, path: str, status: os.stat_result, now: float | None = None) -> None:
        flag = flags.ISDIR if stat.S_ISDIR(status.st_mode) else 0
        self._events.append(FileEvent(int(flags.CREATE | flag), path, is_found=True))
        if stat.S_ISREG(status.st_mode):
            self._settle(path, fingerprint(status), time.monotonic() if now is None else now)

    def _miss(self, path: str, before: int, *, tells: bool) -> None:
        """A name was known and is not there any more."""
        if tells:
            self._told.add((_GONE, path))
            self._tell(flags.DELETE | (flags.ISDIR if before == FOLDER else 0), path, is_found=True)
        self._part_with(path)
        if before == FOLDER:
            self._watches.remove_inside(path)

    def _note_unvisited(self, folder: str, error: OSError) -> None:
        if isinstance(error, FileNotFoundError | NotADirectoryError) or error.errno == errno.ELOOP:
            # Gone, or something else has taken its place: the folder above tells.
            self._watches.unwatched.discard(folder)
        else:
            self._say(f"{folder or 'it'} cannot be read ({error.strerror}). Give this account permission")

    # -- settling ---------------------------------------------------------------------------------------------------

    def _settle(self, path: str, value: int, now: float) -> None:
        """Wait until it stands still, unless that is being waited for."""
        if self._settling.get(path, (UNSEEN, 0.0))[0] != value:
            self._settling[path] = (value, now)

    def _tell_settled(self, now: float) -> None:
        """Closed, as far as can be told: it stands unchanged, and the kernel said nothing."""
        due = [path for path, (_, since) in self._settling.items() if now - since >= self._settle_seconds]
        for path in due:
            before, _ = self._settling.pop(path)
            try:
                status = os.lstat(self._absolute(path)) if path else self.root.stat()
            except OSError:
                continue  # gone
            value = fingerprint(status)
            if value != before:
                self._settling[path] = (value, now)
                continue
            self._tell(flags.CLOSE_WRITE, path, is_found=True)
            if path:
                self._memory.set(path, value)

    # -- the kernel's events ----------------------------------------------------------------------------------------

    def _read_events(self, now: float) -> None:
        """All that the kernel has told by now; then what listings found before is no longer remembered."""
        for event in self._watches.read():
            self._handle(event, now)
        self._told.clear()
        self._visited.clear()
        for cookie, leaving in list(self._leaving.items()):
            if now - leaving.since > _MOVE_SECONDS:
                del self._leaving[cookie]
                self._watches.remove_inside(leaving.place)
                self._memory.forget_inside(leaving.place)

    def _handle(self, event: KernelEvent, now: float) -> None:
        if event.mask & flags.Q_OVERFLOW:
            self._tell(flags.Q_OVERFLOW, "")
            self._rescan = True
            return
        folder = self._watches.path_of(event.wd)
        if folder is None or (folder.startswith(AWAY) and not event.mask & flags.IGNORED):
            return
        if event.mask & TOLD_ANYWAY:
            self._handle_end_of_watch(event, folder)
        elif not event.name:
            self._handle_self(event, folder)
        else:
            self._handle_name(event, _join(folder, event.name), now)

    def _handle_end_of_watch(self, event: KernelEvent, folder: str) -> None:
        if event.mask & flags.UNMOUNT:
            self._tell(flags.UNMOUNT, folder)
            if folder and not any(above in self._unmounted for above in _with_all_above(folder)):
                self._unmounted = {path for path in self._unmounted if not is_inside(path, folder)} | {folder}
            return
        self._watches.forget(event.wd)
        if folder.startswith(AWAY):
            return
        self._tell(flags.IGNORED, folder)
        if folder == "":
            self._root_identity = None
            self._next_look = float("-inf")

    def _handle_self(self, event: KernelEvent, folder: str) -> None:
        if event.mask & flags.ISDIR and event.mask & _READING and folder in self._visited:
            return  # that was us
        self._tell(event.mask, folder)
        if event.mask & _SELF and folder == "":
            self._lose_root(is_moved=bool(event.mask & flags.MOVE_SELF))
        elif event.mask & _CONTENT:
            self._note_content(event, folder, time.monotonic())

    def _handle_name(self, event: KernelEvent, path: str, now: float) -> None:
        if event.mask & flags.MOVED_TO:
            self._handle_moved_to(event, path, now)
        elif event.mask & flags.MOVED_FROM:
            self._handle_moved_from(event, path, now)
        elif event.mask & flags.CREATE:
            self._handle_create(event, path)
        elif event.mask & flags.DELETE:
            self._part_with(path)  # the watches of a folder are dropped by the kernel, once it has told their end
            if not self._was_told(_GONE, path):
                self._tell(event.mask, path)
        elif not (event.mask & flags.ISDIR and event.mask & _READING and path in self._visited):
            self._tell(event.mask, path)
            if event.mask & _CONTENT:
                self._note_content(event, path, now)

    def _handle_create(self, event: KernelEvent, path: str) -> None:
        if self._was_told(_ARRIVED, path):
            return
        self._tell(event.mask, path)
        if event.mask & flags.ISDIR:
            self._enter(path)
        else:
            self._memory.set(path, UNSEEN)

    def _handle_moved_from(self, event: KernelEvent, path: str, now: float) -> None:
        settling = {inner: self._settling.pop(inner) for inner in list(self._settling) if is_inside(inner, path)}
        place = f"{AWAY}{event.cookie}"
        self._leaving[event.cookie] = _Leaving(place, path, settling, now)
        if event.mask & flags.ISDIR:
            self._memory.rename_inside(path, place)
            self._watches.rename_inside(path, place)
        self._memory.forget(path)
        if not self._was_told(_GONE, path):
            self._tell(event.mask, path, cookie=event.cookie)

    def _handle_moved_to(self, event: KernelEvent, path: str, now: float) -> None:
        leaving = self._leaving.pop(event.cookie, None)
        if not self._was_told(_ARRIVED, path):
            self._part_with(path)  # what it replaced
            self._tell(event.mask, path, leaving.path if leaving else None, event.cookie)
        if not event.mask & flags.ISDIR:
            self._memory.set(path, self._fingerprint_now(path))
        elif leaving is None:
            self._enter(path)
        else:
            self._memory.forget_inside(path)
            self._memory.rename_inside(leaving.place, path)
            self._watches.rename_inside(leaving.place, path)
            self._memory.set(path, FOLDER)
            if self._recursive:
                self._to_visit.appendleft(_Visit(path, tells=True, goes_deep=True))
        if leaving is not None:
            for inner, (value, _) in leaving.settling.items():
                self._settling[path + inner[len(leaving.path) :]] = (value, now)

    def _note_content(self, event: KernelEvent, path: str, now: float) -> None:
        if event.mask & flags.CLOSE_WRITE:
            self._settling.pop(path, None)
            if path:
                self._memory.set(path, self._fingerprint_now(path))
            else:
                self._root_print = self._fingerprint_now(path)
        elif path in self._settling:
            self._settling[path] = (self._settling[path][0], now)

    def _enter(self, path: str) -> None:
        """A folder is new here: whatever was known under its name was another."""
        self._memory.forget_inside(path)
        self._memory.set(path, FOLDER)
        if self._recursive:
            # Ahead of all others: what was just made is what somebody is waiting for.
            self._to_visit.appendleft(_Visit(path, tells=True))

    def _part_with(self, path: str) -> None:
        """A name is gone."""
        self._memory.forget(path)
        self._settling.pop(path, None)
        self._told.discard((_ARRIVED, path))

    def _fingerprint_now(self, path: str) -> int:
        try:
            status = os.lstat(self._absolute(path)) if path else self.root.stat()
        except OSError:
            return CLOSED  # gone from here since, perhaps with its folder
        return FOLDER if stat.S_ISDIR(status.st_mode) else fingerprint(status)

    def _was_told(self, what: str, path: str) -> bool:
        """Whether a listing has told this already; once."""
        if (what, path) in self._told:
            self._told.remove((what, path))
            return True
        return False

    def _tell(
        self, mask: int, path: str, old_path: str | None = None, cookie: int = 0, *, is_found: bool = False
    ) -> None:
        if mask & self._wanted & (KINDS | TOLD_ANYWAY):
            shown = int(mask) & (KINDS | TOLD_ANYWAY | int(flags.ISDIR))
            self._events.append(FileEvent(shown, path, old_path, cookie, is_found))

    # -- words ------------------------------------------------------------------------------------------------------

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            self._notice(f"{printable(str(self.root))}: {printable(message)}")

    def _absolute(self, path: str) -> str:
        return f"{self.root}/{path}" if path else str(self.root)


def _statuses(entries: Iterator[os.DirEntry[str]]) -> Iterator[tuple[str, os.stat_result]]:
    for entry in entries:
        try:
            yield entry.name, entry.stat(follow_symlinks=False)
        except OSError:  # gone since it was listed
            continue


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _above(path: str) -> str:
    return path.rpartition("/")[0]


def _with_all_above(path: str) -> Iterator[str]:
    yield path
    while path:
        path = _above(path)
        yield path
