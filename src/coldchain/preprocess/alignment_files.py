"""What an alignment leaves on the disk.

| role | file | what it holds |
|---|---|---|
| micrograph | STEM.mrc | the sum, dose-weighted where the dose is known and nobody switched it off |
| unweighted | STEM_noDW.mrc | the plain sum |
| even, odd | STEM_even.mrc, STEM_odd.mrc | the sums of every second frame, counted from 1, weighted as the micrograph |
| spectrum | STEM_PS.mrc | the amplitude spectrum to which RELION fits a CTF |
| motion | STEM.star | RELION's motion STAR |
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coldchain.formats.mrc import write_mrc
from coldchain.formats.relion_motion import PatchShifts, RelionMotion, opposite, write_motion
from coldchain.kernels.motion import Motion
from coldchain.preprocess.alignment import Alignment
from coldchain.preprocess.output_names import ENDINGS
from coldchain.preprocess.publishing import ResultsFolder
from coldchain.preprocess.relion_gain import AppliedGains
from coldchain.preprocess.relion_names import relion_name

# RELION reads each as a row of text, and a table of millions takes it minutes for every movie.
_MOST_HOT_PIXELS = 100_000


def write_alignment(
    alignment: Alignment, folder: Path, stem: str, *, gain_name: str | None = None, threads: int = 1
) -> dict[str, str]:
    """Write an alignment's files into a folder; their names by role (see the module). Each is whole or absent.

    Parameters
    ----------
    gain_name : of the gain reference, as RELION is to find it and as it has to be applied (`relion_gain`).
    threads : so many files are written at once.

    Raises StorageError where a file cannot be written, FormatError where the movie's name cannot stand in a STAR.
    """
    aligned = alignment.aligned
    pictures = {
        "micrograph": aligned.micrograph,
        "unweighted": aligned.unweighted,
        "even": aligned.even,
        "odd": aligned.odd,
        "spectrum": aligned.amplitude_spectrum,
    }

    def write(role: str) -> None:
        picture = pictures[role]
        assert picture is not None
        pixel = aligned.amplitude_spectrum_pixel_angstrom if role == "spectrum" else aligned.pixel_size_angstrom
        write_mrc(folder / names[role], picture, pixel_size_angstrom=pixel)

    names = {role: stem + ENDINGS[role] for role, picture in pictures.items() if picture is not None}
    with ThreadPoolExecutor(max(1, min(threads, len(names)))) as pool:
        list(pool.map(write, list(names)))
    names["motion"] = stem + ENDINGS["motion"]
    write_motion(folder / names["motion"], relion_motion(alignment, gain_name=gain_name))
    return names


class Publisher:
    """Writes alignments into a folder, each under its final names only when all of its files are whole."""

    def __init__(self, folder: Path) -> None:
        self._results = ResultsFolder(folder, ENDINGS)
        self._gains = AppliedGains(folder)

    def publish(self, alignment: Alignment, *, threads: int = 1) -> dict[str, Path]:
        """Write an alignment; its files by role. Raises as `ResultsFolder.publish`.

        A gain reference that RELION could not use lies beside the results as it was applied (`relion_gain`).
        """
        exposure = alignment.exposure
        # References that only the metadata name were not known when the call was checked.
        for path in (exposure.movie, exposure.gain, exposure.defects, exposure.dark):
            if path is not None:
                self._results.read.add(path)

        def write(scratch: Path) -> dict[str, str]:
            gain = self._gains.for_relion(alignment)
            gain_name = None if gain is None else str(gain)
            return write_alignment(alignment, scratch, exposure.movie.stem, gain_name=gain_name, threads=threads)

        return self._results.publish(exposure.movie, write)


def relion_motion(alignment: Alignment, *, gain_name: str | None = None) -> RelionMotion:
    """The motion as RELION's STAR has it: of every frame of the movie, in pixels of the frames as they were read."""
    exposure, aligned = alignment.exposure, alignment.aligned
    motion, numbers = _of_used_frames(alignment)
    local = len(motion.field_x) > 0
    polynomials = _without_gaps(motion, numbers).polynomials() if local else None
    per_frame = alignment.camera_frames[0]  # RELION counts equal fractions from the movie's first frame
    dose = exposure.frame_dose_e_per_square_angstrom
    return RelionMotion(
        width=motion.shape[1],
        height=motion.shape[0],
        movie_name=relion_name(exposure.movie),
        shift_x_pixel=_listed(motion.shift_x_pixel, numbers, len(alignment.camera_frames)),
        shift_y_pixel=_listed(motion.shift_y_pixel, numbers, len(alignment.camera_frames)),
        gain_name=None if gain_name is None else relion_name(Path(gain_name)),
        defect_name=None if exposure.defects is None else relion_name(exposure.defects),
        bin_factor=aligned.pixel_size_angstrom / alignment.pixel_size_angstrom,
        pixel_size_angstrom=alignment.pixel_size_angstrom,
        dose_per_frame_e_per_square_angstrom=0.0 if dose is None else dose * per_frame,
        pre_exposure_e_per_square_angstrom=_pre_exposure(alignment),
        voltage_kilovolt=exposure.voltage_kilovolt,
        first_frame=int(numbers[0]),
        eer_upsampling=alignment.wanted.eer_upsampling if exposure.is_eer else None,
        eer_grouping=per_frame if exposure.is_eer else None,
        polynomial_x=None if polynomials is None else opposite(polynomials[0]),
        polynomial_y=None if polynomials is None else opposite(polynomials[1]),
        hot_pixels=aligned.hot_pixels[: 0 if _too_many(aligned.hot_pixels) else None],
        patches=_patch_shifts(motion, numbers) if local else PatchShifts(),
    )


