"""A movie that was read is aligned: what `coldchain align` and the pipeline's first step share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coldchain.formats.relion_motion import EARLY_DOSE_E_PER_SQUARE_ANGSTROM
from coldchain.kernels.align import AlignedMovie, AlignmentParameters, align_movie
from coldchain.preprocess.exposure import KnownExposure
from coldchain.preprocess.raw_movie import Image, RawMovie
from coldchain.preprocess.wishes import FramesWanted, Wishes


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """An aligned movie, with what has to be said and written beside its sums.

    wanted : how it was read.
    pixel_size_angstrom : of the frames as they were read.
    numbers : (frames,) of the frames that were given to the alignment, from 1.
    camera_frames : of each frame of the movie, read or not, how many of the camera's it holds.
    doses_e_per_square_angstrom : (frames,) what the specimen was exposed to from each frame's beginning to that of the
        next that was given; None where nobody knows.
    pre_exposure_e_per_square_angstrom : before the first frame that was given.
    dose_weighted : whether the micrograph is.
    gain : the reference as it was read.
    warnings : what the reader of the result should know.
    """

    exposure: KnownExposure
    wanted: FramesWanted
    pixel_size_angstrom: float
    numbers: tuple[int, ...]
    camera_frames: tuple[int, ...]
    doses_e_per_square_angstrom: tuple[float, ...] | None
    pre_exposure_e_per_square_angstrom: float
    dose_weighted: bool
    gain: Image | None
    aligned: AlignedMovie
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrackLengths:
    """Length of the whole frames' track in Å: in all, and of it before and after the first 4 e⁻/Å², which nobody can
    tell without a dose."""

    total_angstrom: float
    early_angstrom: float | None
    late_angstrom: float | None


def align_raw(raw: RawMovie, wishes: Wishes) -> Alignment:
    """Align a movie that was read.

    Raises ProcessingError as `align_movie`: where the gain reference does not fit the movie, and so on.
    """
    exposure = raw.exposure
    pixel_size = exposure.pixel_size_angstrom / raw.wanted.eer_upsampling
    doses, pre_exposure = _doses(raw, wishes.pre_exposure_e_per_square_angstrom)
    weighted = wishes.dose_weighting and doses is not None
    aligned = align_movie(
        raw.frames,
        gain=_to_electrons(raw.gain, exposure.counts_per_electron, raw.frames.shape[1:]),
        defects=raw.defects,
        dark=raw.dark,
        parameters=AlignmentParameters(
            pixel_size_angstrom=pixel_size,
            voltage_kilovolt=exposure.voltage_kilovolt,
            dose_per_frame_e_per_square_angstrom=doses if weighted else None,
            pre_exposure_e_per_square_angstrom=pre_exposure,
            patches=wishes.patches,
            bin_factor=wishes.bin_factor,
            halves=wishes.halves,
            automatic_gain=wishes.gain_auto,
            either_gain_sense=exposure.is_eer,
            threads=wishes.threads,
        ),
    )
    return Alignment(
        exposure=exposure,
        wanted=raw.wanted,
        pixel_size_angstrom=pixel_size,
        numbers=raw.numbers,
        camera_frames=raw.camera_frames,
        doses_e_per_square_angstrom=doses,
        pre_exposure_e_per_square_angstrom=pre_exposure,
        dose_weighted=weighted,
        gain=raw.gain,
        aligned=aligned,
        warnings=(
            *exposure.warnings,
            *raw.warnings,
            *raw.left_out,
            *_about_dose(doses, wishes),
            *aligned.warnings,
        ),
    )


def track_lengths(alignment: Alignment) -> TrackLengths:
    """How far the whole frames moved."""
    motion, doses = alignment.aligned.motion, alignment.doses_e_per_square_angstrom
    steps = np.hypot(np.diff(motion.shift_x_pixel), np.diff(motion.shift_y_pixel)) * alignment.pixel_size_angstrom
    total = float(steps.sum())
    if doses is None:
        return TrackLengths(total, None, None)
    exposed = alignment.pre_exposure_e_per_square_angstrom + np.cumsum(doses)[1:]
    is_early = exposed <= EARLY_DOSE_E_PER_SQUARE_ANGSTROM
    return TrackLengths(total, float(steps[is_early].sum()), float(steps[~is_early].sum()))


def _doses(raw: RawMovie, given_pre_exposure: float) -> tuple[tuple[float, ...] | None, float]:
    """What the specimen was exposed to from each frame's beginning to that of the next, and before the first.

    The exposure of frames that are not used counts all the same.
    """
    dose = raw.exposure.frame_dose_e_per_square_angstrom
    if dose is None:
        return None, given_pre_exposure
    begins = np.concatenate([[0.0], np.cumsum(raw.camera_frames) * dose])
    numbers = np.array(raw.numbers)
    exposed = np.diff(begins[numbers - 1], append=begins[numbers[-1]])
    return tuple(exposed.tolist()), given_pre_exposure + float(begins[numbers[0] - 1])


def _about_dose(doses: tuple[float, ...] | None, wishes: Wishes) -> tuple[str, ...]:
    if doses is not None or not wishes.dose_weighting:
        return ()
    return ("The dose is not known: the sum is not dose-weighted. Give it with --dose-per-frame.",)


def _to_electrons(gain: Image | None, counts_per_electron: float, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    if counts_per_electron == 1:
        return gain
    scale = np.float32(1 / counts_per_electron)
    return np.full(shape, scale, dtype=np.float32) if gain is None else gain * scale
