"""The one pass over a movie's pixels: every frame corrected, shifted by its own local motion, and added into sums.

The picture is cut into tiles of 32 rows × 128 columns, and eight tiles side by side are a strip, whose sums stay in
the processor's cache while frame after frame is added. Within a tile the shift of a frame is one number an axis; a
specimen's motion changes by a few hundredths of a pixel over a tile. A frame is sampled between its pixels with the
four weights a row and a column of the cubic B-spline.

The B-spline's prefilter is left out here: it is a convolution, so it commutes with a shift that is constant around a
pixel, and is applied once, to the sums, in Fourier space (`interpolation_response`).

At its border the picture is mirrored for the whole pixels of a shift; for the fraction that is left, and so for the
prefilter, it is periodic.

M. Unser, A. Aldroubi, M. Eden, IEEE Trans. Signal Process. 1993, 41, 821, https://doi.org/10.1109/78.193220.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from coldchain.compiled import compiled_loosely, in_bands
from coldchain.errors import ProcessingError
from coldchain.kernels.prepare import Correction
from coldchain.kernels.survey import NO_DARK, donor_of

Image: TypeAlias = NDArray[np.float32]
Stack: TypeAlias = NDArray[np.float32]
Shifts: TypeAlias = NDArray[np.float32]

# Long rows, for the vector units and the memory; few of them, so that a strip's sums fit into the second-level cache.
TILE_ROWS, TILE_COLUMNS = 32, 128
_TILES_IN_STRIP = 8
_STRIP = _TILES_IN_STRIP * TILE_COLUMNS
_STRIP_PIXELS = TILE_ROWS * _STRIP
# Frames whose shifted tiles are added at once: a sum is read and written once for all of them.
_AT_ONCE = 4
# Pixels by which the shifts of a strip's tiles may differ and still be read from one window.
_WINDOW_MARGIN = 8
_WINDOW_ROWS, _WINDOW_COLUMNS = TILE_ROWS + 3 + _WINDOW_MARGIN, _STRIP + 3 + _WINDOW_MARGIN
_FRACTIONS = 256
_FARTHEST_PIXEL = 1_000_000


class _Raw(NamedTuple):
    """A movie and its correction, flat, as compiled code reads them."""

    rows: int
    columns: int
    pixels: NDArray[np.generic]
    gain: Image
    dark: Image
    defects: NDArray[np.int64]
    blocks: NDArray[np.int64]
    donors: NDArray[np.int64]
    seed: int


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
    threads : at most this many. A `ProcessingError` is raised where a displacement is no number or absurd.

    Returns
    -------
    (sums, rows, columns) float32, without the B-spline's prefilter.
    """
    farthest = float(max(np.abs(shift_y).max(), np.abs(shift_x).max()))
    if not farthest <= _FARTHEST_PIXEL:
        # Compiled code would make an index of it.
        raise ProcessingError(f"a frame is displaced by {farthest} pixels", expected=f"at most {_FARTHEST_PIXEL}")
    sums = np.empty((len(weights), *frames.shape[1:]), dtype=np.float32)
    used = np.flatnonzero(weights.any(axis=0))
    # Frames are added by fours; those that are missing to the last four count for nothing.
    their_weights = np.zeros((len(weights), used.size + _AT_ONCE), dtype=np.float32)
    their_weights[:, : used.size] = weights[:, used]
    raw = _Raw(
        sums.shape[1],
        sums.shape[2],
        frames.reshape(-1),
        correction.gain.reshape(-1),
        (NO_DARK if correction.dark is None else correction.dark).reshape(-1),
        correction.defect_index,
        _blocks_of(correction.defect_index, sums.shape[1], sums.shape[2]),
        correction.donor_index,
        correction.seed,
    )
    in_bands(
        lambda first, end: _add_tiles(raw, shift_y, shift_x, used, their_weights, sums, first, end),
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
def _add_tiles(
    raw: _Raw,
    shift_y: Shifts,
    shift_x: Shifts,
    used: NDArray[np.int64],
    weights: NDArray[np.float32],
    sums: Stack,
    first: int,
    end: int,
) -> None:
    """Rows of tiles first … end, strip by strip. Small arrays are flat, and no views are made in the inner loops: each
    would cost more than a row of pixels does."""
    tiles = shift_y.shape[1]
    window = np.empty(_WINDOW_ROWS * _WINDOW_COLUMNS, dtype=np.float32)
    smooth = np.empty((TILE_ROWS + 3) * TILE_COLUMNS, dtype=np.float32)
    moved = np.zeros(_AT_ONCE * _STRIP_PIXELS, dtype=np.float32)
    strip = np.empty(len(weights) * _STRIP_PIXELS, dtype=np.float32)
    for tile_row in range(first, end):
        top = tile_row * TILE_ROWS
        height = min(TILE_ROWS, raw.rows - top)
        for first_tile in range(0, tiles, _TILES_IN_STRIP):
            last_tile = min(first_tile + _TILES_IN_STRIP, tiles)
            start = first_tile * TILE_COLUMNS
            length = min(last_tile * TILE_COLUMNS, raw.columns) - start
            strip[:] = 0
            for place in range(used.size):
                held = place % _AT_ONCE
                _move_strip(
                    raw,
                    used[place],
                    shift_y[tile_row, first_tile:last_tile, used[place]],
                    shift_x[tile_row, first_tile:last_tile, used[place]],
                    top,
                    start,
                    window,
                    smooth,
                    moved,
                    held * _STRIP_PIXELS,
                )
                if held == _AT_ONCE - 1 or place == used.size - 1:
                    _add_moved(moved, weights, place - held, height, length, strip)
            for term in range(len(weights)):
                for row in range(height):
                    of_row = term * _STRIP_PIXELS + row * _STRIP
                    sums[term, top + row, start : start + length] = strip[of_row : of_row + length]


@compiled_loosely
def _move_strip(
    raw: _Raw,
    number: int,
    shift_y: Shifts,
    shift_x: Shifts,
    top: int,
    start: int,
    window: Image,
    smooth: Image,
    moved: Image,
    to: int,
) -> None:
    """One frame's strip, each tile at its own shift. Tiles that lie well inside, nearly all, share a window of
    corrected pixels; at the border each has its own."""
    height = min(TILE_ROWS, raw.rows - top)
    low_y, high_y, low_x, high_x = raw.rows, -1, raw.columns, -1
    for tile in range(shift_y.size):
        left = start + tile * TILE_COLUMNS
        if _is_inside(raw, shift_y[tile], shift_x[tile], top, left):
            y, x = top + int(np.floor(shift_y[tile])) - 1, left + int(np.floor(shift_x[tile])) - 1
            low_y, high_y = min(low_y, y), max(high_y, y + height + 3)
            low_x, high_x = min(low_x, x), max(high_x, x + min(TILE_COLUMNS, raw.columns - left) + 3)
    shared = high_y - low_y <= _WINDOW_ROWS and high_x - low_x <= _WINDOW_COLUMNS
    if shared and high_y > low_y:
        _load(raw, number, low_y, high_y - low_y, low_x, high_x - low_x, window)
    for own in range(2):
        # Those that share the window first, for the others overwrite it.
        for tile in range(shift_y.size):
            left = start + tile * TILE_COLUMNS
            width = min(TILE_COLUMNS, raw.columns - left)
            whole_y, whole_x = int(np.floor(shift_y[tile])), int(np.floor(shift_x[tile]))
            inside = shared and _is_inside(raw, shift_y[tile], shift_x[tile], top, left)
            if inside == (own == 1):
                continue
            row, column = top + whole_y - 1 - low_y, left + whole_x - 1 - low_x
            if not inside:
                row, column = 0, 0
                _load_border(raw, number, top, whole_y, height + 3, left, whole_x, width + 3, window)
            _sample(
                window,
                row * _WINDOW_COLUMNS + column,
                shift_y[tile] - whole_y,
                shift_x[tile] - whole_x,
                height,
                width,
                smooth,
                moved,
                to + left - start,
            )


@compiled_loosely
def _is_inside(raw: _Raw, shift_y: float, shift_x: float, top: int, left: int) -> bool:
    """Whether all that a tile needs of a frame lies in it, at the same distance from each other as in the sum."""
    bottom, right = min(top + TILE_ROWS, raw.rows), min(left + TILE_COLUMNS, raw.columns)
    y, x = int(np.floor(shift_y)), int(np.floor(shift_x))
    return bool(
        top + min(y, 0) >= 1
        and left + min(x, 0) >= 1
        and bottom + max(y, 0) + 2 <= raw.rows
        and right + max(x, 0) + 2 <= raw.columns
    )


@compiled_loosely
def _load(raw: _Raw, number: int, top: int, height: int, left: int, width: int, window: Image) -> None:
    """Corrected pixels of a rectangle of a frame."""
    pixels, gain, dark = raw.pixels, raw.gain, raw.dark
    # Indices without a sign, or the compiler must expect those that count from the end, and reads pixel by pixel.
    for row in range(height):
        y = top + row
        place = y * raw.columns + left
        of_pixels, of_gain = np.uint64(number * raw.rows * raw.columns + place), np.uint64(place)
        out = np.uint64(row * _WINDOW_COLUMNS)
        if dark.size:
            for x in range(width):
                value = np.float32(pixels[of_pixels + np.uint64(x)]) - dark[of_gain + np.uint64(x)]
                window[out + np.uint64(x)] = value * gain[of_gain + np.uint64(x)]
        else:
            for x in range(width):
                window[out + np.uint64(x)] = np.float32(pixels[of_pixels + np.uint64(x)]) * gain[of_gain + np.uint64(x)]
        first = raw.blocks[y, left // TILE_COLUMNS]
        for found in range(first, raw.blocks[y, (left + width - 1) // TILE_COLUMNS + 1]):
            x = raw.defects[found] - place
            if 0 <= x < width:
                window[row * _WINDOW_COLUMNS + x] = _filled(raw, number, found)


@compiled_loosely
def _load_border(
    raw: _Raw, number: int, top: int, whole_y: int, height: int, left: int, whole_x: int, width: int, window: Image
) -> None:
    """Corrected pixels of what a tile at the border needs: periodic beyond the sum's ends, mirrored beyond the
    frame's."""
    frame = number * raw.rows * raw.columns
    columns = np.empty(width, dtype=np.int64)
    for x in range(width):
        columns[x] = _source_of(left + x - 1, whole_x, raw.columns)
    for row in range(height):
        y = _source_of(top + row - 1, whole_y, raw.rows)
        out = row * _WINDOW_COLUMNS
        for x in range(width):
            place = y * raw.columns + columns[x]
            value = np.float32(raw.pixels[np.uint64(frame + place)])
            if raw.dark.size:
                value -= raw.dark[np.uint64(place)]
            window[np.uint64(out + x)] = value * raw.gain[np.uint64(place)]
        for x in range(width):
            block = columns[x] // TILE_COLUMNS
            for found in range(raw.blocks[y, block], raw.blocks[y, block + 1]):
                if raw.defects[found] == y * raw.columns + columns[x]:
                    window[out + x] = _filled(raw, number, found)


@compiled_loosely
def _filled(raw: _Raw, number: int, found: int) -> np.float32:
    """What fills a defect in a frame."""
    place = raw.donors[found, donor_of(raw.defects[found], number, raw.seed, raw.donors.shape[1])]
    value = np.float32(raw.pixels[number * raw.rows * raw.columns + place])
    if raw.dark.size:
        value -= raw.dark[place]
    return np.float32(value * raw.gain[place])


@compiled_loosely
def _source_of(place: int, whole: int, length: int) -> int:
    """Where along an axis a sum's place is read: periodic at first, mirrored after the shift by whole pixels."""
    moved = place + whole
    if 0 <= place < length and 0 <= moved < length:
        return moved
    moved = (place % length + whole) % (2 * length)
    return min(moved, 2 * length - 1 - moved)


@compiled_loosely
def _sample(
    window: Image,
    at: int,
    fraction_y: float,
    fraction_x: float,
    height: int,
    width: int,
    smooth: Image,
    moved: Image,
    to: int,
) -> None:
    """A tile between the pixels of the window, which begins at `at`."""
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    a, b, c, d = _spline_weights(fraction_x)
    for row in range(height + 3):
        source, out = np.uint64(at + row * _WINDOW_COLUMNS), np.uint64(row * TILE_COLUMNS)
        for place in range(width):
            x = source + np.uint64(place)
            smooth[out + np.uint64(place)] = (a * window[x] + b * window[x + one]) + (
                c * window[x + two] + d * window[x + three]
            )
    one, two, three = np.uint64(TILE_COLUMNS), np.uint64(2 * TILE_COLUMNS), np.uint64(3 * TILE_COLUMNS)
    a, b, c, d = _spline_weights(fraction_y)
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
