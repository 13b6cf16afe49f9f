"""The movies that the alignment is measured on, made by the simulator and kept between runs.

    python -m benchmarks.movies [k2048|k3] [--structure FILE] [--cache DIR]

Each lies in a folder of its own: `movie.tiff` (LZW, raw counts), `gain.mrc`, `truth.json` and `ideal.mrc`, the
undamaged intensity at frame 0 without counting noise.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from coldchain.errors import FormatError
from coldchain.formats import mrc, tiff
from coldchain.simulate.movie import simulate_movie
from coldchain.simulate.specimen import load_specimen
from coldchain.simulate.truth import MovieParameters, MovieTruth, write_truth

CACHE_VARIABLE = "COLDCHAIN_BENCH_CACHE"
_TRUTH = "truth.json"
_COMMON = MovieParameters(
    defocus_u_angstrom=15000.0,
    defocus_v_angstrom=14600.0,
    defocus_angle_degrees=35.0,
    drift_angstrom=25.0,
    local_motion_angstrom=8.0,
    bfactor_square_angstrom=20.0,
    # Set so that RELION's sum of the K3 movie has the information that it has to have: contrast for what is kept in
    # all, thin ice for what of it lies at high resolution.
    contrast=0.77,
    ice_thickness_angstrom=30.0,
    gain=True,
    defects=True,
    seed=3,
)
MOVIES = {
    "k2048": replace(
        _COMMON,
        frames=40,
        height=2048,
        width=2048,
        pixel_size_angstrom=1.06,
        dose_per_frame_e_per_square_angstrom=1.1,
        particles=80,
    ),
    "k3": replace(
        _COMMON,
        frames=50,
        height=4092,
        width=5760,
        pixel_size_angstrom=0.83,
        dose_per_frame_e_per_square_angstrom=1.0,
        particles=300,
    ),
}


@dataclass(frozen=True, slots=True)
class BenchMovie:
    """A movie's files and what is in it."""

    name: str
    folder: Path
    truth: MovieTruth

    @property
    def movie(self) -> Path:
        """The movie, TIFF-LZW."""
        return self.folder / "movie.tiff"

    @property
    def gain(self) -> Path:
        """The gain reference, MRC."""
        return self.folder / "gain.mrc"

    @property
    def ideal(self) -> Path:
        """The noise-free intensity at frame 0, MRC."""
        return self.folder / "ideal.mrc"


def cache_folder() -> Path:
    """Where movies are kept: what the environment's COLDCHAIN_BENCH_CACHE says, else in the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(base, "coldchain-bench")


def bench_movie(name: str, *, structure: Path | None, cache: Path, threads: int = 2) -> BenchMovie:
    """The movie of that name: as kept, or made now if it is not there or was made from something else."""
    specimen = load_specimen(structure, seed=1)
    kept = kept_movie(name, cache)
    if kept is not None and kept.truth.parameters == MOVIES[name] and kept.truth.specimen == specimen.name:
        return kept
    folder = cache / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _TRUTH).unlink(missing_ok=True)
    simulated = simulate_movie(MOVIES[name], specimen, threads=threads)
    made = BenchMovie(name, folder, simulated.truth)
    pixel_size = MOVIES[name].pixel_size_angstrom
    tiff.write_tiff_movie(made.movie, simulated.frames, compression="lzw", pixel_size_angstrom=pixel_size)
    if simulated.gain is not None:
        mrc.write_mrc(made.gain, simulated.gain, pixel_size_angstrom=pixel_size)
    mrc.write_mrc(made.ideal, simulated.ideal, pixel_size_angstrom=pixel_size)
    write_truth(folder / _TRUTH, simulated.truth)  # last: what has a truth is whole
    return made


def kept_movie(name: str, cache: Path) -> BenchMovie | None:
    """The movie of that name as it was made last, from whatever parameters; None where there is none."""
    try:
        truth = MovieTruth.from_json((cache / name / _TRUTH).read_text(encoding="utf-8"))
    except (FileNotFoundError, FormatError):
        return None
    return BenchMovie(name, cache / name, truth)


def main(arguments: Sequence[str]) -> None:
    """Make what is not there yet, and say where it lies."""
    parser = argparse.ArgumentParser(description="Make the movies that the alignment is measured on.")
    parser.add_argument("names", nargs="*", choices=[*MOVIES, []], help="which; all by default")
    parser.add_argument("--structure", type=Path, help="PDB or mmCIF file; a generated particle by default")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help=f"where; also by {CACHE_VARIABLE}")
    given = parser.parse_args(arguments)
    for name in given.names or MOVIES:
        began = time.perf_counter()
        made = bench_movie(name, structure=given.structure, cache=given.cache)
        print(f"{name}: {made.folder}, {made.truth.specimen}, {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
