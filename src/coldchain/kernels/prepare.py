"""From a camera's raw frames to pictures: gain, defects found and filled. The stack stays in the camera's integers.

A defect is a pixel that tells nothing about the specimen: the gain has no value there (0, NaN, negative), the
facility's mask names it, a frame has no finite number there, or the movie's own sum shows it (hot and dead pixels,
columns and rows). A pattern that stands still pulls every frame towards the place where it was taken, so defects go
before anything is aligned. A defect takes, in every frame anew, the value of a random good pixel close by: level and
noise are then those of the neighbourhood, whatever the detector's statistics are, and nothing stands still.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from coldchain.compiled import compiled
from coldchain.errors import ProcessingError

Mask: TypeAlias = NDArray[np.bool_]
Image: TypeAlias = NDArray[np.float32]

_DONORS = 8
_PIXEL_DEVIATIONS = 7.0
_LINE_DEVIATIONS = 8.0
_LINE_CONTRAST = 0.1
_LINE_LENGTH_PIXEL = 64
_LINE_NEIGHBOURS_PIXEL = 7
_BLOCK_PIXEL = 32
# Noise of a detector that integrates reaches to the next pixels, the specimen further.
_LAG_PIXEL = 4
_NORMAL_MEDIAN = 0.6745
_LARGEST_FOUND_FRACTION = 0.02
# More cannot be filled from what is around them; and a mask that is meant the other way round asks for it.
_LARGEST_DEFECT_FRACTION = 0.2
_LARGEST_BLANK_FRACTION = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """What turns a raw frame into a picture.

    gain : (rows, columns) float32, multiplicative, finite everywhere; None where the frames need none.
    defects : (rows, columns) bool, every pixel that is filled.
    found : how many of them only the movie's own sum showed.
    defect_index : (n,) positions of the defects in the flattened frame.
    donor_index : (n, 8) positions of good pixels near each.
    seed : of the choice among the donors.
    used : (m,) numbers, from 0, of the frames that hold a picture; the few that hold one value alone are left out.
    warnings : what a reader of the result should know.
    """

    gain: Image | None
    defects: Mask
    found: int
    defect_index: NDArray[np.intp]
    donor_index: NDArray[np.intp]
    seed: int
    used: NDArray[np.intp]
    warnings: tuple[str, ...]

    def apply(self, frame: NDArray[np.generic], number: int) -> Image:
        """The picture of a raw frame: (rows, columns) float32, a new array. `number` is the frame's, from 0."""
        picture = frame.astype(np.float32)
        if self.gain is not None:
            picture *= self.gain
        if self.defect_index.size:
            flat = picture.reshape(-1)
            choice = np.random.default_rng((self.seed, number)).integers(0, _DONORS, self.defect_index.size)
            flat[self.defect_index] = flat[self.donor_index[np.arange(choice.size), choice]]
        return picture


def prepare(
    frames: NDArray[np.generic],
    *,
    gain: NDArray[np.generic] | None = None,
    defects: Mask | None = None,
    seed: int = 0,
) -> Correction:
    """Look once at every frame and say how each is corrected.

    Parameters
    ----------
    frames : (frames, rows, columns) of any real type, as the camera wrote them.
    gain : (rows, columns), multiplicative; 0, negative and non-finite values are defects.
    defects : (rows, columns), True where a pixel is known to be bad.
    seed : the same seed gives the same picture.

    Raises
    ------
    ProcessingError : the frames are no stack of real images, gain or mask are of another shape, more than a tenth of
        the frames hold one value in every pixel, or more than a fifth of the pixels are defects.
    """
    _check_stack(frames)
    shape = (int(frames.shape[1]), int(frames.shape[2]))
    _check_shape("gain", gain, shape)
    _check_shape("defect mask", defects, shape)
    clean_gain, bad = _clean_gain(gain, shape)
    if defects is not None:
        bad |= defects.astype(np.bool_)
    _check_defects(bad)
    total, unreadable, blank = _sum_frames(frames)
    bad |= unreadable
    _check_defects(bad)
    if clean_gain is not None:
        total *= clean_gain
    found, warnings = find_defects(total, bad)
    bad |= found
    _check_defects(bad)
    index = np.flatnonzero(bad)
    return Correction(
        gain=clean_gain,
        defects=bad,
        found=int(np.count_nonzero(found)),
        defect_index=index,
        donor_index=_donors(bad, index, seed),
        seed=seed,
        used=np.setdiff1d(np.arange(frames.shape[0]), blank),
        warnings=_blank_warning(blank, frames.shape[0]) + warnings,
    )


