"""A scrub finds what rots on a real medium, and the copier mends it from what is whole."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from coldchain.catalog import checks, events, files, replicas, sessions
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import ReplicaRow
from coldchain.errors import StorageError
from coldchain.model.files import DataFile, FileKind, ReplicaState, VerificationLevel
from coldchain.model.identity import new_id
from coldchain.model.session import Layout
from coldchain.storage.copies.copier import Copier
from coldchain.storage.posix.store import PosixStore
from coldchain.storage.scrub import Scrubber
from tests.storage.conftest import Medium

SIZE_BYTES = 2_000_000


@pytest.fixture
def copied(catalog: Catalog, tmp_path: Path, medium: Medium) -> tuple[list[DataFile], dict[str, PosixStore]]:
    """Three files of a session, copied to a folder and to a medium that can be damaged."""
    camera = tmp_path / "camera"
    (camera / "visit").mkdir(parents=True)
    (tmp_path / "raid").mkdir()
    made = {"raid": PosixStore("raid", tmp_path / "raid"), "disk": PosixStore("disk", medium.folder)}
    session = sessions.create(
        catalog,
        name="visit",
        instrument_name="krios",
        source_root=str(camera),
        folder="visit",
        layout=Layout.PLAIN,
    )
    arrived = []
    for name in ("a.tiff", "b.tiff", "c.tiff"):
        path = camera / "visit" / name
        path.write_bytes(random.Random(name).randbytes(SIZE_BYTES))
        status = path.stat()
        arrived.append(
            files.record_arrival(
                catalog,
                session_id=session.id,
                relative_path=name,
                kind=FileKind.MOVIE,
                size_bytes=SIZE_BYTES,
                modified_ns=status.st_mtime_ns,
                stores=list(made),
            )
        )
    copy(catalog, made)
    return arrived, made


def copy(catalog: Catalog, stores: dict[str, PosixStore]) -> None:
    """Copy until there is nothing to do."""
    copier = Copier(catalog, stores)
    copier.start()
    deadline = time.monotonic() + 60
    while not copier.idle():
        assert time.monotonic() < deadline, "it did not end"
        time.sleep(0.01)
    copier.stop()


def age(catalog: Catalog, days: float) -> None:
    """Let every copy have been proved so long ago."""
    with catalog.writing() as unit:
        unit.execute(update(ReplicaRow).values(checked_at=datetime.now(UTC) - timedelta(days=days)))


def state(catalog: Catalog, file: DataFile, store: str) -> ReplicaState:
    """How far a copy has come."""
    return next(replica.state for replica in replicas.of_file(catalog, file.id) if replica.store == store)


def test_only_what_was_not_proved_of_late_is_read_again(catalog: Catalog, copied) -> None:
    """A copy that is due is read once, and is due again only when its days are over."""
    _, stores = copied
    scrubber = Scrubber(catalog, stores["raid"], days=30)
    assert scrubber.round() == 0
    age(catalog, 31)
    assert [scrubber.round(), scrubber.round()] == [3, 0]


def test_a_busy_store_is_spared_until_a_copy_is_overdue(catalog: Catalog, copied) -> None:
    """What is due early waits for the copies that come in; what is overdue does not."""
    _, stores = copied
    busy = Scrubber(catalog, stores["raid"], days=30, is_busy=lambda: True)
    age(catalog, 28)
    assert busy.round() == 0
    assert Scrubber(catalog, stores["raid"], days=30).round() == 3
    age(catalog, 31)
    assert busy.round() == 3


@pytest.mark.parametrize("from_source", [True, False])
def test_a_bit_that_flips_on_the_medium_is_found_and_mended(
    catalog: Catalog, copied, medium: Medium, tmp_path: Path, from_source: bool
) -> None:
    """The damaged copy is named with its reason, made again from the camera's file or from the other store's copy, and
    the damaged bytes are kept beside it."""
    arrived, stores = copied
    damaged = arrived[1]
    path = Path("krios", "visit", damaged.relative_path)
    content = (stores["disk"].root / path).read_bytes()
    medium.flip(content[1_000_000:1_000_064])
    age(catalog, 31)
    assert Scrubber(catalog, stores["disk"], days=30).round() == 3
    assert [state(catalog, file, "disk") for file in arrived] == ["verified", "damaged", "verified"]
    assert "replica.damaged" in [event.kind for event in events.recent(catalog)]
    if not from_source:
        for file in (tmp_path / "camera" / "visit").iterdir():
            file.unlink()
    copy(catalog, stores)
    assert state(catalog, damaged, "disk") is ReplicaState.VERIFIED
    assert "replica.repaired" in [event.kind for event in events.recent(catalog)]
    assert (stores["disk"].root / path).read_bytes() == content
    assert len(list((stores["disk"].root / path.parent).glob("b.tiff.replaced-*"))) == 1


def test_a_copy_that_is_gone_is_damaged(catalog: Catalog, copied) -> None:
    """A file that somebody removed is named, and made again."""
    arrived, stores = copied
    path = stores["raid"].root / "krios" / "visit" / "a.tiff"
    content = path.read_bytes()
    path.unlink()
    age(catalog, 31)
    Scrubber(catalog, stores["raid"], days=30).round()
    assert state(catalog, arrived[0], "raid") is ReplicaState.DAMAGED
    copy(catalog, stores)
    assert path.read_bytes() == content


def test_a_store_that_is_away_damages_nothing(catalog: Catalog, copied, tmp_path: Path) -> None:
    """An unmounted store, or an empty folder in its place, says nothing about its copies."""
    arrived, stores = copied
    raid = stores["raid"]
    identity = new_id()
    raid.set_mark(identity)
    raid.identity = identity
    age(catalog, 31)
    raid.root.rename(tmp_path / "away")
    for make in (lambda: None, raid.root.mkdir):
        make()
        with pytest.raises(StorageError):
            Scrubber(catalog, raid, days=30).round()
    assert [state(catalog, file, "raid") for file in arrived] == ["verified"] * 3
    raid.root.rmdir()
    (tmp_path / "away").rename(raid.root)
    assert Scrubber(catalog, raid, days=30).round() == 3


def test_the_copy_proved_longest_ago_comes_first(catalog: Catalog, copied) -> None:
    """However many are due, a round begins with the one that has waited longest, and a proved one keeps its level."""
    arrived, _ = copied
    age(catalog, 31)
    oldest = next(copy for copy in replicas.of_file(catalog, arrived[2].id) if copy.store == "disk")
    with catalog.writing() as unit:
        unit.execute(
            update(ReplicaRow)
            .where(ReplicaRow.id == oldest.id)
            .values(checked_at=datetime.now(UTC) - timedelta(days=90))
        )
    (task,) = checks.due(catalog, "disk", before=datetime.now(UTC), limit=1)
    assert (task.replica.id, task.relative, task.sha256) == (oldest.id, "krios/visit/c.tiff", oldest.sha256)
    replicas.record_check(catalog, oldest.id, detail="")
    (after,) = [copy for copy in replicas.of_file(catalog, arrived[2].id) if copy.id == oldest.id]
    assert (after.state, after.level) == (ReplicaState.VERIFIED, VerificationLevel.MEDIUM)


def test_a_link_that_breaks_once_damages_nothing(catalog: Catalog, copied, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that does not come again, from a store that answers, says nothing about the copy."""
    arrived, stores = copied
    read, broken = PosixStore.read_back, []

    def once(self, stored_as, ring):
        if not broken:
            broken.append(stored_as)
            raise StorageError("the link broke")
        return read(self, stored_as, ring)

    monkeypatch.setattr(PosixStore, "read_back", once)
    age(catalog, 31)
    assert Scrubber(catalog, stores["raid"], days=30).round() == 3
    assert broken
    assert [state(catalog, file, "raid") for file in arrived] == ["verified"] * 3
