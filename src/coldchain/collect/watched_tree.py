"""What the parts of a watched tree share."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from coldchain.collect.file_event import Report
from coldchain.collect.folder_stamps import FolderStamps
from coldchain.collect.mounts import filesystem_type, is_remote, keeps_folder_times
from coldchain.collect.notice import Voice
from coldchain.collect.settling import Settling
from coldchain.collect.tree_memory import CLOSED, FOLDER, TreeMemory, fingerprint
from coldchain.collect.tree_watches import TreeWatches


@dataclass(slots=True)
class WatchedTree:
    """A root with what is known, watched and to be told of it.

    Parameters
    ----------
    recursive : whether folders in it are entered.
    enters : whether a folder (relative to the root) is to be entered.
    settling : files that may still be written to; None where the owner waits for them itself.
    mount_points : folders on which another file system is mounted. unmounted : those where it is no more.
    devices : those that were met. remote : by folder, the types of file systems on which others may write untold.
    kept_out : folders that are not entered.
    """

    root: Path
    recursive: bool
    enters: Callable[[str], bool]
    voice: Voice
    report: Report
    watches: TreeWatches
    settling: Settling | None
    stamps: FolderStamps
    memory: TreeMemory = field(default_factory=TreeMemory)
    mount_points: set[str] = field(default_factory=set)
    unmounted: set[str] = field(default_factory=set)
    devices: set[int] = field(default_factory=set)
    remote: dict[str, str] = field(default_factory=dict)
    kept_out: set[str] = field(default_factory=set)

    def meet_device(self, folder: str, device: int) -> None:
        """A folder lies on this device: find out what its file system tells."""
        if device in self.devices:
            return
        self.devices.add(device)
        kind = filesystem_type(Path(self.absolute(folder)))
        if keeps_folder_times(kind):
            self.stamps.believe(device)
        if is_remote(kind):
            self.remote[folder] = kind

    def forget_devices(self) -> None:
        """Something was mounted or unmounted: find out anew."""
        self.devices.clear()
        self.remote.clear()
        self.stamps.forget_devices()

    def forget_inside(self, folder: str) -> None:
        """Nothing is known of what a folder holds."""
        self.stamps.forget([folder, *self.memory.forget_inside(folder)])

    def part_with(self, path: str) -> None:
        """A name is gone."""
        self.stamps.forget([path, *self.memory.forget(path)])
        self.report.unlearn_arrival(path)
        if self.settling is not None:
            self.settling.forget(path)

    def settle(self, path: str, status: os.stat_result, now: float) -> None:
        """Tell a file that a listing has shown as closed once it stands still."""
        if self.settling is not None and stat.S_ISREG(status.st_mode):
            self.settling.wait(path, fingerprint(status), now)

    def fingerprint_now(self, path: str) -> int:
        """How a name stands; CLOSED where it is gone from here since, perhaps with its folder."""
        try:
            status = os.lstat(self.absolute(path)) if path else self.root.stat()
        except OSError:
            return CLOSED
        return FOLDER if stat.S_ISDIR(status.st_mode) else fingerprint(status)

    def absolute(self, path: str) -> str:
        """A path of the tree as the system knows it."""
        return f"{self.root}/{path}" if path else str(self.root)