def find_defects(total: Image, known: Mask) -> tuple[Mask, tuple[str, ...]]:
    """Pixels, columns and rows that stand out of the sum of a movie as no specimen does.

    A column (or row) is bad over a stretch of 64 pixels if its mean there differs from the median of the columns beside
    it by 8 standard errors and a tenth. A pixel is bad if it lies 7 standard deviations beyond the second third of the
    5 × 5 pixels around it (beyond, not off their median: at the edge of gold both sides are right), of a Poisson
    distribution where electrons are counted. If more than a fiftieth of the pixels are bad, they are no single
    defects: they are left, and a warning asks for the gain.

    Parameters
    ----------
    total : (rows, columns) float32 sum of the gain-corrected frames.
    known : (rows, columns) pixels that are known to be bad and are left out of every statistic.

    Returns
    -------
    (rows, columns) bool, without the known ones, and warnings.
    """
    level, sigma = _level_and_noise(total, known)
    if sigma == 0.0:
        return np.zeros(total.shape, dtype=np.bool_), ()
    # Of counted electrons, the variance over the mean: one, times the gain. 0: something else than counts.
    electron = sigma**2 / level if level > 0 else 0.0
    pixels = np.zeros(total.shape, dtype=np.bool_)
    _mark_outliers(total, known, _block_levels(total), sigma, electron, pixels)
    # Pixels first: a single hot one would make its whole stretch of a column stand out.
    rest = known | pixels
    lines = _bad_columns(total, rest, sigma)
    lines |= _bad_columns(np.ascontiguousarray(total.T), np.ascontiguousarray(rest.T), sigma).T
    share = np.count_nonzero(pixels & ~lines) / pixels.size
    if share > _LARGEST_FOUND_FRACTION:
        return np.asarray(lines & ~known), (
            f"{100 * share:.1f} % of the pixels differ from their neighbours, too many for single defects; they were"
            " left as they are. Is this the right gain reference, and is one needed?",
        )
    return np.asarray((lines | pixels) & ~known), ()


def _sum_frames(frames: NDArray[np.generic]) -> tuple[Image, Mask, list[int]]:
    """Sum of the frames that are not blank; the pixels at which some frame has no finite number (0 is summed there);
    the numbers of the blank frames, a tenth of all at most."""
    count = frames.shape[0]
    total = np.zeros(frames.shape[1:], dtype=np.float32)
    unreadable = np.zeros(frames.shape[1:], dtype=np.bool_)
    blank: list[int] = []
    for number in range(count):
        frame = frames[number]
        if np.issubdtype(frame.dtype, np.floating):
            finite = np.isfinite(frame)
            if not finite.all():
                unreadable |= ~finite
                if np.count_nonzero(finite) < finite.size / 2:
                    raise ProcessingError(
                        f"{np.count_nonzero(~finite)} of {finite.size} pixels of frame {number + 1} are no numbers",
                        remedy="Read the movie again from the camera's disk, or leave it out",
                    )
                frame = np.where(finite, frame, 0)
        if frame.size > 1 and frame.min() == frame.max():
            blank.append(number)
            if len(blank) > _LARGEST_BLANK_FRACTION * count:
                raise ProcessingError(
                    f"frame {number + 1} of {count} holds the same value, {frame.flat[0]}, in every pixel{_as(blank)}",
                    expected=f"electrons, but in {_LARGEST_BLANK_FRACTION:.0%} of the frames at most",
                    remedy="Check the camera and the beam; the movie cannot be aligned",
                )
        else:
            total += frame
    return total, unreadable, blank


