"""The one pass over a movie's pixels: every frame corrected, shifted by its own local motion, and added into sums.

The picture is cut into tiles of 32 rows × 128 columns, whose sums stay in the processor's cache while frame after frame
is added. Within a tile the shift of a frame is one number an axis; a specimen's motion changes by a few hundredths of a
pixel over a tile. A frame is sampled between its pixels with the four weights a row and a column of the cubic B-spline.

The B-spline's prefilter is left out here: it is a convolution, so it commutes with a shift that is constant around a
pixel, and is applied once, to the sums, in Fourier space (`interpolation_response`).

At its border the picture is mirrored for the whole pixels of a shift; for the fraction that is left, and so for the
prefilter, it is periodic.

M. Unser, A. Aldroubi, M. Eden, IEEE Trans. Signal Process. 1993, 41, 821, https://doi.org/10.1109/78.193220.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from coldchain.compiled import compiled_loosely, in_bands
from coldchain.kernels.prepare import Correction
from coldchain.kernels.survey import NO_DARK, donor_of

Image: TypeAlias = NDArray[np.float32]
Stack: TypeAlias = NDArray[np.float32]
Shifts: TypeAlias = NDArray[np.float32]

# Long rows, for the vector units and the memory; few of them, so that a tile's sums fit into the second-level cache.
TILE_ROWS, TILE_COLUMNS = 32, 128
# Frames whose shifted tiles are added at once: a sum is read and written once for all of them.
_AT_ONCE = 4
_FRACTIONS = 64


def tile_centres(length: int, tile: int) -> NDArray[np.float64]:
    """Centres in pixels of tiles of `tile` pixels along an axis of `length`; the last may be narrower."""
    starts = np.arange(0, length, tile)
    return np.asarray((starts + np.minimum(starts + tile, length) - 1) / 2, dtype=np.float64)


def accumulate(
    frames: NDArray[np.generic],
    correction: Correction,
    shift_y: Shifts,
    shift_x: Shifts,
    weights: NDArray[np.float32],
    threads: int = 1,
) -> Stack:
    """Weighted sums of frames, each moved back by its displacement: sum_t(X) = Σ_f weights[t, f] · frame_f(X + s_f).

    Parameters
    ----------
    frames : (frames, rows, columns), any real type.
    correction : how each becomes a picture.
    shift_y, shift_x : (tile rows, tile columns, frames) float32 in pixels, at the centres of the tiles.
    weights : (sums, frames) float32. A frame whose weights are all 0 is not looked at.
    threads : at most this many.

    Returns
    -------
    (sums, rows, columns) float32, without the B-spline's prefilter.
    """
    sums = np.empty((len(weights), *frames.shape[1:]), dtype=np.float32)
    used = np.flatnonzero(weights.any(axis=0))
    # Frames are added by fours; those that are missing to the last four count for nothing.
    their_weights = np.zeros((len(weights), used.size + _AT_ONCE), dtype=np.float32)
    their_weights[:, : used.size] = weights[:, used]
    blocks = _blocks_of(correction.defect_index, sums.shape[1], sums.shape[2])
    dark = NO_DARK if correction.dark is None else correction.dark
    in_bands(
        lambda first, end: _add_tiles(
            frames,
            correction.gain,
            dark,
            correction.defect_index,
            blocks,
            correction.donor_index,
            correction.seed,
            shift_y,
            shift_x,
            used,
            their_weights,
            sums,
            first,
            end,
        ),
        shift_y.shape[0],
        threads,
    )
    return sums


def interpolation_response(
    frequency_per_pixel: NDArray[np.float64], shifts: NDArray[np.floating], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What sampling between pixels leaves of a wave: root mean square over the fractions of a pixel that occurred.

    At a fraction t the four weights pass a wave of frequency k with the factor Σ_m β(m − t) exp(2πik(m − t)). Up to two
    thirds of the Nyquist frequency it hardly depends on t. Beyond, dividing by the root mean square keeps the noise
    as white as the frames' own.

    Parameters
    ----------
    frequency_per_pixel : any shape, cycles per pixel along the axis.
    shifts : (…, frames) of the axis, in pixels.
    weights : (frames,) how much each frame counts.
    """
    fraction = np.round((shifts - np.floor(shifts)) * _FRACTIONS).astype(np.intp)
    counts = np.zeros(_FRACTIONS + 1)
    for frame, weight in enumerate(weights):
        counts += weight * np.bincount(fraction[..., frame].ravel(), minlength=_FRACTIONS + 1)
    power = np.zeros(np.shape(frequency_per_pixel))
    for place in np.flatnonzero(counts):
        weights_of_four = np.array(_spline_weights(place / _FRACTIONS), dtype=np.float64)
        waves = np.exp(2j * np.pi * np.multiply.outer(np.arange(4), frequency_per_pixel))
        power += counts[place] * np.abs(np.tensordot(weights_of_four, waves, axes=1)) ** 2
    return np.asarray(np.sqrt(power / counts.sum()))


