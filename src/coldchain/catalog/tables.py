"""The tables, as typed models.

Every row has a UUIDv7 `id`, minted by whoever writes it, and the `site` that owns it. Only the key is unique and
nothing cascades: two sites may both write a row for the same thing, and the oldest counts. Indexes serve the questions
that the service and the pages ask; none is longer than 3072 bytes on MariaDB (`columns`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import JSON, BigInteger, Boolean, Double, ForeignKey, Index, Integer, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from coldchain.catalog.columns import (
    Digest,
    Key,
    Name,
    PathBytes,
    Prose,
    Real,
    UtcDateTime,
    Whole,
    Word,
)
from coldchain.model.events import Severity
from coldchain.model.files import FileKind, FileState, ReplicaState, VerificationLevel
from coldchain.model.identity import new_id
from coldchain.model.policy import Tier
from coldchain.model.quality import Grade, Quantity
from coldchain.model.results import Step, StepState
from coldchain.model.session import ExposureState, Layout, SessionState
from coldchain.model.stores import StoreSubject

JsonObject = dict[str, Any]


class Base(DeclarativeBase):
    """The base of all rows: key, owner, and how Python's types are stored."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        UUID: Key(),
        str: Name(),
        datetime: UtcDateTime(),
        float: Real(),
        bytes: Digest(),
        JsonObject: JSON(),
    }

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    site: Mapped[str]


class SiteRow(Base):
    """What a site has said of itself: its facility, and the server that it writes on ("" for a file).

    Of a site's rows the one with the highest `turn` counts.
    """

    __tablename__ = "sites"

    facility: Mapped[str]
    server: Mapped[str]
    turn: Mapped[int] = mapped_column(Integer())
    said_at: Mapped[datetime]


class InstrumentRow(Base):
    """A microscope with its camera."""

    __tablename__ = "instruments"
    __table_args__ = (Index("ix_instruments_name", "name"),)

    name: Mapped[str]
    created_at: Mapped[datetime]


class ProjectRow(Base):
    """What sessions are grouped by."""

    __tablename__ = "projects"
    __table_args__ = (Index("ix_projects_name", "name"),)

    name: Mapped[str]
    created_at: Mapped[datetime]


class SessionRow(Base):
    """One visit's data."""

    __tablename__ = "sessions"
    __table_args__ = (
        Index("ix_sessions_name", "name"),
        Index("ix_sessions_instrument_id_folder_digest", "instrument_id", "folder_digest"),
    )

    name: Mapped[str]
    project_id: Mapped[UUID | None] = mapped_column(ForeignKey("projects.id"))
    instrument_id: Mapped[UUID] = mapped_column(ForeignKey("instruments.id"))
    source_root: Mapped[str] = mapped_column(PathBytes())
    folder: Mapped[str] = mapped_column(PathBytes())
    folder_digest: Mapped[bytes]
    layout: Mapped[Layout] = mapped_column(Word(Layout))
    owner_name: Mapped[str]
    owner_mail: Mapped[str]
    state: Mapped[SessionState] = mapped_column(Word(SessionState))
    parameters: Mapped[JsonObject]
    created_at: Mapped[datetime]
    state_since: Mapped[datetime | None]


class SessionPlaceRow(Base):
    """Another place of a session's files: the folder `folder` of the root `root` holds what its own folder could."""

    __tablename__ = "session_places"
    __table_args__ = (Index("ix_session_places_session_id_id", "session_id", "id"),)

    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id"))
    root: Mapped[str] = mapped_column(PathBytes())
    folder: Mapped[str] = mapped_column(PathBytes())


class SessionCountsRow(Base):
    """What a site counted of a session when `events` were its newest: a memory, which holds while they still are."""

    __tablename__ = "session_counts"
    __table_args__ = (Index("ix_session_counts_session_id_site_id", "session_id", "site", "id"),)

    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id"))
    counts: Mapped[JsonObject]
    events: Mapped[list[str | None]] = mapped_column(JSON())
    counted_at: Mapped[datetime]


