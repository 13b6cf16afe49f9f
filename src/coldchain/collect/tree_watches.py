"""The kernel's watches of one tree, and which path each of them is for."""

from __future__ import annotations

import errno

from inotify_simple import Event, INotify

from coldchain.collect.notice import Voice
from coldchain.model.events import Severity

AWAY = "\0"
"""What begins the path of a folder that has left its place, until it is known where it went."""

_WATCH_REMEDY = (
    "Raise the limit: sysctl fs.inotify.max_user_watches=1048576 (and in /etc/sysctl.d to keep it). "
    "Until then what is not watched is looked at every few seconds"
)
_INSTANCE_REMEDY = (
    "Raise the limit: sysctl fs.inotify.max_user_instances=1024 (and in /etc/sysctl.d to keep it), and start again. "
    "Until then everything is looked at every few seconds"
)


class TreeWatches:
    """inotify watches by path; `unwatched` are the folders for which the kernel gave none.

    Paths are relative to the tree's root, "" is the root. `voice` says what a person should read; where watches are not
    `wanted` there are none.
    """

    def __init__(self, voice: Voice, *, wanted: bool = True) -> None:
        self._voice = voice
        self._path_of: dict[int, str] = {}
        self._watch_of: dict[str, int] = {}
        self.unwatched: set[str] = set()
        self._inotify: INotify | None = None
        if not wanted:
            return
        try:
            self._inotify = INotify()
        except OSError as error:
            found = f"inotify is not to be had ({error.strerror})"
            voice.say(Severity.WARNING, "watch.unavailable", "", found, _INSTANCE_REMEDY)

    @property
    def is_there(self) -> bool:
        """Whether there can be watches at all."""
        return self._inotify is not None

    def fileno(self) -> int | None:
        """The descriptor that can be read when there are events."""
        return None if self._inotify is None else self._inotify.fileno()

    def read(self) -> list[Event]:
        """All events that the kernel has told by now."""
        return [] if self._inotify is None else self._inotify.read(timeout=0)

    def paths(self) -> list[str]:
        """What is watched and is in its place."""
        return [path for path in self._watch_of if not path.startswith(AWAY)]

    def has(self, path: str) -> bool:
        """Whether there is a watch of it."""
        return path in self._watch_of

    def path_of(self, watch: int) -> str | None:
        """What a watch is for; None where it is one no more."""
        return self._path_of.get(watch)

    def add(self, path: str, descriptor: int, mask: int) -> None:
        """Watch what is open; where the kernel refuses, it is said and `path` is among the `unwatched`."""
        if self._inotify is None:
            return
        try:
            # inotify takes paths only, and follows links on the way; this path leads to what is open and nowhere else.
            watch = self._inotify.add_watch(f"/proc/self/fd/{descriptor}", mask)
        except OSError as error:
            self.unwatched.add(path)
            if error.errno == errno.ENOSPC:
                found = "not every folder can be watched: fs.inotify.max_user_watches is reached"
                self._voice.say(Severity.WARNING, "watch.limit", "", found, _WATCH_REMEDY)
            else:
                found = f"cannot be watched ({error.strerror})"
                self._voice.say(Severity.WARNING, "watch.refused", path, found, "It is looked at every few seconds")
            return
        self.unwatched.discard(path)
        # An earlier watch of this path is that of a deleted folder: the kernel has more to tell of it, and drops it.
        self.forget(watch)
        self._path_of[watch] = path
        self._watch_of[path] = watch

    def forget(self, watch: int) -> None:
        """The kernel has dropped it."""
        path = self._path_of.pop(watch, None)
        if path is not None and self._watch_of.get(path) == watch:
            del self._watch_of[path]

    def remove_inside(self, folder: str) -> None:
        """Watch a folder, and what is beneath it, no more."""
        for path in [path for path in self._watch_of if is_inside(path, folder)]:
            self._remove(self._watch_of[path])
        self.unwatched = {path for path in self.unwatched if not is_inside(path, folder)}

    def rename_inside(self, old: str, new: str) -> None:
        """A folder has another path now, and so has what is beneath it."""
        for path in [path for path in self._watch_of if is_inside(path, old)]:
            watch = self._watch_of.pop(path)
            self._watch_of[new + path[len(old) :]] = watch
            self._path_of[watch] = new + path[len(old) :]

    def close(self) -> None:
        """Stop watching. Calling it again does nothing."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    def _remove(self, watch: int) -> None:
        self.forget(watch)
        if self._inotify is None:
            return
        try:
            self._inotify.rm_watch(watch)
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: the kernel had dropped it with its folder
                raise


def is_inside(path: str, folder: str) -> bool:
    """Whether a path is that folder or beneath it; everything but what has left its place is beneath the root."""
    return path == folder or path.startswith(folder + "/") or (folder == "" and not path.startswith(AWAY))
