"""A file is journalled when it arrives, copied until it is verified, and never forgotten."""

from __future__ import annotations

from dataclasses import astuple, replace
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coldchain.catalog import engine, events, exposures, files, replicas, tasks, wants
from coldchain.catalog.engine import Catalog
from coldchain.errors import CatalogError
from coldchain.model.events import Severity
from coldchain.model.files import (
    CopyRecord,
    CopyTask,
    DataFile,
    FileKind,
    FileState,
    KeptAside,
    Replica,
    ReplicaState,
    VerificationLevel,
)
from coldchain.model.identity import new_id
from coldchain.model.policy import everywhere
from coldchain.model.session import Session
from tests.catalog.catalog_givens import SHA256, STORES, arrive, expose, known, new_session


def _verify(catalog: Catalog, replica: Replica, sha256: str = SHA256, kept: KeptAside | None = None) -> Replica:
    return replicas.record_copy(
        catalog,
        replica.id,
        state=ReplicaState.VERIFIED,
        level=VerificationLevel.MEDIUM,
        sha256=sha256,
        detail="",
        kept=kept,
    )


def _fail(catalog: Catalog, replica: Replica, detail: str = "no space", *, kept: KeptAside | None = None) -> Replica:
    return replicas.record_copy(
        catalog, replica.id, state=ReplicaState.FAILED, level=None, sha256=None, detail=detail, kept=kept
    )


def _tasks(
    catalog: Catalog,
    *,
    stores: tuple[str, ...] = STORES,
    limit: int = 99,
    exclude: tuple[UUID, ...] = (),
    states: tuple[ReplicaState, ...] = (ReplicaState.WANTED, ReplicaState.FAILED),
) -> list[CopyTask]:
    """All that is to be copied, in the order of the walks, each file once."""
    found: dict[UUID, CopyTask] = {}
    for state in states:
        after: UUID | None = None
        while True:
            seen, after = tasks.to_copy(catalog, state=state, stores=stores, limit=limit, exclude=exclude, after=after)
            for task in seen:
                found.setdefault(task.file.id, task)
            if after is None:
                break
    return list(found.values())


def test_an_arrival_is_journalled_with_its_replicas_and_an_event(catalog: Catalog, session: Session) -> None:
    """Before the first byte is copied the catalog knows the file and every store that wants it."""
    file = arrive(catalog, session)
    assert file == files.get(catalog, file.id)
    assert (file.state, file.sha256, file.arrived_at.utcoffset()) == (
        FileState.ARRIVED,
        None,
        file.arrived_at.utcoffset(),
    )
    assert [(r.store, r.state, r.attempts) for r in replicas.of_file(catalog, file.id)] == [
        ("live", ReplicaState.WANTED, 0),
        ("archive", ReplicaState.WANTED, 0),
    ]
    event = events.recent(catalog, session_id=session.id)[0]
    assert (event.kind, event.file_id) == ("file.arrived", file.id)


def test_the_same_file_again_is_the_same_row(catalog: Catalog, session: Session) -> None:
    """A rescan adds no row, no replica, no event, and cannot undo a verified copy."""
    file = arrive(catalog, session)
    _verify(catalog, replicas.of_file(catalog, file.id)[0])
    copies, noted = replicas.of_file(catalog, file.id), events.recent(catalog)
    assert arrive(catalog, session) == file
    assert replicas.of_file(catalog, file.id) == copies
    assert events.recent(catalog) == noted


@pytest.mark.parametrize("change", [{"size_bytes": 101}, {"modified_ns": 2}, {"modified_ns": 0}])
def test_a_changed_file_is_a_new_row(catalog: Catalog, session: Session, change: dict[str, int]) -> None:
    """Other content under the same path is another file; the old row is REPLACED and keeps its replicas."""
    old = arrive(catalog, session)
    new = arrive(catalog, session, **change)  # type: ignore[arg-type]
    assert new.id != old.id
    assert files.get(catalog, old.id).state is FileState.REPLACED
    assert len(replicas.of_file(catalog, old.id)) == len(replicas.of_file(catalog, new.id)) == 2
    assert known(catalog, session.id) == {new.relative_path: (new.size_bytes, new.modified_ns, new.state)}
    assert [task.file.id for task in _tasks(catalog)] == [new.id]


