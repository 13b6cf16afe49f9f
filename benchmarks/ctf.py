"""CTF estimation against planted optics, on noise, on a real micrograph, and against the clock.

    python -m benchmarks ctf [--quick] [--structure FILE] [--cache DIR]

Sums are those of `benchmarks.sums`, of 5A1A where COLDCHAIN_REAL_DATA names its folder. An error is *unwarned* where a
fit is called trustworthy and its mean defocus is farther off than the uncertainty that it states.
"""

from __future__ import annotations

import argparse
import gzip
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.alignment import find_structure
from benchmarks.movies import cache_folder
from benchmarks.sums import bench_sum, ctf_sums, phase_plate_sums, simulate_sum, sum_parameters, thin_ice_sums
from benchmarks.table import Bar, Table
from coldchain.formats.mrc import read_mrc
from coldchain.kernels.ctf import CtfFit, CtfParameters, fit_ctf, fit_ctf_spectrum
from coldchain.kernels.fourier import rfft2
from coldchain.kernels.sums import amplitude_spectrum
from coldchain.model.results import CtfResult
from coldchain.simulate.specimen import load_specimen
from coldchain.simulate.truth import MovieParameters

REAL = "micrographs/epu2.9_example.mrc.gz"
REAL_MEAN_ANGSTROM = 0.5 * (27294 + 27148)  # CTFFIND 5
SMALL_ASTIGMATISM_ANGSTROM = 200.0
STANDARD_ERRORS = 3.0
TRUSTED = Bar(least=0.95)
MEAN, ASTIGMATISM, ANGLE = Bar(most=40), Bar(most=60), Bar(most=5)
PHASE_PLATE_MEAN, PHASE = Bar(most=150), Bar(most=8)
UNWARNED = Bar(most=0)
REAL_OFF, REAL_RINGS = Bar(most=150), Bar(most=3.6)
SECONDS = Bar(most=0.25)
NOISE_TRUSTED = Bar(most=1)
NOISE_SIZES = (256, 320, 384, 512, 768, 1024)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A planted CTF and what was found."""

    planted: MovieParameters
    found: CtfResult

    @property
    def mean_error_angstrom(self) -> float:
        """Of (U + V) / 2."""
        return 0.5 * (self._off("defocus_u_angstrom") + self._off("defocus_v_angstrom"))

    @property
    def astigmatism_error_angstrom(self) -> float:
        """Of U − V."""
        return self._off("defocus_u_angstrom") - self._off("defocus_v_angstrom")

    @property
    def angle_error_degrees(self) -> float:
        """Of the azimuth, from −90 to 90."""
        return (self._off("defocus_angle_degrees") + 90) % 180 - 90

    @property
    def phase_error_degrees(self) -> float:
        """Of the phase shift, from −90 to 90."""
        return (self._off("phase_shift_degrees") + 90) % 180 - 90

    @property
    def is_unwarned(self) -> bool:
        """Whether it is wrong and called trustworthy."""
        return self.found.trustworthy and abs(self.mean_error_angstrom) > self.found.uncertainty_angstrom

    @property
    def standard_errors(self) -> tuple[float, float]:
        """The errors of U and V over the standard error that is stated."""
        sigma = self.found.uncertainty_angstrom / STANDARD_ERRORS
        return self._off("defocus_u_angstrom") / sigma, self._off("defocus_v_angstrom") / sigma

    def _off(self, name: str) -> float:
        return float(getattr(self.found, name)) - float(getattr(self.planted, name))


def parameters_of(planted: MovieParameters, *, fit_phase_shift: bool = False, threads: int = 2) -> CtfParameters:
    """What the fit is told of a simulated sum."""
    return CtfParameters(
        planted.pixel_size_angstrom,
        planted.voltage_kilovolt,
        planted.spherical_aberration_millimeter,
        planted.amplitude_contrast,
        fit_phase_shift=fit_phase_shift,
        threads=threads,
    )


def rms(values: Sequence[float]) -> float:
    """Root mean square; NaN of nothing."""
    return math.sqrt(statistics.fmean(v * v for v in values)) if values else math.nan


def fit_sums(
    planted: Sequence[MovieParameters], structure: Path | None, cache: Path, *, fit_phase_shift: bool = False
) -> list[Outcome]:
    """Fit every sum."""
    outcomes = []
    for parameters in planted:
        image = bench_sum(parameters, structure=structure, cache=cache).read()
        fit = fit_ctf(image, parameters_of(parameters, fit_phase_shift=fit_phase_shift))
        outcomes.append(Outcome(parameters, fit.result))
    return outcomes


def fit_spectra(planted: Sequence[MovieParameters], structure: Path | None) -> list[Outcome]:
    """Fit the amplitude spectrum that an alignment would write of every exposure-filtered sum."""
    specimen = load_specimen(structure, seed=1)
    outcomes = []
    for parameters in planted:
        image, _ = simulate_sum(parameters, specimen, exposure_filtered=True)
        pixel = parameters.pixel_size_angstrom
        amplitudes, pixel = amplitude_spectrum(rfft2(image), (image.shape[0], image.shape[1]), pixel, pixel)
        told = parameters_of(parameters)
        fit = fit_ctf_spectrum(amplitudes, _with_pixel(told, pixel))
        outcomes.append(Outcome(parameters, fit.result))
    return outcomes


def _with_pixel(parameters: CtfParameters, pixel_size_angstrom: float) -> CtfParameters:
    return CtfParameters(
        pixel_size_angstrom,
        parameters.voltage_kilovolt,
        parameters.spherical_aberration_millimeter,
        parameters.amplitude_contrast,
    )


def noise(case: int) -> tuple[NDArray[np.generic], CtfParameters]:
    """An image of noise alone and the optics that it is said to have: white, coloured or counted, of several sizes."""
    random = np.random.default_rng([77, case])
    shape = (int(random.choice(NOISE_SIZES)), int(random.choice(NOISE_SIZES)))
    told = CtfParameters(float(random.uniform(0.6, 1.6)), float(random.choice([200.0, 300.0])), 2.7)
    white = random.standard_normal(shape)
    squared = np.fft.rfftfreq(shape[1])[np.newaxis, :] ** 2 + np.fft.fftfreq(shape[0])[:, np.newaxis] ** 2

    def coloured(amplitude: NDArray[np.float64]) -> NDArray[np.float64]:
        values: NDArray[np.float64] = np.fft.irfft2(np.fft.rfft2(random.standard_normal(shape)) * amplitude, shape)
        return values

    if case % 4 == 1:
        return (white + coloured(0.1 / (0.02 + np.sqrt(squared)))).astype(np.float32), told
    if case % 4 == 2:
        smooth = 20 + 3 * coloured(np.exp(-squared * random.uniform(5, 200)))
        return random.poisson(np.maximum(smooth, 0)).astype(np.uint8), told
    if case % 4 == 3:
        bump = np.exp(-((np.sqrt(squared) - random.uniform(0.1, 0.4)) ** 2) / 0.002)
        return coloured(0.3 + np.exp(-squared * random.uniform(5, 60)) + 0.5 * bump).astype(np.float32), told
    return white.astype(np.float32), told


def _errors(outcomes: Sequence[Outcome], table: Table) -> list[Outcome]:
    trusted = [outcome for outcome in outcomes if outcome.found.trustworthy]
    table.judge("called trustworthy, of all", len(trusted) / len(outcomes), TRUSTED)
    return trusted


def measure_sums(outcomes: Sequence[Outcome], table: Table) -> None:
    """The bars of sums whose phase shift is known."""
    trusted = _errors(outcomes, table)
    table.judge("mean defocus, rms error", rms([o.mean_error_angstrom for o in trusted]), MEAN, digits=1, unit=" Å")
    error = rms([o.astigmatism_error_angstrom for o in trusted])
    table.judge("astigmatism, rms error", error, ASTIGMATISM, digits=1, unit=" Å")
    error = rms([o.angle_error_degrees for o in trusted if _astigmatism(o) > SMALL_ASTIGMATISM_ANGSTROM])
    table.judge("its angle beyond 200 Å, rms error", error, ANGLE, digits=2, unit="°")
    _calibration(outcomes, table)


def _astigmatism(outcome: Outcome) -> float:
    return outcome.planted.defocus_u_angstrom - outcome.planted.defocus_v_angstrom


def _calibration(outcomes: Sequence[Outcome], table: Table) -> None:
    table.judge("errors without a warning", sum(o.is_unwarned for o in outcomes), UNWARNED, digits=0)
    errors = [error for o in outcomes if o.found.trustworthy for error in o.standard_errors]
    if errors:
        ratio = rms(errors)
        table.row("error of U and V over the stated standard error, rms", f"{ratio:.2f}", "1 where well stated")


def measure_phase_plate(outcomes: Sequence[Outcome], table: Table) -> None:
    """The bars of sums whose phase shift is fitted."""
    trusted = _errors(outcomes, table)
    error = rms([o.mean_error_angstrom for o in trusted])
    table.judge("mean defocus, rms error", error, PHASE_PLATE_MEAN, digits=1, unit=" Å")
    table.judge("phase shift, rms error", rms([o.phase_error_degrees for o in trusted]), PHASE, digits=2, unit="°")
    _calibration(outcomes, table)


def measure_thin_ice(outcomes: Sequence[Outcome], table: Table) -> None:
    """Sums that hold little information: only that nothing is wrong without a warning is asked of them."""
    trusted = [outcome for outcome in outcomes if outcome.found.trustworthy]
    table.row("called trustworthy, of all", f"{len(trusted) / len(outcomes):.3f}")
    if trusted:
        table.row("mean defocus, rms error", f"{rms([o.mean_error_angstrom for o in trusted]):.1f} Å")
        table.row("astigmatism, rms error", f"{rms([o.astigmatism_error_angstrom for o in trusted]):.1f} Å")
    _calibration(outcomes, table)


def measure_noise(count: int, table: Table) -> None:
    """How often noise is believed."""
    trusted = sum(fit_ctf(*noise(case)).result.trustworthy for case in range(count))
    table.judge(f"called trustworthy, of {count}", trusted, NOISE_TRUSTED, digits=0)


def real_micrograph() -> tuple[NDArray[np.generic], CtfParameters] | None:
    """EPU's example, 0.667 Å, 300 kV; None where it is not."""
    named = os.environ.get("COLDCHAIN_REAL_DATA")
    if not named or not (Path(named) / REAL).exists():
        return None
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "real.mrc")
        plain.write_bytes(gzip.decompress((Path(named) / REAL).read_bytes()))
        return read_mrc(plain), CtfParameters(0.667, 300.0, 2.7, threads=2)