def _as(blank: list[int]) -> str:
    earlier = ", ".join(str(number + 1) for number in blank[:-1])
    return f", as {earlier} before it" if earlier else ""


def _blank_warning(blank: list[int], count: int) -> tuple[str, ...]:
    if not blank:
        return ()
    names = ", ".join(str(number + 1) for number in blank)
    which = f"Frame {names} of {count} holds" if len(blank) == 1 else f"Frames {names} of {count} hold"
    return (f"{which} the same value in every pixel; the movie was aligned and added up without.",)


def _clean_gain(gain: NDArray[np.generic] | None, shape: tuple[int, int]) -> tuple[Image | None, Mask]:
    if gain is None:
        return None, np.zeros(shape, dtype=np.bool_)
    values = gain.astype(np.float32)
    with np.errstate(invalid="ignore"):
        bad = ~(np.isfinite(values) & (values > 0))
    values[bad] = 0
    return values, bad


def _level_and_noise(total: Image, known: Mask) -> tuple[float, float]:
    """Mean of the good pixels (0 if they are no counts) and the noise's deviation, unmoved by a few that stand out."""
    lag = min(_LAG_PIXEL, total.shape[1] - 1)
    good = _sample(total[~known])
    lowest, highest = np.quantile(good, (0.01, 0.995))
    level = float(np.minimum(good, highest).mean(dtype=np.float64)) if lowest >= 0 else 0.0
    if lag < 1:
        return level, 0.0
    both = ~(known[:, lag:] | known[:, :-lag])
    difference = np.abs(_sample((total[:, lag:] - total[:, :-lag])[both]))
    if difference.size == 0:
        return level, 0.0
    sigma = float(np.median(difference)) / (math.sqrt(2) * _NORMAL_MEDIAN)
    if sigma == 0.0:
        # So few electrons that most pixels are equal.
        clipped = np.minimum(difference, np.quantile(difference, 0.995))
        sigma = math.sqrt(float(np.mean(np.square(clipped, dtype=np.float64))) / 2)
    return level, sigma