def test_a_damaged_file_is_copied_and_an_unreadable_one_is_not(catalog: Catalog, session: Session) -> None:
    """A truncated movie's bytes are the user's only copy; an unreadable file is copied once it can be read."""
    damaged = arrive(catalog, session, "cut", state=FileState.DAMAGED, detail="ends early")
    unreadable = arrive(catalog, session, "locked", state=FileState.UNREADABLE)
    assert [task.file for task in _tasks(catalog)] == [damaged]
    readable = arrive(catalog, session, "locked")
    assert (readable.id, readable.state) == (unreadable.id, FileState.ARRIVED)
    assert [task.file for task in _tasks(catalog)] == [readable, damaged]
    assert [e.kind for e in events.recent(catalog, minimum=Severity.ERROR)] == ["file.unreadable", "file.damaged"]


def test_a_file_found_late_belongs_to_its_exposure(catalog: Catalog, session: Session) -> None:
    """A rescan that knows more corrects kind and exposure."""
    exposure = exposures.ensure(catalog, session.id, "a")
    file = arrive(catalog, session, kind=FileKind.OTHER)
    again = arrive(catalog, session, kind=FileKind.MOVIE, exposure_id=exposure.id)
    assert (again.id, again.kind, again.exposure_id) == (file.id, FileKind.MOVIE, exposure.id)
    assert files.of_exposure(catalog, exposure.id) == [again]


def test_a_new_store_gets_its_replica(catalog: Catalog, session: Session) -> None:
    """A store that was added to the policy wants the file as well."""
    file = arrive(catalog, session, stores=("live",))
    arrive(catalog, session, stores=("live", "archive", "archive"))
    assert [replica.store for replica in replicas.of_file(catalog, file.id)] == ["live", "archive"]


def test_a_store_added_later_wants_what_arrived_before(url: str, catalog: Catalog, session: Session) -> None:
    """Every standing file that can be copied gets its missing replicas, once; nothing else does."""
    fine, cut = arrive(catalog, session, "fine"), arrive(catalog, session, "cut", state=FileState.DAMAGED)
    locked = arrive(catalog, session, "locked", state=FileState.UNREADABLE)
    old = arrive(catalog, session, "changed")
    new = arrive(catalog, session, "changed", size_bytes=7)
    elsewhere = arrive(catalog, new_session(catalog, folder="other"), "a")
    there = engine.open_catalog(url, "there")
    theirs = arrive(there, session, "theirs")
    there.close()
    _verify(catalog, replicas.of_file(catalog, fine.id)[0])
    stores = (*STORES, "tape", "tape", "usb")
    assert wants.want_missing(catalog, session.id, everywhere(stores)) == 6
    assert wants.want_missing(catalog, session.id, everywhere(stores)) == 0
    for file, count in ((fine, 4), (cut, 4), (new, 4), (locked, 0), (old, 2), (elsewhere, 2), (theirs, 2)):
        assert len({replica.store for replica in replicas.of_file(catalog, file.id)}) == count, file.relative_path
    assert replicas.of_file(catalog, fine.id)[0].state is ReplicaState.VERIFIED
    assert [task.file.id for task in _tasks(catalog, stores=("usb",))] == [new.id, cut.id, fine.id]
    assert wants.want_missing(catalog, session.id, everywhere(())) == 0


def test_known_is_of_one_session(catalog: Catalog, session: Session) -> None:
    """Sessions do not see each other's files."""
    other = new_session(catalog, folder="other")
    arrive(catalog, session, "a", size_bytes=1)
    arrive(catalog, other, "a", size_bytes=2)
    assert known(catalog, session.id) == {"a": (1, 1, FileState.ARRIVED)}
    assert known(catalog, new_id()) == {}


def test_a_copy_task_says_where_everything_lies(catalog: Catalog, session: Session) -> None:
    """A copier needs nothing but its tasks."""
    file = arrive(catalog, session)
    (task,) = _tasks(catalog)
    assert (task.file, task.instrument, task.session_folder, task.source_root) == (file, "krios", "visit", "/camera")
    assert list(task.replicas) == replicas.of_file(catalog, file.id)


