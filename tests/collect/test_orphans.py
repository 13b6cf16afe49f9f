"""What lacks its partner is told once when it is time, listed, and off the list when the partner comes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.dialects import sqlite

from coldchain.catalog import engine, events, exposures, orphans, sessions
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import ExposureRow, FrameSetRow
from coldchain.collect.completeness import Examination, Verdict
from coldchain.collect.intake import Intake
from coldchain.collect.orphan_watch import OrphanWatch
from coldchain.errors import CatalogError
from coldchain.model.events import Event
from coldchain.model.policy import everywhere
from coldchain.model.session import ExposureState, Orphan, OrphanKind
from tests.collect.camera_folder import DATA, STEM, wait_for, write_mdoc, write_movie, write_xml

LACKING = "the dose is not known, from neither metadata, session nor facility.toml"
LONG_AGO = timedelta(hours=1)


class Waiting:
    """An intake, a watch for orphans, and a time that goes by when it is told to."""

    def __init__(self, catalog: Catalog, root: Path) -> None:
        self.catalog, self.root = catalog, root
        self.restart()

    def restart(self) -> None:
        """Forget all that is not in the catalog."""
        self.intake = Intake(self.catalog, instrument_name="krios", source_root=self.root, copies=everywhere(()))
        self.intake.resume()
        self.watch = OrphanWatch(self.catalog, {"krios": 600.0})

    def take(self, path: Path) -> None:
        """Take a file as it stands now."""
        status = path.lstat()
        relative = str(path.relative_to(self.root))
        assert self.intake.take(Examination(relative, (status.st_size, status.st_mtime_ns), False)) is Verdict.TAKEN

    def grow_old(self) -> None:
        """An hour goes by."""
        with self.catalog.writing() as unit:
            for table in (ExposureRow, FrameSetRow):
                for row in unit.scalars(select(table)):
                    row.found_at -= LONG_AGO

    def session_id(self) -> UUID:
        """The one session that there is."""
        (session,) = sessions.list_all(self.catalog)
        return session.id

    def orphans(self) -> list[Orphan]:
        """The list."""
        found = orphans.of_session(self.catalog, self.session_id(), limit=1000)
        assert orphans.count(self.catalog, self.session_id()) == len(found)
        return found

    def told(self) -> list[Event]:
        """The events, oldest first."""
        return [found for found in events.recent(self.catalog, limit=9999) if found.kind.startswith("orphan.")][::-1]

    def lack(self, name: str) -> None:
        """The pipeline finds out that an exposure lacks something."""
        exposure = exposures.by_name(self.catalog, self.session_id(), name)
        assert exposure is not None
        exposures.set_state(self.catalog, exposure.id, ExposureState.WAITING, LACKING)


@pytest.fixture
def waiting(catalog: Catalog, root: Path) -> Waiting:
    """Nothing yet."""
    return Waiting(catalog, root)


@pytest.mark.parametrize("restart", [False, True])
def test_metadata_without_a_movie_is_told_once_and_listed_until_it_comes(waiting: Waiting, restart: bool) -> None:
    """Not before its time; not again after it; and gone with the movie."""
    waiting.take(write_xml(waiting.root / DATA / f"{STEM}.xml"))
    assert waiting.watch.look() == 0
    waiting.grow_old()
    assert waiting.watch.look() == 1
    (orphan,) = waiting.orphans()
    assert (orphan.kind, orphan.reason) == (OrphanKind.METADATA, exposures.NO_INPUT)
    if restart:
        waiting.restart()
    assert waiting.watch.look() == 0
    (event,) = waiting.told()
    assert (event.kind, event.exposure_id) == ("orphan.metadata", orphan.exposure_id)
    assert STEM in event.message
    waiting.take(write_movie(waiting.root / DATA / f"{STEM}_Fractions.mrc"))
    assert waiting.orphans() == []
    assert waiting.watch.look() == 0


@pytest.mark.parametrize("restart", [False, True])
def test_a_movie_that_lacks_its_metadata_is_told_and_listed_until_they_come(waiting: Waiting, restart: bool) -> None:
    """Only where something that is needed is not known: a facility may do without metadata."""
    waiting.take(write_movie(waiting.root / "visit/x.mrc"))
    waiting.take(write_movie(waiting.root / "visit/enough.mrc"))
    waiting.grow_old()
    assert waiting.watch.look() == 0
    waiting.lack("x")
    assert waiting.watch.look() == 1
    (orphan,) = waiting.orphans()
    assert (orphan.kind, orphan.name, orphan.reason) == (OrphanKind.MOVIE, "x", LACKING)
    if restart:
        waiting.restart()
    waiting.take(write_mdoc(waiting.root / "visit/x.mrc.mdoc"))
    assert waiting.orphans() == []
    waiting.lack("x")  # something else, which the mdoc does not say either
    assert waiting.watch.look() == 0
    assert [event.kind for event in waiting.told()] == ["orphan.movie"]


def test_movies_that_only_an_mdoc_of_many_knows_are_listed_by_their_names(waiting: Waiting) -> None:
    """They are no exposures; the one that comes is off the list."""
    sections = "\n".join(f"[ZValue = {n}]\nTiltAngle = {n}\nSubFramePath = D:\\f\\m{n}.tif\n" for n in range(3))
    path = waiting.root / "visit/TS.mrc.mdoc"
    path.parent.mkdir()
    path.write_text(sections)
    waiting.take(path)
    waiting.grow_old()
    assert waiting.watch.look() == 3
    assert [orphan.name for orphan in waiting.orphans()] == ["D:/f/m0.tif", "D:/f/m1.tif", "D:/f/m2.tif"]
    assert {orphan.exposure_id for orphan in waiting.orphans()} == {None}
    waiting.take(write_movie(waiting.root / "visit/frames/m1.mrc"))
    assert [orphan.name for orphan in waiting.orphans()] == ["D:/f/m0.tif", "D:/f/m2.tif"]
    waiting.take(path)
    assert waiting.watch.look() == 0


@pytest.mark.parametrize(("count", "told"), [(20, 20), (21, 1)])
def test_many_at_once_are_told_as_a_number(waiting: Waiting, count: int, told: int) -> None:
    """A computer that was not mounted is one message; the list has each."""
    waiting.take(write_movie(waiting.root / "visit/x.mrc"))
    for number in range(count):
        exposures.ensure(waiting.catalog, waiting.session_id(), f"e{number}")
    waiting.grow_old()
    assert waiting.watch.look() == count
    assert len(waiting.told()) == told
    assert len(waiting.orphans()) == count
    if told == 1:
        assert waiting.told()[0].kind == "orphan.many"
        assert f"{count} × metadata without a movie" in waiting.told()[0].message


def test_what_is_no_orphan_is_not_told(waiting: Waiting) -> None:
    """A damaged movie, one that is quarantined, and an exposure that waits for its gain have other troubles."""
    broken = write_movie(waiting.root / "visit/broken.mrc")
    broken.write_bytes(broken.read_bytes()[:1100])
    status = broken.lstat()
    waiting.intake.take(Examination("visit/broken.mrc", (status.st_size, status.st_mtime_ns), True))
    waiting.take(write_movie(waiting.root / "visit/x.mrc"))
    waiting.take(write_mdoc(waiting.root / "visit/x.mrc.mdoc"))
    waiting.lack("x")
    waiting.grow_old()
    assert waiting.watch.look() == 0
    other = OrphanWatch(waiting.catalog, {"glacios": 1.0})
    exposures.ensure(waiting.catalog, waiting.session_id(), "alone")
    waiting.grow_old()
    assert other.look() == 0


def test_the_watch_looks_by_itself_and_outlives_a_catalog_that_is_away(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its own thread, as often as the shortest patience asks."""
    whole, failures = orphans.tell, [CatalogError("the catalog is away")]

    def tell(*given: object, **named: object) -> int:
        if failures:
            raise failures.pop()
        return whole(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(orphans, "tell", tell)
    waiting.take(write_xml(waiting.root / DATA / f"{STEM}.xml"))
    watch = OrphanWatch(waiting.catalog, {"krios": 0.2, "glacios": 600.0})
    watch.start()
    wait_for(lambda: waiting.told() != [], "the orphan")
    assert watch.alive() and watch.idle() and not failures
    watch.stop()
    watch.stop()


def plan_of(catalog: Catalog, query: object) -> str:
    """How SQLite goes about a query."""
    compiled = query.compile(dialect=sqlite.dialect(), compile_kwargs={"render_postcompile": True})  # type: ignore[attr-defined]
    values = (None,) * len(compiled.positiontup or ())
    with catalog.reading() as unit:
        rows = unit.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", values)
        return "\n".join(row[3] for row in rows)


def test_the_lists_are_read_from_indexes(catalog: Catalog) -> None:
    """The cost does not grow with the exposures that are well."""
    some, now = UUID(int=7), datetime.now(UTC)
    listed = plan_of(catalog, orphans.exposures_query(some))
    assert "ix_exposures_session_id_orphaned_at_id (session_id=? AND orphaned_at>?)" in listed
    assert "TEMP B-TREE" not in listed
    listed = plan_of(catalog, orphans.frame_sets_query(some))
    assert "ix_frame_sets_session_id_orphaned_at_id (session_id=? AND orphaned_at>?)" in listed
    assert "TEMP B-TREE" not in listed
    searched = plan_of(catalog, orphans.waiting_query("here", "krios", now))
    assert (
        "ix_exposures_site_state_id (site=? AND state=?)" in searched
        or "_session_id_state (session_id=? AND" in searched
    )
    assert "SCAN exposures" not in searched
    searched = plan_of(catalog, orphans.frame_sets_waiting_query("here", "krios", now))
    assert "SCAN frame_sets" not in searched, searched


def test_an_older_catalog_is_upgraded_with_its_exposures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exposures of an older version are found by their stems, lie where their session does, and were told to nobody."""
    url = f"sqlite:///{tmp_path / 'old.sqlite'}"
    to_revision(monkeypatch, url, "0003")
    ids = {name: f"{number:032x}" for number, name in enumerate(("i", "s", "e", "f"), start=1)}
    now = "2026-01-01 00:00:00.000000"
    with sqlite3.connect(tmp_path / "old.sqlite") as raw:
        raw.execute(
            "INSERT INTO instruments (name, created_at, id, site) VALUES ('krios', ?, ?, 'here')", [now, ids["i"]]
        )
        raw.execute(
            "INSERT INTO sessions VALUES "
            "('v', NULL, ?, ?, x'76', x'00', 'serialem', '', '', 'open', '{}', ?, ?, 'here')",
            [ids["i"], str(tmp_path).encode(), now, ids["s"]],
        )
        for number in range(7):
            raw.execute(
                "INSERT INTO exposures VALUES (?, ?, x'00', NULL, NULL, '{}', NULL, 'waiting', ?, ?, ?, 'here')",
                [
                    ids["s"],
                    f"frames/M_{number}\udc80".encode("utf-8", "surrogateescape"),
                    exposures.NO_INPUT,
                    now,
                    f"{number + 20:032x}",
                ],
            )
        raw.execute(
            "INSERT INTO files VALUES (?, NULL, x'61', x'00', 'metadata', 1, '1', 'arrived', NULL, '', ?, ?, 'here')",
            [ids["s"], now, ids["f"]],
        )
    engine.upgrade(url)
    catalog = engine.open_catalog(url, "here")
    (session,) = sessions.list_all(catalog)
    assert [found.name for found in exposures.by_stems(catalog, session.id, ["x/m_3\udc80"])["x/m_3\udc80"]] == [
        "frames/M_3\udc80"
    ]
    assert orphans.of_session(catalog, session.id, limit=9) == []
    assert orphans.tell(catalog, instrument_name="krios", found_before=datetime.now(UTC)) == 7
    catalog.close()


def to_revision(monkeypatch: pytest.MonkeyPatch, url: str, revision: str) -> None:
    """Make a catalog as an older version had it."""
    whole: Callable[..., None] = engine.command.upgrade
    with monkeypatch.context() as patched:
        patched.setattr(engine.command, "upgrade", lambda config, _: whole(config, revision))
        engine.upgrade(url)
