"""Files of a session and their copies."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class FileKind(StrEnum):
    """What a file of a session is; decides whether it is processed, and which policy its copies follow."""

    MOVIE = "movie"  # frames of one exposure
    MICROGRAPH = "micrograph"  # one image of an exposure, already summed
    GAIN = "gain"
    DEFECTS = "defects"
    METADATA = "metadata"  # XML, mdoc, .dm
    PREVIEW = "preview"  # the camera software's own JPEG and PNG
    SUM = "sum"  # an aligned micrograph that this facility made
    RESULT = "result"  # what else this facility computed
    OTHER = "other"


class FileState(StrEnum):
    """How far a file has come. An owner site moves it; every move is also an event."""

    ARRIVED = "arrived"  # complete by closing and by its own structure
    DAMAGED = "damaged"  # stands still, and its structure says that it is not whole
    UNREADABLE = "unreadable"  # could not be opened or read
    REPLACED = "replaced"  # its content changed after it was taken in; a newer row stands for the path


class ReplicaState(StrEnum):
    """How far one copy has come."""

    WANTED = "wanted"  # journalled before the first byte is written
    VERIFIED = "verified"  # proved to be whole, to the replica's level
    FAILED = "failed"  # the last try failed; tried again until it is verified
    DAMAGED = "damaged"  # it was verified, and is not whole any more, or not there; to be mended
    RETIRING = "retiring"  # journalled before it is moved to the trash
    TRASHED = "trashed"  # in its store's trash, until the grace time is over
    REMOVING = "removing"  # journalled before it is removed from the trash
    REMOVED = "removed"  # deleted, because a rule said so and other copies were confirmed


class VerificationLevel(StrEnum):
    """What "verified" could be proved to mean on that store."""

    MEDIUM = "medium"  # re-read past the page cache
    SERVER = "server"  # the server's own checksum of what it received agreed
    CACHE = "cache"  # re-read, but nothing proves that it came from the medium


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of a session, identified by `relative_path` (POSIX, from the session's root) and `sha256`.

    `modified_ns` is the source's own time stamp, kept only to notice changes; it is never compared with a clock.
    `place_id` is the session's other place in which it lies; None: in the session's own folder.
    """

    id: UUID
    session_id: UUID
    exposure_id: UUID | None
    relative_path: str
    kind: FileKind
    size_bytes: int
    modified_ns: int
    state: FileState
    sha256: str | None
    detail: str
    arrived_at: datetime
    place_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Replica:
    """One copy of a file on one store. `sha256` is what was read back.

    `kept_as` is where a verified copy lies, relative to the store's root, since other content took its name; None while
    it lies under its own name. `stored_as` is what the store calls it, None where that is as its path says.
    `checked_at` is when it was last proved; `trashed_as` is where it lies in its store's trash, or is to lie.
    """

    id: UUID
    file_id: UUID
    store: str
    state: ReplicaState
    level: VerificationLevel | None
    sha256: str | None
    attempts: int
    detail: str
    verified_at: datetime | None
    kept_as: str | None = None
    stored_as: str | None = None
    checked_at: datetime | None = None
    trashed_at: datetime | None = None
    trashed_as: str | None = None


@dataclass(frozen=True, slots=True)
class KeptAside:
    """Content that stood under a copy's name and was renamed for it: its path relative to the store's root and the
    SHA-256 of its bytes, None where they cannot be read."""

    path: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class CopyRecord:
    """How one try to copy ended, for the catalog. VERIFIED has its proof's level and the digest that was read back.

    `kept` is what was renamed to make way for the copy; `stored_as` is what the store calls it, where that is not as
    its path says.
    """

    replica_id: UUID
    state: ReplicaState
    level: VerificationLevel | None
    sha256: str | None
    detail: str = ""
    kept: KeptAside | None = None
    stored_as: str | None = None


@dataclass(frozen=True, slots=True)
class CopyTask:
    """Work for the copier: a file and the stores that still want it; with no replicas, a file to be hashed.

    The file lies at `<source_root>/<source_folder>/<relative path>`, a copy of it at
    `<store root>/<instrument>/<session_folder>/<relative path>`. `good` are its verified copies, from which it can be
    copied where the source is gone.
    """

    file: DataFile
    instrument: str
    session_folder: str
    source_root: str
    source_folder: str
    replicas: tuple[Replica, ...]
    good: tuple[Replica, ...] = ()


@dataclass(frozen=True, slots=True)
class ProducedFile:
    """A file that this facility computed, at `<root>/<folder>/<relative path>`, and the stores that want it."""

    root: str
    folder: str
    relative_path: str
    kind: FileKind
    size_bytes: int
    modified_ns: int
    stores: tuple[str, ...]
    priority: int


@dataclass(frozen=True, slots=True)
class CheckTask:
    """A copy that is to be proved again: `relative` is its path, as `Store.stored_name` takes it."""

    replica: Replica
    relative: str
    size_bytes: int
    sha256: str
