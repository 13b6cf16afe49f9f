"""Whether a gain reference belongs to a movie, and how it lies: told from the movie's own sum, not trusted.

A pixel that counts too few electrons does so in every frame, so the sum of the raw frames carries the camera's
response, and a gain reference is its inverse. Both are compared where nothing else is alike, from pixel to pixel: each
less the mean of its eight neighbours, in the central 512 × 512 pixels (the specimen, blurred by its motion, is smooth
there, and electrons arrive at random). With c electrons a pixel and a response that varies by s from pixel to pixel,
the comparison is good to s √c · 512 standard deviations: 30 for 1 % and 35 electrons.

*Share*: the slope of the sum's pattern on the reference's, 1 where all of it is in the movie, 0 where nothing is, −1
where the reference has to divide. *Significance*: the share over its standard error. The error is that of the same
comparison with the reference shifted by any other number of pixels (the sum of the products of both power spectra,
which is their mean square by Parseval), so that columns and blocks, alike all along, are not taken for thousands of
independent witnesses; lines in the spectra are limited before (columns, super-resolution's chequers) for the same
reason. A share is called significant beyond 5.4 standard errors: chance does that to one reference in a million, all
16 ways of applying it taken together.

Ways that a symmetric reference cannot tell apart are not told apart: another way is better only if the difference of
the two comparisons is significant by the same measure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from coldchain.errors import ProcessingError
from coldchain.kernels.binning import sums_of_bins
from coldchain.kernels.fixed_pattern import (
    central_window,
    counts_pattern,
    gain_pattern,
    limited,
    power_spectrum,
)
from coldchain.kernels.fourier import rfft2

Image: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]
Shape: TypeAlias = tuple[int, int]

_WAYS = 16
_FALSE_ALARMS = 1e-6
_SIGNIFICANT = -NormalDist().inv_cdf(_FALSE_ALARMS / _WAYS)
# A share below which multiplying adds more pattern than it takes away; and one at which thrice as much.
_BELIEVED, _ABSENT = 0.5, 0.25
_SAME, _NEARLY_SAME = 1e-6, 0.2  # of the pattern's power
_COARSE_PIXEL = 8
_SCALES = (2, 4)


class Verdict(StrEnum):
    """What the movie says of a gain reference.

    `FITS`: its pattern is in the movie. `OTHERWISE`: it is, once the reference is turned, flipped or inverted.
    `ABSENT`: it is not, in no way: the frames are corrected already, or it is another camera's. `UNTOLD`: too few
    electrons, or too little pattern, to tell.
    """

    FITS = "fits"
    OTHERWISE = "fits otherwise"
    ABSENT = "is not in the movie"
    UNTOLD = "cannot be told"


@dataclass(frozen=True, slots=True)
class GainFit:
    """One way of applying a gain reference, and how well it fits.

    turns : times 90°, 0 to 3, anticlockwise in the picture (whose bottom row is row 0); RELION's gain_rot.
    flipped : whether it is flipped up-down after that; RELION's gain_flip 1.
    inverse : whether the frames are divided by it instead of multiplied.
    score : the share of its pattern that is in the movie, 1 for all.
    significance : the share in its standard errors.
    """

    turns: int
    flipped: bool
    inverse: bool
    score: float
    significance: float

    @property
    def as_given(self) -> bool:
        """Whether this is the reference as it was given."""
        return self.turns == 0 and not self.flipped and not self.inverse

    @property
    def relion(self) -> tuple[int, int]:
        """RELION's gain_rot and gain_flip: the turns, then 1 for up-down or 2 for left-right."""
        if self.flipped and self.turns == 2:
            return 0, 2
        return self.turns, int(self.flipped)

    @property
    def words(self) -> str:
        """What is done to the reference: "turned by 90° anticlockwise and flipped up-down", and in RELION's words."""
        turns, flip = self.relion
        done = [f"turned by {90 * turns}°" + (" anticlockwise" if turns % 2 else "")] if turns else []
        done += [("", "flipped up-down", "flipped left-right")[flip]] if flip else []
        done += ["inverted (the frames are divided by it)"] if self.inverse else []
        relion = f" (RELION: --gain_rot {turns} --gain_flip {flip})" if turns or flip else ""
        return (" and ".join(done) or "as it is") + relion