class ExposureRow(Base):
    """One exposure of a specimen.

    `input_file_id` has no foreign key: files refer to exposures, and a circle of constraints can neither be created in
    one pass on MariaDB nor be filled row by row. `stem_digest` is that of the name's last part, whatever its case
    (`columns.stem_digest`). `orphaned_at` is when it was said that its partner does not come, NULL before.
    """

    __tablename__ = "exposures"
    __table_args__ = (
        Index("ix_exposures_session_id_id", "session_id", "id"),
        Index("ix_exposures_session_id_name_digest_id", "session_id", "name_digest", "id"),
        Index("ix_exposures_session_id_state", "session_id", "state"),
        Index("ix_exposures_site_state_id", "site", "state", "id"),
        Index("ix_exposures_session_id_stem_digest_id", "session_id", "stem_digest", "id"),
        Index("ix_exposures_session_id_orphaned_at_id", "session_id", "orphaned_at", "id"),
    )

    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id"))
    name: Mapped[str] = mapped_column(PathBytes())
    name_digest: Mapped[bytes]
    grid_square: Mapped[str | None]
    foil_hole: Mapped[str | None]
    details: Mapped[JsonObject]
    input_file_id: Mapped[UUID | None]
    state: Mapped[ExposureState] = mapped_column(Word(ExposureState))
    reason: Mapped[str] = mapped_column(Prose())
    found_at: Mapped[datetime]
    stem_digest: Mapped[bytes | None]
    orphaned_at: Mapped[datetime | None]


class FileRow(Base):
    """One file of a session, as it was at one time; the row that is not REPLACED stands for its path.

    `place_id` is where it lies (`SessionPlaceRow`); NULL: in the session's own folder under its own root. It has no
    foreign key: SQLite can add none to a table that is there.
    """

    __tablename__ = "files"
    __table_args__ = (
        Index("ix_files_session_id_path_digest_id", "session_id", "path_digest", "id"),
        Index("ix_files_session_id_id", "session_id", "id"),
        Index("ix_files_session_id_state_id", "session_id", "state", "id"),
        Index("ix_files_session_id_kind_id", "session_id", "kind", "id"),
        Index("ix_files_exposure_id_id", "exposure_id", "id"),
    )

    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id"))
    exposure_id: Mapped[UUID | None] = mapped_column(ForeignKey("exposures.id"))
    relative_path: Mapped[str] = mapped_column(PathBytes())
    path_digest: Mapped[bytes]
    kind: Mapped[FileKind] = mapped_column(Word(FileKind))
    size_bytes: Mapped[int] = mapped_column(BigInteger())
    modified_ns: Mapped[int] = mapped_column(Whole())
    state: Mapped[FileState] = mapped_column(Word(FileState))
    sha256: Mapped[str | None] = mapped_column(String(64))
    detail: Mapped[str] = mapped_column(Prose())
    arrived_at: Mapped[datetime]
    place_id: Mapped[UUID | None]


class ReplicaRow(Base):
    """One copy of a file on one store. `kept_as` is where it lies since other content took its name.

    `pending` says whether a copier is still to try: it is False once the copy is verified, and when its file was
    replaced, so that the queue's index holds nothing that must be skipped. `size_bytes` is the file's, here so that a
    store's backlog and its scrub are summed from an index. `stored_as` is NULL where the store calls the copy as its
    path says. `checked_at` is when it was last proved, at first by the copy itself.
    """

    __tablename__ = "replicas"
    __table_args__ = (
        Index("ix_replicas_file_id_id", "file_id", "id"),
        Index("ix_replicas_queue", "site", "pending", "state", "store", "priority", "id"),
        Index("ix_replicas_backlog", "site", "pending", "store", "priority", "size_bytes"),
        Index("ix_replicas_scrub", "site", "store", "state", "checked_at", "id", "size_bytes"),
    )

    file_id: Mapped[UUID] = mapped_column(ForeignKey("files.id"))
    store: Mapped[str]
    state: Mapped[ReplicaState] = mapped_column(Word(ReplicaState))
    pending: Mapped[bool] = mapped_column(Boolean())
    level: Mapped[VerificationLevel | None] = mapped_column(Word(VerificationLevel))
    sha256: Mapped[str | None] = mapped_column(String(64))
    attempts: Mapped[int] = mapped_column(Integer())
    detail: Mapped[str] = mapped_column(Prose())
    verified_at: Mapped[datetime | None]
    kept_as: Mapped[str | None] = mapped_column(PathBytes())
    priority: Mapped[int] = mapped_column(Integer(), server_default="50")
    size_bytes: Mapped[int] = mapped_column(BigInteger(), server_default="0")
    stored_as: Mapped[str | None] = mapped_column(PathBytes())
    checked_at: Mapped[datetime | None]
    trashed_at: Mapped[datetime | None]
    trashed_as: Mapped[str | None] = mapped_column(PathBytes())


