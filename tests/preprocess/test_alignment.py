"""What is handed to the kernels of a movie that was read: each frame's exposure, and the counts of an electron."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from coldchain.formats.movie import MovieInfo
from coldchain.kernels.align import AlignmentParameters, align_movie
from coldchain.kernels.dose import exposure_weights
from coldchain.preprocess import alignment
from coldchain.preprocess.alignment import align_raw, frame_exposures
from coldchain.preprocess.exposure import KnownExposure
from coldchain.preprocess.raw_movie import RawMovie
from coldchain.preprocess.wishes import FramesWanted, Wishes

SHAPE = (128, 144)
FRAMES = 10
DOSE = 1.5
NUMBERS = (1, 2, 9, 10)
MIDDLES = [0.75, 2.25, 12.75, 14.25]
WISHES = Wishes(patches=(1, 1))


def raw_movie(
    frames: NDArray[np.generic],
    *,
    numbers: tuple[int, ...] = NUMBERS,
    gain: NDArray[np.float32] | None = None,
    counts_per_electron: float = 1.0,
) -> RawMovie:
    """Those frames of a movie of ten, as they would be read."""
    info = MovieInfo(Path("m.mrc"), "mrc", FRAMES, *SHAPE, frames.dtype.name, 1.0)
    return RawMovie(
        exposure=KnownExposure(info, 1.0, 300.0, DOSE, counts_per_electron=counts_per_electron),
        wanted=FramesWanted(),
        frames=frames,
        numbers=numbers,
        camera_frames=(1,) * FRAMES,
        left_out=(),
        gain=gain,
        dark=None,
        defects=None,
        warnings=(),
        seconds=0.0,
    )


def electrons(frames: int) -> NDArray[np.uint16]:
    """Two electrons a pixel and frame, of no specimen."""
    return np.random.default_rng(4).poisson(2.0, (frames, *SHAPE)).astype(np.uint16)


def test_frames_that_are_left_out_expose_the_specimen_and_no_other_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Around a gap each frame has its own dose and its own place in the exposure, and the weights' squares are 1 in
    the mean over the frames that are there."""
    asked: list[AlignmentParameters] = []

    def aligned(frames: NDArray[np.generic], *, parameters: AlignmentParameters, **references: object) -> object:
        asked.append(parameters)
        return align_movie(frames, gain=None, defects=None, parameters=parameters)

    monkeypatch.setattr(alignment, "align_movie", aligned)
    result = align_raw(raw_movie(electrons(4)), WISHES)
    (parameters,) = asked
    doses, before = parameters.dose_per_frame_e_per_square_angstrom, parameters.exposure_before_e_per_square_angstrom
    assert doses == (DOSE,) * 4
    assert before is not None
    middles = np.array(before) + DOSE / 2
    assert middles.tolist() == pytest.approx(MIDDLES)
    weights = exposure_weights(np.linspace(0, 0.5, 40), middles, 300.0, np.array(doses))
    np.testing.assert_allclose((weights**2).mean(axis=0), 1)
    assert result.dose_weighted
    assert sum(result.doses_e_per_square_angstrom or ()) == pytest.approx(FRAMES * DOSE)  # the specimen saw them all


def test_a_sum_with_gaps_is_as_strong_as_the_plain_one() -> None:
    """The noise of the weighted sum of frames 1, 2, 9 and 10 is that of the plain sum."""
    aligned = align_raw(raw_movie(electrons(4)), WISHES).aligned
    power, plain = (np.abs(np.fft.rfft2(image)) ** 2 for image in (aligned.micrograph, aligned.unweighted))
    assert power[4:].mean() / plain[4:].mean() == pytest.approx(1, abs=0.05)


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=20),
    st.data(),
    st.floats(0.001, 10),
    st.floats(0, 100),
)
def test_exposures_are_those_of_the_whole_movie(
    camera_frames: list[int], data: st.DataObject, dose: float, pre_exposure: float
) -> None:
    """Whatever frames are chosen, each has the exposure that it has among all."""
    every = range(1, len(camera_frames) + 1)
    chosen = sorted(data.draw(st.sets(st.sampled_from(every), min_size=1)))
    whole = frame_exposures(every, camera_frames, dose, pre_exposure_e_per_square_angstrom=pre_exposure)
    some = frame_exposures(chosen, camera_frames, dose, pre_exposure_e_per_square_angstrom=pre_exposure)
    assert whole is not None
    assert some is not None
    assert whole.before[0] == pytest.approx(pre_exposure)
    assert np.allclose(np.diff(whole.before), whole.of_frame[:-1])
    assert whole.to_next == pytest.approx(whole.of_frame)
    assert some.before == tuple(whole.before[number - 1] for number in chosen)
    assert some.of_frame == tuple(whole.of_frame[number - 1] for number in chosen)
    end = whole.before[chosen[-1] - 1] + whole.of_frame[chosen[-1] - 1]
    assert some.before[0] + sum(some.to_next) == pytest.approx(end)


def test_an_unknown_dose_weights_nothing_and_is_said() -> None:
    """The pre-exposure that was given is kept."""
    raw = raw_movie(electrons(4))
    unknown = replace(raw, exposure=replace(raw.exposure, frame_dose_e_per_square_angstrom=None))
    result = align_raw(unknown, replace(WISHES, pre_exposure_e_per_square_angstrom=3.0))
    assert (result.doses_e_per_square_angstrom, result.dose_weighted) == (None, False)
    assert result.pre_exposure_e_per_square_angstrom == 3
    assert any("dose is not known" in warning for warning in result.warnings)


def test_a_dose_that_no_specimen_withstands_is_doubted() -> None:
    """Where the whole movie's dose was given as one frame's, the reader is asked; at a usual dose, not."""
    raw = raw_movie(electrons(4))
    slip = replace(raw, exposure=replace(raw.exposure, frame_dose_e_per_square_angstrom=70.0))
    assert any("280 e⁻/Å²" in warning for warning in align_raw(slip, WISHES).warnings)
    assert not any("withstands" in warning for warning in align_raw(raw, WISHES).warnings)


@pytest.mark.parametrize("with_gain", [True, False])
def test_counts_of_16_per_electron_give_the_sum_of_the_electrons(with_gain: bool) -> None:
    """With a gain reference, which is judged by itself, and without one, of which nothing is then said."""
    rng = np.random.default_rng(6)
    gain = rng.uniform(0.7, 1.3, SHAPE).astype(np.float32) if with_gain else None
    seen = rng.poisson(20.0 / (1 if gain is None else gain), (FRAMES, *SHAPE)).astype(np.uint16)
    numbers = tuple(range(1, FRAMES + 1))
    one = align_raw(raw_movie(seen, numbers=numbers, gain=gain), WISHES).aligned
    other = align_raw(
        raw_movie(seen * np.uint16(16), numbers=numbers, gain=gain, counts_per_electron=16), WISHES
    ).aligned
    np.testing.assert_allclose(other.unweighted, one.unweighted, rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(other.micrograph, one.micrograph, rtol=1e-4, atol=1e-2)
    assert one.unweighted.mean() == pytest.approx(20.0 * FRAMES, rel=0.01)
    for result in (one, other):
        assert (result.gain_check is None) == (gain is None)
    if one.gain_check is not None and other.gain_check is not None:
        assert one.gain_check.verdict == other.gain_check.verdict