def measure_real(table: Table) -> None:
    """The real micrograph beside what CTFFIND 5 says."""
    real = real_micrograph()
    if real is None:
        table.row("skipped: COLDCHAIN_REAL_DATA names no folder with it", "–")
        return
    result = fit_ctf(*real).result
    off = abs(0.5 * (result.defocus_u_angstrom + result.defocus_v_angstrom) - REAL_MEAN_ANGSTROM)
    table.judge("mean defocus, off CTFFIND's 27,221 Å", off, REAL_OFF, digits=1, unit=" Å")
    table.judge("rings to", result.fit_resolution_angstrom, REAL_RINGS, digits=2, unit=" Å")
    table.row("U, V", f"{result.defocus_u_angstrom:.0f}, {result.defocus_v_angstrom:.0f}", "CTFFIND 5: 27294, 27148 Å")
    table.row("azimuth", f"{result.defocus_angle_degrees:.1f}°", "CTFFIND 5: 86.0°")
    table.row("trustworthy, uncertainty", f"{result.trustworthy}, {result.uncertainty_angstrom:.0f} Å")


def measure_time(structure: Path | None, cache: Path, runs: int, table: Table) -> None:
    """The median of warm runs, two threads, on 4096²."""
    large = sum_parameters(0, 5, height=4096, width=4096, pixel_size_angstrom=0.85, ice_thickness_angstrom=300.0)
    pictures: dict[str, Callable[[], CtfFit]] = {}
    image = bench_sum(large, structure=structure, cache=cache).read()
    pictures["simulated, 0.85 Å"] = lambda: fit_ctf(image, parameters_of(large))
    if (real := real_micrograph()) is not None:
        pictures["real, 0.667 Å"] = lambda: fit_ctf(*real)
    for name, fit in pictures.items():
        fit()
        seconds = []
        for _ in range(runs):
            began = time.perf_counter()
            fit()
            seconds.append(time.perf_counter() - began)
        table.judge(f"4096², {name}, 2 threads, median", statistics.median(seconds), SECONDS, unit=" s")


