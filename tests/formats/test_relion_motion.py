"""RELION's motion STAR: the same values come back, RELION's own files are read, and RELION's programs use ours.

The signs and units are checked three ways: RELION's motion correction on a movie of known motion, RELION's extraction
from a sum that was made with the motion that our file states, and RELION's polishing, which starts from our file.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from coldchain.errors import FormatError
from coldchain.formats import mrc, star, tiff
from coldchain.formats.relion_micrographs import CorrectedMicrograph, OpticsGroup, write_corrected_micrographs
from coldchain.formats.relion_motion import (
    COEFFICIENTS,
    PatchShifts,
    RelionMotion,
    accumulated_motion_pixel,
    displacement,
    opposite,
    read_motion,
    write_motion,
)
from coldchain.simulate.movie import MovieParameters, SimulatedMovie, local_displacement_angstrom, simulate_movie
from coldchain.simulate.specimen import generate_specimen
from tests.formats import relion_project as planted
from tests.formats.relion_project import PlantedMovie


def needs(*programs: str) -> None:
    """Skip where the package is not installed."""
    if not all(map(shutil.which, programs)):
        pytest.skip("the package relion is not installed")


def whole_motion() -> RelionMotion:
    """A motion with every field set; the first and the last frame were not used."""
    rng = np.random.default_rng(1)
    tracks = rng.normal(size=(2, 6))
    tracks[:, [0, 5]] = np.nan
    return RelionMotion(
        width=300,
        height=200,
        movie_name="movies/a b.eer",
        shift_x_pixel=tracks[0],
        shift_y_pixel=tracks[1],
        gain_name="gain.gain",
        defect_name="defects.txt",
        bin_factor=2.0,
        pixel_size_angstrom=0.7,
        dose_per_frame_e_per_square_angstrom=1.1,
        pre_exposure_e_per_square_angstrom=0.5,
        voltage_kilovolt=200.0,
        first_frame=2,
        eer_upsampling=2,
        eer_grouping=40,
        polynomial_x=rng.normal(size=COEFFICIENTS) * 1e-6,
        polynomial_y=rng.normal(size=COEFFICIENTS),
        hot_pixels=np.array([[299, 0], [0, 199]]),
        patches=PatchShifts(
            frame=np.array([2, 5]),
            x_pixel=np.array([10.0, 20.5]),
            y_pixel=np.array([30.0, 40.0]),
            shift_x_pixel=np.array([0.1, -0.2]),
            shift_y_pixel=np.array([0.3, -4.0]),
        ),
    )


def assert_same_motion(found: RelionMotion, wanted: RelionMotion) -> None:
    """Every field is the same, to the nine digits that are written."""
    for field in dataclasses.fields(RelionMotion):
        one, other = getattr(found, field.name), getattr(wanted, field.name)
        if field.name == "patches":
            for part in dataclasses.fields(PatchShifts):
                np.testing.assert_allclose(getattr(one, part.name), getattr(other, part.name), rtol=1e-8)
        elif isinstance(other, np.ndarray):
            np.testing.assert_allclose(one, other, rtol=1e-8)
        else:
            assert one == other, field.name


def assert_same_star(ours: Path, theirs: Path) -> None:
    """Both files hold the same tables, labels and values, in the same order, as `starfile` reads them."""
    one, other = starfile.read(ours, always_dict=True), starfile.read(theirs, always_dict=True)
    assert list(one) == list(other)
    for name, block in other.items():
        if isinstance(block, dict):
            assert list(one[name]) == list(block)
            assert one[name] == block
        else:
            pd.testing.assert_frame_equal(one[name], block, check_exact=True)


# What we write and read


def test_every_field_comes_back(tmp_path: Path) -> None:
    """A motion with everything in it is read as it was written."""
    write_motion(tmp_path / "a.star", whole_motion())
    assert_same_motion(read_motion(tmp_path / "a.star"), whole_motion())


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    """Without a local model, hot pixels and patches there are none of their tables, and the version is 0."""
    motion = RelionMotion(
        width=64, height=64, movie_name="m.mrc", shift_x_pixel=np.zeros(3), shift_y_pixel=np.arange(3.0)
    )
    write_motion(tmp_path / "a.star", motion)
    blocks = star.read_star(tmp_path / "a.star")
    assert list(blocks) == ["general", "global_shift"]
    general = star.record(blocks, "general", tmp_path).values
    assert general["rlnMotionModelVersion"] == "0"
    assert not {"rlnMicrographGainName", "rlnVoltage", "rlnEERGrouping"} & set(general)
    assert_same_motion(read_motion(tmp_path / "a.star"), motion)


@given(
    tracks=st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=1, max_size=8),
    skipped=st.integers(0, 3),
    hot=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 79)), max_size=3),
    coefficients=st.none() | st.lists(st.floats(-9, 9), min_size=36, max_size=36),
)
def test_any_motion_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    tracks: list[tuple[float, float]],
    skipped: int,
    hot: list[tuple[int, int]],
    coefficients: list[float] | None,
) -> None:
    """Any number of frames, of unused ones before them, of hot pixels, with and without a local model."""
    path = tmp_path_factory.getbasetemp() / "any.star"
    x, y = np.vstack([np.full((skipped, 2), np.nan), np.array(tracks)]).T
    polynomials = (None, None) if coefficients is None else np.split(np.array(coefficients), 2)
    motion = RelionMotion(
        width=100,
        height=80,
        movie_name="m",
        shift_x_pixel=x,
        shift_y_pixel=y,
        first_frame=skipped + 1,
        hot_pixels=np.array(hot, dtype=np.int64).reshape(-1, 2),
        polynomial_x=polynomials[0],
        polynomial_y=polynomials[1],
    )
    write_motion(path, motion)
    assert_same_motion(read_motion(path), motion)


WRONG = {
    "hot pixel outside": {"hot_pixels": np.array([[300, 0]])},
    "1 or more": {"width": 0},
    "different lengths": {"shift_y_pixel": np.zeros(5)},
    "one coordinate": {"shift_y_pixel": np.zeros(6)},
    "first frame 7": {"first_frame": 7},
    "polynomial along one axis": {"polynomial_y": None},
    "18 finite numbers": {"polynomial_y": np.full(COEFFICIENTS, np.nan)},
    "without a name": {"movie_name": ""},
    "control character": {"movie_name": "a\nb"},
    "patch's frame": {"patches": PatchShifts(**{part.name: np.array([7]) for part in dataclasses.fields(PatchShifts)})},
}


@pytest.mark.parametrize("found", WRONG)
def test_what_cannot_be_is_not_written(tmp_path: Path, found: str) -> None:
    """What RELION would misread, or crash on, is refused in words, and there is no file."""
    motion = dataclasses.replace(whole_motion(), **WRONG[found])
    with pytest.raises(FormatError, match=found):
        write_motion(tmp_path / "a.star", motion)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("rlnImageSizeX   ", "rlnImageSizeQ   ", "rlnImageSizeX is None"),
        ("rlnImageSizeZ                    6", "rlnImageSizeZ 99999999999", "rlnImageSizeZ"),
        ("rlnImageSizeZ                    6", "rlnImageSizeZ 5", "rlnMicrographFrameNumber"),
        ("rlnVoltage                       200.0", "rlnVoltage high", "a number"),
        ("rlnVoltage                       200.0", "rlnVoltage inf", "finite"),
        ("rlnMotionModelVersion            1", "rlnMotionModelVersion 2", "motion model 2"),
        ("data_local_motion_model", "data_other", "data_local_motion_model is missing"),
        ("      35 ", "      34 ", "not whole"),
        ("         299.0", "       300.0", "hot pixel outside"),
        ("         299.0", "       -1.0", "rlnCoordinateX"),
        ("data_global_shift", "data_x", "data_global_shift is missing"),
        ("_rlnMicrographShiftX #2", "_rlnX #2", "lacks numbers"),
        ("        10.0", "        nan", "not finite"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, old: str, new: str, found: str) -> None:
    """A missing label, a lie about the frames, an unknown model, a number that is none."""
    path = tmp_path / "a.star"
    write_motion(path, whole_motion())
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))
    with pytest.raises(FormatError, match=found):
        read_motion(path)


@given(place=st.floats(0, 1), byte=st.integers(0, 255), cut=st.booleans())
def test_no_damage_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, place: float, byte: int, cut: bool
) -> None:
    """A byte that flipped or a file that was cut gives a motion or an error of ours."""
    path = tmp_path_factory.getbasetemp() / "damaged.star"
    write_motion(path, whole_motion())
    content = bytearray(path.read_bytes())
    index = min(int(place * len(content)), len(content) - 1)
    content[index] = byte
    path.write_bytes(content[:index] if cut else content)
    try:
        motion = read_motion(path)
    except FormatError:
        return
    assert motion.frames > 0


def test_a_shift_is_the_opposite_of_a_displacement() -> None:
    """Converted twice it is itself, and nothing becomes a zero with a minus."""
    values = np.array([0.0, 1.5, -2.0])
    np.testing.assert_array_equal(opposite(values), [0.0, -1.5, 2.0])
    np.testing.assert_array_equal(opposite(opposite(values)), values)
    assert not np.signbit(opposite(values)[0])


def test_displacement_is_the_formula() -> None:
    """Six terms in space times three in time, counted from the first used frame, and the global shift, turned."""
    motion = whole_motion()
    assert motion.polynomial_x is not None
    x, y, frame = 250.0, 20.0, 3
    u, v, z = x / 300 - 0.5, y / 200 - 0.5, frame - 1
    terms = [s * t for s in (1, u, u * u, v, v * v, u * v) for t in (z, z**2, z**3)]
    wanted = -(motion.shift_x_pixel[frame] + float(np.dot(terms, motion.polynomial_x)))
    found = displacement(motion, np.array([x]), np.array([y]))[0]
    assert found[frame, 0] == pytest.approx(wanted, rel=1e-12)
    assert np.isnan(found[0, 0])


def group(**changes: object) -> OpticsGroup:
    """An optics group."""
    values = {"name": "opticsGroup1", "movie_pixel_size_angstrom": 0.885, "pixel_size_angstrom": 0.885}
    optics = {"voltage_kilovolt": 200.0, "spherical_aberration_millimeter": 1.4, "amplitude_contrast": 0.1}
    return OpticsGroup(**{**values, **optics, **changes})  # type: ignore[arg-type]


def micrograph(**changes: object) -> CorrectedMicrograph:
    """A micrograph of a list."""
    motions = {"total_motion_pixel": 3.0, "early_motion_pixel": 1.0, "late_motion_pixel": 2.0}
    return CorrectedMicrograph(**{"name": "a.mrc", "metadata_name": "a.star", **motions, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("optics", "micrographs", "found"),
    [
        ([group(name="a_b")], [micrograph()], "letters, digits and hyphens"),
        ([group()], [micrograph(optics_group=2)], "optics group 2"),
        ([group()], [], "nothing to list"),
        ([group()], [micrograph(), micrograph(unweighted_name="b.mrc")], "1 of 2 rows lack rlnMicrographNameNoDW"),
    ],
)
def test_a_list_that_relion_would_not_take_is_refused(
    tmp_path: Path, optics: list[OpticsGroup], micrographs: list[CorrectedMicrograph], found: str
) -> None:
    """Names of groups, groups that are not there, an empty list, files that only some have."""
    with pytest.raises(FormatError, match=found):
        write_corrected_micrographs(tmp_path / "a.star", optics, micrographs)
    assert list(tmp_path.iterdir()) == []


# Files that RELION wrote


@pytest.mark.real_data
def test_relions_own_file_is_read_and_written_again(real_data: Path, tmp_path: Path) -> None:
    """Every table, label and value of a motion STAR of RELION's tutorial, in its order."""
    theirs = real_data / "relion" / "movie_frameImage.star"
    motion = read_motion(theirs)
    assert (motion.width, motion.height, motion.frames) == (3710, 3838, 24)
    assert len(motion.patches.frame) == 25 * 24
    write_motion(tmp_path / "a.star", motion)
    assert_same_star(tmp_path / "a.star", theirs)


