"""A simulated movie holds what its truth says: each planted property found again by a plain formula."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from coldchain.errors import UsageError
from coldchain.simulate.camera import make_camera
from coldchain.simulate.movie import MovieParameters, local_displacement_angstrom, simulate_movie
from coldchain.simulate.specimen import Specimen, generate_specimen
from coldchain.simulate.warp import coefficient_factors, sample_spline

SMALL = MovieParameters(frames=6, height=320, width=384, pixel_size_angstrom=2.0, particles=6, drift_angstrom=16.0)
BLANK = replace(SMALL, particles=0, ice_thickness_angstrom=0.0)
ICE = replace(SMALL, particles=0, frames=1, bfactor_square_angstrom=0.0)


@pytest.fixture(scope="module")
def specimen() -> Specimen:
    """The particle of this module's movies."""
    return generate_specimen(seed=1, diameter_angstrom=110)


def wavelength() -> float:
    """Å, at 300 kV."""
    return 12.2643 / math.sqrt(300e3 * (1 + 0.97845e-6 * 300e3))


def peak_shift(reference: NDArray[np.float64], moved: NDArray[np.float64]) -> tuple[float, float]:
    """How far `moved` is displaced from `reference`, (x, y) in pixels: plain cross-correlation and a parabola."""
    spectrum = np.fft.rfft2(moved - moved.mean()) * np.fft.rfft2(reference - reference.mean()).conj()
    k = np.hypot(np.fft.fftfreq(moved.shape[0])[:, None], np.fft.rfftfreq(moved.shape[1])[None])
    correlation = np.fft.irfft2(spectrum * np.exp(-((k / 0.1) ** 2)), moved.shape)
    row, column = np.unravel_index(correlation.argmax(), correlation.shape)

    def vertex(before: float, middle: float, after: float) -> float:
        return 0.5 * (before - after) / (before - 2 * middle + after)

    rows, columns = moved.shape
    y = row + vertex(correlation[row - 1, column], correlation[row, column], correlation[(row + 1) % rows, column])
    x = column + vertex(
        correlation[row, column - 1], correlation[row, column], correlation[row, (column + 1) % columns]
    )
    return (x + columns / 2) % columns - columns / 2, (y + rows / 2) % rows - rows / 2


