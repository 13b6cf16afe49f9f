"""A keeper gives a new store its identity, and knows when another one, or none, lies in its place."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from coldchain.catalog import events, stores
from coldchain.catalog.engine import Catalog
from coldchain.errors import CatalogError, StorageError
from coldchain.model.policy import Tier
from coldchain.storage.copies import troubles
from coldchain.storage.copies.troubles import Troubles
from coldchain.storage.keeper import StoreKeeper
from coldchain.storage.memory import MemoryStore
from coldchain.storage.posix.store import PosixStore
from coldchain.storage.store import IDENTITY_NAME, FileFacts

FACTS = FileFacts(1, 0, 0o644)


def enrolled(catalog: Catalog, root: Path) -> PosixStore:
    """A store of the facility's, as the service makes it."""
    state = stores.enrol(catalog, name="raid", tier=Tier.LIVE, url=str(root))
    return PosixStore("raid", root, identity=state.identity)


def keeper_of(catalog: Catalog, store: PosixStore) -> StoreKeeper:
    """A keeper that looks when it is told to."""
    return StoreKeeper(catalog, store, Troubles({store.name: store}))


def write(store: PosixStore) -> None:
    """Begin a copy."""
    with store.receive("a", FACTS):
        pass


def test_a_new_store_is_given_its_identity_at_the_first_look(catalog: Catalog, tmp_path: Path) -> None:
    """Before it nothing is written to the store; after it folder and catalog say the same, and copies come in."""
    store = enrolled(catalog, tmp_path)
    with pytest.raises(StorageError, match="bears no identity"):
        write(store)
    state = keeper_of(catalog, store).look()
    assert (state.trouble, state.is_marked) == ("", True)
    assert store.mark() == stores.find(catalog, "raid").identity
    write(store)


def test_an_empty_folder_in_a_stores_place_is_not_taken_for_it(catalog: Catalog, tmp_path: Path) -> None:
    """What is mounted elsewhere leaves an empty folder behind: it is said, told once, and nothing is written there; the
    store that is back is well again by itself."""
    root = tmp_path / "raid"
    root.mkdir()
    store = enrolled(catalog, root)
    keeper = keeper_of(catalog, store)
    keeper.look()
    root.rename(tmp_path / "away")
    root.mkdir()
    for _ in range(2):
        assert "bears no identity" in keeper.look().trouble
    with pytest.raises(StorageError, match="store adopt raid"):
        write(store)
    assert list(root.iterdir()) == []
    root.rmdir()
    (tmp_path / "away").rename(root)
    assert keeper.look().trouble == ""
    write(store)
    kinds = [event.kind for event in events.recent(catalog)]
    assert [kinds.count(kind) for kind in ("store.trouble", "store.well")] == [1, 1]


def test_another_disk_is_not_taken_for_the_store(catalog: Catalog, tmp_path: Path) -> None:
    """A store of another catalog is refused, whether this one's is new or was seen before."""
    other = tmp_path / "other"
    other.mkdir()
    enrolled(catalog, other).set_mark(stores.find(catalog, "raid").identity)
    (other / IDENTITY_NAME).write_text('{"store": "01a20000-0000-7000-8000-000000000000"}')
    store = PosixStore("raid", other)
    assert "is another store" in keeper_of(catalog, store).look().trouble


def test_a_store_that_moved_is_still_the_store(catalog: Catalog, tmp_path: Path) -> None:
    """The same disk mounted elsewhere, under a changed URL, goes on as it was."""
    root = tmp_path / "raid"
    root.mkdir()
    keeper_of(catalog, enrolled(catalog, root)).look()
    shutil.copytree(root, tmp_path / "moved")
    assert keeper_of(catalog, enrolled(catalog, tmp_path / "moved")).look().trouble == ""


def test_a_look_writes_down_how_full_a_store_is(catalog: Catalog, tmp_path: Path) -> None:
    """Sizes come from the file system, and stay as they were last seen while the store is away."""
    root = tmp_path / "raid"
    root.mkdir()
    keeper = keeper_of(catalog, enrolled(catalog, root))
    seen = keeper.look()
    assert seen.total_bytes and seen.free_bytes and 0 < (seen.used_share or 0) < 1
    shutil.rmtree(root)
    away = keeper.look()
    assert away.trouble
    assert away.total_bytes == seen.total_bytes
    assert len(stores.samples(catalog, "raid", site="here", days=1)) == 1


def test_one_tree_that_is_reached_twice_is_one_store(catalog: Catalog, tmp_path: Path) -> None:
    """A second store whose folder is another's in truth is refused by name, and cannot be adopted either."""
    root = tmp_path / "raid"
    root.mkdir()
    keeper_of(catalog, enrolled(catalog, root)).look()
    (tmp_path / "again").symlink_to(root)
    stores.enrol(catalog, name="tape", tier=Tier.ARCHIVE, url=str(tmp_path / "again"))
    tape = PosixStore("tape", tmp_path / "again")
    identity = tape.mark()
    assert identity is not None
    assert "is the store 'raid'" in keeper_of(catalog, tape).look().trouble
    with pytest.raises(CatalogError, match="is the store raid"):
        stores.adopt(catalog, "tape", identity)
    assert not stores.find(catalog, "tape").is_marked


def test_a_keeper_that_waits_for_an_answer_says_so(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that does not answer for long is not written to, until it does."""
    monkeypatch.setattr(troubles, "_SILENT_SECONDS", 0.0)
    store = MemoryStore("raid")
    known = Troubles({"raid": store})
    assert known.is_well("raid")
    known.look_begun("raid")
    assert not known.is_well("raid")
    assert "does not answer" in known.of_store("raid")
    known.look_ended("raid")
    assert known.is_well("raid")
