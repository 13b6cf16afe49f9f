"""What lies on stores, whose it is, what they still want, and what was said of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Select, select, update
from sqlalchemy.dialects import sqlite

from coldchain.catalog import capacity, events, files, replicas, store_alerts, stores
from coldchain.catalog.capacity import Late, ToDo, Usage
from coldchain.catalog.engine import Catalog, open_catalog
from coldchain.catalog.tables import FileRow, ReplicaRow, StoreSampleRow
from coldchain.model.events import Severity
from coldchain.model.files import DataFile, FileKind, ReplicaState, VerificationLevel
from coldchain.model.identity import first_id_at, new_id
from coldchain.model.policy import Tier
from coldchain.model.session import Session
from coldchain.model.stores import StoreLook, StoreSubject
from tests.catalog.catalog_givens import SHA256, STORES, arrive, new_session

NOW = datetime.now(UTC)
KEY = ("here", "live")
SOME = new_id()


def copied(catalog: Catalog, file: DataFile, *, state: ReplicaState = ReplicaState.VERIFIED, detail: str = "") -> None:
    """Every copy of the file is verified, and then in another state where one is named."""
    files.set_digest(catalog, file.id, SHA256)
    for replica in replicas.of_file(catalog, file.id):
        proof = (VerificationLevel.MEDIUM, SHA256)
        if state is ReplicaState.FAILED:
            replicas.record_copy(catalog, replica.id, state=state, level=None, sha256=None, detail=detail)
            continue
        replicas.record_copy(
            catalog, replica.id, state=ReplicaState.VERIFIED, level=proof[0], sha256=proof[1], detail=""
        )
        if state is ReplicaState.DAMAGED:
            replicas.record_check(catalog, replica.id, detail=detail)
        elif state is not ReplicaState.VERIFIED:
            with catalog.writing() as unit:
                unit.execute(update(ReplicaRow).where(ReplicaRow.id == replica.id).values(state=state))


def aged(catalog: Catalog, file: DataFile, hours: float) -> None:
    """The file's copies were wanted so many hours ago."""
    with catalog.writing() as unit:
        rows = list(unit.scalars(select(ReplicaRow.id).where(ReplicaRow.file_id == file.id)))
        for number, key in enumerate(rows):
            old = first_id_at(NOW - timedelta(hours=hours)).int + number + 1
            unit.execute(update(ReplicaRow).where(ReplicaRow.id == key).values(id=type(key)(int=old)))


def test_what_stands_lies_in_the_trash_and_is_damaged_is_told_apart(catalog: Catalog, session: Session) -> None:
    """Bytes and files of each store, by session and kind; what is wanted or failed is not there."""
    other = new_session(catalog, name="other", folder="other")
    copied(catalog, arrive(catalog, session, "a.tiff", size_bytes=100))
    copied(catalog, arrive(catalog, session, "b.xml", size_bytes=7, kind=FileKind.METADATA))
    copied(catalog, arrive(catalog, other, "c.tiff", size_bytes=30), state=ReplicaState.TRASHED)
    copied(catalog, arrive(catalog, other, "d.tiff", size_bytes=20), state=ReplicaState.RETIRING)
    copied(catalog, arrive(catalog, other, "e.tiff", size_bytes=5), state=ReplicaState.DAMAGED, detail="a flipped bit")
    copied(catalog, arrive(catalog, other, "f.tiff", size_bytes=900), state=ReplicaState.FAILED, detail="no space")
    arrive(catalog, other, "g.tiff", size_bytes=900)
    total = Usage(2, 107, 2, 50, 1, 5)
    assert capacity.totals(catalog, [KEY, ("there", "live")]) == {KEY: total, ("there", "live"): Usage()}
    assert total.all_bytes == 162
    lines = {(one.store, one.session_id, one.kind): one.usage for one in capacity.lines(catalog)}
    assert len(lines) == 2 * 3
    assert lines["live", session.id, FileKind.METADATA] == Usage(1, 7)
    assert lines["archive", other.id, FileKind.MOVIE] == Usage(0, 0, 2, 50, 1, 5)
    assert sum((one.usage for one in capacity.lines(catalog) if one.store == "live"), Usage()) == total
    assert {one.session_id for one in capacity.lines(catalog, other.id)} == {other.id}


