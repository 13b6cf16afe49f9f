"""Clearing copies: confirmed, journalled, moved to the trash, confirmed again, removed; and everything against it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import update

from coldchain.catalog import announcements, events, exposures, holds, retirement, sessions
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import ReplicaRow
from coldchain.errors import StorageError
from coldchain.model.events import Severity
from coldchain.model.files import FileKind, FileState
from coldchain.model.policy import SOURCE, Place
from coldchain.model.session import ExposureState, SessionState
from coldchain.storage.posix.store import PosixStore
from coldchain.storage.retention.retire import Retirer, Scope
from coldchain.storage.retention.trash import clearing_alone
from tests.storage.clearing_givens import CACHE, MEDIUM, SERVER, TIERS, Facility, quick_catalog, rule

TRASHED = {"live": "trashed", "tape": "verified", "cloud": "verified"}
WHOLE = dict.fromkeys(TRASHED, "verified")
REMOVED = TRASHED | {"live": "removed"}


@pytest.fixture
def catalog() -> Iterator[Catalog]:
    """A catalog that is quick, as it need not last."""
    with quick_catalog() as made:
        yield made


@pytest.fixture
def facility(catalog: Catalog, tmp_path: Path) -> Facility:
    """A facility with one rule, for the live store."""
    (tmp_path / "camera").mkdir()
    return Facility(catalog, tmp_path / "camera", [rule()])


def said(facility: Facility, kind: str) -> list[str]:
    """The messages of the events of one kind, oldest first."""
    return [e.message for e in reversed(events.recent(facility.catalog, limit=1000)) if e.kind == kind]


def test_a_copy_goes_to_the_trash_and_then_for_good(facility: Facility) -> None:
    """Under its own name in the trash for the days of grace, then removed; the other copies were read both times."""
    file = facility.add(facility.session(), "a/movie.tiff", b"frames")
    facility.pass_once()
    assert facility.states(file) == TRASHED
    live = facility.stores["live"].content
    assert list(live) == [".coldchain-trash/2026-03-01/krios/visit/a/movie.tiff"]
    assert facility.copy(file, "live").trashed_at == facility.clock
    confirmed = [(store, what) for store, what, _ in facility.log if what == "confirmed"]
    assert set(confirmed) == {("live", "confirmed"), ("tape", "confirmed"), ("cloud", "confirmed")}
    facility.later(days=6.9)
    facility.pass_once()
    assert facility.states(file) == TRASHED
    facility.log.clear()
    facility.later(days=0.2)
    facility.pass_once()
    assert facility.states(file) == REMOVED and not live
    assert [what for store, what, _ in facility.log if store != "live"] == ["confirmed", "confirmed"]
    assert facility.log[-1][:2] == ("live", "remove")
    assert [said(facility, f"replica.{kind}") != [] for kind in ("retiring", "trashed", "removed")] == [True] * 3


def test_of_many_files_one_event_is_written_for_each_step(facility: Facility) -> None:
    """A session's 70 files are three events, which say how many and how to bring them back; mail is not flooded."""
    session = facility.session()
    for number in range(70):
        facility.add(session, f"{number}.tiff")
    before = len(events.recent(facility.catalog, limit=10_000))
    facility.pass_once()
    assert len(events.recent(facility.catalog, limit=10_000)) == before + 2
    [message] = said(facility, "replica.trashed")
    assert "70 files (420 B)" in message and "coldchain store restore visit --store live" in message
    facility.later(days=8)
    facility.pass_once()
    assert len(events.recent(facility.catalog, limit=10_000)) == before + 3
    assert "70 files" in said(facility, "replica.removed")[0]


