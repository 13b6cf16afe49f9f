"""Gain references: how they lie is told from the movie, and a right one is never turned away."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from coldchain.errors import ProcessingError
from coldchain.formats import mrc
from coldchain.kernels.orientation import (
    GainFit,
    Verdict,
    apply_fit,
    check_gain,
    fitting_gain,
    gain_at_size,
    score_gains,
)

Image = NDArray[np.float32]
WAYS = [(turns, flipped) for turns in range(4) for flipped in (False, True)]


def response_of(
    shape: tuple[int, int], rng: np.random.Generator, pixels: float, columns: float = 0.0, blocks: float = 0.0
) -> Image:
    """Counts per electron: what single pixels, columns and the 4 × 4 blocks of a chip have of their own."""
    rows, sides = np.arange(shape[0])[:, None] * 4 // shape[0], np.arange(shape[1]) * 4 // shape[1]
    response = (1 + blocks * rng.standard_normal((4, 4)))[rows, sides]
    response *= 1 + columns * rng.standard_normal(shape[1])
    response *= 1 + pixels * rng.standard_normal(shape)
    return np.clip(response, 0.3, 3).astype(np.float32)


def counted(response: Image, electrons: float, rng: np.random.Generator) -> Image:
    """A movie's sum: Poisson counts of a blurred specimen, a third of it in a shadow at times."""
    specimen = ndimage.gaussian_filter(rng.standard_normal(response.shape), 3)
    intensity = np.clip(1 + 0.08 * specimen / specimen.std(), 0.1, None)
    if rng.random() < 0.3:
        intensity[:, : response.shape[1] // 3] *= 0.2
    return rng.poisson(electrons * intensity * response).astype(np.float32)


def gain_of(response: Image) -> Image:
    """The reference that belongs to it; 0 where the pixel is dead."""
    return np.divide(1, response, out=np.zeros_like(response), where=response > 0)


def laid(gain: Image, turns: int, flipped: bool, inverse: bool = False) -> Image:
    """The file that is `gain` once it is turned, flipped and inverted so."""
    file = gain_of(gain) if inverse else gain
    return np.ascontiguousarray(np.rot90(file[::-1] if flipped else file, turns))


@given(
    rows=st.integers(90, 140),
    columns=st.integers(90, 140),
    square=st.booleans(),
    way=st.sampled_from(WAYS),
    inverse=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_planted_orientation_and_sense_are_found(
    rows: int, columns: int, square: bool, way: tuple[int, bool], inverse: bool, seed: int
) -> None:
    """Whatever a reference's four turns, flip and sense, square or not, the best fit makes it the camera's own."""
    rng = np.random.default_rng(seed)
    response = response_of((rows, rows if square else columns), rng, pixels=0.05)
    file = laid(gain_of(response), *way, inverse)
    best = score_gains(counted(response, 35, rng), file)[0]
    assert (best.turns, best.flipped, best.inverse) == (*way, inverse)
    assert best.score == pytest.approx(1, abs=6 * best.score / best.significance)
    fitted = apply_fit(file, best)
    assert np.allclose(fitted / fitted.mean(), gain_of(response) / gain_of(response).mean(), rtol=1e-5)


def any_camera(rng: np.random.Generator) -> tuple[Image, float]:
    """A response and a dose, good or poor, as they come."""
    shape = tuple(rng.integers(40, 130, 2)) if rng.random() < 0.5 else (rng.integers(40, 130),) * 2
    spreads = 10 ** rng.uniform(-2.3, -1, 3) * (rng.random(3) < 0.7)
    response = response_of((int(shape[0]), int(shape[1])), rng, *spreads)
    if rng.random() < 0.5:
        response[:, rng.choice(shape[1], 2)] = 0
    return response, float(10 ** rng.uniform(-0.5, 2))


def test_a_right_gain_is_never_refused() -> None:
    """Of 300 movies of all sorts of cameras, each with its own reference, none is told that it does not fit."""
    rng = np.random.default_rng(5)
    verdicts = []
    for _ in range(300):
        response, electrons = any_camera(rng)
        total = counted(response, electrons, rng)
        total.reshape(-1)[rng.integers(0, total.size, 5)] += 1000  # hot pixels
        verdicts.append(check_gain(total, gain_of(response)).verdict)
    assert set(verdicts) == {Verdict.FITS, Verdict.UNTOLD}
    assert verdicts.count(Verdict.FITS) > 60


def test_another_cameras_gain_is_never_taken_for_a_turned_one() -> None:
    """Of 300 movies with a reference that has nothing to do with them, not one finds a way in which it fits."""
    rng = np.random.default_rng(6)
    significances = []
    for _ in range(300):
        response, electrons = any_camera(rng)
        other = response_of((response.shape[0], response.shape[1]), rng, *10 ** rng.uniform(-2.3, -1, 3))
        check = check_gain(counted(response, electrons, rng), gain_of(other))
        assert check.verdict in (Verdict.ABSENT, Verdict.UNTOLD)
        if check.given is not None:
            significances.append(check.given.significance)
    # The errors are what they are said to be: standard deviations of what chance gives.
    assert np.std(significances) == pytest.approx(1, abs=0.15)


def planted(seed: int, shape: tuple[int, int] = (200, 260), electrons: float = 35.0) -> tuple[Image, Image]:
    """A movie's sum and its reference, with two dead columns."""
    rng = np.random.default_rng(seed)
    response = response_of(shape, rng, pixels=0.05, columns=0.02, blocks=0.03)
    response[:, [20, 21]] = 0
    return counted(response, electrons, rng), gain_of(response)


def test_a_misfit_is_refused_and_says_what_fits() -> None:
    """The sentence says what is wrong, what would be right in RELION's numbers too, and which option takes it."""
    total, gain = planted(1)
    with pytest.raises(ProcessingError) as caught:
        fitting_gain(total, laid(gain, 2, False))
    assert "turned by 180° (RELION: --gain_rot 2 --gain_flip 0)" in caught.value.found
    assert "--gain-auto" in caught.value.remedy
    with pytest.raises(ProcessingError, match=r"flipped left-right \(RELION: --gain_rot 0 --gain_flip 2\)"):
        fitting_gain(total, laid(gain, 2, True))
    with pytest.raises(ProcessingError, match=r"inverted \(the frames are divided by it\);"):
        fitting_gain(total, laid(gain, 0, False, inverse=True))
    with pytest.raises(ProcessingError, match=r"sides are exchanged.*turned by 90° anticlockwise and flipped up-down"):
        fitting_gain(total, laid(gain, 1, True))


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize(("turns", "flipped"), WAYS)
def test_a_misfit_is_taken_as_it_fits_where_that_is_wanted(turns: int, flipped: bool, inverse: bool) -> None:
    """With `automatic` the frames get the right reference, and the reader is told what was done."""
    total, gain = planted(2)
    fitted, check = fitting_gain(total, laid(gain, turns, flipped, inverse), automatic=True)
    assert fitted.dtype == np.float32
    assert np.allclose(fitted / fitted.mean(), gain / gain.mean(), rtol=1e-5)
    as_given = not (turns or flipped or inverse)
    assert check.verdict is (Verdict.FITS if as_given else Verdict.OTHERWISE)
    assert bool(check.warning) is not as_given


def test_either_sense_is_taken_without_asking_where_both_are_in_use() -> None:
    """With `either_sense` an inverse is inverted, but nothing is turned."""
    total, gain = planted(3)
    fitted, check = fitting_gain(total, laid(gain, 0, False, inverse=True), either_sense=True)
    assert np.allclose(fitted / fitted.mean(), gain / gain.mean(), rtol=1e-5)
    assert "inverted" in check.warning
    with pytest.raises(ProcessingError):
        fitting_gain(total, laid(gain, 2, False), either_sense=True)


@pytest.mark.parametrize("level", [1.0, 1.1, 0.0312])
def test_a_flat_gain_cannot_be_told(level: float) -> None:
    """A reference without a pattern is applied as it is, in silence."""
    total, gain = planted(4)
    flat = np.full_like(gain, level)
    flat[:, 20:22] = 0
    fitted, check = fitting_gain(total, flat)
    assert (check.verdict, check.warning) == (Verdict.UNTOLD, "")
    assert np.array_equal(fitted, flat)


@pytest.mark.parametrize("poison", [0.0, np.nan, -5.0])
def test_a_movie_without_electrons_tells_nothing(poison: float) -> None:
    """Sums of zeros, of no numbers and below zero are no evidence."""
    _, gain = planted(5)
    check = check_gain(np.full_like(gain, poison), gain)
    assert (check.verdict, check.best) == (Verdict.UNTOLD, None)


@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_corrected_frames_are_not_corrected_again(noise: float) -> None:
    """Where the pattern is gone already, the reference is left out, and that is said.

    The noise of the reference itself stays in frames that were corrected by it, as its inverse would.
    """
    total, gain = planted(6, (400, 420))
    rng = np.random.default_rng(6)
    reference = (gain * (1 + noise * rng.standard_normal(gain.shape))).astype(np.float32)
    corrected = total * reference
    fitted, check = fitting_gain(corrected, reference)
    assert check.verdict is Verdict.ABSENT
    assert "corrected already" in check.warning
    assert "not applied" in check.warning
    assert (fitted == 1).all()
    # What applying it would do: the pattern, which was gone, comes in.
    again = check_gain(corrected * reference, reference)
    assert again.given is not None
    assert again.given.score < -0.8


def test_a_noisy_reference_fits_and_is_said_to_be_noisy() -> None:
    """As much noise in the reference as there is response: it has the right way all the same."""
    rng = np.random.default_rng(7)
    response = response_of((500, 500), rng, pixels=0.04)
    noisy = gain_of(response) * np.exp(0.06 * rng.standard_normal(response.shape)).astype(np.float32)
    check = check_gain(counted(response, 35, rng), noisy)
    assert check.verdict is Verdict.FITS
    assert "noisy" in check.warning
    assert check_gain(counted(response, 35, rng), laid(noisy, 3, True)).verdict is not Verdict.FITS


def test_a_reference_is_kept_for_its_blocks_alone() -> None:
    """Where single pixels of the reference are noise, but the chip's blocks are right, it is applied."""
    rng = np.random.default_rng(8)
    response = response_of((1024, 1024), rng, pixels=0.0, blocks=0.08)
    noise = np.exp(0.05 * rng.standard_normal(response.shape)).astype(np.float32)
    check = check_gain(counted(response, 60, rng), gain_of(response) * noise)
    assert check.verdict is Verdict.FITS
    assert "noisy" in check.warning
    assert check_gain(counted(np.ones_like(response), 60, rng), gain_of(response) * noise).verdict is Verdict.ABSENT


def test_a_symmetric_gain_is_not_refused_for_its_mirror_image() -> None:
    """A reference of columns is the same flipped up-down: neither way is better, so both fit."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        response = response_of((128, 150), rng, pixels=0.0005, columns=0.04)
        total = counted(response, 35, rng)
        for flipped in (False, True):
            assert check_gain(total, laid(gain_of(response), 0, flipped)).verdict is not Verdict.OTHERWISE


def test_two_ways_that_fit_as_well_are_not_chosen_between() -> None:
    """Where the movie tells that a reference is turned, but hardly that it is flipped too, `automatic` asks."""
    asked = 0
    for seed in range(24):
        rng = np.random.default_rng(seed)
        half = response_of((200, 200), rng, pixels=0.05)
        response = half * half[::-1] * response_of((200, 200), rng, pixels=0.058)  # half its own mirror image
        total, file = counted(response, 0.45, rng), laid(gain_of(response), 1, False)
        try:
            _, check = fitting_gain(total, file, automatic=True)
        except ProcessingError as refusal:
            asked += 1
            assert refusal.found.count("--gain_rot 1 ") == 2
            assert "more electrons" in refusal.remedy
        else:
            assert check.verdict is Verdict.UNTOLD or check.best is None or check.best.relion == (1, 0)
    assert asked > 5


def test_exchanged_sides_are_named_where_the_movie_does_not_help() -> None:
    """Both shapes are said, and that one is the other turned."""
    total, gain = planted(9, electrons=0.05)
    with pytest.raises(ProcessingError, match=r"200 × 260 pixels: its sides are exchanged.*260 × 200"):
        check_gain(total, laid(gain, 1, False))


def test_other_shapes_are_refused_with_both_shapes() -> None:
    """Columns before rows, as everywhere."""
    total, gain = planted(10)
    for shape in ((200, 261), (100, 260), (600, 780), (200, 260, 2), (52000,)):
        with pytest.raises(ProcessingError, match=r"260 × 200, as the frames") as caught:
            fitting_gain(total, np.resize(gain, shape))
        assert " × ".join(str(side) for side in shape[::-1]) in caught.value.found


def test_defects_given_and_numbers_that_are_none_are_left_out() -> None:
    """A patch of rubbish in the sum does not spoil the comparison when it is known, nor NaN when it is not."""
    total, gain = planted(11)
    clean = score_gains(total, gain)[0]
    defects = np.zeros(total.shape, dtype=bool)
    defects[90:110, 100:160] = True
    rubbish = total.copy()
    rubbish[defects] = np.random.default_rng(0).uniform(0, 1e6, np.count_nonzero(defects))
    assert score_gains(rubbish, gain, defects=defects)[0].significance > 0.9 * clean.significance
    rubbish[defects] = np.nan
    assert score_gains(rubbish, gain)[0].significance > 0.9 * clean.significance


@pytest.mark.parametrize("scale", [2, 4])
def test_a_physical_gain_serves_super_resolution_frames(scale: int) -> None:
    """Each pixel of the reference becomes a block, a wrong orientation is still seen, and so it is the other way."""
    rng = np.random.default_rng(12)
    response = response_of((120, 130), rng, pixels=0.06)
    fine = response.repeat(scale, axis=0).repeat(scale, axis=1)
    total = counted(fine, 12, rng)
    fitted, check = fitting_gain(total, gain_of(response))
    assert check.verdict is Verdict.FITS
    assert np.array_equal(fitted, gain_of(fine))
    with pytest.raises(ProcessingError, match="turned by 180°"):
        fitting_gain(total, laid(gain_of(response), 2, False))
    assert fitting_gain(total, laid(gain_of(response), 1, False), automatic=True)[0].shape == fine.shape


def test_a_super_resolution_gain_serves_binned_frames() -> None:
    """A binned pixel responds as the mean of its four, and is a defect if one of them is."""
    rng = np.random.default_rng(13)
    fine = response_of((256, 300), rng, pixels=0.08)
    coarse = fine.reshape(128, 2, 150, 2).mean(axis=(1, 3))
    gain = gain_of(fine)
    assert np.allclose(gain_at_size(gain, (128, 150)) * coarse, 1, rtol=1e-5)
    assert check_gain(counted(coarse, 35, rng), gain_at_size(gain, (128, 150))).verdict is Verdict.FITS
    gain[7, 9] = 0
    assert np.argwhere(gain_at_size(gain, (128, 150)) == 0).tolist() == [[3, 4]]


def test_the_middle_of_a_large_frame_is_enough() -> None:
    """Odd and even sides beyond the window: the window's centre is the frame's."""
    for shape in ((601, 640), (640, 601), (601, 601)):
        rng = np.random.default_rng(14)
        response = response_of(shape, rng, pixels=0.03)
        total = counted(response, 30, rng)
        for turns, flipped in WAYS[1::3]:
            best = score_gains(total, laid(gain_of(response), turns, flipped))[0]
            assert (best.turns, best.flipped, best.inverse) == (turns, flipped, False)


def test_turns_are_anticlockwise_in_the_picture() -> None:
    """The bottom row of the picture is row 0: what is at its top left comes to its bottom left."""
    gain = np.ones((3, 4), dtype=np.float32)
    gain[2, 0] = 7
    turned = apply_fit(gain, GainFit(1, False, False, 1.0, 9.0))
    assert turned.shape == (4, 3)
    assert np.argwhere(turned == 7).tolist() == [[0, 0]]
    flipped = apply_fit(gain, GainFit(0, True, False, 1.0, 9.0))
    assert np.argwhere(flipped == 7).tolist() == [[0, 0]]


@pytest.mark.parametrize(("turns", "flipped"), [(1, False), (2, True), (3, False), (3, True)])
def test_relion_turns_as_the_numbers_say(tmp_path: Path, turns: int, flipped: bool) -> None:
    """RELION's own program, given the numbers that a fit names, writes the reference that the fit gives."""
    if shutil.which("relion_run_motioncorr") is None:
        pytest.skip("relion_run_motioncorr of the package relion is not there")
    fit = GainFit(turns, flipped, False, 1.0, 9.0)
    gain = np.random.default_rng(15).uniform(0.5, 2, (48, 64)).astype(np.float32)
    wanted = apply_fit(gain, fit)
    mrc.write_mrc(tmp_path / "gain.mrc", gain, pixel_size_angstrom=1.0)
    frames = np.random.default_rng(16).poisson(2, (3, *wanted.shape)).astype(np.float32)
    mrc.write_mrc(tmp_path / "movie.mrcs", frames, pixel_size_angstrom=1.0)
    optics = ("OpticsGroupName", "OpticsGroup", "MicrographOriginalPixelSize", "Voltage", "SphericalAberration")
    lines = ["data_optics", "", "loop_", *(f"_rln{name}" for name in (*optics, "AmplitudeContrast"))]
    lines += ["group 1 1.0 300 2.7 0.1", "", "data_movies", "", "loop_", "_rlnMicrographMovieName", "_rlnOpticsGroup"]
    (tmp_path / "in.star").write_text("\n".join([*lines, "movie.mrcs 1", ""]))
    gain_rot, gain_flip = fit.relion
    command = ["relion_run_motioncorr", "--i", "in.star", "--o", "out/", "--use_own", "--j", "1", "--patch_x", "1"]
    command += ["--patch_y", "1", "--gainref", "gain.mrc", "--gain_rot", str(gain_rot), "--gain_flip", str(gain_flip)]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    assert np.array_equal(mrc.read_mrc(tmp_path / "out" / "gain.mrc"), wanted)


def test_words_for_every_way() -> None:
    """Every way has words of its own, and RELION's numbers where RELION has them."""
    fit = GainFit(0, False, False, 1.0, 9.0)
    assert fit.as_given
    assert fit.words == "as it is"
    words = {replace(fit, turns=t, flipped=f, inverse=i).words for t, f in WAYS for i in (False, True)}
    assert len(words) == 16
    assert replace(fit, flipped=True).words == "flipped up-down (RELION: --gain_rot 0 --gain_flip 1)"
    assert "divided" in replace(fit, inverse=True).words