@pytest.mark.parametrize("limit", [1, 2, 3, 8, 9, 99])
def test_each_queue_is_walked_newest_first_and_to_its_end(catalog: Catalog, session: Session, limit: int) -> None:
    """However few a call looks at, the walk meets every copy: those never tried apart from those that failed."""
    made = [arrive(catalog, session, name) for name in ("a", "b", "c", "d")]
    for replica in replicas.of_file(catalog, made[0].id):
        _fail(catalog, replica)
    _fail(catalog, replicas.of_file(catalog, made[1].id)[0])
    paths = [task.file.relative_path for task in _tasks(catalog, limit=limit, states=(ReplicaState.WANTED,))]
    assert paths == ["d", "c", "b"]
    paths = [task.file.relative_path for task in _tasks(catalog, limit=limit, states=(ReplicaState.FAILED,))]
    assert paths == ["b", "a"]
    assert len(_tasks(catalog, limit=limit)[0].replicas) == 2


def test_excluded_files_and_replicas_are_not_handed_out(catalog: Catalog, session: Session) -> None:
    """What is in hand, or waits for its next try, is left out, and does not lengthen a look."""
    made = [arrive(catalog, session, name) for name in ("a", "b", "c")]
    hands = tuple(file.id for file in made[1:])
    assert [task.file.relative_path for task in _tasks(catalog, limit=1, exclude=hands)] == ["a"]
    found, end = tasks.to_copy(catalog, state=ReplicaState.WANTED, stores=STORES, limit=4, exclude=hands)
    assert (found, end) == ([], (50, replicas.of_file(catalog, made[1].id)[0].id))
    first, second = replicas.of_file(catalog, made[2].id)
    assert _tasks(catalog, exclude=(first.id,))[0].replicas == (second,)
    first, second = replicas.of_file(catalog, made[0].id)
    assert made[0] not in [task.file for task in _tasks(catalog, exclude=(first.id, second.id))]


def test_only_the_stores_asked_for_are_handed_out(catalog: Catalog, session: Session) -> None:
    """A store that is switched off keeps its wishes, and its files do not come."""
    arrive(catalog, session)
    (task,) = _tasks(catalog, stores=("archive",))
    assert [replica.store for replica in task.replicas] == ["archive"]
    assert _tasks(catalog, stores=()) == []
    assert _tasks(catalog, stores=("elsewhere",)) == []


def test_another_sites_replicas_are_not_handed_out(url: str, catalog: Catalog, session: Session) -> None:
    """Where two sites want the same file, each copies for its own stores, even if those have the same name."""
    file = arrive(catalog, session, stores=("live",))
    there = engine.open_catalog(url, "there")
    arrive(there, session, stores=("live", "archive"))
    (task,) = _tasks(catalog)
    there.close()
    assert [replica.store for replica in task.replicas] == ["live"]
    assert task.file == file


def test_what_an_exposure_waits_for_is_handed_out_to_be_hashed(catalog: Catalog, session: Session) -> None:
    """The inputs that lack only their digest, newest first; no gain, no file that is known already. A walk looks at a
    stated number of exposures at a time, and reaches all."""
    made = []
    for name in ("a", "b", "c"):
        exposure = exposures.ensure(catalog, session.id, name)
        made.append(arrive(catalog, session, f"{name}.tiff", exposure_id=exposure.id))
        exposures.attach_input(catalog, exposure.id, made[-1].id)
    arrive(catalog, session, "gain.mrc", kind=FileKind.GAIN)
    expose(catalog, session, "hashed")
    found, end = tasks.to_hash(catalog, limit=9, exclude=[made[1].id])
    assert [(task.file, task.replicas) for task in found] == [(made[2], ()), (made[0], ())]
    assert end is None
    walked: list[str] = []
    before: UUID | None = None
    for _ in range(4):
        found, before = tasks.to_hash(catalog, limit=1, exclude=(), before=before)
        walked += [task.file.relative_path for task in found]
    assert walked == ["c.tiff", "b.tiff", "a.tiff"]
    assert tasks.to_hash(catalog, limit=1, exclude=(), before=before) == ([], None)


OTHER = "cd" * 32
ANY = UUID(int=0)


def _versions(catalog: Catalog, session: Session) -> tuple[Replica, Replica]:
    """A verified copy of a file's first version, and the replica of the second, which wants its name."""
    first = replicas.of_file(catalog, arrive(catalog, session, stores=("live",)).id)[0]
    _verify(catalog, first)
    second = arrive(catalog, session, size_bytes=7, stores=("live",))
    return first, replicas.of_file(catalog, second.id)[0]