@pytest.mark.parametrize("lacking", ["one copy too few", "level", "state", "digest", "open", "age", "held", "away"])
def test_what_lacks_anything_stays(facility: Facility, lacking: str) -> None:
    """Too few copies elsewhere, copies that prove too little, sessions that are open, too young or held: all stays."""
    session = facility.session(state=SessionState.OPEN if lacking == "open" else SessionState.CLOSED)
    if lacking == "level":
        facility.stores["tape"].level = CACHE
    file = facility.add(session, "m.tiff", on=("live", "tape") if lacking == "one copy too few" else tuple(WHOLE))
    before = facility.states(file)
    if lacking == "age":
        facility.rules[0] = rule(after_days=30)
        facility.later(days=29)
    if lacking == "held":
        holds.hold(facility.catalog, session.id, reason="a paper", by="ada")
    if lacking == "away":
        facility.stores["cloud"].away = True
    if lacking == "state":
        facility.stores["tape"].content.clear()
    if lacking == "digest":
        name = facility.copy(file, "tape").location
        facility.stores["tape"].content[name] = b"frameZ"
    facility.pass_once()
    bad = {"tape": "damaged"} if lacking in ("state", "digest") else {}
    assert facility.states(file) == before | bad
    assert not any(what in ("move", "remove") for _, what, _ in facility.log)


def test_a_copy_that_is_not_confirmed_is_to_be_made_again(facility: Facility) -> None:
    """Flipped on one store: nothing is cleared, the copy is damaged and wanted again, and one event says so; after it
    was made again, the clearing goes on."""
    session = facility.session()
    made = [facility.add(session, f"{n}.tiff", bytes([n]) * 10) for n in range(5)]
    for file in made:
        facility.stores["tape"].content[facility.copy(file, "tape").location] = b"x" * 10
    facility.pass_once()
    assert all(facility.states(file) == WHOLE | {"tape": "damaged"} for file in made)
    [message] = said(facility, "replica.damaged")
    assert message.startswith("5 copies are not") and "0.tiff on tape" in message and "and 2 more" in message
    for number, file in enumerate(made):
        facility.make(file, facility.copy(file, "tape").replica_id, "tape", bytes([number]) * 10)
    facility.pass_once()
    assert all(facility.states(file) == TRASHED for file in made)


def test_what_was_changed_in_its_place_is_not_moved(facility: Facility) -> None:
    """Other bytes under the copy's own name are said and kept, and the copy is made again beside them."""
    file = facility.add(facility.session(), "m.tiff")
    name = facility.copy(file, "live").location
    facility.stores["live"].content[name] = b"edited"
    facility.pass_once()
    assert facility.states(file) == WHOLE | {"live": "damaged"}
    assert facility.stores["live"].content == {name: b"edited"}
    assert "m.tiff on live" in said(facility, "replica.damaged")[0]


def test_what_was_changed_in_the_trash_is_never_removed(facility: Facility) -> None:
    """Other bytes under the copy's name in the trash stay there for good, which is said once."""
    file = facility.add(facility.session(), "m.tiff")
    facility.pass_once()
    trashed = facility.copy(file, "live").trashed_as
    assert trashed is not None
    facility.stores["live"].content[trashed] = b"edited"
    for _ in range(3):
        facility.later(days=8)
        facility.pass_once()
    assert facility.stores["live"].content == {trashed: b"edited"}
    assert facility.states(file) == TRASHED
    assert len(said(facility, "replica.damaged")) == 1


def test_a_trash_that_somebody_emptied_is_believed(facility: Facility) -> None:
    """The copy is removed, as was wanted, and not made again."""
    file = facility.add(facility.session(), "m.tiff")
    facility.pass_once()
    facility.stores["live"].content.clear()
    facility.later(days=8)
    facility.pass_once()
    assert facility.states(file) == REMOVED
    assert "somebody" in facility.copy(file, "live").detail


def test_a_new_version_in_the_place_is_not_taken_for_the_copy(facility: Facility) -> None:
    """The trash was emptied by hand, or the copy was lost while it was moved, and a new version has its name since: it
    is not called the old one, and stays."""
    session = facility.session()
    old = facility.add(session, "m.tiff", b"first")
    facility.pass_once()
    facility.stores["live"].content.clear()
    facility.add(session, "m.tiff", b"second!")
    holds.hold(facility.catalog, session.id, reason="look", by="ada")
    work = facility.retirement()
    work.look()
    [life] = retirement.lives(facility.catalog)
    work.emptying.restore(life, ["live"])
    assert facility.states(old)["live"] == "removed"
    other = facility.add(session, "n.tiff", b"third")
    change = update(ReplicaRow).where(ReplicaRow.id == facility.copy(other, "live").replica_id)
    with facility.catalog.writing() as unit:
        unit.execute(change.values(state="retiring", trashed_as=".coldchain-trash/x"))
    facility.stores["live"].content["krios/visit/n.tiff"] = b"other"
    facility.retirement().look()
    assert facility.states(other)["live"] == "damaged"
    assert facility.stores["live"].content == {"krios/visit/m.tiff": b"second!", "krios/visit/n.tiff": b"other"}


