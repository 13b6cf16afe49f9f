"""Holds, announcements and the guarded steps of clearing, and that each question is answered from an index."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Select
from sqlalchemy.dialects import sqlite

from coldchain.catalog import announcements, events, files, holds, replicas, retirement, retiring
from coldchain.catalog.engine import Catalog, open_catalog
from coldchain.catalog.retiring import Intent
from coldchain.errors import CatalogError
from coldchain.model.files import DataFile, ReplicaState, VerificationLevel
from coldchain.model.identity import new_id
from coldchain.model.retention import Amount
from coldchain.model.session import Session
from tests.catalog.catalog_givens import SHA256, STORES, arrive

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SOME = new_id()


def verified(catalog: Catalog, session: Session, path: str = "m.tiff") -> DataFile:
    """A file that is verified on every store."""
    file = arrive(catalog, session, path)
    files.set_digest(catalog, file.id, SHA256)
    for copy in replicas.of_file(catalog, file.id):
        replicas.record_copy(
            catalog,
            copy.id,
            state=ReplicaState.VERIFIED,
            level=VerificationLevel.MEDIUM,
            sha256=SHA256,
            detail="",
        )
    return file


def intent(catalog: Catalog, file: DataFile, store: str) -> Intent:
    """To clear a file from a store, all others confirmed."""
    copies = replicas.of_file(catalog, file.id)
    confirmed = frozenset(copy.id for copy in copies if copy.store != store)
    return Intent(file.id, confirmed, trashed_as=f".coldchain-trash/{store}")


def test_a_session_is_held_until_it_is_lifted(catalog: Catalog, session: Session) -> None:
    """Each reason stands; lifting takes all of them away and says which; both are events."""
    assert holds.standing(catalog, session.id) == []
    first = holds.hold(catalog, session.id, reason="a paper\x1b[2J", by="ada")
    holds.hold(catalog, session.id, reason="a doubt", by="bob")
    assert [hold.reason for hold in holds.standing(catalog, session.id)] == ["a paper\x1b[2J", "a doubt"]
    assert retirement.life_of(catalog, session.id).held == "a paper\x1b[2J; a doubt"
    assert [life.held for life in retirement.lives(catalog)] == ["a paper\x1b[2J; a doubt"]
    lifted = holds.lift(catalog, session.id, by="eve")
    assert lifted[0].id == first.id and {hold.lifted_by for hold in lifted} == {"eve"}
    assert holds.lift(catalog, session.id, by="eve") == []
    kinds = [event.kind for event in events.recent(catalog, session_id=session.id)]
    assert (kinds.count("hold.set"), kinds.count("hold.lifted")) == (2, 2)
    assert all("\x1b" not in event.message for event in events.recent(catalog))
    with pytest.raises(CatalogError, match="no session"):
        holds.hold(catalog, SOME, reason="", by="ada")


def test_an_announcement_is_made_once(catalog: Catalog, session: Session) -> None:
    """Announcing again gives the one that stands; another store, or its end, makes a new one."""
    life = retirement.life_of(catalog, session.id)

    def announce(store: str) -> object:
        return announcements.announce(
            catalog,
            life,
            rule="tidy",
            store=store,
            amount=Amount(3, 2048),
            now=NOW,
            due_at=NOW + timedelta(days=7),
        )

    first = announce("live")
    assert announce("live") == first and announce("archive") != first
    assert len(announcements.standing(catalog)) == len(announcements.of_session(catalog, session.id)) == 2
    [event] = [e for e in events.recent(catalog) if e.kind == "retire.announced" and "store live" in e.message]
    assert event.session_id == session.id and "3 files (2.0 kB)" in event.message
    for _ in range(2):
        announcements.end(catalog, first.id, outcome="held", now=NOW, withdrawn=True)  # type: ignore[attr-defined]
    assert [event.kind for event in events.recent(catalog)].count("retire.withdrawn") == 1
    assert announce("live") != first


def test_steps_are_taken_from_the_state_that_they_begin_in(catalog: Catalog, session: Session) -> None:
    """A copy goes from verified to removed step by step; a step that is taken twice, or too early, changes nothing."""
    file = verified(catalog, session)
    wanted = intent(catalog, file, "live")
    [copy] = [copy for copy in replicas.of_file(catalog, file.id) if copy.store == "live"]
    assert retiring.trashed(catalog, [copy.id], now=NOW) == 0
    assert retiring.removed(catalog, [copy.id]) == 0
    begun = retiring.begin(catalog, session.id, "live", [wanted], lambda *_: "", now=NOW)
    assert len(begun.files) == 1
    assert retiring.removed(catalog, [copy.id]) == 0
    assert (retiring.trashed(catalog, [copy.id], now=NOW), retiring.trashed(catalog, [copy.id], now=NOW)) == (1, 0)
    assert retirement.trash_bytes(catalog, "live") == file.size_bytes
    [found], _ = retirement.in_trash(catalog, "live", ReplicaState.TRASHED)
    assert (found.on("live") or SOME).trashed_as == ".coldchain-trash/live"  # type: ignore[union-attr]
    retiring.begin_removing(catalog, session.id, "live", [wanted], lambda *_: "", now=NOW)
    assert (retiring.removed(catalog, [copy.id]), retiring.restored(catalog, [copy.id])) == (1, 0)
    assert {c.store: c.state.value for c in replicas.of_file(catalog, file.id)} == {
        "live": "removed",
        "archive": "verified",
    }


def test_a_removal_that_did_not_come_about_can_be_taken_back(catalog: Catalog, session: Session) -> None:
    """What was to be removed and lies in the trash still is verified again when it is back in its place; what was
    removed is not."""
    file = verified(catalog, session)
    wanted = intent(catalog, file, "live")
    [copy] = [copy for copy in replicas.of_file(catalog, file.id) if copy.store == "live"]
    retiring.begin(catalog, session.id, "live", [wanted], lambda *_: "", now=NOW)
    retiring.trashed(catalog, [copy.id], now=NOW)
    retiring.begin_removing(catalog, session.id, "live", [wanted], lambda *_: "", now=NOW)
    assert retiring.restored(catalog, [copy.id]) == 1
    [found] = [found for found in replicas.of_file(catalog, file.id) if found.store == "live"]
    assert (found.state, found.trashed_as) == (ReplicaState.VERIFIED, None)
    assert retiring.removed(catalog, [copy.id]) == 0


def test_the_judge_sees_the_rows_as_they_stand(catalog: Catalog, session: Session) -> None:
    """What was begun for one store is seen by the judge of the next; what it refuses is left, and counted."""
    file = verified(catalog, session)
    both = {store: intent(catalog, file, store) for store in STORES}

    def judge(_: object, seen: retirement.FileOnStores, confirmed: frozenset[object]) -> str:
        whole = [copy for copy in seen.copies if copy.state is ReplicaState.VERIFIED and copy.replica_id in confirmed]
        return "" if whole else "it is the last"

    first = retiring.begin(catalog, session.id, "live", [both["live"]], judge, now=NOW)
    second = retiring.begin(catalog, session.id, "archive", [both["archive"]], judge, now=NOW)
    assert len(first.files) == 1 and second.files == () and second.kept == {"it is the last": 1}


def test_another_sites_copies_are_not_seen(url: str, catalog: Catalog, session: Session) -> None:
    """What another site calls by a store's name is another store: its copies count for nothing here."""
    file = verified(catalog, session)
    there = open_catalog(url, "there")
    assert retirement.page(there, session.id) == []
    with there.reading() as unit:
        assert retirement.files(unit, [file.id])[0].copies == ()
    there.close()


