"""When a file is whole: pure decisions from sightings and our own clock.

A file is to be examined when the kernel said that it was closed or moved in, or when it stood unchanged for
`settle_seconds` on *our* monotonic clock; its own structure then has the last word (`coldchain.formats.structure`). The
source's time stamps are compared for equality and never with a clock, so skewed clocks and stamps in the future change
nothing.

    seen ── closed, or unchanged for settle_seconds ──> examined ──> taken       journalled; seen again when it changes
      ^                                                     ├──> incomplete  waits for a change; after patience_seconds
      │                                                     │                without one examined for the last time
      └──────────── changed in between ─────────────────────┼──> damaged     journalled; seen again when it changes
                                                            └──> unreadable  tried again every retry_seconds
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from coldchain.collect.watcher import Sighting

Signature = tuple[int, int]
"""Size in bytes and time stamp in nanoseconds: what tells a changed file from an unchanged one."""


class Verdict(StrEnum):
    """What became of an examined file."""

    TAKEN = "taken"  # journalled, or known already
    DAMAGED = "damaged"  # journalled as damaged
    INCOMPLETE = "incomplete"  # its structure ends after the file does: perhaps it still grows
    UNREADABLE = "unreadable"  # could not be read, or the catalog could not be asked: tried again
    CHANGED = "changed"  # is not what was sighted any more
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Timing:
    """Spans on our own clock, in seconds.

    settle_seconds : unchanged for so long, a file that nobody saw closing is examined.
    patience_seconds : unchanged for so long, a file whose structure is not whole is declared damaged.
    growing_seconds : a file that keeps changing for so long without ever being whole is worth one event.
    retry_seconds : the pause before an unreadable file is tried again.
    """

    settle_seconds: float = 5.0
    patience_seconds: float = 300.0
    growing_seconds: float = 3600.0
    retry_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Examination:
    """A path whose turn has come, as it was last sighted. With `last_try`, incomplete means damaged."""

    path: str
    signature: Signature
    last_try: bool


@dataclass(frozen=True, slots=True)
class Growing:
    """A file that has been changing since it was first seen, `seconds` ago, and was never whole."""

    path: str
    seconds: float
    size_bytes: int


@dataclass(slots=True)
class _Pending:
    signature: Signature
    first_seen: float
    changed_at: float
    due_at: float
    looked_at: float
    incomplete: bool = False
    tried: bool = False
    growth_said: bool = False


class CompletenessTracker:
    """Which files are due for examination. Holds no clock and does no I/O: `now` is the caller's monotonic clock."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._pending: dict[str, _Pending] = {}

    @property
    def pending(self) -> int:
        """How many files are neither taken nor damaged yet."""
        return len(self._pending)

    @property
    def untried(self) -> int:
        """How many of them have never been examined."""
        return sum(not file.tried for file in self._pending.values())

    @property
    def paths(self) -> Iterable[str]:
        """Those files."""
        return self._pending.keys()

    @property
    def sizes(self) -> dict[str, int]:
        """Those files with their sizes in bytes as they were last sighted."""
        return {path: file.signature[0] for path, file in self._pending.items()}

    def is_pending(self, path: str) -> bool:
        """Whether a file is neither taken nor damaged yet."""
        return path in self._pending

    def see(self, sighting: Sighting, now: float) -> None:
        """A file as it was sighted at `now`."""
        signature = (sighting.size_bytes, sighting.modified_ns)
        file = self._pending.get(sighting.path)
        if file is None:
            file = _Pending(signature, now, now, now + self._timing.settle_seconds, now)
            self._pending[sighting.path] = file
        elif file.signature != signature:
            file.signature = signature
            file.changed_at = now
            file.due_at = now + self._timing.settle_seconds
            file.incomplete = False
        file.looked_at = now
        if sighting.closed:
            file.due_at = min(file.due_at, now)

    def forget(self, path: str) -> None:
        """The file is gone."""
        self._pending.pop(path, None)

    def due(self, now: float) -> list[Examination]:
        """The files to examine now, those that became due first coming first. They stay due until judged."""
        ready = sorted((file.due_at, path) for path, file in self._pending.items() if file.due_at <= now)
        return [self._examination(path, now) for _, path in ready]

    def judge(self, examination: Examination, verdict: Verdict, now: float) -> None:
        """What the examination found. A file that was sighted with another signature meanwhile starts anew."""
        file = self._pending.get(examination.path)
        if file is None or file.signature != examination.signature:
            return
        file.tried = True
        if verdict in (Verdict.TAKEN, Verdict.DAMAGED, Verdict.GONE):
            del self._pending[examination.path]
        elif verdict is Verdict.CHANGED:
            file.due_at = now + self._timing.settle_seconds
        elif verdict is Verdict.INCOMPLETE:
            file.incomplete = True
            file.due_at = max(file.changed_at + self._timing.patience_seconds, now)
        else:
            file.due_at = now + self._timing.retry_seconds

    def to_look_at(self, now: float) -> list[str]:
        """Pending files that have not been looked at for a while: settling and growing are noticed between scans."""
        pause = self._timing.settle_seconds / 4
        return [path for path, file in self._pending.items() if now - file.looked_at >= pause]

    def growing_too_long(self, now: float) -> list[Growing]:
        """Files that have kept changing, never whole, for `growing_seconds` since first seen; told once each."""
        found = []
        for path, file in self._pending.items():
            grows = file.changed_at > file.first_seen and now - file.changed_at < self._timing.patience_seconds
            if file.growth_said or not grows or now - file.first_seen < self._timing.growing_seconds:
                continue
            file.growth_said = True
            found.append(Growing(path, now - file.first_seen, file.signature[0]))
        return found

    def _examination(self, path: str, now: float) -> Examination:
        file = self._pending[path]
        last_try = file.incomplete and now - file.changed_at >= self._timing.patience_seconds
        return Examination(path, file.signature, last_try)
