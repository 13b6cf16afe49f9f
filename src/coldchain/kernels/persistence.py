"""What stands still from one exposure to the next: a pattern of the camera's own.

Two exposures show different specimens and different electrons. What single pixels have in common in both, beyond their
neighbours, is the camera's: an old gain reference that no longer takes the pattern away, or a fault that puts one in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from coldchain.kernels.fixed_pattern import Mask, central_window, counts_pattern

Pattern: TypeAlias = NDArray[np.int8]

# A pattern's standard deviation in its whole numbers: what is clipped lies beyond five of them.
_SCALE = 24.0
_LARGEST = 127.0


def pattern_of_frames(
    frames: NDArray[Any], gain: NDArray[np.floating[Any]] | None, defects: Mask | None = None
) -> Pattern | None:
    """The pattern of a movie's frames where they lie, unaligned: motion would smear what stands still.

    Parameters
    ----------
    frames : (frames, rows, columns), as the camera wrote them.
    gain : (rows, columns), multiplicative, as it is applied; 0 is a defect. None where none is.
    defects : (rows, columns), True where a pixel is bad.

    Returns as `pattern_of_image`.
    """
    window = central_window((frames.shape[1], frames.shape[2]))
    total = frames[(slice(None), *window)].sum(axis=0, dtype=np.float32)
    good = np.isfinite(total)
    if gain is not None:
        total = total * gain[window].astype(np.float32)
        good &= np.isfinite(total) & (gain[window] > 0)
    if defects is not None:
        good &= ~defects[window]
    return _pattern(total, good)


def pattern_of_image(image: NDArray[Any]) -> Pattern | None:
    """The pattern of the middle of one image: at most 525² pixels, each less its neighbours' mean, in 24ths of their
    standard deviation, 0 where a pixel is no use. None where there is none: a blank image, or one without electrons."""
    total = np.asarray(image[central_window((image.shape[0], image.shape[1]))], dtype=np.float32)
    return _pattern(total, np.isfinite(total))


def common_share(pattern: Pattern, others: Sequence[Pattern]) -> float | None:
    """The part of the pattern's variance that other exposures have too: the mean correlation with each of them.

    0 on average where nothing is in common, with a standard error of about 1/√(pixels × others). With n electrons a
    pixel and a relative pattern of standard deviation a that nothing corrects, it is n a²/(1 + n a²). Those of another
    shape are left out; None where none is left.
    """
    mine = pattern.astype(np.float32)
    shares = [_correlation(mine, other.astype(np.float32)) for other in others if other.shape == pattern.shape]
    return float(np.mean(shares)) if shares else None


def _pattern(total: NDArray[np.float32], good: Mask) -> Pattern | None:
    total = np.where(good, total, np.float32(0))
    pattern, slope = counts_pattern(total, good)
    deviation = float(np.sqrt(np.mean(np.square(pattern, dtype=np.float64)))) if slope > 0 else 0.0
    if deviation <= 0:
        return None
    whole: Pattern = np.clip(np.rint(pattern * np.float32(_SCALE / deviation)), -_LARGEST, _LARGEST).astype(np.int8)
    return whole


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    norm = float(np.sqrt(np.vdot(first, first) * np.vdot(second, second)))
    return float(np.vdot(first, second)) / norm if norm > 0 else 0.0
