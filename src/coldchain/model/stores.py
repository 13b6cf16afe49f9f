"""Stores as they were when they were last looked at, and how full they were over time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from coldchain.model.policy import Tier


@dataclass(frozen=True, slots=True)
class StoreState:
    """A store as one site knows it.

    `identity` is what it bears, `is_marked` whether it was seen to bear it. `trouble` is "" while it is well, else why
    not, since `trouble_since`. Sizes are None where the store does not tell them (an object store has no end).
    `backlog_*` is what is still wanted on it; `bytes_per_second` how fast copies were made of late, None: none were.
    """

    name: str
    site: str
    tier: Tier
    url: str
    identity: UUID
    is_marked: bool
    about: str
    seen_at: datetime | None
    trouble: str
    trouble_since: datetime | None
    total_bytes: int | None
    free_bytes: int | None
    free_files: int | None
    backlog_bytes: int
    backlog_files: int
    bytes_per_second: float | None

    @property
    def backlog_hours(self) -> float | None:
        """How long the backlog takes at the pace of late; None where that is not known, as while it is in trouble."""
        if not self.backlog_bytes:
            return 0.0
        if self.trouble:
            return None
        return self.backlog_bytes / self.bytes_per_second / 3600 if self.bytes_per_second else None

    @property
    def used_share(self) -> float | None:
        """How much of it is in use, from 0 to 1; None where it does not tell."""
        if not self.total_bytes or self.free_bytes is None:
            return None
        return 1 - self.free_bytes / self.total_bytes


@dataclass(frozen=True, slots=True)
class StoreLook:
    """What one look at a store gave, for the catalog. As in `StoreState`; sizes None also where it is away."""

    trouble: str
    about: str = ""
    total_bytes: int | None = None
    free_bytes: int | None = None
    free_files: int | None = None
    bytes_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class StoreSample:
    """How full a store was at one time, and how many bytes had come to be wanted on it since the sample before."""

    store: str
    at: datetime
    total_bytes: int | None
    free_bytes: int | None
    arrived_bytes: int
    backlog_bytes: int


class StoreSubject(StrEnum):
    """What an alert of a store is about."""

    FILLED = "filled"  # more of it is in use than the facility wants
    FULL_SOON = "full soon"  # it is foretold to be full within the days that the facility wants to have
    LATE = "late"  # copies are wanted on it for longer than their policy allows


@dataclass(frozen=True, slots=True)
class StoreAlert:
    """What was said of a store, open while `ended_at` is None."""

    id: UUID
    site: str
    store: str
    subject: StoreSubject
    words: str
    raised_at: datetime
    ended_at: datetime | None
