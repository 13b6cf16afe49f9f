"""Killed between any two steps of clearing: a restart finds where each file lies, and finishes or undoes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coldchain.catalog.engine import Catalog
from coldchain.model.policy import SOURCE
from coldchain.storage.posix.store import PosixStore
from tests.storage.clearing_givens import Facility, quick_catalog, rule


@pytest.fixture
def catalog() -> Iterator[Catalog]:
    """A catalog that is quick: it is not the machine that is lost here."""
    with quick_catalog() as made:
        yield made


class Killed(BaseException):
    """The process was killed here."""


def killed_at(facility: Facility, step: int, work: Callable[[], object]) -> bool:
    """Work until the given step of a store, or commit of the catalog; whether it came that far."""
    left = [step]

    def count(*_: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    for store in facility.stores.values():
        store.before = count
    writing = facility.catalog.writing

    def counted() -> object:
        count()
        return writing()

    facility.catalog.writing = counted  # type: ignore[method-assign, assignment]
    try:
        work()
    except Killed:
        return True
    finally:
        facility.catalog.writing = writing  # type: ignore[method-assign]
        for store in facility.stores.values():
            store.before = lambda *_: None
    return False


def test_clearing_is_killed_everywhere(catalog: Catalog, tmp_path: Path) -> None:
    """At every step, in the pass that moves and in the pass that removes: after the next passes the file is removed,
    once, and its other copies are what they were; never is it lost on the way."""
    facility = Facility(catalog, tmp_path / "camera", [rule(grace_days=1.0)])
    (tmp_path / "camera").mkdir()
    number, steps = 0, 0
    for second in (False, True):
        step = 1
        while True:
            session = facility.session(f"visit{number}")
            file = facility.add(session, "m.tiff", f"content {number}".encode())
            number += 1
            if second:
                facility.pass_once()
                facility.later(days=2)
            came = killed_at(facility, step, facility.pass_once)
            others = {name: facility.states(file)[name] for name in ("tape", "cloud")}
            assert others == {"tape": "verified", "cloud": "verified"}
            facility.pass_once()
            facility.later(days=2)
            facility.pass_once()
            facility.pass_once()
            assert facility.states(file) == {"live": "removed", "tape": "verified", "cloud": "verified"}
            assert not facility.stores["live"].content
            steps, step = steps + 1, step + 1
            if not came:
                break
    assert steps > 25


@pytest.mark.parametrize(("when", "state"), [("move", "verified"), ("moved", "trashed")])
def test_a_killed_move_is_found_in_its_place_or_in_the_trash(
    catalog: Catalog, tmp_path: Path, when: str, state: str
) -> None:
    """Before the move nothing has happened, after it the file is in the trash; the catalog says so after the restart,
    before anything else is done."""
    facility = Facility(catalog, tmp_path, [rule()])
    file = facility.add(facility.session(), "m.tiff")

    def kill(store: str, what: str, name: str) -> None:
        if what == when:
            raise Killed

    facility.stores["live"].before = kill
    with pytest.raises(Killed):
        facility.pass_once()
    facility.stores["live"].before = lambda *_: None
    assert facility.states(file)["live"] == "retiring"
    facility.retirement().look()
    assert facility.states(file)["live"] == state


@pytest.mark.parametrize("moved", [False, True])
def test_a_killed_move_at_the_camera_is_found_too(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    """What had not been moved has no row again; what had, lies in the trash."""
    facility = Facility(catalog, tmp_path, [rule(places=(SOURCE,))])
    file = facility.add(facility.session(), "m.tiff")
    move = PosixStore.move

    def killing(store: PosixStore, stored_as: str, to: str) -> None:
        if moved:
            move(store, stored_as, to)
        raise Killed

    monkeypatch.setattr(PosixStore, "move", killing)
    with pytest.raises(Killed):
        facility.pass_once()
    monkeypatch.setattr(PosixStore, "move", move)
    assert facility.states(file)["source"] == "retiring"
    facility.retirement().look()
    assert facility.states(file).get("source") == ("trashed" if moved else None)


def test_a_restore_that_was_killed_is_finished(catalog: Catalog, tmp_path: Path) -> None:
    """Moved back, and not said: the copy is read in its place and verified."""
    facility = Facility(catalog, tmp_path, [rule(grace_days=0.0)])
    session = facility.session()
    file = facility.add(session, "m.tiff")
    made = facility.retirement()
    made.look()
    made.carry_out()
    copy = facility.copy(file, "live")
    assert copy.trashed_as is not None
    facility.stores["live"].move(copy.trashed_as, copy.location)
    made = facility.retirement()
    made.look()
    made.empty_trash()
    assert facility.states(file)["live"] == "verified"
