"""Sums have the mean, the noise and the waves that they should; halves add up; the spectrum shows what is there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from coldchain.kernels.dose import frame_exposures
from coldchain.kernels.motion import Motion, still
from coldchain.kernels.prepare import PreparedMovie, prepare
from coldchain.kernels.sums import SPECTRUM_PIXELS, Exposures, Sums, add_up, amplitude_spectrum

SHAPE = (150, 203)
MIDDLE = SPECTRUM_PIXELS // 2


def movie_of(frames: int = 8, shape: tuple[int, int] = SHAPE, seed: int = 1) -> PreparedMovie:
    """Electrons over a few broad blobs."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    level = 4 * (1 + 0.4 * np.sin(x / 11.0) * np.cos(y / 8.0))
    return prepare(np.random.default_rng(seed).poisson(level, size=(frames, *shape)).astype(np.uint8))


def motion_of(frames: int, shape: tuple[int, int] = SHAPE, seed: int = 2) -> Motion:
    """A track of some pixels and a local motion of one."""
    rng = np.random.default_rng(seed)
    track, field = rng.normal(size=(2, frames)).cumsum(axis=1), rng.normal(size=(2, 5, frames)) / 3
    track, field = track - track[:, :1], field - field[:, :, :1]
    return Motion(shape, *track, *field, (1, 1), np.zeros(1), np.zeros(1))


def exposures_of(frames: int, dose: float = 2.0) -> Exposures:
    """A dose a frame at 300 kV."""
    return Exposures(tuple(frame_exposures(frames, dose).tolist()), (dose,) * frames, 300.0)


def sums_of(
    *, dose: float | None = None, bin_factor: float = 1.0, halves: bool = False, threads: int = 1, frames: int = 8
) -> Sums:
    """Sums of a moving movie at a pixel of 0.9 Å."""
    return add_up(
        movie_of(frames),
        motion_of(frames),
        pixel_size_angstrom=0.9,
        exposures=None if dose is None else exposures_of(frames, dose),
        bin_factor=bin_factor,
        halves=halves,
        threads=threads,
    )


def power_per_pixel(picture: NDArray[np.floating]) -> NDArray[np.float64]:
    """Power of the waves over that of white noise of unit variance."""
    return np.abs(np.fft.rfft2(picture.astype(float))) ** 2 / picture.size


