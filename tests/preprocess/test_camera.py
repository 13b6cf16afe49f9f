"""What the steps tell of camera and brightness, from files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coldchain.formats.mrc import read_mrc, write_mrc
from coldchain.kernels.orientation import GainCheck, GainFit, Verdict
from coldchain.model.results import MotionResult, QualityResult, Step
from coldchain.preprocess.camera import share_applied, shared_pattern
from coldchain.preprocess.steps import StepJob, run_step

SIDE = 256
FRAMES = 6
PARAMETERS: dict[str, object] = {
    "pixel_size_angstrom": 2.0,
    "voltage_kilovolt": 300.0,
    "dose_e_per_square_angstrom": 15.0,
    "frame_count": FRAMES,
}
RESPONSE = 1 + 0.08 * np.random.default_rng(50).standard_normal((SIDE, SIDE))


def align(folder: Path, seed: int, gain: np.ndarray | None) -> tuple[MotionResult, Path]:
    """An exposure of nothing but electrons, by a camera with a response of its own; its result and its pattern."""
    rng = np.random.default_rng(seed)
    frames = rng.poisson(10 * RESPONSE, (FRAMES, SIDE, SIDE)).astype(np.uint8)
    write_mrc(folder / f"m{seed}.mrc", frames, pixel_size_angstrom=2.0)
    inputs = {"movie": folder / f"m{seed}.mrc"}
    if gain is not None:
        write_mrc(folder / "gain.mrc", gain.astype(np.float32), pixel_size_angstrom=2.0)
        inputs["gain"] = folder / "gain.mrc"
    job = StepJob(Step.ALIGN, inputs, PARAMETERS, folder / f"align{seed}", folder / f".{seed}.part", 1)
    outcome = run_step(job)
    assert isinstance(outcome.result, MotionResult)
    return outcome.result, job.folder / outcome.outputs["pattern"]


def test_frames_without_signal_have_no_motion(tmp_path: Path) -> None:
    """Shifts of 0 are all there is to write, and the result says that they were not found."""
    result, _ = align(tmp_path, 0, 1 / RESPONSE)
    assert set(result.shift_x_angstrom) == {0.0}
    assert not result.is_found


@pytest.mark.parametrize(("left", "low", "high"), [(1.0, 0.9, 1.1), (0.6, 0.4, 0.8)])
def test_the_gains_share_is_what_is_left_of_its_pattern(tmp_path: Path, left: float, low: float, high: float) -> None:
    """All of a true reference's pattern is in the movie, and less of one that has gone stale."""
    other = 0.08 * np.random.default_rng(51).standard_normal(RESPONSE.shape)
    gain = 1 / (1 + left * (RESPONSE - 1) + np.sqrt(1 - left**2) * other)
    result, _ = align(tmp_path, 1, gain)
    assert result.gain_share is not None
    assert low < result.gain_share < high


def test_what_a_stale_gain_leaves_is_common_to_exposures(tmp_path: Path) -> None:
    """With the true reference the patterns of five exposures have nothing in common; with none, a good part."""
    shares = {}
    for name, gain in (("true", 1 / RESPONSE), ("none", None)):
        (tmp_path / name).mkdir()
        patterns = [align(tmp_path / name, seed, gain)[1] for seed in range(2, 7)]
        shares[name] = shared_pattern(patterns[0], patterns[1:])
        assert shared_pattern(patterns[0], patterns[1:4]) is None  # three are too few
    assert shares["true"] is not None
    assert shares["none"] is not None
    assert abs(shares["true"]) < 0.01
    assert shares["none"] > 0.2


def test_a_single_image_leaves_its_pattern_and_its_brightness(tmp_path: Path) -> None:
    """The quality step measures it, and takes its pattern only where the alignment left none."""
    image = np.random.default_rng(9).poisson(40, (SIDE, SIDE)).astype(np.float32)
    write_mrc(tmp_path / "i.mrc", image, pixel_size_angstrom=2.0)
    parameters: dict[str, object] = {"pixel_size_angstrom": 2.0, "dose_e_per_square_angstrom": 20.0}
    job = StepJob(Step.QUALITY, {"image": tmp_path / "i.mrc"}, parameters, tmp_path / "q", tmp_path / ".q.part", 1)
    outcome = run_step(job)
    assert isinstance(outcome.result, QualityResult)
    assert outcome.result.transmission == pytest.approx(0.5, rel=0.01)
    assert read_mrc(job.folder / outcome.outputs["pattern"]).shape == (SIDE, SIDE)
    given = {"image": tmp_path / "i.mrc", "pattern": job.folder / "pattern.mrc"}
    assert run_step(replace(job, inputs=given, folder=tmp_path / "again")).outputs == {}


def test_the_share_is_that_of_the_reference_as_it_was_taken() -> None:
    """A turned reference counts as it was turned; nothing is said where nothing can be told."""
    given, best = GainFit(0, False, False, 0.1, 2.0), GainFit(1, False, False, 0.95, 40.0)
    assert share_applied(GainCheck(Verdict.FITS, best, best)) == 0.95
    assert share_applied(GainCheck(Verdict.OTHERWISE, given, best)) == 0.95
    assert share_applied(GainCheck(Verdict.ABSENT, given, best)) == 0.1
    assert share_applied(GainCheck(Verdict.UNTOLD, given, best)) is None
