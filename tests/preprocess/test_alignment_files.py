"""RELION's motion STAR of an alignment, also where frames are missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldchain.formats.movie import MovieInfo
from coldchain.formats.mrc import read_mrc
from coldchain.formats.relion_motion import displacement
from coldchain.kernels.align import AlignedMovie
from coldchain.kernels.motion import Motion
from coldchain.kernels.orientation import GainCheck, GainFit, Verdict
from coldchain.preprocess.alignment import Alignment, track_lengths
from coldchain.preprocess.alignment_files import about_relion, relion_motion
from coldchain.preprocess.exposure import KnownExposure
from coldchain.preprocess.relion_gain import AppliedGains, applied_gain, usable_gain
from coldchain.preprocess.wishes import FramesWanted

SHAPE = (60, 80)
AS_GIVEN = GainFit(0, False, False, 1.0, 30.0)
INVERTED = GainFit(0, False, True, 1.0, 30.0)
FLIPPED = GainFit(0, True, False, 1.0, 30.0)


def smooth_motion(numbers: np.ndarray[tuple[int], np.dtype[np.int64]], *, seed: int) -> Motion:
    """A motion that RELION's polynomial can say: of third order in the frame's number, of second in space."""
    rng = np.random.default_rng(seed)
    time = (numbers - numbers[0])[np.newaxis] / 10
    powers = np.concatenate([time, time**2, time**3])
    track = rng.normal(size=(2, 3)) @ powers
    fields = rng.normal(size=(2, 5, 3)) @ powers
    places = np.array([20.0, 60.0]), np.array([15.0, 45.0])
    return Motion(SHAPE, track[0], track[1], fields[0], fields[1], (2, 1), *places)


def alignment(
    numbers: tuple[int, ...],
    *,
    frames: int = 12,
    container: str = "tiff",
    per_fraction: int = 1,
    gain: str | None = None,
    fit: GainFit = AS_GIVEN,
    verdict: Verdict = Verdict.FITS,
    seed: int = 0,
    blank: tuple[int, ...] = (),
    hot: int = 0,
) -> Alignment:
    """An alignment of these frames of a movie of so many."""
    empty = np.zeros((2, 2), np.float32)
    aligned = AlignedMovie(
        micrograph=empty,
        unweighted=empty,
        even=None,
        odd=None,
        amplitude_spectrum=empty,
        amplitude_spectrum_pixel_angstrom=1.4,
        pixel_size_angstrom=1.0,
        motion=smooth_motion(np.array(numbers), seed=seed),
        used=np.flatnonzero(~np.isin(numbers, blank)),
        error_angstrom=0.1,
        gain_check=None if gain is None else GainCheck(verdict, AS_GIVEN, fit),
        hot_pixels=np.zeros((hot, 2), np.int64),
        rank=1,
        warnings=(),
        seconds={},
    )
    info = MovieInfo(Path("m.tif"), container, frames * per_fraction, *SHAPE, "uint8", None)
    exposure = KnownExposure(info, 1.0, 300.0, 0.5, gain=None if gain is None else Path(gain))
    values = np.random.default_rng(1).uniform(0.8, 1.2, SHAPE).astype(np.float32)
    return Alignment(
        exposure=exposure,
        wanted=FramesWanted(),
        pixel_size_angstrom=1.0,
        numbers=numbers,
        camera_frames=(per_fraction,) * frames,
        doses_e_per_square_angstrom=(0.5 * per_fraction,) * len(numbers),
        pre_exposure_e_per_square_angstrom=0.5 * per_fraction * (numbers[0] - 1),
        dose_weighted=True,
        gain=None if gain is None else values,
        aligned=aligned,
        warnings=(),
    )


@given(st.sets(st.integers(1, 12), min_size=4, max_size=12), st.integers(0, 100))
def test_the_star_replays_to_the_motion_whatever_frames_are_missing(numbers: set[int], seed: int) -> None:
    """At any place and in every frame that was used; the others are listed as not used."""
    chosen = tuple(sorted(numbers))
    given_alignment = alignment(chosen, seed=seed)
    motion = relion_motion(given_alignment)
    x, y = np.array([0.0, 30.0, 79.0]), np.array([59.0, 20.0, 0.0])
    found = displacement(motion, x, y)
    index = np.array(chosen) - 1
    for replayed, expected in zip(found, given_alignment.aligned.motion.at(x, y), strict=True):
        # Frames between those that were used are interpolated, which a polynomial is not.
        tolerance = 1e-6 if np.all(np.diff(chosen) == 1) else 0.3 * max(1.0, np.abs(expected).max())
        assert np.allclose(replayed[index], expected.T, atol=tolerance)
        assert np.isnan(np.delete(replayed, index, axis=0)).all()
    assert motion.first_frame == chosen[0]
    assert motion.frames == 12


def test_patches_show_the_local_motion_where_they_lie() -> None:
    """A row for each patch and frame: RELION's shift is the opposite of the displacement."""
    given_alignment = alignment((2, 3, 5, 6))
    shifts, motion = relion_motion(given_alignment).patches, given_alignment.aligned.motion
    local_x, _ = motion.local_at(motion.patch_x_pixel, motion.patch_y_pixel)
    assert shifts.frame.tolist() == [2, 3, 5, 6] * 2
    assert shifts.x_pixel.tolist() == [20.0] * 4 + [60.0] * 4
    assert np.allclose(shifts.shift_x_pixel, -local_x.ravel())


