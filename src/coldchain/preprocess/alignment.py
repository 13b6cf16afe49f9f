"""A movie that was read is aligned and written: what `coldchain align` and the pipeline's first step share.

| role | file | what it holds |
|---|---|---|
| micrograph | STEM.mrc | the sum, dose-weighted where the dose is known and nobody switched it off |
| unweighted | STEM_noDW.mrc | the plain sum |
| even, odd | STEM_even.mrc, STEM_odd.mrc | the sums of every second frame, counted from 1, weighted as the micrograph |
| spectrum | STEM_PS.mrc | the amplitude spectrum from which RELION fits a CTF |
| motion | STEM.star | RELION's motion STAR |
"""

from __future__ import annotations

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coldchain.compiled import in_bands
from coldchain.errors import ProcessingError, StorageError, StoreFullError
from coldchain.formats.mrc import write_mrc
from coldchain.formats.relion_motion import (
    EARLY_DOSE_E_PER_SQUARE_ANGSTROM,
    PatchShifts,
    RelionMotion,
    opposite,
    write_motion,
)
from coldchain.kernels.align import AlignedMovie, AlignmentParameters, align_movie
from coldchain.kernels.motion import Motion
from coldchain.kernels.orientation import GainCheck, Verdict, fitting_gain
from coldchain.preprocess.exposure import KnownExposure
from coldchain.preprocess.raw_movie import FramesWanted, RawMovie, Wishes

_SUM_ROWS = 16
_RELION_GAIN_SUFFIXES = frozenset((".mrc", ".tif", ".tiff"))


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """An aligned movie, with what has to be said and written beside its sums.

    pixel_size_angstrom : of the frames as they were read.
    numbers : (frames,) of the frames that were given to the alignment, from 1.
    camera_frames : of each frame of the movie.
    doses_e_per_square_angstrom : (frames,) how much the specimen was exposed from the beginning of each frame until
        that of the next, or None.
    gain_check : what the movie said of its gain reference; None where there is none.
    dose_weighted : whether the micrograph is.
    gain_check_seconds : what that took.
    """

    exposure: KnownExposure
    wanted: FramesWanted
    pixel_size_angstrom: float
    numbers: tuple[int, ...]
    camera_frames: tuple[int, ...]
    left_out: tuple[tuple[int, str], ...]
    doses_e_per_square_angstrom: tuple[float, ...] | None
    pre_exposure_e_per_square_angstrom: float
    aligned: AlignedMovie
    gain_check: GainCheck | None
    dose_weighted: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrackLengths:
    """Length of the whole frames' track in Å: in all, before and after the first 4 e⁻/Å²; None without a dose."""

    total_angstrom: float
    early_angstrom: float | None
    late_angstrom: float | None


def align_raw(raw: RawMovie, wishes: Wishes) -> Alignment:
    """Align a movie that was read.

    Raises ProcessingError where the gain reference does not fit the movie, and as `align_movie`.
    """
    exposure = raw.exposure
    pixel_size = exposure.pixel_size_angstrom / raw.wanted.eer_upsampling
    doses, pre_exposure = _doses(raw, wishes.pre_exposure_e_per_square_angstrom)
    weighting = wishes.dose_weighting and doses is not None
    gain, check = _fitting(raw, wishes)
    aligned = align_movie(
        raw.frames,
        gain=_to_electrons(gain, exposure.counts_per_electron, raw.frames.shape[1:]),
        defects=raw.defects,
        dark=raw.dark,
        parameters=AlignmentParameters(
            pixel_size_angstrom=pixel_size,
            voltage_kilovolt=exposure.voltage_kilovolt,
            dose_per_frame_e_per_square_angstrom=doses if weighting else None,
            pre_exposure_e_per_square_angstrom=pre_exposure,
            patches=wishes.patches,
            bin_factor=wishes.bin_factor,
            halves=wishes.halves,
            threads=wishes.threads,
        ),
    )
    about = [f"Frame {number} was left out: {reason}." for number, reason in raw.left_out]
    if doses is None and wishes.dose_weighting:
        about.append("The dose is not known: the sum is not dose-weighted. Give it with --dose-per-frame.")
    if check is not None and check.warning:
        about.append(check.warning)
    return Alignment(
        exposure=exposure,
        wanted=raw.wanted,
        pixel_size_angstrom=pixel_size,
        numbers=raw.numbers,
        camera_frames=raw.camera_frames,
        left_out=raw.left_out,
        doses_e_per_square_angstrom=doses,
        pre_exposure_e_per_square_angstrom=pre_exposure,
        aligned=aligned,
        gain_check=check,
        dose_weighted=weighting,
        warnings=(*exposure.warnings, *raw.warnings, *about, *aligned.warnings),
    )


