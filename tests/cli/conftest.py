"""Typing commands, and small movies to align."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coldchain.cli import console
from coldchain.cli.main import main
from coldchain.formats.defects import read_defects
from coldchain.formats.gain import read_gain
from coldchain.model.session import Layout
from coldchain.simulate.movie import SimulatedMovie, simulate_movie
from coldchain.simulate.plan import SessionPlan
from coldchain.simulate.recording import record_movie, record_references
from coldchain.simulate.specimen import generate_specimen
from coldchain.simulate.truth import MovieParameters
from tests.cli.answer import Answer, Typed

Aligned = Callable[..., list[dict[str, Any]]]

PARAMETERS = MovieParameters(
    frames=10,
    width=384,
    height=320,
    pixel_size_angstrom=1.5,
    dose_per_frame_e_per_square_angstrom=3.0,
    drift_angstrom=15.0,
    gain=True,
    defects=True,
    seed=3,
    camera_seed=3,
)
# Of an EER, to a frame of the others.
CAMERA_FRAMES = 8


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typed:
    """Type a command; its answer comes back."""
    monkeypatch.setenv("COLUMNS", "200")
    for made in (console.output, console.errors):  # they read the variable when they are made
        monkeypatch.setattr(made, "_width", 200)

    def run(*words: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["coldchain", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Answer(ended.value.code or 0, captured.out, captured.err)

    return run


@pytest.fixture
def aligned(typed: Typed) -> Aligned:
    """Type `align` with `--json`; what it says of each movie comes back. It must go well."""

    def run(*words: object) -> list[dict[str, Any]]:
        answer = typed("align", *words, "--threads", 1, "--json")
        assert answer.status == 0, answer.out + answer.err
        told: list[dict[str, Any]] = json.loads(answer.out)
        return told

    return run


@pytest.fixture(scope="session")
def simulated() -> SimulatedMovie:
    """An exposure whose truth is known."""
    return simulate_movie(PARAMETERS, generate_specimen(seed=1, diameter_angstrom=90))


@pytest.fixture(scope="session")
def camera(simulated: SimulatedMovie, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the exposure in `m.tif`, `m.mrc` and `m.eer`, with `gain.mrc`, `m.gain` and `defects.txt`. Do not
    write there."""
    folder = tmp_path_factory.mktemp("camera")
    for container, suffix in (("mrc", "mrc"), ("eer", "eer"), ("tiff", "tif")):
        plan = SessionPlan(
            layout=Layout.PLAIN, container=container, movie=PARAMETERS, seed=3, eer_frames_per_fraction=CAMERA_FRAMES
        )
        record_movie(folder / f"m.{suffix}", simulated, plan)
        # Only SerialEM leaves a list of defects.
        references = record_references(replace(plan, layout=Layout.SERIALEM), folder)
        if container == "eer":
            assert references.gain_name is not None
            (folder / references.gain_name).rename(folder / "m.gain")
    return folder


@pytest.fixture(scope="session")
def known(camera: Path) -> list[object]:
    """Options that say all that has to be known of the exposure."""
    optics = ["--pixel-size", PARAMETERS.pixel_size_angstrom, "--voltage", PARAMETERS.voltage_kilovolt]
    dose = ["--dose-per-frame", PARAMETERS.dose_per_frame_e_per_square_angstrom]
    return [*optics, *dose, "--gain", camera / "gain.mrc"]


@pytest.fixture(scope="session")
def whole(simulated: SimulatedMovie, camera: Path) -> Callable[[np.ndarray[Any, Any]], float]:
    """How much of the exposure is in a picture of its size: correlation with the planted frames, shifted back."""
    truth = simulated.truth
    frames = simulated.frames * read_gain(camera / "gain.mrc")
    frames[:, read_defects(camera / "defects.txt", frames.shape[1:])] = np.median(frames)
    expected = np.zeros(frames.shape[1:])
    for frame, x, y in zip(frames, truth.shift_x_angstrom, truth.shift_y_angstrom, strict=True):
        dx, dy = (round(value / PARAMETERS.pixel_size_angstrom) for value in (x, y))
        expected += np.roll(frame, (-dy, -dx), axis=(0, 1))

    def correlation(picture: np.ndarray[Any, Any]) -> float:
        inner = (slice(32, -32), slice(32, -32))
        return float(np.corrcoef(_smooth(picture)[inner].ravel(), _smooth(expected)[inner].ravel())[0, 1])

    return correlation


def _smooth(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Without what is finer than about 12 Å."""
    spectrum = np.fft.rfft2(picture - picture.mean())
    k = np.hypot(np.fft.fftfreq(picture.shape[0])[:, None], np.fft.rfftfreq(picture.shape[1])[None])
    return np.fft.irfft2(spectrum * np.exp(-((k / 0.12) ** 2)), picture.shape)
