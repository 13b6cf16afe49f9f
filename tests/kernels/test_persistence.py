"""What stands still from exposure to exposure is measured, and what does not is not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from coldchain.kernels.persistence import Pattern, common_share, pattern_of_frames, pattern_of_image

SHAPE = (560, 540)
FRAMES = 8
ELECTRONS = 40.0


def movie(rng: np.random.Generator, response: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Frames of a specimen that is another in each exposure, on a camera with that response."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    specimen = 1 + 0.2 * np.sin(rows / rng.uniform(9, 30) + rng.uniform(0, 6)) * np.cos(columns / rng.uniform(9, 30))
    return rng.poisson(ELECTRONS / FRAMES * specimen * response, (FRAMES, *SHAPE)).astype(np.uint8)


def patterns(
    response: NDArray[np.float64], gain: NDArray[np.float32] | None, count: int, seed: int = 0
) -> list[Pattern]:
    """The patterns of so many exposures."""
    rng = np.random.default_rng(seed)
    made = [pattern_of_frames(movie(rng, response), gain) for _ in range(count)]
    return [pattern for pattern in made if pattern is not None]


def response_of(spread: float, seed: int = 99) -> NDArray[np.float64]:
    """A response of single pixels with that standard deviation."""
    return 1 + spread * np.random.default_rng(seed).standard_normal(SHAPE)


@pytest.mark.parametrize("spread", [0.03, 0.06])
def test_a_pattern_that_stands_still_is_measured(spread: float) -> None:
    """A response that nothing corrects is n a² / (1 + n a²) of the variance, as the docstring says."""
    made = patterns(response_of(spread), None, 6)
    expected = ELECTRONS * spread**2 / (1 + ELECTRONS * spread**2)
    assert common_share(made[0], made[1:]) == pytest.approx(expected, rel=0.15)


def test_a_gain_takes_the_pattern_away_and_an_old_one_leaves_it() -> None:
    """With its own gain reference nothing is left; with one whose pattern is another's, a pattern is."""
    response = response_of(0.05)
    right = patterns(response, (1 / response).astype(np.float32), 6)
    stale = patterns(response, (1 / response_of(0.05, seed=5)).astype(np.float32), 6)
    none, some = common_share(right[0], right[1:]), common_share(stale[0], stale[1:])
    assert none is not None
    assert some is not None
    assert abs(none) < 0.005
    assert some > 0.05


def test_a_fault_is_seen_against_exposures_that_have_it_too() -> None:
    """The first exposure with a fault has nothing in common with those before; the next one has with the first."""
    before, after = patterns(response_of(0.0), None, 4), patterns(response_of(0.05), None, 3, seed=1)
    assert abs(common_share(after[0], before) or 0.0) < 0.005
    assert (common_share(after[2], [*before, *after[:2]]) or 0.0) > 0.02


def test_defects_and_hot_pixels_are_no_pattern() -> None:
    """Pixels that are known to be bad, by the gain or the list, are left out, and so are those that stand out."""
    rng = np.random.default_rng(3)
    bad = rng.random(SHAPE) < 0.01
    hot = rng.random(SHAPE) < 0.001
    made = []
    for _ in range(5):
        frames = movie(rng, np.ones(SHAPE))
        frames[:, bad], frames[:, hot] = 0, 200
        made.append(pattern_of_frames(frames, None, bad))
    known = [pattern for pattern in made if pattern is not None]
    assert abs(common_share(known[0], known[1:]) or 1.0) < 0.01


@pytest.mark.parametrize("blank", [np.zeros((64, 64)), np.full((64, 64), 7.0), np.full((64, 64), np.nan)])
def test_a_blank_image_has_no_pattern(blank: NDArray[np.float64]) -> None:
    """Nothing, the same everywhere, and not a number: None."""
    assert pattern_of_image(blank) is None


def test_another_cameras_pattern_is_not_compared() -> None:
    """Patterns of another shape are left out."""
    rng = np.random.default_rng(0)
    small = pattern_of_image(rng.poisson(40, (100, 100)))
    large = pattern_of_image(rng.poisson(40, (200, 200)))
    assert small is not None
    assert large is not None
    assert common_share(small, [large]) is None