def track_lengths(alignment: Alignment) -> TrackLengths:
    """How far the specimen moved on the whole."""
    motion, doses = alignment.aligned.motion, alignment.doses_e_per_square_angstrom
    steps = np.hypot(np.diff(motion.shift_x_pixel), np.diff(motion.shift_y_pixel)) * alignment.pixel_size_angstrom
    total = float(steps.sum())
    if doses is None:
        return TrackLengths(total, None, None)
    exposed = alignment.pre_exposure_e_per_square_angstrom + np.cumsum(doses)[1:]
    early = float(steps[exposed <= EARLY_DOSE_E_PER_SQUARE_ANGSTROM].sum())
    return TrackLengths(total, early, total - early)


def _doses(raw: RawMovie, given_pre_exposure: float) -> tuple[tuple[float, ...] | None, float]:
    """What each frame was exposed to, until the next one that is used began, and the exposure before the first."""
    dose = raw.exposure.dose_per_camera_frame_e_per_square_angstrom
    if dose is None:
        return None, given_pre_exposure
    ends = np.concatenate([[0.0], np.cumsum(raw.camera_frames) * dose])
    starts = ends[np.array(raw.numbers) - 1]
    until = np.append(starts[1:], ends[raw.numbers[-1]])
    return tuple((until - starts).tolist()), given_pre_exposure + float(starts[0])


def _fitting(raw: RawMovie, wishes: Wishes) -> tuple[NDArray[np.float32] | None, GainCheck | None]:
    """The gain reference as it has to be applied, and what the movie says of it."""
    if raw.gain is None:
        return None, None
    total = _raw_sum(raw.frames, wishes.threads)
    if raw.dark is not None and raw.dark.shape == total.shape:
        total -= np.float32(len(raw.frames)) * raw.dark
    try:
        return fitting_gain(
            total,
            raw.gain,
            automatic=wishes.gain_auto,
            either_sense=raw.exposure.info.container == "eer",
            defects=raw.defects,
        )
    except ProcessingError as error:
        raise ProcessingError(
            error.found, expected=error.expected, remedy=error.remedy, path=error.path or raw.exposure.gain
        ) from error


def _raw_sum(frames: NDArray[Any], threads: int) -> NDArray[np.float32]:
    total = np.empty(frames.shape[1:], dtype=np.float32)
    wide = np.uint32 if frames.dtype.kind == "u" else np.float64

    def add(first: int, end: int) -> None:
        for row in range(first, end, _SUM_ROWS):
            rows = slice(row, min(row + _SUM_ROWS, end))
            total[rows] = frames[:, rows].sum(axis=0, dtype=wide)

    in_bands(add, len(total), threads)
    return total


def _to_electrons(
    gain: NDArray[np.float32] | None, counts_per_electron: float, shape: tuple[int, ...]
) -> NDArray[np.float32] | None:
    if counts_per_electron == 1:
        return gain
    scale = np.float32(1 / counts_per_electron)
    return np.full(shape, scale, dtype=np.float32) if gain is None else gain * scale


def relion_motion(alignment: Alignment) -> RelionMotion:
    """The motion as RELION's STAR has it: every frame of the movie, in pixels of the frames as they were read."""
    exposure, aligned = alignment.exposure, alignment.aligned
    numbers = np.array(alignment.numbers)
    motion = _without_gaps(aligned.motion, numbers)
    local = len(motion.field_x) > 0
    polynomials = tuple(opposite(values) for values in motion.polynomials()) if local else (None, None)
    eer = exposure.info.container == "eer"
    camera_frames = alignment.camera_frames[0]
    dose = exposure.dose_per_camera_frame_e_per_square_angstrom
    return RelionMotion(
        width=motion.shape[1],
        height=motion.shape[0],
        movie_name=str(exposure.movie),
        shift_x_pixel=_listed(aligned.motion.shift_x_pixel, alignment),
        shift_y_pixel=_listed(aligned.motion.shift_y_pixel, alignment),
        gain_name=_gain_name(alignment),
        defect_name=None if exposure.defects is None else str(exposure.defects),
        bin_factor=aligned.pixel_size_angstrom / alignment.pixel_size_angstrom,
        pixel_size_angstrom=alignment.pixel_size_angstrom,
        dose_per_frame_e_per_square_angstrom=0.0 if dose is None else dose * camera_frames,
        pre_exposure_e_per_square_angstrom=alignment.pre_exposure_e_per_square_angstrom,
        voltage_kilovolt=exposure.voltage_kilovolt,
        first_frame=int(numbers[0]),
        eer_upsampling=alignment.wanted.eer_upsampling if eer else None,
        eer_grouping=camera_frames if eer else None,
        polynomial_x=polynomials[0],
        polynomial_y=polynomials[1],
        hot_pixels=aligned.hot_pixels,
        patches=_patch_shifts(aligned.motion, numbers) if local else PatchShifts(),
    )


