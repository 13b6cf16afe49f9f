"""A motion says the same at every place, in our terms and in RELION's polynomials."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from planted_motion import local_field

from coldchain.kernels.motion import Motion, middle_of, spatial_terms, still

Vector = NDArray[np.float64]
Shape = tuple[int, int]
SECOND_ORDER = 5
shapes = st.tuples(st.integers(2, 600), st.integers(2, 600))


def motion_of(shape: Shape, frames: int, terms: int, seed: int) -> Motion:
    """Any motion: 0 in the first frame, else of a few pixels."""
    rng = np.random.default_rng(seed)
    parts = [rng.normal(size=(count, frames)).cumsum(axis=1) for count in (1, 1, terms, terms)]
    x, y, field_x, field_y = (part - part[:, :1] for part in parts)
    return Motion(shape, x[0], y[0], field_x, field_y, (1, 1), np.zeros(1), np.zeros(1))


def as_relion_reads(coefficients: Vector, shape: Shape, frames: int, x: Vector, y: Vector) -> Vector:
    """RELION's third-order model as its format is described: (points, frames)."""
    u, v = x / shape[1] - 0.5, y / shape[0] - 0.5
    spatial = (np.ones_like(u), u, u**2, v, v**2, u * v)
    z = np.arange(frames)
    return sum(
        coefficients[3 * number + power - 1] * np.outer(term, z**power)
        for number, term in enumerate(spatial)
        for power in (1, 2, 3)
    )


def places(shape: Shape, seed: int = 1) -> tuple[Vector, Vector]:
    """Places all over the picture, and its corners."""
    rng = np.random.default_rng(seed)
    right, top = shape[1] - 1.0, shape[0] - 1.0
    return (
        np.concatenate([rng.uniform(0, right, 30), [0, right, 0, right]]),
        np.concatenate([rng.uniform(0, top, 30), [0, 0, top, top]]),
    )


@given(shape=shapes, frames=st.integers(1, 30), terms=st.sampled_from([0, 2, 5]), seed=st.integers(0, 1000))
def test_first_frame_and_middle_stand_still(shape: Shape, frames: int, terms: int, seed: int) -> None:
    """Nothing has moved in the first frame, and in the middle the whole displacement is the track."""
    motion = motion_of(shape, frames, terms, seed)
    x, y = places(shape)
    for found in (*motion.at(x, y), *motion.local_at(x, y)):
        assert found.shape == (x.size, frames)
        np.testing.assert_allclose(found[:, 0], 0, atol=1e-12)
    middle = motion.at(*middle_of(shape))
    np.testing.assert_allclose(middle[0][0], motion.shift_x_pixel, atol=1e-9)
    np.testing.assert_allclose(middle[1][0], motion.shift_y_pixel, atol=1e-9)
    for whole, local, track in zip(
        motion.at(x, y), motion.local_at(x, y), (motion.shift_x_pixel, motion.shift_y_pixel), strict=True
    ):
        np.testing.assert_allclose(whole, local + track)


def test_terms_are_legendres_products_without_the_constant() -> None:
    """The first two are x and y from −1 to 1; over the picture all nine are at right angles and of the constant too."""
    assert spatial_terms(np.array([0.0, 100.0]), np.array([0.0, 60.0]), (61, 101))[:, :2].tolist() == [[-1, -1], [1, 1]]
    y, x = (grid.ravel().astype(float) for grid in np.indices((401, 501)))
    terms = spatial_terms(x, y, (401, 501))
    products = terms.T @ terms / x.size
    assert terms.shape[1] == 9
    np.testing.assert_allclose(terms.mean(axis=0), 0, atol=0.01)
    np.testing.assert_allclose(products - np.diag(np.diag(products)), 0, atol=0.01)


