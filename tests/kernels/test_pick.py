"""Picking without a reference: planted and painted particles are found, noise has none."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from planted_ctf import particles
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from coldchain.errors import ProcessingError
from coldchain.kernels.pick import PickParameters, find_particles, pick_particles
from coldchain.model.results import PickResult


def _f1(result: PickResult, truth: NDArray[np.float64], tolerance_pixel: float) -> tuple[float, str]:
    """F1 of a one-to-one match, and a sentence for the assertion."""
    found = np.array([(p.x_pixel, p.y_pixel) for p in result.picks]).reshape(-1, 2)
    distance = np.hypot(*(found[:, None, :] - truth[None, :, :]).transpose(2, 0, 1))
    rows, columns = linear_sum_assignment(np.where(distance <= tolerance_pixel, distance, 1e6))
    offsets = distance[rows, columns]
    hits = int(np.count_nonzero(offsets <= tolerance_pixel))
    f1 = 2 * hits / max(1, len(found) + len(truth))
    off = offsets[offsets <= tolerance_pixel].mean() if hits else math.nan
    return f1, f"F1 {f1:.3f}: {hits} of {len(truth)} in {len(found)} picks, mean offset {off:.1f} px, {result}"[:300]


@pytest.mark.parametrize(
    ("diameter", "cavity", "pixel", "snr"),
    [(100.0, 0.0, 1.1, 0.08), (125.0, 0.7, 1.5, 0.08), (150.0, 0.0, 0.8, 0.05), (150.0, 0.6, 2.2, 0.1)],
)
@pytest.mark.parametrize("light", [False, True])
def test_planted_particles_are_found(diameter: float, cavity: float, pixel: float, snr: float, light: bool) -> None:
    """Balls and shells of 100–150 Å, dark on light or light on dark: F1 ≥ 0.95 within a quarter of the diameter."""
    edge = int(1700 / pixel)
    image, truth = particles((edge, edge + 64), pixel, diameter, 50, cavity=cavity, signal_to_noise=snr, seed=4)
    result = pick_particles(-image if light else image, PickParameters(pixel, diameter))
    f1, told = _f1(result, truth, 0.25 * diameter / pixel)
    assert f1 >= 0.95, told
    merits = [p.figure_of_merit for p in result.picks]
    assert merits == sorted(merits, reverse=True)


@pytest.mark.parametrize(("diameter", "cavity"), [(100.0, 0.0), (140.0, 0.7), (220.0, 0.7)])
def test_the_diameter_is_estimated(diameter: float, cavity: float) -> None:
    """Where no diameter is given it is found within 15 %, and the particles with it (F1 ≥ 0.9)."""
    image, truth = particles((1100, 1000), 2.0, diameter, 40, cavity=cavity, signal_to_noise=0.15, seed=9)
    result = pick_particles(image, PickParameters(2.0))
    assert result.diameter_angstrom == pytest.approx(diameter, rel=0.15)
    f1, told = _f1(result, truth, 0.25 * diameter / 2.0)
    assert f1 >= 0.9, told


def test_noise_has_no_particles() -> None:
    """Pure noise, white or coloured: at most two picks in each of 30 images."""
    random = np.random.default_rng(21)
    counts = []
    for i in range(30):
        image = random.standard_normal((640, 600))
        if i % 3 == 1:
            image = ndimage.gaussian_filter(image, 3) + 0.03 * random.standard_normal(image.shape)
        if i % 3 == 2:
            image = random.poisson(20.0, image.shape).astype(np.float64)
        counts.append(len(pick_particles(image, PickParameters(2.5, (90.0, 125.0, 200.0)[i // 3 % 3])).picks))
    assert max(counts) <= 2, counts


def test_noise_has_no_particles_of_any_size() -> None:
    """Nor where the diameter is to be estimated."""
    random = np.random.default_rng(22)
    counts = [len(pick_particles(random.standard_normal((500, 500)), PickParameters(3.0)).picks) for _ in range(6)]
    assert max(counts) <= 2, counts


def test_junk_is_not_picked() -> None:
    """A dark body wider than the particles (ice, contamination) has no picks on it, and costs no particle elsewhere."""
    image, truth = particles((900, 900), 1.8, 125.0, 60, cavity=0.0, signal_to_noise=0.1, seed=3)
    rows, columns = np.mgrid[:900, :900]
    body = np.hypot(rows - 450, columns - 300) < 90
    image[body] -= 12
    result = pick_particles(image, PickParameters(1.8, 125.0))
    on_junk = [p for p in result.picks if math.hypot(p.y_pixel - 450, p.x_pixel - 300) < 85]
    assert not on_junk
    clear = truth[np.hypot(truth[:, 1] - 450, truth[:, 0] - 300) > 90 + 40]
    found = PickResult(125.0, tuple(p for p in result.picks if math.hypot(p.y_pixel - 450, p.x_pixel - 300) > 130))
    f1, told = _f1(found, clear, 20)
    assert f1 >= 0.9, told


def test_pick_places_do_not_depend_on_units_of_grey() -> None:
    """Another gain and offset of the camera, or another integer type, changes no place by a tenth of a pixel."""
    image, _ = particles((700, 700), 2.0, 125.0, 30, cavity=0.0, signal_to_noise=0.1, seed=5)
    first = pick_particles(image, PickParameters(2.0, 125.0)).picks
    second = pick_particles(np.rint(1000 * image + 30000).astype(np.int32), PickParameters(2.0, 125.0)).picks
    assert len(first) == len(second) > 20
    for a, b in zip(first, second, strict=True):
        assert math.hypot(a.x_pixel - b.x_pixel, a.y_pixel - b.y_pixel) < 0.1


def test_a_blank_picture_has_no_picks() -> None:
    """Every pixel the same: no picks, no error."""
    assert pick_particles(np.full((400, 400), 3, dtype=np.uint16), PickParameters(2.0, 120.0)).picks == ()
    assert pick_particles(np.zeros((400, 400), dtype=np.float32), PickParameters(2.0)).picks == ()


@pytest.mark.parametrize("absurd", [1e6, 3e38])
@pytest.mark.parametrize("diameter", [125.0, None])
def test_two_broken_pixels_of_absurd_value_cost_and_give_nothing(absurd: float, diameter: float | None) -> None:
    """In noise nothing is picked; particles are found as without them, but for one whose place they are; each is junk,
    and next to nothing else is."""
    noise = np.random.default_rng(0).standard_normal((600, 600)).astype(np.float32)
    image, truth = particles((600, 600), 2.0, 125.0, 24, cavity=0.0, signal_to_noise=0.15, seed=5)
    before = find_particles(image, PickParameters(2.0, diameter))
    assert _f1(before.result, truth, 15)[0] >= 0.9
    for places in (((200, 300), (500, 400)), ((300, 300), (0, 599))):  # the second one is the middle, and a corner
        broken, with_particles = noise.copy(), image.astype(np.float32)
        for value, place in zip((absurd, -absurd), places, strict=True):
            broken[place] = with_particles[place] = value
        found = find_particles(broken, PickParameters(2.0, diameter))
        assert found.result.picks == ()
        assert 0 < found.contamination_fraction < 0.001
        after = find_particles(with_particles, PickParameters(2.0, diameter))
        near = [
            min(math.hypot(a.x_pixel - b.x_pixel, a.y_pixel - b.y_pixel) for b in after.result.picks)
            for a in before.result.picks
        ]
        assert sum(distance > 2 for distance in near) <= 2
        assert len(after.result.picks) <= len(before.result.picks) + 1


def test_doubles_at_the_ends_of_their_range_are_broken_pixels() -> None:
    """Squares and differences of them are infinite, and no number of the picture is."""
    noise = np.random.default_rng(1).standard_normal((500, 500))
    noise[100, 100], noise[300, 200], noise[250, 250] = 1.7e308, -1.7e308, 1.7e308
    assert find_particles(noise, PickParameters(3.0, 120.0)).result.picks == ()


def test_a_threshold_takes_the_place_of_the_noise() -> None:
    """Every pick has the figure of merit that is asked for, and a lower one gives no fewer picks."""
    image, _ = particles((700, 700), 2.0, 125.0, 30, cavity=0.0, signal_to_noise=0.1, seed=5)
    strict, loose = (pick_particles(image, PickParameters(2.0, 125.0, threshold=level)).picks for level in (0.5, 0.2))
    assert all(p.figure_of_merit >= 0.5 for p in strict)
    assert 0 < len(strict) < len(loose)
    assert set(strict) <= set(loose)


@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize("kind", ["?", "B", "b", "<u2", ">i2", "e", ">f4", "d", "q"])
def test_any_real_type_and_polarity_gives_the_same_places(kind: str, light: bool) -> None:
    """Whatever the type that holds the grey values: the same particles, and which are darker is told."""
    image, truth = particles((500, 500), 3.0, 125.0, 20, cavity=0.0, signal_to_noise=0.5, seed=6)
    scaled = 20 * (-image if light else image)
    values = (
        scaled > 0 if kind == "?" else np.clip(np.rint(scaled), -128, 127) + (128 if np.dtype(kind).kind == "u" else 0)
    )
    found = find_particles(values.astype(kind), PickParameters(3.0, 125.0))
    assert found.dark_on_light is not light
    f1, told = _f1(found.result, truth, 10)
    assert f1 >= 0.95, told


@pytest.mark.parametrize(
    ("image", "parameters"),
    [
        (np.eye(400), PickParameters(0.0, 120.0)),
        (np.eye(400), PickParameters(math.nan)),
        (np.eye(400), PickParameters(2.0, -5.0)),
        (np.eye(400), PickParameters(2.0, 3.0)),
        (np.eye(400), PickParameters(2.0, 120.0, false_alarms_per_micrograph=0.0)),
        (np.eye(20), PickParameters(2.0, 10.0)),
        (np.eye(400), PickParameters(2.0, 700.0)),
        (np.full((400, 400), np.nan), PickParameters(2.0, 120.0)),
        (np.ones((100, 100)), PickParameters(1.0, 120.0)),
        (np.eye(400) * 1j, PickParameters(2.0, 120.0)),
        (np.eye(400), PickParameters(2.0, 120.0, threshold=math.nan)),
        (np.zeros((3, 400, 400)), PickParameters(2.0, 120.0)),
    ],
)
def test_what_cannot_be_picked_is_refused(image: NDArray[np.generic], parameters: PickParameters) -> None:
    """Impossible parameters and broken pictures are one stated error, with its remedy."""
    with pytest.raises(ProcessingError) as caught:
        pick_particles(image, parameters)
    assert caught.value.found
    assert caught.value.remedy


@pytest.mark.real_data
def test_real_capsids_are_found_as_a_trained_picker_finds_them(real_data: Path) -> None:
    """AAV-like capsids, 512² binned by 8: most of Topaz's picks (F1 ≥ 0.75; they are mostly, not all, right)."""
    (path,) = (real_data / "micrographs").glob("24dec03a_*_ds8.mrc")
    raw = path.read_bytes()
    width, height = (int(v) for v in np.frombuffer(raw, dtype="<i4", count=2))
    image = np.frombuffer(raw, dtype="<f4", count=width * height, offset=1024).reshape(height, width)
    told_picks = json.loads((real_data / "micrographs" / "topaz_picks_ds.json").read_text())
    truth = np.array([(p["x_ds"], p["y_ds"]) for p in told_picks], dtype=np.float64)
    f1, told = _f1(pick_particles(image, PickParameters(6.3, 145.0)), truth, 8.0)
    assert f1 >= 0.75, told
