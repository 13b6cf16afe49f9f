"""The gain reference that RELION is to use: polishing reads the movies again, and corrects them by itself.

RELION can neither turn a reference here nor read every kind. Where it could not use the file that was given, the
reference as it was applied is written beside the results. Its name ends in a digest of it, so that it is never replaced
by another: a motion STAR that names it stays true.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from coldchain.formats.mrc import write_mrc
from coldchain.kernels.orientation import GainFit, Verdict, apply_fit, gain_at_size
from coldchain.preprocess.alignment import Alignment
from coldchain.preprocess.raw_movie import Image

_RELION_MULTIPLIES = frozenset((".mrc", ".tif", ".tiff"))
_DIGEST_BYTES = 4


class AppliedGains:
    """Writes references as they were applied into a folder; one that served the last movie too is not made again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last: tuple[Image, tuple[object, ...], Path] | None = None

    def for_relion(self, alignment: Alignment) -> Path | None:
        """The reference's file that RELION can use: the given one, or one in the folder; None where there is none.

        Raises StorageError where it cannot be written.
        """
        given, check, gain = alignment.exposure.gain, alignment.aligned.gain_check, alignment.gain
        usable = usable_gain(alignment)
        if usable is not None or given is None or gain is None or check is None or check.verdict is Verdict.ABSENT:
            return usable
        fit = check.best if check.verdict is Verdict.OTHERWISE else None
        how = given, None if fit is None else fit.words, alignment.aligned.motion.shape, alignment.exposure.is_eer
        if self._last is None or self._last[0] is not gain or self._last[1] != how:
            self._last = gain, how, self._write(alignment, given.stem, fit)
        return self._last[2]

    def _write(self, alignment: Alignment, stem: str, fit: GainFit | None) -> Path:
        applied = np.ascontiguousarray(applied_gain(alignment, fit))
        digest = hashlib.blake2b(repr(applied.shape).encode(), digest_size=_DIGEST_BYTES)
        digest.update(applied.data)
        path = self._folder / f"{stem}_applied_{digest.hexdigest()}.mrc"
        if not path.exists():
            write_mrc(path, applied, pixel_size_angstrom=alignment.exposure.pixel_size_angstrom)
        return path


def usable_gain(alignment: Alignment) -> Path | None:
    """The gain reference's file, if there is one and RELION would apply it as it was applied here; else None.

    RELION multiplies by what is an MRC or TIFF and takes nothing else, but an EER it multiplies by a `.gain`, whose
    size may be the sensor's, and divides by an MRC (`renderEER.h`).
    """
    path, check = alignment.exposure.gain, alignment.aligned.gain_check
    if path is None or check is None or alignment.gain is None or check.verdict is Verdict.ABSENT:
        return None
    fit = check.best if check.verdict is Verdict.OTHERWISE else None
    suffix = path.suffix.lower()
    if alignment.exposure.is_eer:
        inverted = fit is not None and fit.inverse and fit.turns == 0 and not fit.flipped
        return path if (suffix == ".gain" and fit is None) or (suffix == ".mrc" and inverted) else None
    same_size = alignment.gain.shape == alignment.aligned.motion.shape
    return path if suffix in _RELION_MULTIPLIES and fit is None and same_size else None


def applied_gain(alignment: Alignment, fit: GainFit | None) -> Image:
    """The reference as it was applied, (rows, columns); of an EER its inverse, by which RELION divides."""
    assert alignment.gain is not None
    gain = gain_at_size(alignment.gain, alignment.aligned.motion.shape)
    applied = gain if fit is None else apply_fit(gain, fit)
    if not alignment.exposure.is_eer:
        return applied
    return np.divide(np.float32(1), applied, out=np.zeros_like(applied), where=applied > 0)
