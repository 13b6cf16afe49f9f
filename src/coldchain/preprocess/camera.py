"""What a movie tells of its camera: the pattern that stands still in it, and how much of its gain reference it has."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from coldchain.errors import FormatError, StorageError
from coldchain.formats.mrc import read_mrc
from coldchain.kernels.orientation import GainCheck, Verdict, apply_fit, gain_at_size
from coldchain.kernels.persistence import Pattern, common_share, pattern_of_frames
from coldchain.preprocess.raw_movie import Image, RawMovie

if TYPE_CHECKING:  # the service, which compares patterns, aligns nothing
    from coldchain.preprocess.alignment import Alignment

PATTERN_NAME = "pattern.mrc"

# One exposure's own noise outweighs a weak pattern; the mean of so many does not.
FEWEST_OTHERS = 4
MOST_OTHERS = 8


def pattern_of_movie(raw: RawMovie, alignment: Alignment) -> Pattern | None:
    """What stands still in the frames once the gain is applied, as it was in the alignment (`pattern_of_frames`)."""
    return pattern_of_frames(raw.frames, _gain_applied(raw, alignment.aligned.gain_check), raw.defects)


def share_applied(check: GainCheck) -> float | None:
    """The part of the gain reference's pattern that is in the movie, the reference being taken as it was; None where
    it has none, or nothing can be told."""
    if check.verdict is Verdict.UNTOLD:
        return None
    fit = check.best if check.verdict is Verdict.OTHERWISE else check.given
    return None if fit is None else fit.score


def shared_pattern(mine: Path, others: Iterable[Path]) -> float | None:
    """`common_share` of a stored pattern with those of other exposures; None where fewer than four can be read."""
    pattern = _read(mine)
    if pattern is None:
        return None
    read = [other for path in others if (other := _read(path)) is not None and other.shape == pattern.shape]
    return common_share(pattern, read) if len(read) >= FEWEST_OTHERS else None


def _gain_applied(raw: RawMovie, check: GainCheck | None) -> Image | None:
    if raw.gain is None or check is None or check.verdict is Verdict.ABSENT:
        return None
    gain = gain_at_size(raw.gain, (raw.frames.shape[1], raw.frames.shape[2]))
    return apply_fit(gain, check.best) if check.verdict is Verdict.OTHERWISE and check.best is not None else gain


def _read(path: Path) -> Pattern | None:
    # It may have been cleared away with its results: then it says nothing.
    try:
        read = read_mrc(path)
    except (FormatError, StorageError):
        return None
    return read if read.dtype == "int8" and read.ndim == 2 else None