def main(arguments: Sequence[str]) -> None:
    """Measure and print; nothing is returned."""
    parser = argparse.ArgumentParser(prog="benchmarks ctf", description="CTF estimation against planted optics.")
    parser.add_argument("--quick", action="store_true", help="an eighth of the images")
    parser.add_argument("--structure", type=Path, help="PDB or mmCIF file")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="where sums are kept")
    given = parser.parse_args(arguments)
    share = 8 if given.quick else 1
    structure, cache, table = find_structure(given.structure), given.cache, Table()
    table.head("CTF, time")
    measure_time(structure, cache, 9, table)
    table.head(f"CTF, {64 // share} simulated sums at 40 e⁻/Å², 0.4–4 µm, 0–2000 Å, 200 and 300 kV, 0.5–1.7 Å")
    measure_sums(fit_sums(ctf_sums(64 // share), structure, cache), table)
    table.head(f"the same, {40 // share} with a phase shift of 20–160° to be fitted")
    measure_phase_plate(fit_sums(phase_plate_sums(40 // share), structure, cache, fit_phase_shift=True), table)
    table.head(f"the same, {40 // share} amplitude spectra of exposure-filtered sums, 512 × 512")
    measure_sums(fit_spectra(ctf_sums(40 // share), structure), table)
    table.head(f"the same, {40 // share} in the ice of the alignment's movies, 30 Å, which holds little information")
    measure_thin_ice(fit_sums(thin_ice_sums(40 // share), structure, cache), table)
    table.head("CTF, a real micrograph")
    measure_real(table)
    table.head("CTF, noise")
    measure_noise(1000 // share, table)
    if table.missed:
        print(f"\nmissed: {', '.join(table.missed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