@pytest.mark.real_data
def test_relions_own_list_is_written_again(real_data: Path, tmp_path: Path) -> None:
    """Every table, label and value of the tutorial's list of corrected micrographs; its motions are in pixels."""
    theirs = real_data / "relion" / "corrected_micrographs.star"
    rows = starfile.read(theirs)["micrographs"]
    micrographs = [
        CorrectedMicrograph(
            name=row.rlnMicrographName,
            metadata_name=row.rlnMicrographMetadata,
            power_spectrum_name=row.rlnCtfPowerSpectrum,
            total_motion_pixel=row.rlnAccumMotionTotal,
            early_motion_pixel=row.rlnAccumMotionEarly,
            late_motion_pixel=row.rlnAccumMotionLate,
        )
        for row in rows.itertuples()
    ]
    write_corrected_micrographs(tmp_path / "a.star", [group(mtf_name="mtf_k2_200kV.star")], micrographs)
    assert_same_star(tmp_path / "a.star", theirs)
    row = rows[rows.rlnMicrographMetadata.str.contains("00030")].iloc[0]
    found = accumulated_motion_pixel(read_motion(real_data / "relion" / "movie_frameImage.star"))
    wanted = (row.rlnAccumMotionTotal, row.rlnAccumMotionEarly, row.rlnAccumMotionLate)
    assert found == pytest.approx(wanted, abs=1e-4)


