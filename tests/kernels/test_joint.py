"""The joint fit finds a planted motion, whole and local, knows how well, and invents none."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from planted_motion import (
    PIXEL,
    Picture,
    bent_frames,
    local_field,
    planted_track,
    track_error,
)

from coldchain.kernels.align import AlignedMovie, AlignmentParameters, align_movie
from coldchain.kernels.band import _add_up, _differentiate, _turns
from coldchain.kernels.fourier import taper
from coldchain.kernels.joint import JointFit, fit_motion
from coldchain.kernels.motion import Motion
from coldchain.kernels.patches import Patches, cut_patches

SHAPE = (320, 320)
FRAMES = 14


def waves(shape: tuple[int, ...], highest: int, rng: np.random.Generator) -> NDArray[np.complex128]:
    """Random waves of unit power on the half-plane of patches."""
    size = (*shape, 2 * highest + 1, highest + 1)
    return (rng.normal(size=size) + 1j * rng.normal(size=size)) / np.sqrt(2)


def planted_patches(
    seed: int, *, signal: float, amplitude: float = 3.0, frames: int = 12, noise: float = 5.0
) -> tuple[Patches, Motion]:
    """Transforms of 4 × 3 patches of 100 Å, as the model has them, and the motion in them; no frame is damaged."""
    rng = np.random.default_rng(seed)
    shape, length, highest = (300, 400), 100, 12
    centre_y, centre_x = (grid.ravel() for grid in np.meshgrid([50.0, 150, 250], [50.0, 150, 250, 350], indexing="ij"))
    track = planted_track(frames)
    course = amplitude * (1 - np.exp(-np.arange(frames) / 4))
    fields = [np.outer(rng.normal(size=5) * 0.4, course) for _ in (0, 1)]
    motion = Motion(shape, *track, *fields, (4, 3), centre_x, centre_y)
    shift_x, shift_y = motion.at(centre_x, centre_y)
    y, x = np.arange(-highest, highest + 1)[:, None] / length, np.arange(highest + 1) / length
    power = signal * noise * np.exp(-100 * (y**2 + x**2))
    specimen = np.sqrt(power) * waves((12, 1), highest, rng)
    offset_y, offset_x = (np.round(shift / 4) * 4 for shift in track[::-1])
    angle = (shift_y - offset_y)[:, :, None, None] * y + (shift_x - offset_x)[:, :, None, None] * x
    seen = specimen * np.exp(-2j * np.pi * angle) + np.sqrt(noise) * waves((12, frames), highest, rng)
    return Patches(
        seen.real.astype(np.float32),
        seen.imag.astype(np.float32),
        y.ravel().astype(np.float32),
        x.astype(np.float32),
        centre_y,
        centre_x,
        offset_y,
        offset_x,
        (4, 3),
    ), motion


def fitted(
    patches: Patches, planted: Motion, start_error: float = 0.5, *, threads: int = 1, local: bool = True
) -> JointFit:
    """The fit, begun with a track that errs."""
    rng = np.random.default_rng(9)
    track_y, track_x = (
        track + start_error * rng.normal(size=track.size) * (np.arange(track.size) > 0)
        for track in (planted.shift_y_pixel, planted.shift_x_pixel)
    )
    return fit_motion(
        patches,
        planted.shape,
        track_y,
        track_x,
        pixel_size_angstrom=1.0,
        exposures=None,
        voltage_kilovolt=300.0,
        local=local,
        threads=threads,
    )


def distance(found: Motion, planted: Motion) -> float:
    """Root mean square distance over patches and frames."""
    places = planted.patch_x_pixel, planted.patch_y_pixel
    return float(
        np.sqrt(np.mean(sum((f - p) ** 2 for f, p in zip(found.at(*places), planted.at(*places), strict=True))))
    )


# Patches


@given(
    factor=st.sampled_from([1, 2, 3]),
    grid=st.none() | st.tuples(st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 1000),
    threads=st.integers(1, 2),
)
def test_patches_follow_the_track_and_are_transformed(
    factor: int, grid: tuple[int, int] | None, seed: int, threads: int
) -> None:
    """A patch's waves are those of the frame, cut where the specimen has gone by whole pixels, less its mean, times the
    window; the patches lie inside all frames, and their centres are where they say."""
    rng = np.random.default_rng(seed)
    binned = rng.normal(10, 1, (3, 83, 97)).astype(np.float32)
    shift_y, shift_x = factor * rng.uniform(-9, 9, (2, 3))
    patches = cut_patches(binned, factor, shift_y, shift_x, grid=grid, patch_pixel=31.0 * factor, threads=threads)
    count, frames, height, width = patches.real.shape
    assert (count, frames) == (patches.grid[0] * patches.grid[1], 3)
    if grid is not None:
        assert patches.grid == grid
    size = round(1 / (patches.frequency_x[1] * factor))
    assert (height, width) == (patches.frequency_y.size, patches.frequency_x.size)
    np.testing.assert_allclose(patches.frequency_y, np.arange(-(width - 1), width) / (size * factor), rtol=1e-6)
    window = np.outer(taper(size, 1 / 16), taper(size, 1 / 16))
    for p, f in np.ndindex(count, frames):
        top = (patches.centre_y[p] + 0.5 + patches.offset_y[f]) / factor - size / 2
        left = (patches.centre_x[p] + 0.5 + patches.offset_x[f]) / factor - size / 2
        assert (top, left) == (round(top), round(left))
        assert 0 <= top <= 83 - size
        assert 0 <= left <= 97 - size
        piece = binned[f, int(top) : int(top) + size, int(left) : int(left) + size].astype(float)
        transform = np.fft.rfft2((piece - piece.mean()) * window)[:, :width]
        expected = np.concatenate([transform[-(width - 1) :], transform[:width]])
        np.testing.assert_allclose(patches.real[p, f] + 1j * patches.imaginary[p, f], expected, atol=1e-2)
    for offset, shift in ((patches.offset_y, shift_y), (patches.offset_x, shift_x)):
        assert np.abs(offset - shift).max() <= factor / 2 + 1e-9


def test_frames_that_have_nothing_in_common_are_cut_where_they_are() -> None:
    """A drift over more than the picture leaves no common room: patches are cut without it."""
    binned = np.random.default_rng(1).normal(size=(3, 60, 60)).astype(np.float32)
    far = np.array([0.0, 70.0, 200.0])
    patches = cut_patches(binned, 1, far, far, grid=(2, 2), patch_pixel=30.0)
    assert not patches.offset_y.any()
    assert not patches.offset_x.any()


# What is maximised


@given(seed=st.integers(0, 1000))
def test_gradient_is_the_numerical_derivative(seed: int) -> None:
    """Of Σ w |Σ F exp(2πi k·s)|² with respect to every shift of every patch and frame along either axis."""
    rng = np.random.default_rng(seed)
    highest, count, frames = 4, 2, 3
    seen = waves((count, frames), highest, rng)
    y, x = np.arange(-highest, highest + 1) / 20, np.arange(highest + 1) / 20
    weights = rng.uniform(0, 2, (count, 2 * highest + 1, highest + 1)).astype(np.float32)
    shifts = rng.normal(size=(2, count, frames)) * 3

    def objective(at: Picture) -> float:
        angle = at[0][:, :, None, None] * y[:, None] + at[1][:, :, None, None] * x
        return float(np.sum(weights * np.abs(np.sum(seen * np.exp(2j * np.pi * angle), axis=1)) ** 2))

    real, imaginary = seen.real.astype(np.float32), seen.imag.astype(np.float32)
    turns = (*_turns(y.astype(np.float32), shifts[0]), *_turns(x.astype(np.float32), shifts[1]))
    sums = np.empty((2, *weights.shape), dtype=np.float32)
    _add_up(real, imaginary, *turns, *sums, 0, count)
    gradient = np.empty((2, count, frames))
    frequencies = y.astype(np.float32), x.astype(np.float32)
    _differentiate(real, imaginary, *turns, *sums, weights, *frequencies, *gradient, 0, count)
    for place in np.ndindex(*shifts.shape):
        step = np.zeros(shifts.shape)
        step[place] = 1e-4
        numerical = (objective(shifts + step) - objective(shifts - step)) / 2e-4
        assert gradient[place] == pytest.approx(numerical, rel=1e-3, abs=0.02)


# The fit


def test_motion_of_the_models_own_waves_is_recovered() -> None:
    """Begun with a track that is wrong by a pixel and without local motion, a strong movie is placed to 0.2 Å."""
    patches, planted = planted_patches(1, signal=1.0)
    found = fitted(patches, planted, start_error=1.0)
    assert distance(found.motion, planted) < 0.2
    assert found.local_angstrom > 5 * found.local_error_angstrom
    assert (found.motion.shift_x_pixel[0], found.motion.shift_y_pixel[0]) == pytest.approx((0, 0), abs=1e-9)


@pytest.mark.parametrize("signal", [1.0, 0.1, 0.03])
def test_the_fit_knows_its_error(signal: float) -> None:
    """Over ten movies of strong, usual and weak frames the stated error is right within a factor of two."""
    ratios = []
    for seed in range(10):
        patches, planted = planted_patches(seed, signal=signal)
        found = fitted(patches, planted)
        ratios.append(distance(found.motion, planted) / found.error_angstrom)
    assert 0.5 < np.sqrt(np.mean(np.square(ratios))) < 2


def test_one_strong_patch_does_not_speak_for_all() -> None:
    """Carbon in one patch, with 30 times the others' power, makes the motion no worse, nor the fit go to and fro."""
    ratios = []
    for seed in range(4):
        patches, planted = planted_patches(seed, signal=0.1)
        clean, _ = planted_patches(seed, signal=0.1 * 5.0 / 1e-6, noise=1e-6)
        patches.real[5] += (np.sqrt(30) - 1) * clean.real[5]
        patches.imaginary[5] += (np.sqrt(30) - 1) * clean.imaginary[5]
        found = fitted(patches, planted)
        plain, _ = planted_patches(seed, signal=0.1)
        ratios.append(distance(found.motion, planted) / distance(fitted(plain, planted).motion, planted))
    assert np.sqrt(np.mean(np.square(ratios))) < 1.2


