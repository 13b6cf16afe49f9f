"""What the site and the service ask of the big tables, in one list, each with the index that answers it.

A catalog holds ten million files and a million exposures. What is asked of them while somebody waits must cost by what
is answered, not by what is there: it is read from an index, in the index's order. The tests have SQLite and MariaDB
explain every query here on a filled catalog, and find every `select` of a big table that is not here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select

from coldchain.catalog import (
    arrivals,
    capacity,
    checks,
    events,
    exposures,
    file_rows,
    files,
    frame_sets,
    newest_events,
    notices,
    orphans,
    page,
    replicas,
    replication_watch,
    results,
    retirement,
    scans,
    sessions,
    steps,
    stored_names,
    stores,
    tasks,
    verdicts,
    wants,
)
from coldchain.catalog.by_index import KEY
from coldchain.catalog.page import ExposureFilter
from coldchain.catalog.tables import (
    CtfRow,
    EventRow,
    ExposureRow,
    FileRow,
    FrameSetRow,
    MotionRow,
    PicksRow,
    QualityRow,
    ReplicaRow,
    ScannedFolderRow,
    StepRunRow,
    VerdictRow,
)
from coldchain.model.events import Severity
from coldchain.model.files import FileKind, FileState, ReplicaState
from coldchain.model.quality import Grade
from coldchain.model.session import ExposureState

BIG = (
    CtfRow,
    EventRow,
    ExposureRow,
    FileRow,
    FrameSetRow,
    MotionRow,
    PicksRow,
    QualityRow,
    ReplicaRow,
    ScannedFolderRow,
    StepRunRow,
    VerdictRow,
)
"""The tables that grow with what is collected."""


@dataclass(frozen=True, slots=True)
class Example:
    """What a query is asked with: a site and its store; a session, an exposure, a file, a copy of it, a run and an
    event that there are; a time; a digest of a path."""

    site: str
    store: str
    session_id: UUID
    exposure_id: UUID
    file_id: UUID
    replica_id: UUID
    run_id: UUID
    event_id: UUID
    time: datetime
    digest: bytes = b"0" * 32


@dataclass(frozen=True, slots=True)
class Listed:
    """A query with an example, and the indexes by which big tables are read in it (`KEY`: along the primary key; rows
    that are looked up by their keys need no word). `cost`: what it costs by, where that is more than what it answers,
    so that it may sort; "" where it sorts nothing.
    """

    example: Callable[[Example], Select[*tuple[Any, ...]]]
    indexes: tuple[str, ...]
    cost: str = ""


def _listed(example: Callable[[Example], Select[*tuple[Any, ...]]], *indexes: str, cost: str = "") -> Listed:
    return Listed(example, indexes, cost)


_EXPOSURES_OF_SESSION = "ix_exposures_session_id_id"
_EXPOSURES_BY_NAME = "ix_exposures_session_id_name_digest_id"
_EXPOSURES_BY_STATE = "ix_exposures_session_id_state"
_EXPOSURES_TO_DO = "ix_exposures_site_state_id"
_FILES_OF_SESSION = "ix_files_session_id_id"
_FILES_BY_KIND = "ix_files_session_id_kind_id"
_FILES_BY_STATE = "ix_files_session_id_state_id"
_FILES_BY_PATH = "ix_files_session_id_path_digest_id"
_COPIES_OF_FILE = "ix_replicas_file_id_id"
_QUEUE = "ix_replicas_queue"
_SCRUB = "ix_replicas_scrub"
_BACKLOG = "ix_replicas_backlog"
_RUNS = "ix_step_runs_exposure_id_step_state_id"
_EVENTS = "ix_events_site_severity_id"
_EVENTS_OF_SESSION = "ix_events_session_id_site_severity_id"
_VERDICTS = "ix_verdicts_session_id_stands_exposure_id"
_VERDICT_OF = "ix_verdicts_exposure_id_id"
_RESULTS = ("ix_motion_results_run_id", "ix_ctf_results_run_id", "ix_pick_results_run_id")
_EVERY = ExposureFilter()
_KINDS = frozenset(FileKind)
_WANTED = ReplicaState.WANTED
_TRASHED = ReplicaState.TRASHED

_FEW = "the few of one exposure, file or movie"
_SESSION = "a session's files or exposures"
_STORE = "what lies on a store"
_BEHIND = "what a store still wants"
_SITES = "the few sites"

_COLLECTING = {
    "arrivals.exposures_query": _listed(
        lambda e: arrivals.exposures_query(e.session_id, [e.digest, b"1" * 32]),
        _EXPOSURES_BY_NAME,
    ),
    "arrivals.taken_query": _listed(lambda e: arrivals.taken_query(e.session_id, [e.digest]), _FILES_BY_PATH),
    "exposures.by_name_query": _listed(lambda e: exposures.by_name_query(e.session_id, "a"), _EXPOSURES_BY_NAME),
    "exposures.by_stem_query": _listed(
        lambda e: exposures.by_stem_query(e.session_id, [e.digest, b"1" * 32]), "ix_exposures_session_id_stem_digest_id"
    ),
    "file_rows.versions_query": _listed(lambda e: file_rows.versions_query(e.session_id, e.digest), _FILES_BY_PATH),
    "files.kind_query": _listed(lambda e: files.kind_query(e.session_id, FileKind.GAIN), _FILES_BY_KIND),
    "files.signatures_query": _listed(
        lambda e: files.signatures_query(e.session_id, [e.digest, b"1" * 32]), _FILES_BY_PATH
    ),
    "files.standing_query": _listed(lambda e: files.standing_query(e.session_id, "a"), _FILES_BY_PATH),
    "frame_sets.awaited_query": _listed(
        lambda e: frame_sets.awaited_query(e.session_id, [e.digest]), "ix_frame_sets_session_id_stem_digest_id"
    ),
    "frame_sets.by_stem_query": _listed(
        lambda e: frame_sets.by_stem_query(e.session_id, "a"), "ix_frame_sets_session_id_stem_digest_id"
    ),
    "orphans.frame_sets_query": _listed(
        lambda e: orphans.frame_sets_query(e.session_id), "ix_frame_sets_session_id_orphaned_at_id"
    ),
    "orphans.frame_sets_waiting_query": _listed(
        lambda e: orphans.frame_sets_waiting_query(e.site, "krios", e.time), "ix_frame_sets_site_waiting_id"
    ),
    "orphans.waiting_query": _listed(lambda e: orphans.waiting_query(e.site, "krios", e.time), _EXPOSURES_TO_DO),
    "scans.rows_query": _listed(
        lambda e: scans.rows_query(e.site, e.digest, [e.digest, b"1" * 32]),
        "ix_scanned_folders_site_root_digest_folder_digest",
    ),
    "scans.stamps_query": _listed(
        lambda e: scans.stamps_query(e.site, e.digest), "ix_scanned_folders_site_root_digest_folder_digest"
    ),
}

_COPYING = {
    "file_rows.replicas_query": _listed(lambda e: file_rows.replicas_query(e.file_id), _COPIES_OF_FILE),
    "wants.lacking_query": _listed(
        lambda e: wants.lacking_query(e.site, e.session_id, [e.store], e.file_id).limit(100),
        _FILES_OF_SESSION,
        _COPIES_OF_FILE,
    ),
    "replicas.others_query": _listed(
        lambda e: replicas.others_query(e.session_id, [e.digest], [e.file_id]), _FILES_BY_PATH
    ),
    "wants.there_query": _listed(lambda e: wants.there_query([e.file_id, e.run_id]), _COPIES_OF_FILE),
    "replicas.versioned_query": _listed(
        lambda e: replicas.versioned_query([e.replica_id, e.run_id]), KEY, _FILES_BY_PATH
    ),
    "tasks.copies_query": _listed(lambda e: tasks.copies_query([e.file_id]), _COPIES_OF_FILE, cost=_FEW),
    "tasks.ready_query": _listed(lambda e: tasks.ready_query(e.site, 10, e.exposure_id), _EXPOSURES_TO_DO),
    "tasks.next_priority_query": _listed(lambda e: tasks.next_priority_query(e.site, _WANTED, e.store, 10), _QUEUE),
    "tasks.queue_query": _listed(lambda e: tasks.queue_query(e.site, _WANTED, e.store, 50, 10, None), _QUEUE),
    "tasks.queue_query, further on": _listed(
        lambda e: tasks.queue_query(e.site, _WANTED, e.store, 50, 10, e.replica_id), _QUEUE
    ),
}

_STORES = {
    "capacity.changed_query": _listed(
        lambda e: capacity.changed_query(e.time), KEY, cost="what has happened since a time"
    ),
    "capacity.damaged_query": _listed(lambda e: capacity.damaged_query(e.site, e.store), _SCRUB),
    "capacity.late_damaged_query": _listed(
        lambda e: capacity.late_damaged_query(e.site, e.store, _KINDS, e.time), _SCRUB
    ),
    "capacity.late_query": _listed(
        lambda e: capacity.late_query(e.site, _WANTED, e.store, 50, _KINDS, e.replica_id), _QUEUE
    ),
    "capacity.lines_query": _listed(
        lambda e: capacity.lines_query(e.session_id), _FILES_BY_KIND, _FILES_OF_SESSION, _COPIES_OF_FILE, cost=_SESSION
    ),
    "capacity.oldest_query": _listed(lambda e: capacity.oldest_query(e.site, _WANTED, e.store, 50), _QUEUE),
    "capacity.to_do_query": _listed(lambda e: capacity.to_do_query(e.site), _QUEUE, cost=_BEHIND),
    "capacity.total_query": _listed(lambda e: capacity.total_query(e.site, e.store), _SCRUB, cost=_STORE),
    "checks.count_query": _listed(lambda e: checks.count_query(e.site, e.store, None, _WANTED), _SCRUB, cost=_STORE),
    "checks.count_query, of a session": _listed(
        lambda e: checks.count_query(e.site, e.store, e.session_id, _WANTED),
        _FILES_BY_KIND,
        _FILES_OF_SESSION,
        _COPIES_OF_FILE,
        cost=_SESSION,
    ),
    "checks.due_query": _listed(lambda e: checks.due_query(e.site, e.store, e.time, 10), _SCRUB),
    "checks.ids_query": _listed(
        lambda e: checks.ids_query(e.site, e.store, None, ReplicaState.VERIFIED, e.replica_id, 10), KEY
    ),
    "checks.ids_query, of the few damaged": _listed(
        lambda e: checks.ids_query(e.site, e.store, None, ReplicaState.DAMAGED, e.replica_id, 10),
        _SCRUB,
        cost="what is damaged",
    ),
    "checks.ids_query, of a session": _listed(
        lambda e: checks.ids_query(e.site, e.store, e.session_id, ReplicaState.VERIFIED, e.replica_id, 10),
        KEY,
        _FILES_BY_KIND,
        _FILES_OF_SESSION,
        _COPIES_OF_FILE,
        cost=_SESSION,
    ),
    "retirement.any_query": _listed(lambda e: retirement.any_query(e.site, e.store, _TRASHED), _SCRUB),
    "retirement.busy_query": _listed(lambda e: retirement.busy_query(e.session_id), _EXPOSURES_BY_STATE),
    "retirement.bytes_query": _listed(lambda e: retirement.bytes_query(e.site, e.store, _TRASHED), _SCRUB),
    "retirement.copies_query": _listed(lambda e: retirement.copies_query([e.file_id, e.run_id]), _COPIES_OF_FILE),
    "retirement.page_query": _listed(
        lambda e: retirement.page_query(e.site, e.session_id, e.file_id, 10), _FILES_OF_SESSION
    ),
    "retirement.sessions_query": _listed(lambda e: retirement.sessions_query(e.site, e.store), _SCRUB, cost=_STORE),
    "retirement.trash_of_query": _listed(
        lambda e: retirement.trash_of_query(e.session_id),
        _FILES_BY_KIND,
        _FILES_OF_SESSION,
        _COPIES_OF_FILE,
        cost=_SESSION,
    ),
    "retirement.trash_query": _listed(
        lambda e: retirement.trash_query(e.site, e.store, _TRASHED, (e.time, e.replica_id), 10), _SCRUB
    ),
    "stored_names.copies_query": _listed(lambda e: stored_names.copies_query([e.file_id, e.run_id]), _COPIES_OF_FILE),
    "stored_names.elsewhere_query": _listed(
        lambda e: stored_names.elsewhere_query(e.site, e.store), _SCRUB, cost=_STORE
    ),
    "stored_names.files_query": _listed(
        lambda e: stored_names.files_query(e.session_id, [e.digest, b"1" * 32]), _FILES_BY_PATH
    ),
    "stores.arrived_query": _listed(
        lambda e: stores.arrived_query(e.site, e.store, e.time), KEY, cost="what has arrived since a time"
    ),
    "stores.backlog_query": _listed(lambda e: stores.backlog_query(e.site, e.store), _BACKLOG, cost=_BEHIND),
    "stores.standing_query": _listed(lambda e: stores.standing_query(e.site, e.store, 10), _SCRUB),
}

_COMPUTING = {
    "exposures.processing_query": _listed(lambda e: exposures.processing_query(e.site), _EXPOSURES_TO_DO),
    "exposures.ready_query": _listed(lambda e: exposures.ready_query(e.site, 10), _EXPOSURES_TO_DO),
    "exposures.waiting_query": _listed(
        lambda e: exposures.waiting_query(e.site, limit=10, before=e.exposure_id), _EXPOSURES_TO_DO
    ),
    "results.readings_query": _listed(
        lambda e: results.readings_query(e.session_id, 10), _EXPOSURES_OF_SESSION, _RUNS, _VERDICT_OF, *_RESULTS
    ),
    "steps.newest_query": _listed(lambda e: steps.newest_query(e.exposure_id), _RUNS),
    "steps.running_query": _listed(lambda e: steps.running_query(e.site), "ix_step_runs_site_state"),
    "steps.runs_query": _listed(lambda e: steps.runs_query(e.exposure_id), _RUNS, cost=_FEW),
    "verdicts.standing_query": _listed(lambda e: verdicts.standing_query(e.exposure_id), _VERDICT_OF),
    "verdicts.window_query": _listed(lambda e: verdicts.window_query(e.session_id, 10), _VERDICTS),
}

_TELLING = {
    "events.recent_query": _listed(
        lambda e: events.recent_query(e.site, Severity.INFO, session_id=None, limit=10), _EVENTS
    ),
    "events.recent_query, of a session": _listed(
        lambda e: events.recent_query(e.site, Severity.INFO, session_id=e.session_id, limit=10), _EVENTS_OF_SESSION
    ),
    "events.since_query": _listed(lambda e: events.since_query(e.site, Severity.INFO, e.event_id, 10), _EVENTS),
    "notices.after_query": _listed(lambda e: notices.after_query(e.site, Severity.INFO, e.event_id, 10), _EVENTS),
    "notices.ids_query": _listed(
        lambda e: notices.ids_query(e.site, Severity.INFO, e.event_id, UUID(int=(1 << 128) - 1), 10), _EVENTS
    ),
    "notices.these_query": _listed(
        lambda e: notices.these_query(e.site, [e.event_id, e.run_id]), KEY, cost="the thousand that are asked for"
    ),
    "replication_watch.ended_query": _listed(
        lambda e: replication_watch.ended_query(e.site, e.event_id), _EVENTS, cost="what has happened since a time"
    ),
    "replication_watch.newest_query": _listed(
        lambda e: replication_watch.newest_query(e.site, Severity.ERROR), _EVENTS
    ),
}

_PAGES = {
    "exposures.page_query": _listed(
        lambda e: exposures.page_query(e.session_id, limit=10, before=e.exposure_id), _EXPOSURES_OF_SESSION
    ),
    "files.exposure_query": _listed(lambda e: files.exposure_query(e.exposure_id), "ix_files_exposure_id_id"),
    "files.session_query": _listed(lambda e: files.session_query(e.session_id, None, 10), _FILES_OF_SESSION),
    "files.session_query, in a state": _listed(
        lambda e: files.session_query(e.session_id, FileState.DAMAGED, 10), _FILES_BY_STATE
    ),
    "orphans.exposures_query": _listed(
        lambda e: orphans.exposures_query(e.session_id), "ix_exposures_session_id_orphaned_at_id"
    ),
    "page.ctf_query": _listed(lambda e: page.ctf_query([e.run_id, e.file_id]), "ix_ctf_results_run_id"),
    "page.failed_copies_query": _listed(
        lambda e: page.failed_copies_query(e.session_id, 10),
        _QUEUE,
        _FILES_OF_SESSION,
        cost="the copies that failed, of all sessions",
    ),
    "page.few_query, of exposures": _listed(
        lambda e: page.few_query(ExposureRow, e.session_id, 10),
        _EXPOSURES_OF_SESSION,
        "ix_exposures_session_id_orphaned_at_id",
    ),
    "page.few_query, of files": _listed(
        lambda e: page.few_query(FileRow, e.session_id, 10), _FILES_OF_SESSION, _FILES_BY_KIND
    ),
    "page.gallery_query": _listed(
        lambda e: page.gallery_query(e.session_id, _EVERY, before=None, after=None, limit=10), _EXPOSURES_OF_SESSION
    ),
    "page.gallery_query, back": _listed(
        lambda e: page.gallery_query(e.session_id, _EVERY, before=None, after=e.exposure_id, limit=10),
        _EXPOSURES_OF_SESSION,
    ),
    "page.gallery_query, in a state": _listed(
        lambda e: page.gallery_query(
            e.session_id, ExposureFilter(state=ExposureState.DONE), before=None, after=None, limit=10
        ),
        _EXPOSURES_OF_SESSION,
        _EXPOSURES_BY_STATE,
    ),
    "page.gallery_query, of a grade": _listed(
        lambda e: page.gallery_query(e.session_id, ExposureFilter(grade=Grade.BAD), before=None, after=None, limit=10),
        _EXPOSURES_OF_SESSION,
        _VERDICTS,
        _VERDICT_OF,
        cost=_SESSION,
    ),
    "newest_events.query": _listed(lambda _: newest_events.query(), _EVENTS, cost=_SITES),
    "newest_events.of_sessions_query": _listed(
        lambda e: newest_events.of_sessions_query([e.session_id, e.run_id]),
        _EVENTS_OF_SESSION,
        cost=_SITES,
    ),
    "page.newest_runs_query": _listed(lambda e: page.newest_runs_query([e.exposure_id, e.run_id]), _RUNS, cost=_FEW),
    "page.overview_query": _listed(
        lambda e: page.overview_query(e.session_id),
        "ix_files_exposure_id_id",
        _FILES_BY_KIND,
        _FILES_BY_STATE,
        _FILES_OF_SESSION,
        cost=_SESSION,
    ),
    "page.picks_query": _listed(lambda e: page.picks_query([e.run_id, e.file_id]), "ix_pick_results_run_id"),
    "page.place_counts_query": _listed(
        lambda e: page.place_counts_query(e.session_id),
        _EXPOSURES_OF_SESSION,
        "ix_exposures_session_id_orphaned_at_id",
        cost=_SESSION,
    ),
    "page.troubles_query": _listed(
        lambda e: page.troubles_query(e.session_id, 10), _EXPOSURES_BY_STATE, cost="a session's troubles"
    ),
    "page.verdicts_query": _listed(lambda e: page.verdicts_query([e.exposure_id, e.run_id]), _VERDICT_OF),
    "sessions.exposure_counts_query": _listed(
        lambda e: sessions.exposure_counts_query(e.session_id), _EXPOSURES_BY_STATE, cost=_SESSION
    ),
    "sessions.file_counts_query": _listed(
        lambda e: sessions.file_counts_query(e.session_id), _FILES_BY_STATE, _COPIES_OF_FILE, cost=_SESSION
    ),
    "verdicts.counts_query": _listed(lambda e: verdicts.counts_query(e.session_id), _VERDICTS, cost=_SESSION),
}

QUERIES = {**_COLLECTING, **_COPYING, **_STORES, **_COMPUTING, **_TELLING, **_PAGES}
"""By the function that builds it, and after a comma, what of it."""

PARTS = {
    "exposures._with_input": "exposures.ready_query and waiting_query",
    "notices._with_names": "notices.after_query and these_query",
    "newest_events._newest": "newest_events.query and of_sessions_query",
    "results._newest_run": "results.readings_query",
    "results._standing_verdict": "results.readings_query",
}
"""Functions that build a part of what is listed."""

BY_KEY = {
    "arrivals.kinds_query": "files by their ids",
    "checks._joined": "copies by their ids, with their files",
    "newest_events.times": "events by their ids",
    "page.stamp": "the end of a key",
    "page.troubles": "exposures by their ids",
    "replicas": "copies by their ids, with their files",
    "replicas._by_id": "rows by their ids",
    "replicas._set_verified": "the digests of files, by their ids",
    "replicas.alike_query": "copies by their ids, with their files",
    "retirement.files": "files by their ids",
    "retirement.files_query": "files by their ids",
    "retiring._rows": "copies by their ids",
    "tasks.files_query": "files by their ids",
    "tasks.unhashed_query": "files by their ids",
}
"""What looks rows up by their primary keys: any database does that well."""

OTHERS = {
    "clearing_turn.clearing_turn": "a lock of the server's, no table",
    "frame_sets._record": "by stems, as frame_sets.awaited_query",
    "orphans.count": "counts what orphans.exposures_query and frame_sets_query give",
    "results._of_newest": "the result of a run, by run_id",
    "results.repeat": "the results of a run, by run_id",
    "sessions._named": "instruments and projects",
    "sizes._of_file": "a table's last row",
}
"""What asks of no big table, or as something that is listed does."""