def test_damage_elsewhere_brings_the_trashed_copy_back(facility: Facility) -> None:
    """A copy elsewhere is lost while this one lies in the trash: it is put back, whole, and goes again only when the
    other was made again. A store that is only away changes nothing."""
    file = facility.add(facility.session(), "m.tiff")
    facility.pass_once()
    facility.stores["tape"].away = True
    facility.later(days=8)
    facility.pass_once()
    assert facility.states(file) == TRASHED
    facility.stores["tape"].away = False
    facility.stores["tape"].content.clear()
    facility.pass_once()
    assert facility.states(file) == TRASHED | {"tape": "damaged"}
    facility.pass_once()
    assert facility.states(file) == WHOLE | {"tape": "damaged"}
    assert list(facility.stores["live"].content) == ["krios/visit/m.tiff"]
    assert said(facility, "replica.restored")


@pytest.mark.parametrize("by_command", [False, True])
def test_a_removal_that_was_refused_can_be_taken_back(facility: Facility, by_command: bool) -> None:
    """What could not be removed lies in the trash still: it comes back when the others are lost, by itself or asked
    for."""

    def refuse(_name: str, what: str, _stored_as: str) -> None:
        if what == "remove":
            raise StorageError("read-only for a while")

    session = facility.session()
    file = facility.add(session, "m.tiff")
    facility.pass_once()
    facility.later(days=8)
    facility.stores["live"].before = refuse
    facility.pass_once()
    assert facility.states(file) == TRASHED | {"live": "removing"}
    facility.stores["live"].before = lambda *_: None
    facility.stores["tape"].content.clear()
    if by_command:
        made = facility.retirement()
        made.look()
        report = made.emptying.restore(retirement.life_of(facility.catalog, session.id), ["live"])["live"]
        assert (report.back.files, report.lost.files) == (1, 0)
    else:
        facility.pass_once()
        facility.pass_once()
    assert facility.states(file)["live"] == "verified"
    assert list(facility.stores["live"].content) == ["krios/visit/m.tiff"]


def test_two_stores_that_are_cleared_at_once_leave_enough(facility: Facility) -> None:
    """Of three copies, two must stay: two rules that clear two stores, whose confirmations both went well before either
    was journalled, clear one."""
    facility.rules = [rule(name="a", places=("live",)), rule(name="b", places=("tape",))]
    session = facility.session()
    file = facility.add(session, "m.tiff")
    other = facility.retirement()
    other.look()

    def meanwhile(store: str, what: str, _: str) -> None:
        if (store, what) == ("live", "confirm") and not started:
            started.append(True)
            other.carry_out(Scope(rule="b"))

    started: list[bool] = []
    facility.stores["live"].before = meanwhile
    facility.pass_once()
    assert started and sorted(facility.states(file).values()) == ["trashed", "verified", "verified"]


def test_a_proof_of_another_level_does_not_count(facility: Facility) -> None:
    """A medium that can be read to the cache only now, as after a remount, is no witness, but not damaged either."""
    file = facility.add(facility.session(), "m.tiff")
    facility.stores["tape"].level = CACHE
    facility.pass_once()
    assert facility.states(file) == WHOLE
    facility.rules[0] = rule(levels=frozenset({MEDIUM, SERVER, CACHE}))
    facility.pass_once()
    assert facility.states(file) == TRASHED