def test_relion_counts_the_dose_of_the_frames_before_the_first_itself() -> None:
    """The pre-exposure in the STAR is that before the movie."""
    assert relion_motion(alignment((3, 4, 5, 6))).pre_exposure_e_per_square_angstrom == 0


def test_early_is_what_was_within_four_electrons() -> None:
    """Frames end at 0.5, 1 … e⁻/Å²: the step to the eighth frame is the last early one."""
    given_alignment = alignment(tuple(range(1, 13)))
    motion = given_alignment.aligned.motion
    steps = np.hypot(np.diff(motion.shift_x_pixel), np.diff(motion.shift_y_pixel))
    lengths = track_lengths(given_alignment)
    assert lengths.early_angstrom == pytest.approx(steps[:7].sum())
    assert lengths.late_angstrom == pytest.approx(steps[7:].sum())
    assert lengths.total_angstrom == pytest.approx(steps.sum())


@pytest.mark.parametrize(
    ("container", "gain", "fit", "verdict", "usable"),
    [
        ("tiff", "g.mrc", AS_GIVEN, Verdict.FITS, True),
        ("tiff", "g.tiff", AS_GIVEN, Verdict.UNTOLD, True),
        ("tiff", "g.dm4", AS_GIVEN, Verdict.FITS, False),
        ("tiff", "g.mrc", FLIPPED, Verdict.OTHERWISE, False),
        ("tiff", "g.mrc", AS_GIVEN, Verdict.ABSENT, False),
        ("eer", "g.gain", AS_GIVEN, Verdict.FITS, True),
        ("eer", "g.gain", INVERTED, Verdict.OTHERWISE, False),
        ("eer", "g.mrc", AS_GIVEN, Verdict.FITS, False),
        ("eer", "g.mrc", INVERTED, Verdict.OTHERWISE, True),
    ],
)
def test_relion_is_given_only_a_gain_that_it_applies_as_we_did(
    container: str, gain: str, fit: GainFit, verdict: Verdict, usable: bool
) -> None:
    """It multiplies by MRC and TIFF, and divides an EER by an MRC, and turns nothing here."""
    found = usable_gain(alignment((1, 2, 3, 4), container=container, gain=gain, fit=fit, verdict=verdict))
    assert found == (Path(gain) if usable else None)


