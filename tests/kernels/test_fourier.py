"""Transforms agree with NumPy's, whatever the shape, and cropping keeps the picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldchain.errors import ProcessingError
from coldchain.kernels import fourier

lengths = st.integers(1, 23)


@settings(max_examples=60, deadline=None)
@given(rows=lengths, columns=lengths, seed=st.integers(0, 2**31), double=st.booleans())
def test_transform_agrees_with_numpy_and_returns(rows: int, columns: int, seed: int, double: bool) -> None:
    """Forward equals numpy.fft.rfft2 and the inverse gives the image back, unrotated, for any shape."""
    image = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float64 if double else np.float32)
    transform = fourier.rfft2(image)
    tolerance = 1e-12 if double else 1e-4
    np.testing.assert_allclose(transform, np.fft.rfft2(image), atol=tolerance * rows * columns)
    back = fourier.irfft2(transform, (rows, columns))
    assert back.dtype == image.dtype
    np.testing.assert_allclose(back, image, atol=tolerance)


def test_inverse_leaves_its_input_alone_and_threads_change_nothing() -> None:
    """The same numbers come from one thread and from two, and a transform may be used twice."""
    image = np.random.default_rng(1).normal(size=(64, 60)).astype(np.float32)
    transform = fourier.rfft2(image)
    kept = transform.copy()
    np.testing.assert_allclose(fourier.irfft2(transform, image.shape, 2), image, atol=1e-5)
    np.testing.assert_array_equal(transform, kept)
    np.testing.assert_allclose(fourier.rfft2(image, 2), transform, atol=1e-4)


def test_stack_is_transformed_image_by_image() -> None:
    """A stack's transform is the stack of transforms."""
    stack = np.random.default_rng(2).normal(size=(3, 8, 9)).astype(np.float32)
    np.testing.assert_allclose(fourier.rfft2(stack)[1], fourier.rfft2(stack[1]), atol=1e-5)
    np.testing.assert_allclose(fourier.irfft2(fourier.rfft2(stack), (8, 9)), stack, atol=1e-5)


def test_integers_are_transformed_in_single_precision() -> None:
    """Camera counts need no conversion by the caller."""
    counts = np.arange(30, dtype=np.uint16).reshape(5, 6)
    assert fourier.rfft2(counts).dtype == np.complex64
    np.testing.assert_allclose(fourier.rfft2(counts), np.fft.rfft2(counts), rtol=1e-5, atol=1e-3)


def test_frequencies_are_those_of_waves() -> None:
    """A wave of five cycles along x and three against y stands where the frequency grids say."""
    rows, columns = 40, 50
    y, x = np.mgrid[:rows, :columns]
    transform = np.abs(fourier.rfft2(np.cos(2 * np.pi * (5 * x / columns - 3 * y / rows))))
    row, column = np.unravel_index(np.argmax(transform), transform.shape)
    assert fourier.column_frequencies(columns)[column] == pytest.approx(5 / columns)
    assert fourier.row_frequencies(rows)[row] == pytest.approx(-3 / rows)
    expected = np.hypot(5 / columns, 3 / rows)
    assert fourier.radial_frequencies((rows, columns))[row, column] == pytest.approx(expected)
    assert fourier.radial_frequencies((rows, columns), 2.0)[row, column] == pytest.approx(expected / 2)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(4, 20), columns=st.integers(4, 20), data=st.data())
def test_cropping_keeps_slow_waves_as_they_are(rows: int, columns: int, data: st.DataObject) -> None:
    """A wave that the smaller image can hold has the same mean, amplitude and phase there."""
    new = (data.draw(st.integers(3, rows)), data.draw(st.integers(3, columns)))
    y, x = np.mgrid[:rows, :columns]
    image = 3 + np.cos(2 * np.pi * (x / columns + y / rows) + 0.4)
    cropped = fourier.irfft2(fourier.fourier_crop(fourier.rfft2(image), image.shape, new), new)
    y, x = np.mgrid[: new[0], : new[1]]
    np.testing.assert_allclose(cropped, 3 + np.cos(2 * np.pi * (x / new[1] + y / new[0]) + 0.4), atol=1e-9)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16, np.float32, np.float64])
