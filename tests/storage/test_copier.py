from __future__ import annotations

import errno
import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coldchain.catalog import events, exposures, files, replicas, sessions, tasks
from coldchain.catalog.engine import Catalog
from coldchain.errors import CatalogError
from coldchain.model.events import Severity
from coldchain.model.files import DataFile, FileKind, FileState, ReplicaState
from coldchain.model.session import Layout, Session
from coldchain.storage.copies import backoff, copier, queue
from coldchain.storage.copies.copier import Copier
from coldchain.storage.copies.troubles import Troubles
from coldchain.storage.posix.store import PosixStore
from coldchain.storage.store import FileFacts
from coldchain.storage.wrappers.throttled import Limit, Throttled

MakeStore = Callable[[str], PosixStore]
MakeTmpfs = Callable[..., Path]
DEADLINE_SECONDS = 60.0


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same waits, a hundred times shorter."""
    monkeypatch.setattr(backoff, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(backoff, "LONGEST_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(copier, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(queue, "_EMPTY_SECONDS", 0.01)
    monkeypatch.setattr(copier, "_SWEEP_WAIT_SECONDS", 0.05)


@pytest.fixture
def session(catalog: Catalog, tmp_path: Path) -> Session:
    """A session whose folder lies two deep in the camera's."""
    (tmp_path / "camera" / "2024" / "visit").mkdir(parents=True)
    return sessions.create(
        catalog,
        name="visit",
        instrument_name="krios",
        source_root=str(tmp_path / "camera"),
        folder="2024/visit",
        layout=Layout.PLAIN,
    )


@pytest.fixture
def arrive(catalog: Catalog, session: Session) -> Callable[..., DataFile]:
    """Write a file in the session's folder and journal it."""

    def write(name: str, stores: list[str], *, size_bytes: int = 10_000) -> DataFile:
        path = Path(session.source_root, session.folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(name).randbytes(size_bytes))
        status = path.stat()
        return files.record_arrival(
            catalog,
            session_id=session.id,
            relative_path=name,
            kind=FileKind.MOVIE,
            size_bytes=status.st_size,
            modified_ns=status.st_mtime_ns,
            stores=stores,
        )

    return write


@contextmanager
def running(catalog: Catalog, *stores: PosixStore, threads: int = 2) -> Iterator[Copier]:
    """A copier at work."""
    made = Copier(catalog, {store.name: store for store in stores}, threads=threads)
    made.start()
    try:
        yield made
        assert made.alive()
    finally:
        made.stop()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; the deadline is only there to end a failing test."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def counted_copies(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The source and the number of stores of every try to copy from here on."""
    calls: list[tuple[str, int]] = []
    copy = copier.copy_verified

    def counted(root, source, relative, stores, **named):
        calls.append((source, len(stores)))
        return copy(root, source, relative, stores, **named)

    monkeypatch.setattr(copier, "copy_verified", counted)
    return calls


def states(catalog: Catalog, file: DataFile) -> dict[str, ReplicaState]:
    """How far each copy of a file has come."""
    return {replica.store: replica.state for replica in replicas.of_file(catalog, file.id)}


def parts_of(store: PosixStore) -> list[Path]:
    """Unfinished copies."""
    return list(store.root.rglob(".*.part"))


def test_every_wanted_copy_is_made_and_proved(catalog: Catalog, arrive, make_store: MakeStore) -> None:
    """What the catalog wants lies at instrument, session and path on each store; digest and proof are written down."""
    stores = [make_store("raid"), make_store("archive")]
    arrived = [arrive(f"Data/movie {n}.tiff", ["raid", "archive"]) for n in range(12)]
    with running(catalog, *stores) as at_work:
        wait_until(at_work.idle)
    for file in arrived:
        content = random.Random(file.relative_path).randbytes(10_000)
        sha256 = hashlib.sha256(content).hexdigest()
        assert files.get(catalog, file.id).sha256 == sha256
        for store, replica in zip(stores, replicas.of_file(catalog, file.id), strict=True):
            assert (replica.state, replica.sha256, replica.attempts) == (ReplicaState.VERIFIED, sha256, 1)
            assert replica.level is not None
            assert (store.root / "krios/2024/visit" / file.relative_path).read_bytes() == content