def about_relion(alignment: Alignment) -> tuple[str, ...]:
    """What polishing could not do as it was done here: it corrects the movie's frames by itself."""
    exposure, hot = alignment.exposure, alignment.aligned.hot_pixels
    warnings = []
    if exposure.dark is not None or exposure.counts_per_electron != 1:
        warnings.append(
            "RELION neither subtracts a dark reference nor divides by counts per electron: its polishing would correct "
            "the frames otherwise than was done here."
        )
    if _too_many(hot):
        warnings.append(
            f"{len(hot):,} defects were found, too many for RELION's motion STAR, which lists none: its polishing does "
            "not know of them."
        )
    return tuple(warnings)


def _pre_exposure(alignment: Alignment) -> float:
    """Before the movie's own first frame: RELION counts the dose of the frames that are left out itself."""
    dose = alignment.exposure.frame_dose_e_per_square_angstrom or 0.0
    return alignment.pre_exposure_e_per_square_angstrom - dose * sum(
        alignment.camera_frames[: alignment.numbers[0] - 1]
    )


def _of_used_frames(alignment: Alignment) -> tuple[Motion, NDArray[np.int64]]:
    """The motion of the frames that were added up, and their numbers in the movie; blank ones are not among them."""
    motion, used = alignment.aligned.motion, alignment.aligned.used
    chosen = replace(
        motion,
        shift_x_pixel=motion.shift_x_pixel[used],
        shift_y_pixel=motion.shift_y_pixel[used],
        field_x=motion.field_x[:, used],
        field_y=motion.field_y[:, used],
    )
    return chosen, np.array(alignment.numbers)[used]


def _too_many(hot_pixels: NDArray[np.int64]) -> bool:
    return len(hot_pixels) > _MOST_HOT_PIXELS


def _without_gaps(motion: Motion, numbers: NDArray[np.int64]) -> Motion:
    """The motion with a place for every frame from the first to the last that was used: RELION's polynomial counts
    them all."""
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


def _listed(displacement: NDArray[np.float64], numbers: NDArray[np.int64], frames: int) -> NDArray[np.float64]:
    """RELION's shift of every frame of the movie, NaN where one was not used."""
    shift = np.full(frames, np.nan)
    shift[numbers - 1] = opposite(displacement)
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
