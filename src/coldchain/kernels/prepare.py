"""From a camera's raw frames to pictures: gain, dark, defects found and filled. The stack stays in the camera's type.

A defect is a pixel that tells nothing about the specimen: the gain has no value there (0, NaN, negative), the
facility's mask names it, a frame has no finite number there, or the movie's own sum shows it (hot and dead pixels,
columns and rows). A pattern that stands still pulls every frame towards the place where it was taken, so defects go
before anything is aligned. A defect takes, in every frame anew, the value of a random good pixel close by: level and
noise are then those of the neighbourhood, whatever the detector's statistics are, and nothing stands still.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from coldchain.compiled import compiled, in_bands
from coldchain.errors import ProcessingError
from coldchain.kernels.defects import find_defects
from coldchain.kernels.orientation import GainCheck, fitting_gain, gain_at_size
from coldchain.kernels.survey import Stack, Survey, donor_of, survey

Mask: TypeAlias = NDArray[np.bool_]
Image: TypeAlias = NDArray[np.float32]

_DONORS = 8
_TRIES = 3
# More cannot be filled from what is around them; and a mask that is meant the other way round asks for it.
_LARGEST_DEFECT_FRACTION = 0.2
_LARGEST_BLANK_FRACTION = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """What turns a raw frame into a picture.

    gain : (rows, columns) float32, multiplicative, finite everywhere, 0 at known defects; ones where none is needed.
    dark : (rows, columns) float32, subtracted before; None where none is needed.
    defects : (rows, columns) bool, every pixel that is filled.
    found_index : (m,) flattened positions of those defects that only the movie's own sum showed.
    defect_index : (n,) flattened positions of all defects, ascending.
    donor_index : (n, 8) flattened positions of good pixels near each.
    seed : of the choice among the donors.
    used : (m,) numbers, from 0, of the frames that hold a picture; the few that hold one value alone are left out.
    gain_check : what the movie says of its gain reference; None without one.
    warnings : what a reader of the result should know.
    """

    gain: Image
    dark: Image | None
    defects: Mask
    found_index: NDArray[np.int64]
    defect_index: NDArray[np.int64]
    donor_index: NDArray[np.int64]
    seed: int
    used: NDArray[np.intp]
    gain_check: GainCheck | None
    warnings: tuple[str, ...]

    def apply(self, frame: NDArray[np.generic], number: int) -> Image:
        """The picture of a raw frame: (rows, columns) float32, a new array. `number` is the frame's, from 0."""
        picture = frame.astype(np.float32)
        if self.dark is not None:
            picture -= self.dark
        picture *= self.gain
        flat = picture.reshape(-1)
        chosen = [donor_of(int(defect), number, self.seed, _DONORS) for defect in self.defect_index]
        flat[self.defect_index] = flat[self.donor_index[np.arange(len(chosen)), chosen]]
        return picture


@dataclass(frozen=True, slots=True, eq=False)
class PreparedMovie:
    """A movie, ready to be aligned.

    frames : (frames, rows, columns) as given; where they held numbers that are none, a copy with 0 in their place.
    correction : how each frame becomes a picture.
    binned : (frames, rows // factor, columns // factor) float32, sums of factor × factor pixels of each picture.
    factor : of the binning.
    """

    frames: NDArray[np.generic]
    correction: Correction
    binned: Stack
    factor: int


