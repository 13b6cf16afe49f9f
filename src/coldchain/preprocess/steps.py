"""The steps themselves, as a worker runs them: files in, a folder of files and a result out. No catalog here.

A step writes into a scratch folder of its own and renames it to its final name when everything in it is on the disk, so
that nothing half-written ever stands under a final name, whatever kills the worker.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from coldchain.errors import ColdchainError, ProcessingError, StorageError, StoreFullError
from coldchain.formats.coordinates import write_coordinates
from coldchain.formats.image import read_image
from coldchain.formats.movie import probe_movie
from coldchain.formats.mrc import read_mrc, write_mrc
from coldchain.kernels.brightness import measure_brightness
from coldchain.kernels.ctf import CtfParameters, fit_ctf
from coldchain.kernels.persistence import Pattern, pattern_of_image
from coldchain.kernels.pick import PickParameters, find_particles
from coldchain.model.results import MotionResult, Step, StepResult
from coldchain.preprocess import ctf_files, pick_files, previews
from coldchain.preprocess.alignment import Alignment, align_raw, track_lengths
from coldchain.preprocess.alignment_files import about_relion, write_alignment
from coldchain.preprocess.camera import PATTERN_NAME, pattern_of_movie, share_applied
from coldchain.preprocess.exposure import KnownExposure, share_of_dose
from coldchain.preprocess.micrographs import Picture
from coldchain.preprocess.raw_movie import read_raw
from coldchain.preprocess.relion_gain import AppliedGains
from coldchain.preprocess.step_job import StepJob, StepOutcome
from coldchain.preprocess.wishes import FramesWanted, Wishes

Written = tuple[dict[str, str], StepResult | None, tuple[str, ...]]


def run_step(job: StepJob) -> StepOutcome:
    """Run a step in this process. Raises ColdchainError: a FormatError or ProcessingError where the input is at fault,
    a StoreFullError where the results' disk is full."""
    began = time.perf_counter()
    try:
        made = _make_folder(job.scratch)
        outputs, result, warnings = _HANDLERS[job.step](job)
        _publish(job, made)
    except OSError as error:
        raise _explain(error, job) from error
    except MemoryError as error:
        raise ProcessingError(
            "there was not enough memory", remedy="Lower compute.workers.", path=_main_input(job)
        ) from error
    finally:
        shutil.rmtree(job.scratch, ignore_errors=True)
    return StepOutcome(outputs, result, time.perf_counter() - began, warnings)


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder; gives the folders in which a new one now stands."""
    missing = [folder, *(parent for parent in folder.parents if not parent.exists())]
    folder.mkdir(parents=True)
    return [path.parent for path in missing]


def _publish(job: StepJob, made: list[Path]) -> None:
    """Flush every file of the scratch folder, then give the folder its final name, and flush what names it."""
    for path in [*job.scratch.iterdir(), job.scratch]:
        _flush(path)
    if job.folder.exists():
        # Left by a run that was killed after its renaming and before its entry in the catalog: this one is as good.
        shutil.rmtree(job.folder)
    job.scratch.rename(job.folder)
    for folder in dict.fromkeys([job.folder.parent, *made]):
        _flush(folder)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explain(error: OSError, job: StepJob) -> ColdchainError:
    path = error.filename if isinstance(error.filename, str) else job.scratch
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StoreFullError("the disk is full", remedy="Make room on it", path=path)
    return StorageError(
        f"cannot be read or written ({error.strerror or error})", remedy="Check permissions and the disk", path=path
    )


def _main_input(job: StepJob) -> Path:
    return next(iter(job.inputs.values()))


def _number(job: StepJob, name: str) -> float:
    value = job.parameters[name]
    assert isinstance(value, int | float)
    return float(value)


def _align(job: StepJob) -> Written:
    raw = read_raw(_exposure(job), FramesWanted(), threads=job.threads)
    alignment = align_raw(raw, Wishes(gain_auto=True, threads=job.threads))
    gain = AppliedGains(job.scratch).for_relion(alignment)
    if gain is not None and gain.parent == job.scratch:
        applied, gain = {"gain": gain.name}, job.folder / gain.name  # as it is called when all is published
    else:
        applied = {}
    gain_name = None if gain is None else str(gain)
    outputs = write_alignment(alignment, job.scratch, "micrograph", gain_name=gain_name, threads=job.threads)
    outputs |= applied | _write_pattern(job, pattern_of_movie(raw, alignment))
    return outputs, motion_result(alignment), alignment.warnings + about_relion(alignment)


def _exposure(job: StepJob) -> KnownExposure:
    info = probe_movie(job.inputs["movie"])
    planned = job.parameters.get("frame_count")
    dose, warnings = share_of_dose(
        _number(job, "dose_e_per_square_angstrom"), planned if isinstance(planned, int) else None, info
    )
    return KnownExposure(
        info=info,
        pixel_size_angstrom=_number(job, "pixel_size_angstrom"),
        voltage_kilovolt=_number(job, "voltage_kilovolt"),
        frame_dose_e_per_square_angstrom=dose,
        gain=job.inputs.get("gain"),
        defects=job.inputs.get("defects"),
        warnings=warnings,
    )


def motion_result(alignment: Alignment) -> MotionResult:
    """The track in Å, and its length: in all, and before and after the first 4 e⁻/Å²; its error; what the movie says of
    its gain reference."""
    motion, lengths = alignment.aligned.motion, track_lengths(alignment)
    check = alignment.aligned.gain_check
    assert lengths.early_angstrom is not None  # the dose of a facility's exposure is known
    assert lengths.late_angstrom is not None
    return MotionResult(
        shift_x_angstrom=tuple((motion.shift_x_pixel * alignment.pixel_size_angstrom).tolist()),
        shift_y_angstrom=tuple((motion.shift_y_pixel * alignment.pixel_size_angstrom).tolist()),
        total_motion_angstrom=lengths.total_angstrom,
        early_motion_angstrom=lengths.early_angstrom,
        late_motion_angstrom=lengths.late_angstrom,
        dose_weighted=alignment.dose_weighted,
        error_angstrom=alignment.aligned.error_angstrom,
        gain_verdict=None if check is None else check.verdict.value,
        gain_share=None if check is None else share_applied(check),
    )


def _ctf(job: StepJob) -> Written:
    fit = fit_ctf(
        read_image(job.inputs["image"]),
        CtfParameters(
            pixel_size_angstrom=_number(job, "pixel_size_angstrom"),
            voltage_kilovolt=_number(job, "voltage_kilovolt"),
            spherical_aberration_millimeter=_number(job, "spherical_aberration_millimeter"),
            amplitude_contrast=_number(job, "amplitude_contrast"),
            threads=job.threads,
        ),
    )
    outputs = {"profile": "profile.json"}
    if fit.diagnostic.size:  # an image too small or too empty has no spectrum to show
        outputs["diagnostic"] = "diagnostic.mrc"
        ctf_files.write_diagnostic(fit, job.scratch / outputs["diagnostic"])
    (job.scratch / outputs["profile"]).write_text(ctf_files.profile_document(fit), encoding="ascii")
    return outputs, fit.result, ()


def _pick(job: StepJob) -> Written:
    diameter = job.parameters["particle_diameter_angstrom"]
    assert diameter is None or isinstance(diameter, int | float)
    image = job.inputs["image"]
    picture = Picture(read_image(image), probe_movie(image, whole=False))
    picking = find_particles(
        picture.pixels,
        PickParameters(
            pixel_size_angstrom=_number(job, "pixel_size_angstrom"), diameter_angstrom=diameter, threads=job.threads
        ),
    )
    outputs = {"picks": "picks.star", "junk": "junk.json"}
    write_coordinates(job.scratch / outputs["picks"], pick_files.picks_for_programs(picking, picture))
    pick_files.write_outlines(picking, picture, job.scratch / outputs["junk"])
    return outputs, replace(picking.result, contamination_fraction=picking.contamination_fraction), ()


def _preview(job: StepJob) -> Written:
    image = read_image(job.inputs["image"])
    previews.write_micrograph(image, job.scratch)
    outputs = {
        "micrograph_png": previews.MICROGRAPH_NAME,
        "thumbnail_png": previews.THUMBNAIL_NAME,
        "scale": previews.SCALE_NAME,
    }
    if "diagnostic" in job.inputs:
        outputs["spectrum_png"] = previews.SPECTRUM_NAME
        previews.write_spectrum(read_mrc(job.inputs["diagnostic"]), job.scratch / previews.SPECTRUM_NAME)
    return outputs, None, ()


def _quality(job: StepJob) -> Written:
    image = read_image(job.inputs["image"])
    dose = job.parameters["dose_e_per_square_angstrom"]
    assert dose is None or isinstance(dose, int | float)
    result = measure_brightness(image, _number(job, "pixel_size_angstrom"), dose)
    # A movie's pattern was taken where its frames lie, before motion was undone.
    outputs = {} if "pattern" in job.inputs else _write_pattern(job, pattern_of_image(image))
    return outputs, result, ()


def _write_pattern(job: StepJob, pattern: Pattern | None) -> dict[str, str]:
    if pattern is None:
        return {}
    write_mrc(job.scratch / PATTERN_NAME, pattern, pixel_size_angstrom=_number(job, "pixel_size_angstrom"))
    return {"pattern": PATTERN_NAME}


_HANDLERS: Mapping[Step, Callable[[StepJob], Written]] = {
    Step.ALIGN: _align,
    Step.CTF: _ctf,
    Step.PICK: _pick,
    Step.PREVIEW: _preview,
    Step.QUALITY: _quality,
}
