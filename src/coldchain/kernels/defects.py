"""Defects that a movie's own sum shows: hot and dead pixels, bad stretches of columns and rows."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from coldchain.compiled import compiled, compiled_loosely, in_bands

Mask: TypeAlias = NDArray[np.bool_]
Image: TypeAlias = NDArray[np.float32]
Vector: TypeAlias = NDArray[np.float64]

_PIXEL_DEVIATIONS = 7.0
_CANDIDATE_DEVIATIONS = 4.0
_LINE_DEVIATIONS = 8.0
_LINE_CONTRAST = 0.1
_LINE_LENGTH_PIXEL = 64
_LINE_NEIGHBOURS_PIXEL = 7
_BLOCK_PIXEL = 32
# Noise of a detector that integrates reaches to the next pixels, the specimen further.
_LAG_PIXEL = 4
_NORMAL_MEDIAN = 0.6745
_LARGEST_FOUND_FRACTION = 0.02
_SAMPLE_PIXELS = 1_000_000


def find_defects(total: Image, known: Mask, threads: int = 1) -> tuple[Mask, tuple[str, ...]]:
    """Pixels, columns and rows that stand out of the sum of a movie as no specimen does.

    A column (or row) is bad over a stretch of 64 pixels if its mean there differs from the median of the columns beside
    it by 8 standard errors and a tenth, or if more than half of its pixels are bad one by one. A pixel is bad if it
    lies 7 standard deviations beyond the second third of the 5 × 5 pixels around it (beyond, not off their median: at
    the edge of gold both sides are right), of a Poisson distribution where electrons are counted. If more than a
    fiftieth of the pixels are bad, they are no single defects: they are left, and a warning asks for the gain.

    Parameters
    ----------
    total : (rows, columns) float32 sum of the gain-corrected frames.
    known : (rows, columns) pixels that are known to be bad and are left out of every statistic.
    threads : at most this many.

    Returns
    -------
    (rows, columns) bool, without the known ones, and warnings.
    """
    pixels = np.zeros(total.shape, dtype=np.bool_)
    level, sigma = _level_and_noise(total, known)
    if sigma == 0.0:
        return pixels, ()
    # Of counted electrons, the variance over the mean: one, times the gain. 0: something else than counts.
    electron = sigma**2 / level if level > 0 else 0.0
    levels = _block_levels(total)
    low, high = (_limits(levels, side * _CANDIDATE_DEVIATIONS, sigma, electron) for side in (-1, 1))
    in_bands(
        lambda first, end: _mark_outliers(total, known, low, high, sigma, electron, pixels, first, end),
        total.shape[0],
        threads,
    )
    # Pixels first: a single hot one would make its whole stretch of a column stand out.
    lines, mostly_bad = _bad_lines(total, known, pixels, sigma, level, threads)
    single = pixels if lines is None else pixels & ~lines
    share = np.count_nonzero(single) / pixels.size
    if share > _LARGEST_FOUND_FRACTION:
        return np.zeros_like(pixels) if lines is None else np.asarray(lines & ~known), (
            f"{100 * share:.1f} % of the pixels differ from their neighbours, too many for single defects; they were"
            " left as they are. Is this the right gain reference, and is one needed?",
        )
    for mask in (lines, mostly_bad):
        if mask is not None:
            pixels |= mask & ~known
    return pixels, ()


def _level_and_noise(total: Image, known: Mask) -> tuple[float, float]:
    """Mean of the good pixels (0 if they are no counts) and the noise's deviation, unmoved by a few that stand out."""
    step = 1 + total.size // _SAMPLE_PIXELS
    values, bad = total[::step], known[::step]
    if bad.all():
        values, bad = total, known
    lag = min(_LAG_PIXEL, total.shape[1] - 1)
    good = values[~bad]
    lowest, highest = np.quantile(good, (0.01, 0.995))
    level = float(np.minimum(good, highest).mean(dtype=np.float64)) if lowest >= 0 else 0.0
    if lag < 1:
        return level, 0.0
    difference = np.abs((values[:, lag:] - values[:, :-lag])[~(bad[:, lag:] | bad[:, :-lag])])
    if difference.size == 0:
        return level, 0.0
    sigma = float(np.median(difference)) / (math.sqrt(2) * _NORMAL_MEDIAN)
    if sigma == 0.0:
        # So few electrons that most pixels are equal.
        clipped = np.minimum(difference, np.quantile(difference, 0.995))
        sigma = math.sqrt(float(np.mean(np.square(clipped, dtype=np.float64))) / 2)
    return level, sigma