def test_standardised_pictures_have_mean_zero_and_deviation_one(dtype: type) -> None:
    """Whatever the type and the level, and in whatever order the rows lie."""
    image = np.random.default_rng(4).integers(0, 200, (700, 301)).astype(dtype)[::-1]
    picture = fourier.standardised(image)
    wide = image.astype(np.float64)
    assert picture.dtype == np.float32
    np.testing.assert_allclose(picture, (wide - wide.mean()) / wide.std(), atol=1e-5)


def test_a_flat_picture_is_standardised_to_nothing() -> None:
    """Where there is one value only there is no deviation to divide by."""
    for value in (0.0, 7.0, 1e300, 5e-324):
        assert not fourier.standardised(np.full((5, 6), value)).any()


def test_resampling_keeps_what_the_coarser_pixels_can_hold() -> None:
    """A wave of 8 Å is at its place at a 3 Å pixel; a picture that is coarse enough keeps its pixels."""
    y, x = np.mgrid[:120, :90]
    image = 50 + 3 * np.cos(2 * np.pi * x / 8 + 0.3) * np.ones_like(y)
    picture, row_spacing, column_spacing = fourier.resample(image, 1.0, 3.0)
    assert max(row_spacing, column_spacing) <= 3.0
    assert (picture.shape[0] * row_spacing, picture.shape[1] * column_spacing) == pytest.approx((120, 90))
    places = np.arange(picture.shape[1]) * column_spacing
    inside = slice(6, -6)
    expected = np.sqrt(2) * np.cos(2 * np.pi * places / 8 + 0.3)
    np.testing.assert_allclose(
        picture[:, inside], np.broadcast_to(expected[inside], picture[:, inside].shape), atol=0.2
    )
    same, row_spacing, _ = fourier.resample(image, 4.0, 3.0)
    assert (same.shape, row_spacing) == (image.shape, 4.0)


def test_cropping_to_the_same_shape_changes_nothing() -> None:
    """Even the Nyquist frequency survives where nothing is cut."""
    transform = fourier.rfft2(np.random.default_rng(3).normal(size=(8, 8)))
    np.testing.assert_array_equal(fourier.fourier_crop(transform, (8, 8), (8, 8)), transform)


def test_impossible_shapes_are_refused() -> None:
    """Growing, and a half-plane of another image, are stated errors."""
    transform = fourier.rfft2(np.ones((8, 8)))
    with pytest.raises(ProcessingError, match="8 × 8 pixels cannot be cropped"):
        fourier.fourier_crop(transform, (8, 8), (10, 8))
    with pytest.raises(ProcessingError, match="half-plane of shape"):
        fourier.irfft2(transform, (8, 12))


@given(st.integers(1, 20000))
def test_good_sizes_are_large_enough_and_smooth(length: int) -> None:
    """A good size holds the image, has only small prime factors and is even where asked."""
    size = fourier.good_size(length, even=True)
    assert size >= length
    assert size % 2 == 0
    for prime in (2, 3, 5, 7, 11):
        while size % prime == 0:
            size //= prime
    assert size == 1


@given(length=st.integers(1, 500), fraction=st.floats(0.0, 0.5))
def test_a_taper_rises_and_falls_alike_and_is_one_between(length: int, fraction: float) -> None:
    """Symmetric, above 0 and at most 1, rising over the fraction at either end only, in a cosine's half period."""
    window = fourier.taper(length, fraction)
    edge = max(1, int(length * fraction))
    assert (window.shape, window.dtype) == ((length,), np.float32)
    np.testing.assert_array_equal(window, window[::-1])
    assert window.min() > 0
    assert np.all(np.diff(window[: (length + 1) // 2]) >= 0)
    np.testing.assert_allclose(window[edge : length - edge], 1)
    if 2 * edge <= length:
        np.testing.assert_allclose(window[:edge] + window[:edge][::-1], 1, atol=1e-6)
