"""Polygons round a mask's bodies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coldchain.kernels.outlines import outlines


def _area(polygon: NDArray[np.float64]) -> float:
    x, y = polygon.T
    return 0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


def test_every_body_and_every_hole_has_one_border() -> None:
    """A ring and a cut disc: three polygons, with the areas of what is planted, the hole's negative."""
    y, x = np.mgrid[:200, :300]
    ring = (np.hypot(y - 80, x - 100) < 50) & ~(np.hypot(y - 80, x - 100) < 20)
    cut = np.hypot(y - 180, x - 280) < 60
    found = outlines(ring | cut)
    assert len(found) == 3
    for got, planted in zip(found, (np.pi * 50**2, -np.pi * 20**2, float(cut.sum())), strict=True):
        assert abs(_area(got) - planted) < 0.02 * abs(planted)
    assert min(p.min() for p in found) >= -0.5
    ring_border = next(p for p in found if _area(p) > 7000)
    assert np.abs(ring_border.mean(axis=0) - (100, 80)).max() < 0.5


def test_any_mask_has_closed_borders_of_its_size() -> None:
    """Of random masks: the areas add up to the pixels, less the corners that are cut; none and all are no error."""
    random = np.random.default_rng(0)
    mask = random.random((40, 50)) < 0.7
    total = sum(_area(p) for p in outlines(mask))
    assert abs(total - mask.sum()) < 0.1 * mask.sum()
    assert outlines(np.zeros((5, 6), dtype=bool)) == ()
    (whole,) = outlines(np.ones((5, 6), dtype=bool))
    assert _area(whole) == 30 - 4 / 8
    two = outlines(np.eye(2, dtype=bool))
    assert len(two) == 2