# RELION's motion correction on a movie of known motion

HOT = [(37, 100), (600, 500)]  # (column, row)
PARAMETERS = MovieParameters(
    frames=12,
    height=512,
    width=640,
    pixel_size_angstrom=1.5,
    dose_per_frame_e_per_square_angstrom=10.0,
    drift_angstrom=20.0,
    local_motion_angstrom=12.0,
    bfactor_square_angstrom=20.0,
    ice_thickness_angstrom=50.0,
    seed=3,
)


@dataclasses.dataclass(frozen=True)
class Corrected:
    """A project in which RELION corrected one movie as MRC and as TIFF, `all`, and a part of it, binned, `part`."""

    folder: Path
    movie: SimulatedMovie

    def star(self, job: str, name: str) -> Path:
        """The motion STAR that RELION wrote."""
        return self.folder / job / "movies" / f"{name}.star"


@pytest.fixture(scope="module")
def corrected(tmp_path_factory: pytest.TempPathFactory) -> Corrected:
    """RELION's own motion correction, run."""
    needs("relion_run_motioncorr")
    folder = tmp_path_factory.mktemp("corrected")
    (folder / "movies").mkdir()
    movie = simulate_movie(PARAMETERS, generate_specimen(seed=0, diameter_angstrom=120.0))
    for column, row in HOT:
        movie.frames[:, row, column] = 250
    mrc.write_mrc(folder / "movies" / "as_mrc.mrcs", movie.frames, pixel_size_angstrom=1.5)
    tiff.write_tiff_movie(folder / "movies" / "as_tiff.tiff", movie.frames, compression="lzw")
    optics = star.Table(
        "optics",
        {
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnOpticsGroup": [1],
            "rlnMicrographOriginalPixelSize": [1.5],
            "rlnVoltage": [300.0],
            "rlnSphericalAberration": [2.7],
            "rlnAmplitudeContrast": [0.1],
        },
    )
    names = ["movies/as_mrc.mrcs", "movies/as_tiff.tiff"]
    movies = star.Table("movies", {"rlnMicrographMovieName": names, "rlnOpticsGroup": [1, 1]})
    star.write_star(folder / "movies.star", [optics, movies])
    own = ["relion_run_motioncorr", "--i", "movies.star", "--use_own", "--j", "1", "--bfactor", "150"]
    patches = ["--patch_x", "4", "--patch_y", "3", "--dose_per_frame", "10", "--dose_weighting", "--save_noDW"]
    planted.run(folder, *own, *patches, "--o", "all", "--bin_factor", "1", "--grouping_for_ps", "1")
    part = ["--first_frame_sum", "3", "--last_frame_sum", "10", "--bin_factor", "2"]
    planted.run(folder, *own, *patches, "--o", "part", *part)
    return Corrected(folder, movie)


