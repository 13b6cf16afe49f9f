"""Projects, instruments, sessions and exposures."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from coldchain.model.optics import ExposureMetadata, Optics


class Layout(StrEnum):
    """How a session's files lie."""

    EPU = "epu"
    SERIALEM = "serialem"
    LEGINON = "leginon"
    PLAIN = "plain"


class SessionState(StrEnum):
    """A session's life: files arrive while it is open; released means that its owner has the data."""

    OPEN = "open"
    CLOSED = "closed"
    RELEASED = "released"


class ExposureState(StrEnum):
    """Where an exposure stands in the pipeline."""

    WAITING = "waiting"  # lacks something; `reason` says what
    READY = "ready"  # has work that nobody has taken
    PROCESSING = "processing"
    DONE = "done"
    QUARANTINED = "quarantined"  # failed alone; `reason` says why; retried on request


@dataclass(frozen=True, slots=True)
class Project:
    """What a facility groups sessions by."""

    id: UUID
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Instrument:
    """A microscope with its camera, as facility.toml names it."""

    id: UUID
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class SessionParameters:
    """What a session says itself, over whatever the metadata says. None: the metadata counts.

    `generation` is part of every step's key: raising it runs every step again and keeps the old results.
    """

    optics: Optics = Optics()
    particle_diameter_angstrom: float | None = None
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    """One visit's data. `folder` is the session's root relative to its instrument's movie root ("." for itself).

    `state_since` is when it came into its state.
    """

    id: UUID
    name: str
    project: Project | None
    instrument: Instrument
    source_root: str
    folder: str
    layout: Layout
    owner_name: str
    owner_mail: str
    state: SessionState
    parameters: SessionParameters
    created_at: datetime
    state_since: datetime | None = None

    @property
    def shell_word(self) -> str:
        """What names the session in a command that can be pasted: its name quoted, or its id where a shell balks."""
        return shlex.quote(self.name) if self.name.isprintable() else str(self.id)


@dataclass(frozen=True, slots=True)
class SessionPlace:
    """Another place of a session's files: a root's folder that stands for the session's own."""

    id: UUID
    session_id: UUID
    root: str
    folder: str


@dataclass(frozen=True, slots=True)
class Exposure:
    """One exposure of a specimen. `name` is the path of its files relative to the session's root, without suffixes.

    `input_file_id` is what is processed: its movie, or its micrograph where there is no movie.
    """

    id: UUID
    session_id: UUID
    name: str
    grid_square: str | None
    foil_hole: str | None
    metadata: ExposureMetadata
    input_file_id: UUID | None
    state: ExposureState
    reason: str
    found_at: datetime


@dataclass(frozen=True, slots=True)
class DescribedExposure:
    """What is said of an exposure that may not be known yet: its name, and the rest of it as of `Exposure`."""

    name: str
    metadata: ExposureMetadata
    grid_square: str | None = None
    foil_hole: str | None = None


class OrphanKind(StrEnum):
    """What stands without its partner."""

    METADATA = "metadata"  # what was said of an exposure, or of a movie, that has not come
    MOVIE = "movie"  # a movie or a micrograph that nothing was said of, and that lacks something for it


@dataclass(frozen=True, slots=True)
class Orphan:
    """What has waited for its partner longer than the instrument's `orphan_seconds`.

    `name` is the exposure's, or the movie's as an mdoc of many names it (then there is no exposure). `reason` is what
    is missing, in words. `told_at` is when it was first said.
    """

    kind: OrphanKind
    name: str
    exposure_id: UUID | None
    reason: str
    found_at: datetime
    told_at: datetime


@dataclass(frozen=True, slots=True)
class SessionCounts:
    """The counters of a session's page. Files count once; a file is verified when every store that wants it has it."""

    exposures: int
    waiting: int
    processed: int
    quarantined: int
    files_arrived: int
    files_copied: int
    files_verified: int
    files_failed: int
    bytes_arrived: int
    bytes_verified: int
