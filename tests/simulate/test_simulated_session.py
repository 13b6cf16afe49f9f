"""A simulated session is what a microscope would leave, reads back, and keeps its truth beside itself."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from coldchain.errors import StorageError, UsageError
from coldchain.formats.defects import read_defects
from coldchain.formats.document import child, local_name, read_xml, text
from coldchain.formats.epu import read_exposure_xml
from coldchain.formats.gain import read_gain
from coldchain.formats.mdoc import read_mdoc
from coldchain.formats.movie import MovieReading, load_movie, probe_movie
from coldchain.formats.structure import check_structure
from coldchain.model.session import Layout
from coldchain.simulate.movie import MovieParameters, simulate_movie
from coldchain.simulate.session import SessionPlan, plan_exposures, simulate_session
from coldchain.simulate.specimen import Specimen, generate_specimen
from coldchain.simulate.truth import SessionTruth

MOVIE = MovieParameters(
    frames=3, height=96, width=128, pixel_size_angstrom=4.0, particles=2, drift_angstrom=6.0, gain=True, defects=True
)
PLAN = SessionPlan(exposures=5, movie=MOVIE, seed=11, started_at=datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC))


@pytest.fixture(scope="module")
def specimen() -> Specimen:
    """The particle of this module's sessions."""
    return generate_specimen(seed=1, diameter_angstrom=100)


def files_of(root: Path) -> dict[str, bytes]:
    """Every file's bytes by its path relative to the root."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_layout_that_nobody_simulates_is_refused() -> None:
    """Leginon's sessions need its database."""
    with pytest.raises(UsageError, match="epu or serialem or plain"):
        SessionPlan(layout=Layout.LEGINON)


def test_an_epu_session_is_read_back(tmp_path: Path, specimen: Specimen) -> None:
    """The readers of real EPU files find the planted optics, dose, frames, defocus, squares and holes."""
    root = tmp_path / "visit-1"
    truth = simulate_session(PLAN, root, specimen=specimen)
    session = read_xml(root / "EpuSession.dm")
    assert text(child(session, "Name")) == "visit-1"
    assert datetime.fromisoformat(text(child(session, "StartDateTime")) or "") == PLAN.started_at
    assert len({exposure.grid_square for exposure in truth.exposures}) == 2
    for exposure in truth.exposures:
        planted = exposure.movie.parameters
        metadata = read_exposure_xml(root / f"{exposure.name}.xml")
        assert metadata.optics.pixel_size_angstrom == pytest.approx(4.0)
        assert metadata.optics.voltage_kilovolt == pytest.approx(300)
        assert metadata.optics.dose_e_per_square_angstrom == pytest.approx(planted.dose_e_per_square_angstrom)
        assert metadata.optics.frame_count == 3
        mean = (planted.defocus_u_angstrom + planted.defocus_v_angstrom) / 2
        assert metadata.applied_defocus_micrometer == pytest.approx(-mean * 1e-4)
        square = read_xml(root / "Metadata" / f"GridSquare_{exposure.grid_square}.dm")
        holes = (hole for hole in square.iter() if local_name(hole).startswith("KeyValuePairOfintTargetLocation"))
        assert exposure.foil_hole in {text(child(hole, "key")) for hole in holes}
        assert (root / f"{exposure.name}.jpg").is_file()
    for path in root.rglob("*"):
        if path.is_file():
            check_structure(path)


def test_an_epu_sessions_names_are_epus(tmp_path: Path, specimen: Specimen) -> None:
    """Every file of the tree has a name that software for real sessions knows."""
    root = tmp_path / "visit"
    simulate_session(PLAN, root, specimen=specimen)
    known = re.compile(
        r"EpuSession\.dm|gain\.mrc|Metadata/GridSquare_\d+\.dm"
        r"|Images-Disc1/GridSquare_\d+/(GridSquare_\d{8}_\d{6}\.(xml|jpg)"
        r"|FoilHoles/FoilHole_\d+_\d{8}_\d{6}\.(xml|jpg)"
        r"|Data/FoilHole_\d+_Data_\d+_\d+_\d{8}_\d{6}(\.xml|\.jpg|_fractions\.tiff))"
    )
    names = files_of(root)
    assert [name for name in names if not known.fullmatch(name)] == []
    assert sum(name.endswith("_fractions.tiff") for name in names) == 5
    assert sum("/FoilHoles/" in name and name.endswith(".xml") for name in names) == 2


