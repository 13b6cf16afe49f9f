"""Frame alignment against decoding alone, against RELION on the same movie, and against the planted truth.

    python -m benchmarks alignment [--quick] [--no-relion] [--movie k2048|k3] [--threads 2] [--runs 3]
                                   [--structure FILE] [--cache DIR] [--program COMMAND]

All times are of whole processes, by turns, with the files in the page cache and compiled code on disk. The movies are
made by the simulator and kept (`benchmarks.movies`). Their specimen is the structure file; where none is named, 5A1A of
the folder that COLDCHAIN_REAL_DATA names; where that is not there either, a generated particle, to which neither the
calibration nor the bars of information and tracks were set. The information is that of
`coldchain.simulate.information`. Tracks are those of the motion STAR, at the centres of one grid of patches for all.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.movies import MOVIES, BenchMovie, bench_movie, cache_folder
from benchmarks.processes import ProcessError, Run, Runs, apart, by_turns, run_whole
from benchmarks.relion import RelionRun, find_relion, run_relion
from benchmarks.score import PATCHES, score, track_error_angstrom
from benchmarks.table import Bar, Table
from coldchain.formats.tiff import read_tiff, write_tiff_movie
from coldchain.simulate.truth import MovieParameters

STRUCTURE = "structures/5a1a.pdb.gz"
FRAME_COUNTS = (25, 50, 100)
AGAINST_DECODING = Bar(most=3.0, aim=2.0)
AGAINST_RELION = Bar(most=1 / 12)
PEAK_GIGABYTE = 3.0
SCALING = Bar(least=0.95)
PER_FRAME = Bar(least=0.9, most=1.1)
_FURTHER_MOVIES = 2


@dataclass(frozen=True, slots=True)
class Bars:
    """What one movie's sum and tracks have to reach."""

    to_3_angstrom: Bar
    between_5_and_3_angstrom: Bar
    track_angstrom: Bar


BARS = {
    "k3": Bars(Bar(least=0.978, aim=0.985), Bar(least=0.915, aim=0.95), Bar(most=0.35)),
    "k2048": Bars(Bar(least=0.945, aim=0.96), Bar(least=0.785, aim=0.85), Bar(most=0.65)),
}
# On which movie times are judged; of a small one a process's start is the larger part.
TIMED = ("k3",)
# What RELION must score, or else the movie's contrast is wrong.
CALIBRATION = {"k3": (Bar(least=0.955, most=0.975), Bar(least=0.837, most=0.877))}


@dataclass(frozen=True, slots=True)
class Bench:
    """What the run was asked for. `program` is the command that aligns, up to its first argument."""

    folder: Path
    program: tuple[str, ...]
    threads: int
    runs: int
    relion: str | None
    calibrated: bool

    def align(self, movies: Sequence[Path], like: BenchMovie, *, threads: int | None = None) -> Run:
        """Align `movies`, whose optics are those of `like`, into a folder of that name."""
        p, threads = like.truth.parameters, threads or self.threads
        command = [*self.program, *map(str, movies), "--gain", str(like.gain), "--threads", str(threads)]
        command += ["--pixel-size", repr(p.pixel_size_angstrom), "--voltage", repr(p.voltage_kilovolt)]
        command += ["--dose-per-frame", repr(p.dose_per_frame_e_per_square_angstrom)]
        return run_whole([*command, "--out", str(self.folder / like.name), "--json"], threads=threads)

    def decode(self, movie: BenchMovie, *, threads: int | None = None) -> Run:
        """Decode only."""
        threads = threads or self.threads
        command = [sys.executable, "-m", "benchmarks.decode", str(movie.movie), "--threads", str(threads)]
        return run_whole(command, threads=threads)


def stages(run: Run) -> list[dict[str, Any]]:
    """What `coldchain align --json` said of each movie."""
    found: list[dict[str, Any]] = json.loads(run.output)
    return found


def measure(bench: Bench, movie: BenchMovie, table: Table) -> None:
    """One movie: speed by turns with decoding and RELION, information, tracks."""
    p = movie.truth.parameters
    table.head(
        f"{movie.name}: {p.frames} × {p.height} × {p.width}, {p.pixel_size_angstrom:g} Å, "
        f"{len(movie.truth.particle_x_pixel)} particles of {movie.truth.specimen}, {bench.threads} threads"
    )
    bench.align([movie.movie], movie)  # compiles what is not compiled yet, and warms the page cache
    relion = _peer(bench, movie)
    ways: dict[str, Callable[[], Run]] = {
        "decode": partial(bench.decode, movie),
        "align": partial(bench.align, [movie.movie], movie),
    }
    runs = by_turns(ways, bench.runs)
    _speed(runs, relion, table, judged=movie.name in TIMED)
    stem = bench.folder / movie.name / movie.movie.stem
    _quality(movie, "ours", stem.with_suffix(".mrc"), stem.with_suffix(".star"), BARS[movie.name], bench, table)
    if relion is not None:
        _quality(movie, "RELION's", relion.micrograph, relion.star, None, bench, table)