@pytest.mark.parametrize("name", ["as_mrc", "as_tiff"])
def test_relions_tracks_are_the_planted_motion(corrected: Corrected, name: str) -> None:
    """Replayed in our sign they are where the specimen went, from either container; with the local part turned they
    are worse than without any."""
    motion = read_motion(corrected.star("all", name))
    truth = corrected.movie.truth
    drift = np.array([truth.shift_x_angstrom, truth.shift_y_angstrom]) / 1.5
    whole = opposite(np.stack([motion.shift_x_pixel, motion.shift_y_pixel]))
    assert np.sqrt(((whole - drift) ** 2).sum(axis=0).mean()) < 1.0
    x, y = (values.ravel() for values in np.meshgrid(np.arange(64.0, 640, 128), np.arange(64.0, 512, 128)))
    local = [np.array(local_displacement_angstrom(PARAMETERS, frame, x, y)) / 1.5 for frame in range(PARAMETERS.frames)]
    wanted = drift[:, :, np.newaxis] + np.stack(local, axis=1)

    def error(track: RelionMotion) -> float:
        difference = np.stack(displacement(track, x, y)) - wanted
        difference -= difference.mean(axis=1, keepdims=True)
        return float(np.sqrt((difference**2).sum(axis=0).mean()))

    assert motion.polynomial_x is not None
    assert motion.polynomial_y is not None
    turned = {"polynomial_x": opposite(motion.polynomial_x), "polynomial_y": opposite(motion.polynomial_y)}
    without = error(dataclasses.replace(motion, polynomial_x=None, polynomial_y=None))
    assert error(motion) < 0.85 * without
    assert error(dataclasses.replace(motion, **turned)) > 1.3 * without