@dataclass(frozen=True, slots=True)
class GainCheck:
    """What a movie says of the gain reference that was given for it.

    verdict : see `Verdict`.
    given : the reference as it is; None where its sides are exchanged.
    best : the way that fits best by its significance; None where the reference has no pattern at all.
    rival : another way, with another effect, that fits as well; None where there is none.
    warning : what the reader of the result should know; "" where all is well, or nothing can be told.
    """

    verdict: Verdict
    given: GainFit | None
    best: GainFit | None
    rival: GainFit | None = None
    warning: str = ""


def apply_fit(gain: NDArray[np.floating[Any]], fit: GainFit) -> Image:
    """The reference as the fit wants it: (rows, columns) float32, to be multiplied; 0 stays 0, a defect.

    An inverse is the mean of the good pixels over each, so that the frames keep their scale.
    """
    oriented = _oriented(gain.astype(np.float32, copy=False), fit.turns, flipped=fit.flipped)
    if fit.inverse:
        good = oriented > 0
        mean = oriented[good].mean(dtype=np.float64) if good.any() else 1.0
        oriented = np.divide(np.float32(mean), oriented, out=np.zeros_like(oriented), where=good)
    return np.ascontiguousarray(oriented)


def score_gains(
    total: NDArray[np.floating[Any]], gain: NDArray[np.floating[Any]], *, defects: Mask | None = None
) -> tuple[GainFit, ...]:
    """Every way of applying a gain reference whose shape fits the movie, the best first; () for one without a pattern.

    Parameters
    ----------
    total : (rows, columns), the sum of the movie's raw frames (less the dark reference, if there is one).
    gain : (rows, columns) or (columns, rows), multiplicative; what is not above 0 is a defect and left out.
    defects : (rows, columns), True where a pixel of the movie is known to be bad.

    Raises ProcessingError where the shapes differ in any other way.
    """
    return _Comparison(total, gain, defects).fits


def check_gain(
    total: NDArray[np.floating[Any]], gain: NDArray[np.floating[Any]], *, defects: Mask | None = None
) -> GainCheck:
    """What a movie says of the gain reference given for it. Parameters as for `score_gains`.

    A reference *fits* if its pattern is in the movie, at least a quarter of it, and no other way is significantly
    better. It *fits otherwise* if another way is, by which at least half of the pattern is there. It is *absent* if
    more than a quarter is ruled out, between neighbouring pixels and, as they may be noise in a poor reference, also
    between blocks of 8 × 8. Everything else *cannot be told*, and is left to whoever gave the reference.

    Raises ProcessingError where the shapes differ in another way than by exchanged sides, or are exchanged and the
    movie does not tell how to turn the reference.
    """
    comparison = _Comparison(total, gain, defects)
    best = comparison.fits[0] if comparison.fits else None
    if gain.shape != total.shape:
        if best is None or not _carried(best):
            raise _exchanged(gain.shape, total.shape)
        return GainCheck(Verdict.OTHERWISE, None, best, comparison.rival(best))
    if best is None:
        return GainCheck(Verdict.UNTOLD, None, None)
    given = next(fit for fit in comparison.fits if fit.as_given)
    if best is not given and _carried(best) and comparison.excess(best, given) > _SIGNIFICANT:
        return GainCheck(Verdict.OTHERWISE, given, best, comparison.rival(best))
    most = _largest_share(given)
    if most >= _ABSENT:
        if given.significance < _SIGNIFICANT:
            return GainCheck(Verdict.UNTOLD, given, best)
        return GainCheck(Verdict.FITS, given, best, warning=_partly(given) if most < _BELIEVED else "")
    if _carried_by_blocks(total, gain, defects):
        return GainCheck(Verdict.FITS, given, best, warning=_partly(given))
    return GainCheck(Verdict.ABSENT, given, best, warning=_absent(given))