def _peer(bench: Bench, movie: BenchMovie) -> RelionRun | None:
    if bench.relion is None:
        return None
    out = bench.folder / "relion" / movie.name
    try:
        return run_relion(bench.relion, movie, out, patches=PATCHES[movie.name], threads=bench.threads)
    except ProcessError as failure:
        print(f"  RELION failed. {failure}")
        return None


def _speed(runs: dict[str, Runs], relion: RelionRun | None, table: Table, *, judged: bool) -> None:
    ours, decoding = runs["align"], runs["decode"]
    table.row("decoding alone, whole process", f"{decoding.seconds:.2f} s", f"median of {len(decoding.runs)}")
    said = ", ".join(f"{name} {float(value):.2f}" for name, value in stages(ours.last)[0]["timings_s"].items())
    table.row("coldchain align, whole process", f"{ours.seconds:.2f} s", said)
    ratios = {"… against decoding alone": (ours.seconds / decoding.seconds, AGAINST_DECODING)}
    if relion is not None:
        table.row("RELION, whole process", f"{relion.run.seconds:.1f} s", f"{relion.run.peak_bytes / 1e9:.1f} GB")
        ratios["… ours against RELION"] = (ours.seconds / relion.run.seconds, AGAINST_RELION)
    for what, (ratio, bar) in ratios.items():
        if judged:
            table.judge(what, ratio, bar)
        else:
            table.row(what, f"{ratio:.3f}")


def _quality(
    movie: BenchMovie, whose: str, micrograph: Path, star: Path, bars: Bars | None, bench: Bench, table: Table
) -> None:
    kept = apart(score, movie, micrograph)
    error = track_error_angstrom(movie, star)
    values = {
        f"information to 3 Å, {whose}": kept.to_3_angstrom,
        f"information between 5 and 3 Å, {whose}": kept.between_5_and_3_angstrom,
        f"track error, Å rms, {whose}": error,
    }
    bounds: tuple[Bar, ...] = ()
    if bars is not None:
        bounds = (bars.to_3_angstrom, bars.between_5_and_3_angstrom, bars.track_angstrom)
    elif bench.calibrated:
        bounds = CALIBRATION.get(movie.name, ())
    for index, (what, value) in enumerate(values.items()):
        if index < len(bounds):
            table.judge(what, value, bounds[index])
        else:
            table.row(what, f"{value:.3f}")


def measure_memory(bench: Bench, movie: BenchMovie, table: Table) -> None:
    """Peaks with one movie, and with a second one in the same call, which is decoded meanwhile."""
    second = bench.folder / f"second{movie.movie.suffix}"
    shutil.copyfile(movie.movie, second)
    stack = _stack_gigabyte(movie.truth.parameters)
    one, two = bench.align([movie.movie], movie), bench.align([movie.movie, second], movie)
    second.unlink()
    table.head(f"{movie.name}: memory; a stack is {stack:.2f} GB")
    table.judge("peak with one movie", one.peak_bytes / 1e9, Bar(most=PEAK_GIGABYTE), digits=2, unit=" GB")
    table.judge(
        "peak with two in one call", two.peak_bytes / 1e9, Bar(most=PEAK_GIGABYTE + stack), digits=2, unit=" GB"
    )
    table.row("seconds for two in one call", f"{two.seconds:.2f} s", f"one {one.seconds:.2f} s")


def _stack_gigabyte(parameters: MovieParameters) -> float:
    return parameters.frames * parameters.height * parameters.width / 1e9


def measure_scaling(bench: Bench, movie: BenchMovie, table: Table) -> None:
    """How much two threads gain over one, against what decoding gains."""
    ways: dict[str, Callable[[], Run]] = {}
    for threads in (1, 2):
        ways[f"decode {threads}"] = partial(bench.decode, movie, threads=threads)
        ways[f"align {threads}"] = partial(bench.align, [movie.movie], movie, threads=threads)
    seconds = {name: runs.seconds for name, runs in by_turns(ways, bench.runs).items()}
    gains = {what: seconds[f"{what} 1"] / seconds[f"{what} 2"] for what in ("decode", "align")}
    table.head(f"{movie.name}: one thread and two")
    for what, gain in gains.items():
        table.row(what, f"{gain:.2f} ×", f"{seconds[f'{what} 1']:.2f} s → {seconds[f'{what} 2']:.2f} s")
    table.judge("gain against decoding's own", gains["align"] / gains["decode"], SCALING)
    further = {threads: _further_movie(bench, movie, threads, seconds[f"align {threads}"]) for threads in (1, 2)}
    table.row(
        "each further movie of a call",
        f"{further[1] / further[2]:.2f} ×",
        f"{further[1]:.2f} s → {further[2]:.2f} s, without the start of Python and the compiler",
    )