def _stands(catalog: Catalog, replica: Replica) -> Replica:
    return replicas.of_file(catalog, replica.file_id)[0]


@pytest.mark.parametrize("published", [True, False])
def test_the_catalog_knows_where_a_copy_lies_that_made_way(catalog: Catalog, session: Session, published: bool) -> None:
    """An earlier version's copy stays verified and says under which name, also where the newer copy then failed."""
    first, second = _versions(catalog, session)
    kept = KeptAside("krios/visit/a/movie.tiff.replaced-abababab", SHA256)
    if published:
        assert _verify(catalog, second, OTHER, kept).kept_as is None
    else:
        _fail(catalog, second, kept=kept)
    found = _stands(catalog, first)
    assert (found.state, found.sha256, found.kept_as) == (ReplicaState.VERIFIED, SHA256, kept.path)
    assert "replica.kept" in [event.kind for event in events.recent(catalog, session_id=session.id)]
    # A third version makes the second one way and not the first, which lies elsewhere already.
    third = replicas.of_file(catalog, arrive(catalog, session, size_bytes=8, stores=("live",)).id)[0]
    _verify(catalog, third, "ef" * 32, KeptAside("elsewhere", OTHER))
    assert _stands(catalog, first) == found
    assert _stands(catalog, second).kept_as == ("elsewhere" if published else None)


@pytest.mark.parametrize(
    ("kept", "hint"),
    [
        (None, "NAME.replaced-abababab beside it"),
        (KeptAside("a.replaced-unreadable", None), "a.replaced-unreadable, as other bytes"),
        (KeptAside("a.replaced-12121212", "12" * 32), "a.replaced-12121212, as other bytes"),
    ],
)
def test_a_copy_that_nobody_can_vouch_for_is_not_called_verified(
    catalog: Catalog, session: Session, kept: KeptAside | None, hint: str
) -> None:
    """Killed between renaming and saying so, or rotten when it made way: failed, with where to look, and not tried."""
    first, second = _versions(catalog, session)
    _verify(catalog, second, OTHER, kept)
    found = _stands(catalog, first)
    assert (found.state, found.kept_as) == (ReplicaState.FAILED, None)
    assert hint in found.detail
    assert _tasks(catalog) == []
    (event,) = events.recent(catalog, minimum=Severity.ERROR)
    assert event.file_id == first.file_id


def test_a_copy_that_a_scrub_missed_while_it_made_way_stands_again(catalog: Catalog, session: Session) -> None:
    """A scrub that read what had just taken a copy's name calls that damaged; the record of the move takes it back."""
    first, second = _versions(catalog, session)
    replicas.record_check(catalog, first.id, detail="it holds other bytes")
    kept = KeptAside("krios/visit/a/movie.tiff.replaced-abababab", SHA256)
    _verify(catalog, second, OTHER, kept)
    found = _stands(catalog, first)
    assert (found.state, found.level, found.kept_as) == (ReplicaState.VERIFIED, VerificationLevel.CACHE, kept.path)
    assert _tasks(catalog) == []


def test_copies_that_are_verified_together_are_one_event(catalog: Catalog, session: Session) -> None:
    """A batch of small files is one line of the session's history; what failed in it has a line of its own."""
    wanted = [
        replicas.of_file(catalog, arrive(catalog, session, path=f"{n}.mdoc", stores=("live",)).id)[0] for n in range(3)
    ]
    proved = [CopyRecord(r.id, ReplicaState.VERIFIED, VerificationLevel.MEDIUM, SHA256) for r in wanted[:2]]
    failed = CopyRecord(wanted[2].id, ReplicaState.FAILED, None, None, "no room")
    replicas.record_copies(catalog, [*proved, failed], {replica.file_id: SHA256 for replica in wanted})
    told = {e.kind: (e.message, e.file_id) for e in events.recent(catalog) if e.kind.startswith("replica.")}
    assert told == {
        "replica.verified": ("2 files are verified on live", None),
        "replica.failed": ("2.mdoc on live is failed: no room", wanted[2].file_id),
    }
    assert [_stands(catalog, r).state for r in wanted] == [ReplicaState.VERIFIED] * 2 + [ReplicaState.FAILED]


