"""Files that arrive together stand in the catalog as if each had come alone, on either database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from coldchain.catalog import arrivals, engine, events, exposures, files, frame_sets, places, replicas, tasks
from coldchain.catalog.arrivals import Arrival, ItsExposure
from coldchain.catalog.engine import Catalog
from coldchain.errors import CatalogError
from coldchain.model.files import DataFile, FileKind, FileState, ReplicaState
from coldchain.model.optics import ExposureMetadata, Optics
from coldchain.model.session import Exposure, ExposureState, Session
from tests.catalog.catalog_givens import STORES, arrive, new_session

PIXEL = ExposureMetadata(optics=Optics(pixel_size_angstrom=0.66), source="epu-xml")
HEADER = ExposureMetadata(optics=Optics(pixel_size_angstrom=1.3, frame_count=3), source="header")


def of(name: str, *, makes: bool = True, says: ExposureMetadata | None = None) -> ItsExposure:
    """An exposure on a square and in a hole, of which a file says something, over what was known."""

    def describe(standing: ExposureMetadata) -> ExposureMetadata:
        return standing if says is None else says.over(standing)

    return ItsExposure(name, describe, makes, grid_square="square", foil_hole="hole")


def arrived(path: str, kind: FileKind = FileKind.OTHER, exposure: ItsExposure | None = None) -> Arrival:
    """A whole file that is wanted on two stores."""
    return Arrival(path, kind, 100, 1, STORES, 40, exposure)


def standing(catalog: Catalog, session: Session) -> dict[str, DataFile]:
    """The files that stand for their paths."""
    rows = files.of_session(catalog, session.id, limit=10_000)
    return {row.relative_path: row for row in rows if row.state is not FileState.REPLACED}


def by_name(catalog: Catalog, session: Session, name: str) -> Exposure:
    """An exposure that is there."""
    found = exposures.by_name(catalog, session.id, name)
    assert found is not None
    return found


def test_each_has_its_row_its_copies_and_its_exposure(catalog: Catalog, session: Session) -> None:
    """Described and fed in one transaction; a preview joins what is there and makes nothing."""
    written = arrivals.record(
        catalog,
        session.id,
        [
            arrived("a.xml", FileKind.METADATA, of("a", says=PIXEL)),
            arrived("a.mrc", FileKind.MOVIE, of("a", says=HEADER)),
            arrived("a_sum.mrc", FileKind.MICROGRAPH, of("a")),
            arrived("a.jpg", FileKind.PREVIEW, of("a", makes=False)),
            arrived("b.jpg", FileKind.PREVIEW, of("b", makes=False)),
            arrived("c.xml", FileKind.METADATA, of("c", says=PIXEL)),
            arrived("bytes\udcff", FileKind.OTHER),
        ],
    )
    assert written == [True] * 7
    found = standing(catalog, session)
    a, c = by_name(catalog, session, "a"), by_name(catalog, session, "c")
    assert exposures.by_name(catalog, session.id, "b") is None
    assert (a.state, a.reason, a.input_file_id) == (ExposureState.READY, "", found["a.mrc"].id)
    assert (c.state, c.reason, c.input_file_id) == (ExposureState.WAITING, exposures.NO_INPUT, None)
    assert (a.grid_square, a.foil_hole, a.metadata.optics.frame_count) == ("square", "hole", 3)
    assert c.metadata == PIXEL
    assert {path: row.exposure_id for path, row in found.items()} == {
        **dict.fromkeys(("a.xml", "a.mrc", "a_sum.mrc", "a.jpg"), a.id),
        **{"b.jpg": None, "c.xml": c.id, "bytes\udcff": None},
    }
    for row in found.values():
        assert row == files.get(catalog, row.id)
        assert (row.state, row.size_bytes, row.modified_ns, row.sha256) == (FileState.ARRIVED, 100, 1, None)
        assert [(copy.store, copy.state) for copy in replicas.of_file(catalog, row.id)] == [
            (store, ReplicaState.WANTED) for store in STORES
        ]


def test_a_later_batch_joins_what_an_earlier_one_made(catalog: Catalog, session: Session) -> None:
    """A movie takes a micrograph's place, never the other way round; new optics make what is done ready again."""
    arrivals.record(catalog, session.id, [arrived("a_sum.mrc", FileKind.MICROGRAPH, of("a"))])
    arrivals.record(catalog, session.id, [arrived("a.mrc", FileKind.MOVIE, of("a"))])
    movie = standing(catalog, session)["a.mrc"]
    assert by_name(catalog, session, "a").input_file_id == movie.id
    exposures.set_state(catalog, by_name(catalog, session, "a").id, ExposureState.DONE)
    arrivals.record(catalog, session.id, [arrived("a2.mrc", FileKind.MICROGRAPH, of("a"))])
    assert by_name(catalog, session, "a").state is ExposureState.DONE
    arrivals.record(catalog, session.id, [arrived("a.xml", FileKind.METADATA, of("a", says=PIXEL))])
    again = by_name(catalog, session, "a")
    assert (again.state, again.input_file_id, again.metadata) == (ExposureState.READY, movie.id, PIXEL)


