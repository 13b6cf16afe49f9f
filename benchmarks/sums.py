"""Aligned frame sums with a known truth, on which CTF estimation and picking are measured; made quickly and kept.

    python -m benchmarks.sums [ctf|thin-ice|phase-plate|picking] [--count N] [--structure FILE] [--cache DIR]

What a perfect alignment leaves of a movie needs no movie: the simulator's undamaged intensity, damaged as the mean over
the frames is, and counted once. (The sum of Poisson numbers is one, of the sum.) Specimen and contrast are those of the
alignment's movies (`benchmarks.movies`); optics, pixel and defocus are drawn at random from a fixed seed.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from benchmarks.movies import MOVIES, cache_folder
from coldchain.errors import FormatError
from coldchain.formats import mrc
from coldchain.simulate import optics
from coldchain.simulate.movie import simulate_movie
from coldchain.simulate.specimen import Specimen, load_specimen
from coldchain.simulate.truth import MovieParameters, MovieTruth, write_truth

_TRUTH = "truth.json"
_PARTICLES_PER_SQUARE_ANGSTROM = 300 / (4092 * 5760 * 0.83**2)  # as in the K3 movie
_PARTICLE_DIAMETER_ANGSTROM = 200.0  # no particle nearer to an edge than half of it
_ICE_ANGSTROM = 300.0  # the particle of 182 Å lies in it
_LARGEST_COVERAGE = 0.35  # beyond that places that do not overlap are hard to find
_FAINT_DOSE = 1e-3  # of the movie that is made for its noise-free intensity only


@dataclass(frozen=True, slots=True)
class BenchSum:
    """A sum's file and what is in it: `truth.parameters` are those of its movie, which did not move."""

    folder: Path
    truth: MovieTruth

    @property
    def image(self) -> Path:
        """Counted electrons, MRC, uint16."""
        return self.folder / "sum.mrc"

    def read(self) -> NDArray[np.uint16]:
        """The counts (rows, columns)."""
        counts: NDArray[np.uint16] = mrc.read_mrc(self.image).astype(np.uint16)
        return counts


def sum_parameters(case: int, seed: int, **fixed: object) -> MovieParameters:
    """The case's optics: 0.4–4 µm, astigmatism 0–2000 Å, 200 and 300 kV, 0.5–1.7 Å, 40 e⁻/Å² in 40 frames.

    `fixed` parameters take the place of what was drawn. There are as many particles to the area as in the K3 movie.
    """
    random = np.random.default_rng([seed, case])
    mean, astigmatism = random.uniform(4000, 40000), random.uniform(0, 2000)
    drawn = {
        "defocus_u_angstrom": mean + 0.5 * astigmatism,
        "defocus_v_angstrom": mean - 0.5 * astigmatism,
        "defocus_angle_degrees": random.uniform(0, 180),
        "pixel_size_angstrom": random.uniform(0.5, 1.7),
        "voltage_kilovolt": float(random.choice([200.0, 300.0])),
    }
    still = replace(
        MOVIES["k2048"],
        frames=40,
        dose_per_frame_e_per_square_angstrom=1.0,
        drift_angstrom=0.0,
        local_motion_angstrom=0.0,
        gain=False,
        defects=False,
        seed=1000 * seed + case,
    )
    chosen = replace(still, **{**drawn, **fixed})  # type: ignore[arg-type]  # the caller's names and types
    return chosen if "particles" in fixed else replace(chosen, particles=_fair_share(chosen))


def ctf_sums(count: int, seed: int = 1) -> list[MovieParameters]:
    """The cases of the CTF's bars, in ice that is thick enough for the particle."""
    return [sum_parameters(case, seed, ice_thickness_angstrom=_ICE_ANGSTROM) for case in range(count)]


def thin_ice_sums(count: int, seed: int = 1) -> list[MovieParameters]:
    """The same in the ice of the alignment's movies, 30 Å: it stands for what little they hold at high resolution.

    The whole information that such a sum's spectrum has on its defocus amounts to standard errors of 50 to 200 Å.
    """
    return [sum_parameters(case, seed) for case in range(count)]


def phase_plate_sums(count: int, seed: int = 2) -> list[MovieParameters]:
    """The CTF's cases with a phase shift of 20–160°."""
    shifts = np.random.default_rng(seed).uniform(20, 160, count)
    return [
        sum_parameters(case, seed, ice_thickness_angstrom=_ICE_ANGSTROM, phase_shift_degrees=float(shift))
        for case, shift in enumerate(shifts)
    ]


def picking_sums(count: int, seed: int = 3) -> list[MovieParameters]:
    """Sums to pick from: 1.0–2.5 µm, little astigmatism, 0.8–1.3 Å."""
    cases = []
    for case in range(count):
        random = np.random.default_rng([seed, case, 1])
        mean, half = random.uniform(10000, 25000), random.uniform(0, 150)
        pixel = random.uniform(0.8, 1.3)
        cases.append(
            sum_parameters(
                case,
                seed,
                defocus_u_angstrom=mean + half,
                defocus_v_angstrom=mean - half,
                pixel_size_angstrom=pixel,
            )
        )
    return cases