@pytest.mark.parametrize("name", ["as_mrc", "as_tiff"])
def test_relions_hot_pixels_are_columns_and_rows(corrected: Corrected, name: str) -> None:
    """Counted from 0 and from the picture's bottom, whichever way the container's rows lie."""
    assert [tuple(place) for place in read_motion(corrected.star("all", name)).hot_pixels.tolist()] == HOT


@pytest.mark.parametrize(("job", "name"), [("all", "as_mrc"), ("all", "as_tiff"), ("part", "as_mrc")])
def test_what_relion_wrote_is_written_again(corrected: Corrected, tmp_path: Path, job: str, name: str) -> None:
    """Every table, label and value of its files, in its order."""
    write_motion(tmp_path / "a.star", read_motion(corrected.star(job, name)))
    assert_same_star(tmp_path / "a.star", corrected.star(job, name))


def test_relions_unused_frames_have_no_shift(corrected: Corrected) -> None:
    """Frames are those of the whole movie; shifts stay in the movie's pixels where the sum is binned."""
    motion = read_motion(corrected.star("part", "as_mrc"))
    whole = read_motion(corrected.star("all", "as_mrc"))
    assert (motion.frames, motion.first_frame, motion.bin_factor) == (12, 3, 2.0)
    assert np.flatnonzero(np.isfinite(motion.shift_x_pixel)).tolist() == list(range(2, 10))
    assert (motion.patches.frame.min(), motion.patches.frame.max()) == (3, 10)
    again = whole.shift_y_pixel[2:10] - whole.shift_y_pixel[2]
    np.testing.assert_allclose(motion.shift_y_pixel[2:10], again, atol=0.5)