def fitting_gain(
    total: NDArray[np.floating[Any]],
    gain: NDArray[np.floating[Any]],
    *,
    automatic: bool = False,
    either_sense: bool = False,
    defects: Mask | None = None,
) -> tuple[Image, GainCheck]:
    """The reference as it is to be applied to the movie's frames, and what the movie says of it.

    It is brought to the frames' size (`gain_at_size`) and checked. One that fits otherwise is taken as it fits if that
    is `automatic`, or if it is only to be inverted and may have `either_sense` (EER's references have had both), which
    the check's warning then says; it is refused if not. One that is absent becomes 1 everywhere: multiplied, it would
    not take a pattern away but put one in, and a pattern that stands still pulls every frame towards it. Its defects,
    maybe another camera's, are left too; the movie shows its own.

    Other parameters as for `score_gains`; the gain may also be of half or twice the frames' size, and so on.

    Raises ProcessingError where the reference fits otherwise, saying how; where two ways fit as well, even if it is
    `automatic`; and as `check_gain` and `gain_at_size`.
    """
    sized = gain_at_size(gain, (total.shape[0], total.shape[1]))
    check = check_gain(total, sized, defects=defects)
    if check.verdict is Verdict.OTHERWISE and check.best is not None:
        only_inverted = check.best.inverse and check.best.turns == 0 and not check.best.flipped
        if check.rival is not None or not (automatic or (either_sense and only_inverted)):
            raise _refusal(check)
        return apply_fit(sized, check.best), replace(
            check, warning=f"The gain reference was taken {check.best.words}: so it fits the movie."
        )
    if check.verdict is Verdict.ABSENT:
        sizes = f" It has {_size(gain.shape)} pixels, the frames {_size(total.shape)}."
        size = "" if sized.shape == gain.shape else sizes
        return np.ones_like(sized), replace(check, warning=f"{check.warning}{size} It was not applied.")
    return sized, check


def gain_at_size(gain: NDArray[np.floating[Any]], shape: Shape) -> Image:
    """A reference at the size of the frames: float32, of `shape` (rows, columns) or with exchanged sides.

    For super-resolution frames of twice or four times its size each pixel becomes a block (as MotionCor3, and RELION
    for EER, do). For frames of half or a quarter of its size, binned by the camera, a block becomes a pixel, whose
    response is the mean of the block's, so that its gain is their harmonic mean; with a defect inside it is one.

    Raises ProcessingError for every other size, naming both.
    """
    values = gain.astype(np.float32, copy=False)
    if values.ndim == 2:
        sizes = (sorted(values.shape), sorted(shape))
        for scale in (1, *_SCALES):
            if sizes[0] == [side * scale for side in sizes[1]]:
                return values if scale == 1 else _gathered(values, scale)
            if [side * scale for side in sizes[0]] == sizes[1]:
                blocks: Image = np.repeat(np.repeat(values, scale, axis=0), scale, axis=1)
                return blocks
    raise _misshapen(gain.shape, shape)


