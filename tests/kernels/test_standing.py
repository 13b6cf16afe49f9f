"""What belongs to the camera and not to the specimen is measured, and does not hold the alignment."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from planted_motion import PIXEL, Picture, bent_frames, expose, local_field, planted_track, specimen, track_error

from coldchain.kernels.align import AlignedMovie, AlignmentParameters, align_movie
from coldchain.kernels.prepare import PreparedMovie, prepare
from coldchain.kernels.standing import Standing, level_lines, pixel_patterns, standing_pattern

SHAPE = (400, 360)
FRAMES = 16
COUNTS = 30.0
NOISE = 55.0  # standard deviation of the frames below
Stack = NDArray[np.float32]


@cache
def integrated(seed: int, scale: float = 1.0) -> Stack:
    """Frames of a camera that integrates, of electrons of unequal brightness, read noise and an offset; the specimen
    drifts and bends, or stands still where `scale` is 0."""
    ideal = bent_frames(SHAPE, 0.15, planted_track(FRAMES, scale), 4.0 * scale, seed)
    rng = np.random.default_rng(seed)
    electrons = rng.poisson(2.0 * ideal)
    bright = rng.gamma(np.maximum(1.5 * electrons, 1e-9), COUNTS / 1.5)
    return (bright + rng.normal(300, 10, bright.shape)).astype(np.float32)


def aligned(frames: NDArray[np.generic], dark: Picture | None = None) -> AlignedMovie:
    """Aligned with 4 × 4 patches of 100 Å."""
    parameters = AlignmentParameters(PIXEL, 300.0, 1.5, counts_per_electron=COUNTS, patches=(4, 4))
    return align_movie(frames, gain=None, defects=None, dark=dark, parameters=parameters)


def error(result: AlignedMovie, scale: float = 1.0) -> float:
    """Root mean square distance of the tracks at 16 places from the planted ones, each track's mean removed, in Å."""
    x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(40, 319, 4), np.linspace(40, 359, 4)))
    track, local = planted_track(FRAMES, scale), local_field(SHAPE, FRAMES, 4.0 * scale, x, y)
    return PIXEL * track_error(*result.motion.at(x, y), local[0] + track[0], local[1] + track[1])


