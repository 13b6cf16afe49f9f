"""What others do to a store while copies are cleared from it: only the copy that was meant goes to the trash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coldchain.catalog import events, replicas, retiring
from coldchain.catalog.engine import Catalog, open_catalog
from coldchain.errors import ColdchainError, StorageError
from coldchain.model.files import DataFile, ReplicaState, VerificationLevel
from coldchain.model.policy import Place
from coldchain.storage.retention.retire import Retirer
from coldchain.storage.ring import Ring
from coldchain.storage.store import FileFacts, Store
from tests.storage.clearing_givens import TIERS, Facility, quick_catalog, rule
from tests.storage.every_store import MAKERS

NAME = "krios/visit/m.tiff"
OLD, NEW = b"frames", b"FRAMES"
DAY_NS = 86_400 * 10**9


@pytest.fixture
def catalog() -> Iterator[Catalog]:
    """A catalog that is quick, as it need not last."""
    with quick_catalog() as made:
        yield made


@pytest.fixture(params=["folder", "memory", "s3-moto"])
def facility(request: pytest.FixtureRequest, catalog: Catalog, tmp_path: Path) -> Facility:
    """A facility whose live store is a real one, with a rule that accepts its level."""
    (tmp_path / "camera").mkdir()
    made = Facility(catalog, tmp_path / "camera", [rule(levels=frozenset(VerificationLevel))])
    made.stores["live"] = MAKERS[request.param](request).store  # type: ignore[assignment]
    return made


def published(store: Store, content: bytes, modified_ns: int) -> VerificationLevel:
    """The copier makes a copy under `NAME`; what stands there is kept aside."""
    sha256 = hashlib.sha256(content).hexdigest()
    with store.receive(NAME, FileFacts(len(content), modified_ns, 0o644)) as incoming:
        incoming.write(memoryview(content))
        incoming.seal()
        level = incoming.prove(sha256, Ring()).level
        incoming.publish(sha256, Ring())
    return level


def added(facility: Facility) -> DataFile:
    """A movie that is verified on every store."""
    file = facility.add(facility.session(), "m.tiff", OLD, on=("tape", "cloud"), wanted=("live",))
    level = published(facility.stores["live"], OLD, DAY_NS)
    sha256 = hashlib.sha256(OLD).hexdigest()
    replica_id = facility.copy(file, "live").replica_id
    replicas.record_copy(
        facility.catalog, replica_id, state=ReplicaState.VERIFIED, level=level, sha256=sha256, detail=""
    )
    return file


def contents(store: Store) -> dict[str, bytes]:
    """What stands in a store but its own."""
    found = {}
    for each in store.walk():
        with store.reading(each.stored_as) as opened:
            content = bytearray(each.size_bytes)
            found[each.stored_as] = bytes(content[: opened.fill(memoryview(content))])
    return found


@pytest.fixture
def after_journal(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Have something happen once, just after a clearing was journalled and before a file is touched."""

    def plant(what: Callable[[], object]) -> None:
        begin, todo = retiring.begin, [what]

        def begun(*words: object, **named: object) -> object:
            made = begin(*words, **named)  # type: ignore[arg-type]
            while todo:
                todo.pop()()
            return made

        monkeypatch.setattr(retiring, "begin", begun)

    return plant


def said(facility: Facility) -> str:
    """What was told, all of it."""
    return "\n".join(event.message for event in events.recent(facility.catalog))


def test_a_new_version_that_takes_the_name_is_not_cleared(
    facility: Facility, after_journal: Callable[[Callable[[], object]], None]
) -> None:
    """It is of the same size: it stays under its name, the old one that was kept aside is known there, and it is
    said."""
    file, live = added(facility), facility.stores["live"]
    after_journal(lambda: published(live, NEW, 2 * DAY_NS))
    facility.pass_once()
    aside = f"{NAME}.replaced-{hashlib.sha256(OLD).hexdigest()[:8]}"
    assert contents(live) == {NAME: NEW, aside: OLD}
    copy = facility.copy(file, "live")
    assert (copy.state, copy.location, copy.trashed_as) == (ReplicaState.VERIFIED, aside, None)
    assert "m.tiff" in said(facility) and "another version had taken its name" in said(facility)


def test_what_stands_in_the_place_by_somebodys_hand_is_not_cleared(
    facility: Facility, after_journal: Callable[[Callable[[], object]], None]
) -> None:
    """The copy was taken away and something else put there: that stays, and the copy is damaged."""
    file, live = added(facility), facility.stores["live"]

    def exchange() -> None:
        live.remove(NAME)
        published(live, NEW, 2 * DAY_NS)

    after_journal(exchange)
    facility.pass_once()
    assert contents(live) == {NAME: NEW}
    assert facility.states(file)["live"] == "damaged" and "m.tiff on live" in said(facility)