def test_a_restart_does_nothing_twice(
    catalog: Catalog, arrive, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second copier on a finished catalog reads nothing; one whose word was lost recognises the whole copy."""
    store = make_store("raid")
    file = arrive("movie.tiff", ["raid"])
    with running(catalog, store) as at_work:
        wait_until(at_work.idle)
    inode = (store.root / "krios/2024/visit/movie.tiff").stat().st_ino
    calls = counted_copies(monkeypatch)
    with running(catalog, store) as again:
        wait_until(again.idle)
    assert calls == []
    replica = replicas.of_file(catalog, file.id)[0]
    replicas.record_copy(catalog, replica.id, state=ReplicaState.FAILED, level=None, sha256=None, detail="forgotten")
    with running(catalog, store):
        wait_until(lambda: states(catalog, file) == {"raid": ReplicaState.VERIFIED})
    assert (store.root / "krios/2024/visit/movie.tiff").stat().st_ino == inode


def test_a_missing_store_holds_up_no_other_and_is_served_when_it_comes(
    catalog: Catalog, arrive, make_store: MakeStore, tmp_path: Path
) -> None:
    """An unmounted drive fails with the reason while the other store gets everything; mounted, it catches up."""
    usb = PosixStore("usb", tmp_path / "usb")
    arrived = [arrive(f"{n}.tiff", ["raid", "usb"]) for n in range(5)]
    with running(catalog, make_store("raid"), usb):
        wait_until(lambda: all(states(catalog, file)["raid"] is ReplicaState.VERIFIED for file in arrived))
        wait_until(lambda: any("not there" in r.detail for f in arrived for r in replicas.of_file(catalog, f.id)))
        usb.root.mkdir()
        wait_until(lambda: all(states(catalog, file)["usb"] is ReplicaState.VERIFIED for file in arrived))


def test_a_store_that_was_away_is_served_as_soon_as_it_is_back(
    catalog: Catalog, arrive, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the store waits, and never long: no copy of its own waits on when the store is there again."""
    monkeypatch.setattr(backoff, "LONGEST_WAIT_SECONDS", 3600.0)
    monkeypatch.setattr(backoff, "FIRST_WAIT_SECONDS", 3600.0)
    monkeypatch.setattr(backoff, "LONGEST_STORE_WAIT_SECONDS", 0.05)
    away = make_store("raid")
    away.root.rename(away.root.with_name("unmounted"))
    file = arrive("movie.tiff", ["raid"])
    with running(catalog, away):
        wait_until(lambda: states(catalog, file) == {"raid": ReplicaState.FAILED})
        away.root.with_name("unmounted").rename(away.root)
        wait_until(lambda: states(catalog, file) == {"raid": ReplicaState.VERIFIED})


@pytest.mark.root
def test_a_full_store_is_served_when_space_returns(
    catalog: Catalog, arrive, make_store: MakeStore, make_tmpfs: MakeTmpfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full: the reason and the free bytes are in the catalog; when space returns, the wait ends at once."""
    monkeypatch.setattr(backoff, "LONGEST_WAIT_SECONDS", 3600.0)
    monkeypatch.setattr(backoff, "FIRST_WAIT_SECONDS", 3600.0)
    small = PosixStore("small", make_tmpfs("small", size_bytes=1 << 20))
    filler = small.root / "filler"
    filler.write_bytes(bytes(900_000))
    file = arrive("movie.tiff", ["raid", "small"], size_bytes=500_000)
    with running(catalog, make_store("raid"), small):
        both = {"raid": ReplicaState.VERIFIED, "small": ReplicaState.FAILED}
        wait_until(lambda: states(catalog, file) == both)
        assert "is full" in replicas.of_file(catalog, file.id)[1].detail
        assert parts_of(small) == []
        filler.unlink()
        wait_until(lambda: states(catalog, file)["small"] is ReplicaState.VERIFIED)


@pytest.mark.root
def test_a_store_that_stays_full_is_news_once(
    catalog: Catalog, arrive, make_tmpfs: MakeTmpfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much is free at each try: that a copy waits for room is one event, not one every few minutes."""
    small = PosixStore("small", make_tmpfs("small", size_bytes=1 << 20))
    arrive("movie.tiff", ["small"], size_bytes=2_000_000)
    calls = counted_copies(monkeypatch)
    with running(catalog, small):
        for count in range(1, 5):
            wait_until(lambda count=count: len(calls) > count)
            (small.root / f"filler{count}").write_bytes(bytes(10_000))
    assert [e.kind for e in events.recent(catalog, minimum=Severity.ERROR)] == ["replica.failed"]


def _name_too_long(store: PosixStore) -> tuple[str, str]:
    return "n" * 250 + ".tiff", "name.tiff"


def _folder_in_the_way(store: PosixStore) -> tuple[str, str]:
    (store.root / "krios/2024/visit/taken.tiff").mkdir(parents=True)
    return "taken.tiff", "name.tiff"


def _file_in_a_folders_place(store: PosixStore) -> tuple[str, str]:
    folder = store.root / "krios/2024/visit"
    folder.mkdir(parents=True)
    (folder / "Data").write_bytes(b"x")
    return "Data/movie.tiff", "name.tiff"


@pytest.mark.parametrize("hinder", [_name_too_long, _folder_in_the_way, _file_in_a_folders_place])
def test_a_name_that_a_store_refuses_holds_up_no_other(
    catalog: Catalog, arrive, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, hinder
) -> None:
    """One file that cannot have its name waits alone, for an hour; those after it are copied at once."""
    monkeypatch.setattr(backoff, "LONGEST_WAIT_SECONDS", 3600.0)
    monkeypatch.setattr(backoff, "FIRST_WAIT_SECONDS", 3600.0)
    store = make_store("raid")
    refused, fine = hinder(store)
    if hinder is _name_too_long:
        monkeypatch.setattr(PosixStore, "receive", refusing(refused, PosixStore.receive))
    bad = arrive(refused, ["raid"])
    rest = [arrive(f"{n}-{fine}", ["raid"]) for n in range(3)]
    with running(catalog, store, threads=1):
        wait_until(lambda: states(catalog, bad) == {"raid": ReplicaState.FAILED})
        wait_until(lambda: all(states(catalog, file) == {"raid": ReplicaState.VERIFIED} for file in rest))


def refusing(name: str, receive):
    """A store on a file system that holds no such name (EINVAL and ENAMETOOLONG look alike to it)."""

    @contextmanager
    def refuse(self: PosixStore, relative: str, facts: FileFacts):
        if relative.endswith(name):
            with self._keeper.place.stating("beginning the copy", relative):
                raise OSError(errno.ENAMETOOLONG, "File name too long")
        with receive(self, relative, facts) as incoming:
            yield incoming

    return refuse


def test_what_waits_to_be_computed_is_hashed_while_no_store_is_well(
    catalog: Catalog, arrive, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every drive unmounted, exposures still get their inputs' digests and are ready; nothing counts as copied."""
    monkeypatch.setattr(backoff, "LONGEST_WAIT_SECONDS", 3600.0)
    monkeypatch.setattr(backoff, "FIRST_WAIT_SECONDS", 3600.0)
    names = [f"{n}.tiff" for n in range(4)]
    arrived = [arrive(name, ["usb"]) for name in names]
    for name, file in zip(names, arrived, strict=True):
        exposure = exposures.ensure(catalog, session.id, name)
        exposures.attach_input(catalog, exposure.id, file.id)
    with running(catalog, PosixStore("usb", tmp_path / "usb"), threads=1):
        wait_until(lambda: len(exposures.ready(catalog, 9)) == 4)
    for file in arrived:
        content = random.Random(file.relative_path).randbytes(10_000)
        assert files.get(catalog, file.id).sha256 == hashlib.sha256(content).hexdigest()
        assert ReplicaState.VERIFIED not in states(catalog, file).values()


def test_a_vanished_movie_is_not_hashed_without_end(
    catalog: Catalog, arrive, session: Session, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that is gone waits for its next try, whether it is to be copied or to be hashed."""
    monkeypatch.setattr(backoff, "LONGEST_WAIT_SECONDS", 3600.0)
    monkeypatch.setattr(backoff, "FIRST_WAIT_SECONDS", 3600.0)
    gone = arrive("gone.tiff", ["raid"])
    exposures.attach_input(catalog, exposures.ensure(catalog, session.id, "gone").id, gone.id)
    Path(session.source_root, session.folder, "gone.tiff").unlink()
    calls = counted_copies(monkeypatch)
    with running(catalog, make_store("raid")):
        wait_until(lambda: states(catalog, gone) == {"raid": ReplicaState.FAILED})
        later = [arrive(f"{n}.tiff", ["raid"]) for n in range(3)]
        wait_until(lambda: all(states(catalog, file) == {"raid": ReplicaState.VERIFIED} for file in later))
    assert [source for source, _ in calls].count("2024/visit/gone.tiff") == 1


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory"), RuntimeError("can't start new thread")]
)
@pytest.mark.parametrize("place", ["copy", "look"])
def test_scarce_memory_and_threads_end_no_worker(
    catalog: Catalog, arrive, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, caplog, error, place: str
) -> None:
    """A machine at its limit is outlived: the trace is in the log, and the copy is made later."""
    where, name = (copier, "copy_verified") if place == "copy" else (tasks, "to_copy")
    real, failures = getattr(where, name), iter(range(4))

    def scarce(*given, **named):
        if next(failures, None) is not None:
            raise error
        return real(*given, **named)

    monkeypatch.setattr(where, name, scarce)
    file = arrive("movie.tiff", ["raid"])
    with running(catalog, make_store("raid")) as at_work:
        wait_until(lambda: states(catalog, file) == {"raid": ReplicaState.VERIFIED})
        assert at_work.alive()
    assert any(record.exc_info for record in caplog.records)


def test_what_is_no_longer_wanted_keeps_nobody_busy(
    catalog: Catalog, arrive, make_store: MakeStore, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that failed once and was then replaced leaves the copier idle: nobody will try that version again."""
    monkeypatch.setattr(backoff, "LONGEST_WAIT_SECONDS", 3600.0)
    monkeypatch.setattr(backoff, "FIRST_WAIT_SECONDS", 3600.0)
    gone = arrive("movie.tiff", ["raid"])
    path = Path(session.source_root, session.folder, "movie.tiff")
    path.unlink()
    with running(catalog, make_store("raid")) as at_work:
        wait_until(lambda: states(catalog, gone) == {"raid": ReplicaState.FAILED})
        assert not at_work.idle()
        new = arrive("movie.tiff", ["raid"], size_bytes=20_000)
        wait_until(lambda: states(catalog, new) == {"raid": ReplicaState.VERIFIED})
        wait_until(at_work.idle)


def test_a_full_stores_last_wish_keeps_nobody_busy(
    catalog: Catalog, arrive, make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store in trouble that nothing wants any more is not waited for."""
    monkeypatch.setattr(backoff, "LONGEST_WAIT_SECONDS", 3600.0)
    monkeypatch.setattr(backoff, "FIRST_WAIT_SECONDS", 3600.0)
    file = arrive("movie.tiff", ["usb"])
    with running(catalog, PosixStore("usb", tmp_path / "usb")) as at_work:
        wait_until(lambda: states(catalog, file) == {"usb": ReplicaState.FAILED})
        assert not at_work.idle()
        files.set_state(catalog, file.id, FileState.REPLACED, "its content changed")
        wait_until(at_work.idle)


def test_a_file_in_trouble_holds_up_no_other(catalog: Catalog, arrive, make_store: MakeStore, session: Session) -> None:
    """A vanished source and one that changed since it was catalogued fail with their reasons; the rest is copied."""
    gone, changed, *rest = [arrive(f"{n}.tiff", ["raid"]) for n in range(6)]
    folder = Path(session.source_root, session.folder)
    (folder / gone.relative_path).unlink()
    (folder / changed.relative_path).write_bytes(b"other")
    store = make_store("raid")
    with running(catalog, store) as at_work:
        wait_until(at_work.idle)
    assert all(states(catalog, file) == {"raid": ReplicaState.VERIFIED} for file in rest)
    for file, reason in ((gone, "no longer there"), (changed, "as catalogued")):
        (replica,) = replicas.of_file(catalog, file.id)
        assert replica.state is ReplicaState.FAILED
        assert reason in replica.detail
        assert not (store.root / "krios/2024/visit" / file.relative_path).exists()


def test_the_same_failure_again_is_not_news(
    catalog: Catalog, arrive, make_store: MakeStore, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that is gone for good is tried again and again, and written down once."""
    file = arrive("movie.tiff", ["raid"])
    Path(session.source_root, session.folder, "movie.tiff").unlink()
    calls = counted_copies(monkeypatch)
    with running(catalog, make_store("raid")):
        wait_until(lambda: len(calls) >= 4)
    (replica,) = replicas.of_file(catalog, file.id)
    assert replica.attempts == 1
    assert [e.kind for e in events.recent(catalog, minimum=Severity.ERROR)] == ["replica.failed"]


def test_the_new_version_of_a_changed_source_is_copied(
    catalog: Catalog, arrive, make_store: MakeStore, session: Session
) -> None:
    """When the collector takes in the new content, that is copied, and the old copy stays beside it."""
    store = make_store("raid")
    first = arrive("movie.tiff", ["raid"])
    with running(catalog, store):
        wait_until(lambda: states(catalog, first) == {"raid": ReplicaState.VERIFIED})
        second = arrive("movie.tiff", ["raid"], size_bytes=20_000)
        wait_until(lambda: states(catalog, second) == {"raid": ReplicaState.VERIFIED})
    assert sorted(path.stat().st_size for path in store.root.rglob("movie*")) == [10_000, 20_000]
    (older,) = replicas.of_file(catalog, first.id)
    assert older.kept_as is not None
    kept = (store.root / older.kept_as).read_bytes()
    assert (older.state, older.sha256) == (ReplicaState.VERIFIED, hashlib.sha256(kept).hexdigest())


def test_stopping_finishes_what_is_in_hand(
    catalog: Catalog, arrive, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copier that is stopped in the middle of a copy ends it, records it, and takes no other."""
    arrived = [arrive(f"{n}.tiff", ["raid"], size_bytes=2_000_000) for n in range(2)]
    begun, go_on = threading.Event(), threading.Event()
    copy = copier.copy_verified

    def held(*given, **named):
        begun.set()
        assert go_on.wait(DEADLINE_SECONDS)
        return copy(*given, **named)

    monkeypatch.setattr(copier, "copy_verified", held)
    store = make_store("raid")
    at_work = Copier(catalog, {"raid": store}, threads=1)
    at_work.start()
    assert begun.wait(DEADLINE_SECONDS)
    assert not at_work.idle()
    stopper = threading.Thread(target=at_work.stop)
    stopper.start()
    go_on.set()
    stopper.join(DEADLINE_SECONDS)
    assert not stopper.is_alive()
    assert not at_work.alive()
    assert [states(catalog, file)["raid"] for file in arrived] == [ReplicaState.WANTED, ReplicaState.VERIFIED]


def test_what_a_killed_copier_left_is_removed_on_every_store(
    catalog: Catalog, make_store: MakeStore, tmp_path: Path
) -> None:
    """Unfinished copies of an earlier process go at the start, on a late store when it comes."""
    raid, usb = make_store("raid"), PosixStore("usb", tmp_path / "usb")
    name = f".movie.tiff.{'0' * 32}.part"
    (raid.root / name).write_bytes(b"half")
    with running(catalog, raid, usb):
        wait_until(lambda: parts_of(raid) == [])
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / name).write_bytes(b"half")
        elsewhere.rename(usb.root)
        wait_until(lambda: parts_of(usb) == [])


def test_a_catalog_that_refuses_for_a_while_loses_nothing(
    catalog: Catalog, arrive, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy whose result could not be written down is recognised and written down later."""
    record, refusals = replicas.record_copies, iter(range(3))

    def refuse(*given, **named):
        if next(refusals, None) is not None:
            raise CatalogError("another process holds the catalog")
        return record(*given, **named)

    monkeypatch.setattr(replicas, "record_copies", refuse)
    file = arrive("movie.tiff", ["raid"])
    with running(catalog, make_store("raid")):
        wait_until(lambda: states(catalog, file) == {"raid": ReplicaState.VERIFIED})


def test_a_whole_copy_is_recognised_when_its_source_is_gone(
    catalog: Catalog, session: Session, arrive, make_store: MakeStore
) -> None:
    """Where nothing is left to make a copy from, but its bytes lie under its name, it is read back and verified; what
    lies there with other bytes is not."""
    whole, other = arrive("whole.tiff", ["raid"]), arrive("other.tiff", ["raid"])
    store = make_store("raid")
    for file, content in ((whole, b"whole"), (other, b"other")):
        source = Path(session.source_root, session.folder, file.relative_path)
        sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
        files.set_digest(catalog, file.id, sha256)
        copy = store.root / "krios" / "2024" / "visit" / file.relative_path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes() if content == b"whole" else content)
        source.unlink()
    with running(catalog, store):
        wait_until(lambda: states(catalog, whole) == {"raid": ReplicaState.VERIFIED})
        wait_until(lambda: states(catalog, other) == {"raid": ReplicaState.FAILED})


def test_a_source_whose_bytes_differ_at_the_second_reading_is_not_believed(
    catalog: Catalog, arrive, make_store: MakeStore
) -> None:
    """Same size and time but another digest than the first copy had: the second store's copy fails with the reason."""
    file = arrive("movie.tiff", ["raid"])
    files.set_digest(catalog, file.id, "0" * 64)
    with running(catalog, make_store("raid")) as at_work:
        wait_until(at_work.idle)
    (replica,) = replicas.of_file(catalog, file.id)
    assert replica.state is ReplicaState.FAILED
    assert "touch it" in replica.detail


def test_an_outage_is_told_once_and_what_waits_keeps_its_order(
    catalog: Catalog, arrive, make_store: MakeStore, tmp_path: Path
) -> None:
    """Of many files for a store that is away, the first says so; the others stay wanted, without an event each."""
    usb = PosixStore("usb", tmp_path / "usb")
    arrived = [arrive(f"{n}.tiff", ["usb"], size_bytes=2_000_000) for n in range(6)]
    with running(catalog, usb, threads=1):
        wait_until(lambda: any(states(catalog, file)["usb"] is ReplicaState.FAILED for file in arrived))
        time.sleep(0.3)  # tried again and again meanwhile
        found = [states(catalog, file)["usb"] for file in arrived]
        assert found.count(ReplicaState.FAILED) == 1
        assert len(events.recent(catalog, minimum=Severity.ERROR)) == 1
        usb.root.mkdir()
        wait_until(lambda: all(states(catalog, file)["usb"] is ReplicaState.VERIFIED for file in arrived))


def test_a_slow_store_holds_up_no_near_one(catalog: Catalog, arrive, make_store: MakeStore) -> None:
    """While a store that is not near takes its time with all threads that it may have, the near one is served."""
    slow, go_on = make_store("cloud"), threading.Event()
    slow.near = False
    receive = slow.receive

    @contextmanager
    def wait(relative: str, facts: FileFacts):
        assert go_on.wait(DEADLINE_SECONDS)
        with receive(relative, facts) as incoming:
            yield incoming

    slow.receive = wait  # type: ignore[method-assign]
    arrived = [arrive(f"{n}.tiff", ["raid", "cloud"], size_bytes=2_000_000) for n in range(12)]
    with running(catalog, make_store("raid"), slow, threads=6):
        wait_until(lambda: all(states(catalog, file)["raid"] is ReplicaState.VERIFIED for file in arrived))
        assert all(states(catalog, file)["cloud"] is ReplicaState.WANTED for file in arrived)
        go_on.set()
        wait_until(lambda: all(states(catalog, file)["cloud"] is ReplicaState.VERIFIED for file in arrived))


def test_stopping_does_not_wait_for_bandwidth(catalog: Catalog, arrive, make_store: MakeStore) -> None:
    """A copy that would take an hour at its limit is given up without a failure, and leaves nothing behind."""
    store = make_store("cloud")
    file = arrive("movie.tiff", ["cloud"], size_bytes=2_000_000)
    at_work = Copier(catalog, {"cloud": Throttled(store, Limit(500.0))}, threads=1)
    at_work.start()
    wait_until(lambda: parts_of(store) != [])
    at_work.stop()
    assert states(catalog, file) == {"cloud": ReplicaState.WANTED}
    assert parts_of(store) == []


def test_nothing_is_looked_for_again_before_something_was_written(
    catalog: Catalog, arrive: Callable[..., DataFile], make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an idle service one look in a stated time serves all threads; what is written is found with the next."""
    looks, look = [], tasks.to_copy
    monkeypatch.setattr(tasks, "to_copy", lambda *given, **more: looks.append(given) or look(*given, **more))
    monkeypatch.setattr(queue, "_EMPTY_SECONDS", 3600.0)
    stores = {"raid": make_store("raid")}
    work = queue.CopyQueue(catalog, stores, Troubles(stores))
    assert work.take() is None
    begun = len(looks)
    assert begun and [work.take() for _ in range(9)] == [None] * 9
    assert len(looks) == begun
    file = arrive("new.mrc", ["raid"])
    load = work.take()
    assert load is not None and [task.file.id for task in load.tasks] == [file.id]
    work.let_go(load)
    assert work.take() is not None  # found with it, and still wanted


def test_what_is_due_behind_what_waits_is_found_at_once(
    catalog: Catalog, arrive: Callable[..., DataFile], make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at a page of copies that wait for their next try does not say that there is nothing to do."""
    monkeypatch.setattr(queue, "_EMPTY_SECONDS", 3600.0)
    monkeypatch.setattr(queue, "_BATCH", 3)
    made = [arrive(f"{number}.mrc", ["raid"]) for number in range(12)]
    stores = {"raid": make_store("raid")}
    # The oldest is the last that is looked at.
    monkeypatch.setattr(Troubles, "waiting", lambda _: {file.id for file in made[1:]})
    work = queue.CopyQueue(catalog, stores, Troubles(stores))
    found = [load for _ in range(9) if (load := work.take()) is not None]
    assert [task.file.id for load in found for task in load.tasks] == [made[0].id]
