"""Real Fourier transforms with a stated number of threads, their frequencies, and resampling in Fourier space.

A *half-plane* is what a real transform keeps: shape (rows, columns // 2 + 1), zero frequency at [0, 0], rows in the
usual wrapped order (0, 1, …, −1), columns from zero to Nyquist. The forward transform has the negative exponent and no
factor, the inverse divides by the number of pixels, as in NumPy. Frequencies are in cycles per pixel until a pixel size
is given.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias, TypeVar, cast, overload

import ducc0
import numpy as np
from numpy.typing import NDArray

from coldchain.errors import ProcessingError

AnyHalfPlane = TypeVar("AnyHalfPlane", NDArray[np.complex64], NDArray[np.complex128])
FloatImage: TypeAlias = NDArray[np.float32] | NDArray[np.float64]
HalfPlane: TypeAlias = NDArray[np.complex64] | NDArray[np.complex128]
Shape: TypeAlias = tuple[int, int]

# Squares of what lies between can be summed in double precision.
_LEAST_MAGNITUDE, _LARGEST_MAGNITUDE = 1e-100, 1e100
_BLOCK_PIXELS = 1 << 16


# mypy takes double and single precision for overlapping types; no array is both.
@overload
def rfft2(  # type: ignore[overload-overlap]
    image: NDArray[np.float64], threads: int = 1, out: NDArray[np.complex128] | None = None
) -> NDArray[np.complex128]: ...
@overload
def rfft2(
    image: NDArray[np.float32 | np.integer[Any]], threads: int = 1, out: NDArray[np.complex64] | None = None
) -> NDArray[np.complex64]: ...
def rfft2(
    image: NDArray[np.floating[Any] | np.integer[Any]], threads: int = 1, out: HalfPlane | None = None
) -> HalfPlane:
    """Forward real transform over the last two axes.

    Parameters
    ----------
    image : (…, rows, columns) real; float64 is transformed in double precision, everything else in single.
    threads : at most this many threads are used.
    out : where the result goes, of its shape and type; None: a new array, which for a large one costs a fifth more.

    Returns
    -------
    (…, rows, columns // 2 + 1) complex64 or complex128.
    """
    pixels = np.asarray(image, dtype=np.float64 if image.dtype == np.float64 else np.float32)
    axes = (pixels.ndim - 2, pixels.ndim - 1)
    return cast(HalfPlane, ducc0.fft.r2c(pixels, axes=axes, out=out, nthreads=max(1, threads)))


# As above.
@overload
def irfft2(  # type: ignore[overload-overlap]
    transform: NDArray[np.complex64], shape: Shape, threads: int = 1, *, spend: bool = False
) -> NDArray[np.float32]: ...
@overload
def irfft2(
    transform: NDArray[np.complex128], shape: Shape, threads: int = 1, *, spend: bool = False
) -> NDArray[np.float64]: ...
def irfft2(transform: HalfPlane, shape: Shape, threads: int = 1, *, spend: bool = False) -> FloatImage:
    """Inverse of `rfft2`; `shape` is (rows, columns) of the image, which a half-plane alone cannot tell.

    Parameters
    ----------
    transform : (…, rows, columns // 2 + 1); it is left as it is, unless it may be spent.
    shape : (rows, columns) of the image; a `ProcessingError` is raised where the half-plane is not of that image.
    threads : at most this many threads are used.
    spend : whether the transform may be overwritten, which takes half the time for a large one.

    Returns
    -------
    (…, rows, columns), float32 for complex64 and float64 for complex128.
    """
    _check_half_plane(transform, shape)
    # ducc0's c2r defaults to the negative exponent, which would turn the image by 180°.
    return cast(
        FloatImage,
        ducc0.fft.c2r(
            transform,
            axes=(transform.ndim - 2, transform.ndim - 1),
            lastsize=shape[1],
            forward=False,
            inorm=2,
            nthreads=max(1, threads),
            allow_overwriting_input=spend,
        ),
    )


def row_frequencies(rows: int) -> NDArray[np.float64]:
    """Signed frequencies of a half-plane's rows (y), in cycles per pixel, in wrapped order: shape (rows,)."""
    return np.asarray(np.fft.fftfreq(rows), dtype=np.float64)


def column_frequencies(columns: int) -> NDArray[np.float64]:
    """Frequencies of a half-plane's columns (x), in cycles per pixel, from zero: shape (columns // 2 + 1,)."""
    return np.asarray(np.fft.rfftfreq(columns), dtype=np.float64)


def radial_frequencies(shape: Shape, pixel_size_angstrom: float = 1.0) -> NDArray[np.float32]:
    """Length of the frequency vector at every point of the half-plane of an image of `shape`.

    Returns
    -------
    (rows, columns // 2 + 1) float32, in 1/Å; in cycles per pixel where no pixel size is given.
    """
    y = row_frequencies(shape[0]) / pixel_size_angstrom
    x = column_frequencies(shape[1]) / pixel_size_angstrom
    return np.hypot(y[:, np.newaxis], x[np.newaxis, :]).astype(np.float32)


def fourier_crop(transform: AnyHalfPlane, shape: Shape, new_shape: Shape) -> AnyHalfPlane:
    """The half-plane of the same picture on fewer pixels: what lies beyond the new Nyquist frequency is dropped.

    The mean grey value is kept, and so is the position of the first pixel's centre. An even new length loses its
    Nyquist row or column (it is set to zero): half of the pair that it stands for lies outside, and what is left is
    not a wave that can be shifted.

    Parameters
    ----------
    transform : (…, rows, columns // 2 + 1) half-plane of an image of `shape`.
    shape : (rows, columns) now.
    new_shape : (rows, columns) wanted, neither larger than now; otherwise a `ProcessingError` is raised.

    Returns
    -------
    (…, new rows, new columns // 2 + 1), a new array of the same precision.
    """
    _check_half_plane(transform, shape)
    if min(new_shape) < 1 or new_shape[0] > shape[0] or new_shape[1] > shape[1]:
        raise ProcessingError(
            f"an image of {shape[0]} × {shape[1]} pixels cannot be cropped in Fourier space"
            f" to {new_shape[0]} × {new_shape[1]}",
            remedy="Ask for a pixel size that is not smaller than the image's own",
        )
    if new_shape == shape:
        return transform.copy()
    rows, columns = new_shape
    cropped = np.zeros((*transform.shape[:-2], rows, columns // 2 + 1), dtype=transform.dtype)
    kept_columns = columns // 2 + 1 if columns == shape[1] else (columns + 1) // 2
    if rows == shape[0]:
        cropped[..., :kept_columns] = transform[..., :kept_columns]
    else:
        upper = (rows + 1) // 2
        lower = upper - 1
        cropped[..., :upper, :kept_columns] = transform[..., :upper, :kept_columns]
        if lower:
            cropped[..., -lower:, :kept_columns] = transform[..., -lower:, :kept_columns]
    cropped *= rows * columns / (shape[0] * shape[1])
    return cropped


def resample(
    image: NDArray[np.generic], pixel_size_angstrom: float, coarsest_pixel_angstrom: float, threads: int = 1
) -> tuple[NDArray[np.float32], float, float]:
    """The picture, standardised, at a pixel of at most `coarsest_pixel_angstrom`, by cropping in Fourier space.

    Parameters
    ----------
    image : (rows, columns), any real type, finite.
    pixel_size_angstrom : of the image.
    coarsest_pixel_angstrom : wanted; a picture that is not finer than this keeps its pixels.
    threads : at most this many threads are used.

    Returns
    -------
    (rows, columns) float32 and its row and column spacing in Å, which differ a little because lengths are integers.
    """
    pixels = standardised(image)
    rows, columns = pixels.shape
    ratio = min(1.0, pixel_size_angstrom / coarsest_pixel_angstrom)
    new_rows = min(rows, good_size(math.ceil(rows * ratio), even=True))
    new_columns = min(columns, good_size(math.ceil(columns * ratio), even=True))
    if (new_rows, new_columns) != (rows, columns):
        transform = fourier_crop(rfft2(pixels, threads), (rows, columns), (new_rows, new_columns))
        pixels = irfft2(transform, (new_rows, new_columns), threads)
    return pixels, pixel_size_angstrom * rows / new_rows, pixel_size_angstrom * columns / new_columns


def standardised(image: NDArray[np.generic]) -> NDArray[np.float32]:
    """The image (rows, columns), of any real type and finite, with mean 0 and standard deviation 1; zeros where all
    values are the same. What follows can so be done in single precision whatever unit the image has."""
    values = image
    if image.dtype.itemsize >= 8:
        largest = max(abs(float(image.min())), abs(float(image.max())))
        if largest and not _LEAST_MAGNITUDE < largest < _LARGEST_MAGNITUDE:
            values = image / largest  # type: ignore[operator]  # a real type
    mean = float(np.asarray(values.mean(dtype=np.float64)))
    # In blocks that stay in the cache: doubles of the whole image would cost more than the arithmetic.
    step = max(1, _BLOCK_PIXELS // max(1, values.shape[1]))
    blocks = [slice(row, row + step) for row in range(0, values.shape[0], step)]

    def centred(block: slice) -> NDArray[np.float64]:
        return np.asarray(np.subtract(values[block], mean, dtype=np.float64))

    squares = sum(float(np.vdot(part, part)) for part in map(centred, blocks))
    deviation = math.sqrt(squares / max(1, values.size))
    pixels = np.zeros(values.shape, dtype=np.float32)
    if deviation > 0:
        for block in blocks:
            np.multiply(centred(block), 1 / deviation, out=pixels[block], casting="same_kind")
    return pixels


def good_size(length: int, *, even: bool = False) -> int:
    """Smallest length ≥ `length` whose real transform is fast (a product of small primes), even if asked for."""
    size = int(ducc0.fft.good_size(max(1, length), True))
    while even and size % 2:
        size = int(ducc0.fft.good_size(size + 1, True))
    return size


def taper(length: int, edge_fraction: float) -> NDArray[np.float32]:
    """Cosine rise and fall over a fraction of the length at either end, so that borders do not correlate: (length,)."""
    edge = max(1, int(length * edge_fraction))
    distance = np.minimum(np.arange(length), np.arange(length)[::-1]) + 0.5
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * np.minimum(distance / edge, 1)), dtype=np.float32)


def _check_half_plane(transform: HalfPlane, shape: Shape) -> None:
    expected = (shape[0], shape[1] // 2 + 1)
    if transform.shape[-2:] != expected:
        raise ProcessingError(
            f"a half-plane of shape {transform.shape[-2:]} for an image of {shape[0]} × {shape[1]} pixels",
            expected=f"shape {expected}",
        )
