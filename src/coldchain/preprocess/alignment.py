"""A movie that was read is aligned: what `coldchain align` and the pipeline's first step share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coldchain.formats.relion_motion import EARLY_DOSE_E_PER_SQUARE_ANGSTROM
from coldchain.kernels.align import AlignedMovie, AlignmentParameters, align_movie
from coldchain.preprocess.exposure import KnownExposure
from coldchain.preprocess.raw_movie import Image, RawMovie
from coldchain.preprocess.relion_names import can_be_named
from coldchain.preprocess.wishes import FramesWanted, Wishes

# Single particles are given 40 to 60.
_USUAL_DOSE_E_PER_SQUARE_ANGSTROM = 250.0


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


@dataclass(frozen=True, slots=True)
class FrameExposures:
    """What the specimen was exposed to, in e⁻/Å², (frames,) each.

    before : until each frame began, with the pre-exposure and the frames that are not used.
    of_frame : by each frame itself.
    """

    before: tuple[float, ...]
    of_frame: tuple[float, ...]

    @property
    def to_next(self) -> tuple[float, ...]:
        """From each frame's beginning to that of the next; of the last, to its end."""
        return tuple(np.diff(self.before, append=self.before[-1] + self.of_frame[-1]).tolist())


def frame_exposures(
    numbers: Sequence[int],
    camera_frames: Sequence[int],
    dose_e_per_square_angstrom: float | None,
    *,
    pre_exposure_e_per_square_angstrom: float = 0.0,
) -> FrameExposures | None:
    """The exposures of the frames `numbers` (from 1) of a movie, of which each holds so many camera frames of that
    dose; None where the dose is not known. Pure."""
    if dose_e_per_square_angstrom is None:
        return None
    doses = np.array(camera_frames) * dose_e_per_square_angstrom
    begins = pre_exposure_e_per_square_angstrom + np.cumsum(doses) - doses
    index = np.array(numbers) - 1
    return FrameExposures(tuple(begins[index].tolist()), tuple(doses[index].tolist()))


def align_raw(raw: RawMovie, wishes: Wishes) -> Alignment:
    """Align a movie that was read.

    Raises ProcessingError as `align_movie`: where the gain reference does not fit the movie, and so on.
    """
    exposure = raw.exposure
    pixel_size = exposure.pixel_size_angstrom / raw.wanted.eer_upsampling
    given = wishes.pre_exposure_e_per_square_angstrom
    exposed = frame_exposures(
        raw.numbers,
        raw.camera_frames,
        exposure.frame_dose_e_per_square_angstrom,
        pre_exposure_e_per_square_angstrom=given,
    )
    weighted = exposed if wishes.dose_weighting else None
    aligned = align_movie(
        raw.frames,
        gain=raw.gain,
        defects=raw.defects,
        dark=raw.dark,
        parameters=AlignmentParameters(
            pixel_size_angstrom=pixel_size,
            voltage_kilovolt=exposure.voltage_kilovolt,
            dose_per_frame_e_per_square_angstrom=None if weighted is None else weighted.of_frame,
            exposure_before_e_per_square_angstrom=None if weighted is None else weighted.before,
            counts_per_electron=exposure.counts_per_electron,
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
        doses_e_per_square_angstrom=None if exposed is None else exposed.to_next,
        pre_exposure_e_per_square_angstrom=given if exposed is None else exposed.before[0],
        dose_weighted=weighted is not None,
        gain=raw.gain,
        aligned=aligned,
        warnings=(
            *exposure.warnings,
            *raw.warnings,
            *raw.left_out,
            *_about_dose(exposed, wishes),
            *_about_name(exposure.movie),
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


def _about_name(movie: Path) -> tuple[str, ...]:
    if can_be_named(movie):
        return ()
    return ("RELION cannot read a movie of this name: rename it, and in the motion STAR too, before polishing.",)


def _about_dose(exposed: FrameExposures | None, wishes: Wishes) -> tuple[str, ...]:
    if exposed is None:
        told = "The dose is not known: the sum is not dose-weighted. Give it with --dose-per-frame."
        return (told,) if wishes.dose_weighting else ()
    total = sum(exposed.of_frame)
    if total <= _USUAL_DOSE_E_PER_SQUARE_ANGSTROM:
        return ()
    return (
        f"The frames have {total:,.0f} e⁻/Å² in all, which no specimen withstands: is the dose of the whole movie given"
        " as that of a frame?",
    )
