"""A simulated movie of 40 × 2048² frames through decode, align, CTF and pick: seconds and peak memory.

Each figure is the median of several runs in one warm process with a fixed number of threads; the whole chain is the
pipeline's own steps, writing its files as it does in service. Peak memory is that of a fresh process that runs the
chain once.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from coldchain.formats.image import read_image
from coldchain.formats.movie import MovieReading, load_movie
from coldchain.model.results import Step
from coldchain.model.session import Layout
from coldchain.preprocess.steps import StepJob, run_step
from coldchain.simulate.movie import simulate_movie
from coldchain.simulate.plan import SessionPlan, camera_parameters
from coldchain.simulate.recording import record_movie, record_references
from coldchain.simulate.specimen import load_specimen
from coldchain.simulate.truth import MovieParameters

FRAMES, SIDE = 40, 2048
RUNS = 3
THREADS = 2
_OPTICS: dict[str, object] = {
    "pixel_size_angstrom": 1.06,
    "voltage_kilovolt": 300.0,
    "dose_e_per_square_angstrom": 44.0,
    "spherical_aberration_millimeter": 2.7,
    "amplitude_contrast": 0.1,
    "particle_diameter_angstrom": None,
}


def make_movie(folder: Path) -> Path:
    """The movie, TIFF-LZW, raw counts with a gain reference beside it."""
    parameters = MovieParameters(
        frames=FRAMES,
        height=SIDE,
        width=SIDE,
        dose_per_frame_e_per_square_angstrom=1.1,
        drift_angstrom=25.0,
        gain=True,
        defects=True,
    )
    plan = SessionPlan(layout=Layout.EPU, movie=parameters, seed=1)
    movie = simulate_movie(camera_parameters(plan), load_specimen(None, seed=1))
    record_movie(folder / "movie.tif", movie, plan)
    record_references(plan, folder)
    return folder / "movie.tif"


def run_chain(movie: Path, out: Path) -> dict[Step, float]:
    """The pipeline's four steps; seconds by step."""
    micrograph, unweighted = out / "align/micrograph.mrc", out / "align/unweighted.mrc"
    inputs = {
        Step.ALIGN: {"movie": movie, "gain": movie.with_name("gain.mrc")},
        Step.CTF: {"image": unweighted},
        Step.PICK: {"image": micrograph},
        Step.PREVIEW: {"image": micrograph, "diagnostic": out / "ctf/diagnostic.mrc"},
    }
    return {
        step: run_step(StepJob(step, files, _OPTICS, out / step, out / f".{step}.part", THREADS)).seconds
        for step, files in inputs.items()
    }


def _peak_bytes(movie: Path, out: Path, answer: multiprocessing.SimpleQueue[int]) -> None:
    run_chain(movie, out)
    answer.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def _peak_in_fresh_process(movie: Path, out: Path) -> int:
    context = multiprocessing.get_context("spawn")
    answer: multiprocessing.SimpleQueue[int] = context.SimpleQueue()
    process = context.Process(target=_peak_bytes, args=(movie, out, answer))
    process.start()
    process.join()
    return answer.get()


def _median_seconds(run: Callable[[], object]) -> float:
    run()
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(prefix="coldchain-bench-") as temporary:
        folder = Path(temporary)
        movie = make_movie(folder)
        megabytes = movie.stat().st_size / 1e6
        print(f"Chain: {FRAMES} × {SIDE}² uint8, TIFF-LZW, {megabytes:.0f} MB, {THREADS} threads, median of {RUNS}")
        decode = _median_seconds(lambda: load_movie(movie, MovieReading(threads=THREADS)))
        run_chain(movie, folder)
        rounds = [run_chain(movie, folder) for _ in range(RUNS)]
        rows = {f"{step}": statistics.median(r[step] for r in rounds) for step in Step}
        whole = statistics.median(sum(r.values()) for r in rounds)
        print(f"  {'decode alone':28}{decode:7.2f} s")
        for name, seconds in rows.items():
            label = "align (decode, sum, write)" if name == "align" else f"{name} (read, compute, write)"
            print(f"  {label:28}{seconds:7.2f} s   {seconds / decode:5.1f} × decode")
        print(f"  {'whole chain':28}{whole:7.2f} s   {whole / decode:5.1f} × decode")
        read = _median_seconds(lambda: read_image(folder / "align/micrograph.mrc"))
        print(f"  {'(reading a micrograph)':28}{read:7.2f} s")
        print(f"  {'peak memory':28}{_peak_in_fresh_process(movie, folder / 'fresh') / 1e9:7.2f} GB")


if __name__ == "__main__":
    main()