def prepare(
    frames: NDArray[np.generic],
    *,
    gain: NDArray[np.generic] | None = None,
    defects: Mask | None = None,
    dark: NDArray[np.generic] | None = None,
    factor: int = 1,
    automatic_gain: bool = False,
    either_gain_sense: bool = False,
    counts_per_electron: float = 1.0,
    seed: int = 0,
    threads: int = 1,
) -> PreparedMovie:
    """Look once at every frame, say how each is corrected, and bin the corrected frames.

    Parameters
    ----------
    frames : (frames, rows, columns) of any real type, as the camera wrote them.
    gain : (rows, columns), multiplicative; 0, negative and non-finite values are defects. Also of half, a quarter,
        twice or four times the size. The movie checks it: one that fits only turned or inverted is refused.
    defects : (rows, columns), True where a pixel is known to be bad.
    dark : (rows, columns), subtracted from the frames before the gain; non-finite values are defects.
    factor : pixels to a bin along each axis.
    automatic_gain : take a gain reference as it fits, instead of refusing it.
    counts_per_electron : by which the corrected frames are divided.
    either_gain_sense : take one that is to be divided by as well; EER's references have had both senses.
    seed : the same seed gives the same picture.
    threads : at most this many.

    Raises
    ------
    ProcessingError : the frames are no stack of real images, gain, dark or mask are of another shape, the gain fits
        only otherwise, more than a tenth of the frames hold one value in every pixel, or more than a fifth of the
        pixels are defects.
    """
    _check_stack(frames)
    shape = (int(frames.shape[1]), int(frames.shape[2]))
    for name, array in (("defect mask", defects), ("dark reference", dark)):
        _check_shape(name, array, shape)
    bad = np.zeros(shape, dtype=np.bool_) if defects is None else defects.astype(np.bool_)
    clean_dark = _clean_dark(dark, bad)
    _check_defects(bad)
    frames, used, warnings = _readable(frames, bad)
    _check_defects(bad)
    look = _Look(frames, clean_dark, factor, np.float32(1 / counts_per_electron), threads)
    seen, clean_gain, check = look.with_gain(gain, bad, automatic=automatic_gain, either_sense=either_gain_sense)
    total = seen.total
    in_bands(lambda first, end: _multiply(total[first:end], clean_gain[first:end]), shape[0], threads)
    found, about_found = find_defects(total, bad, threads)
    bad |= found
    _check_defects(bad)
    index = np.flatnonzero(bad)
    donors = _donors(bad, index, seed)
    seen.fill(frames, clean_gain, clean_dark, index, donors, seed, threads)
    about_gain = (check.warning,) if check is not None and check.warning else ()
    correction = Correction(
        gain=clean_gain,
        dark=clean_dark,
        defects=bad,
        found_index=np.flatnonzero(found),
        defect_index=index,
        donor_index=donors,
        seed=seed,
        used=used,
        gain_check=check,
        warnings=warnings + about_gain + about_found,
    )
    return PreparedMovie(frames, correction, seen.binned, factor)


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """A survey, with the gain reference that the movie lets pass."""

    frames: NDArray[np.generic]
    dark: Image | None
    factor: int
    scale: np.float32
    threads: int

    def with_gain(
        self, gain: NDArray[np.generic] | None, bad: Mask, *, automatic: bool, either_sense: bool
    ) -> tuple[Survey, Image, GainCheck | None]:
        """The survey, the gain as it is to be applied, whose defects become `bad`, and what the movie says of it."""
        shape = (bad.shape[0], bad.shape[1])
        if gain is None:
            none = np.full(shape, self.scale)
            return self._survey(none), none, None
        sized = gain_at_size(gain.astype(np.float32, copy=False), shape)
        given = self._scaled(sized) if sized.shape == shape else np.ones(shape, dtype=np.float32)
        _check_defects(given == 0)
        seen = self._survey(given)
        wanted, check = fitting_gain(seen.total, sized, automatic=automatic, either_sense=either_sense, defects=bad)
        if wanted is not sized:
            given = self._scaled(wanted)
            seen = self._survey(given)
        bad |= given == 0
        _check_defects(bad)
        return seen, given, check

    def _scaled(self, gain: Image) -> Image:
        """The reference in electrons, with 0 wherever it is no number above it."""
        scaled = np.empty(gain.shape, dtype=np.float32)
        in_bands(lambda first, end: _scale_gain(gain, self.scale, scaled, first, end), len(gain), self.threads)
        return scaled

    def _survey(self, gain: Image) -> Survey:
        seen = survey(self.frames, gain, self.dark, self.factor, self.threads)
        if self.dark is not None:
            total = seen.total
            total -= np.float32(len(self.frames)) * self.dark
        return seen


def _multiply(values: Image, factors: Image) -> None:
    values *= factors


