"""Whether new work may be started: not right after an outage, not while the results' disk is as full as it was,
and seldom while nothing can be computed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

OUTAGE_SECONDS = 20.0
FULL_SECONDS = 600.0
BROKEN_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Hold:
    """No new work before `until` (on our own clock), or until more than `free_bytes` are free, where that was why."""

    until: float
    free_bytes: int | None = None


def hold_for_outage(now: float) -> Hold:
    """A pause after a failure that is not the exposure's."""
    return Hold(now + OUTAGE_SECONDS)


def hold_for_mending(now: float) -> Hold:
    """A pause while this host's installation cannot compute: each try is a line of the log, until somebody mends it."""
    return Hold(now + BROKEN_SECONDS)


def hold_for_room(now: float, free_bytes: int) -> Hold:
    """A pause until the disk has more room than when it was full. A quota may hide the room: it is tried at times."""
    return Hold(now + FULL_SECONDS, free_bytes)


def is_over(hold: Hold, now: float, free_bytes: int) -> bool:
    """Whether work may go on."""
    return now >= hold.until or (hold.free_bytes is not None and free_bytes > hold.free_bytes)


def free_bytes(folder: Path) -> int:
    """The bytes that this account may still write below a folder; 0 where the folder is away."""
    try:
        status = os.statvfs(folder)
    except OSError:
        return 0
    return status.f_bavail * status.f_frsize
