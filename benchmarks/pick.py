"""Picking: particles that people painted, particles of a simulator, pictures without any, and the time of a large one.

python -m benchmarks pick [--count N] [--plants N] [--structure FILE] [--cache DIR]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import linear_sum_assignment

from benchmarks import pick_plants
from benchmarks.alignment import find_structure
from benchmarks.movies import cache_folder
from benchmarks.pick_plants import Plant
from benchmarks.sums import bench_sum, picking_sums
from benchmarks.table import Bar, Table
from coldchain.kernels.pick import PickParameters, find_particles, pick_particles
from coldchain.model.results import PickResult

APOFERRITIN = ("May08_03.05.02", "May08_03.13.02", "May08_03.15.02")
APOFERRITIN_PIXEL_ANGSTROM, APOFERRITIN_DIAMETER_ANGSTROM = 1.5, 125.0
APOFERRITIN_TOLERANCE_PIXEL = 30.0
SIMULATED_DIAMETER_ANGSTROM, SIMULATED_TOLERANCE_ANGSTROM = 150.0, 45.0
# 5A1A is 182 Å long; the ball of its radius of gyration is 2 · √(5/3) · 51.8 Å wide.
SIMULATED_SIZE_ANGSTROM = 134.0

APOFERRITIN_F1, APOFERRITIN_OFFSET = Bar(least=0.92), Bar(most=7.0)
SIMULATED_F1, SIZE_ERROR = Bar(least=0.95), Bar(most=0.2)
FALSE_PICKS, JUNK_ERROR = Bar(most=2.0), Bar(most=0.05)
SECONDS = Bar(most=0.3)

_PLANT_SHAPE = (2048, 2048)
_PLANT_DIAMETERS_ANGSTROM = (100.0, 125.0, 200.0, None)
_TIMED_SHAPE, _TIMED_PIXEL_ANGSTROM, _TIMED_RUNS = (4096, 4096), 1.0, 7

PLANTS: dict[str, Callable[[tuple[int, int], float, int], Plant]] = {
    "white noise": pick_plants.white_noise,
    "coloured noise": pick_plants.coloured_noise,
    "carbon": pick_plants.carbon,
    "carbon, half of the picture": lambda shape, pixel, seed: pick_plants.carbon(shape, pixel, seed, part=0.5),
    "contamination": pick_plants.contamination,
    "gold": pick_plants.gold,
}
# In these the planted junk can be told from what is beside it.
_BOUNDED = ("carbon, half of the picture", "contamination", "gold")


@dataclass(frozen=True, slots=True)
class Agreement:
    """A one-to-one match of picks with true places within a tolerance. `offset_pixel` is the mean distance."""

    hits: int
    picks: int
    true: int
    offset_pixel: float

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 where there is nothing and nothing was found."""
        return 2 * self.hits / (self.picks + self.true) if self.picks + self.true else 1.0

    @property
    def words(self) -> str:
        """Precision and recall."""
        return f"precision {self.hits / max(1, self.picks):.3f}, recall {self.hits / max(1, self.true):.3f}"


def agreement(result: PickResult, places: NDArray[np.float64], tolerance_pixel: float) -> Agreement:
    """How picks agree with places, (n, 2) x and y in pixels; no place is given to two picks."""
    found = np.array([(p.x_pixel, p.y_pixel) for p in result.picks]).reshape(-1, 2)
    distances = np.hypot(*(found[:, None, :] - places[None, :, :]).transpose(2, 0, 1))
    rows, columns = linear_sum_assignment(np.where(distances <= tolerance_pixel, distances, 1e6))
    within = distances[rows, columns][distances[rows, columns] <= tolerance_pixel]
    return Agreement(len(within), len(found), len(places), float(within.mean()) if len(within) else float("nan"))


def apoferritin(folder: Path, name: str) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    """A painted sum, row 0 at its top, and the painted centres, (n, 2) x and y in its pixels."""
    image = np.asarray(Image.open(folder / f"{name}.bin_avg.png"))
    return image, np.loadtxt(folder / f"{name}_gt.csv", delimiter=",", comments="#")


def measure_apoferritin(folder: Path, table: Table) -> None:
    """The painted sums, with the diameter told and not told."""
    table.head(f"Apoferritin, hand-painted, {APOFERRITIN_DIAMETER_ANGSTROM:g} Å, the default threshold")
    for name in APOFERRITIN:
        image, places = apoferritin(folder, name)
        told = PickParameters(APOFERRITIN_PIXEL_ANGSTROM, APOFERRITIN_DIAMETER_ANGSTROM)
        found = agreement(pick_particles(image, told), places, APOFERRITIN_TOLERANCE_PIXEL)
        table.row(f"{name}", found.words)
        table.judge("… F1", found.f1, APOFERRITIN_F1)
        table.judge("… mean offset", found.offset_pixel, APOFERRITIN_OFFSET, digits=1, unit=" px")
        by_itself = pick_particles(image, PickParameters(APOFERRITIN_PIXEL_ANGSTROM))
        table.judge("… F1, diameter estimated", agreement(by_itself, places, 30.0).f1, APOFERRITIN_F1)
        error = abs(by_itself.diameter_angstrom / APOFERRITIN_DIAMETER_ANGSTROM - 1)
        table.judge("… error of the diameter", error, SIZE_ERROR)