def pattern(kind: str) -> Picture:
    """What the camera adds, in units of a frame's noise: (frames or 1, rows or 1, columns)."""
    rng = np.random.default_rng(7)
    pixels, columns, rows = (rng.normal(size=size) for size in (SHAPE, (1, SHAPE[1]), (SHAPE[0], 1)))
    halves = np.repeat(rng.normal(size=(2, SHAPE[1])), SHAPE[0] // 2, axis=0)
    walk = np.cumsum(rng.normal(size=(FRAMES, 1, SHAPE[1])), axis=0)
    whole = np.cumsum(rng.normal(size=(FRAMES, 1, 1)), axis=0)
    return {
        "pixels": pixels[np.newaxis],
        "columns": columns[np.newaxis],
        "rows": rows[np.newaxis],
        "columns by halves": halves[np.newaxis],
        "drifting columns": 0.2 * walk,
        "drifting offset": 3 * whole,
        "everything": pixels + 0.5 * columns + 0.1 * walk + 3 * whole,
    }[kind]


def with_pattern(frames: Stack, kind: str, strength: float = 1.0) -> Stack:
    """The frames with a pattern that no dark reference takes away."""
    return (frames + strength * NOISE * pattern(kind)).astype(np.float32)


def measured(frames: NDArray[np.generic]) -> Standing:
    """What a movie shows."""
    return standing_pattern(prepare(frames))


# Measured


@pytest.mark.parametrize("scale", [0.0, 1.0], ids=["still", "drifting"])
def test_a_specimen_is_no_pattern(scale: float) -> None:
    """Without a pattern nothing is found, whether the specimen moves or not, and the frames are left as they are."""
    for seed in range(2):
        movie = prepare(integrated(seed, scale), factor=3)
        found = standing_pattern(movie)
        assert found == Standing()
        assert found.warnings == ()
        before = movie.binned.copy()
        level_lines(movie.binned, found)
        np.testing.assert_array_equal(movie.binned, before)
        assert pixel_patterns(movie.binned, found, 3) == (None, None)


@pytest.mark.parametrize("mean", [0.05, 1.0, 20.0])
def test_noise_is_no_pattern(mean: float) -> None:
    """Over four movies, neither electrons one by one nor noise that neighbours share shows anything that stands."""
    for seed in range(4):
        electrons = np.random.default_rng(seed).poisson(mean, (8, 150, 170))
        spread = sum(np.roll(electrons, step, axis) for axis in (1, 2) for step in (-1, 0, 0, 1))
        for frames in (electrons.astype(np.uint16), np.asarray(spread).astype(np.float32)):
            assert measured(frames) == Standing()


@pytest.mark.parametrize("strength", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("kind", ["pixels", "columns", "rows"])
def test_strengths_are_measured(kind: str, strength: float) -> None:
    """A pattern's deviation over the noise's comes back within a tenth, and each kind is told from the others."""
    found = measured(with_pattern(integrated(0), kind, strength))
    values = {"pixels": found.per_noise, "columns": found.columns_per_noise, "rows": found.rows_per_noise}
    assert values.pop(kind) == pytest.approx(strength, rel=0.12)
    assert set(values.values()) == {0.0}
    assert np.sqrt(found.variance) == pytest.approx(strength * NOISE if kind == "pixels" else 0.0, rel=0.12)


def test_what_the_dark_reference_takes_away_is_no_pattern() -> None:
    """Nor what lies in known defects."""
    dark = 300 + NOISE * pattern("pixels")[0]
    frames = (integrated(0) - 300 + dark).astype(np.float32)
    defects = np.zeros(SHAPE, dtype=bool)
    defects[::9, ::11] = True
    frames[:, defects] += 1e4
    assert standing_pattern(prepare(frames, dark=dark, defects=defects)) == Standing()


def test_strong_patterns_are_said() -> None:
    """Weak ones need no word; strong ones are named, with what may be missing."""
    assert Standing(1.0, 0.3, 0.2, 0.1).warnings == ()
    (sentence,) = Standing(1.0, 1.5, 0.1, 0.7).warnings
    assert "single pixels and rows is 1.5 times as strong" in sentence
    assert "dark or a gain reference missing" in sentence


def test_threads_measure_the_same() -> None:
    """Frames are divided among threads."""
    movie = prepare(with_pattern(integrated(0), "everything"))
    one, two = (standing_pattern(movie, threads) for threads in (1, 2))
    assert one.variance == pytest.approx(two.variance, rel=1e-4)
    assert one.columns_per_noise == pytest.approx(two.columns_per_noise, rel=1e-4)


@given(
    frames=st.integers(1, 4),
    rows=st.sampled_from([1, 2, 15, 16, 17, 61]),
    columns=st.sampled_from([1, 3, 16, 33, 90]),
    factor=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_any_shape_is_measured_and_cleaned(frames: int, rows: int, columns: int, factor: int, seed: int) -> None:
    """Odd, prime and tiny movies with strong patterns give finite strengths and finite frames."""
    rng = np.random.default_rng(seed)
    movie = (rng.normal(0, 3, (1, rows, columns)) + rng.normal(size=(frames, rows, columns))).astype(np.float32)
    prepared: PreparedMovie = prepare(movie, factor=min(factor, rows, columns))
    found = standing_pattern(prepared)
    assert np.isfinite([found.variance, found.per_noise, found.columns_per_noise, found.rows_per_noise]).all()
    level_lines(prepared.binned, Standing(found.variance, found.per_noise, 1.0, 1.0))
    for picture in pixel_patterns(prepared.binned, found, prepared.factor):
        assert picture is None or np.isfinite(picture).all()
    assert np.isfinite(prepared.binned).all()


# Kept from holding the frames


@pytest.mark.parametrize(
    ("kind", "strength", "largest"),
    [
        ("pixels", 0.3, 0.55),
        ("pixels", 1.0, 0.75),
        ("columns", 1.0, 0.5),
        ("columns", 3.0, 0.55),
        ("rows", 1.0, 0.5),
        ("columns by halves", 1.0, 0.5),
        ("drifting columns", 1.0, 0.5),
        ("drifting offset", 1.0, 0.5),
        ("everything", 1.0, 1.0),
    ],
)
def test_patterns_do_not_hold_the_specimen(kind: str, strength: float, largest: float) -> None:
    """Without a dark reference, tracks all over the picture stay right: 0.4 Å is what they are without a pattern, 4 Å
    what they were if all frames were held where they are."""
    for seed in range(2):
        result = aligned(with_pattern(integrated(seed), kind, strength))
        assert error(result) < largest
        said = any("as strong as one frame's noise" in warning for warning in result.warnings)
        assert said == (strength >= 0.5 and kind != "drifting offset")


@pytest.mark.parametrize("scale", [0.0, 0.1, 0.3])
def test_a_specimen_that_hardly_moves_is_not_taken_for_a_pattern(scale: float) -> None:
    """It stays in the frames: beside a pattern of a third of the noise its track is right."""
    for seed in range(2):
        assert error(aligned(with_pattern(integrated(seed, scale), "pixels", 0.3)), scale) < 0.5


def test_a_stale_gain_does_not_hold_the_specimen() -> None:
    """Pixels whose response is off by a tenth, beside a specimen that moves."""
    response = np.random.default_rng(5).normal(1, 0.1, SHAPE)
    assert error(aligned(((integrated(0) - 300) * response).astype(np.float32))) < 0.5


def test_frames_without_a_pattern_are_aligned_as_ever() -> None:
    """Where none is found the small frames are those that were prepared, bit by bit, and so is all that follows."""
    frames = expose(specimen((256, 300), 0.3), *planted_track(6), 3.0)
    assert measured(frames) == Standing()
    parameters = AlignmentParameters(PIXEL, 300.0, patches=(1, 1))
    assert align_movie(frames, gain=None, defects=None, parameters=parameters).warnings == ()