def test_relions_list_is_ours(corrected: Corrected, tmp_path: Path) -> None:
    """The list that RELION wrote of its sums is the one that we write of them, with the motions computed by us."""
    micrographs = []
    for name in ("as_mrc", "as_tiff"):
        total, early, late = accumulated_motion_pixel(read_motion(corrected.star("all", name)))
        stem = f"all/movies/{name}"
        micrographs.append(
            CorrectedMicrograph(
                name=f"{stem}.mrc",
                metadata_name=f"{stem}.star",
                unweighted_name=f"{stem}_noDW.mrc",
                power_spectrum_name=f"{stem}_PS.mrc",
                total_motion_pixel=round(total, 6),
                early_motion_pixel=early,
                late_motion_pixel=round(late, 6),
            )
        )
    optics = group(
        movie_pixel_size_angstrom=1.5,
        pixel_size_angstrom=1.5,
        voltage_kilovolt=300.0,
        spherical_aberration_millimeter=2.7,
    )
    write_corrected_micrographs(tmp_path / "a.star", [optics], micrographs)
    ours, theirs = (
        starfile.read(path) for path in (tmp_path / "a.star", corrected.folder / "all" / "corrected_micrographs.star")
    )
    for name in ("optics", "micrographs"):
        pd.testing.assert_frame_equal(ours[name], theirs[name], atol=2e-6)


# RELION's extraction and polishing on what we wrote


@dataclasses.dataclass(frozen=True)
class Project:
    """A project with two planted movies, extracted particles and their refined angles."""

    folder: Path
    movies: list[PlantedMovie]

    def polish(self, micrographs: str, out: str, *options: str, particles: str = "particles.star") -> None:
        """Run RELION's polishing with a list of micrographs."""
        reference = ["--f", "fsc.star", "--m1", "half1.mrc", "--m2", "half2.mrc", "--angpix_ref", "1.5"]
        words = ["relion_motion_refine", "--i", particles, "--o", out, "--corr_mic", micrographs, "--j", "1"]
        planted.run(self.folder, *words, *reference, *options)

    def tracks(self, out: str, movie: PlantedMovie) -> NDArray[np.float64]:
        """Polishing's tracks of a movie (particles, frames, 2) in pixels."""
        return planted.read_tracks(self.folder / out / "sums" / f"{movie.stem}_tracks.star")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project, after RELION's extraction from our sums with our list. One movie has a hostile name."""
    needs("relion_preprocess", "relion_motion_refine")
    folder = tmp_path_factory.mktemp("project")
    movies = [
        planted.plant_movie(folder, "movies/first.mrcs", "first", seed=1),
        planted.plant_movie(folder, "movies/data_general it's.tiff", "second", seed=2),
    ]
    planted.list_micrographs(folder, movies, [movie.motion for movie in movies], "ours")
    planted.pick(folder, movies)
    planted.write_reference(folder)
    cut = ["--extract", "--extract_size", str(planted.BOX), "--norm", "--bg_radius", "26", "--invert_contrast"]
    places = ["--coord_dir", "picks", "--coord_suffix", "_pick.star"]
    parts = ["--part_dir", "extract", "--part_star", "extract/particles.star"]
    dust = ["--white_dust", "-1", "--black_dust", "-1"]
    planted.run(folder, "relion_preprocess", "--i", "ours.star", *places, *parts, *cut, *dust)
    planted.refined_particles(folder, movies, "extract/particles.star")
    return Project(folder, movies)


def turned(motion: RelionMotion) -> RelionMotion:
    """The same with every sign wrong."""
    names = ("shift_x_pixel", "shift_y_pixel", "polynomial_x", "polynomial_y")
    return dataclasses.replace(motion, **{name: opposite(getattr(motion, name)) for name in names})