@pytest.mark.parametrize("container", ["tiff", "mrc"])
@pytest.mark.parametrize("layout", [Layout.EPU, Layout.SERIALEM, Layout.PLAIN])
def test_movies_hold_the_simulated_counts(tmp_path: Path, specimen: Specimen, layout: Layout, container: str) -> None:
    """What is read from a session's movie is what was simulated, whatever layout and container."""
    plan = replace(PLAN, layout=layout, container=container, exposures=1)
    truth = simulate_session(plan, tmp_path / "s", specimen=specimen)
    movie = simulate_movie(truth.exposures[0].movie.parameters, specimen)
    path = tmp_path / "s" / truth.exposures[0].movie_path
    assert np.array_equal(load_movie(path).frames, movie.frames)
    assert truth.gain_path is not None
    assert np.array_equal(read_gain(tmp_path / "s" / truth.gain_path), movie.gain)
    assert truth.exposures[0].movie == movie.truth


def test_an_eer_movie_holds_the_simulated_electrons(tmp_path: Path, specimen: Specimen) -> None:
    """Read with as many fractions as there were frames, it has the electrons, but for a few that fell together."""
    movie_parameters = replace(MOVIE, dose_per_frame_e_per_square_angstrom=0.1)
    plan = replace(PLAN, container="eer", exposures=1, movie=movie_parameters)
    truth = simulate_session(plan, tmp_path / "s", specimen=specimen)
    path = tmp_path / "s" / truth.exposures[0].movie_path
    assert path.name.endswith("_EER.eer")
    assert probe_movie(path).frames == 60
    movie = simulate_movie(truth.exposures[0].movie.parameters, specimen)
    assert movie.gain is not None
    assert movie.defects is not None
    whole = ~movie.defects
    found = load_movie(path, MovieReading(eer_fractions=3)).frames.astype(int)
    assert np.all(found <= movie.frames)
    assert found[:, whole].sum() > 0.95 * movie.frames[:, whole].sum()
    assert truth.gain_path == "EER_GainReference.gain"
    gain = read_gain(tmp_path / "s" / truth.gain_path)
    ratio = gain[movie.gain > 0] / movie.gain[movie.gain > 0]
    assert ratio.std() < 1e-3
    assert np.array_equal(gain == 0, movie.gain == 0)


def test_a_serialem_session_is_read_back(tmp_path: Path, specimen: Specimen) -> None:
    """Each movie's mdoc tells its optics and dose, and names the gain and the defects that lie beside it."""
    root = tmp_path / "frames"
    truth = simulate_session(replace(PLAN, layout=Layout.SERIALEM), root, specimen=specimen)
    camera = simulate_movie(truth.exposures[0].movie.parameters, specimen)
    for exposure in truth.exposures:
        metadata = read_mdoc(root / f"{exposure.movie_path}.mdoc", zone=UTC)
        assert metadata.optics.pixel_size_angstrom == pytest.approx(4.0)
        assert metadata.optics.voltage_kilovolt == pytest.approx(300)
        assert metadata.optics.dose_e_per_square_angstrom == pytest.approx(4.8)
        assert metadata.optics.frame_count == 3
        assert metadata.acquired_at is not None
        assert 0 <= (metadata.acquired_at - PLAN.started_at).total_seconds() < 5
        assert metadata.gain_name == truth.gain_path
        assert metadata.defects_name == truth.defects_path
    assert truth.defects_path is not None
    assert camera.defects is not None
    assert np.array_equal(read_defects(root / truth.defects_path, camera.defects.shape), camera.defects)


def test_a_plain_folder_says_nothing(tmp_path: Path, specimen: Specimen) -> None:
    """Movies and their gain, no metadata; not even the TIFF knows its pixel size."""
    truth = simulate_session(replace(PLAN, layout=Layout.PLAIN), tmp_path / "s", specimen=specimen)
    assert sorted(files_of(tmp_path / "s")) == ["gain.mrc", *(f"movie_{n:05d}.tiff" for n in range(1, 6))]
    assert probe_movie(tmp_path / "s" / truth.exposures[0].movie_path).pixel_size_angstrom is None


def test_without_a_gain_none_is_written(tmp_path: Path, specimen: Specimen) -> None:
    """A camera that corrects its counts itself leaves no reference."""
    plan = replace(PLAN, layout=Layout.PLAIN, exposures=1, movie=replace(MOVIE, gain=False, defects=False))
    truth = simulate_session(plan, tmp_path / "s", specimen=specimen)
    assert truth.gain_path is None
    assert sorted(files_of(tmp_path / "s")) == ["movie_00001.tiff"]


def test_the_truth_lies_beside_the_session_and_is_there_first(tmp_path: Path, specimen: Specimen) -> None:
    """It is written outside the session, whole at any time, and knows an exposure before that is finished."""
    path = tmp_path / "elsewhere" / "truth.json"
    seen: list[int] = []

    def look(done: int, planned: int) -> None:
        assert planned == 5
        assert len(SessionTruth.from_json(path.read_text()).exposures) == done
        seen.append(done)

    truth = simulate_session(PLAN, tmp_path / "s", specimen=specimen, truth_path=path, progress=look)
    assert seen == [1, 2, 3, 4, 5]
    assert SessionTruth.from_json(path.read_text()) == truth
    assert not [name for name in files_of(tmp_path / "s") if "truth" in name]


