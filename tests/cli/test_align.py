"""`coldchain align`: what each option makes of a movie whose truth is known."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coldchain.formats.mrc import read_header, read_mrc, write_mrc
from coldchain.formats.relion_motion import RelionMotion, displacement, read_motion
from coldchain.simulate.movie import SimulatedMovie
from tests.cli.answer import Typed
from tests.cli.conftest import CAMERA_FRAMES, PARAMETERS, Aligned

SHAPE = (PARAMETERS.height, PARAMETERS.width)
KEYS = {
    *("output", "frames", "shape", "pixel_size_angstrom", "patches", "rank", "warnings", "peak_rss_bytes"),
    *("total_motion_angstrom", "early_motion_angstrom", "late_motion_angstrom", "timings_s"),
}


def track(motion: RelionMotion) -> np.ndarray[Any, Any]:
    """Å, (2, frames): where the STAR says that the middle of the specimen went."""
    assert motion.pixel_size_angstrom is not None
    middle = np.array([motion.width / 2]), np.array([motion.height / 2])
    return np.stack(displacement(motion, *middle))[:, :, 0] * motion.pixel_size_angstrom


def planted(simulated: SimulatedMovie) -> np.ndarray[Any, Any]:
    """Å, (2, frames)."""
    return np.array([simulated.truth.shift_x_angstrom, simulated.truth.shift_y_angstrom])


def test_an_exposure_becomes_a_micrograph_with_all_that_belongs_to_it(
    camera: Path, known: list[object], tmp_path: Path, aligned: Aligned
) -> None:
    """The files of one movie, and no others, are in the folder that was made for them; JSON says what they are."""
    (told,) = aligned(camera / "m.tif", *known, "--out", tmp_path / "new" / "folder")
    names = {"m.mrc", "m_noDW.mrc", "m_PS.mrc", "m.star"}
    assert {path.name for path in (tmp_path / "new" / "folder").iterdir()} == names | {"corrected_micrographs.star"}
    assert set(told) >= KEYS
    assert {Path(name).name for name in told["files"].values()} == names
    assert told["output"] == str(tmp_path / "new" / "folder" / "m.mrc")
    assert (told["frames"], tuple(told["shape"])) == (PARAMETERS.frames, SHAPE)
    assert told["dose_weighted"]
    assert told["dose_e_per_square_angstrom"] == pytest.approx(PARAMETERS.dose_e_per_square_angstrom)
    assert told["gain_verdict"] == "fits"
    assert set(told["timings_s"]) == {"decode", "align", "sum", "write", "total"}
    parts = told["early_motion_angstrom"] + told["late_motion_angstrom"]
    assert told["total_motion_angstrom"] == pytest.approx(parts, rel=1e-5)
    numbers = [value for value in (*told.values(), *told["timings_s"].values()) if isinstance(value, float)]
    assert len(numbers) > 8
    assert all(value == float(f"{value:.6g}") for value in numbers)
    assert told["peak_rss_bytes"] > 1 << 20
    for name in ("m.mrc", "m_noDW.mrc"):
        header = read_header(tmp_path / "new" / "folder" / name)
        assert (header.height, header.width) == SHAPE
        assert header.pixel_size_angstrom == pytest.approx(PARAMETERS.pixel_size_angstrom)
    spectrum = read_header(tmp_path / "new" / "folder" / "m_PS.mrc")
    assert (spectrum.height, spectrum.width) == (512, 512)


def test_the_planted_motion_is_found_and_undone(
    camera: Path,
    known: list[object],
    tmp_path: Path,
    aligned: Aligned,
    simulated: SimulatedMovie,
    whole: Callable[..., float],
) -> None:
    """The STAR replays to the planted track, its length is what is told, and the sum shows what the frames hold."""
    (told,) = aligned(camera / "m.tif", *known, "--out", tmp_path)
    motion = read_motion(tmp_path / "m.star")
    assert np.abs(track(motion) - planted(simulated)).max() < 1.5
    found = np.hypot(*np.diff(track(motion), axis=1))
    assert told["total_motion_angstrom"] == pytest.approx(found.sum(), rel=1e-5)
    assert told["early_motion_angstrom"] == pytest.approx(0)  # the second frame ends at 6 e⁻/Å²
    assert whole(read_mrc(tmp_path / "m_noDW.mrc")) > 0.95
    assert whole(read_mrc(tmp_path / "m_noDW.mrc")[::-1]) < 0.5
    assert motion.movie_name == str(camera / "m.tif")
    assert motion.gain_name == str(camera / "gain.mrc")
    assert (motion.width, motion.height, motion.frames) == (PARAMETERS.width, PARAMETERS.height, PARAMETERS.frames)
    assert motion.dose_per_frame_e_per_square_angstrom == PARAMETERS.dose_per_frame_e_per_square_angstrom
    assert motion.voltage_kilovolt == PARAMETERS.voltage_kilovolt


def test_the_same_exposure_gives_the_same_micrograph_from_any_container(
    camera: Path, known: list[object], tmp_path: Path, aligned: Aligned, whole: Callable[..., float]
) -> None:
    """TIFF, MRC and a list of frames agree to the last bit; an EER, which counts a little less, the same way up."""
    tiff = read_mrc(Path(aligned(camera / "m.tif", *known, "--out", tmp_path / "tiff")[0]["output"]))
    mrc = read_mrc(Path(aligned(camera / "m.mrc", *known, "--out", tmp_path / "mrc")[0]["output"]))
    assert np.array_equal(tiff, mrc)
    for number, frame in enumerate(read_mrc(camera / "m.mrc")):
        write_mrc(tmp_path / f"frame{number}.mrc", frame, pixel_size_angstrom=1.5)
    (tmp_path / "list.txt").write_text("".join(f"frame{number}.mrc\n" for number in range(PARAMETERS.frames)))
    frames = read_mrc(Path(aligned(tmp_path / "list.txt", *known, "--out", tmp_path)[0]["output"]))
    assert np.array_equal(tiff, frames)
    options = [*known[:-2], "--gain", camera / "m.gain", "--eer-fractions", PARAMETERS.frames]
    (eer,) = aligned(camera / "m.eer", *options, "--out", tmp_path / "eer")
    assert (eer["frames"], tuple(eer["shape"])) == (PARAMETERS.frames, SHAPE)
    assert whole(read_mrc(tmp_path / "eer" / "m_noDW.mrc")) > 0.75


def test_halves_add_up_to_the_whole(camera: Path, known: list[object], tmp_path: Path, aligned: Aligned) -> None:
    """The even and the odd frames' sums are two pictures, which together are the micrograph."""
    (told,) = aligned(camera / "m.tif", *known, "--halves", "--out", tmp_path)
    sums = {role: read_mrc(Path(told["files"][role])) for role in ("micrograph", "even", "odd")}
    assert np.allclose(sums["even"] + sums["odd"], sums["micrograph"], atol=1e-4 * np.abs(sums["micrograph"]).max())
    assert sums["even"].mean() == pytest.approx(sums["odd"].mean(), rel=0.05)
    assert not np.allclose(sums["even"], sums["odd"])
    assert Path(told["files"]["even"]).name == "m_even.mrc"