def test_a_positive_term_moves_high_columns_to_higher_columns() -> None:
    """x's own term along x stretches the picture, y's own along y too: displacements at the corners have its signs."""
    stretch = np.zeros((2, SECOND_ORDER, 3))
    stretch[0, 0] = stretch[1, 1] = [0, 1, 2]
    motion = Motion((100, 200), np.zeros(3), np.zeros(3), *stretch, (1, 1), np.zeros(1), np.zeros(1))
    along_x, along_y = motion.at(np.array([199.0, 0.0]), np.array([99.0, 0.0]))
    np.testing.assert_allclose(along_x[:, 2], [2, -2], atol=0.02)
    np.testing.assert_allclose(along_y[:, 2], [2, -2], atol=0.03)


@given(shape=shapes, frames=st.integers(4, 60), seed=st.integers(0, 1000))
def test_motion_of_relions_form_is_written_to_a_millionth(shape: Shape, frames: int, seed: int) -> None:
    """Second order in space and third in time: the polynomials, read as RELION does, say our displacement."""
    rng = np.random.default_rng(seed)
    z = np.arange(frames) / frames
    fields = rng.normal(size=(2, SECOND_ORDER, 3)) @ np.stack([z, z**2, z**3])
    motion = Motion(shape, z * 0, z * 0, *fields, (1, 1), np.zeros(1), np.zeros(1))
    x, y = places(shape)
    for coefficients, local in zip(motion.polynomials(), motion.local_at(x, y), strict=True):
        assert coefficients.shape == (18,)
        assert coefficients[:3].tolist() == [0, 0, 0]
        np.testing.assert_allclose(as_relion_reads(coefficients, shape, frames, x, y), local, atol=1e-6)


def test_another_smooth_motion_is_approached() -> None:
    """Four pixels that settle exponentially are told within 0.4 pixels root mean square, at the corners too."""
    shape, frames = (400, 600), 40
    x, y = places(shape)
    grid = [values.ravel() for values in np.meshgrid(np.linspace(0, 599, 12), np.linspace(0, 399, 9))]
    terms = spatial_terms(*grid, shape) - spatial_terms(*middle_of(shape), shape)
    planted = local_field(shape, frames, 4.0, *grid)
    fields = [np.linalg.lstsq(terms[:, :SECOND_ORDER], part, rcond=None)[0] for part in planted]
    motion = Motion(shape, np.zeros(frames), np.zeros(frames), *fields, (1, 1), np.zeros(1), np.zeros(1))
    for coefficients, local in zip(motion.polynomials(), motion.local_at(x, y), strict=True):
        replayed = as_relion_reads(coefficients, shape, frames, x, y)
        assert np.sqrt(np.mean((replayed - local) ** 2)) < 0.4
        assert np.sqrt(np.mean(local[:, -1] ** 2)) > 1


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_few_frames_have_polynomials_too(frames: int) -> None:
    """As many terms in time as frames hold up; they still say what was found in those frames."""
    motion = motion_of((50, 60), frames, SECOND_ORDER, 3)
    x, y = places((50, 60))
    for coefficients, local in zip(motion.polynomials(), motion.local_at(x, y), strict=True):
        assert np.isfinite(coefficients).all()
        np.testing.assert_allclose(as_relion_reads(coefficients, (50, 60), frames, x, y), local, atol=1e-9)


def test_without_local_motion_nothing_is_left_but_the_track() -> None:
    """`whole_frame_only` keeps the track; `still` has none; both have polynomials of zeros."""
    motion = motion_of((50, 60), 6, SECOND_ORDER, 4)
    x, y = places((50, 60))
    whole = motion.whole_frame_only()
    np.testing.assert_array_equal(whole.at(x, y)[0], np.broadcast_to(motion.shift_x_pixel, (x.size, 6)))
    np.testing.assert_array_equal(whole.at(x, y)[1], np.broadcast_to(motion.shift_y_pixel, (x.size, 6)))
    none = still((50, 60), 6)
    assert not np.any(none.at(x, y))
    for moved in (whole, none):
        assert not np.any(moved.polynomials())