def _gathered(gain: Image, scale: int) -> Image:
    good = gain > 0
    response = np.divide(np.float32(1), gain, out=np.zeros_like(gain), where=good)
    blocks = (gain.shape[0] // scale, scale, gain.shape[1] // scale, scale)
    mean: Image = response.reshape(blocks).mean(axis=(1, 3))
    whole = good.reshape(blocks).all(axis=(1, 3))
    gathered: Image = np.divide(np.float32(1), mean, out=np.zeros_like(mean), where=whole)
    return gathered


class _Comparison:
    """The patterns of a sum and of a gain reference, and what each way of applying the reference gives."""

    def __init__(self, total: NDArray[np.floating[Any]], gain: NDArray[np.floating[Any]], defects: Mask | None) -> None:
        shape = (total.shape[0], total.shape[1])
        if gain.shape not in (shape, shape[::-1]):
            raise _misshapen(gain.shape, shape)
        window = central_window(shape)
        counts = total[window].astype(np.float32)
        good = np.isfinite(counts)
        if defects is not None:
            good &= ~defects[window]
        pattern, self._slope = counts_pattern(counts, good)
        self._counts = limited(pattern)
        # A half-plane holds once what the plane holds twice, but for the modes at zero and at Nyquist.
        self._twice = np.full(self._counts.power.shape[1], 2.0, dtype=np.float32)
        self._twice[[0, -1] if pattern.shape[1] % 2 == 0 else 0] = 1.0
        self._ways: dict[tuple[int, bool], Image] = {}
        self.fits = self._fits(gain, shape)

    def _fits(self, gain: NDArray[np.floating[Any]], shape: Shape) -> tuple[GainFit, ...]:
        response = gain_pattern(gain[central_window((gain.shape[0], gain.shape[1]))].astype(np.float32))
        if self._slope <= 0 or not response.any():
            return ()
        fits: list[GainFit] = []
        for turns in (0, 1):
            if (gain.shape[::-1] if turns else gain.shape) != shape:
                continue
            turned = limited(_oriented(response, turns, flipped=False))
            for more, flipped in ((0, False), (2, False), (0, True), (2, True)):
                # Turning by 180° leaves a power spectrum as it is; flipping reverses its rows.
                power, scale = (_rows_reversed(turned.power), _rows_reversed(turned.scale)) if flipped else turned[1:]
                way = self._ways[turns + more, flipped] = _oriented(turned.image, more, flipped=flipped)
                product, error = _product(self._counts.image, way), self._error(power)
                # What the product would be if the movie had all of the pattern.
                whole = self._slope * self._sum(self._counts.scale * power / scale)
                if error > 0:
                    fits += [
                        GainFit(turns + more, flipped, sign < 0, sign * product / whole, sign * product / error)
                        for sign in (1, -1)
                    ]
        return tuple(sorted(fits, key=lambda fit: -fit.significance))

    def excess(self, better: GainFit, given: GainFit) -> float:
        """By how many standard errors one way explains more than another; 0 if they are the same."""
        if self._alike(better, given, _SAME):
            return 0.0
        difference = self._difference(better, given)
        return _product(self._counts.image, difference) / self._error(power_spectrum(rfft2(difference)))

    def rival(self, best: GainFit) -> GainFit | None:
        """The best of the other ways that is not nearly the same, and not significantly worse."""
        for fit in self.fits[1:]:
            if _carried(fit) and not self._alike(best, fit, _NEARLY_SAME) and self.excess(best, fit) < _SIGNIFICANT:
                return fit
        return None

    def _alike(self, first: GainFit, second: GainFit, limit: float) -> bool:
        difference, way = self._difference(first, second), self._ways[first.turns, first.flipped]
        return _product(difference, difference) <= limit * _product(way, way)

    def _difference(self, first: GainFit, second: GainFit) -> Image:
        one, other = self._ways[first.turns, first.flipped], self._ways[second.turns, second.flipped]
        # Which of the two is inverted decides the sign alone, which only `excess` heeds.
        difference: Image = one - other if first.inverse == second.inverse else one + other
        return -difference if first.inverse else difference

    def _error(self, power: Image) -> float:
        """The root mean square of the product with the movie's pattern over all shifts of one against the other."""
        return math.sqrt(self._sum(self._counts.power * power) / self._counts.image.size)

    def _sum(self, half_plane: Image) -> float:
        """Of the whole plane, over the number of pixels, as Parseval has it."""
        return float(np.sum(self._twice * half_plane, dtype=np.float64)) / self._counts.image.size


def _rows_reversed(half_plane: Image) -> Image:
    """Of the spectrum of an image that is flipped up-down: the zero frequency stays in row 0."""
    return np.roll(half_plane[::-1], 1, axis=0)


def _product(first: Image, second: Image) -> float:
    return float(np.sum(first * second, dtype=np.float64))


def _oriented(image: Image, turns: int, *, flipped: bool) -> Image:
    turned = np.rot90(image, -turns)
    return turned[::-1] if flipped else turned


def _carried(fit: GainFit) -> bool:
    return fit.score >= _BELIEVED and fit.significance >= _SIGNIFICANT


def _largest_share(fit: GainFit) -> float:
    """The share that the comparison does not rule out."""
    return fit.score + _SIGNIFICANT * abs(fit.score / fit.significance) if fit.significance else math.inf


def _carried_by_blocks(total: NDArray[np.floating[Any]], gain: NDArray[np.floating[Any]], defects: Mask | None) -> bool:
    """Whether the pattern of the reference as given is in the movie when both are binned: the seams of the chips."""
    good = np.isfinite(total) & (gain > 0)
    if defects is not None:
        good &= ~defects
    count = sums_of_bins(good.astype(np.float32), _COARSE_PIXEL)
    if min(count.shape) < 2:
        return False
    counts = sums_of_bins(np.where(good, total, 0), _COARSE_PIXEL) / np.maximum(count, 1)
    inverse = np.divide(1, gain, out=np.zeros(gain.shape, np.float32), where=good)
    response = sums_of_bins(inverse, _COARSE_PIXEL) / np.maximum(count, 1)
    coarse = np.divide(1, response, out=np.zeros_like(response), where=response > 0)
    fits = _Comparison(counts * np.float32(_COARSE_PIXEL**2), coarse, count == 0).fits
    return any(fit.as_given and _carried(fit) for fit in fits)


def _size(shape: tuple[int, ...]) -> str:
    return " × ".join(str(side) for side in shape[::-1])


def _percent(fit: GainFit) -> str:
    """Of the pattern that is there; one that is there inverted is not there as it lies."""
    return f"{max(0, round(100 * fit.score))} %"


def _partly(given: GainFit) -> str:
    return f"Only {_percent(given)} of the gain reference's pattern is in the movie: it is noisy, or an old one."


def _absent(given: GainFit) -> str:
    return (
        f"The gain reference's pattern is not in the movie ({_percent(given)} of it): the frames are corrected already,"
        " their dark reference is missing, or it is another camera's."
    )


def _refusal(check: GainCheck) -> ProcessingError:
    assert check.best is not None
    now = "its sides are exchanged" if check.given is None else f"{_percent(check.given)} of its pattern is there"
    but = f"{now}, but {_percent(check.best)} once it is {check.best.words}"
    if check.best.inverse and check.best.turns == 0 and not check.best.flipped:
        but = f"{_percent(check.best)} of its pattern is there {check.best.words}"
    found = f"the gain reference does not fit the movie: {but}"
    remedy = "Let it be taken so with --gain-auto, or give a reference that fits"
    if check.rival is not None:
        found += f", and {_percent(check.rival)} once it is {check.rival.words}"
        remedy = "Give a reference that fits, or use --gain-auto with a movie of more electrons"
    return ProcessingError(found, expected="a reference that lies as the frames do and is multiplied", remedy=remedy)


def _misshapen(found: tuple[int, ...], shape: Shape) -> ProcessingError:
    return ProcessingError(
        f"the gain reference has {_size(found)} pixels",
        expected=f"{_size(shape)}, as the frames, or a half, a quarter, twice or four times that",
        remedy="Give the gain reference that belongs to the movie",
    )


def _exchanged(found: tuple[int, ...], shape: tuple[int, ...]) -> ProcessingError:
    return ProcessingError(
        f"the gain reference has {_size(found)} pixels: its sides are exchanged, and the movie does not tell which way"
        " it has to be turned",
        expected=f"{_size(shape)}, as the frames",
        remedy="Turn it by 90° or by 270°, as your camera's software says",
    )
