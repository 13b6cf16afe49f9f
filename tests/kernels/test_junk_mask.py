"""Junk on planted pictures: where it is, how much, and its outlines."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import pick_plants
from benchmarks.pick_plants import Plant
from coldchain.kernels.pick import Picking, PickParameters, find_particles

SHAPE = (1536, 1408)


def _area(polygon: NDArray[np.float64]) -> float:
    x, y = polygon.T
    return 0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


def _of_input(found: Picking, shape: tuple[int, int]) -> NDArray[np.bool_]:
    rows, columns = (
        np.minimum(np.rint(np.arange(length) / scale).astype(int), have - 1)
        for length, scale, have in zip(shape, found.junk_scale, found.junk.shape, strict=True)
    )
    return found.junk[np.ix_(rows, columns)]


@pytest.mark.parametrize("pixel", [1.0, 1.9])
def test_the_carbon_beside_a_hole_is_junk(pixel: float) -> None:
    """Carbon over half of the picture: its part is right within 3 %, its place within 3 % of the pixels, no picks."""
    plant = pick_plants.carbon(SHAPE, pixel, 11, part=0.5)
    found = find_particles(plant.image, PickParameters(pixel, 150.0))
    assert found.contamination_fraction == pytest.approx(float(plant.junk.mean()), abs=0.03)
    assert np.mean(_of_input(found, SHAPE) != plant.junk) < 0.03
    assert len(found.result.picks) <= 2
    area = sum(_area(polygon) for polygon in found.outlines) / (SHAPE[0] * SHAPE[1])
    assert area == pytest.approx(found.contamination_fraction, abs=0.02)


@pytest.mark.parametrize("make", [pick_plants.contamination, pick_plants.gold])
@pytest.mark.parametrize("diameter", [125.0, 200.0])
def test_ice_and_gold_are_junk_and_no_particles(make: object, diameter: float) -> None:
    """Crystals of many sizes, dark and bright, and beads all alike: at most two picks, and the junk's part is right
    within 5 % of the picture."""
    for seed in (21, 22):
        plant = make(SHAPE, 1.5, seed)  # type: ignore[operator]
        assert isinstance(plant, Plant)
        found = find_particles(plant.image, PickParameters(1.5, diameter))
        assert len(found.result.picks) <= 2
        assert found.contamination_fraction == pytest.approx(float(plant.junk.mean()), abs=0.05)
        assert np.mean(plant.junk & ~_of_input(found, SHAPE)) < 0.05


def test_a_clean_picture_has_no_junk() -> None:
    """Counted electrons alone, or a slow gradient of the illumination: no junk, no outline."""
    plant = pick_plants.white_noise(SHAPE, 1.2, 5)
    ramp = np.linspace(0.8, 1.2, SHAPE[1], dtype=np.float32)
    for image in (plant.image, plant.image * ramp):
        found = find_particles(image, PickParameters(1.2, 125.0))
        assert found.contamination_fraction == 0
        assert found.outlines == ()


def test_pixels_that_are_no_numbers_are_junk() -> None:
    """A few NaN and infinite pixels are masked and outlined, and nothing else changes."""
    image = np.random.default_rng(2).standard_normal(SHAPE).astype(np.float32)
    image[100:140, 300:350], image[700, 700] = np.nan, np.inf
    found = find_particles(image, PickParameters(2.0, 150.0))
    mask = _of_input(found, SHAPE)
    assert mask[100:140, 300:350].all()
    assert mask[700, 700]
    assert 0.0009 < found.contamination_fraction < 0.003
    assert len(found.outlines) == 2
    assert len(found.result.picks) <= 2
