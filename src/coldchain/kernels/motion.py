"""How the specimen moved: the whole frame's track, and on top of it a field that is smooth in space.

Frame f shows the specimen at X of the first frame displaced by s_f(X) = track_f + local_f(X): positive x is towards
higher columns, positive y towards higher rows. aligned(X) = frame_f(X + s_f(X)). The local motion is 0 in the first
frame and at the middle of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Vector: TypeAlias = NDArray[np.float64]

TERMS = 18
# In x and in y, of each of `spatial_terms`.
SPATIAL_ORDERS = tuple((i, order - i) for order in (1, 2, 3) for i in range(order, -1, -1))


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """Displacements in pixels of the movie.

    shape : (rows, columns) of the movie.
    shift_x_pixel, shift_y_pixel : (frames,) the track at the middle of the picture; 0 in the first frame.
    field_x, field_y : (terms, frames) local motion: factors of the Legendre polynomials of `spatial_terms`.
    grid : (columns, rows) of the patches that the local motion was found from; (1, 1): it was not looked for.
    patch_x_pixel, patch_y_pixel : (patches,) their centres.
    """

    shape: tuple[int, int]
    shift_x_pixel: Vector
    shift_y_pixel: Vector
    field_x: Vector
    field_y: Vector
    grid: tuple[int, int]
    patch_x_pixel: Vector
    patch_y_pixel: Vector

    def local_at(self, x_pixel: Vector, y_pixel: Vector) -> tuple[Vector, Vector]:
        """Displacement beyond the track at places of the first frame, along x and y: (points, frames) each."""
        terms = spatial_terms(np.asarray(x_pixel), np.asarray(y_pixel), self.shape)
        middle = spatial_terms(*middle_of(self.shape), self.shape)
        used = (terms - middle)[:, : len(self.field_x)]
        return used @ self.field_x, used @ self.field_y

    def at(self, x_pixel: Vector, y_pixel: Vector) -> tuple[Vector, Vector]:
        """The whole displacement at places of the first frame, along x and y: (points, frames) each."""
        local_x, local_y = self.local_at(x_pixel, y_pixel)
        return local_x + self.shift_x_pixel, local_y + self.shift_y_pixel

    def polynomials(self) -> tuple[Vector, Vector]:
        """The local motion along x and y as RELION's model of third order: (18,) each, nearest to ours all over.

        Six spatial terms in the order 1, x, x², y, y², xy, each times z, z², z³, with x = column / width − ½,
        y = row / height − ½ and z = frame − first frame; those of the term 1 are 0, for the local motion is 0 in the
        middle. (micrograph_model.cpp of RELION 5.)
        """
        rows, columns = self.shape
        places = [(np.arange(9) + 0.5) * length / 9 - 0.5 for length in (columns, rows)]
        x, y = (values.ravel() for values in np.meshgrid(*places))
        u, v = x / columns - 0.5, y / rows - 0.5
        spatial = np.stack([u, u * u, v, v * v, u * v], axis=1)
        z = np.arange(self.shift_x_pixel.size, dtype=np.float64)
        scale = max(1.0, float(z[-1]))
        temporal = np.stack([(z / scale) ** power for power in (1, 2, 3)], axis=1)
        powers = scale ** np.arange(1, 4)

        def fit(displacement: Vector) -> Vector:
            half = np.linalg.lstsq(spatial, displacement, rcond=None)[0]
            factors = np.linalg.lstsq(temporal, half.T, rcond=None)[0].T / powers
            return np.concatenate([np.zeros(3), factors.ravel()])

        along_x, along_y = self.local_at(x, y)
        return fit(along_x), fit(along_y)

    def whole_frame_only(self) -> Motion:
        """The same without the local motion."""
        return replace(self, field_x=self.field_x[:0], field_y=self.field_y[:0])


def still(shape: tuple[int, int], frames: int) -> Motion:
    """No motion at all."""
    none, nowhere = np.zeros((0, frames)), np.zeros(0)
    return Motion(shape, np.zeros(frames), np.zeros(frames), none, none, (1, 1), nowhere, nowhere)


def spatial_terms(x_pixel: Vector, y_pixel: Vector, shape: tuple[int, int]) -> Vector:
    """Products of Legendre polynomials in x and y from −1 to 1 over the picture, without the constant.

    Returns
    -------
    (points, 9): x, y; the three of second order (x², xy, y²); the four of third (x³, x²y, xy², y³).
    """
    u = np.atleast_1d(2 * np.asarray(x_pixel, dtype=np.float64) / max(1, shape[1] - 1) - 1)
    v = np.atleast_1d(2 * np.asarray(y_pixel, dtype=np.float64) / max(1, shape[0] - 1) - 1)
    of_x, of_y = ([np.ones_like(t), t, (3 * t * t - 1) / 2, (5 * t * t - 3) * t / 2] for t in (u, v))
    return np.stack([of_x[i] * of_y[j] for i, j in SPATIAL_ORDERS], axis=1)


def middle_of(shape: tuple[int, int]) -> tuple[Vector, Vector]:
    """x and y of the middle of a picture of (rows, columns), in RELION's sense: half the width and height."""
    return np.array([shape[1] / 2]), np.array([shape[0] / 2])
