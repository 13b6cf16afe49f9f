"""Movies of a planted motion, and plain formulas beside the fast ones; nothing of the kernels' own arithmetic."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter

from coldchain.kernels.prepare import Correction

PIXEL = 1.06
Picture = NDArray[np.float64]
Track = tuple[Picture, Picture]


def specimen(shape: tuple[int, int], contrast: float, seed: int = 0) -> Picture:
    """Relative density of zero mean: blobs of a protein's size on a texture without anything finer than about 8 Å."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])) / PIXEL
    texture = np.fft.irfft2(np.fft.rfft2(rng.normal(size=shape)) * np.exp(-150 * frequency**2), shape)
    seeds = rng.random(shape) < 1 / 40**2
    blobs = np.fft.irfft2(np.fft.rfft2(seeds.astype(float)) * np.exp(-2 * (np.pi * frequency * 25) ** 2), shape)
    picture = texture / texture.std() + 2 * blobs / blobs.std()
    return contrast * (picture - picture.mean()) / picture.std()


def displaced(picture: Picture, x: float, y: float) -> Picture:
    """picture(X − s): the content moves to higher columns for positive x and to higher rows for positive y."""
    rows, columns = picture.shape
    phase = y * np.fft.fftfreq(rows)[:, None] + x * np.fft.rfftfreq(columns)
    return np.fft.irfft2(np.fft.rfft2(picture) * np.exp(-2j * np.pi * phase), picture.shape)


def planted_track(frames: int, scale: float = 1.0) -> Track:
    """A fast start that settles and a slow drift, in pixels; zero in the first frame."""
    t = np.arange(frames)
    x, y = scale * (-0.4 * t + 3 * np.exp(-t / 2)), scale * (10 * (1 - np.exp(-t / 4)) + 0.05 * t)
    return x - x[0], y - y[0]


def moving_frames(picture: Picture, x: Picture, y: Picture) -> Picture:
    """What frames of a specimen that moves as a whole would show without noise, relative to their mean."""
    return np.stack([1 + displaced(picture, *shift) for shift in zip(x, y, strict=True)]).clip(0)


def expose(picture: Picture, x: Picture, y: Picture, mean: float, seed: int = 1) -> NDArray[np.uint8]:
    """Electrons of a movie of a moving specimen on a perfect counting detector."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.poisson(mean * frame) for frame in moving_frames(picture, x, y)]).astype(np.uint8)


def local_course(frames: int) -> Picture:
    """How far the local motion has gone in each frame; it settles at 1."""
    return 1 - np.exp(-np.arange(frames) / (frames / 4))


def local_ends(shape: tuple[int, int], amplitude: float, x: Picture, y: Picture) -> Track:
    """Where the local motion of places (x, y) leads to, in pixels along x and y: it bends and twists, and the middle
    stays. No polynomial of it is ours."""
    u, v = 2 * x / shape[1] - 1, 2 * y / shape[0] - 1
    return amplitude * (0.7 * np.sin(v) + 0.3 * u * u), amplitude * (0.6 * np.sin(u - 0.3 * v) - 0.4 * u * v)


def local_field(shape: tuple[int, int], frames: int, amplitude: float, x: Picture, y: Picture) -> Track:
    """Local motion at places (x, y) of the first frame, in pixels: (points, frames) along x and y."""
    along_x, along_y = local_ends(shape, amplitude, x, y)
    return np.outer(along_x, local_course(frames)), np.outer(along_y, local_course(frames))


def bent_frames(shape: tuple[int, int], contrast: float, track: Track, amplitude: float, seed: int) -> Picture:
    """What frames of a specimen that moves as `track` and `local_field` say would show without noise."""
    margin = 32
    large = specimen((shape[0] + 2 * margin, shape[1] + 2 * margin), contrast, seed)
    coefficients = spline_filter(large, order=3)
    y, x = np.indices(shape).astype(float)
    frames = np.empty((track[0].size, *shape))
    for number, gone in enumerate(local_course(track[0].size)):
        # Where each pixel's piece of specimen was in the first frame, to a fixed point.
        first_x, first_y = x - track[0][number], y - track[1][number]
        for _ in range(3):
            local_x, local_y = local_ends(shape, gone * amplitude, first_x, first_y)
            first_x, first_y = x - track[0][number] - local_x, y - track[1][number] - local_y
        frames[number] = map_coordinates(coefficients, (first_y + margin, first_x + margin), prefilter=False)
    return (1 + frames).clip(0)


def track_error(found_x: Picture, found_y: Picture, x: Picture, y: Picture) -> float:
    """Root mean square distance in pixels, after taking the mean difference over the last axis, the frames', away."""
    error = np.stack([found_x - x, found_y - y])
    error -= error.mean(axis=-1, keepdims=True)
    return float(np.sqrt(np.mean(np.sum(error**2, axis=0))))


def correction(
    shape: tuple[int, int],
    *,
    gain: NDArray[np.float32] | None = None,
    dark: NDArray[np.float32] | None = None,
    bad: NDArray[np.bool_] | None = None,
    frames: int = 1,
    seed: int = 0,
) -> Correction:
    """A correction without any search for defects: those of `bad` are filled from good pixels anywhere."""
    bad = np.zeros(shape, dtype=bool) if bad is None else bad
    index, good = np.flatnonzero(bad), np.flatnonzero(~bad)
    return Correction(
        gain=np.ones(shape, dtype=np.float32) if gain is None else gain,
        dark=dark,
        defects=bad,
        found_index=index[:0],
        defect_index=index,
        donor_index=np.random.default_rng(seed).choice(good, (index.size, 8)),
        seed=seed,
        used=np.arange(frames),
        gain_check=None,
        warnings=(),
    )


def binned_plainly(picture: NDArray[np.floating], factor: int) -> Picture:
    """Sums of factor × factor pixels; what fills no bin is left out."""
    rows, columns = (length // factor for length in picture.shape)
    blocks = picture[: rows * factor, : columns * factor].astype(np.float64).reshape(rows, factor, columns, factor)
    return blocks.sum(axis=(1, 3))


def cubic_spline(distance: Picture) -> Picture:
    """The centred cubic B-spline."""
    r = np.abs(distance)
    return np.where(r < 1, 2 / 3 - r**2 + r**3 / 2, np.where(r < 2, (2 - r) ** 3 / 6, 0))


def sampled_between(picture: NDArray[np.floating], y: Picture, x: Picture) -> Picture:
    """Σ_mn β(m − t_y) β(n − t_x) picture[…] at places (y_i + s_i, x_j + s_j) of the axes, without a prefilter.

    `y` and `x` are (2, places): whole numbers and displacements. Places are periodic; the whole pixels of a
    displacement are mirrored at the border.
    """
    sampled = picture.astype(np.float64)
    for axis, (place, shift) in enumerate((y, x)):
        length = picture.shape[axis]
        whole = np.floor(shift)
        total = 0.0
        for step in (-1, 0, 1, 2):
            source = ((place + step) % length + whole).astype(int) % (2 * length)
            source = np.minimum(source, 2 * length - 1 - source)
            weight = cubic_spline(step - (shift - whole))
            total = total + sampled.take(source, axis=axis) * (weight[:, None] if axis == 0 else weight)
        sampled = np.asarray(total)
    return sampled