def test_files_and_trash_are_read_in_pages(catalog: Catalog, session: Session) -> None:
    """Each is seen once, whatever the page's length."""
    made = [verified(catalog, session, f"{number}.tiff") for number in range(5)]
    seen, after = [], None
    while page := retirement.page(catalog, session.id, after=after, limit=2):
        seen += [file.id for file in page]
        after = page[-1].id
    assert seen == [file.id for file in made]
    for number, file in enumerate(reversed(made)):
        at = NOW + timedelta(hours=number // 2)
        retiring.begin(catalog, session.id, "live", [intent(catalog, file, "live")], lambda *_: "", now=at)
    trashed, mark = [], None
    while True:
        some, mark = retirement.in_trash(catalog, "live", ReplicaState.RETIRING, after=mark, limit=2)
        trashed += [file.id for file in some]
        if mark is None:
            break
    assert set(trashed) == set(seen) and len(trashed) == 5


MARK = (NOW, SOME)
HOT: dict[str, tuple[Select, str]] = {  # type: ignore[type-arg]
    "files": (retirement.page_query("here", SOME, SOME, 10), "ix_files_session_id_id (session_id=? AND id>?)"),
    "copies": (retirement.copies_query([SOME, SOME]), "ix_replicas_file_id_id (file_id=?)"),
    "trash": (
        retirement.trash_query("here", "live", ReplicaState.TRASHED, MARK, 10),
        "INDEX ix_replicas_scrub (site=? AND store=? AND state=? AND (checked_at,id)>(?,?))",
    ),
    "bytes": (
        retirement.bytes_query("here", "live", ReplicaState.TRASHED),
        "COVERING INDEX ix_replicas_scrub (site=? AND store=? AND state=?)",
    ),
    "any in the trash": (
        retirement.any_query("here", "live", ReplicaState.TRASHED),
        "INDEX ix_replicas_scrub (site=? AND store=? AND state=?)",
    ),
    "trash of a session": (retirement.trash_of_query(SOME), "ix_replicas_file_id_id (file_id=?)"),
    "busy": (retirement.busy_query(SOME), "ix_exposures_session_id_state (session_id=? AND state=?)"),
    "holds": (holds.open_query(SOME), "ix_holds_session_id_lifted_at (session_id=? AND lifted_at=?)"),
    "announcements": (
        announcements.open_query("here"),
        "ix_announcements_site_ended_at_id (site=? AND ended_at=?)",
    ),
    "announcements of a session": (
        announcements.session_query(SOME),
        "ix_announcements_session_id_ended_at_id (session_id=? AND ended_at=?)",
    ),
    "sessions on a store": (
        retirement.sessions_query("here", "live"),
        "ix_replicas_scrub (site=? AND store=? AND state=?)",
    ),
    "files with their places": (retirement.files_query([SOME]), "sqlite_autoindex_files_1 (id=?)"),
}


@pytest.mark.parametrize("name", HOT)
@pytest.mark.only_on("sqlite")
def test_what_clearing_asks_is_read_from_an_index(catalog: Catalog, name: str) -> None:
    """Nothing is scanned; nothing is sorted, but the few holds of a session, and what is told apart by
    sessions or stores."""
    query, index = HOT[name]
    compiled = query.compile(dialect=sqlite.dialect(), compile_kwargs={"render_postcompile": True})
    with catalog.reading() as unit:
        values = (None,) * len(compiled.positiontup or ())
        plan = [row[3] for row in unit.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", values)]
    assert any(index in line for line in plan), plan
    assert not any(line.startswith("SCAN") for line in plan), plan
    if name not in ("holds", "sessions on a store", "trash of a session"):
        assert not any("TEMP B-TREE" in line for line in plan), plan