def test_binning_halves_the_picture_and_doubles_its_pixel(
    camera: Path, known: list[object], tmp_path: Path, aligned: Aligned
) -> None:
    """The motion stays in the movie's pixels, and the STAR says by what the picture is coarser."""
    (told,) = aligned(camera / "m.tif", *known, "--bin", 2, "--out", tmp_path)
    assert tuple(told["shape"]) == (SHAPE[0] // 2, SHAPE[1] // 2)
    assert told["pixel_size_angstrom"] == pytest.approx(3.0)
    header = read_header(tmp_path / "m.mrc")
    assert header.pixel_size_angstrom == pytest.approx(3.0)
    motion = read_motion(tmp_path / "m.star")
    assert (motion.bin_factor, motion.pixel_size_angstrom, motion.width) == (2.0, 1.5, PARAMETERS.width)


def test_without_dose_weighting_there_is_one_picture(
    camera: Path, known: list[object], tmp_path: Path, aligned: Aligned
) -> None:
    """Switched off, both sums are the plain one, and what the dose says of the motion stays."""
    (told,) = aligned(camera / "m.tif", *known, "--out", tmp_path / "on")
    (plain,) = aligned(camera / "m.tif", *known, "--no-dose-weighting", "--out", tmp_path / "off")
    assert not np.allclose(read_mrc(tmp_path / "on" / "m.mrc"), read_mrc(tmp_path / "on" / "m_noDW.mrc"))
    assert np.array_equal(read_mrc(tmp_path / "off" / "m.mrc"), read_mrc(tmp_path / "off" / "m_noDW.mrc"))
    assert (told["dose_weighted"], plain["dose_weighted"]) == (True, False)
    assert (told["rank"] > 1, plain["rank"]) == (True, 1)
    assert plain["early_motion_angstrom"] is not None
    assert not plain["warnings"]


def test_a_missing_dose_is_said(camera: Path, known: list[object], tmp_path: Path, aligned: Aligned) -> None:
    """Nobody knows then what is early, and the sum is a plain one, with a warning that names the option."""
    without = [word for word in known if word not in ("--dose-per-frame", 3.0)]
    (told,) = aligned(camera / "m.tif", *without, "--out", tmp_path)
    assert (told["early_motion_angstrom"], told["late_motion_angstrom"]) == (None, None)
    assert told["dose_e_per_square_angstrom"] is None
    assert not told["dose_weighted"]
    assert any("--dose-per-frame" in warning for warning in told["warnings"])


def test_first_and_last_choose_frames(
    camera: Path, known: list[object], tmp_path: Path, aligned: Aligned, simulated: SimulatedMovie
) -> None:
    """The STAR lists all frames, those outside as not used, and counts motion from the first that is."""
    (told,) = aligned(camera / "m.tif", *known, "--first", 3, "--last", 8, "--out", tmp_path)
    assert (told["frames"], told["frames_of_movie"]) == (6, PARAMETERS.frames)
    assert told["early_motion_angstrom"] == 0  # 6 e⁻/Å² had gone before
    motion = read_motion(tmp_path / "m.star")
    used = np.isfinite(motion.shift_x_pixel)
    assert motion.first_frame == 3
    assert np.flatnonzero(used).tolist() == [2, 3, 4, 5, 6, 7]
    truth = planted(simulated)
    assert np.abs((track(motion) - truth + truth[:, 2:3])[:, used]).max() < 1.5
    assert motion.pre_exposure_e_per_square_angstrom == 0


def test_pre_exposure_makes_the_motion_late(
    camera: Path, known: list[object], tmp_path: Path, aligned: Aligned
) -> None:
    """What was exposed before counts: with 1 e⁻/Å² a frame three steps are early, after 2 e⁻/Å² only the first."""
    low = [1.0 if word == 3.0 else word for word in known]
    (told,) = aligned(camera / "m.tif", *low, "--patches", "1x1", "--out", tmp_path / "a")
    (later,) = aligned(camera / "m.tif", *low, "--patches", "1x1", "--pre-exposure", 2, "--out", tmp_path / "b")
    steps = np.hypot(*np.diff(track(read_motion(tmp_path / "a" / "m.star")), axis=1))
    assert told["early_motion_angstrom"] == pytest.approx(steps[:3].sum(), rel=1e-5)
    assert later["early_motion_angstrom"] == pytest.approx(steps[0], rel=1e-5)
    assert read_motion(tmp_path / "b" / "m.star").pre_exposure_e_per_square_angstrom == 2


def test_patches_are_as_many_as_were_asked_for(
    camera: Path, known: list[object], tmp_path: Path, aligned: Aligned
) -> None:
    """One patch is the whole frame: then there is no local model in the STAR."""
    (told,) = aligned(camera / "m.tif", *known, "--patches", "1x1", "--out", tmp_path)
    assert told["patches"] == [1, 1]
    motion = read_motion(tmp_path / "m.star")
    assert motion.polynomial_x is None
    assert motion.patches.frame.size == 0
    (told,) = aligned(camera / "m.tif", *known, "--patches", "3x2", "--out", tmp_path)
    assert told["patches"] == [3, 2]


def test_a_defect_list_names_what_the_movie_would_have_to_show(
    camera: Path, known: list[object], tmp_path: Path, aligned: Aligned
) -> None:
    """With the camera's list nothing is left to be found; RELION's hot pixels are those that were found."""
    (found,) = aligned(camera / "m.tif", *known, "--gain", "none", "--out", tmp_path)
    (listed,) = aligned(
        camera / "m.tif", *known, "--gain", "none", "--defects", camera / "defects.txt", "--out", tmp_path / "l"
    )
    assert found["hot_pixels"] > 0
    assert listed["hot_pixels"] == 0
    assert len(read_motion(tmp_path / "m.star").hot_pixels) == found["hot_pixels"]
    assert read_motion(tmp_path / "l" / "m.star").defect_name == str(camera / "defects.txt")


def test_an_integrating_camera_gives_what_a_counting_one_would(
    camera: Path, known: list[object], tmp_path: Path, aligned: Aligned
) -> None:
    """(frame − dark) × gain, over the counts that an electron makes, is the counting camera's picture."""
    counts, rng = read_mrc(camera / "m.mrc"), np.random.default_rng(5)
    dark = rng.normal(200, 30, SHAPE).astype(np.float32)
    write_mrc(tmp_path / "dark.mrc", dark, pixel_size_angstrom=1.5)
    write_mrc(tmp_path / "m.mrc", (counts * np.float32(16) + dark).astype(np.float32), pixel_size_angstrom=1.5)
    integrating = ["--dark", tmp_path / "dark.mrc", "--counts-per-electron", 16]
    aligned(tmp_path / "m.mrc", *known, *integrating, "--out", tmp_path / "integrating")
    aligned(camera / "m.mrc", *known, "--out", tmp_path / "counting")
    one, other = (read_mrc(tmp_path / kind / "m.mrc") for kind in ("integrating", "counting"))
    assert np.allclose(one, other, atol=0.01 * other.std())


def test_a_turned_gain_is_refused_with_what_it_wants_and_taken_where_that_is_allowed(
    camera: Path, known: list[object], tmp_path: Path, aligned: Aligned, typed: Typed
) -> None:
    """`--gain-auto` gives the picture that the right reference gives, and leaves RELION a reference that fits."""
    gain = read_mrc(camera / "gain.mrc")
    write_mrc(tmp_path / "turned.mrc", gain[::-1, ::-1], pixel_size_angstrom=1.5)
    options = [*known[:-1], tmp_path / "turned.mrc", "--out", tmp_path / "out"]
    answer = typed("align", camera / "m.tif", *options)
    assert answer.status == 1
    assert "turned by 180°" in answer.err
    assert "--gain-auto" in answer.err
    assert not (tmp_path / "out").exists()
    (told,) = aligned(camera / "m.tif", *options, "--gain-auto")
    assert told["gain_verdict"] == "fits otherwise"
    assert any("turned by 180°" in warning for warning in told["warnings"])
    aligned(camera / "m.tif", *known, "--out", tmp_path / "right")
    right = read_mrc(tmp_path / "right" / "m.mrc")
    assert np.allclose(read_mrc(Path(told["output"])), right, atol=1e-3 * right.std())
    named = read_motion(tmp_path / "out" / "m.star").gain_name
    assert named is not None
    assert Path(named).parent == tmp_path / "out"
    assert re.fullmatch("turned_applied_[0-9a-f]{8}.mrc", Path(named).name)
    assert np.allclose(read_mrc(Path(named)), gain)


def test_an_eer_is_rendered_as_it_was_asked_for(
    camera: Path, known: list[object], tmp_path: Path, aligned: Aligned
) -> None:
    """By number or by dose; on half pixels the picture doubles, its pixel halves, and the STAR says all of it."""
    options = [*known[:-2], "--gain", camera / "m.gain"]
    (few,) = aligned(camera / "m.eer", *options, "--eer-fractions", 5, "--out", tmp_path)
    assert (few["frames"], few["dose_e_per_square_angstrom"]) == (
        5,
        pytest.approx(15),
    )  # the given dose is a fraction's
    motion = read_motion(tmp_path / "m.star")
    assert (motion.eer_upsampling, motion.eer_grouping, motion.frames) == (1, 2 * CAMERA_FRAMES, 5)
    assert motion.gain_name == str(camera / "m.gain")
    of_camera = [3.0 / CAMERA_FRAMES if word == 3.0 else word for word in options]
    (fine,) = aligned(
        camera / "m.eer", *of_camera, "--eer-dose", 3.75, "--eer-upsampling", 2, "--out", tmp_path / "fine"
    )
    assert (fine["frames"], fine["dose_e_per_square_angstrom"]) == (8, pytest.approx(30))
    assert tuple(fine["shape"]) == (2 * SHAPE[0], 2 * SHAPE[1])
    assert fine["pixel_size_angstrom"] == pytest.approx(0.75)
    motion = read_motion(tmp_path / "fine" / "m.star")
    assert (motion.eer_upsampling, motion.eer_grouping, motion.pixel_size_angstrom) == (2, 10, 0.75)
    assert motion.dose_per_frame_e_per_square_angstrom == pytest.approx(3.75)


def test_several_movies_give_what_each_gives_alone(
    camera: Path, known: list[object], tmp_path: Path, aligned: Aligned, typed: Typed
) -> None:
    """In the order of the call, while the next is read and the last is written."""
    movies = [tmp_path / f"{name}.mrc" for name in "abc"]
    for movie, turns in zip(movies, (0, 2, 0), strict=True):
        movie.symlink_to(camera / "m.mrc") if not turns else write_mrc(
            movie, np.rot90(read_mrc(camera / "m.mrc"), turns, axes=(1, 2)), pixel_size_angstrom=1.5
        )
    options = [*known[:-2], "--gain", "none"]
    answer = typed("align", *movies, *options, "--threads", 2, "--json", "--out", tmp_path / "together")
    assert answer.status == 0, answer.err
    together = json.loads(answer.out)
    assert [record["movie"] for record in together] == [str(movie) for movie in movies]
    for movie in movies[:2]:
        aligned(movie, *options, "--out", tmp_path / "alone")
        one, other = (read_mrc(tmp_path / how / f"{movie.stem}.mrc") for how in ("together", "alone"))
        assert np.allclose(one, other, atol=1e-3 * other.std())
    assert np.array_equal(read_mrc(tmp_path / "together" / "a.mrc"), read_mrc(tmp_path / "together" / "c.mrc"))


@pytest.mark.parametrize("name", ["quo'te\"s.tif", "new\nline.tif", "with  spaces.tif", "ünïcödé [1].tif", "-$(x).tif"])
def test_a_strange_name_stops_nothing(
    camera: Path, known: list[object], tmp_path: Path, aligned: Aligned, name: str
) -> None:
    """The STAR can be read; where it cannot hold the movie's name that is said."""
    movie = tmp_path / name
    movie.symlink_to(camera / "m.tif")
    (told,) = aligned(movie, *known, "--patches", "1x1", "--out", tmp_path / "out")
    named = read_motion(tmp_path / "out" / f"{movie.stem}.star").movie_name
    assert (named == str(movie)) is not any("RELION cannot read a movie" in warning for warning in told["warnings"])
    assert read_mrc(Path(told["output"])).shape == SHAPE


def test_without_json_a_line_says_what_became_of_a_movie(
    camera: Path, known: list[object], tmp_path: Path, typed: Typed
) -> None:
    """Micrograph, frames, motion, seconds; below it what the reader should know."""
    answer = typed("align", camera / "m.tif", *known[:4], "--gain", "none", "--threads", 1, "--out", tmp_path)
    assert answer.status == 0
    first, *below = answer.out.splitlines()
    assert first.startswith(f"{tmp_path / 'm.mrc'}: 10 frames, ")
    assert "Å motion" in first
    assert any(line.startswith("  The dose is not known") for line in below)
