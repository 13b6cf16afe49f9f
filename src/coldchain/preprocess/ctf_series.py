"""CTF fits of micrographs one after the other: each is read, fitted and written; a failure is that micrograph's own."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coldchain.model.optics import Optics
from coldchain.preprocess.fitted_list import FittedList
from coldchain.preprocess.imaging import Imaging, ImagingFinder
from coldchain.preprocess.known_picture import KnownPicture, read_known
from coldchain.preprocess.micrographs import is_spectrum
from coldchain.preprocess.output_names import CTF_ENDINGS
from coldchain.preprocess.publishing import ResultsFolder
from coldchain.preprocess.report import Failed
from coldchain.preprocess.turns import EXPECTED, failed, in_turn

if TYPE_CHECKING:
    from coldchain.kernels.ctf import CtfFit, CtfParameters

_NO_TILT = "A spectrum alone does not show a tilt: name the micrograph."


@dataclass(frozen=True, slots=True)
class CtfAsked:
    """What is asked of every fit, and where the results go.

    stated : what the user says of all micrographs.
    fit_phase_shift : whether it is fitted; else it is `phase_shift_degrees`.
    tilt : whether a tilt of the specimen is fitted.
    """

    stated: Optics
    folder: Path
    min_resolution_angstrom: float
    max_resolution_angstrom: float
    min_defocus_angstrom: float
    max_defocus_angstrom: float
    phase_shift_degrees: float = 0.0
    fit_phase_shift: bool = False
    tilt: bool = False
    threads: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CtfReport:
    """A micrograph whose CTF was fitted, as `coldchain ctf --json` prints it: the fields are its keys.

    See `CtfResult` for most of them. seconds : reading, fitting and writing. tilt_degrees, tilt_axis_degrees,
    tilt_uncertainty_degrees : None where no tilt was asked for, the last one also where the picture does not tell it.
    files : what was written, by role; none where there was nothing to fit. Numbers are rounded to what they can mean.
    """

    file: Path
    defocus_u_angstrom: float
    defocus_v_angstrom: float
    defocus_angle_degrees: float
    phase_shift_degrees: float
    score: float
    fit_resolution_angstrom: float
    ice_ring_density: float
    uncertainty_angstrom: float
    trustworthy: bool
    reason: str
    seconds: float
    tilt_degrees: float | None
    tilt_axis_degrees: float | None
    tilt_uncertainty_degrees: float | None
    pixel_size_angstrom: float
    voltage_kilovolt: float
    spherical_aberration_millimeter: float
    amplitude_contrast: float
    files: dict[str, Path]
    warnings: tuple[str, ...]


def fit_all(paths: Sequence[Path], asked: CtfAsked) -> Generator[CtfReport | Failed, None, None]:
    """Fit micrographs and spectra in turn; what became of each is told as soon as it is written. At the end those that
    can be believed are listed for RELION, also where the series is ended before; where that fails, it is told as of a
    micrograph."""
    stages, is_through = _Stages(asked), False
    try:
        yield from in_turn(paths, stages, asked.threads)
        is_through = True
    finally:
        not_written = stages.write_list(is_through=is_through)
    if not_written is not None:
        yield not_written


@dataclass(frozen=True, slots=True, eq=False)
class _Fitted:
    path: Path
    fit: CtfFit
    imaging: Imaging
    warnings: tuple[str, ...]
    with_tilt: bool
    seconds: float


class _Stages:
    """What is done to a micrograph, step by step. One that failed is passed on as it is.

    The kernels are imported where they are needed, and not with this module: it takes longer than reading a micrograph.
    """

    def __init__(self, asked: CtfAsked) -> None:
        self._asked = asked
        self._imaging = ImagingFinder(asked.stated, needs_voltage=True)
        self._results = ResultsFolder(asked.folder, CTF_ENDINGS)
        has_phase = asked.fit_phase_shift or asked.phase_shift_degrees != 0
        self._listed = FittedList(asked.folder, self._imaging, has_phase_shift=has_phase)

    def import_kernels(self) -> None:
        import coldchain.kernels.ctf
        import coldchain.preprocess.ctf_files  # noqa: F401

    def read(self, path: Path, threads: int) -> KnownPicture | Failed:  # noqa: ARG002  # one picture, one thread
        return read_known(path, self._imaging)

    def work(self, read: KnownPicture | Failed) -> _Fitted | Failed:
        if isinstance(read, Failed):
            return read
        from coldchain.kernels.ctf import fit_ctf, fit_ctf_spectrum

        began = time.perf_counter()
        spectrum = is_spectrum(read.path)
        parameters = self._parameters(read.imaging, tilt=self._asked.tilt and not spectrum)
        try:
            fit = (fit_ctf_spectrum if spectrum else fit_ctf)(read.picture.pixels, parameters)
        except EXPECTED as error:
            return failed(error, read.path)
        warnings = read.warnings
        if self._asked.tilt and spectrum:
            warnings += (_NO_TILT,)
        seconds = read.seconds + time.perf_counter() - began
        return _Fitted(read.path, fit, read.imaging, warnings, parameters.tilt, seconds)

    def _parameters(self, imaging: Imaging, *, tilt: bool) -> CtfParameters:
        from coldchain.kernels.ctf import CtfParameters

        asked = self._asked
        assert imaging.voltage_kilovolt is not None
        return CtfParameters(
            pixel_size_angstrom=imaging.pixel_size_angstrom,
            voltage_kilovolt=imaging.voltage_kilovolt,
            spherical_aberration_millimeter=imaging.spherical_aberration_millimeter,
            amplitude_contrast=imaging.amplitude_contrast,
            min_resolution_angstrom=asked.min_resolution_angstrom,
            max_resolution_angstrom=asked.max_resolution_angstrom,
            min_defocus_angstrom=asked.min_defocus_angstrom,
            max_defocus_angstrom=asked.max_defocus_angstrom,
            phase_shift_degrees=asked.phase_shift_degrees,
            fit_phase_shift=asked.fit_phase_shift,
            tilt=tilt,
            threads=asked.threads,
        )

    def write(self, fitted: _Fitted | Failed, threads: int) -> CtfReport | Failed:  # noqa: ARG002  # small files
        if isinstance(fitted, Failed):
            return fitted
        from coldchain.preprocess.ctf_files import write_fit

        began = time.perf_counter()
        try:
            self._results.read.add(fitted.path)
            files = self._results.publish(fitted.path, lambda scratch: write_fit(fitted.fit, scratch, fitted.path.stem))
            unlisted = self._listed.add(fitted.path, fitted.fit.result, fitted.imaging, files)
        except EXPECTED as error:
            return failed(error, fitted.path)
        return _report(fitted, files, unlisted, fitted.seconds + time.perf_counter() - began)

    def write_list(self, *, is_through: bool) -> Failed | None:
        """Write RELION's list. One that is there stays where the series was ended before anything could be listed."""
        if not (is_through or self._listed):
            return None
        try:
            self._listed.write()
        except EXPECTED as error:
            return failed(error, self._listed.path)
        return None


