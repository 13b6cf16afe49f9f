"""What happened, for the page, the log and whoever asks later."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class Severity(StrEnum):
    """How much an event wants attention."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `kind` is a dotted noun and verb ("file.damaged", "exposure.quarantined")."""

    id: UUID
    at: datetime
    severity: Severity
    kind: str
    message: str
    session_id: UUID | None = None
    exposure_id: UUID | None = None
    file_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """An event for somebody who is not looking at the page: with the names of its session and its instrument, and the
    mail address of the session's owner as it was written down; all "" where it belongs to no session."""

    event: Event
    session_name: str = ""
    instrument_name: str = ""
    owner_mail: str = ""