def at_picks(movie: PlantedMovie, motion: RelionMotion) -> NDArray[np.float64]:
    """The displacement (particles, frames, 2) where the particles were picked: RELION knows them to a pixel."""
    return np.stack(displacement(motion, np.round(movie.x_pixel), np.round(movie.y_pixel)), axis=-1).transpose(1, 0, 2)


def test_extraction_finds_the_particles(project: Project) -> None:
    """RELION cuts out of our sums what was planted, at the places of the first frame and the right way up."""
    for movie in project.movies:
        stack = mrcfile.read(project.folder / "extract" / "sums" / f"{movie.stem}.mrcs")
        found = planted.likeness(stack, movie.ideal)
        assert found.min() > 0.7
        assert planted.likeness(stack[:, ::-1], movie.ideal).mean() < found.mean() - 0.2


def test_polishing_starts_from_our_tracks(project: Project) -> None:
    """Before its first step polishing has each particle where the planted motion has it, in every frame."""
    project.polish("ours.star", "start", "--max_iters", "0")
    for movie in project.movies:
        np.testing.assert_allclose(project.tracks("start", movie), at_picks(movie, movie.motion), atol=2e-4)


def test_polishing_ends_at_the_planted_motion(project: Project) -> None:
    """RELION's own fit of the particles to the reference leaves our tracks where they are."""
    project.polish("ours.star", "fit", "--s_vel", "1", "--s_div", "2000", "--s_acc", "3")
    for movie in project.movies:
        wanted = np.stack(displacement(movie.motion, movie.x_pixel, movie.y_pixel), axis=-1).transpose(1, 0, 2)
        error = project.tracks("fit", movie) - wanted
        assert np.sqrt((error**2).sum(axis=-1).mean()) < 0.6


def test_a_wrong_sign_spoils_the_polished_particles(project: Project) -> None:
    """Particles put together along our tracks are sharp; along the same tracks with every sign turned they are not."""
    motions = [turned(movie.motion) for movie in project.movies]
    planted.list_micrographs(project.folder, project.movies, motions, "turned")
    means = {}
    for name in ("ours", "turned"):
        project.polish(f"{name}.star", f"polished_{name}", "--max_iters", "0", "--combine_frames")
        stacks = [project.folder / f"polished_{name}" / "sums" / f"{movie.stem}_shiny.mrcs" for movie in project.movies]
        likeness = [
            planted.likeness(mrcfile.read(path), movie.ideal)
            for path, movie in zip(stacks, project.movies, strict=True)
        ]
        means[name] = float(np.concatenate(likeness).mean())
    assert means["ours"] > 0.8
    assert means["turned"] < 0.5


def test_polishing_takes_binned_sums_and_unused_frames(project: Project) -> None:
    """With sums binned twice and the movies' first two frames unused, tracks are still those of the movie's pixels."""
    motions = []
    for movie in project.movies:
        tracks = [
            np.concatenate([[np.nan] * 2, t[:-2]]) for t in (movie.motion.shift_x_pixel, movie.motion.shift_y_pixel)
        ]
        changes = {"shift_x_pixel": tracks[0], "shift_y_pixel": tracks[1], "first_frame": 3, "bin_factor": 2.0}
        motions.append(dataclasses.replace(movie.motion, **changes))
    planted.list_micrographs(project.folder, project.movies, motions, "binned")
    blocks = starfile.read(project.folder / "particles.star")
    blocks["particles"][["rlnCoordinateX", "rlnCoordinateY"]] /= 2
    starfile.write(blocks, project.folder / "particles_binned.star")
    project.polish("binned.star", "binned_start", "--max_iters", "0", particles="particles_binned.star")
    for movie, motion in zip(project.movies, motions, strict=True):
        found = project.tracks("binned_start", movie)
        np.testing.assert_allclose(found[:, 2:], at_picks(movie, motion)[:, 2:], atol=2e-4)
        np.testing.assert_array_equal(found[:, :2], 0)