def test_where_nothing_moves_locally_hardly_anything_is_found() -> None:
    """Over ten movies the local motion found is on average no more than twice the error that is stated for it."""
    ratios = []
    for seed in range(10):
        patches, planted = planted_patches(seed, signal=0.1, amplitude=0.0)
        found = fitted(patches, planted)
        ratios.append(found.local_angstrom / found.local_error_angstrom)
    assert np.mean(ratios) < 2


def test_without_local_terms_only_the_track_is_fitted() -> None:
    """Asked for none, the local motion is none, and the track is as good."""
    patches, planted = planted_patches(2, signal=0.3, amplitude=0.0)
    found = fitted(patches, planted, local=False)
    assert found.motion.field_x.shape == found.motion.field_y.shape == (0, 12)
    assert found.local_angstrom == 0
    assert distance(found.motion, planted) < 0.45


def test_waves_of_nothing_leave_the_track_as_it_was() -> None:
    """Without any power there is nothing to fit: no motion is added, and no error can be told."""
    patches, planted = planted_patches(3, signal=0.1)
    patches.real[:] = patches.imaginary[:] = 0
    found = fitted(patches, planted, start_error=0.0)
    assert found.error_angstrom == np.inf
    np.testing.assert_allclose(found.motion.shift_x_pixel, planted.shift_x_pixel, atol=1e-6)
    assert not found.motion.field_x.any()