def test_movies_grow_under_their_final_names(tmp_path: Path, specimen: Specimen) -> None:
    """While the camera writes, the movie is there and short; at the end it is whole."""
    plan = replace(PLAN, layout=Layout.PLAIN, container="mrc", exposures=1, seconds_to_write=2.0)
    whole = 1024 + 3 * 96 * 128 * 2
    path = tmp_path / "s" / "movie_00001.mrc"
    camera = threading.Thread(target=lambda: simulate_session(plan, tmp_path / "s", specimen=specimen))
    camera.start()
    sizes: set[int] = set()
    deadline = time.monotonic() + 120
    while camera.is_alive() and time.monotonic() < deadline:
        sizes |= {path.stat().st_size} if path.exists() else set()
        time.sleep(0.01)
    camera.join()
    assert len({size for size in sizes if size < whole}) >= 3
    assert path.stat().st_size == whole


def test_metadata_come_before_some_movies_and_after_others() -> None:
    """Both orders occur in one session, as they do in life."""
    orders = {exposure.metadata_first for exposure in plan_exposures(replace(PLAN, exposures=20))}
    assert orders == {True, False}


def test_exposures_have_their_own_defocus_within_the_range() -> None:
    """Defocus spreads over the wanted range, the astigmatism is the movie's, and no two exposures share a name."""
    plan = replace(PLAN, exposures=40, defocus_range_angstrom=(9000.0, 21000.0))
    exposures = plan_exposures(plan)
    defocus = np.array([exposure.movie.defocus_v_angstrom for exposure in exposures])
    assert 9000 <= defocus.min() < 11000
    assert 19000 < defocus.max() <= 21000
    astigmatism = {round(e.movie.defocus_u_angstrom - e.movie.defocus_v_angstrom, 6) for e in exposures}
    assert astigmatism == {300.0}
    assert len({exposure.name for exposure in exposures}) == 40
    assert len({exposure.movie.seed for exposure in exposures}) == 40
    assert {exposure.movie.camera_seed for exposure in exposures} == {11}


def test_the_same_plan_writes_the_same_bytes(tmp_path: Path, specimen: Specimen) -> None:
    """A session can be made again, file by file."""
    for folder in ("a", "b"):
        simulate_session(replace(PLAN, exposures=2), tmp_path / folder / "visit", specimen=specimen)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_a_session_ends_when_told(tmp_path: Path, specimen: Specimen) -> None:
    """Told to stop after two exposures, it finishes the one in hand, and the truth holds no other."""
    stopping = threading.Event()

    def stop_after_two(done: int, planned: int) -> None:
        if done == 2:
            stopping.set()

    truth = simulate_session(
        replace(PLAN, seconds_between=0.01),
        tmp_path / "s",
        specimen=specimen,
        progress=stop_after_two,
        stopping=stopping,
    )
    assert len(truth.exposures) == 2
    assert sum(name.endswith("_fractions.tiff") for name in files_of(tmp_path / "s")) == 2


def test_exposures_keep_their_pace(tmp_path: Path, specimen: Specimen) -> None:
    """No exposure comes before its time."""
    begun = time.monotonic()
    simulate_session(
        replace(PLAN, layout=Layout.PLAIN, exposures=3, seconds_between=0.4), tmp_path / "s", specimen=specimen
    )
    assert time.monotonic() - begun >= 0.8


def test_nobodys_files_are_overwritten(tmp_path: Path, specimen: Specimen) -> None:
    """A folder that holds something is refused, and so is a truth inside the session."""
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match="empty folder"):
        simulate_session(PLAN, tmp_path, specimen=specimen)
    with pytest.raises(UsageError, match="outside"):
        simulate_session(PLAN, tmp_path / "s", specimen=specimen, truth_path=tmp_path / "s" / "truth.json")
    assert files_of(tmp_path) == {"mine.txt": b"precious"}


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, specimen: Specimen) -> None:
    """Where the root cannot be made, the error is a StorageError that names it."""
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError, match="cannot be written"):
        simulate_session(PLAN, tmp_path / "file" / "s", specimen=specimen)


@pytest.mark.parametrize(
    "wrong",
    [
        {"container": "dm4"},
        {"exposures": 0},
        {"seconds_between": -1.0},
        {"defocus_range_angstrom": (2.0, 1.0)},
        {"started_at": datetime(2026, 1, 1)},  # the missing zone is the fault
    ],
)
def test_plans_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    """They are said before anything is written."""
    with pytest.raises(UsageError):
        SessionPlan(**wrong)  # type: ignore[arg-type]  # one field at a time