def test_the_gain_for_relion_is_the_one_that_was_applied() -> None:
    """Turned as it was turned; for an EER, which RELION divides by an MRC, the inverse of what was multiplied."""
    flipped = alignment((1, 2, 3, 4), gain="g.mrc", fit=FLIPPED, verdict=Verdict.OTHERWISE)
    assert flipped.gain is not None
    assert np.array_equal(applied_gain(flipped, FLIPPED), flipped.gain[::-1])
    eer = alignment((1, 2, 3, 4), container="eer", gain="g.mrc")
    assert eer.gain is not None
    assert np.allclose(applied_gain(eer, None) * eer.gain, 1)


@pytest.mark.parametrize("blank", [(5,), (2, 3), (2, 8)])
def test_a_blank_frame_is_listed_as_not_used(blank: tuple[int, ...]) -> None:
    """It was left out of the sum; where it is the first, the motion counts from the next."""
    numbers = (2, 3, 4, 5, 6, 7, 8)
    motion = relion_motion(alignment(numbers, blank=blank))
    used = [number for number in numbers if number not in blank]
    assert (np.flatnonzero(np.isfinite(motion.shift_x_pixel)) + 1).tolist() == used
    assert motion.first_frame == used[0]
    assert set(motion.patches.frame.tolist()) == set(used)


def test_fractions_are_those_of_the_movie_whichever_are_used() -> None:
    """A shorter one does not tell how RELION is to group the camera's frames."""
    given_alignment = alignment((12,), container="eer", per_fraction=4)
    longer = replace(given_alignment, camera_frames=(4,) * 11 + (7,))
    assert relion_motion(longer).eer_grouping == 4
    assert relion_motion(longer).dose_per_frame_e_per_square_angstrom == 2


def test_more_defects_than_relion_can_read_are_not_listed() -> None:
    """Its reader would take minutes for every movie; a warning says that none are."""
    few, many = alignment((1, 2), hot=100_000), alignment((1, 2), hot=100_001)
    assert len(relion_motion(few).hot_pixels) == 100_000
    assert not about_relion(few)
    assert len(relion_motion(many).hot_pixels) == 0
    assert "100,001 defects" in about_relion(many)[0]


@pytest.mark.parametrize("change", [{"dark": Path("dark.mrc")}, {"counts_per_electron": 8.0}])
def test_a_correction_that_relion_cannot_repeat_is_said(change: dict[str, Any]) -> None:
    """It knows of neither a dark reference nor counts per electron."""
    given_alignment = alignment((1, 2), gain="g.mrc")
    assert not about_relion(given_alignment)
    changed = replace(given_alignment, exposure=replace(given_alignment.exposure, **change))
    assert "otherwise than was done here" in about_relion(changed)[0]


def test_an_applied_gain_is_never_replaced_by_another(tmp_path: Path) -> None:
    """Other values, another turn or another size have another name; the same have the same, and are written once."""
    flipped = alignment((1, 2), gain="a/g.mrc", fit=FLIPPED, verdict=Verdict.OTHERWISE)
    turned = alignment((1, 2), gain="b/g.mrc", fit=GainFit(2, False, False, 1.0, 30.0), verdict=Verdict.OTHERWISE)
    gains = AppliedGains(tmp_path)
    first = gains.for_relion(flipped)
    assert first is not None
    written = first.stat().st_mtime_ns
    assert gains.for_relion(turned) not in (None, first)
    assert flipped.gain is not None
    other = gains.for_relion(replace(flipped, gain=flipped.gain * np.float32(2)))
    assert len({path.name for path in tmp_path.iterdir()}) == 3
    assert other != first
    assert AppliedGains(tmp_path).for_relion(flipped) == first
    assert first.stat().st_mtime_ns == written
    assert np.array_equal(read_mrc(first), flipped.gain[::-1])
    assert gains.for_relion(alignment((1, 2), gain="g.mrc")) == Path("g.mrc")
