"""The path that a specimen takes as a whole while a movie is exposed, from one small transform a frame.

Frame f shows the specimen displaced by s_f: frame_f(X) = specimen(X − s_f), and aligned(X) = frame_f(X + s_f), which is
the factor exp(+2πi k·s_f) in Fourier space. Each frame is compared with the sum of the *others*, for compared with a
sum that holds itself every frame fits best where it is.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from coldchain.compiled import compiled_loosely
from coldchain.kernels.fourier import Shape, column_frequencies, radial_frequencies, row_frequencies

Transform: TypeAlias = NDArray[np.complex64]
Vector: TypeAlias = NDArray[np.float64]

_LOWEST_RESOLUTION_ANGSTROM = 120.0
_FIRST_SEARCH_ANGSTROM = 80.0
_LATER_SEARCH_ANGSTROM = 20.0
_CORRELATION_LENGTH_ANGSTROM = 8.0
_TOLERANCE_ANGSTROM = 0.3
_COARSE_TOLERANCE_ANGSTROM = 1.0
_FIRST_GROUPS = 6
_ITERATIONS = 12
_NEWTON_STEPS = 2
_FEWEST_COEFFICIENTS = 50


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """Displacement of the specimen in each frame relative to the first, in pixels of the images that were compared.

    x_pixel, y_pixel : (frames,) float64; x grows with the column, y with the row.
    frames_together : how many consecutive frames share a place: 1, or more where they are weak; all, where there is no
        track at all.
    warnings : why the track is coarser than one place a frame, or not there at all.
    """

    x_pixel: Vector
    y_pixel: Vector
    frames_together: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Peak:
    y: float
    x: float
    deviations: float


def find_track(
    transforms: Transform, shape: Shape, *, pixel_size_angstrom: float, bfactor_square_angstrom: float, threads: int = 1
) -> Track:
    """Place every frame by its correlation with the sum of the others, to a fixed point.

    Coarse to fine in time: first about six groups of consecutive frames, then ever smaller ones down to single frames.
    A group is moved only if its correlation peak stands out of the noise of the whole correlation map by more than
    chance would do within the search window; others follow their neighbours. Where fewer than half of a level's groups
    stand out, the level is given up and the coarser track stays, with a warning.

    Correlations carry the band from 120 Å to the images' Nyquist frequency with the weight exp(−B k²/2), which is a
    B-factor on either amplitude. The two axes in Fourier space are left out: whatever is wrong with whole columns or
    rows lies there.

    Parameters
    ----------
    transforms : (frames, rows, columns // 2 + 1) half-planes of the small images, of the same mean illumination.
    shape : (rows, columns) of the small images.
    pixel_size_angstrom : of the small images.
    bfactor_square_angstrom : B.
    threads : at most this many.
    """
    frames = transforms.shape[0]
    y, x = np.zeros(frames), np.zeros(frames)
    weights = _band_weights(shape, pixel_size_angstrom, bfactor_square_angstrom)
    if frames == 1:
        return Track(x, y, 1, ())
    if np.count_nonzero(weights) < _FEWEST_COEFFICIENTS:
        return Track(x, y, frames, ("The frames are too small to be aligned; they were added as they are.",))
    search = _Search(transforms, shape, weights, pixel_size_angstrom, threads)
    size, coarser = max(1, frames // _FIRST_GROUPS), 0
    while True:
        window_angstrom = _LATER_SEARCH_ANGSTROM if coarser else _FIRST_SEARCH_ANGSTROM
        level = search.settle(y, x, size, window_angstrom)
        if level is None:
            return Track(x - x[0], y - y[0], coarser or frames, (_warning(coarser),))
        y, x = level
        if size == 1:
            return Track(x - x[0], y - y[0], 1, ())
        size, coarser = size // 2, size


def shift_phases(shape: Shape, y_pixel: float, x_pixel: float) -> tuple[Transform, Transform]:
    """Factors of the rows and of the columns of a half-plane that turn image(X) into image(X + shift).

    A Nyquist row or column of an even length stands for two waves of opposite direction, so its factor is their mean, a
    cosine; anything else would not be the transform of a real image.

    Returns
    -------
    (rows,) and (columns // 2 + 1,) complex64.
    """
    y_phases = np.exp(2j * np.pi * y_pixel * row_frequencies(shape[0]))
    x_phases = np.exp(2j * np.pi * x_pixel * column_frequencies(shape[1]))
    if shape[0] % 2 == 0:
        y_phases[shape[0] // 2] = math.cos(math.pi * y_pixel)
    if shape[1] % 2 == 0:
        x_phases[-1] = math.cos(math.pi * x_pixel)
    return y_phases.astype(np.complex64), x_phases.astype(np.complex64)


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    transforms: Transform
    shape: Shape
    weights: NDArray[np.float32]
    pixel_size_angstrom: float
    threads: int

    def settle(self, y: Vector, x: Vector, size: int, window_angstrom: float) -> tuple[Vector, Vector] | None:
        """Move groups of `size` frames until none moves any more; None if fewer than half of them can be placed."""
        frames = self.transforms.shape[0]
        groups = np.array_split(np.arange(frames), max(2, round(frames / size)))
        centres = np.array([group.mean() for group in groups])
        limit = _chance_limit(window_angstrom)
        # Towards the mean of *all* groups, not of the others: else two frames would change places for ever.
        damping = 1 - 1 / len(groups)
        for _ in range(_ITERATIONS):
            peaks = self._compare(y, x, groups, window_angstrom)
            sure = np.array([peak.deviations > limit for peak in peaks])
            if np.count_nonzero(sure) < len(groups) / 2:
                return None
            step_y = damping * np.array([peak.y for peak in peaks])
            step_x = damping * np.array([peak.x for peak in peaks])
            y = y + np.interp(np.arange(frames), centres[sure], step_y[sure])
            x = x + np.interp(np.arange(frames), centres[sure], step_x[sure])
            largest = float(np.hypot(step_y - step_y.mean(), step_x - step_x.mean())[sure].max())
            if largest * self.pixel_size_angstrom < (_TOLERANCE_ANGSTROM if size == 1 else _COARSE_TOLERANCE_ANGSTROM):
                break
        return y, x

    def _compare(self, y: Vector, x: Vector, groups: list[NDArray[np.intp]], window_angstrom: float) -> list[_Peak]:
        radius = max(1, min(round(window_angstrom / self.pixel_size_angstrom), (min(self.shape) - 1) // 2))
        with ThreadPoolExecutor(self.threads) as pool:
            sums = list(pool.map(lambda group: self._sum(y, x, group), groups))
            total = sums[0].copy()
            for part in sums[1:]:
                total += part

            def find(one: Transform) -> _Peak:
                return _find_peak(one, *_cross_spectrum(one, total, self.weights), self.shape, radius)

            return list(pool.map(find, sums))

    def _sum(self, y: Vector, x: Vector, members: NDArray[np.intp]) -> Transform:
        total = np.zeros(self.transforms.shape[1:], dtype=np.complex64)
        for f in members:
            _add_shifted(total, self.transforms[f], *shift_phases(self.shape, y[f], x[f]))
        return total


def _warning(coarser: int) -> str:
    if coarser:
        return f"The frames are too weak to be placed one by one; the track is that of groups of {coarser} frames."
    return "The frames have no signal in common that stands out of the noise; they were added as they are."


def _band_weights(shape: Shape, pixel_size_angstrom: float, bfactor_square_angstrom: float) -> NDArray[np.float32]:
    frequency = radial_frequencies(shape, pixel_size_angstrom)
    lowest = max(1 / _LOWEST_RESOLUTION_ANGSTROM, 2 / (min(shape) * pixel_size_angstrom))
    weights: NDArray[np.float32] = np.exp(np.float32(-bfactor_square_angstrom / 2) * np.square(frequency))
    weights[(frequency < lowest) | (frequency >= 0.5 / pixel_size_angstrom)] = 0
    weights[0, :] = 0
    weights[:, 0] = 0
    return weights


def _chance_limit(window_angstrom: float) -> float:
    """Height, in standard deviations, that the highest value in a window of noise passes once in a thousand."""
    cells = max(1.0, math.pi * (window_angstrom / _CORRELATION_LENGTH_ANGSTROM) ** 2)
    return math.sqrt(2 * math.log(cells)) + 1.5


def _find_peak(cross: Transform, agreement: float, power: float, shape: Shape, radius: int) -> _Peak:
    """Highest point of the correlation within `radius` pixels of no shift, refined by Newton's method.

    `agreement` and `power` are those of `_cross_spectrum`.
    """
    rows, columns = row_frequencies(shape[0]), column_frequencies(shape[1])
    offsets = np.arange(-radius, radius + 1)
    x_turns = np.exp(2j * np.pi * offsets[:, np.newaxis] * columns).astype(np.complex64)
    y_turns = np.exp(2j * np.pi * rows[:, np.newaxis] * offsets)
    window = np.zeros((offsets.size, offsets.size))
    _correlate(cross, y_turns, x_turns, window)
    row, column = np.unravel_index(int(np.argmax(window)), window.shape)
    top = float(window[row, column])
    y, x = _refine(cross, rows, columns, float(offsets[row]), float(offsets[column]))
    if power == 0 or agreement == 0:
        return _Peak(y, x, 0.0)
    # A half-plane's waves stand for two each, and the map's variance is the sum of their squares (Parseval).
    deviations = top * math.sqrt(2 / power)
    coefficient = min(abs(top) / agreement, 0.999999)
    # Fisher's transform: with few waves, that chance agrees by 0.9 is far less likely than the deviation says.
    return _Peak(y, x, deviations * (math.atanh(coefficient) / coefficient if coefficient > 0 else 1.0))


def _refine(cross: Transform, rows: Vector, columns: Vector, y0: float, x0: float) -> tuple[float, float]:
    y, x = y0, x0
    for _ in range(_NEWTON_STEPS):
        x_turns = np.exp(2j * np.pi * x * columns).astype(np.complex64)
        gy, gx, hyy, hyx, hxx = _derivatives(cross, rows, columns.astype(np.float32), y, x_turns)
        determinant = hyy * hxx - hyx * hyx
        if hyy >= 0 or determinant <= 0:
            return y0, x0
        step_y = -(hxx * gy - hyx * gx) / determinant
        step_x = -(hyy * gx - hyx * gy) / determinant
        y, x = y + step_y, x + step_x
        if abs(y - y0) > 1 or abs(x - x0) > 1:
            return y0, x0
        if abs(step_y) + abs(step_x) < 1e-4:
            break
    return y, x


@compiled_loosely
def _correlate(cross: Transform, y_turns: NDArray[np.complex128], x_turns: Transform, window: Vector) -> None:
    """Re Σ cross(k) exp(2πi k·(y, x)) at a few places: a window is so small that a whole transform takes longer."""
    for j in range(cross.shape[0]):
        for b in range(x_turns.shape[0]):
            real = imaginary = np.float32(0)
            for i in range(cross.shape[1]):
                wave, turn = cross[j, i], x_turns[b, i]
                real += wave.real * turn.real - wave.imag * turn.imag
                imaginary += wave.real * turn.imag + wave.imag * turn.real
            for a in range(y_turns.shape[1]):
                turn_y = y_turns[j, a]
                window[a, b] += real * turn_y.real - imaginary * turn_y.imag


@compiled_loosely
def _derivatives(
    cross: Transform, rows: Vector, columns: NDArray[np.float32], y: float, x_turns: Transform
) -> tuple[float, float, float, float, float]:
    """Gradient and Hessian at (y, x) of Re Σ cross(k) exp(2πi k·(y, x)): (y, x, yy, yx, xx)."""
    gy = gx = hyy = hyx = hxx = 0.0
    for j in range(rows.size):
        re = im = kx_re = kx_im = kxkx_re = kxkx_im = np.float32(0)
        for i in range(columns.size):
            wave, turn, kx = cross[j, i], x_turns[i], columns[i]
            real = wave.real * turn.real - wave.imag * turn.imag
            imaginary = wave.real * turn.imag + wave.imag * turn.real
            re += real
            im += imaginary
            kx_re += kx * real
            kx_im += kx * imaginary
            kxkx_re += kx * kx * real
            kxkx_im += kx * kx * imaginary
        ky, angle = rows[j], 2 * np.pi * rows[j] * y
        cosine, sine = np.cos(angle), np.sin(angle)
        gy -= ky * (re * sine + im * cosine)
        gx -= kx_re * sine + kx_im * cosine
        hyy -= ky * ky * (re * cosine - im * sine)
        hyx -= ky * (kx_re * cosine - kx_im * sine)
        hxx -= kxkx_re * cosine - kxkx_im * sine
    first, second = 2 * np.pi, 4 * np.pi**2
    return first * gy, first * gx, second * hyy, second * hyx, second * hxx


@compiled_loosely
def _cross_spectrum(one: Transform, total: Transform, weights: NDArray[np.float32]) -> tuple[float, float]:
    """Replace a group's transform by weight × group × conj(sum of the others); return what its sum would be if both
    agreed wholly, and the sum of its squares."""
    own = others = power = 0.0
    for j in range(one.shape[0]):
        own_of_row = others_of_row = power_of_row = np.float32(0)
        for i in range(one.shape[1]):
            value, weight = one[j, i], weights[j, i]
            rest = total[j, i] - value
            of_own, of_rest = value.real**2 + value.imag**2, rest.real**2 + rest.imag**2
            own_of_row += weight * of_own
            others_of_row += weight * of_rest
            power_of_row += weight * weight * of_own * of_rest
            one[j, i] = weight * value * np.conj(rest)
        own += float(own_of_row)
        others += float(others_of_row)
        power += float(power_of_row)
    return float(np.sqrt(own * others)), float(power)


@compiled_loosely
def _add_shifted(total: Transform, transform: Transform, y_phases: Transform, x_phases: Transform) -> None:
    for j in range(total.shape[0]):
        for i in range(total.shape[1]):
            total[j, i] += transform[j, i] * (y_phases[j] * x_phases[i])
