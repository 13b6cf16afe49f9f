"""RELION's own CPU implementation of motion correction (`relion_run_motioncorr --use_own`) as a peer."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.movies import BenchMovie
from benchmarks.processes import Run, run_whole

_PROGRAM = "relion_run_motioncorr"
_BFACTOR = 150


@dataclass(frozen=True, slots=True)
class RelionRun:
    """What RELION took, and where its files lie: the dose-weighted sum and the motion STAR."""

    run: Run
    micrograph: Path
    star: Path


def find_relion() -> str | None:
    """The program's path; as root on Debian the package is installed if it can be. None where there is none."""
    found = shutil.which(_PROGRAM)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "relion"]
        subprocess.run(install, env=environment, capture_output=True, check=False, timeout=300)
        found = shutil.which(_PROGRAM)
    return found


def run_relion(program: str, movie: BenchMovie, out: Path, *, patches: tuple[int, int], threads: int) -> RelionRun:
    """Align one movie with dose weighting, in `out`; ProcessError with RELION's words where it fails.

    The movie's TIFF rows are reversed on reading and the gain is an MRC, as ours: nothing is flipped on either side.
    """
    parameters = movie.truth.parameters
    out.mkdir(parents=True, exist_ok=True)
    for path in (movie.movie, movie.gain):
        link = out / path.name
        link.unlink(missing_ok=True)
        link.symlink_to(path.resolve())
    (out / "in.star").write_text(_movies_star(movie), encoding="ascii")
    command = [program, "--i", "in.star", "--o", "sums/", "--use_own", "--j", str(threads)]
    command += ["--patch_x", str(patches[0]), "--patch_y", str(patches[1]), "--bfactor", str(_BFACTOR)]
    command += ["--bin_factor", "1", "--gainref", movie.gain.name, "--dose_weighting", "--preexposure", "0"]
    command += ["--dose_per_frame", repr(parameters.dose_per_frame_e_per_square_angstrom)]
    command += ["--angpix", repr(parameters.pixel_size_angstrom), "--voltage", repr(parameters.voltage_kilovolt)]
    run = run_whole(command, folder=out, threads=threads)
    stem = out / "sums" / movie.movie.stem
    return RelionRun(run, stem.with_suffix(".mrc"), stem.with_suffix(".star"))


def _movies_star(movie: BenchMovie) -> str:
    p = movie.truth.parameters
    return f"""
data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographOriginalPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
bench 1 {p.pixel_size_angstrom} {p.voltage_kilovolt} {p.spherical_aberration_millimeter} {p.amplitude_contrast}

data_movies

loop_
_rlnMicrographMovieName #1
_rlnOpticsGroup #2
{movie.movie.name} 1
"""
