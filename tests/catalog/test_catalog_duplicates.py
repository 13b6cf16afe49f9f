"""Two sites may both write a row for the same thing: readers take the oldest, and a site goes on with its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, select

from coldchain.catalog import arrivals, engine, exposures, files, frame_sets
from coldchain.catalog.arrivals import Arrival, ItsExposure
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import Base
from coldchain.model.files import FileKind, FileState
from coldchain.model.identity import first_id_at, new_id
from coldchain.model.optics import ExposureMetadata
from coldchain.model.session import DescribedExposure, Session
from tests.catalog.catalog_givens import arrive

Twin = Callable[..., UUID]
PATH, NAME = "a/movie.tiff", "a/movie"


@pytest.fixture(params=["older", "newer"])
def twin(request: pytest.FixtureRequest, url: str) -> Iterator[Twin]:
    """Makes another site's row of what a row of this one's is of, as replication brings it; `oldest` of the two."""
    theirs = engine.open_catalog(url, "there")

    def make(table: str, of: UUID, **changed: Any) -> UUID:
        rows = Base.metadata.tables[table]
        yesterday = first_id_at(datetime.now(UTC) - timedelta(days=1)).int + new_id().int % 2**60
        key = UUID(int=yesterday) if request.param == "older" else new_id()
        with theirs.writing() as unit:
            row = dict(unit.execute(select(rows).where(rows.c.id == of)).mappings().one())
            unit.execute(insert(rows).values(row | {"id": key, "site": "there"} | changed))
        return key

    yield make
    theirs.close()


def test_of_two_exposures_of_a_name_the_oldest_is_meant(catalog: Catalog, session: Session, twin: Twin) -> None:
    """By name, by stem, made, described, and joined by files that arrive; so a frame set finds one, not two."""
    mine = exposures.ensure(catalog, session.id, NAME)
    oldest = min(mine.id, twin("exposures", mine.id))
    found = exposures.by_name(catalog, session.id, NAME)
    assert found is not None and found.id == oldest
    assert [each.id for each in exposures.by_stems(catalog, session.id, ["MOVIE"])["MOVIE"]] == [oldest]
    assert exposures.ensure(catalog, session.id, NAME).id == oldest
    (described,) = exposures.describe(catalog, session.id, [DescribedExposure(NAME, ExposureMetadata(), None, None)])
    assert described.id == oldest
    preview = Arrival(
        "a/movie.jpg", FileKind.PREVIEW, 1, 1, (), 50, ItsExposure(NAME, describe=lambda said: said, makes=False)
    )
    assert arrivals.record(catalog, session.id, [preview]) == [True]
    file = files.standing(catalog, session.id, "a/movie.jpg")
    assert file is not None and file.exposure_id == oldest


def test_of_two_files_of_a_path_the_oldest_stands(catalog: Catalog, session: Session, twin: Twin) -> None:
    """For readers. What this site takes next it compares with what it has written itself, and replaces only that."""
    mine = arrive(catalog, session, PATH, size_bytes=100)
    theirs = twin("files", mine.id, size_bytes=77)
    found = files.standing(catalog, session.id, PATH)
    assert found is not None and found.id == min(mine.id, theirs)
    assert files.signatures(catalog, session.id, [PATH]) == {(PATH, None): (100, 1, FileState.ARRIVED)}
    gone = Arrival(PATH, FileKind.MOVIE, 5, 5, (), 50)
    assert arrivals.record(catalog, session.id, [gone]) == [False]
    assert arrive(catalog, session, PATH, size_bytes=100).id == mine.id
    changed = arrive(catalog, session, PATH, size_bytes=101)
    assert changed.id not in (mine.id, theirs)
    assert files.get(catalog, mine.id).state is FileState.REPLACED
    assert files.get(catalog, theirs).state is FileState.ARRIVED
    assert files.signatures(catalog, session.id, [PATH]) == {(PATH, None): (101, 1, FileState.ARRIVED)}
    found = files.standing(catalog, session.id, PATH)
    assert found is not None and found.id == min(changed.id, theirs)


def test_a_file_that_another_site_has_alone_is_its_own(catalog: Catalog, session: Session, twin: Twin) -> None:
    """As it stands it is known, and wanted on this site's stores; other content becomes a row of this site's, once."""
    mine = arrive(catalog, session, PATH, size_bytes=100)
    theirs = twin("files", mine.id, size_bytes=77)
    files.set_state(catalog, mine.id, FileState.REPLACED, "gone")
    assert files.signatures(catalog, session.id, [PATH]) == {(PATH, None): (77, 1, FileState.ARRIVED)}
    same = arrive(catalog, session, PATH, size_bytes=77, kind=FileKind.OTHER, detail="another opinion")
    assert (same.id, same.kind, same.detail) == (theirs, FileKind.MOVIE, "")
    other = arrive(catalog, session, PATH, size_bytes=78)
    assert other.id not in (mine.id, theirs) and arrive(catalog, session, PATH, size_bytes=78).id == other.id
    assert files.get(catalog, theirs).state is FileState.ARRIVED
    assert files.signatures(catalog, session.id, [PATH]) == {(PATH, None): (78, 1, FileState.ARRIVED)}


def test_of_two_readings_of_an_mdoc_this_sites_counts(catalog: Catalog, session: Session, twin: Twin) -> None:
    """It is said once, reaches its exposure once, and waits no more when it has."""
    said, newer = ExposureMetadata(movie_name="first"), ExposureMetadata(movie_name="second")
    (mine,) = frame_sets.record(catalog, session.id, "x.mdoc", [("movie", "movie.tif", said)])
    twin("frame_sets", mine.id)
    assert frame_sets.waiting_for(catalog, session.id, NAME) == [mine]
    assert frame_sets.record(catalog, session.id, "x.mdoc", [("movie", "movie.tif", said)]) == [mine]
    (changed,) = frame_sets.record(catalog, session.id, "x.mdoc", [("movie", "movie.tif", newer)])
    assert changed.id == mine.id and changed.metadata == newer
    frame_sets.mark_used(catalog, [mine.id])
    assert frame_sets.waiting_for(catalog, session.id, NAME) == []
    assert frame_sets.record(catalog, session.id, "x.mdoc", [("movie", "movie.tif", newer)]) == []


def test_of_two_other_sites_readings_of_an_mdoc_the_oldest_counts(
    catalog: Catalog, session: Session, twin: Twin
) -> None:
    """What this site has not read is known by the oldest; what it reads otherwise is written as its own."""
    elsewhere = engine.open_catalog(catalog._url.render_as_string(hide_password=False), "elsewhere")
    said, other = ExposureMetadata(movie_name="first"), ExposureMetadata(movie_name="second")
    (read,) = frame_sets.record(elsewhere, session.id, "x.mdoc", [("movie", "movie.tif", said)])
    elsewhere.close()
    oldest = min(read.id, twin("frame_sets", read.id))
    assert [each.id for each in frame_sets.waiting_for(catalog, session.id, NAME)] == [oldest]
    assert [each.id for each in frame_sets.record(catalog, session.id, "x.mdoc", [("movie", "movie.tif", said)])] == [
        oldest
    ]
    (mine,) = frame_sets.record(catalog, session.id, "x.mdoc", [("movie", "movie.tif", other)])
    assert mine.id not in (read.id, oldest) and frame_sets.waiting_for(catalog, session.id, NAME) == [mine]