def test_two_threads_fit_the_same() -> None:
    """Patches are divided among threads."""
    one, two = (fitted(*planted_patches(4, signal=0.3), threads=threads) for threads in (1, 2))
    np.testing.assert_allclose(one.motion.field_x, two.motion.field_x, atol=1e-9)
    np.testing.assert_allclose(one.motion.shift_y_pixel, two.motion.shift_y_pixel, atol=1e-9)


# Whole movies


@cache
def aligned(
    seed: int,
    amplitude: float = 4.0,
    frames: int = FRAMES,
    contrast: float = 0.15,
    mean: float = 2.0,
    scale: float = 1.0,
) -> AlignedMovie:
    """A movie of electrons of a specimen that moves as a whole and bends, aligned with 4 × 4 patches of 85 Å."""
    ideal = bent_frames(SHAPE, contrast, planted_track(frames, scale), amplitude, seed)
    movie = np.random.default_rng(seed).poisson(mean * ideal).astype(np.uint8)
    dose = 1.5 if frames > 3 else None
    return align_movie(
        movie, gain=None, defects=None, parameters=AlignmentParameters(PIXEL, 300.0, dose, patches=(4, 4))
    )


def differences(result: AlignedMovie, amplitude: float = 4.0, scale: float = 1.0) -> tuple[Picture, ...]:
    """Displacements found and planted at 16 places, in Å: (places, frames) each."""
    x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(40, 279, 4), np.linspace(40, 279, 4)))
    frames = result.motion.shift_x_pixel.size
    track = planted_track(frames, scale)
    local = local_field(SHAPE, frames, amplitude, x, y)
    planted = [PIXEL * (part + whole) for part, whole in zip(local, track, strict=True)]
    return *(PIXEL * part for part in result.motion.at(x, y)), *planted


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bending_specimens_are_followed(seed: int) -> None:
    """At 2 e⁻ a pixel, tracks at places all over are right to 0.5 Å, where the whole frame's alone errs by 0.6 and
    more."""
    result = aligned(seed)
    found_x, found_y, planted_x, planted_y = differences(result)
    whole = [
        np.broadcast_to(PIXEL * s, found_x.shape) for s in (result.motion.shift_x_pixel, result.motion.shift_y_pixel)
    ]
    assert track_error(found_x, found_y, planted_x, planted_y) < 0.45
    assert track_error(*whole, planted_x, planted_y) > 0.6
    assert result.motion.grid == (4, 4)
    assert len(result.warnings) == 1
    assert "patches are" in result.warnings[0]  # narrower than single particles want them, as the picture is small


