"""The exposure filter is the published one, keeps noise white and a plain sum plain."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from coldchain.errors import ProcessingError
from coldchain.kernels import dose

FREQUENCIES = np.array([0.0, 0.01, 0.05, 0.1, 0.25, 0.5])


def test_critical_exposure_is_that_of_the_paper() -> None:
    """0.245 k^−1.665 + 2.81 at 300 kV, 0.8 of it at 200 kV, without end at zero frequency."""
    at_300 = dose.critical_exposure(FREQUENCIES, 300.0)
    assert at_300[0] == np.inf
    np.testing.assert_allclose(at_300[1:], 0.245 * FREQUENCIES[1:] ** -1.665 + 2.81)
    np.testing.assert_allclose(dose.critical_exposure(FREQUENCIES[1:], 200.0), 0.8 * at_300[1:], rtol=0.003)


def test_exposure_of_a_frame_is_that_at_its_middle() -> None:
    """Three frames of 2 e⁻/Å² after 5 stand at 6, 8 and 10."""
    np.testing.assert_allclose(dose.frame_exposures(3, 2.0, 5.0), [6.0, 8.0, 10.0])


def test_exposure_of_unequal_frames_is_on_their_cumulative_sum() -> None:
    """Frames of 1, 2 and 4 e⁻/Å² after 5 stand at 5.5, 7 and 10; as many doses are wanted as there are frames."""
    np.testing.assert_allclose(dose.frame_exposures(3, (1.0, 2.0, 4.0), 5.0), [5.5, 7.0, 10.0])
    np.testing.assert_allclose(dose.frame_exposures(1, (2.0,)), [1.0])
    for given_doses in ((1.0, 2.0), (1.0,), ()):
        with pytest.raises(ProcessingError, match=f"{len(given_doses)} doses for 3 frames"):
            dose.frame_exposures(3, given_doses)
    with pytest.raises(ProcessingError, match="dose per frame is -2"):
        dose.frame_exposures(3, (1.0, -2.0, 3.0))


def test_unequal_frames_keep_noise_white() -> None:
    """The weights' squares, times the frames' doses, add up to the whole dose at every frequency."""
    doses = np.array([1.0, 2.0, 4.0, 0.0, 3.0])
    weights = dose.exposure_weights(FREQUENCIES, dose.frame_exposures(5, tuple(doses)), 300.0, doses)
    np.testing.assert_allclose(doses @ weights**2, doses.sum())


@given(
    frames=st.integers(1, 60),
    per_frame=st.floats(0.0, 5.0),
    before=st.floats(0.0, 5000.0),
    voltage=st.sampled_from([100.0, 200.0, 300.0]),
)
def test_weights_keep_noise_white_whatever_the_exposure(
    frames: int, per_frame: float, before: float, voltage: float
) -> None:
    """The squares add up to the number of frames at every frequency, none is negative, and none grows with exposure."""
    weights = dose.exposure_weights(FREQUENCIES, dose.frame_exposures(frames, per_frame, before), voltage)
    assert weights.shape == (frames, FREQUENCIES.size)
    np.testing.assert_allclose(np.sum(weights**2, axis=0), frames)
    assert np.all(np.diff(weights, axis=0) <= 1e-12)
    np.testing.assert_allclose(weights[:, 0], 1.0)


def test_ratio_of_two_frames_is_the_decay_between_them() -> None:
    """At 4 Å, 10 e⁻/Å² more take the amplitude down by exp(−10 / 2Nₑ)."""
    weights = dose.exposure_weights(np.array([0.25]), np.array([3.0, 13.0]), 300.0)
    critical = 0.245 * 0.25**-1.665 + 2.81
    assert weights[1, 0] / weights[0, 0] == pytest.approx(np.exp(-10 / (2 * critical)))


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_impossible_doses_are_refused(value: float) -> None:
    """A negative or infinite dose is a stated error, not a black picture."""
    with pytest.raises(ProcessingError, match="dose per frame"):
        dose.frame_exposures(3, value)
    with pytest.raises(ProcessingError, match="pre-exposure"):
        dose.frame_exposures(3, 1.0, value)


def weights_of(frames: int, per_frame: float, voltage: float = 300.0, before: float = 0.0) -> NDArray[np.float64]:
    """Exposure weights from zero to the corner beyond 1.2 Å."""
    frequencies = np.linspace(0, 0.85, 600)
    return dose.exposure_weights(frequencies, dose.frame_exposures(frames, per_frame, before), voltage)


@given(
    frames=st.integers(25, 100),
    per_frame=st.floats(0.05, 3.0),
    before=st.sampled_from([0.0, 4.0, 60.0]),
    voltage=st.sampled_from([100.0, 200.0, 300.0]),
    tolerance=st.sampled_from([1e-2, 1e-3, 1e-4]),
    left_out=st.integers(0, 3),
)
def test_few_terms_make_all_weights(
    frames: int, per_frame: float, before: float, voltage: float, tolerance: float, left_out: int
) -> None:
    """Their product is right to the tolerance, with orthonormal rows, the first constant over the frames that count,
    and no term more than is needed."""
    weights = weights_of(frames, per_frame, voltage, before)
    weights[1 : 1 + left_out] = 0
    v, u = dose.few_terms(weights, tolerance)
    assert np.abs(v.T @ u - weights).max() <= tolerance * weights.max()
    np.testing.assert_allclose(v @ v.T, np.eye(len(v)), atol=1e-9)
    np.testing.assert_allclose(v[0], weights.any(axis=1) / np.sqrt(frames - left_out))
    np.testing.assert_allclose(v[:, 1 : 1 + left_out], 0, atol=1e-9)
    assert len(v) <= 9
    if len(v) > 1:
        assert np.abs(v[:-1].T @ u[:-1] - weights).max() > tolerance * weights.max()


def test_the_first_term_is_the_plain_sum() -> None:
    """Its transform times the root of the number of frames that count is the plain sum's."""
    v, u = dose.few_terms(weights_of(40, 1.0))
    stack = np.random.default_rng(1).normal(size=(40, 7))
    np.testing.assert_allclose(np.sqrt(40) * v[0] @ stack, stack.sum(axis=0))
    np.testing.assert_allclose(u[0] / np.sqrt(40), weights_of(40, 1.0).mean(axis=0))


def test_equal_weights_are_one_term() -> None:
    """Without an exposure there is nothing to weigh, nor with one frame, nor with none."""
    for weights in (np.ones((30, 9)), weights_of(30, 0.0), weights_of(1, 2.0), np.zeros((4, 9))):
        v, u = dose.few_terms(weights)
        assert len(v) == 1
        np.testing.assert_allclose(v.T @ u, weights, atol=1e-12)


@pytest.mark.parametrize(
    ("frames", "total", "terms", "error"),
    [(40, 40.0, 5, 7e-5), (50, 60.0, 5, 3e-4), (50, 60.0, 6, 2e-5), (80, 100.0, 6, 1.5e-4)],
)
def test_errors_fall_by_ten_a_term(frames: int, total: float, terms: int, error: float) -> None:
    """The stated largest errors hold with so many terms, within a factor of three; the constant first term costs no
    more than that."""
    weights = weights_of(frames, total / frames)
    v, u = dose.few_terms(weights, 0.0)
    found = np.abs(v[:terms].T @ u[:terms] - weights).max() / weights.max()
    assert error / 3 < found < 3 * error