SETS: dict[str, Callable[[int], list[MovieParameters]]] = {
    "ctf": ctf_sums,
    "thin-ice": thin_ice_sums,
    "phase-plate": phase_plate_sums,
    "picking": picking_sums,
}


def bench_sum(parameters: MovieParameters, *, structure: Path | None, cache: Path) -> BenchSum:
    """The sum of a still movie with these parameters: as kept, or made now."""
    specimen = load_specimen(structure, seed=1)
    name = hashlib.sha256(f"{parameters!r} {specimen.name}".encode()).hexdigest()[:16]
    folder = cache / "sums" / name
    try:
        return BenchSum(folder, MovieTruth.from_json((folder / _TRUTH).read_text(encoding="utf-8")))
    except (FileNotFoundError, FormatError):
        folder.mkdir(parents=True, exist_ok=True)
    counts, truth = simulate_sum(parameters, specimen)
    made = BenchSum(folder, truth)
    mrc.write_mrc(made.image, counts, pixel_size_angstrom=parameters.pixel_size_angstrom)
    write_truth(folder / _TRUTH, truth)  # last: what has a truth is whole
    return made


def simulate_sum(
    parameters: MovieParameters, specimen: Specimen, *, exposure_filtered: bool = False
) -> tuple[NDArray[np.uint16], MovieTruth]:
    """The counts of a still movie's sum, (rows, columns), and what is in it.

    With `exposure_filtered` what is left of the signal over white noise is that of the exposure-filtered sum: weighted
    with its own amplitude in every frame, and with the noise of the plain sum.
    """
    faint = replace(parameters, frames=1, dose_per_frame_e_per_square_angstrom=_FAINT_DOSE)
    made = simulate_movie(faint, specimen)
    left = damage(parameters, exposure_filtered=exposure_filtered)
    shape = made.ideal.shape
    intensity = scipy.fft.irfft2(scipy.fft.rfft2(made.ideal) * left.astype(np.float32), shape)
    electrons = parameters.dose_e_per_square_angstrom * parameters.pixel_size_angstrom**2
    random = np.random.default_rng([parameters.seed, 40])
    counts = random.poisson(np.maximum(intensity, 0) * np.float32(electrons)).astype(np.uint16)
    still = (0.0,) * parameters.frames
    return counts, replace(made.truth, parameters=parameters, shift_x_angstrom=still, shift_y_angstrom=still)


def damage(parameters: MovieParameters, *, exposure_filtered: bool = False) -> NDArray[np.float64]:
    """The part of the amplitude that the mean over all frames keeps, on the half-plane of the picture; 1 at 0."""
    kx, ky = optics.half_plane((parameters.height, parameters.width), parameters.pixel_size_angstrom)
    rate = optics.decay_rate(np.sqrt(kx**2 + ky**2), parameters.voltage_kilovolt)
    power = 2.0 if exposure_filtered else 1.0
    left = np.zeros(rate.shape)
    for frame in range(parameters.frames):
        left += np.exp(-power * rate * (frame + 0.5) * parameters.dose_per_frame_e_per_square_angstrom)
    result: NDArray[np.float64] = (left / parameters.frames) ** (1 / power)
    return result


def _fair_share(parameters: MovieParameters) -> int:
    """As many particles to the area as in the K3 movie, as far as they find places."""
    pixel = parameters.pixel_size_angstrom
    height, width = parameters.height * pixel, parameters.width * pixel
    room = (height - _PARTICLE_DIAMETER_ANGSTROM) * (width - _PARTICLE_DIAMETER_ANGSTROM)
    particle = 0.25 * np.pi * _PARTICLE_DIAMETER_ANGSTROM**2
    return max(1, int(min(_PARTICLES_PER_SQUARE_ANGSTROM * height * width, _LARGEST_COVERAGE * room / particle)))


def main(arguments: Sequence[str]) -> None:
    """Make what is not there yet, and say where it lies."""
    parser = argparse.ArgumentParser(description="Make the sums that CTF estimation and picking are measured on.")
    parser.add_argument("sets", nargs="*", choices=[*SETS, []], help="which; all by default")
    parser.add_argument("--count", type=int, default=60, help="of each set")
    parser.add_argument("--structure", type=Path, help="PDB or mmCIF file; a generated particle by default")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="where")
    given = parser.parse_args(arguments)
    for name in given.sets or SETS:
        for parameters in SETS[name](given.count):
            began = time.perf_counter()
            made = bench_sum(parameters, structure=given.structure, cache=given.cache)
            print(f"{name}: {made.folder}, {time.perf_counter() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
