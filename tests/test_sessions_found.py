"""The service on simulated sessions whose files lie on two computers, some of them late, with kill -9 between."""

from __future__ import annotations

import json
import random
import shutil
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from coldchain.catalog import events, orphans
from coldchain.catalog.engine import Catalog
from coldchain.model.files import FileState
from coldchain.model.session import ExposureState, Layout
from coldchain.simulate.session import SessionPlan, simulate_session
from coldchain.simulate.specimen import generate_specimen
from coldchain.simulate.truth import MovieParameters, SessionTruth
from tests.facility import (
    TestFacility,
    all_exposures,
    is_verified_everywhere,
    make_facility,
    standing_files,
    the_session,
)

MOVIE = MovieParameters(frames=3, height=128, width=128, pixel_size_angstrom=2.0, particles=2, drift_angstrom=4.0)
PLAN = SessionPlan(exposures=3, movie=MOVIE, seed=5, started_at=datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC))
_INSTRUMENT = 'movie_root = "camera"\nmetadata_roots = ["scope"]\norphan_seconds = 3\n'


@pytest.fixture
def facility(tmp_path: Path) -> TestFacility:
    """A facility that knows nothing of its optics but from metadata, which come from another computer."""
    made = make_facility(tmp_path / "facility", optics="amplitude_contrast = 0.1")
    text = made.config_file.read_text().replace('movie_root = "camera"\n', _INSTRUMENT)
    made.config_file.write_text(text)
    (made.root / "scope").mkdir()
    return made


def simulated(folder: Path) -> tuple[SessionTruth, list[str]]:
    """A session as EPU would write it on one computer, and its files' paths."""
    truth = simulate_session(PLAN, folder, specimen=generate_specimen(seed=1, diameter_angstrom=60))
    return truth, sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def bring(source: Path, root: Path, path: str) -> None:
    """A file appears."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / path, root / path)


def all_is_well(catalog: Catalog, exposures_wanted: int, files_wanted: int) -> bool:
    """Whether all of the session is taken, computed and verified on both stores."""
    found = all_exposures(catalog)
    standing = [file for file in standing_files(catalog) if file.state is not FileState.REPLACED]
    return (
        len(found) == exposures_wanted
        and len(standing) == files_wanted
        and all(exposure.state is ExposureState.DONE for exposure in found)
        and all(is_verified_everywhere(catalog, file) for file in standing)
    )


def arrivals_told(catalog: Catalog) -> int:
    """Of how many arrivals the events speak: one of its own, or of many together."""
    messages = [event.message for event in events.recent(catalog, limit=9999) if event.kind == "file.arrived"]
    return sum(int(said.split()[0]) if said.endswith(" files arrived") else 1 for said in messages)


def test_two_computers_in_any_order_and_kill_9_make_one_session(facility: TestFacility, tmp_path: Path) -> None:
    """Movies here, all else there, shuffled, the service killed on the way: every exposure is whole, once."""
    truth, paths = simulated(tmp_path / "session")
    movies = {exposure.movie_path for exposure in truth.exposures}
    places = {path: "camera/visit/S1" if path in movies else "scope/2026/visit/S1" for path in paths}
    rng = random.Random(3)
    # The session's own folders are there before its first movie.
    order = [path for path in paths if "/Data/" not in path]
    order += rng.sample([path for path in paths if "/Data/" in path], len(paths) - len(order))
    process = facility.start()
    for number, path in enumerate(order):
        bring(tmp_path / "session", facility.root / places[path], path)
        if number == len(order) // 2:
            facility.wait(lambda catalog: bool(standing_files(catalog)))
            process.kill()
            process.wait()
    with facility.running():
        facility.wait(lambda catalog: all_is_well(catalog, len(truth.exposures), len(paths)))
        with facility.catalog() as catalog:
            session = the_session(catalog)
            assert session is not None
            assert (session.layout, session.folder.rpartition("/")[2]) == (Layout.EPU, "S1")
            found = {exposure.name: exposure for exposure in all_exposures(catalog)}
            for planted in truth.exposures:
                exposure = found[planted.name]
                assert (exposure.grid_square, exposure.foil_hole) == (planted.grid_square, planted.foil_hole)
                assert exposure.metadata.optics.pixel_size_angstrom == pytest.approx(2.0)
            assert arrivals_told(catalog) == len(paths)
            for path in paths:
                for store in ("live", "archive"):
                    copy = facility.root / "stores" / store / "scope" / session.folder / path
                    assert copy.read_bytes() == (tmp_path / "session" / path).read_bytes()


def test_what_lacks_its_partner_is_told_listed_and_taken_off_the_list(facility: TestFacility, tmp_path: Path) -> None:
    """A movie whose XML does not come, an XML whose movie does not: on the page, in the command, until they do."""
    truth, paths = simulated(tmp_path / "session")
    alone, unseen = truth.exposures[0], truth.exposures[1]
    late = {f"{alone.name}.xml": "scope/visit", unseen.movie_path: "camera/visit"}
    early = {alone.movie_path: "camera/visit", f"{unseen.name}.xml": "scope/visit"}
    assert set(late) | set(early) <= set(paths)
    for path, root in early.items():
        bring(tmp_path / "session", facility.root / root, path)

    def listed(catalog: Catalog) -> dict[str, str]:
        session = the_session(catalog)
        found = [] if session is None else orphans.of_session(catalog, session.id, limit=99)
        return {orphan.name: orphan.kind.value for orphan in found}

    expected = {alone.name: "movie", unseen.name: "metadata"}
    with facility.running():
        facility.wait(lambda catalog: listed(catalog) == expected)
    with facility.running():
        told = facility.typed("session", "orphans", "visit", "--json")
        assert {orphan["name"]: orphan["kind"] for orphan in json.loads(told)} == expected
        with facility.catalog() as catalog:
            session = the_session(catalog)
            assert session is not None
            kinds = [event.kind for event in events.recent(catalog, limit=9999) if event.kind.startswith("orphan.")]
            assert sorted(kinds) == ["orphan.metadata", "orphan.movie"]
        facility.wait(lambda _: facility.log().count("http://127.0.0.1") == 2)
        page = httpx.get(f"{facility.url()}/sessions/{session.id}", trust_env=False).text
        assert "movie without metadata" in page and "metadata without a movie" in page
        for path, root in late.items():
            bring(tmp_path / "session", facility.root / root, path)
        facility.wait(lambda catalog: listed(catalog) == {})
        facility.wait(lambda catalog: all_is_well(catalog, 2, 4))