def _report(fitted: _Fitted, files: dict[str, Path], unlisted: tuple[str, ...], seconds: float) -> CtfReport:
    result, imaging, fit = fitted.fit.result, fitted.imaging, fitted.fit
    tilt_error = fit.tilt_uncertainty_degrees
    assert imaging.voltage_kilovolt is not None
    return CtfReport(
        file=fitted.path,
        defocus_u_angstrom=round(result.defocus_u_angstrom, 1),
        defocus_v_angstrom=round(result.defocus_v_angstrom, 1),
        defocus_angle_degrees=round(result.defocus_angle_degrees, 3),
        phase_shift_degrees=round(result.phase_shift_degrees, 3),
        score=round(result.score, 3),
        fit_resolution_angstrom=round(result.fit_resolution_angstrom, 4),
        ice_ring_density=round(result.ice_ring_density, 4),
        uncertainty_angstrom=round(result.uncertainty_angstrom, 1),
        trustworthy=result.trustworthy,
        reason=result.reason,
        seconds=round(seconds, 4),
        tilt_degrees=round(fit.tilt_degrees, 2) if fitted.with_tilt else None,
        tilt_axis_degrees=round(fit.tilt_axis_degrees, 2) if fitted.with_tilt else None,
        tilt_uncertainty_degrees=None if tilt_error is None else round(tilt_error, 2),
        pixel_size_angstrom=imaging.pixel_size_angstrom,
        voltage_kilovolt=imaging.voltage_kilovolt,
        spherical_aberration_millimeter=imaging.spherical_aberration_millimeter,
        amplitude_contrast=imaging.amplitude_contrast,
        files=files,
        warnings=fitted.warnings + unlisted,
    )