def measure_simulated(count: int, structure: Path | None, cache: Path, table: Table) -> None:
    """β-galactosidase at 1.0–2.5 µm, 40 e⁻/Å²."""
    table.head(f"{count} simulated sums, 40 e⁻/Å², 1.0–2.5 µm")
    for what, diameter in (("150 Å told", SIMULATED_DIAMETER_ANGSTROM), ("diameter estimated", None)):
        found, sizes = [], []
        for parameters in picking_sums(count):
            made = bench_sum(parameters, structure=structure, cache=cache)
            pixel = parameters.pixel_size_angstrom
            result = pick_particles(made.read(), PickParameters(pixel, diameter, threads=2))
            places = np.stack((made.truth.particle_x_pixel, made.truth.particle_y_pixel), axis=1)
            found.append(agreement(result, places, SIMULATED_TOLERANCE_ANGSTROM / pixel))
            sizes.append(result.diameter_angstrom)
        whole = Agreement(*(sum(getattr(a, of) for a in found) for of in ("hits", "picks", "true")), offset_pixel=0)
        table.judge(f"F1 of all, {what}", whole.f1, SIMULATED_F1)
        table.row("… of the worst", f"{min(a.f1 for a in found):.3f}", whole.words)
        if diameter is None and structure is not None:
            errors = [abs(size / SIMULATED_SIZE_ANGSTROM - 1) for size in sizes]
            table.judge("largest error of the diameter", max(errors), SIZE_ERROR)


def plants(name: str, count: int) -> Iterator[Plant]:
    """Pictures without particles at 0.8–2 Å a pixel."""
    for index in range(count):
        yield PLANTS[name](_PLANT_SHAPE, (0.8, 1.1, 1.5, 2.0)[index % 4], 1000 + index)


def measure_false(count: int, table: Table) -> None:
    """Pictures without particles: the most picks of any, whatever size is sought, and the junk that was planted."""
    table.head(f"Pictures of {_PLANT_SHAPE[0]}² pixels without particles, {count} of each")
    for name in PLANTS:
        most, total, errors = 0, 0, []
        for plant in plants(name, count):
            for diameter in _PLANT_DIAMETERS_ANGSTROM:
                asked = PickParameters(plant.pixel_size_angstrom, diameter, threads=2)
                found = find_particles(plant.image, asked)
                most, total = max(most, len(found.result.picks)), total + len(found.result.picks)
                if diameter is not None:
                    errors.append(abs(found.contamination_fraction - float(plant.junk.mean())))
        table.judge(f"most false picks, {name}", most, FALSE_PICKS, digits=0)
        table.row("… in the mean", f"{total / count / len(_PLANT_DIAMETERS_ANGSTROM):.2f}")
        if name in _BOUNDED:
            table.judge("… mean error of the junk's part", statistics.mean(errors), JUNK_ERROR)


def measure_time(structure: Path | None, cache: Path, table: Table) -> None:
    """A large micrograph in a warm process."""
    table.head(f"{_TIMED_SHAPE[0]}² pixels of {_TIMED_PIXEL_ANGSTROM:g} Å, float32, a warm process, 2 threads")
    (parameters,) = picking_sums(1)
    quarter = bench_sum(parameters, structure=structure, cache=cache).read().astype(np.float32)
    image = np.tile(quarter, (2, 2))[: _TIMED_SHAPE[0], : _TIMED_SHAPE[1]]
    for what, diameter in (("diameter told", SIMULATED_DIAMETER_ANGSTROM), ("diameter estimated", None)):
        asked = PickParameters(_TIMED_PIXEL_ANGSTROM, diameter, threads=2)
        pick_particles(image, asked)
        seconds, busy = [], []
        for _ in range(_TIMED_RUNS):
            began, cpu = time.perf_counter(), time.process_time()
            pick_particles(image, asked)
            seconds.append(time.perf_counter() - began)
            busy.append(time.process_time() - cpu)
        note = f"cores were busy for {statistics.median(busy):.2f} s"
        if diameter is None:
            table.row(what, f"{statistics.median(seconds):.2f} s", note)
        else:
            table.judge(what, statistics.median(seconds), SECONDS, digits=2, unit=" s")
            table.row("…", "", note)


def main(arguments: Sequence[str] = ()) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks pick", description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=12, help="simulated sums")
    parser.add_argument("--plants", type=int, default=8, help="pictures without particles, of each kind")
    parser.add_argument("--structure", type=Path, help="PDB or mmCIF file of the specimen")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="where simulated sums are kept")
    given = parser.parse_args(arguments)
    structure, table = find_structure(given.structure), Table()
    print("Picking: one default for all")
    real_data = os.environ.get("COLDCHAIN_REAL_DATA")
    if real_data:
        measure_apoferritin(Path(real_data, "apoferritin"), table)
    else:
        print("COLDCHAIN_REAL_DATA names no folder of real files: the painted micrographs are missing.")
    if structure is None:
        print("No structure file: a generated particle stands in. Bars were set for 5A1A.")
    measure_simulated(given.count, structure, given.cache, table)
    measure_false(given.plants, table)
    measure_time(structure, given.cache, table)
    print(f"\n{'All bars met.' if not table.missed else 'Missed: ' + '; '.join(table.missed) + '.'}")