class StoreRow(Base):
    """A store as one site knows it: which it is, and how it was when it was last looked at.

    `marked_at` is NULL until the store was seen to bear `identity`: only until then may it be given it. `trouble` is ""
    while it is well. `about` is what its file system tells of itself.
    """

    __tablename__ = "stores"
    __table_args__ = (Index("ix_stores_site_name", "site", "name"),)

    name: Mapped[str]
    identity: Mapped[UUID]
    marked_at: Mapped[datetime | None]
    tier: Mapped[Tier] = mapped_column(Word(Tier))
    url: Mapped[str] = mapped_column(PathBytes())
    about: Mapped[str] = mapped_column(Prose())
    seen_at: Mapped[datetime | None]
    trouble: Mapped[str] = mapped_column(Prose())
    trouble_since: Mapped[datetime | None]
    total_bytes: Mapped[int | None] = mapped_column(BigInteger())
    free_bytes: Mapped[int | None] = mapped_column(BigInteger())
    free_files: Mapped[int | None] = mapped_column(BigInteger())
    backlog_bytes: Mapped[int] = mapped_column(BigInteger())
    backlog_files: Mapped[int] = mapped_column(BigInteger())
    bytes_per_second: Mapped[float | None] = mapped_column(Double())


class StoreSampleRow(Base):
    """How full a store was at one time, and what had arrived for it since the sample before."""

    __tablename__ = "store_samples"
    __table_args__ = (Index("ix_store_samples_site_store_at", "site", "store", "at"),)

    store: Mapped[str]
    at: Mapped[datetime]
    total_bytes: Mapped[int | None] = mapped_column(BigInteger())
    free_bytes: Mapped[int | None] = mapped_column(BigInteger())
    arrived_bytes: Mapped[int] = mapped_column(BigInteger())
    backlog_bytes: Mapped[int] = mapped_column(BigInteger())


class StoreAlertRow(Base):
    """What was said of a store, open while `ended_at` is NULL."""

    __tablename__ = "store_alerts"
    __table_args__ = (Index("ix_store_alerts_ended_at_id", "ended_at", "id"),)

    store: Mapped[str]
    subject: Mapped[StoreSubject] = mapped_column(Word(StoreSubject))
    words: Mapped[str] = mapped_column(Prose())
    raised_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class HoldRow(Base):
    """Staff's word that nothing of a session is cleared anywhere, until it is lifted."""

    __tablename__ = "holds"
    __table_args__ = (Index("ix_holds_session_id_lifted_at", "session_id", "lifted_at"),)

    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id"))
    reason: Mapped[str] = mapped_column(Prose())
    set_by: Mapped[str]
    set_at: Mapped[datetime]
    lifted_by: Mapped[str | None]
    lifted_at: Mapped[datetime | None]


class AnnouncementRow(Base):
    """That a rule will clear a session's files from a store at `due_at`; open while `ended_at` is NULL."""

    __tablename__ = "announcements"
    __table_args__ = (
        Index("ix_announcements_session_id_ended_at_id", "session_id", "ended_at", "id"),
        Index("ix_announcements_site_ended_at_id", "site", "ended_at", "id"),
    )

    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id"))
    rule: Mapped[str]
    store: Mapped[str]
    files: Mapped[int] = mapped_column(BigInteger())
    bytes: Mapped[int] = mapped_column(BigInteger())
    announced_at: Mapped[datetime]
    due_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str] = mapped_column(Prose())