def _block_levels(total: Image) -> Vector:
    """Median of each block of 32 × 32 pixels, from every fourth row and column; the rest at the edge is left out."""
    block = min(_BLOCK_PIXEL, *total.shape)
    rows, columns = total.shape[0] // block, total.shape[1] // block
    step = 4 if block == _BLOCK_PIXEL else 1
    blocks = total[: rows * block, : columns * block].reshape(rows, block, columns, block)[:, ::step, :, ::step]
    return np.median(blocks.transpose(0, 2, 1, 3).reshape(rows, columns, -1), axis=2).astype(np.float64)


def _limits(levels: Vector, deviations: float, sigma: float, electron: float) -> Vector:
    """The value so many standard deviations off each level; of counts, whose roots deviate by ½ at any level."""
    root = np.sqrt(np.maximum(levels, 0)) + deviations / 2 * math.sqrt(electron)
    counted = np.where(root > 0, root * root, -np.inf)
    return np.where((electron > 0) & (levels >= 0), counted, levels + deviations * sigma)


@compiled
def _mark_outliers(
    total: Image,
    bad: Mask,
    low: Vector,
    high: Vector,
    sigma: float,
    electron: float,
    out: Mask,
    first: int,
    end: int,
) -> None:
    """Mark pixels beyond the limits. Only those far from their block's level are compared with their own neighbours."""
    rows, columns = total.shape
    block = min(_BLOCK_PIXEL, rows, columns)
    near = np.empty(25, dtype=np.float32)
    for y in range(first, end):
        block_row = min(y // block, low.shape[0] - 1)
        for block_column in range(low.shape[1]):
            lowest, highest = np.float32(low[block_row, block_column]), np.float32(high[block_row, block_column])
            last = (block_column + 1) * block if block_column < low.shape[1] - 1 else columns
            for x in range(block_column * block, last):
                value = total[y, x]
                if lowest <= value <= highest or bad[y, x]:
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
                upper, lower = float(ordered[(2 * count) // 3 - 1]), float(ordered[count - (2 * count) // 3])
                too_high = value > _limit(upper, _PIXEL_DEVIATIONS, sigma, electron)
                out[y, x] = too_high or value < _limit(lower, -_PIXEL_DEVIATIONS, sigma, electron)


@compiled
def _limit(level: float, deviations: float, sigma: float, electron: float) -> float:
    """`_limits` of one level."""
    if electron == 0.0 or level < 0:
        return float(level + deviations * sigma)
    root = np.sqrt(level) + deviations / 2 * np.sqrt(electron)
    return float(root * root) if root > 0 else -np.inf


def _bad_lines(
    total: Image, known: Mask, pixels: Mask, sigma: float, level: float, threads: int
) -> tuple[Mask | None, Mask | None]:
    """Stretches of columns and rows whose mean stands out of those beside them, and those more than half of whose
    pixels do one by one; None where there are none."""
    rows, columns = total.shape
    row_starts, column_starts = _starts(rows), _starts(columns)
    of_columns = np.zeros((row_starts.size, columns), dtype=np.float32)
    of_rows = np.zeros((rows, column_starts.size), dtype=np.float32)
    in_bands(lambda first, end: _add_stretches(total, of_columns, of_rows, first, end), row_starts.size, threads)
    bad = np.flatnonzero(known | pixels)
    y, x = np.divmod(bad, columns)
    stretch_y = np.minimum(y // _LINE_LENGTH_PIXEL, row_starts.size - 1)
    stretch_x = np.minimum(x // _LINE_LENGTH_PIXEL, column_starts.size - 1)
    values, found = total.reshape(-1)[bad], pixels.reshape(-1)[bad]
    row_lengths = np.diff(np.append(row_starts, rows))
    column_lengths = np.diff(np.append(column_starts, columns))
    stands_out, mostly_bad = [], []
    for sums, lengths, places in (
        (of_columns, row_lengths, (stretch_y, x)),
        (np.ascontiguousarray(of_rows.T), column_lengths, (stretch_x, y)),
    ):
        counts = np.repeat(lengths[:, np.newaxis], sums.shape[1], axis=1).astype(np.float32)
        single = np.zeros_like(counts)
        np.subtract.at(sums, places, values)
        np.subtract.at(counts, places, 1)
        np.add.at(single, places, found)
        stands_out.append(_stand_out(sums, counts, sigma, level, threads))
        # What is left of such a line says little of it.
        mostly_bad.append(single > np.maximum(counts, 1))
    return _mask(stands_out, row_lengths, column_lengths), _mask(mostly_bad, row_lengths, column_lengths)


def _mask(stretches: list[Mask], row_lengths: NDArray[np.intp], column_lengths: NDArray[np.intp]) -> Mask | None:
    """All pixels of stretches of columns, (stretches, columns), and of rows, (stretches, rows); None of none."""
    upright, lying = stretches
    if not upright.any() and not lying.any():
        return None
    mask = np.repeat(upright, row_lengths, axis=0)
    mask |= np.repeat(lying.T, column_lengths, axis=1)
    return mask


def _starts(length: int) -> NDArray[np.intp]:
    """Where the stretches of a line begin; what is left at its end and shorter than half of one goes to the last."""
    return np.arange(0, max(1, length - _LINE_LENGTH_PIXEL // 2), _LINE_LENGTH_PIXEL)


def _stand_out(sums: Image, counts: Image, sigma: float, level: float, threads: int) -> Mask:
    """Which stretches (stretches, lines) have a mean that is not that of the lines beside them."""
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.float32(level))
    beside = np.empty_like(means)
    in_bands(lambda first, end: _medians(means, beside, first, end), len(means), threads)
    # The median of seven has a variance of a fifth of one column's own.
    error = sigma * np.sqrt(1.2 / np.maximum(counts, 1))
    difference = np.abs(means - beside)
    # A detector whose pixels differ, or a missing gain, makes all columns differ by more than chance.
    error = np.maximum(error, np.median(difference) / _NORMAL_MEDIAN)
    bad = (difference > _LINE_DEVIATIONS * error) & (difference > _LINE_CONTRAST * np.abs(beside)) & (counts > 1)
    return np.asarray(bad)


@compiled
def _medians(means: Image, out: Image, first: int, end: int) -> None:
    """Median of the seven values around each along the rows, mirrored at the ends."""
    lines = means.shape[1]
    half = _LINE_NEIGHBOURS_PIXEL // 2
    near = np.empty(_LINE_NEIGHBOURS_PIXEL, dtype=np.float32)
    for stretch in range(first, end):
        for line in range(lines):
            for k in range(_LINE_NEIGHBOURS_PIXEL):
                place = abs(line + k - half) % max(1, 2 * lines - 2)
                value = means[stretch, min(place, max(0, 2 * lines - 2 - place))]
                slot = k
                while slot > 0 and near[slot - 1] > value:
                    near[slot] = near[slot - 1]
                    slot -= 1
                near[slot] = value
            out[stretch, line] = near[half]


@compiled_loosely
def _add_stretches(total: Image, of_columns: Image, of_rows: Image, first: int, end: int) -> None:
    rows, columns = total.shape
    for stretch in range(first, end):
        last = rows if stretch == of_columns.shape[0] - 1 else (stretch + 1) * _LINE_LENGTH_PIXEL
        for y in range(stretch * _LINE_LENGTH_PIXEL, last):
            for x in range(columns):
                of_columns[stretch, x] += total[y, x]
            for across in range(of_rows.shape[1]):
                right = columns if across == of_rows.shape[1] - 1 else (across + 1) * _LINE_LENGTH_PIXEL
                value = np.float32(0)
                for x in range(across * _LINE_LENGTH_PIXEL, right):
                    value += total[y, x]
                of_rows[y, across] = value