def test_killed_after_the_wrong_file_was_moved(
    facility: Facility, after_journal: Callable[[Callable[[], object]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next pass sees that what lies in the trash is not the copy, and puts it back."""
    file, live = added(facility), facility.stores["live"]
    after_journal(lambda: published(live, NEW, 2 * DAY_NS))

    class Killed(BaseException):
        pass

    move = type(live).move

    def moved(store: Store, stored_as: str, to: str) -> None:
        move(store, stored_as, to)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(type(live), "move", moved)
        with pytest.raises(Killed):
            facility.pass_once()
    assert NAME not in contents(live)
    facility.rules.clear()
    facility.pass_once()
    assert contents(live)[NAME] == NEW and facility.states(file)["live"] == "verified"


def test_what_cannot_be_put_back_stays_in_the_trash_for_good(
    facility: Facility, after_journal: Callable[[Callable[[], object]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third version has the place by then: nothing is overwritten, and nothing is removed after the days of grace."""
    file, live = added(facility), facility.stores["live"]
    after_journal(lambda: published(live, NEW, 2 * DAY_NS))
    move, moves = type(live).move, []

    def moved(store: Store, stored_as: str, to: str) -> None:
        move(store, stored_as, to)
        moves.append(to)
        if len(moves) == 1:
            published(live, b"third", 3 * DAY_NS)

    monkeypatch.setattr(type(live), "move", moved)
    for _ in range(3):
        facility.pass_once()
        facility.later(days=8)
    assert contents(live)[NAME] == b"third" and moves == moves[:1]
    trashed_as = facility.copy(file, "live").trashed_as
    assert trashed_as is not None and live.size_of(trashed_as) == len(NEW)
    assert facility.states(file)["live"] == "trashed" and "m.tiff in the trash of live" in said(facility)


def test_a_copy_that_was_only_touched_goes(
    facility: Facility, after_journal: Callable[[Callable[[], object]], None]
) -> None:
    """Another time and the same bytes: it is the copy, and is cleared."""
    file, live = added(facility), facility.stores["live"]

    def touch() -> None:
        live.remove(NAME)
        published(live, OLD, 5 * DAY_NS)

    after_journal(touch)
    facility.pass_once()
    assert contents(live) == {} and facility.states(file)["live"] == "trashed"


def test_a_store_that_is_lost_after_the_move_is_asked_again(
    facility: Facility, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was moved could not be looked at: it is not called trashed before it was."""
    file, live = added(facility), facility.stores["live"]
    move = type(live).move

    def moved(store: Store, stored_as: str, to: str) -> None:
        move(store, stored_as, to)
        raise StorageError("the line is cut")

    with monkeypatch.context() as patch:
        patch.setattr(type(live), "move", moved)
        facility.pass_once()
    assert facility.states(file)["live"] == "retiring"
    facility.pass_once()
    assert facility.states(file)["live"] == "trashed"


# -- another that clears by the same catalog -------------------------------------------------------------------------


@pytest.fixture
def pair(catalog: Catalog, tmp_path: Path) -> tuple[Facility, Facility]:
    """One facility as two processes have it, each with a connection of its own: one clears the live store, one the
    tape."""
    (tmp_path / "camera").mkdir()
    one = Facility(catalog, tmp_path / "camera", [rule(name="a", places=("live",), copies=1)], clock=datetime.now(UTC))
    other = Facility(
        open_catalog(catalog.url, catalog.site),
        tmp_path / "camera",
        [rule(name="b", places=("tape",), copies=1)],
        clock=one.clock,
    )
    other.stores = one.stores
    return one, other


def retirer(facility: Facility, lock: Path) -> Retirer:
    """The service's part, with a lock as beside its own facility.toml."""
    places = [Place(name, tier) for name, tier in TIERS.items()]
    return Retirer(facility.catalog, facility.stores, facility.rules, places, lock=lock, now=lambda: facility.clock)


def test_what_one_is_clearing_is_left_alone_by_another(
    pair: tuple[Facility, Facility], after_journal: Callable[[Callable[[], object]], None], tmp_path: Path
) -> None:
    """Two services, or a command started from another folder: while one has journalled a clearing and not yet moved the
    file, the other does not take it for what a killed process left, and does not rely on it."""
    one, other = pair
    file = one.add(one.session(), "m.tiff", on=("live", "tape"))
    second = retirer(other, tmp_path / "second")
    refusals = []

    def meanwhile() -> None:
        try:
            second.look()
        except ColdchainError as error:
            refusals.append(str(error))

    after_journal(meanwhile)
    retirer(one, tmp_path / "first").look()
    assert one.states(file) == {"live": "trashed", "tape": "verified"}
    assert len(refusals) == 1 and "another process is clearing" in refusals[0]
    second.look()
    assert one.states(file) == {"live": "trashed", "tape": "verified"}


@pytest.mark.parametrize("border", ["before", "after"])
def test_a_copy_that_another_clears_is_no_witness(
    pair: tuple[Facility, Facility], monkeypatch: pytest.MonkeyPatch, border: str
) -> None:
    """Even were both at work at once: each has confirmed the other's copy before either has journalled; whoever comes
    second sees in its transaction that its witness is being cleared."""
    one, other = pair
    file = one.add(one.session(), "m.tiff", on=("live", "tape"))
    second = other.retirement()
    second.look()
    begin, todo = retiring.begin, [second.carry_out]

    def begun(*words: object, **named: object) -> object:
        if border == "before":
            while todo:
                todo.pop()()
        made = begin(*words, **named)  # type: ignore[arg-type]
        while todo:
            todo.pop()()
        return made

    monkeypatch.setattr(retiring, "begin", begun)
    one.pass_once()
    cleared = "tape" if border == "before" else "live"
    assert one.states(file) == {"live": "verified", "tape": "verified"} | {cleared: "trashed"}
    moved = [store for store, what, _ in (*one.log, *other.log) if what == "move"]
    assert moved == [cleared]