class FrameSetRow(Base):
    """What an mdoc of many movies says of one. `movie` is as the mdoc names it, `described_in` the mdoc's own path.

    `waiting` while it has not reached its exposure. `orphaned_at` is when it was said that its movie does not come.
    """

    __tablename__ = "frame_sets"
    __table_args__ = (
        Index("ix_frame_sets_session_id_stem_digest_id", "session_id", "stem_digest", "id"),
        Index("ix_frame_sets_session_id_orphaned_at_id", "session_id", "orphaned_at", "id"),
        Index("ix_frame_sets_site_waiting_id", "site", "waiting", "id"),
    )

    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id"))
    stem_digest: Mapped[bytes]
    movie: Mapped[str] = mapped_column(PathBytes())
    described_in: Mapped[str] = mapped_column(PathBytes())
    details: Mapped[JsonObject]
    waiting: Mapped[bool] = mapped_column(Boolean())
    orphaned_at: Mapped[datetime | None]
    found_at: Mapped[datetime]


class StepRunRow(Base):
    """One run of one step on one exposure."""

    __tablename__ = "step_runs"
    __table_args__ = (
        Index("ix_step_runs_exposure_id_step_state_id", "exposure_id", "step", "state", "id"),
        Index("ix_step_runs_site_state", "site", "state"),
    )

    exposure_id: Mapped[UUID] = mapped_column(ForeignKey("exposures.id"))
    step: Mapped[Step] = mapped_column(Word(Step))
    key: Mapped[str]
    parameters: Mapped[JsonObject]
    state: Mapped[StepState] = mapped_column(Word(StepState))
    outputs: Mapped[JsonObject]
    seconds: Mapped[float | None] = mapped_column(Double())
    detail: Mapped[str] = mapped_column(Prose())
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class MotionRow(Base):
    """What an align run found. NULL is NaN (`columns.Real`)."""

    __tablename__ = "motion_results"
    __table_args__ = (Index("ix_motion_results_run_id", "run_id"),)

    run_id: Mapped[UUID] = mapped_column(ForeignKey("step_runs.id"))
    shift_x_angstrom: Mapped[list[float]] = mapped_column(JSON())
    shift_y_angstrom: Mapped[list[float]] = mapped_column(JSON())
    total_motion_angstrom: Mapped[float] = mapped_column(nullable=True)
    early_motion_angstrom: Mapped[float] = mapped_column(nullable=True)
    late_motion_angstrom: Mapped[float] = mapped_column(nullable=True)
    dose_weighted: Mapped[bool] = mapped_column(Boolean())
    error_angstrom: Mapped[float | None]
    gain_verdict: Mapped[str | None]
    gain_share: Mapped[float | None]


class CtfRow(Base):
    """What a CTF run found. NULL is NaN (`columns.Real`)."""

    __tablename__ = "ctf_results"
    __table_args__ = (Index("ix_ctf_results_run_id", "run_id"),)

    run_id: Mapped[UUID] = mapped_column(ForeignKey("step_runs.id"))
    defocus_u_angstrom: Mapped[float] = mapped_column(nullable=True)
    defocus_v_angstrom: Mapped[float] = mapped_column(nullable=True)
    defocus_angle_degrees: Mapped[float] = mapped_column(nullable=True)
    phase_shift_degrees: Mapped[float] = mapped_column(nullable=True)
    score: Mapped[float] = mapped_column(nullable=True)
    fit_resolution_angstrom: Mapped[float] = mapped_column(nullable=True)
    ice_ring_density: Mapped[float] = mapped_column(nullable=True)
    uncertainty_angstrom: Mapped[float] = mapped_column(nullable=True)
    trustworthy: Mapped[bool] = mapped_column(Boolean())
    reason: Mapped[str] = mapped_column(Prose())


class PicksRow(Base):
    """What a pick run found. `picks` holds [x_pixel, y_pixel, figure_of_merit] each, best first."""

    __tablename__ = "pick_results"
    __table_args__ = (Index("ix_pick_results_run_id", "run_id"),)

    run_id: Mapped[UUID] = mapped_column(ForeignKey("step_runs.id"))
    diameter_angstrom: Mapped[float] = mapped_column(nullable=True)
    count: Mapped[int] = mapped_column(Integer())
    picks: Mapped[list[list[float]]] = mapped_column(JSON())
    contamination_fraction: Mapped[float | None]


class QualityRow(Base):
    """What a quality run measured. NULL is nothing."""

    __tablename__ = "quality_results"
    __table_args__ = (Index("ix_quality_results_run_id", "run_id"),)

    run_id: Mapped[UUID] = mapped_column(ForeignKey("step_runs.id"))
    transmission: Mapped[float | None]
    unevenness: Mapped[float | None]


