"""How much information a sum of one of the benchmark's movies kept, and how far off its tracks are.

python -m benchmarks.score --movie k2048|k3 [--cache DIR] [--star STAR] SUM.mrc
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.movies import MOVIES, BenchMovie, cache_folder, kept_movie
from coldchain.formats.image import read_image
from coldchain.formats.relion_motion import displacement, read_motion
from coldchain.simulate.information import Information, information
from coldchain.simulate.scoring import field_error_angstrom

PATCHES = {"k3": (7, 5), "k2048": (5, 5)}  # columns × rows: RELION's, and where tracks are compared


def score(movie: BenchMovie, micrograph: Path) -> Information:
    """The information that the sum at `micrograph` kept."""
    return information(read_image(micrograph), read_image(movie.ideal), movie.truth.parameters)


def track_error_angstrom(movie: BenchMovie, star: Path) -> float:
    """How far a motion STAR's tracks, whole-frame shift and local polynomial, are from the planted ones, in Å.

    The rms distance over all frames and the centres of one grid of patches, each track's mean removed. RELION's own
    patches have about the same centres, so the same places serve for all.
    """
    p = movie.truth.parameters
    columns, rows = PATCHES[movie.name]
    x, y = np.meshgrid((np.arange(columns) + 0.5) * p.width / columns, (np.arange(rows) + 0.5) * p.height / rows)
    found_x, found_y = displacement(read_motion(star), x.ravel(), y.ravel())
    return field_error_angstrom(movie.truth, x.ravel(), y.ravel(), found_x, found_y)


def main(arguments: Sequence[str]) -> None:
    """Print both numbers, the field that was undone and the curves at a few places."""
    parser = argparse.ArgumentParser(description="How much information a sum kept.")
    parser.add_argument("sum", type=Path, help="MRC")
    parser.add_argument("--movie", choices=list(MOVIES), required=True)
    parser.add_argument("--star", type=Path, help="motion STAR, to compare its tracks too")
    parser.add_argument("--cache", type=Path, default=cache_folder())
    given = parser.parse_args(arguments)
    movie = kept_movie(given.movie, given.cache)
    if movie is None:
        raise SystemExit(f"no movie in {given.cache / given.movie}; make it with python -m benchmarks.movies")
    kept = score(movie, given.sum)
    print(f"information to 3 Å {kept.to_3_angstrom:.4f}, between 5 and 3 Å {kept.between_5_and_3_angstrom:.4f}")
    if given.star is not None:
        print(f"tracks off by {track_error_angstrom(movie, given.star):.3f} Å rms")
    print(f"static field undone, pixels: x {kept.field_x_pixel.round(2)}, y {kept.field_y_pixel.round(2)}")
    print(f"tiles off the field by {kept.field_residual_pixel:.3f} pixels rms")
    for near in (20, 10, 7, 5, 4, 3.5, 3.05):
        at = int(abs(kept.frequency - 1 / near).argmin())
        around = slice(max(0, at - 3), at + 4)
        print(f"  {near:5} Å: FRC {kept.found[around].mean():.3f}, ideal {kept.ideal[around].mean():.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
