"""Which files there are under a folder, and which of them were just closed.

inotify is a hint, the scan is the truth: both always run (`event_tree`). Here what happens in the tree becomes
sightings of regular files, for the intake to take.

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
import os
import select
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from inotify_simple import flags

from coldchain.collect.event_tree import FULL_SECONDS, EventTree
from coldchain.collect.file_event import FileEvent
from coldchain.collect.folder_stamps import Stamp
from coldchain.collect.notice import Notice, Voice
from coldchain.errors import printable
from coldchain.formats.beneath import lstat_beneath
from coldchain.model.events import Severity

_TEMPORARY_ENDINGS = (".part", ".tmp", "~")
_ARRIVALS = int(flags.CREATE | flags.CLOSE_WRITE | flags.MOVED_TO)
_CLOSED = int(flags.CLOSE_WRITE | flags.MOVED_TO)


class Sighting(NamedTuple):
    """A regular file as it stood at one moment.

    `path` is relative to the watched root, POSIX, `os.fsdecode`d. `modified_ns` is the source's own time stamp: compare
    it for equality only. `closed` means that the kernel said so: it was closed after writing, or moved in whole.
    """

    path: str
    size_bytes: int
    modified_ns: int
    closed: bool


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
    full_seconds : how often a scan lists folders whose time stamps stand still: a file that was written anew in its
        place, with nobody telling of it, waits for that.
    use_inotify : False relies on scanning alone.
    """

    def __init__(
        self,
        root: Path,
        *,
        scan_seconds: float = 30.0,
        full_seconds: float = FULL_SECONDS,
        use_inotify: bool = True,
    ) -> None:
        self.root = root
        self._sightings: dict[str, Sighting] = {}
        self._notices: list[Notice] = []
        self._voice = Voice(root, self._notices.append)
        self._tree = EventTree(
            root,
            recursive=True,
            events=_ARRIVALS,
            notice=self._notices.append,
            initial=True,
            enters=_is_entered,
            settle_seconds=None,
            poll_seconds=scan_seconds,
            scan_seconds=scan_seconds,
            full_seconds=full_seconds,
            polls_whole=False,
            use_inotify=use_inotify,
            moves_are_arrivals=True,
        )

    def trust(self, stamps: Mapping[str, Stamp]) -> None:
        """Before the first poll: all files of these folders were taken, as long as the folders' stamps are these."""
        self._tree.trust(stamps)

    def poll(self, now: float, timeout_seconds: float, *, visits: bool = True) -> Findings:
        """What has been found since the last call; waits at most `timeout_seconds` where there is nothing to do.

        `now` is the owner's monotonic clock. Without `visits` what stands there is not looked for just now. Never
        raises for what lies under the root.
        """
        self._wait(0.0 if visits and self._tree.is_busy else timeout_seconds)
        for event in self._tree.poll(now, visits=visits):
            self._meet(event)
        findings = Findings(tuple(self._sightings.values()), tuple(self._notices))
        self._sightings.clear()
        self._notices.clear()
        return findings

    def look(self, path: str) -> Sighting | None:
        """The file as it stands now; None where it is gone or is no regular file any more.

        Raises OSError where that cannot be told now.
        """
        try:
            status = lstat_beneath(self.root, path)
        except OSError as error:
            if _is_gone(error):
                return None
            raise
        if not stat.S_ISREG(status.st_mode):
            return None
        return Sighting(path, status.st_size, status.st_mtime_ns, closed=False)

    def forget(self, path: str) -> None:
        """Sight this file anew should it be there at the next scan: it was sighted, and was not taken."""
        self._tree.forget(path)

    @property
    def finished_scans(self) -> int:
        """How often the whole tree has been gone through."""
        return self._tree.finished_scans

    @property
    def is_scanning(self) -> bool:
        """Whether folders wait to be visited."""
        return self._tree.is_busy

    def stamp_changes(self) -> dict[str, Stamp | None]:
        """The stamps of folders all of whose files have been sighted, as they came to be known since the last call;
        None for a folder that is gone, or is to be listed again."""
        return self._tree.stamp_changes()

    def give_back_stamps(self, folders: list[str]) -> None:
        """Stamps that were taken and are to be given out again."""
        self._tree.give_back_stamps(folders)

    def folders_in(self, folder: str) -> list[str]:
        """The folders that are known in a folder."""
        return self._tree.folders_in(folder)

    def close(self) -> None:
        """Stop watching. Calling it again does nothing."""
        self._tree.close()

    def _wait(self, timeout_seconds: float) -> None:
        descriptor = self._tree.fileno()
        if descriptor is None:
            time.sleep(timeout_seconds)
            return
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        waiting.poll(timeout_seconds * 1000)

    def _meet(self, event: FileEvent) -> None:
        """Take note of whatever bears this path now."""
        if event.mask & flags.ISDIR or is_passed_over(event.path.rpartition("/")[2], folder=False):
            return
        if event.signature is not None:
            self._sight(Sighting(event.path, *event.signature, closed=False))
            return
        try:
            status = lstat_beneath(self.root, event.path)
        except OSError as error:
            if not _is_gone(error):
                self._voice.say_unreadable(event.path, error)
            self._tree.forget(event.path)  # also where it is gone: perhaps with its mount, and to come back
            return
        if stat.S_ISLNK(status.st_mode):
            self._refuse_link(event.path)
        elif stat.S_ISREG(status.st_mode):
            closed = bool(event.mask & _CLOSED) and not event.is_found
            self._sight(Sighting(event.path, status.st_size, status.st_mtime_ns, closed))

    def _sight(self, sighting: Sighting) -> None:
        earlier = self._sightings.pop(sighting.path, None)
        # A listing knows nothing of closing: it must not take back what the kernel said a moment ago.
        if earlier is not None and earlier._replace(closed=False) == sighting:
            sighting = earlier
        self._sightings[sighting.path] = sighting

    def _refuse_link(self, path: str) -> None:
        root = os.path.realpath(self.root)
        target = os.path.realpath(f"{self.root}/{path}")
        inside = target == root or target.startswith(root + "/")
        where = "to another place in this folder, where its target is taken" if inside else "out of this folder"
        found = f"a symbolic link {where} is not followed ({printable(target)})"
        remedy = "Move or hard-link the file itself here if it belongs to the session"
        self._voice.say(Severity.WARNING, "link.refused", path, found, remedy)


def _is_entered(folder: str) -> bool:
    return not is_passed_over(folder.rpartition("/")[2], folder=True)


def _is_gone(error: OSError) -> bool:
    """Whether nothing is there, or something else, perhaps a link, has taken the place of a folder on the way."""
    return isinstance(error, FileNotFoundError | NotADirectoryError) or error.errno == errno.ELOOP