def _sample(values: Image) -> Image:
    """About a million of the values at most: quantiles of more are not better, only slower."""
    return values[:: 1 + values.size // 1_000_000]


def _bad_columns(total: Image, known: Mask, sigma: float) -> Mask:
    """Stretches of columns whose mean stands out of the columns beside them."""
    rows = total.shape[0]
    starts = np.arange(0, max(1, rows - _LINE_LENGTH_PIXEL // 2), _LINE_LENGTH_PIXEL)
    good = (~known).astype(np.float32)
    counts = np.add.reduceat(good, starts, axis=0)
    means = np.add.reduceat(total * good, starts, axis=0) / np.maximum(counts, 1)
    means[counts == 0] = np.median(total)
    beside = ndimage.median_filter(means, size=(1, _LINE_NEIGHBOURS_PIXEL), mode="mirror")
    # The median of seven has a variance of a fifth of one column's own.
    error = sigma * np.sqrt(1.2 / np.maximum(counts, 1))
    difference = np.abs(means - beside)
    # A detector whose pixels differ, or a missing gain, makes all columns differ by more than chance.
    error = np.maximum(error, np.median(difference) / _NORMAL_MEDIAN)
    bad = (difference > _LINE_DEVIATIONS * error) & (difference > _LINE_CONTRAST * np.abs(beside)) & (counts > 1)
    lengths = np.diff(np.append(starts, rows))
    return np.asarray(np.repeat(bad, lengths, axis=0))


def _block_levels(total: Image) -> Image:
    """Median of each block of 32 × 32 pixels, from every second row and column; the rest at the edge is left out."""
    block = min(_BLOCK_PIXEL, *total.shape)
    rows, columns = total.shape[0] // block, total.shape[1] // block
    blocks = total[: rows * block, : columns * block].reshape(rows, block, columns, block)[:, ::2, :, ::2]
    return np.median(blocks.transpose(0, 2, 1, 3).reshape(rows, columns, -1), axis=2).astype(np.float32)


@compiled
def _mark_outliers(total: Image, bad: Mask, block_levels: Image, sigma: float, electron: float, out: Mask) -> None:
    """Mark pixels beyond the limits. Only those far from their block's level are compared with their own neighbours."""
    rows, columns = total.shape
    block = min(_BLOCK_PIXEL, rows, columns)
    near = np.empty(25, dtype=np.float32)
    for y in range(rows):
        block_row = min(y // block, block_levels.shape[0] - 1)
        for x in range(columns):
            value = total[y, x]
            coarse = block_levels[block_row, min(x // block, block_levels.shape[1] - 1)]
            if bad[y, x] or _limit(float(coarse), -4.0, sigma, electron) <= value <= _limit(
                float(coarse), 4.0, sigma, electron
            ):
                continue
            count = 0
            for yy in range(max(0, y - 2), min(rows, y + 3)):
                for xx in range(max(0, x - 2), min(columns, x + 3)):
                    if not bad[yy, xx] and (yy != y or xx != x):
                        near[count] = total[yy, xx]
                        count += 1
            if count < 5:
                continue
            ordered = np.sort(near[:count])
            high, low = float(ordered[(2 * count) // 3 - 1]), float(ordered[count - (2 * count) // 3])
            too_high = value > _limit(high, _PIXEL_DEVIATIONS, sigma, electron)
            out[y, x] = too_high or value < _limit(low, -_PIXEL_DEVIATIONS, sigma, electron)


@compiled
def _limit(level: float, deviations: float, sigma: float, electron: float) -> float:
    """The value so many standard deviations off a level; of counts, whose roots deviate by ½ at any level."""
    if electron == 0.0 or level < 0:
        return float(level + deviations * sigma)
    root = np.sqrt(level) + deviations / 2 * np.sqrt(electron)
    return float(root * root) if root > 0 else -np.inf


def _donors(bad: Mask, index: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
    """For each defect, eight good pixels (some twice) from the smallest neighbourhood in which chance finds them."""
    rows, columns = bad.shape
    rng = np.random.default_rng(seed)
    donors = np.full((index.size, _DONORS), -1, dtype=np.intp)
    y, x = np.divmod(index, columns)
    radius = 2
    while radius < 4 * max(rows, columns):
        defect, slot = np.nonzero(donors < 0)
        if defect.size == 0:
            return donors
        for _ in range(3):
            near_y = y[defect] + rng.integers(-radius, radius + 1, defect.size)
            near_x = x[defect] + rng.integers(-radius, radius + 1, defect.size)
            inside = (near_y >= 0) & (near_y < rows) & (near_x >= 0) & (near_x < columns)
            near = np.where(inside, near_y * columns + near_x, index[defect])
            good = ~bad.reshape(-1)[near]
            donors[defect[good], slot[good]] = near[good]
        radius *= 2
    missing = donors < 0
    donors[missing] = rng.choice(np.flatnonzero(~bad), np.count_nonzero(missing))
    return donors


def _check_stack(frames: NDArray[np.generic]) -> None:
    real = np.issubdtype(frames.dtype, np.integer) or np.issubdtype(frames.dtype, np.floating)
    if frames.ndim != 3 or frames.size == 0 or not real:
        raise ProcessingError(
            f"an array of shape {frames.shape} and type {frames.dtype}",
            expected="a movie of (frames, rows, columns) whole or real numbers",
        )


def _check_shape(name: str, array: NDArray[np.generic] | None, shape: tuple[int, int]) -> None:
    if array is not None and array.shape != shape:
        found = " × ".join(str(length) for length in array.shape)
        raise ProcessingError(
            f"the {name} has {found} pixels (rows × columns), the frames have {shape[0]} × {shape[1]}",
            remedy=f"Give the {name} of this camera mode, turned as the frames are",
        )


def _check_defects(bad: Mask) -> None:
    share = np.count_nonzero(bad) / bad.size
    if share > _LARGEST_DEFECT_FRACTION:
        raise ProcessingError(
            f"{100 * share:.1f} % of the pixels are defects",
            expected=f"at most {100 * _LARGEST_DEFECT_FRACTION:.0f} %",
            remedy="Is the mask inverted, or half of the gain zero? Give the mask and the gain of this camera",
        )