def test_versions_that_were_replaced_are_cleared_by_their_own_copies(facility: Facility) -> None:
    """The old version stays while it bears the name that the new one is to get; kept aside, it goes where it has its
    own copies, and only there."""
    session = facility.session()
    old = facility.add(session, "m.tiff", b"first", on=("live", "tape"))
    new = facility.add(session, "m.tiff", b"second!", on=(), wanted=tuple(WHOLE))
    facility.rules[0] = rule(copies=1)
    facility.pass_once()
    assert facility.states(old) == {"live": "verified", "tape": "verified"}
    assert set(facility.states(new).values()) == {"wanted"}
    facility.rules[0] = rule(copies=2)
    for name in ("live", "tape"):
        copy = facility.copy(old, name)
        content = facility.stores[name].content
        content["krios/visit/m.tiff.replaced-1"] = content.pop(copy.location)
        with facility.catalog.writing() as unit:
            aside = update(ReplicaRow).where(ReplicaRow.id == copy.replica_id)
            unit.execute(aside.values(kept_as="krios/visit/m.tiff.replaced-1"))
    facility.pass_once()
    assert facility.states(old) == {"live": "verified", "tape": "verified"}
    facility.rules[0] = rule(copies=1)
    facility.pass_once()
    assert facility.states(old) == {"live": "trashed", "tape": "verified"}


def test_kinds_that_a_rule_does_not_name_stay(facility: Facility) -> None:
    """A rule for movies leaves gains and metadata."""
    session = facility.session()
    gain = facility.add(session, "gain.mrc", b"gain", kind=FileKind.GAIN)
    movie = facility.add(session, "m.tiff")
    facility.rules[0] = rule(kinds=frozenset({FileKind.MOVIE}))
    facility.pass_once()
    assert facility.states(gain) == WHOLE
    assert facility.states(movie) == TRASHED


def test_nothing_goes_that_was_not_announced_long_enough(facility: Facility) -> None:
    """A week's warning is an event that says what goes when and how to hold it; after the week it goes; held meanwhile
    it is withdrawn, and released it is announced anew."""
    facility.rules[0] = rule(warn_days=7.0)
    session = facility.session("visit 42")
    file = facility.add(session, "m.tiff")
    facility.pass_once()
    [message] = said(facility, "retire.announced")
    assert "1 file (6 B) is going" in message and "2026-03-08 12:00 UTC" in message
    assert "coldchain store hold 'visit 42' --reason" in message
    facility.later(days=6.9)
    facility.pass_once()
    assert facility.states(file) == WHOLE
    assert len(said(facility, "retire.announced")) == 1
    holds.hold(facility.catalog, session.id, reason="a paper", by="ada")
    facility.later(days=1)
    facility.pass_once()
    assert facility.states(file) == WHOLE
    assert "held: a paper" in said(facility, "retire.withdrawn")[0]
    assert announcements.standing(facility.catalog) == []
    holds.lift(facility.catalog, session.id, by="ada")
    facility.pass_once()
    facility.later(days=7.1)
    facility.pass_once()
    assert facility.states(file) == TRASHED
    assert announcements.standing(facility.catalog) == []


def test_the_announcement_of_a_rule_that_is_gone_is_withdrawn(facility: Facility) -> None:
    """Whoever was warned is told that it is off."""
    facility.rules[0] = rule(warn_days=7.0)
    facility.add(facility.session(), "m.tiff")
    facility.pass_once()
    facility.rules.clear()
    facility.pass_once()
    assert len(said(facility, "retire.withdrawn")) == 1


def test_a_store_is_cleared_until_enough_is_free_oldest_first(facility: Facility) -> None:
    """More than 80 % used: the oldest sessions go until no more than 50 % will be; the trash counts as on its way, and
    the next pass clears nothing more."""
    facility.rules[0] = rule(after_days=None, above=0.8, until=0.5)
    made = []
    for number in range(9):
        session = facility.session(f"s{number}")
        made.append(facility.add(session, "m.tiff", bytes([number]) * 100))
        facility.later(hours=1)
    facility.stores["live"].total_bytes = 1000
    for _ in range(2):
        facility.pass_once()
        assert [facility.states(file)["live"] for file in made] == ["trashed"] * 4 + ["verified"] * 5
    facility.later(days=8)
    facility.pass_once()
    assert [facility.states(file)["live"] for file in made] == ["removed"] * 4 + ["verified"] * 5