def _blocks_of(defect_index: NDArray[np.int64], rows: int, columns: int) -> NDArray[np.int64]:
    """Where, in the list of all, the defects begin of each block of a tile's width in each row: (rows, blocks + 1).

    Nearly all lines that are read have none, and this tells so in no time.
    """
    ends = np.append(np.arange(0, columns, TILE_COLUMNS), columns)
    places = np.arange(rows)[:, np.newaxis] * columns + ends
    return np.asarray(np.searchsorted(defect_index, places), dtype=np.int64)


@compiled_loosely
def _spline_weights(t: float) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Weights of the pixels at −1, 0, 1, 2 for a place t ∈ [0, 1) behind pixel 0."""
    u = 1 - t
    return (
        np.float32(u * u * u / 6),
        np.float32(2 / 3 - t * t * (2 - t) / 2),
        np.float32(2 / 3 - u * u * (2 - u) / 2),
        np.float32(t * t * t / 6),
    )


@compiled_loosely
def _mirrored(place: int, length: int) -> int:
    place = place % (2 * length)
    return min(place, 2 * length - 1 - place)


@compiled_loosely
def _add_tiles(
    frames: NDArray[np.generic],
    gain: Image,
    dark: Image,
    defects: NDArray[np.int64],
    blocks: NDArray[np.int64],
    donors: NDArray[np.int64],
    seed: int,
    shift_y: Shifts,
    shift_x: Shifts,
    used: NDArray[np.int64],
    weights: NDArray[np.float32],
    sums: Stack,
    first: int,
    end: int,
) -> None:
    terms, rows, columns = sums.shape
    line = np.empty(TILE_COLUMNS + 3, dtype=np.float32)
    smooth = np.empty((TILE_ROWS + 3, TILE_COLUMNS), dtype=np.float32)
    moved = np.zeros((_AT_ONCE, TILE_ROWS, TILE_COLUMNS), dtype=np.float32)
    tile = np.empty((terms, TILE_ROWS, TILE_COLUMNS), dtype=np.float32)
    for tile_row in range(first, end):
        top = tile_row * TILE_ROWS
        height = min(TILE_ROWS, rows - top)
        for tile_column in range(shift_y.shape[1]):
            left = tile_column * TILE_COLUMNS
            width = min(TILE_COLUMNS, columns - left)
            tile[:] = 0
            for place in range(used.size):
                number = used[place]
                sy, sx = shift_y[tile_row, tile_column, number], shift_x[tile_row, tile_column, number]
                whole_y, whole_x = int(np.floor(sy)), int(np.floor(sx))
                begin, stop = left + whole_x - 1, left + whole_x + width + 2
                inside = left > 0 and left + width + 2 <= columns and begin >= 0 and stop <= columns
                a, b, c, d = _spline_weights(sx - whole_x)
                for row in range(height + 3):
                    y = _mirrored((top + row - 1) % rows + whole_y, rows)
                    if inside:
                        raw, of_gain = frames[number, y, begin:stop], gain[y, begin:stop]
                        for x in range(width + 3):
                            line[x] = np.float32(raw[x]) * of_gain[x]
                        if dark.size:
                            of_dark = dark[y, begin:stop]
                            for x in range(width + 3):
                                line[x] -= of_dark[x] * of_gain[x]
                        bad, good = blocks[y, begin // TILE_COLUMNS], blocks[y, (stop - 1) // TILE_COLUMNS + 1]
                        if bad < good:
                            _fill_line(
                                frames, gain, dark, defects, donors, seed, number, bad, good, y, begin, stop, line
                            )
                    else:
                        _read_border(
                            frames,
                            gain,
                            dark,
                            defects,
                            blocks,
                            donors,
                            seed,
                            number,
                            y,
                            left - 1,
                            width + 3,
                            whole_x,
                            line,
                        )
                    out = smooth[row]
                    for x in range(width):
                        out[x] = (a * line[x] + b * line[x + 1]) + (c * line[x + 2] + d * line[x + 3])
                a, b, c, d = _spline_weights(sy - whole_y)
                held = place % _AT_ONCE
                for row in range(height):
                    above, here, below, far = smooth[row], smooth[row + 1], smooth[row + 2], smooth[row + 3]
                    out = moved[held, row]
                    for x in range(width):
                        out[x] = (a * above[x] + b * here[x]) + (c * below[x] + d * far[x])
                if held == _AT_ONCE - 1 or place == used.size - 1:
                    _add_moved(moved, weights, place - held, height, width, tile)
            for term in range(terms):
                sums[term, top : top + height, left : left + width] = tile[term, :height, :width]


@compiled_loosely
def _fill_line(
    frames: NDArray[np.generic],
    gain: Image,
    dark: Image,
    defects: NDArray[np.int64],
    donors: NDArray[np.int64],
    seed: int,
    number: int,
    first: int,
    end: int,
    y: int,
    begin: int,
    stop: int,
    line: Image,
) -> None:
    """Put into a line, columns begin … stop of row y, what fills those of the defects first … end that lie in it."""
    start = y * gain.shape[1] + begin
    for found in range(first, end):
        place = defects[found] - start
        if 0 <= place < stop - begin:
            donor = donors[found, donor_of(defects[found], number, seed, donors.shape[1])]
            line[place] = _pixel(frames, gain, dark, number, donor)


@compiled_loosely
def _read_border(
    frames: NDArray[np.generic],
    gain: Image,
    dark: Image,
    defects: NDArray[np.int64],
    blocks: NDArray[np.int64],
    donors: NDArray[np.int64],
    seed: int,
    number: int,
    y: int,
    begin: int,
    width: int,
    whole_x: int,
    line: Image,
) -> None:
    """Corrected pixels of row y for the places begin … begin + width of the sum, some of which lie beyond its ends."""
    columns = gain.shape[1]
    first = blocks[y, 0]
    of_row = defects[first : blocks[y, -1]]
    for x in range(width):
        place = y * columns + _mirrored((begin + x) % columns + whole_x, columns)
        found = np.searchsorted(of_row, place)
        if found < of_row.size and of_row[found] == place:
            place = donors[first + found, donor_of(place, number, seed, donors.shape[1])]
        line[x] = _pixel(frames, gain, dark, number, place)


@compiled_loosely
def _pixel(frames: NDArray[np.generic], gain: Image, dark: Image, number: int, place: int) -> np.float32:
    y, x = place // gain.shape[1], place % gain.shape[1]
    value = np.float32(frames[number, y, x])
    if dark.size:
        value -= dark[y, x]
    return np.float32(value * gain[y, x])


@compiled_loosely
def _add_moved(moved: Stack, weights: NDArray[np.float32], first: int, height: int, width: int, tile: Stack) -> None:
    """Add the shifted tiles of up to four frames, `first` and those after it, to each of the sums."""
    for term in range(tile.shape[0]):
        a, b, c, d = weights[term, first], weights[term, first + 1], weights[term, first + 2], weights[term, first + 3]
        for row in range(height):
            one, two, three, four, out = moved[0, row], moved[1, row], moved[2, row], moved[3, row], tile[term, row]
            for x in range(width):
                out[x] += (a * one[x] + b * two[x]) + (c * three[x] + d * four[x])