def test_a_path_that_is_taken_is_left_out(catalog: Catalog, session: Session) -> None:
    """In the batch or before it, changed or not: the rest arrives, and what stood there is as it was."""
    old = arrive(catalog, session, "old")
    place = places.ensure(catalog, session.id, root="/more", folder="visit")
    given = [arrived("old"), arrived("new"), replace(arrived("new"), place_id=place.id), arrived("other")]
    assert arrivals.record(catalog, session.id, given) == [False, True, False, True]
    assert standing(catalog, session)["old"] == old
    assert sorted(standing(catalog, session)) == ["new", "old", "other"]
    files.set_state(catalog, old.id, FileState.REPLACED, "its content changed")
    assert arrivals.record(catalog, session.id, [arrived("old")]) == [True]


def test_many_are_wanted_in_the_order_of_their_priority(catalog: Catalog, session: Session) -> None:
    """The copier is given them as it would be those that came alone."""
    later = [replace(arrived(f"later {number}"), priority=60) for number in range(300)]
    arrivals.record(catalog, session.id, later)
    arrivals.record(catalog, session.id, [arrived("sooner"), replace(arrived("nowhere"), stores=())])
    seen, _ = tasks.to_copy(catalog, state=ReplicaState.WANTED, stores=["live"], limit=1000, exclude=())
    assert seen[0].file.relative_path == "sooner"
    assert len(seen) == 301


@pytest.fixture
def theirs(url: str) -> Iterator[Catalog]:
    """The same catalog, opened by another site."""
    opened = engine.open_catalog(url, "there")
    yield opened
    opened.close()


@pytest.mark.parametrize("bad", ["../outside", "/absolute", "a/../../b", "long" * 2000])
def test_where_one_is_refused_nothing_is_written(catalog: Catalog, session: Session, bad: str) -> None:
    """Neither rows nor events of the others: they are taken one by one."""
    before = events.recent(catalog)
    with pytest.raises(CatalogError):
        arrivals.record(catalog, session.id, [arrived("a.mrc", FileKind.MOVIE, of("a")), arrived(bad)])
    assert standing(catalog, session) == {}
    assert exposures.by_name(catalog, session.id, "a") is None
    assert events.recent(catalog) == before


def test_another_sites_exposure_is_left_to_its_owner(catalog: Catalog, theirs: Catalog, session: Session) -> None:
    """What would change it is refused, as when it comes alone."""
    exposures.ensure(theirs, session.id, "a")
    with pytest.raises(CatalogError, match="belongs to the site there"):
        arrivals.record(catalog, session.id, [arrived("b"), arrived("a.mrc", FileKind.MOVIE, of("a"))])
    assert standing(catalog, session) == {}


def test_one_event_speaks_of_many_and_one_of_itself(catalog: Catalog, session: Session) -> None:
    """With its file and its exposure where it is one, with neither where they are many."""
    arrivals.record(catalog, session.id, [arrived("a.mrc", FileKind.MOVIE, of("a"))])
    row, exposure = standing(catalog, session)["a.mrc"], by_name(catalog, session, "a")
    newest = events.recent(catalog, session_id=session.id, limit=3)
    assert {(event.kind, event.message, event.file_id, event.exposure_id) for event in newest} == {
        ("file.arrived", "a.mrc (movie) is arrived", row.id, exposure.id),
        ("exposure.ready", "a is ready", None, exposure.id),
        ("exposure.found", "exposure a", None, exposure.id),
    }
    arrivals.record(catalog, session.id, [arrived(f"{n}.mrc", FileKind.MOVIE, of(f"{n}")) for n in range(3)])
    newest = events.recent(catalog, session_id=session.id, limit=3)
    assert {(event.kind, event.message, event.file_id, event.exposure_id) for event in newest} == {
        ("file.arrived", "3 files arrived", None, None),
        ("exposure.ready", "3 exposures are ready", None, None),
        ("exposure.found", "3 exposures", None, None),
    }


def test_of_two_exposures_of_a_name_the_oldest_counts(catalog: Catalog, theirs: Catalog, session: Session) -> None:
    """Two sites may both have made one."""
    mine = exposures.ensure(catalog, session.id, "a")
    with theirs.writing() as unit:
        exposures.new_row(unit, session.id, "a")
    arrivals.record(catalog, session.id, [arrived("a.mrc", FileKind.MOVIE, of("a"))])
    assert standing(catalog, session)["a.mrc"].exposure_id == mine.id


def test_what_an_mdoc_said_beforehand_is_known_for_many_at_once(catalog: Catalog, session: Session) -> None:
    """As `waiting_for` knows it of each; another session's is not meant."""
    other = new_session(catalog, name="other", folder="other")
    said = [("One", "One.mrc", PIXEL), ("two", "two.mrc", PIXEL)]
    waiting = frame_sets.record(catalog, session.id, "all.mdoc", said)
    frame_sets.record(catalog, other.id, "all.mdoc", [("three", "three.mrc", PIXEL)])
    names = ["deep/one", "two", "three", *(f"none {number}" for number in range(400))]
    assert frame_sets.awaited(catalog, session.id, names) == {"deep/one", "two"}
    frame_sets.mark_used(catalog, [waiting[0].id])
    assert frame_sets.awaited(catalog, session.id, names) == {"two"}
    assert frame_sets.awaited(catalog, session.id, []) == set()