def test_what_changed_is_known_by_sessions(catalog: Catalog, session: Session) -> None:
    """A session in which something happened; an exchanged store is all of them; nothing else without a session."""
    assert capacity.sessions_changed(catalog, NOW + timedelta(hours=1)) == set()
    arrive(catalog, session)
    events.record(catalog, Severity.INFO, "service.started", "it runs")
    assert capacity.sessions_changed(catalog, NOW - timedelta(hours=1)) == {session.id}
    events.record(catalog, Severity.WARNING, "store.adopted", "another disk")
    assert capacity.sessions_changed(catalog, NOW - timedelta(hours=1)) == {session.id, None}


def test_what_is_to_be_done_says_why(catalog: Catalog, session: Session) -> None:
    """New, failed (by reason) and damaged ones, by priority; and the next files as a copier takes them."""
    for number in range(3):
        arrive(catalog, session, f"new{number}.tiff", size_bytes=10)
    for number in range(2):
        failed = arrive(catalog, session, f"failed{number}.tiff", size_bytes=5)
        copied(catalog, failed, state=ReplicaState.FAILED, detail="no space is left")
    copied(catalog, arrive(catalog, session, "d.xml", kind=FileKind.METADATA), state=ReplicaState.DAMAGED, detail="bit")
    arrive(catalog, session, "first.xml", size_bytes=1, kind=FileKind.METADATA)
    with catalog.writing() as unit:
        notes = select(FileRow.id).where(FileRow.kind == FileKind.METADATA)
        unit.execute(update(ReplicaRow).where(ReplicaRow.file_id.in_(notes)).values(priority=10))
    wanted = [one for one in capacity.to_do(catalog) if one.store == "live"]
    assert wanted == [
        ToDo("live", 10, ReplicaState.DAMAGED, "bit", 1, 100),
        ToDo("live", 10, ReplicaState.WANTED, "", 1, 1),
        ToDo("live", 50, ReplicaState.FAILED, "no space is left", 2, 10),
        ToDo("live", 50, ReplicaState.WANTED, "", 3, 30),
    ]
    names = [task.file.relative_path for task in capacity.next_copies(catalog, "live", limit=5)]
    assert names == ["first.xml", "new2.tiff", "new1.tiff", "new0.tiff", "d.xml"]


def test_since_when_copies_are_wanted(catalog: Catalog, session: Session) -> None:
    """The oldest copy's age; late ones by kind; a copy found damaged today is not late because it was made long ago."""
    assert capacity.oldest_wanted(catalog, "live") is None
    movie = arrive(catalog, session, "a.tiff", size_bytes=10)
    note = arrive(catalog, session, "a.xml", size_bytes=3, kind=FileKind.METADATA)
    mended = arrive(catalog, session, "b.tiff")
    copied(catalog, mended, state=ReplicaState.DAMAGED, detail="a flipped bit")
    for file, hours in ((movie, 30.0), (note, 50.0), (mended, 5000.0)):
        aged(catalog, file, hours)
    oldest = capacity.oldest_wanted(catalog, "live")
    assert oldest is not None and abs((NOW - timedelta(hours=50) - oldest).total_seconds()) < 1
    yesterday = NOW - timedelta(hours=24)
    found = capacity.late(catalog, "live", {FileKind.MOVIE}, yesterday)
    assert found is not None and (found.files, found.size_bytes) == (1, 10)
    both = capacity.late(catalog, "live", set(FileKind), yesterday)
    assert both == Late(2, 13, oldest)
    assert capacity.late(catalog, "live", {FileKind.MOVIE}, NOW - timedelta(hours=40)) is None
    assert capacity.late(catalog, "live", {FileKind.GAIN}, yesterday) is None
    damaged = capacity.late(catalog, "live", {FileKind.MOVIE}, datetime.now(UTC) + timedelta(hours=1))
    assert damaged is not None and damaged.files == 2


def test_samples_come_back_as_they_were_written(catalog: Catalog) -> None:
    """In their order, of the store and site that were asked for alone."""
    for name in STORES:
        stores.enrol(catalog, name=name, tier=Tier.LIVE, url=f"/{name}")
        stores.record_look(catalog, name, StoreLook("", "", 100, 40))
    made = [stores.record_sample(catalog, "live", NOW) for _ in range(3)]
    stores.record_sample(catalog, "archive", NOW)
    assert capacity.history(catalog, KEY, days=1) == made == stores.samples(catalog, "live", site="here", days=1)
    assert capacity.newest_sample_at(catalog, KEY) == made[-1].at
    assert capacity.newest_sample_at(catalog, ("there", "live")) is None
    with catalog.writing() as unit:
        unit.execute(update(StoreSampleRow).values(at=NOW - timedelta(days=90)))
    assert capacity.history(catalog, KEY, days=56) == []