def _without_gaps(motion: Motion, numbers: NDArray[np.int64]) -> Motion:
    """The motion with a place for every frame from the first to the last that was used: RELION's polynomial counts
    them all."""
    if np.all(np.diff(numbers) == 1):
        return motion
    every = np.arange(numbers[0], numbers[-1] + 1)

    def between(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([np.interp(every, numbers, row) for row in rows]).reshape(len(rows), every.size)

    track = between(np.stack([motion.shift_x_pixel, motion.shift_y_pixel]))
    return replace(
        motion,
        shift_x_pixel=track[0],
        shift_y_pixel=track[1],
        field_x=between(motion.field_x),
        field_y=between(motion.field_y),
    )


def _listed(displacement: NDArray[np.float64], alignment: Alignment) -> NDArray[np.float64]:
    """RELION's shift of every frame of the movie, NaN where one was not used."""
    shift = np.full(len(alignment.camera_frames), np.nan)
    shift[np.array(alignment.numbers) - 1] = opposite(displacement)
    return shift


def _patch_shifts(motion: Motion, numbers: NDArray[np.int64]) -> PatchShifts:
    local_x, local_y = motion.local_at(motion.patch_x_pixel, motion.patch_y_pixel)
    patches, frames = local_x.shape
    return PatchShifts(
        frame=np.tile(numbers, patches),
        x_pixel=np.repeat(motion.patch_x_pixel, frames),
        y_pixel=np.repeat(motion.patch_y_pixel, frames),
        shift_x_pixel=opposite(local_x).ravel(),
        shift_y_pixel=opposite(local_y).ravel(),
    )


def _gain_name(alignment: Alignment) -> str | None:
    """The reference's name, if RELION would apply it as it was applied here."""
    gain, check = alignment.exposure.gain, alignment.gain_check
    if gain is None or check is None or check.verdict not in (Verdict.FITS, Verdict.UNTOLD):
        return None
    wanted = frozenset((".gain",)) if alignment.exposure.info.container == "eer" else _RELION_GAIN_SUFFIXES
    return str(gain) if gain.suffix.lower() in wanted else None


def write_alignment(alignment: Alignment, folder: Path, stem: str, *, threads: int = 1) -> dict[str, str]:
    """Write an alignment's files into a folder; their names by role (see the module).

    Each file is whole or absent. Raises StorageError where one cannot be written.
    """
    aligned = alignment.aligned
    pictures = {
        "micrograph": (f"{stem}.mrc", aligned.micrograph),
        "unweighted": (f"{stem}_noDW.mrc", aligned.unweighted),
        "even": (f"{stem}_even.mrc", aligned.even),
        "odd": (f"{stem}_odd.mrc", aligned.odd),
        "spectrum": (f"{stem}_PS.mrc", aligned.amplitude_spectrum),
    }
    there = {role: (name, picture) for role, (name, picture) in pictures.items() if picture is not None}
    names = {role: name for role, (name, _) in there.items()} | {"motion": f"{stem}.star"}

    def write(role: str) -> None:
        name, picture = there[role]
        pixel = aligned.amplitude_spectrum_pixel_angstrom if role == "spectrum" else aligned.pixel_size_angstrom
        write_mrc(folder / name, picture, pixel_size_angstrom=pixel)

    write_motion(folder / names["motion"], relion_motion(alignment))
    with ThreadPoolExecutor(max(1, min(threads, len(there)))) as pool:
        list(pool.map(write, there))
    return names


def publish_alignment(alignment: Alignment, folder: Path, stem: str, *, threads: int = 1) -> dict[str, Path]:
    """Write an alignment's files, and give them their final names when all of them are whole; paths by role.

    Raises StorageError where that cannot be, StoreFullError where the disk is full; then nothing is left of them.
    """
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f".{stem}.", suffix=".part", dir=folder))
        try:
            names = write_alignment(alignment, scratch, stem, threads=threads)
            for name in names.values():
                (scratch / name).replace(folder / name)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except StoreFullError as error:
        raise StoreFullError(error.found, remedy="Make room, or name another folder with --out", path=folder) from error
    except StorageError as error:
        raise StorageError(error.found, expected=error.expected, remedy=error.remedy, path=folder) from error
    except OSError as error:
        raise StorageError(
            f"nothing can be written there ({error.strerror or error})",
            remedy="See to its permissions, or name another folder with --out",
            path=folder,
        ) from error
    return {role: folder / name for role, name in names.items()}