@pytest.mark.parametrize("dose", [None, 2.0])
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_odd_and_even_sums_add_up_to_the_whole(dose: float | None, frames: int) -> None:
    """To float precision, weighted as the whole is; the first frame is odd, and asking for halves changes nothing."""
    whole, split = (sums_of(dose=dose, frames=frames, halves=halves) for halves in (False, True))
    assert whole.even is None
    assert whole.odd is None
    assert split.even is not None
    assert split.odd is not None
    scale = np.abs(whole.weighted).max()
    np.testing.assert_allclose(split.even + split.odd, split.weighted, atol=1e-5 * scale)
    np.testing.assert_allclose(split.weighted, whole.weighted, atol=1e-5 * scale)
    np.testing.assert_allclose(split.plain, whole.plain, atol=1e-5 * scale)
    assert split.odd.mean() / whole.plain.mean() == pytest.approx((frames + 1) // 2 / frames, rel=0.02)


def test_without_an_exposure_the_weighted_sum_is_the_plain_one() -> None:
    """The same picture, and one term; so it is of a dose of nothing."""
    none, nothing, some = (sums_of(dose=dose) for dose in (None, 0.0, 2.0))
    assert none.weighted is none.plain
    assert (none.rank, nothing.rank) == (1, 1)
    assert some.rank > 2
    np.testing.assert_allclose(nothing.weighted, none.plain, atol=1e-3)
    np.testing.assert_allclose(some.plain, none.plain, atol=1e-3)
    assert np.abs(some.weighted - some.plain).max() > 1


def test_means_are_those_of_the_frames() -> None:
    """Of the plain and of the weighted sum, binned or not; and of what a still specimen adds up to."""
    frames = movie_of()
    for sums in (sums_of(dose=2.0), sums_of(dose=2.0, bin_factor=2.0)):
        for picture in (sums.plain, sums.weighted):
            assert picture.mean() == pytest.approx(frames.frames.sum(axis=0).mean(), rel=0.01)
    at_rest = add_up(frames, still(SHAPE, 8), pixel_size_angstrom=0.9, exposures=None)
    np.testing.assert_allclose(at_rest.plain, frames.frames.sum(axis=0), atol=0.01)


@pytest.mark.parametrize("bin_factor", [1.3, 2.0, 3.7])
@pytest.mark.parametrize("dose", [None, 2.0])
def test_binning_crops_the_sum_in_fourier_space(bin_factor: float, dose: float | None) -> None:
    """The waves that the output can hold are those of the unbinned sum, its pixel follows, and nothing is folded in."""
    whole, binned = sums_of(dose=dose), sums_of(dose=dose, bin_factor=bin_factor)
    shape = tuple(round(length / bin_factor) for length in SHAPE)
    assert binned.plain.shape == binned.weighted.shape == shape
    assert binned.pixel_size_angstrom == pytest.approx(0.9 * np.sqrt(150 * 203 / (shape[0] * shape[1])))
    for one, other in ((whole.plain, binned.plain), (whole.weighted, binned.weighted)):
        expected = np.fft.rfft2(one.astype(float)) * other.size / one.size
        found = np.fft.rfft2(other.astype(float))
        inside_y, inside_x = (shape[0] - 1) // 2, (shape[1] - 1) // 2
        for rows in (np.s_[: inside_y + 1], np.s_[-inside_y:]):
            np.testing.assert_allclose(
                found[rows, : inside_x + 1], expected[rows, : inside_x + 1], atol=1e-5 * np.abs(found[0, 0])
            )


def test_threads_change_nothing() -> None:
    """But the last bits of the transforms."""
    one, two = (sums_of(dose=2.0, halves=True, threads=threads) for threads in (1, 2))
    for name in ("weighted", "plain", "even", "odd"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), atol=1e-3)
    np.testing.assert_allclose(one.amplitudes, two.amplitudes, atol=1e-3)


def test_noise_stays_as_white_and_as_strong_as_the_frames() -> None:
    """Moved by fractions of pixels, sums of noise have the noise's power within a tenth to ⅗ of Nyquist and within a
    third beyond: plain, weighted, and their halves."""
    rng = np.random.default_rng(3)
    movie = prepare(rng.poisson(9.0, size=(12, 256, 256)).astype(np.uint8))
    sums = add_up(
        movie, motion_of(12, (256, 256)), pixel_size_angstrom=1.0, exposures=exposures_of(12, 3.0), halves=True
    )
    radius = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256))
    for picture in (sums.plain, sums.weighted):
        power = power_per_pixel(picture) / (12 * 9)
        for lowest, largest in ((0.02, 0.1), (0.1, 0.1), (0.2, 0.1), (0.3, 0.33), (0.4, 0.33)):
            ring = (radius >= lowest) & (radius < lowest + 0.1)
            assert power[ring].mean() == pytest.approx(1, abs=largest)
    assert sums.even is not None
    assert sums.odd is not None
    # Later frames are worth less where waves are short.
    low, high = radius < 0.05, radius > 0.3
    for band in (low, high):
        shares = [power_per_pixel(half - half.mean())[band].mean() / (12 * 9) for half in (sums.odd, sums.even)]
        assert sum(shares) == pytest.approx(1, abs=0.33)
    assert shares[0] > shares[1]


def spectrum_of(picture: NDArray[np.floating], pixel_y: float = 1.4, pixel_x: float = 1.4) -> NDArray[np.float32]:
    """Amplitudes of a picture; its cells' pixel must be 1.4 Å."""
    amplitudes, pixel = amplitude_spectrum(
        np.fft.rfft2(picture).astype(np.complex64), (picture.shape[0], picture.shape[1]), pixel_y, pixel_x
    )
    assert pixel == pytest.approx(1.4)
    return amplitudes


