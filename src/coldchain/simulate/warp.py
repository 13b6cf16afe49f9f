"""A picture bent by a smooth displacement: quintic B-splines, for a whole camera frame in about a second.

A spline picture is its coefficients. They come from the samples by a recursive filter, or, for a periodic picture,
by a division in Fourier space (`coefficient_factors`), which costs nothing where a transform is at hand. The error of
quintic interpolation of a picture with power up to Nyquist is small against a camera's counting noise: below 1 % of
the amplitude up to 0.6 of Nyquist. (Unser, Aldroubi and Eden, IEEE Trans. Signal Process. 1993, 41, 821,
doi:10.1109/78.193220.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coldchain.compiled import compiled

_TAPS = 6


def coefficient_factors(cycles_per_pixel: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a transform is multiplied by, along one axis, so that it becomes that of the quintic spline's coefficients.

    The inverse of the sampled kernel's transform, (66 + 52 cos ω + 2 cos 2ω) / 120 with ω = 2π × `cycles_per_pixel`.
    """
    angle = 2 * np.pi * cycles_per_pixel
    result: NDArray[np.float64] = 120 / (66 + 52 * np.cos(angle) + 2 * np.cos(2 * angle))
    return result


@compiled
def sample_spline(
    coefficients: NDArray[np.float32],
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
    out: NDArray[np.float32],
) -> None:
    """Fill `out` with the spline picture's values at the places (row, column), in pixels of `coefficients`.

    `rows`, `columns` and `out` share one shape of two dimensions. The picture is periodic.
    """
    height, width = coefficients.shape
    row_weights = np.empty(_TAPS, dtype=np.float32)
    column_weights = np.empty(_TAPS, dtype=np.float32)
    places = np.empty(_TAPS, dtype=np.int64)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            row, column = int(np.floor(rows[i, j])), int(np.floor(columns[i, j]))
            _quintic_weights(np.float32(rows[i, j] - row), row_weights)
            _quintic_weights(np.float32(columns[i, j] - column), column_weights)
            for tap in range(_TAPS):
                place = column - 2 + tap
                places[tap] = place if 0 <= place < width else place % width
            value = np.float32(0)
            for tap in range(_TAPS):
                place = row - 2 + tap
                line = coefficients[place if 0 <= place < height else place % height]
                along = np.float32(0)
                for other in range(_TAPS):
                    along += column_weights[other] * line[places[other]]
                value += row_weights[tap] * along
            out[i, j] = value


@compiled
def _quintic_weights(fraction: np.float32, weights: NDArray[np.float32]) -> None:
    """The quintic B-spline at fraction + 2, + 1, 0, − 1, − 2, − 3: what six coefficients weigh, 0 ≤ fraction < 1."""
    t = fraction
    s = np.float32(1) - t
    t2, s2 = t * t, s * s
    weights[0] = s2 * s2 * s / np.float32(120)
    weights[5] = t2 * t2 * t / np.float32(120)
    # At 1 + s and 1 + t from the centre, and the two between.
    weights[1] = _second_piece(s)
    weights[4] = _second_piece(t)
    weights[2] = _first_piece(t)
    weights[3] = _first_piece(s)


@compiled
def _first_piece(x: np.float32) -> np.float32:
    """The quintic B-spline at a distance 0 ≤ x ≤ 1 from its centre."""
    x2 = x * x
    return np.float32(0.55) + x2 * (np.float32(-0.5) + x2 * (np.float32(0.25) - x * np.float32(1 / 12)))


@compiled
def _second_piece(x: np.float32) -> np.float32:
    """The quintic B-spline at a distance 2 − x, 0 ≤ x ≤ 1, from its centre: from 1/120 up to 26/120."""
    one, five, ten = np.float32(1), np.float32(5), np.float32(10)
    return (one + x * (five + x * (ten + x * (ten + x * (five - five * x))))) / np.float32(120)