def _further_movie(bench: Bench, movie: BenchMovie, threads: int, seconds_for_one: float) -> float:
    """Seconds that each further movie of a call takes, whose reading goes on beside the one before."""
    copies = [bench.folder / f"copy{number}{movie.movie.suffix}" for number in range(_FURTHER_MOVIES)]
    for copy in copies:
        shutil.copyfile(movie.movie, copy)
    run = bench.align([movie.movie, *copies], movie, threads=threads)
    for copy in copies:
        copy.unlink()
    return (run.seconds - seconds_for_one) / _FURTHER_MOVIES


def measure_frames(bench: Bench, movie: BenchMovie, table: Table) -> None:
    """What a further frame costs as frames grow; the fixed costs of a movie (transforms, writing) cancel."""
    frames = read_tiff(movie.movie, threads=bench.threads)
    there_and_back = [*range(len(frames)), *range(len(frames) - 2, 0, -1)]
    paths = {}
    for count in FRAME_COUNTS:
        order = [there_and_back[index % len(there_and_back)] for index in range(count)]
        paths[count] = bench.folder / f"frames{count}.tiff"
        write_tiff_movie(paths[count], (frames[index] for index in order))
    del frames
    ways: dict[str, Callable[[], Run]] = {
        str(count): partial(bench.align, [path], movie) for count, path in paths.items()
    }
    # What disturbs a run only ever makes it longer, and differences suffer more than ratios: the fastest counts.
    seconds = {
        int(name): min(run.seconds for run in runs.runs) for name, runs in by_turns(ways, max(bench.runs, 3)).items()
    }
    first, middle, last = FRAME_COUNTS
    early = (seconds[middle] - seconds[first]) / (middle - first)
    late = (seconds[last] - seconds[middle]) / (last - middle)
    table.head(f"{movie.name}'s frames: cost per frame")
    for count in FRAME_COUNTS:
        table.row(f"{count} frames", f"{seconds[count]:.2f} s", f"{1e3 * seconds[count] / count:.1f} ms a frame in all")
    table.row(
        f"each further frame, {first} → {middle}, {middle} → {last}", f"{1e3 * early:.1f} ms", f"{1e3 * late:.1f} ms"
    )
    table.judge("the latter against the former", late / early, PER_FRAME)


def find_structure(named: Path | None) -> Path | None:
    """The structure file: the one that is named, else 5A1A among the real data, else None."""
    if named is not None:
        return named
    real_data = os.environ.get("COLDCHAIN_REAL_DATA")
    found = Path(real_data, STRUCTURE) if real_data else None
    return found if found is not None and found.is_file() else None


def main(arguments: Sequence[str] = ()) -> None:
    """Measure and print."""
    given = _parser().parse_args(arguments)
    structure = find_structure(given.structure)
    names = given.movie or (["k2048"] if given.quick else list(MOVIES))
    table = Table()
    print("Alignment: whole processes by turns, the page cache and compiled code warm")
    if structure is None:
        print("No structure file: a generated particle stands in. Calibration and bars were set for 5A1A.")
    with tempfile.TemporaryDirectory(prefix="coldchain-bench-", dir=given.work) as temporary:
        bench = Bench(
            folder=Path(temporary),
            program=tuple(shlex.split(given.program)),
            threads=given.threads,
            runs=1 if given.quick else given.runs,
            relion=find_relion() if given.relion else None,
            calibrated=structure is not None,
        )
        if given.relion and bench.relion is None:
            print("RELION is not here and cannot be installed; its lines are missing.")
        movies = [apart(bench_movie, name, structure=structure, cache=given.cache) for name in names]
        try:
            _measure_all(bench, movies, table)
        except ProcessError as failure:
            raise SystemExit(str(failure)) from failure
    print(f"\n{'All bars met.' if not table.missed else 'Missed: ' + '; '.join(table.missed) + '.'}")


def _measure_all(bench: Bench, movies: Sequence[BenchMovie], table: Table) -> None:
    for movie in movies:
        measure(bench, movie, table)
    by_size = sorted(movies, key=lambda movie: _stack_gigabyte(movie.truth.parameters))
    measure_memory(bench, by_size[-1], table)
    measure_scaling(bench, by_size[-1], table)
    measure_frames(bench, by_size[0], table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks alignment", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one run of each, the small movie only")
    parser.add_argument("--no-relion", dest="relion", action="store_false", help="without the peer")
    parser.add_argument("--movie", action="append", choices=list(MOVIES), help="this one only; may be repeated")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3, help="of each; medians are shown")
    parser.add_argument("--structure", type=Path, help="PDB or mmCIF file of the specimen")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="where movies are kept")
    parser.add_argument(
        "--work", type=Path, help="where results go meanwhile; the system's temporary folder by default"
    )
    parser.add_argument("--program", default=f"{sys.executable} -m coldchain align", help="what aligns")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