def test_a_wave_stands_in_its_cell_and_in_the_opposite_one() -> None:
    """50 cells along x and −30 along y of 512 × 1.4 Å, whatever the picture's own pixel and sides, and nowhere else."""
    for shape, pixel_y, pixel_x in (((512, 512), 1.4, 1.4), ((1024, 768), 0.7, 1.4), ((300, 400), 1.4, 0.7)):
        y, x = np.mgrid[: shape[0], : shape[1]]
        frequency_x, frequency_y = 50 / (512 * 1.4), -30 / (512 * 1.4)
        # Whole periods, so that the wave is in one cell.
        cycles_x = round(frequency_x * shape[1] * pixel_x)
        cycles_y = round(frequency_y * shape[0] * pixel_y)
        wave = np.cos(2 * np.pi * (cycles_x * x / shape[1] + cycles_y * y / shape[0]))
        found = spectrum_of(wave, pixel_y, pixel_x)
        cell_x, cell_y = cycles_x * 512 * 1.4 / (shape[1] * pixel_x), cycles_y * 512 * 1.4 / (shape[0] * pixel_y)
        for sign in (1, -1):
            row, column = MIDDLE + sign * round(cell_y), MIDDLE + sign * round(cell_x)
            near = found[row - 2 : row + 3, column - 2 : column + 3]
            assert near.max() == found.max()
            near[:] = 0
        assert found.max() < 1e-3


@given(rows=st.integers(2, 90), columns=st.integers(2, 90), seed=st.integers(0, 1000))
def test_spectra_of_any_picture_are_symmetric_and_finite(rows: int, columns: int, seed: int) -> None:
    """Opposite cells are equal, the middle is 0, and small pictures fill all cells too."""
    found = spectrum_of(np.random.default_rng(seed).normal(size=(rows, columns)))
    assert (found.shape, found.dtype) == ((512, 512), np.float32)
    assert np.isfinite(found).all()
    assert found[MIDDLE, MIDDLE] == 0
    np.testing.assert_array_equal(found[1:, 1:], found[:0:-1, :0:-1])


@pytest.mark.parametrize(
    ("shape", "pixel_y", "pixel_x"), [((700, 900), 0.9, 0.9), ((1024, 512), 0.7, 1.4), ((512, 640), 1.4, 1.4)]
)
def test_spectrum_of_white_noise_is_flat(shape: tuple[int, int], pixel_y: float, pixel_x: float) -> None:
    """In the middle, at the rim and at the corners its level is that of a wave in the noise: the deviation over the
    root of the number of pixels."""
    found = spectrum_of(np.random.default_rng(4).normal(10, 3, shape), pixel_y, pixel_x) * np.sqrt(shape[0] * shape[1])
    y, x = np.mgrid[:512, :512] - MIDDLE
    radius = np.hypot(y, x)
    for lowest, highest in ((4, 60), (60, 150), (150, 250), (250, 350)):
        ring = (radius >= lowest) & (radius < highest)
        assert np.sqrt(np.mean(found[ring].astype(float) ** 2)) == pytest.approx(3, rel=0.05)


def test_a_coarse_picture_keeps_its_own_pixel() -> None:
    """Where the picture's pixel is larger than 1.4 Å, so is the spectrum's, and it reaches to Nyquist."""
    noise = np.random.default_rng(5).normal(size=(256, 256))
    found, pixel = amplitude_spectrum(np.fft.rfft2(noise).astype(np.complex64), (256, 256), 3.0, 2.5)
    assert pixel == 3.0
    assert found[MIDDLE + 1 :, MIDDLE + 1 :].min() > 0


def test_the_movies_spectrum_is_that_of_its_weighted_sum() -> None:
    """The sums carry the spectrum of what is written as the micrograph, at the output's pixel."""
    sums = sums_of(dose=2.0, bin_factor=2.0)
    shape = sums.weighted.shape
    expected, pixel = amplitude_spectrum(
        np.fft.rfft2(sums.weighted.astype(float)).astype(np.complex64),
        shape,
        0.9 * SHAPE[0] / shape[0],
        0.9 * SHAPE[1] / shape[1],
    )
    assert sums.amplitudes_pixel_angstrom == pytest.approx(pixel)
    inside = np.s_[40:-40, 40:-40]
    np.testing.assert_allclose(sums.amplitudes[inside], expected[inside], rtol=0.01, atol=0.05)