def test_a_held_file_in_the_trash_stays_there(facility: Facility) -> None:
    """A hold, and a session that is opened again, stop the removal, too."""
    session = facility.session()
    file = facility.add(session, "m.tiff")
    facility.pass_once()
    facility.later(days=8)
    holds.hold(facility.catalog, session.id, reason="wait", by="ada")
    facility.pass_once()
    holds.lift(facility.catalog, session.id, by="ada")
    sessions.set_state(facility.catalog, session.id, SessionState.OPEN)
    facility.pass_once()
    assert facility.states(file) == TRASHED


def test_restoring_brings_everything_back(facility: Facility) -> None:
    """Each file is in its place again, read and verified; one whose place is taken is said, and stays in the trash."""
    session = facility.session()
    made = [facility.add(session, f"{n}.tiff", bytes([n]) * 9) for n in range(3)]
    before = dict(facility.stores["live"].content)
    work = facility.pass_once()
    facility.stores["live"].content["krios/visit/1.tiff"] = b"new"
    [life] = retirement.lives(facility.catalog)
    report = work.emptying.restore(life, ["live"])["live"]
    assert report.back.files == 2 and report.kept.total() == 1
    assert [facility.states(file)["live"] for file in made] == ["verified", "trashed", "verified"]
    content = facility.stores["live"].content
    assert content["krios/visit/1.tiff"] == b"new"
    assert {name: content[name] for name in before if "1.tiff" not in name} == {
        name: kept for name, kept in before.items() if "1.tiff" not in name
    }
    assert said(facility, "replica.restored")


def test_a_removal_that_is_refused_gives_its_reason(facility: Facility) -> None:
    """The store does not remove what it should: the file stays in its trash, and the pass says which file and why."""
    file = facility.add(facility.session(), "m.tiff")
    facility.pass_once()

    def refuse(_: str, what: str, __: str) -> None:
        if what == "remove":
            raise StorageError("it is read-only")

    facility.stores["live"].before = refuse
    facility.later(days=8)
    work = facility.retirement()
    work.look()
    done = work.empty_trash()
    assert done.removed.files == 0 and done.kept == {"it is read-only": 1}
    assert done.kept.names("it is read-only") == "m.tiff"
    assert facility.states(file)["live"] == "removing"


@pytest.mark.parametrize("twins", [("tape", "cloud"), ("live", "cloud")])
def test_one_store_under_two_names_is_one_copy(facility: Facility, twins: tuple[str, str]) -> None:
    """Two stores that bear one identity are neither cleared nor counted, until that is mended."""
    file = facility.add(facility.session(), "m.tiff")
    for name in twins:
        facility.stores[name].identity = UUID(int=7)
    facility.rules[0] = rule(copies=1 if "live" in twins else 2)
    facility.pass_once()
    assert facility.states(file) == WHOLE
    facility.stores["cloud"].identity = UUID(int=8)
    facility.pass_once()
    assert facility.states(file) == TRASHED


# -- the camera's disk ------------------------------------------------------------------------------------------------


@pytest.fixture
def camera(facility: Facility) -> Facility:
    """A facility that clears the camera's disk, and nothing else."""
    facility.rules = [rule(places=(SOURCE,))]
    return facility


def files_of(root: Path) -> set[str]:
    """The files below a folder."""
    return {str(Path(folder, name).relative_to(root)) for folder, _, names in os.walk(root) for name in names}


def test_the_camera_is_not_cleared_unless_a_rule_says_so(facility: Facility) -> None:
    """Rules for stores and tiers leave the source alone."""
    facility.rules = [rule(places=("live",)), rule(name="all", places=("archive", "cloud"))]
    facility.add(facility.session(), "m.tiff")
    facility.pass_once()
    assert files_of(facility.camera) == {"visit/m.tiff"}


def test_the_camera_is_cleared_of_what_is_safe(camera: Facility) -> None:
    """A file goes to the trash in its root, and from there for good; the catalog says so, and what it does not know of
    stays."""
    session = camera.session()
    file = camera.add(session, "a/m.tiff")
    (camera.camera / "visit/a/notes.txt").write_text("mine")
    camera.pass_once()
    assert files_of(camera.camera) == {".coldchain-trash/2026-03-01/visit/a/m.tiff", "visit/a/notes.txt"}
    assert camera.states(file) == WHOLE | {"source": "trashed"}
    camera.later(days=8)
    camera.pass_once()
    assert files_of(camera.camera) == {"visit/a/notes.txt"}
    assert camera.states(file) == WHOLE | {"source": "removed"}
    camera.pass_once()
    assert len(said(camera, "replica.trashed")) == 1