def _many_kinds(catalog: Catalog, session: Session) -> list[CopyRecord]:
    """Copies of a batch: five as all are, two that the store calls by other names, one that was damaged, one that had
    failed before, one that takes another version's name."""
    usual = [arrive(catalog, session, f"{n}.mdoc", stores=("live",)) for n in range(10)]
    for file in usual:
        files.set_digest(catalog, file.id, SHA256)
    wanted = [replicas.of_file(catalog, file.id)[0] for file in usual]
    _verify(catalog, wanted[7])
    replicas.record_check(catalog, wanted[7].id, detail="it holds other bytes")
    _fail(catalog, wanted[8])
    _verify(catalog, wanted[9])
    newer = arrive(catalog, session, "9.mdoc", stores=("live",), modified_ns=2)
    files.set_digest(catalog, newer.id, OTHER)
    records = [
        CopyRecord(
            r.id, ReplicaState.VERIFIED, VerificationLevel.MEDIUM, SHA256, stored_as="x" if n in (5, 6) else None
        )
        for n, r in enumerate(wanted[:9])
    ]
    (last,) = replicas.of_file(catalog, newer.id)
    return [*records, CopyRecord(last.id, ReplicaState.VERIFIED, VerificationLevel.MEDIUM, OTHER)]


def _told_of(catalog: Catalog, session: Session) -> list[tuple[object, ...]]:
    """How every copy of a session stands, without what differs from session to session."""
    with catalog.reading() as unit:
        found = [file.id for file in files.of_session(catalog, session.id, limit=100)]
        rows = unit.execute(tasks.copies_query(found)).all()
    copies = [Replica(*row[2:]) for row in rows]
    plain = [astuple(replace(copy, id=ANY, file_id=ANY, verified_at=None, checked_at=None)) for copy in copies]
    return [
        (row.site, row.pending, copy.verified_at is None, copy.verified_at == copy.checked_at, *values)
        for row, copy, values in zip(rows, copies, plain, strict=True)
    ]


def test_a_batch_is_written_down_as_its_copies_one_by_one_are(catalog: Catalog, session: Session) -> None:
    """What is said of copies together and of each alone is the same, whatever kinds of them come together."""
    replicas.record_copies(catalog, _many_kinds(catalog, session))
    by_one = new_session(catalog, folder="by one")
    for record in _many_kinds(catalog, by_one):
        replicas.record_copies(catalog, [record])
    assert _told_of(catalog, session) == _told_of(catalog, by_one)
    assert sum(ReplicaState.VERIFIED in line for line in _told_of(catalog, session)) == 10
    kinds = [event.kind for event in events.recent(catalog, session_id=session.id, limit=100)]
    assert kinds.count("replica.repaired") == 1
    assert kinds.count("replica.failed") == 2  # its first try, and the version whose name was taken
    (told,) = [e.message for e in events.recent(catalog, session_id=session.id) if "are verified" in e.message]
    assert told == "9 files are verified on live"


def test_of_a_batch_with_a_wrong_proof_nothing_is_written(catalog: Catalog, session: Session) -> None:
    """One digest that is not its file's stops the whole transaction, and so does one without a level."""
    records = _many_kinds(catalog, session)
    before = _told_of(catalog, session)
    wrong = CopyRecord(records[0].replica_id, ReplicaState.VERIFIED, VerificationLevel.MEDIUM, OTHER)
    with pytest.raises(CatalogError, match="digest"):
        replicas.record_copies(catalog, [*records[1:], wrong])
    with pytest.raises(CatalogError, match="without a proof"):
        replicas.record_copies(catalog, [*records[1:], CopyRecord(wrong.replica_id, wrong.state, None, SHA256)])
    assert _told_of(catalog, session) == before


def test_a_digest_that_is_known_stays(catalog: Catalog, session: Session) -> None:
    """Of two that read a file at the same time, and read other bytes, the second is refused: one file, one digest."""
    first, second = replicas.of_file(catalog, arrive(catalog, session).id)
    record = CopyRecord(first.id, ReplicaState.VERIFIED, VerificationLevel.MEDIUM, SHA256)
    replicas.record_copies(catalog, [record], {first.file_id: SHA256})
    record = CopyRecord(second.id, ReplicaState.VERIFIED, VerificationLevel.MEDIUM, OTHER)
    with pytest.raises(CatalogError, match="the file's own"):
        replicas.record_copies(catalog, [record], {first.file_id: OTHER})
    assert files.get(catalog, first.file_id).sha256 == SHA256
    assert replicas.of_file(catalog, first.file_id)[1].state is ReplicaState.WANTED


