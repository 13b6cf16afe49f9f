"""One look at every pixel of a movie: the raw sum, and the corrected frames binned to small images.

Both come from one pass, for the pass is bound by memory. It goes over a few rows of all frames at a time, so that the
gain, the dark reference and the sum stay in the cache, and whatever the number of frames the stack is read once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from coldchain.compiled import compiled_loosely, in_bands

Image: TypeAlias = NDArray[np.float32]
Stack: TypeAlias = NDArray[np.float32]

NO_DARK: Image = np.zeros((0, 0), dtype=np.float32)  # what compiled code is given where there is none


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """What one look shows.

    total : (rows, columns) float32, the sum of the raw frames, uncorrected.
    binned : (frames, rows // factor, columns // factor) float32: sums of factor × factor corrected pixels,
        (raw − dark) × gain. Where the gain is 0 a pixel adds nothing; `fill` puts that right. Rows and columns that
        fill no bin are left out.
    factor : of the binning.
    """

    total: Image
    binned: Stack
    factor: int

    def fill(
        self,
        frames: NDArray[np.generic],
        gain: Image,
        dark: Image | None,
        defect_index: NDArray[np.int64],
        donor_index: NDArray[np.int64],
        seed: int,
        threads: int = 1,
    ) -> None:
        """Replace, in the binned images, what each defect added by what it is to be filled with (`donor_of`)."""
        in_bands(
            lambda first, end: _fill_binned(
                frames, gain, _or_none(dark), defect_index, donor_index, seed, self.factor, self.binned, first, end
            ),
            len(frames),
            threads,
        )


def survey(frames: NDArray[np.generic], gain: Image, dark: Image | None, factor: int, threads: int = 1) -> Survey:
    """Look at all frames once.

    Parameters
    ----------
    frames : (frames, rows, columns), any real type, finite.
    gain : (rows, columns) float32, multiplicative, 0 at what is known to be defective.
    dark : (rows, columns) float32 to be subtracted first, or None.
    factor : pixels to a bin along each axis, at least 1.
    threads : at most this many.
    """
    count, rows, columns = frames.shape
    total = np.zeros((rows, columns), dtype=np.float32)
    binned = np.empty((count, rows // factor, columns // factor), dtype=np.float32)
    bands = rows // factor
    in_bands(
        lambda first, end: _look(frames, gain, _or_none(dark), factor, total, binned, first, end), bands + 1, threads
    )
    return Survey(total, binned, factor)


def _or_none(dark: Image | None) -> Image:
    return NO_DARK if dark is None else dark


@compiled_loosely
def donor_of(defect: int, number: int, seed: int, donors: int) -> int:
    """Which of its donors fills a defect in a frame: as good as chance, and the same whoever asks."""
    mixed = np.uint64(defect) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(number) * np.uint64(0xD1B54A32D192ED03)
    mixed += np.uint64(seed) * np.uint64(0x8CB92BA72F3D8DD7)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    return int(mixed % np.uint64(donors))


@compiled_loosely
def _look(
    frames: NDArray[np.generic],
    gain: Image,
    dark: Image,
    factor: int,
    total: Image,
    binned: Stack,
    first: int,
    end: int,
) -> None:
    """Bands first … end of bins; the band after the last holds the rows that fill no bin."""
    count, rows, columns = frames.shape
    line = np.empty(columns, dtype=np.float32)
    for band in range(first, end):
        last = min((band + 1) * factor, rows)
        for number in range(count):
            line[:] = 0
            for y in range(band * factor, last):
                raw, of_total, of_gain = frames[number, y], total[y], gain[y]
                if dark.size:
                    of_dark = dark[y]
                    for x in range(columns):
                        of_total[x] += np.float32(raw[x])
                        line[x] += (np.float32(raw[x]) - of_dark[x]) * of_gain[x]
                else:
                    for x in range(columns):
                        value = np.float32(raw[x])
                        of_total[x] += value
                        line[x] += value * of_gain[x]
            if band < binned.shape[1]:
                _gather(line, factor, binned[number, band])


@compiled_loosely
def _gather(line: Image, factor: int, out: Image) -> None:
    if factor == 2:
        for x in range(out.size):
            out[x] = line[2 * x] + line[2 * x + 1]
    elif factor == 3:
        for x in range(out.size):
            out[x] = line[3 * x] + line[3 * x + 1] + line[3 * x + 2]
    else:
        for x in range(out.size):
            value = np.float32(0)
            for place in range(x * factor, (x + 1) * factor):
                value += line[place]
            out[x] = value


@compiled_loosely
def _fill_binned(
    frames: NDArray[np.generic],
    gain: Image,
    dark: Image,
    defect_index: NDArray[np.int64],
    donor_index: NDArray[np.int64],
    seed: int,
    factor: int,
    binned: Stack,
    first: int,
    end: int,
) -> None:
    columns = gain.shape[1]
    for number in range(first, end):
        for d in range(defect_index.size):
            y, x = defect_index[d] // columns, defect_index[d] % columns
            row, column = y // factor, x // factor
            if row >= binned.shape[1] or column >= binned.shape[2]:
                continue
            donor = donor_index[d, donor_of(defect_index[d], number, seed, donor_index.shape[1])]
            donor_y, donor_x = donor // columns, donor % columns
            was = np.float32(frames[number, y, x])
            filled = np.float32(frames[number, donor_y, donor_x])
            if dark.size:
                was -= dark[y, x]
                filled -= dark[donor_y, donor_x]
            binned[number, row, column] += filled * gain[donor_y, donor_x] - was * gain[y, x]