def test_what_the_pipeline_may_still_read_stays_at_the_camera(camera: Facility) -> None:
    """Open sessions, exposures that are not through, and a session's gain while any of its exposures is not."""
    opened = camera.session("opened", state=SessionState.OPEN)
    camera.rules = [rule(places=(SOURCE,), states=frozenset(SessionState))]
    camera.add(opened, "m.tiff")
    session = camera.session()
    exposure = exposures.ensure(camera.catalog, session.id, "m")
    movie = camera.add(session, "m.tiff", exposure_id=exposure.id)
    camera.add(session, "gain.mrc", b"gain", kind=FileKind.GAIN)
    exposures.attach_input(camera.catalog, exposure.id, movie.id)
    camera.pass_once()
    assert files_of(camera.camera) == {"opened/m.tiff", "visit/m.tiff", "visit/gain.mrc"}
    exposures.set_state(camera.catalog, exposure.id, ExposureState.QUARANTINED, "it is given up")
    camera.pass_once()
    assert not {"visit/m.tiff", "visit/gain.mrc"} & files_of(camera.camera)
    assert "opened/m.tiff" in files_of(camera.camera)


@pytest.mark.parametrize("how", ["grown", "rewritten", "touched", "rotten", "gone", "link"])
def test_what_has_changed_at_the_camera_is_not_touched(camera: Facility, how: str) -> None:
    """Another size, time, content or kind of thing under the name: it stays as it is."""
    file = camera.add(camera.session(), "m.tiff", b"frames")
    path = camera.camera / "visit/m.tiff"
    if how == "grown":
        path.write_bytes(b"frames and more")
    elif how == "rewritten":
        path.write_bytes(b"FRAMES")
    elif how == "touched":
        os.utime(path, ns=(7, 7))
    elif how == "rotten":
        path.write_bytes(b"frameZ")
        os.utime(path, ns=(file.modified_ns, file.modified_ns))
    elif how == "link":
        path.rename(camera.camera / "elsewhere")
        path.symlink_to(camera.camera / "elsewhere")
    else:
        path.unlink()
    before = {name: (camera.camera / name).read_bytes() for name in files_of(camera.camera)}
    camera.pass_once()
    camera.pass_once()
    assert {name: (camera.camera / name).read_bytes() for name in files_of(camera.camera)} == before
    assert camera.states(file).get("source") in (None, "damaged" if how == "rotten" else "removed")
    assert len(said(camera, "replica.damaged")) == (how == "rotten")


