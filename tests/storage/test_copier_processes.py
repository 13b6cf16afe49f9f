"""Batches of small files, copied in processes of their own."""

from __future__ import annotations

import hashlib
import pickle
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from coldchain.catalog import arrivals, files, replicas, sessions
from coldchain.catalog.arrivals import Arrival
from coldchain.catalog.engine import Catalog
from coldchain.compute.local import LocalEngine
from coldchain.errors import ComputeError
from coldchain.model.files import DataFile, FileKind, ReplicaState
from coldchain.model.session import Layout
from coldchain.storage.copies import backoff, copier
from coldchain.storage.copies.copier import Copier
from coldchain.storage.copies.small import MOST_FILES
from coldchain.storage.portable_names import NameRules
from coldchain.storage.posix.keeper import RootKeeper
from coldchain.storage.posix.store import PosixStore
from tests.storage.test_copier import parts_of, wait_until

MakeStore = Callable[[str], PosixStore]


class Watched:
    """An engine that counts what it is given; the first so many of that are lost with their worker."""

    slots = 1

    def __init__(self, inner: LocalEngine, losses: int) -> None:
        self.given = 0
        self._inner = inner
        self._losses = losses

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Lose it, or run it elsewhere."""
        self.given += 1
        if self.given > self._losses:
            return self._inner.submit(function, *args)
        lost: Future[Any] = Future()
        lost.set_exception(ComputeError("a worker process died"))
        return lost

    def close(self) -> None:
        """As the engine inside."""
        self._inner.close()


@pytest.fixture(scope="module")
def processes() -> Iterator[LocalEngine]:
    """A process for batches."""
    engine = LocalEngine(1)
    yield engine
    engine.close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(backoff, "LONGEST_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(copier, "POLL_SECONDS", 0.01)


@pytest.fixture
def arrived(catalog: Catalog, tmp_path: Path) -> list[DataFile]:
    """More small files than one batch holds, wanted on two stores."""
    folder = tmp_path / "camera" / "visit"
    folder.mkdir(parents=True)
    session = sessions.create(
        catalog,
        name="visit",
        instrument_name="krios",
        source_root=str(folder.parent),
        folder="visit",
        layout=Layout.PLAIN,
    )
    names = [f"{number}.mdoc" for number in range(MOST_FILES + 10)]
    journalled = []
    for number, name in enumerate(names):
        (folder / name).write_bytes(random.Random(number).randbytes(100 + number))
        status = (folder / name).stat()
        journalled.append(Arrival(name, FileKind.METADATA, status.st_size, status.st_mtime_ns, ("one", "two"), 50))
    arrivals.record(catalog, session.id, journalled)
    found = {file.relative_path: file for file in files.of_session(catalog, session.id, limit=len(names))}
    return [found[name] for name in names]


@pytest.mark.parametrize("losses", [0, 1])
def test_small_files_are_copied_in_processes(
    catalog: Catalog, arrived: list[DataFile], make_store: MakeStore, processes: LocalEngine, losses: int
) -> None:
    """Every copy is made and proved, some of them elsewhere; what is lost with a worker is made again by itself."""
    stores = {name: make_store(name) for name in ("one", "two")}
    engine = Watched(processes, losses)
    tested = Copier(catalog, stores, engine=engine)
    tested._swept |= set(stores)  # or the first batches may be too early to be copied elsewhere
    tested.start()
    try:
        wait_until(tested.idle)
    finally:
        tested.stop()
    assert engine.given > losses
    copies = [replica for file in arrived for replica in replicas.of_file(catalog, file.id)]
    assert [replica.state for replica in copies] == [ReplicaState.VERIFIED] * 2 * len(arrived)
    for number, file in enumerate(arrived):
        content = random.Random(number).randbytes(100 + number)
        for store in stores.values():
            assert (store.root / "krios" / "visit" / file.relative_path).read_bytes() == content
    assert [parts_of(store) for store in stores.values()] == [[], []]


def test_nothing_is_copied_elsewhere_before_the_sweep(
    catalog: Catalog, arrived: list[DataFile], make_store: MakeStore, processes: LocalEngine
) -> None:
    """The sweep at the start removes unfinished copies that this process knows nothing of: none may be at work yet."""
    engine = Watched(processes, 0)
    tested = Copier(catalog, {name: make_store(name) for name in ("one", "two")}, engine=engine)
    load = tested._queue.take()
    assert load is not None
    tested._carry_out(load)
    assert engine.given == 0
    assert {r.state for task in load.tasks for r in replicas.of_file(catalog, task.file.id)} == {ReplicaState.VERIFIED}


def test_a_store_is_the_same_tree_in_another_process(make_store: MakeStore) -> None:
    """What is handed over is where it lies and what it must bear; it is opened once for all batches."""
    store = make_store("one")
    first, second = (pickle.loads(pickle.dumps(store)) for _ in range(2))
    assert first is second
    assert (first.name, first.root, first.identity) == (store.name, store.root, store.identity)


def test_names_that_must_be_told_apart_are_given_by_one_process(
    catalog: Catalog,
    arrived: list[DataFile],
    make_store: MakeStore,
    processes: LocalEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a drive that knows no case, only the process that has all copies in hand can see two names meet."""
    monkeypatch.setattr(RootKeeper, "rules", lambda _: NameRules.WINDOWS)
    stores = {name: make_store(name) for name in ("one", "two")}
    engine = Watched(processes, 0)
    tested = Copier(catalog, stores, engine=engine)
    tested._swept |= set(stores)
    load = tested._queue.take()
    assert load is not None
    tested._carry_out(load)
    assert engine.given == 0
    assert {r.state for task in load.tasks for r in replicas.of_file(catalog, task.file.id)} == {ReplicaState.VERIFIED}


def test_a_batch_whose_sources_are_gone_is_recognised(
    catalog: Catalog, arrived: list[DataFile], make_store: MakeStore
) -> None:
    """Small files whose digests are known, and which lie whole on one store, are verified there; the other store is
    told of the source and is not to blame, whatever the system said of that."""
    stores = {name: make_store(name) for name in ("one", "two")}
    tested = Copier(catalog, stores)
    load = tested._queue.take()
    assert load is not None
    for task in load.tasks:
        source = Path(task.source_root, task.source_folder, task.file.relative_path)
        copy = stores["one"].root / "krios" / "visit" / task.file.relative_path
        copy.parent.mkdir(parents=True, exist_ok=True)
        source.rename(copy)
        files.set_digest(catalog, task.file.id, hashlib.sha256(copy.read_bytes()).hexdigest())
    tested._queue.let_go(load)
    tested = Copier(catalog, stores)
    again = tested._queue.take()
    assert again is not None
    tested._carry_out(again)
    for task in again.tasks:
        found = {replica.store: replica.state for replica in replicas.of_file(catalog, task.file.id)}
        assert found == {"one": ReplicaState.VERIFIED, "two": ReplicaState.FAILED}
    assert tested._troubles.is_well("two")
