"""Files that are there already, taken in at one go: each must stand still first, and be whole as its structure says."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from coldchain.collect.completeness import CompletenessTracker, Timing, Verdict
from coldchain.collect.content import identity_of
from coldchain.collect.intake import Intake
from coldchain.collect.layout import taking_order
from coldchain.collect.watcher import FolderWatcher, Sighting
from coldchain.errors import printable

_LOOK_SECONDS = 0.2
_AT_ONCE = 500


@dataclass(slots=True)
class TakenFiles:
    """What became of files. `faults` says, in a sentence each, which could not be taken and why."""

    taken: int = 0
    known: int = 0
    damaged: int = 0
    unreadable: int = 0
    changing: int = 0
    faults: list[str] = field(default_factory=list)

    def count(self, verdict: Verdict, path: str) -> None:
        """One file more."""
        if verdict is Verdict.TAKEN:
            self.taken += 1
        elif verdict is Verdict.DAMAGED:
            self.damaged += 1
            self.faults.append(f"{printable(path)} is damaged; it is kept, and the page says what is wrong with it")
        elif verdict is Verdict.UNREADABLE:
            self.unreadable += 1
            self.faults.append(f"{printable(path)} cannot be read")


class RootPass:
    """The files of one root that are to be taken, as they are named.

    Parameters
    ----------
    root : what their paths are relative to.
    intake : where whole files go.
    timing : how long they must stand still; with `patience_seconds` as long, a file that is cut is damaged at once.
    told : counts what becomes of them.
    clock : a monotonic clock in seconds.
    """

    def __init__(
        self,
        root: Path,
        intake: Intake,
        *,
        timing: Timing,
        told: TakenFiles,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._intake = intake
        self._tracker = CompletenessTracker(timing)
        self._told = told
        self._clock = clock

    @property
    def pending(self) -> int:
        """How many are neither taken nor given up."""
        return self._tracker.pending

    def look(self, path: str) -> Sighting | None:
        """The file as it stands now, no link followed on the way; None where there is none, or nobody can tell."""
        try:
            found = identity_of(self._root, path)
        except OSError:
            return None
        return None if found is None else Sighting(path, found.size_bytes, found.modified_ns, closed=False)

    def see(self, sightings: Iterable[Sighting]) -> None:
        """These are to be taken, but for those that were before, as they are. Raises CatalogError."""
        new = {each.path: each for each in sightings if not self._tracker.is_pending(each.path)}
        paths = list(new)
        for start in range(0, len(paths), _AT_ONCE):
            some = {path: (new[path].size_bytes, new[path].modified_ns) for path in paths[start : start + _AT_ONCE]}
            known = self._intake.known_among(some)
            self._told.known += len(known)
            for path in some.keys() - known:
                self._tracker.see(new[path], self._clock())

    def take_due(self, *, give_up: bool, advance: Callable[[str], None] = lambda _path: None) -> Counter[Verdict]:
        """Take what has stood still for long enough, references and metadata first; by verdict, how many.

        With `give_up`, what cannot be read or is gone is not waited for. Raises CatalogError.
        """
        for path in self._tracker.to_look_at(self._clock()):
            seen = self.look(path)
            if seen is None:
                self._tracker.forget(path)
            else:
                self._tracker.see(seen, self._clock())
        verdicts: Counter[Verdict] = Counter()
        due = sorted(self._tracker.due(self._clock()), key=lambda examination: taking_order(examination.path))
        for examination, verdict in self._intake.take_all(due):
            self._tracker.judge(examination, verdict, self._clock())
            if verdict is Verdict.UNREADABLE and give_up:
                self._tracker.forget(examination.path)
            if verdict is not Verdict.UNREADABLE or give_up:
                self._told.count(verdict, examination.path)
            verdicts[verdict] += 1
            advance(examination.path)
        return verdicts

    def leave(self) -> None:
        """Give up what is not taken: it still changes."""
        for path in list(self._tracker.paths):
            self._tracker.forget(path)
            self._told.changing += 1
            self._told.faults.append(f"{printable(path)} is still being written; import again when it is whole")


def take_all(
    passes: Iterable[RootPass],
    *,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    advance: Callable[[str], None] = lambda _path: None,
) -> None:
    """Take all files of these roots; whatever has not stood still by `seconds` after the last was taken is left.

    Raises CatalogError.
    """
    roots = list(passes)
    until = clock() + seconds
    while any(root.pending for root in roots):
        if any(sum(root.take_due(give_up=True, advance=advance).values()) for root in roots):
            until = clock() + seconds
        elif clock() > until:
            break
        else:
            sleep(_LOOK_SECONDS)
    for root in roots:
        root.leave()


def list_folder(root: Path, *, clock: Callable[[], float] = time.monotonic) -> tuple[list[Sighting], list[str]]:
    """All files below a folder that are to be taken, and in words what is passed over and why."""
    watcher = FolderWatcher(root, use_inotify=False)
    sightings: list[Sighting] = []
    notices: list[str] = []
    try:
        while watcher.finished_scans == 0 or watcher.is_scanning:
            found = watcher.poll(clock(), 0.0)
            sightings.extend(found.sightings)
            notices.extend(notice.message for notice in found.notices)
    finally:
        watcher.close()
    return sightings, notices