class VerdictRow(Base):
    """What was thought of an exposure. The newest stands; those before it are kept.

    `reasons` holds [quantity, grade, words] each; `pattern` is a path relative to the results folder.
    """

    __tablename__ = "verdicts"
    __table_args__ = (
        Index("ix_verdicts_exposure_id_id", "exposure_id", "id"),
        Index("ix_verdicts_session_id_stands_exposure_id", "session_id", "stands", "exposure_id"),
    )

    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id"))
    exposure_id: Mapped[UUID] = mapped_column(ForeignKey("exposures.id"))
    stands: Mapped[bool] = mapped_column(Boolean())
    grade: Mapped[Grade] = mapped_column(Word(Grade))
    reasons: Mapped[list[list[str]]] = mapped_column(JSON())
    measures: Mapped[JsonObject]
    pattern: Mapped[str | None] = mapped_column(PathBytes())
    acquired_at: Mapped[datetime | None]
    judged_at: Mapped[datetime]


class AlertRow(Base):
    """A change in a session that was raised as an alert, open while `ended_at` is NULL."""

    __tablename__ = "alerts"
    __table_args__ = (Index("ix_alerts_session_id_id", "session_id", "id"),)

    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id"))
    quantity: Mapped[Quantity] = mapped_column(Word(Quantity))
    since_exposure_id: Mapped[UUID] = mapped_column(ForeignKey("exposures.id"))
    seen_exposure_id: Mapped[UUID] = mapped_column(ForeignKey("exposures.id"))
    usual: Mapped[float] = mapped_column(nullable=True)
    spread: Mapped[float] = mapped_column(nullable=True)
    level: Mapped[float] = mapped_column(nullable=True)
    words: Mapped[str] = mapped_column(Prose())
    raised_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    ended_by: Mapped[UUID | None] = mapped_column(ForeignKey("exposures.id"))
    ending: Mapped[str] = mapped_column(Prose())
    settled: Mapped[bool] = mapped_column(Boolean())


class EventRow(Base):
    """One thing that happened."""

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_site_severity_id", "site", "severity", "id"),
        Index("ix_events_session_id_site_severity_id", "session_id", "site", "severity", "id"),
    )

    at: Mapped[datetime]
    severity: Mapped[Severity] = mapped_column(Word(Severity))
    kind: Mapped[str]
    message: Mapped[str] = mapped_column(Prose())
    session_id: Mapped[UUID | None] = mapped_column(ForeignKey("sessions.id"))
    exposure_id: Mapped[UUID | None] = mapped_column(ForeignKey("exposures.id"))
    file_id: Mapped[UUID | None] = mapped_column(ForeignKey("files.id"))


class NoticeCursorRow(Base):
    """Up to which event a rule of this site has told what it was to tell. `event_id` may lie between two events.

    `sends` holds [Unix seconds, messages] each, of the last hour; NULL where the rule has no limit.
    """

    __tablename__ = "notice_cursors"
    __table_args__ = (Index("ix_notice_cursors_site_rule", "site", "rule"),)

    rule: Mapped[str]
    event_id: Mapped[UUID]
    updated_at: Mapped[datetime]
    sends: Mapped[list[list[float]] | None] = mapped_column(JSON())


class NoticeToldRow(Base):
    """An event after a rule's cursor of which the rule has told. It goes when the cursor has passed it."""

    __tablename__ = "notice_told"
    __table_args__ = (Index("ix_notice_told_site_rule_event_id", "site", "rule", "event_id"),)

    rule: Mapped[str]
    event_id: Mapped[UUID]


class ScannedFolderRow(Base):
    """A folder of a watched root all of whose files were dealt with while it had these time stamps.

    Both 0: it is known, and has to be listed. Rows go when their folders do.
    """

    __tablename__ = "scanned_folders"
    __table_args__ = (
        Index("ix_scanned_folders_site_root_digest_folder_digest", "site", "root_digest", "folder_digest"),
    )

    root_digest: Mapped[bytes]
    folder: Mapped[str] = mapped_column(PathBytes())
    folder_digest: Mapped[bytes]
    modified_ns: Mapped[int] = mapped_column(Whole())
    changed_ns: Mapped[int] = mapped_column(Whole())
