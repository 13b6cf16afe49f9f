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
TILE_ROWS, TILE_COLUMNS = 16, 128
# Tiles whose frames are added side by side, for memory is read fastest in long rows.
_TILES_IN_STRIP = 8
_STRIP = _TILES_IN_STRIP * TILE_COLUMNS
_STRIP_PIXELS = TILE_ROWS * _STRIP
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
    # |Σ β_m exp(2πikm)|² depends on the differences of places alone: four cosines serve all fractions.
    waves = [np.cos(2 * np.pi * step * frequency_per_pixel) for step in range(4)]
    mean_products = np.zeros(4)
    for place in np.flatnonzero(counts):
        four = np.array(_spline_weights(place / _FRACTIONS), dtype=np.float64)
        products = np.correlate(four, four, "full")[3:]
        mean_products += counts[place] / counts.sum() * products * (1, 2, 2, 2)
    power = sum(product * wave for product, wave in zip(mean_products, waves, strict=True))
    return np.asarray(np.sqrt(power))


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
def _source_of(place: int, whole: int, length: int) -> int:
    """Where along an axis a sum's place is read: periodic at first, mirrored after the shift by whole pixels."""
    moved = place + whole
    if 0 <= place < length and 0 <= moved < length:
        return moved
    moved = (place % length + whole) % (2 * length)
    return min(moved, 2 * length - 1 - moved)


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
    """Rows of tiles first … end. Small arrays are flat, and views are not made inside the loops: each would cost more
    than a row of pixels does."""
    terms, rows, columns = sums.shape
    tiles = shift_y.shape[1]
    pixels, of_gain, of_dark = frames.reshape(-1), gain.reshape(-1), dark.reshape(-1)
    line = np.empty(TILE_COLUMNS + 3, dtype=np.float32)
    source = np.empty(TILE_COLUMNS + 3, dtype=np.int64)
    smooth = np.empty((TILE_ROWS + 3) * TILE_COLUMNS, dtype=np.float32)
    moved = np.zeros(_AT_ONCE * _STRIP_PIXELS, dtype=np.float32)
    strip = np.empty(terms * _STRIP_PIXELS, dtype=np.float32)
    for tile_row in range(first, end):
        top = tile_row * TILE_ROWS
        height = min(TILE_ROWS, rows - top)
        for first_tile in range(0, tiles, _TILES_IN_STRIP):
            last_tile = min(first_tile + _TILES_IN_STRIP, tiles)
            start = first_tile * TILE_COLUMNS
            length = min(last_tile * TILE_COLUMNS, columns) - start
            strip[:] = 0
            for place in range(used.size):
                number = used[place]
                held = place % _AT_ONCE
                for tile in range(first_tile, last_tile):
                    left = tile * TILE_COLUMNS
                    width = min(TILE_COLUMNS, columns - left)
                    sy, sx = shift_y[tile_row, tile, number], shift_x[tile_row, tile, number]
                    whole_y, whole_x = int(np.floor(sy)), int(np.floor(sx))
                    begin, stop = left + whole_x - 1, left + whole_x + width + 2
                    inside = left > 0 and left + width + 2 <= columns and begin >= 0 and stop <= columns
                    if not inside:
                        for x in range(width + 3):
                            source[x] = _source_of(left - 1 + x, whole_x, columns)
                    for row in range(height + 3):
                        y = _source_of(top + row - 1, whole_y, rows)
                        if inside:
                            _correct(
                                pixels, of_gain, of_dark, number * rows * columns, y * columns + begin, width + 3, line
                            )
                            bad, good = blocks[y, begin // TILE_COLUMNS], blocks[y, (stop - 1) // TILE_COLUMNS + 1]
                            if bad < good:
                                _fill_line(
                                    frames, gain, dark, defects, donors, seed, number, bad, good, y, begin, stop, line
                                )
                        else:
                            _correct_at(
                                pixels, of_gain, of_dark, number * rows * columns, y * columns, source, width + 3, line
                            )
                            if blocks[y, 0] < blocks[y, -1]:
                                _fill_line_at(
                                    frames,
                                    gain,
                                    dark,
                                    defects,
                                    blocks,
                                    donors,
                                    seed,
                                    number,
                                    y,
                                    source,
                                    width + 3,
                                    line,
                                )
                        _sample_row(line, sx - whole_x, width, smooth, row * TILE_COLUMNS)
                    _sample_column(smooth, sy - whole_y, height, width, moved, held * _STRIP_PIXELS + left - start)
                if held == _AT_ONCE - 1 or place == used.size - 1:
                    _add_moved(moved, weights, place - held, height, length, strip)
            for term in range(terms):
                for row in range(height):
                    sums[term, top + row, start : start + length] = strip[
                        term * _STRIP_PIXELS + row * _STRIP : term * _STRIP_PIXELS + row * _STRIP + length
                    ]


@compiled_loosely
def _correct(
    pixels: NDArray[np.generic], gain: Image, dark: Image, frame: int, place: int, width: int, line: Image
) -> None:
    """Dark and gain of the pixels from `place` on, of the frame that begins at `frame`."""
    # Indices without a sign, or the compiler must expect those that count from the end, and reads pixel by pixel.
    of_raw, of_gain = np.uint64(frame + place), np.uint64(place)
    if dark.size:
        for x in range(width):
            value = np.float32(pixels[of_raw + np.uint64(x)]) - dark[of_gain + np.uint64(x)]
            line[np.uint64(x)] = value * gain[of_gain + np.uint64(x)]
    else:
        for x in range(width):
            line[np.uint64(x)] = np.float32(pixels[of_raw + np.uint64(x)]) * gain[of_gain + np.uint64(x)]


@compiled_loosely
def _correct_at(
    pixels: NDArray[np.generic],
    gain: Image,
    dark: Image,
    frame: int,
    start: int,
    source: NDArray[np.int64],
    width: int,
    line: Image,
) -> None:
    """The same for the pixels at `source` of the row that begins at `start`."""
    for x in range(width):
        place = start + source[x]
        value = np.float32(pixels[np.uint64(frame + place)])
        if dark.size:
            value -= dark[np.uint64(place)]
        line[np.uint64(x)] = value * gain[np.uint64(place)]


@compiled_loosely
def _sample_row(line: Image, fraction: float, width: int, smooth: Image, to: int) -> None:
    a, b, c, d = _spline_weights(fraction)
    out, one, two, three = np.uint64(to), np.uint64(1), np.uint64(2), np.uint64(3)
    for place in range(width):
        x = np.uint64(place)
        smooth[out + x] = (a * line[x] + b * line[x + one]) + (c * line[x + two] + d * line[x + three])


@compiled_loosely
def _sample_column(smooth: Image, fraction: float, height: int, width: int, moved: Image, to: int) -> None:
    a, b, c, d = _spline_weights(fraction)
    one, two, three = np.uint64(TILE_COLUMNS), np.uint64(2 * TILE_COLUMNS), np.uint64(3 * TILE_COLUMNS)
    for row in range(height):
        source, out = np.uint64(row * TILE_COLUMNS), np.uint64(to + row * _STRIP)
        for place in range(width):
            x = source + np.uint64(place)
            moved[out + np.uint64(place)] = (a * smooth[x] + b * smooth[x + one]) + (
                c * smooth[x + two] + d * smooth[x + three]
            )


@compiled_loosely
def _add_moved(moved: Image, weights: NDArray[np.float32], first: int, height: int, length: int, strip: Image) -> None:
    """Add the shifted strips of up to four frames, `first` and those after it, to each of the sums."""
    one, two, three = np.uint64(_STRIP_PIXELS), np.uint64(2 * _STRIP_PIXELS), np.uint64(3 * _STRIP_PIXELS)
    for row in range(height):
        source = np.uint64(row * _STRIP)
        for term in range(weights.shape[0]):
            a, b, c, d = (
                weights[term, first],
                weights[term, first + 1],
                weights[term, first + 2],
                weights[term, first + 3],
            )
            out = np.uint64(term * _STRIP_PIXELS + row * _STRIP)
            for place in range(length):
                x = source + np.uint64(place)
                strip[out + np.uint64(place)] += (a * moved[x] + b * moved[x + one]) + (
                    c * moved[x + two] + d * moved[x + three]
                )


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
def _fill_line_at(
    frames: NDArray[np.generic],
    gain: Image,
    dark: Image,
    defects: NDArray[np.int64],
    blocks: NDArray[np.int64],
    donors: NDArray[np.int64],
    seed: int,
    number: int,
    y: int,
    source: NDArray[np.int64],
    width: int,
    line: Image,
) -> None:
    """The same for a line that was read from the columns `source`, in any order."""
    start = y * gain.shape[1]
    for x in range(width):
        block = source[x] // TILE_COLUMNS
        for found in range(blocks[y, block], blocks[y, block + 1]):
            if defects[found] == start + source[x]:
                donor = donors[found, donor_of(defects[found], number, seed, donors.shape[1])]
                line[x] = _pixel(frames, gain, dark, number, donor)


@compiled_loosely
def _pixel(frames: NDArray[np.generic], gain: Image, dark: Image, number: int, place: int) -> np.float32:
    y, x = place // gain.shape[1], place % gain.shape[1]
    value = np.float32(frames[number, y, x])
    if dark.size:
        value -= dark[y, x]
    return np.float32(value * gain[y, x])