def test_another_sites_file_is_not_handed_out_to_be_hashed(url: str, catalog: Catalog, session: Session) -> None:
    """Its digest is its own site's to write: read again and again here, it would never be known."""
    there = engine.open_catalog(url, "there")
    theirs = arrive(there, session, "theirs.tiff")
    exposure = exposures.ensure(catalog, session.id, "theirs")
    exposures.attach_input(catalog, exposure.id, theirs.id)
    assert tasks.to_hash(catalog, limit=9, exclude=()) == ([], None)
    replicas.record_copies(catalog, [], {theirs.id: SHA256})
    assert files.get(catalog, theirs.id).sha256 is None
    files.set_digest(there, theirs.id, SHA256)
    there.close()
    assert files.get(catalog, theirs.id).sha256 == SHA256


def test_a_copy_of_the_same_content_goes_on_standing(catalog: Catalog, session: Session) -> None:
    """A file whose time alone changed has one copy, which counts for both its versions; other stores are untouched."""
    old = replicas.of_file(catalog, arrive(catalog, session).id)
    for replica in old:
        _verify(catalog, replica)
    new = replicas.of_file(catalog, arrive(catalog, session, modified_ns=2).id)
    _verify(catalog, new[0])
    assert [replica.state for replica in replicas.of_file(catalog, old[0].file_id)] == [ReplicaState.VERIFIED] * 2
    newest = replicas.of_file(catalog, arrive(catalog, session, modified_ns=3).id)
    _verify(catalog, newest[0], OTHER, KeptAside("aside", SHA256))
    assert [_stands(catalog, replica).kept_as for replica in (old[0], new[0])] == ["aside", "aside"]
    assert replicas.of_file(catalog, old[0].file_id)[1].kept_as is None


def test_a_copy_is_tried_until_it_is_verified(catalog: Catalog, session: Session) -> None:
    """Every try counts and is an event; a verified copy is no longer handed out."""
    file = files.set_digest(catalog, arrive(catalog, session, stores=("live",)).id, SHA256)
    assert file.sha256 == SHA256
    (replica,) = replicas.of_file(catalog, file.id)
    failed = _fail(catalog, replica)
    assert (failed.attempts, failed.state, failed.detail, failed.verified_at) == (1, "failed", "no space", None)
    assert [task.file.id for task in _tasks(catalog)] == [file.id]
    verified = _verify(catalog, replica)
    assert (verified.attempts, verified.level, verified.sha256) == (2, VerificationLevel.MEDIUM, SHA256)
    assert verified.verified_at is not None
    assert replicas.of_file(catalog, file.id) == [verified]
    assert _tasks(catalog) == []
    kinds = [event.kind for event in events.recent(catalog, session_id=session.id, limit=2)]
    assert kinds == ["replica.verified", "replica.failed"]
    assert [task.file.id for task in _tasks(catalog)] == []
    _fail(catalog, replica, "rotten")
    assert [task.file.id for task in _tasks(catalog)] == [file.id]


def test_no_copy_is_verified_without_proof(catalog: Catalog, session: Session) -> None:
    """VERIFIED needs a level and the file's own digest; what is refused changes nothing."""
    file = files.set_digest(catalog, arrive(catalog, session, stores=("live",)).id, SHA256)
    (replica,) = replicas.of_file(catalog, file.id)
    for level, sha256 in ((None, SHA256), (VerificationLevel.CACHE, None), (VerificationLevel.CACHE, "cd" * 32)):
        with pytest.raises(CatalogError):
            replicas.record_copy(
                catalog, replica.id, state=ReplicaState.VERIFIED, level=level, sha256=sha256, detail=""
            )
    assert replicas.of_file(catalog, file.id) == [replica]


