"""Which folders need not be listed again, because their time stamps say that no name in them has changed.

A folder's modification and change times are those of the last name that was made, removed or renamed in it. Nobody can
set the change time, so that a folder whose times were put back by a copying program is seen to have changed all the
same. The stamps are compared for equality only, and never with our own clock.

A stamp is believed only after a listing that began when it had stood for `QUIET_SECONDS` on our clock, and came to its
end: file systems keep time in steps (2 s on exFAT), and what is made within the step of the last listing leaves the
stamp as it was.

Not every file system keeps folders' times. On those that are not known to, no stamp is believed until a folder's names
were seen to change together with its stamp; and where names change under a stamp that stands, none ever is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

QUIET_SECONDS = 4.0

Stamp = tuple[int, int]
"""Modification and change time in nanoseconds."""

LIST_ANYWAY: Stamp = (0, 0)
"""The stamp of a folder that is known, and that has to be listed."""


@dataclass(slots=True)
class _Standing:
    stamp: Stamp
    since: float
    is_quiet: bool
    is_own: bool = True
    """Whether this process has listed the folder, and knows its names."""


class FolderStamps:
    """The stamps of a tree's folders by their paths relative to its root. Pure: `now` is the owner's clock."""

    def __init__(self) -> None:
        self._folders: dict[str, _Standing] = {}
        self._settled: set[str] = set()
        self._gone: set[str] = set()
        self._keeps_times: dict[int, bool] = {}

    def believe(self, device: int) -> None:
        """The file system of this device keeps folders' times."""
        self._keeps_times.setdefault(device, True)

    def forget_devices(self) -> None:
        """Devices may have other file systems from now on."""
        self._keeps_times.clear()

    def trust(self, stored: Mapping[str, Stamp]) -> None:
        """Believe in stamps that an earlier process believed in."""
        never = float("-inf")
        for folder, stamp in stored.items():
            if stamp != LIST_ANYWAY:
                self._folders[folder] = _Standing(stamp, never, is_quiet=True, is_own=False)

    def was_listed(self, folder: str) -> bool:
        """Whether this process has listed the folder."""
        standing = self._folders.get(folder)
        return standing is not None and standing.is_own

    def is_unchanged(self, folder: str, stamp: Stamp, device: int) -> bool:
        """Whether a folder that has this stamp now holds the names that it held when it was last listed."""
        if not self._keeps_times.get(device, False):
            return False
        standing = self._folders.get(folder)
        return standing is not None and standing.is_quiet and standing.stamp == stamp

    def note_listing(self, folder: str, stamp: Stamp, now: float, *, device: int, has_changed: bool) -> None:
        """A listing of the folder has come to its end.

        Parameters
        ----------
        stamp : what it was both before the listing and after it; where these differ, that from before.
        now : when the listing began.
        has_changed : whether it showed other names than were known, which the kernel had not told of.
        """
        standing = self._folders.get(folder)
        if standing is not None and standing.is_own and has_changed:
            if standing.stamp != stamp:
                self._keeps_times.setdefault(device, True)
            elif standing.is_quiet:
                self._keeps_times[device] = False
        if standing is None or standing.stamp != stamp:
            self._folders[folder] = _Standing(stamp, now, is_quiet=False)
            self._settled.discard(folder)
            return
        standing.is_own = True
        if not standing.is_quiet and now - standing.since >= QUIET_SECONDS:
            standing.is_quiet = True
            self._settled.add(folder)

    def forget(self, folders: Iterable[str]) -> None:
        """Folders are gone, or what is known of their names is not to be relied on."""
        for folder in folders:
            standing = self._folders.pop(folder, None)
            if standing is not None and standing.is_quiet:
                self._gone.add(folder)
            self._settled.discard(folder)

    def take_changes(self) -> dict[str, Stamp | None]:
        """The stamps that have come to be believed in since the last call; None: one is no longer."""
        changes: dict[str, Stamp | None] = dict.fromkeys(self._gone)
        changes.update((folder, self._folders[folder].stamp) for folder in self._settled)
        self._settled.clear()
        self._gone.clear()
        return changes

    def give_back(self, folders: Iterable[str]) -> None:
        """Stamps that were taken and are to be given out again, where they are still believed in."""
        self._settled.update(folder for folder in folders if folder in self._folders and self._folders[folder].is_quiet)
