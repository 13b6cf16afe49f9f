"""The bars of picking, on a part of what `make bench PART=pick` measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import pick, pick_plants
from benchmarks.alignment import STRUCTURE
from benchmarks.pick import agreement
from benchmarks.sums import simulate_sum, sum_parameters
from coldchain.kernels.pick import PickParameters, pick_particles
from coldchain.simulate.specimen import load_specimen


@pytest.mark.real_data
@pytest.mark.parametrize("name", pick.APOFERRITIN)
@pytest.mark.parametrize("diameter", [pick.APOFERRITIN_DIAMETER_ANGSTROM, None])
def test_real_apoferritin_is_found_as_people_paint_it(real_data: Path, name: str, diameter: float | None) -> None:
    """EMPIAR-10146 sums, 125 Å told or estimated, the default threshold: F1 and offset meet their bars."""
    image, places = pick.apoferritin(real_data / "apoferritin", name)
    result = pick_particles(image, PickParameters(pick.APOFERRITIN_PIXEL_ANGSTROM, diameter))
    found = agreement(result, places, pick.APOFERRITIN_TOLERANCE_PIXEL)
    assert pick.APOFERRITIN_F1.is_met_by(found.f1), found
    assert pick.APOFERRITIN_OFFSET.is_met_by(found.offset_pixel), found
    assert result.diameter_angstrom == pytest.approx(pick.APOFERRITIN_DIAMETER_ANGSTROM, rel=0.2)


@pytest.mark.real_data
@pytest.mark.parametrize(("case", "defocus_angstrom"), [(0, 10500.0), (1, 16000.0), (2, 24000.0)])
def test_simulated_particles_are_found(real_data: Path, case: int, defocus_angstrom: float) -> None:
    """β-galactosidase at 40 e⁻/Å²: F1 meets its bar with 150 Å told and with the diameter estimated, within 20 %."""
    parameters = sum_parameters(
        case,
        7,
        defocus_u_angstrom=defocus_angstrom + 100,
        defocus_v_angstrom=defocus_angstrom - 100,
        pixel_size_angstrom=1.3,
        height=1536,
        width=1536,
    )
    image, truth = simulate_sum(parameters, load_specimen(real_data / STRUCTURE))
    places = np.stack((truth.particle_x_pixel, truth.particle_y_pixel), axis=1)
    for diameter in (150.0, None):
        result = pick_particles(image, PickParameters(1.3, diameter))
        found = agreement(result, places, pick.SIMULATED_TOLERANCE_ANGSTROM / 1.3)
        assert pick.SIMULATED_F1.is_met_by(found.f1), (found, result.diameter_angstrom)
        assert result.diameter_angstrom == pytest.approx(pick.SIMULATED_SIZE_ANGSTROM, rel=0.2)


@pytest.mark.parametrize("name", ["white noise", "coloured noise", "carbon", "carbon, half of the picture"])
def test_pictures_without_particles_have_none(name: str) -> None:
    """At most two picks in each, whatever size is sought."""
    for seed, pixel in ((31, 1.0), (32, 1.7)):
        plant = pick.PLANTS[name]((1280, 1280), pixel, seed)
        for diameter in (110.0, 180.0, None):
            assert len(pick_particles(plant.image, PickParameters(pixel, diameter)).picks) <= 2


def test_the_plants_are_where_they_are_said_to_be() -> None:
    """Gold takes most of the beam where it is planted, and nothing beside."""
    plant = pick_plants.gold((512, 512), 2.0, 1)
    assert plant.image[plant.junk].mean() < 0.8 * plant.image[~plant.junk].mean()
    assert plant.image[~plant.junk].mean() == pytest.approx(40 * 4, rel=0.01)