def test_movies_know_their_error() -> None:
    """Over five movies, distances from the places in the first frame are what is stated, within a factor of two."""
    ratios = []
    for seed in range(5):
        result = aligned(seed)
        found_x, found_y, planted_x, planted_y = differences(result)
        error = np.sqrt(np.mean((found_x - planted_x) ** 2 + (found_y - planted_y) ** 2))
        ratios.append(error / result.error_angstrom)
    assert 0.5 < np.sqrt(np.mean(np.square(ratios))) < 2


@pytest.mark.parametrize("scale", [0.0, 1.0], ids=["still", "drifting as a whole"])
def test_a_specimen_that_does_not_bend_is_not_bent(scale: float) -> None:
    """Where every place moves alike, the local motion that is found stays below an ångström, and the places right."""
    for seed in range(3):
        result = aligned(seed, amplitude=0.0, scale=scale)
        found_x, found_y, planted_x, planted_y = differences(result, 0.0, scale)
        local = result.motion.local_at(result.motion.patch_x_pixel, result.motion.patch_y_pixel)
        assert PIXEL * np.sqrt(np.mean(local[0][:, -1] ** 2 + local[1][:, -1] ** 2)) < 1.1
        assert track_error(found_x, found_y, planted_x, planted_y) < 0.4


@pytest.mark.parametrize(("frames", "largest"), [(2, 1.15), (3, 0.75)])
def test_two_and_three_frames_are_placed(frames: int, largest: float) -> None:
    """The fit works with as few frames as there can be; over three movies the error is that of few electrons."""
    errors = [track_error(*differences(aligned(seed, frames=frames))) for seed in range(3)]
    assert np.sqrt(np.mean(np.square(errors))) < largest


@pytest.mark.parametrize("mean", [0.03, 0.005])
def test_very_few_electrons_are_said_and_nothing_is_invented(mean: float) -> None:
    """A specimen that 0.4 electrons a pixel in all do not show is added up as it is: a warning, and no motion."""
    result = aligned(5, mean=mean, contrast=0.1)
    assert "no signal in common" in result.warnings[0]
    assert result.error_angstrom == np.inf
    assert np.abs(result.motion.at(np.array([50.0, 250.0]), np.array([50.0, 250.0]))).max() < 3