def radial_power(
    image: NDArray[np.float32], pixel_size: float, bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean power of the Hann-windowed image in rings up to Nyquist, and the rings' middles in 1/Å."""
    rows, columns = image.shape
    window = np.hanning(rows)[:, None] * np.hanning(columns)
    power = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    k = np.hypot(np.fft.fftfreq(rows, pixel_size)[:, None], np.fft.fftfreq(columns, pixel_size)[None])
    edges = np.linspace(0, 0.5 / pixel_size, bins + 1)
    index = np.digitize(k.ravel(), edges) - 1
    inside = index < bins
    total = np.bincount(index[inside], power.ravel()[inside], minlength=bins)
    return 0.5 * (edges[1:] + edges[:-1]), total / np.bincount(index[inside], minlength=bins)


def test_counts_are_dose_times_area(specimen: Specimen) -> None:
    """A frame's mean is the dose per frame times the pixel's area, with particles and ice in it."""
    movie = simulate_movie(SMALL, specimen)
    assert movie.frames.shape == (6, 320, 384)
    assert movie.frames.dtype == np.uint8
    assert movie.frames.mean() == pytest.approx(1.6 * 4, rel=0.01)
    assert movie.ideal.mean() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("dose", [0.05, 1.6, 12.0])
def test_blank_frames_are_poisson(specimen: Specimen, dose: float) -> None:
    """Without a specimen the counts follow Poisson's law, at few electrons a pixel and at many."""
    movie = simulate_movie(replace(BLANK, dose_per_frame_e_per_square_angstrom=dose), specimen)
    mean = dose * 4
    expected = np.array([math.exp(-mean + n * math.log(mean) - math.lgamma(n + 1)) for n in range(120)])
    found = np.bincount(movie.frames.ravel(), minlength=120)[:120] / movie.frames.size
    assert np.abs(found - expected).max() < 5 * math.sqrt(0.25 / movie.frames.size)
    assert movie.frames.var() == pytest.approx(mean, rel=0.01)
    neighbours = np.corrcoef(movie.frames[0, :, 1:].ravel(), movie.frames[0, :, :-1].ravel())[0, 1]
    assert abs(neighbours) < 0.02


@pytest.mark.parametrize("mean", [0.02, 1.8, 7.9])
def test_rare_counts_are_as_rare_as_they_should_be(mean: float) -> None:
    """Over ten million pixels the law's tail is right, and no pixel has a count that it makes impossible."""
    camera = make_camera(MovieParameters(pixel_size_angstrom=1.0, dose_per_frame_e_per_square_angstrom=mean))
    rng = np.random.default_rng(3)
    flat = np.ones((1024, 1024), dtype=np.float32)
    found = sum(np.bincount(camera.count(flat, rng).ravel(), minlength=256) for _ in range(10))
    pixels = found.sum()
    expected = scipy.stats.poisson.pmf(np.arange(256), mean) * pixels
    seen_often = expected > 20
    deviation = (found - expected)[seen_often] / np.sqrt(expected[seen_often])
    assert np.abs(deviation).max() < 5
    assert not found[expected < 1e-3].any()


def test_the_gain_flattens_the_raw_counts(specimen: Specimen) -> None:
    """Raw frames show the sensor's blocks and columns; multiplied by the gain they are as flat as their noise."""
    parameters = replace(BLANK, gain=True, frames=40, dose_per_frame_e_per_square_angstrom=4.0)
    movie = simulate_movie(parameters, specimen)
    assert movie.gain is not None
    assert movie.gain.dtype == np.float32
    total = movie.frames.sum(axis=0, dtype=np.float64)
    noise = 1 / math.sqrt(total.mean())
    assert total.std() / total.mean() > 1.2 * noise
    corrected = total * movie.gain
    assert corrected.std() / corrected.mean() == pytest.approx(noise, rel=0.05)
    assert corrected.mean() == pytest.approx(40 * 4 * 4, rel=0.01)
    blocks = corrected.reshape(8, 40, 8, 48).mean(axis=(1, 3))
    assert blocks.std() / blocks.mean() < 2 * noise / math.sqrt(40 * 48)


def test_defects_are_where_the_map_says(specimen: Specimen) -> None:
    """Dead columns count nothing and have no gain; hot pixels burn; all else is whole."""
    movie = simulate_movie(replace(SMALL, gain=True, defects=True), specimen)
    assert movie.defects is not None
    assert movie.gain is not None
    dead = movie.defects.all(axis=0)
    assert dead.any()
    assert not movie.frames[:, :, dead].any()
    assert np.array_equal(movie.gain == 0, np.broadcast_to(dead, movie.gain.shape))
    hot = movie.defects & ~dead
    assert hot.any()
    assert movie.frames[:, hot].mean() == pytest.approx(60, rel=0.2)
    assert movie.frames[:, ~movie.defects].max() < 40


def test_movies_of_one_camera_share_its_gain_and_defects(specimen: Specimen) -> None:
    """The camera is its own seed's, whatever the movie's."""
    first, second = (simulate_movie(replace(SMALL, gain=True, defects=True, seed=seed), specimen) for seed in (1, 2))
    other = simulate_movie(replace(SMALL, gain=True, defects=True, seed=1, camera_seed=9), specimen)
    assert first.gain is not None
    assert np.array_equal(first.gain, second.gain)
    assert np.array_equal(first.defects, second.defects)
    assert not np.array_equal(first.gain, other.gain)


def test_the_ctfs_zeros_are_in_the_ideal_image(specimen: Specimen) -> None:
    """Ice alone shows Thon rings: its power nearly vanishes where sin χ does, and peaks half-way between."""
    parameters = replace(ICE, height=512, width=512, defocus_u_angstrom=20000, defocus_v_angstrom=20000)
    k, power = radial_power(simulate_movie(parameters, specimen).ideal, 2.0, 200)
    chi = math.pi * wavelength() * 20000 * k**2 - 0.5 * math.pi * 2.7e7 * wavelength() ** 3 * k**4 + math.asin(0.1)
    order = chi / math.pi
    for n in range(1, 5):
        at_zero = power[np.abs(order - n).argmin()]
        beside = [power[np.abs(order - n - half).argmin()] for half in (-0.5, 0.5)]
        assert at_zero < 0.1 * min(beside)


def test_astigmatism_lies_along_its_azimuth_in_the_image(specimen: Specimen) -> None:
    """In the ideal image's spectrum the rings are closest along the azimuth, from columns towards rows."""
    parameters = replace(
        ICE,
        height=512,
        width=512,
        defocus_u_angstrom=24000,
        defocus_v_angstrom=18000,
        defocus_angle_degrees=35.0,
    )
    ideal = simulate_movie(parameters, specimen).ideal
    power = np.abs(np.fft.fft2(ideal - 1)) ** 2
    ky, kx = np.meshgrid(np.fft.fftfreq(512, 2.0), np.fft.fftfreq(512, 2.0), indexing="ij")
    k = np.hypot(kx, ky)

    def agreement(angle: float) -> float:
        defocus = 21000 + 3000 * np.cos(2 * (np.arctan2(ky, kx) - math.radians(angle)))
        chi = (
            math.pi * wavelength() * defocus * k**2 - 0.5 * math.pi * 2.7e7 * wavelength() ** 3 * k**4 + math.asin(0.1)
        )
        band = (k > 0.03) & (k < 0.15)
        return float(np.corrcoef(np.sin(chi[band]) ** 2, power[band])[0, 1])

    scores = {angle: agreement(angle) for angle in range(0, 180, 5)}
    assert max(scores, key=scores.__getitem__) == 35
    assert scores[35] > 0.4


def test_frames_are_displaced_as_the_track_says(specimen: Specimen) -> None:
    """Cross-correlation of bright frames finds the planted track: frame f is displaced by +s_f."""
    movie = simulate_movie(replace(SMALL, frames=4, dose_per_frame_e_per_square_angstrom=20.0, seed=5), specimen)
    track = np.array([movie.truth.shift_x_angstrom, movie.truth.shift_y_angstrom])
    assert np.all(track[:, 0] == 0)
    for frame in range(4):
        found = peak_shift(movie.ideal.astype(float), movie.frames[frame].astype(float))
        assert np.abs(2.0 * np.array(found) - track[:, frame]).max() < 0.7


def test_drift_is_fast_first_and_of_the_wanted_length(specimen: Specimen) -> None:
    """Half the way is gone in the first sixth of the frames; the last frame is the wanted distance away."""
    truth = simulate_movie(replace(BLANK, frames=25, height=64, width=64), specimen).truth
    distance = np.hypot(truth.shift_x_angstrom, truth.shift_y_angstrom)
    assert distance[-1] == pytest.approx(16)
    assert distance[4] > 8
    assert np.all(np.diff(distance) > 0)


def test_local_motion_bends_the_frame_as_stated(specimen: Specimen) -> None:
    """A frame is most like the ideal image moved by the drift and just the stated doming: not none, half or twice."""
    parameters = replace(
        SMALL,
        height=512,
        width=512,
        frames=2,
        particles=None,
        local_motion_angstrom=16.0,
        dose_per_frame_e_per_square_angstrom=12.0,
    )
    movie = simulate_movie(parameters, specimen)
    drift = movie.truth.shift_x_angstrom[1], movie.truth.shift_y_angstrom[1]
    rows, columns = np.indices(movie.ideal.shape, dtype=float)
    local = local_displacement_angstrom(parameters, 1, columns - drift[0] / 2, rows - drift[1] / 2)
    inside = slice(30, -30), slice(30, -30)

    def likeness(times: float) -> float:
        source = rows - (drift[1] + times * local[1]) / 2, columns - (drift[0] + times * local[0]) / 2
        moved = scipy.ndimage.map_coordinates(movie.ideal, source, order=3)
        return float(np.corrcoef(moved[inside].ravel(), movie.frames[1][inside].ravel())[0, 1])

    scores = {times: likeness(times) for times in (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0)}
    assert max(scores, key=scores.__getitem__) == 1.0
    assert np.hypot(*local_displacement_angstrom(parameters, 1, np.zeros(1), np.zeros(1)))[0] == pytest.approx(16)


def test_damage_follows_the_exposure_filter(specimen: Specimen) -> None:
    """A frame's structure at 15 Å, against the undamaged image, has decayed as exp(−N / 2Nₑ) at its middle."""
    parameters = replace(
        SMALL,
        frames=5,
        height=512,
        width=512,
        particles=None,
        drift_angstrom=0.0,
        dose_per_frame_e_per_square_angstrom=10.0,
    )
    movie = simulate_movie(parameters, specimen)
    ideal = np.fft.fft2(movie.ideal - 1)
    k = np.hypot(np.fft.fftfreq(512, 2.0)[:, None], np.fft.fftfreq(512, 2.0)[None])
    band = (k > 1 / 18) & (k < 1 / 13)
    critical = 0.245 * k[band] ** -1.665 + 2.81
    for frame in range(5):
        spectrum = np.fft.fft2(movie.frames[frame] / 40.0)
        found = (spectrum[band] * ideal[band].conj()).real.sum() / (np.abs(ideal[band]) ** 2).sum()
        weight = np.abs(ideal[band]) ** 2
        wanted = (weight * np.exp(-(frame + 0.5) * 10 / (2 * critical))).sum() / weight.sum()
        assert found == pytest.approx(wanted, abs=0.06)


def test_contrast_scales_what_the_specimen_does(specimen: Specimen) -> None:
    """Half the contrast is the same picture at half the strength; more than all of it is refused."""
    whole, half = (simulate_movie(replace(SMALL, frames=1, contrast=contrast), specimen).ideal for contrast in (1, 0.5))
    assert np.abs(2 * (half - 1) - (whole - 1)).max() < 1e-5
    with pytest.raises(UsageError, match=r"contrast of 1\.2"):
        replace(SMALL, contrast=1.2)


def test_particles_are_dark_at_underfocus_and_where_the_truth_says(specimen: Specimen) -> None:
    """Within the planted discs the ideal image is darker than outside; shifting the discs makes it less so."""
    movie = simulate_movie(replace(SMALL, height=512, width=512, particles=8, defocus_u_angstrom=25000), specimen)
    rows, columns = np.indices(movie.ideal.shape)

    def darkness(dx: float, dy: float) -> float:
        inside = np.zeros(movie.ideal.shape, dtype=bool)
        for x, y in zip(movie.truth.particle_x_pixel, movie.truth.particle_y_pixel, strict=True):
            inside |= np.hypot(columns - x - dx, rows - y - dy) < 20
        return float(movie.ideal[~inside].mean() - movie.ideal[inside].mean())

    here = darkness(0, 0)
    assert here > 0.02
    assert all(darkness(dx, dy) < here for dx, dy in ((12, 0), (-12, 0), (0, 12), (0, -12)))


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_particles_neither_overlap_nor_leave_the_frame(seed: int) -> None:
    """Centres are a diameter apart, and a radius and the drift inside the edge."""
    particle = generate_specimen(seed=2, diameter_angstrom=100)
    truth = simulate_movie(replace(SMALL, frames=1, particles=9, seed=seed), particle).truth
    centres = 2.0 * np.array([truth.particle_x_pixel, truth.particle_y_pixel]).T
    distance = np.linalg.norm(centres[:, None] - centres[None], axis=2) + 1e9 * np.eye(9)
    assert distance.min() >= particle.diameter_angstrom
    margin = particle.diameter_angstrom / 2 + SMALL.drift_angstrom
    assert centres.min() >= margin
    assert (2.0 * np.array([383, 319]) - centres).min() >= margin


def test_more_particles_than_fit_are_refused(specimen: Specimen) -> None:
    """The error says how many there is room for."""
    with pytest.raises(UsageError, match=r"room for \d+ particles.*room for 500.*fewer"):
        simulate_movie(replace(SMALL, particles=500), specimen)
    with pytest.raises(UsageError, match="room for 0"):
        simulate_movie(replace(SMALL, pixel_size_angstrom=0.3), specimen)


def test_the_same_seed_gives_the_same_bytes(specimen: Specimen) -> None:
    """A movie can be made again; another seed is another movie."""
    first, again, other = (simulate_movie(replace(SMALL, seed=seed), specimen) for seed in (7, 7, 8))
    assert first.frames.tobytes() == again.frames.tobytes()
    assert first.truth == again.truth
    assert first.frames.tobytes() != other.frames.tobytes()
    assert first.truth.particle_x_pixel != other.truth.particle_x_pixel


def test_threads_change_nothing(specimen: Specimen) -> None:
    """Frames made ahead by other threads are the same bytes, in the same order, with local motion and without."""
    for local_motion in (0.0, 6.0):
        parameters = replace(SMALL, local_motion_angstrom=local_motion)
        alone, together = (simulate_movie(parameters, specimen, threads=threads) for threads in (1, 3))
        assert alone.frames.tobytes() == together.frames.tobytes()


def test_splines_are_those_of_scipy() -> None:
    """Coefficients from Fourier space and the compiled kernel agree with the recursive filter and SciPy's sampling."""
    rng = np.random.default_rng(4)
    picture = rng.normal(size=(60, 83))
    spectrum = np.fft.rfft2(picture) * coefficient_factors(np.fft.rfftfreq(83))
    spectrum *= coefficient_factors(np.fft.fftfreq(60))[:, None]
    rows, columns = rng.uniform(-20, 80, (40, 30)), rng.uniform(-20, 103, (40, 30))
    found = np.empty((40, 30), dtype=np.float32)
    sample_spline(np.fft.irfft2(spectrum, picture.shape).astype(np.float32), rows, columns, found)
    wanted = scipy.ndimage.map_coordinates(picture, [rows, columns], order=5, mode="grid-wrap")
    assert np.abs(found - wanted).max() < 1e-5
