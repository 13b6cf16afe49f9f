"""The measure of information against sums made in the plain way with the planted motion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage
from numpy.typing import NDArray

from coldchain.errors import UsageError
from coldchain.simulate.information import ideal_correlation, information
from coldchain.simulate.movie import SimulatedMovie, local_displacement_angstrom, simulate_movie
from coldchain.simulate.scoring import field_error_angstrom
from coldchain.simulate.specimen import generate_specimen
from coldchain.simulate.truth import MovieParameters

PARAMETERS = MovieParameters(
    frames=6,
    height=448,
    width=512,
    pixel_size_angstrom=1.4,
    dose_per_frame_e_per_square_angstrom=6.0,
    defocus_u_angstrom=9000.0,
    defocus_v_angstrom=8800.0,
    drift_angstrom=10.0,
    local_motion_angstrom=6.0,
    particles=9,
    bfactor_square_angstrom=20.0,
    seed=11,
)


@pytest.fixture(scope="module")
def movie() -> SimulatedMovie:
    """Six frames with drift and local motion at a pixel that reaches 3 Å."""
    return simulate_movie(PARAMETERS, generate_specimen(seed=1, diameter_angstrom=90))


def planted_displacement(
    movie: SimulatedMovie, frame: int, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where places (x, y) of frame 0 have gone by `frame`, pixels."""
    truth = movie.truth
    local_x, local_y = local_displacement_angstrom(truth.parameters, frame, x, y)
    pixel = truth.parameters.pixel_size_angstrom
    return (truth.shift_x_angstrom[frame] + local_x) / pixel, (truth.shift_y_angstrom[frame] + local_y) / pixel


def summed(movie: SimulatedMovie, part: float = 1.0, bend: float = 0.0) -> NDArray[np.float32]:
    """The dose-weighted sum with `part` of the motion undone, displaced by `bend` pixels at the left and right edge."""
    parameters = movie.truth.parameters
    y, x = np.indices(movie.ideal.shape, dtype=np.float64)
    u = 2 * x / parameters.width - 1
    total = np.zeros((parameters.height, parameters.width // 2 + 1), dtype=complex)
    ky, kx = np.fft.fftfreq(parameters.height, 1.4)[:, None], np.fft.rfftfreq(parameters.width, 1.4)
    with np.errstate(divide="ignore"):
        critical = 0.245 * np.hypot(kx, ky) ** -1.665 + 2.81
    for frame, counts in enumerate(movie.frames):
        moved_x, moved_y = planted_displacement(movie, frame, x, y)
        places = y + part * moved_y, x + part * moved_x + bend * u * u
        aligned = scipy.ndimage.map_coordinates(counts.astype(np.float64), places, order=5, mode="mirror")
        total += np.fft.rfft2(aligned) * np.exp(-(frame + 0.5) * 6.0 / (2 * critical))
    return np.fft.irfft2(total, movie.ideal.shape).astype(np.float32)


@pytest.fixture(scope="module")
def best_sum(movie: SimulatedMovie) -> NDArray[np.float32]:
    """The sum with all of the planted motion undone."""
    return summed(movie)


def test_a_sum_with_the_planted_motion_keeps_all_and_half_undone_does_not(
    movie: SimulatedMovie, best_sum: NDArray[np.float32]
) -> None:
    """The measure is 1 for the best sum there is, near the ideal curve on every ring, and falls as motion is left."""
    best = information(best_sum, movie.ideal, PARAMETERS)
    assert best.to_3_angstrom == pytest.approx(1, abs=0.015)
    assert best.between_5_and_3_angstrom == pytest.approx(1, abs=0.03)
    assert np.abs(best.found - best.ideal)[10:].mean() < 0.03
    half = information(summed(movie, part=0.5), movie.ideal, PARAMETERS)
    assert half.to_3_angstrom < 0.8
    assert half.between_5_and_3_angstrom < 0.8  # the first frame, where nothing has moved yet, holds most of it


def test_a_static_displacement_and_a_filter_cost_nothing(movie: SimulatedMovie, best_sum: NDArray[np.float32]) -> None:
    """Another frame of reference, another scale or a filter of the rings is a convention; the field is reported."""
    best = information(best_sum, movie.ideal, PARAMETERS)
    bent = summed(movie, bend=2.0)
    kept = information(
        3 * scipy.ndimage.gaussian_filter(np.roll(bent, (2, -3), axis=(0, 1)), 0.6), movie.ideal, PARAMETERS
    )
    assert kept.to_3_angstrom == pytest.approx(best.to_3_angstrom, abs=0.02)
    assert kept.between_5_and_3_angstrom == pytest.approx(best.between_5_and_3_angstrom, abs=0.03)
    # aligned(X) = frame(X + bend u²): the sum's specimen is displaced by -bend u², with u = 2 (x / width - ½).
    assert kept.field_x_pixel[[0, 2]] == pytest.approx([-3, -8], abs=0.7)
    assert kept.field_y_pixel[0] == pytest.approx(2, abs=0.2)


def test_a_picture_upside_down_is_nothing(movie: SimulatedMovie, best_sum: NDArray[np.float32]) -> None:
    """Rows in the other order hold none of the planted image; another shape is refused."""
    assert information(best_sum[::-1], movie.ideal, PARAMETERS).to_3_angstrom < 0.2
    with pytest.raises(UsageError, match="without binning"):
        information(np.zeros((224, 256), dtype=np.float32), movie.ideal, PARAMETERS)
    with pytest.raises(UsageError, match="room for two tiles"):
        information(
            np.zeros((64, 64), np.float32), np.zeros((64, 64), np.float32), replace(PARAMETERS, height=64, width=64)
        )


def test_the_ideal_curve_is_that_of_a_counting_camera() -> None:
    """SNR = λ P Σ q² / N: two electrons a pixel, P / N = 0.03, one frame without damage to speak of."""
    parameters = replace(PARAMETERS, frames=1, dose_per_frame_e_per_square_angstrom=2 / 1.4**2)
    frequency = np.array([1e-6, 1 / 3])
    found = ideal_correlation(frequency, np.array([30.0, 30.0]), 1000.0, parameters)
    left = np.exp(-0.5 * 2 / 1.4**2 / (0.245 * 3**1.665 + 2.81))
    assert found**2 / (1 - found**2) == pytest.approx([0.06, 0.06 * left])


def test_track_errors_are_distances_with_each_tracks_mean_removed(movie: SimulatedMovie) -> None:
    """The planted displacements err by nothing, whatever constant is added; one wrong step errs by its length."""
    x, y = np.array([100.0, 400.0]), np.array([300.0, 50.0])
    planted = np.array([planted_displacement(movie, frame, x, y) for frame in range(6)])
    found_x, found_y = planted[:, 0] + np.array([5.0, -3.0]), planted[:, 1] - 2
    assert field_error_angstrom(movie.truth, x, y, found_x, found_y) == pytest.approx(0, abs=1e-9)
    found_x[3, 0] += 3
    found_y[3, 0] += 4
    # A step of 7 Å in one of six frames of one of two tracks: 7² · (1/6 − 1/36) / 2.
    assert field_error_angstrom(movie.truth, x, y, found_x, found_y) == pytest.approx((49 * 5 / 72) ** 0.5)