def test_what_is_written_to_while_it_is_moved_goes_back(camera: Facility, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that still had the file open writes after it was read: the file is in its place again."""
    file = camera.add(camera.session(), "m.tiff", b"frames")
    move, moves = PosixStore.move, []

    def moved(store: PosixStore, stored_as: str, to: str) -> None:
        move(store, stored_as, to)
        moves.append(to)
        if len(moves) == 1:
            (camera.camera / to).write_bytes(b"frames and more")

    monkeypatch.setattr(PosixStore, "move", moved)
    camera.pass_once()
    assert files_of(camera.camera) == {"visit/m.tiff"}
    assert camera.states(file) == WHOLE


def test_a_damaged_movie_stays_at_the_camera(camera: Facility) -> None:
    """Somebody may still mend what the camera wrote badly."""
    camera.add(camera.session(), "m.tiff", state=FileState.DAMAGED)
    camera.pass_once()
    assert files_of(camera.camera) == {"visit/m.tiff"}


def test_a_camera_that_is_not_mounted_changes_nothing(camera: Facility) -> None:
    """An empty folder in its place: nothing is called gone."""
    file = camera.add(camera.session(), "m.tiff")
    away = camera.camera.rename(camera.camera.with_name("away"))
    camera.camera.mkdir()
    camera.pass_once()
    assert camera.states(file) == WHOLE
    camera.camera.rmdir()
    away.rename(camera.camera)
    camera.pass_once()
    assert camera.states(file) == WHOLE | {"source": "trashed"}


def test_severities(facility: Facility) -> None:
    """An announcement is a warning, which is told by default; what follows is information."""
    facility.rules[0] = rule(warn_days=1.0)
    facility.add(facility.session(), "m.tiff")
    facility.pass_once()
    facility.later(days=1.1)
    facility.pass_once()
    found = {event.kind: event.severity for event in events.recent(facility.catalog)}
    assert found["retire.announced"] is Severity.WARNING
    assert found["replica.trashed"] is Severity.INFO


# -- the part of the service ------------------------------------------------------------------------------------------


def retirer(facility: Facility, lock: Path, **other: Any) -> Retirer:
    """The service's part."""
    places = [Place(name, tier) for name, tier in TIERS.items()]
    return Retirer(facility.catalog, facility.stores, facility.rules, places, lock=lock, **other)


def test_the_part_clears_by_itself_until_it_is_stopped(facility: Facility, tmp_path: Path) -> None:
    """It starts, clears, is idle, and ends when it is stopped; it may be stopped without having been started."""
    facility.clock = datetime.now(UTC) - timedelta(days=1)
    file = facility.add(facility.session(), "m.tiff")
    part = retirer(facility, tmp_path / "lock", period_seconds=0.05)
    part.start()
    deadline = time.monotonic() + 60
    while facility.states(file) != TRASHED and time.monotonic() < deadline:
        assert part.alive()
        time.sleep(0.02)
    part.stop()
    assert facility.states(file) == TRASHED and part.idle() and not part.alive()
    retirer(facility, tmp_path / "lock").stop()


def test_a_clock_that_was_set_forward_clears_nothing(facility: Facility, tmp_path: Path) -> None:
    """A year ahead: nothing goes and nothing is removed, an event says why, once; set back, everything goes on."""
    facility.rules[0] = rule(after_days=30, warn_days=7)
    facility.clock = datetime.now(UTC)
    file = facility.add(facility.session(), "m.tiff")
    steady = 1000.0
    part = retirer(facility, tmp_path / "lock", now=lambda: facility.clock, steady=lambda: steady)
    facility.later(days=365)
    for _ in range(2):
        part.look()
    assert facility.states(file) == WHOLE
    assert len(said(facility, "retire.clock")) == 1 and not said(facility, "retire.announced")
    facility.later(days=-365)
    part.look()
    for _ in range(3):
        facility.later(days=20)
        steady += 20 * 86_400
        part.look()
    assert facility.states(file) == TRASHED


def test_two_processes_do_not_clear_at_once(facility: Facility, tmp_path: Path) -> None:
    """The second is told so, and may try again when the first has done."""
    part = retirer(facility, tmp_path / "lock")
    with clearing_alone(facility.catalog, tmp_path / "lock"), pytest.raises(StorageError, match="another process"):
        part.look()
    part.look()


def test_it_stops_between_files(facility: Facility) -> None:
    """What was confirmed is finished, the rest is left for the next time, and nothing is in between."""
    session = facility.session()
    made = [facility.add(session, f"{n}.tiff", bytes([n]) * 9) for n in range(6)]
    work = facility.retirement()
    work.look()

    def stop(store: str, what: str, name: str) -> None:
        if what == "confirm" and name.endswith("2.tiff"):
            work.clearing.stopping.set()

    facility.stores["live"].before = stop
    work.carry_out()
    states = [facility.states(file)["live"] for file in made]
    assert states == ["trashed"] * 3 + ["verified"] * 3


def test_what_is_due_and_cannot_go_is_tried_again_later(facility: Facility, tmp_path: Path) -> None:
    """Copies that cannot be proved now are not read every hour: the next try is hours later."""
    facility.clock = datetime.now(UTC)
    facility.add(facility.session(), "m.tiff")
    facility.stores["tape"].level = CACHE
    steady = 1000.0
    part = retirer(facility, tmp_path / "lock", now=lambda: facility.clock, steady=lambda: steady)
    tries = []
    for _ in range(8):
        facility.log.clear()
        part.look()
        tries.append(any(what == "confirmed" for _, what, _ in facility.log))
        facility.later(hours=1)
        steady += 3600
    assert tries == [True, False, False, False, False, False, True, False]