@pytest.mark.parametrize("sha256", ["", "ab", "AB" * 32, "zz" * 32, "ab" * 33])
def test_a_digest_is_a_digest(catalog: Catalog, session: Session, sha256: str) -> None:
    """Anything but 64 lower-case hexadecimal digits is refused."""
    file = arrive(catalog, session)
    with pytest.raises(CatalogError, match="64 lower-case"):
        files.set_digest(catalog, file.id, sha256)


def test_unknown_ids_are_stated_errors(catalog: Catalog) -> None:
    """Every function says which id is not there."""
    nobody = new_id()
    for attempt in (
        lambda: files.get(catalog, nobody),
        lambda: files.set_digest(catalog, nobody, SHA256),
        lambda: files.set_state(catalog, nobody, FileState.DAMAGED, ""),
        lambda: _fail(catalog, Replica(nobody, nobody, "s", ReplicaState.WANTED, None, None, 0, "", None)),
    ):
        with pytest.raises(CatalogError, match=str(nobody)):
            attempt()


def test_files_are_listed_by_state(catalog: Catalog, session: Session) -> None:
    """The page lists what went wrong, newest first."""
    fine = arrive(catalog, session, "fine")
    cut = arrive(catalog, session, "cut", state=FileState.DAMAGED)
    locked = arrive(catalog, session, "locked", state=FileState.UNREADABLE)
    wrong = (FileState.DAMAGED, FileState.UNREADABLE)
    assert files.of_session(catalog, session.id, limit=9) == [locked, cut, fine]
    assert files.of_session(catalog, session.id, states=wrong, limit=9) == [locked, cut]
    assert files.of_session(catalog, session.id, states=wrong, limit=1) == [locked]
    assert files.of_session(catalog, session.id, states=(), limit=9) == []


def test_a_file_moves_with_an_event(catalog: Catalog, session: Session) -> None:
    """A file that turns out to be damaged says so once."""
    file = arrive(catalog, session)
    for _ in range(2):
        assert files.set_state(catalog, file.id, FileState.DAMAGED, "strip 3").detail == "strip 3"
    (event,) = events.recent(catalog, minimum=Severity.ERROR)
    assert (event.kind, event.file_id) == ("file.damaged", file.id)


arrivals = st.tuples(
    st.sampled_from(["a", "b/c"]),
    st.integers(0, 2),
    st.integers(0, 1),
    st.sampled_from([FileState.ARRIVED, FileState.DAMAGED, FileState.UNREADABLE]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(st.lists(st.tuples(arrivals, st.booleans()), min_size=1, max_size=8))
def test_the_standing_row_is_the_last_arrival(
    catalog: Catalog, sequence: list[tuple[tuple[str, int, int, FileState], bool]]
) -> None:
    """Whatever arrives in whatever order: a path's standing row is its last arrival, no replica ever vanishes, a
    verified copy stays verified, and all that is to be copied, and only that, is handed out."""
    session = new_session(catalog, folder=str(new_id()))
    stores = (f"live {session.id}", f"archive {session.id}")  # earlier examples' files are not handed out
    last: dict[str, DataFile] = {}
    copies: dict[object, set[object]] = {}
    verified: set[object] = set()
    for (path, size_bytes, modified_ns, state), copy in sequence:
        file = arrive(
            catalog, session, path, size_bytes=size_bytes, modified_ns=modified_ns, state=state, stores=stores
        )
        last[path] = file
        if copy:
            for replica in replicas.of_file(catalog, file.id)[:1]:
                verified.add(_verify(catalog, replica).id)
        for seen, ids in copies.items():
            assert ids <= {replica.id for replica in replicas.of_file(catalog, seen)}  # type: ignore[arg-type]
        copies[file.id] = {replica.id for replica in replicas.of_file(catalog, file.id)}
    assert known(catalog, session.id) == {
        path: (file.size_bytes, file.modified_ns, file.state) for path, file in last.items()
    }
    found = [replica for seen in copies for replica in replicas.of_file(catalog, seen)]  # type: ignore[arg-type]
    assert {replica.id for replica in found if replica.state is ReplicaState.VERIFIED} == verified
    standing = {file.id for file in last.values()}
    wanted = {r.id for r in found if r.file_id in standing and r.state is ReplicaState.WANTED}
    handed_out = _tasks(catalog, stores=stores)
    assert {replica.id for task in handed_out for replica in task.replicas} == wanted