def test_an_alert_is_said_once_and_ends_once(url: str, catalog: Catalog) -> None:
    """It stands in the catalog while it lasts, whatever restarts; beginning and end are one event each."""
    assert store_alerts.begin(catalog, "live", StoreSubject.FILLED, "store live: 95 % is in use")
    assert not store_alerts.begin(catalog, "live", StoreSubject.FILLED, "store live: 96 % is in use")
    assert store_alerts.begin(catalog, "archive", StoreSubject.FILLED, "store archive: 91 % is in use")
    again = open_catalog(url, "here")
    elsewhere = open_catalog(url, "there")
    assert [(one.store, one.subject) for one in store_alerts.standing(again)] == [
        ("live", StoreSubject.FILLED),
        ("archive", StoreSubject.FILLED),
    ]
    assert not store_alerts.end(elsewhere, "live", StoreSubject.FILLED, "not this site's")
    assert not store_alerts.end(again, "live", StoreSubject.LATE, "never began")
    assert store_alerts.end(again, "live", StoreSubject.FILLED, "store live: 80 % is in use")
    assert not store_alerts.end(again, "live", StoreSubject.FILLED, "store live: 79 % is in use")
    assert [one.store for one in store_alerts.standing(catalog)] == ["archive"]
    said = [(one.kind, one.severity, one.message) for one in reversed(events.recent(catalog))]
    assert said == [
        ("alert.store", Severity.WARNING, "store live: 95 % is in use"),
        ("alert.store", Severity.WARNING, "store archive: 91 % is in use"),
        ("alert.store", Severity.INFO, "store live: 80 % is in use"),
    ]
    again.close()
    elsewhere.close()


QUERIES = {
    "totals": (
        capacity.total_query("here", "live"),
        "COVERING INDEX ix_replicas_scrub (site=? AND store=? AND state=?)",
    ),
    "a session's lines": (capacity.lines_query(SOME), "INDEX ix_replicas_file_id_id (file_id=?)"),
    "to do": (capacity.to_do_query("here"), "INDEX ix_replicas_queue (site=? AND pending=?)"),
    "oldest": (
        capacity.oldest_query("here", ReplicaState.WANTED, "live", 50),
        "COVERING INDEX ix_replicas_queue (site=? AND pending=? AND state=? AND store=? AND priority=?)",
    ),
    "damaged": (capacity.damaged_query("here", "live"), "INDEX ix_replicas_scrub (site=? AND store=? AND state=?)"),
    "late": (
        capacity.late_query("here", ReplicaState.WANTED, "live", 50, set(FileKind), SOME),
        "INDEX ix_replicas_queue (site=? AND pending=? AND state=? AND store=? AND priority=? AND id<?)",
    ),
    "late damaged": (
        capacity.late_damaged_query("here", "live", set(FileKind), NOW),
        "INDEX ix_replicas_scrub (site=? AND store=? AND state=? AND checked_at<?)",
    ),
    "history": (capacity.history_query(KEY, NOW), "INDEX ix_store_samples_site_store_at (site=? AND store=? AND at>?)"),
    "newest sample": (capacity.newest_sample_query(KEY), "COVERING INDEX ix_store_samples_site_store_at"),
    "changed": (capacity.changed_query(NOW), "(id>?)"),
    "alerts": (store_alerts.open_query(), "INDEX ix_store_alerts_ended_at_id (ended_at=?)"),
}


@pytest.mark.parametrize("name", QUERIES)
@pytest.mark.only_on("sqlite")
def test_queries_read_an_index(catalog: Catalog, name: str) -> None:
    """Nothing is scanned from its beginning, however long the catalog is."""
    query: Select  # type: ignore[type-arg]
    query, index = QUERIES[name]
    compiled = query.compile(dialect=sqlite.dialect(), compile_kwargs={"render_postcompile": True})
    values = (None,) * len(compiled.positiontup or ())
    with catalog.reading() as unit:
        plan = [row[3] for row in unit.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", values)]
    assert any(index in line for line in plan), plan
    allowed = {"SCAN anon_1"}  # the late ones that were found, `MOST_LATE` at most
    assert not any(line.startswith("SCAN") and line not in allowed for line in plan), plan