def _readable(frames: NDArray[np.generic], bad: Mask) -> tuple[NDArray[np.generic], NDArray[np.intp], tuple[str, ...]]:
    """The frames with 0 for what is no number, whose pixels become `bad`; the numbers of those that hold a picture."""
    if np.issubdtype(frames.dtype, np.floating):
        frames = _without_nan(frames, bad)
    count = frames.shape[0]
    blank: list[int] = []
    for number in range(count):
        if not _is_blank(frames[number]):
            continue
        blank.append(number)
        if len(blank) > _LARGEST_BLANK_FRACTION * count:
            raise ProcessingError(
                f"frame {number + 1} of {count} holds the same value, {frames[number].flat[0]}, in every pixel"
                f"{_as(blank)}",
                expected=f"electrons, but in {_LARGEST_BLANK_FRACTION:.0%} of the frames at most",
                remedy="Check the camera and the beam; the movie cannot be aligned",
            )
    return frames, np.setdiff1d(np.arange(count), blank), _blank_warning(blank, count)


def _is_blank(frame: NDArray[np.generic]) -> bool:
    """Whether all pixels are equal; one row tells, almost always."""
    sample = frame[len(frame) // 2]
    return frame.size > 1 and bool(sample.min() == sample.max()) and bool(frame.min() == frame.max())


def _without_nan(frames: NDArray[np.generic], bad: Mask) -> NDArray[np.generic]:
    clean = frames
    for number, frame in enumerate(frames):
        finite = np.isfinite(frame)
        if finite.all():
            continue
        if np.count_nonzero(finite) < finite.size / 2:
            raise ProcessingError(
                f"{np.count_nonzero(~finite)} of {finite.size} pixels of frame {number + 1} are no numbers",
                remedy="Read the movie again from the camera's disk, or leave it out",
            )
        if clean is frames:
            clean = frames.copy()
        clean[number][~finite] = 0
        bad |= ~finite
    return clean


def _as(blank: list[int]) -> str:
    earlier = ", ".join(str(number + 1) for number in blank[:-1])
    return f", as {earlier} before it" if earlier else ""


def _blank_warning(blank: list[int], count: int) -> tuple[str, ...]:
    if not blank:
        return ()
    names = ", ".join(str(number + 1) for number in blank)
    which = f"Frame {names} of {count} holds" if len(blank) == 1 else f"Frames {names} of {count} hold"
    return (f"{which} the same value in every pixel; the movie was aligned and added up without.",)


@compiled
def _scale_gain(gain: Image, scale: np.float32, out: Image, first: int, end: int) -> None:
    for y in range(first, end):
        for x in range(gain.shape[1]):
            value = gain[y, x]
            out[y, x] = value * scale if 0 < value < np.inf else np.float32(0)


def _clean_dark(dark: NDArray[np.generic] | None, bad: Mask) -> Image | None:
    if dark is None:
        return None
    values = dark.astype(np.float32)
    unknown = ~np.isfinite(values)
    values[unknown] = 0
    bad |= unknown
    return values


def _donors(bad: Mask, index: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """For each defect, eight good pixels (some twice) from the smallest neighbourhood in which chance finds them."""
    donors = np.empty((index.size, _DONORS), dtype=np.int64)
    _find_donors(bad, index, seed, donors)
    return donors


@compiled
def _find_donors(bad: Mask, index: NDArray[np.int64], seed: int, donors: NDArray[np.int64]) -> None:
    rows, columns = bad.shape
    np.random.seed(seed)
    for d in range(index.size):
        y, x = index[d] // columns, index[d] % columns
        for slot in range(donors.shape[1]):
            radius, tries = 2, 0
            while True:
                near_y, near_x = y + np.random.randint(-radius, radius + 1), x + np.random.randint(-radius, radius + 1)
                if 0 <= near_y < rows and 0 <= near_x < columns and not bad[near_y, near_x]:
                    donors[d, slot] = near_y * columns + near_x
                    break
                tries += 1
                if tries % _TRIES == 0 and radius < max(rows, columns):
                    radius *= 2


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
