"""Defects are found, filled like their neighbours and never black; what cannot be a movie is refused in words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from coldchain.errors import ProcessingError
from coldchain.kernels.prepare import Correction, prepare


def correct(frames: NDArray[np.generic], **settings: object) -> Correction:
    """What `prepare` says of the frames."""
    return prepare(frames, **settings).correction  # type: ignore[arg-type]


def counts(
    seed: int = 0, frames: int = 12, rows: int = 200, columns: int = 180, mean: float = 1.0
) -> NDArray[np.uint8]:
    """Electrons on a detector without faults, over a specimen of smooth blobs of a fifth more or less."""
    y, x = np.mgrid[:rows, :columns]
    specimen = 1 + 0.2 * np.sin(x / 9.0) * np.cos(y / 7.0)
    return np.random.default_rng(seed).poisson(mean * specimen, size=(frames, rows, columns)).astype(np.uint8)


def test_faultless_movie_stays_as_it_is() -> None:
    """Where there is no defect, a corrected frame is the raw frame to the last electron."""
    frames = counts()
    correction = correct(frames)
    assert correction.found_index.size == 0
    assert correction.warnings == ()
    np.testing.assert_array_equal(correction.apply(frames[3], 3), frames[3])


def test_hot_and_dead_pixels_columns_and_rows_are_found() -> None:
    """A hot pixel, a hot pair, two dead columns, a half-dead column and a bright row are found; little else is."""
    frames = counts(mean=3.0)
    frames[:, 20, 30] = 90
    frames[:, 101:103, 50] = 40
    frames[:, :, 77:79] = 0
    frames[:, :128, 140] = 0
    frames[:, 60] *= 2
    planted = np.zeros(frames.shape[1:], dtype=bool)
    planted[20, 30] = planted[101:103, 50] = planted[:, 77:79] = planted[:128, 140] = planted[60] = True
    defects = correct(frames).defects
    assert defects[planted].all()
    assert np.count_nonzero(defects & ~planted) < 10


def test_sharp_edges_of_the_specimen_are_no_defects() -> None:
    """Gold beside a hole, at a tenth of its brightness, is left alone on both sides."""
    rng = np.random.default_rng(4)
    level = np.where(np.hypot(*(np.mgrid[:300, :300] - 150.0)) < 90, 5.0, 0.5)
    frames = rng.poisson(level, size=(20, 300, 300)).astype(np.uint16)
    assert correct(frames).found_index.size < 10


def test_sparse_electrons_are_no_defects() -> None:
    """At a twentieth of an electron a pixel, or at one, what few pixels have more than their neighbours is chance."""
    for mean in (0.005, 0.02, 0.1, 0.5):
        assert correct(counts(frames=10, mean=mean)).found_index.size < 5


def test_frames_around_zero_are_searched_too() -> None:
    """Frames whose mean was subtracted have defects as well."""
    frames = counts(mean=4.0).astype(np.float32) - 4
    frames[:, 20, 30] = 25
    frames[:, :, 77] = -4
    defects = correct(frames).defects
    assert defects[20, 30]
    assert defects[:, 77].all()
    assert np.count_nonzero(defects) < 210


@pytest.mark.parametrize("bad_value", [0.0, np.nan, np.inf, -1.0])
def test_gain_is_multiplied_and_its_holes_are_filled(bad_value: float) -> None:
    """A good pixel is count × gain; a pixel without gain takes a neighbour's corrected value."""
    frames = counts()
    gain = np.full(frames.shape[1:], 2.0, dtype=np.float32)
    gain[:, 90:] = 3.0
    gain[50, 60] = bad_value
    correction = correct(frames, gain=gain)
    assert correction.defects[50, 60]
    picture = correction.apply(frames[0], 0)
    assert picture[10, 10] == 2 * frames[0, 10, 10]
    assert picture[10, 100] == 3 * frames[0, 10, 100]
    assert np.isfinite(picture).all()
    assert picture[50, 60] % 2 == 0


def test_filled_pixels_have_the_level_and_the_noise_of_their_neighbours() -> None:
    """A dead column is, over many frames, neither darker nor smoother than the columns beside it, nor a copy of one."""
    frames = counts(frames=40, mean=4.0)
    frames[:, :, 77] = 0
    correction = correct(frames)
    filled = np.stack([correction.apply(frame, f) for f, frame in enumerate(frames)])
    column, beside = filled[:, :, 77], filled[:, :, [75, 79]]
    assert column.mean() == pytest.approx(beside.mean(), rel=0.03)
    assert column.var(axis=0).mean() == pytest.approx(beside.var(axis=0).mean(), rel=0.1)
    for other in (75, 76, 78, 79):
        assert abs(np.corrcoef(column.ravel(), filled[:, :, other].ravel())[0, 1]) < 0.35


def test_the_same_movie_gives_the_same_picture_and_another_seed_another() -> None:
    """Noise in filled pixels is seeded."""
    frames = counts()
    frames[:, :, 40] = 0
    first, again = (correct(frames).apply(frames[2], 2) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.any(correct(frames, seed=1).apply(frames[2], 2) != first)


def test_a_known_mask_is_used_even_where_nothing_shows() -> None:
    """The facility's defect mask is filled without any evidence in the movie, however large the region."""
    frames = counts()
    mask = np.zeros(frames.shape[1:], dtype=bool)
    mask[:60, :60] = True
    correction = correct(frames, defects=mask)
    assert correction.defects[mask].all()
    assert not mask.ravel()[correction.donor_index].any()
    assert correction.apply(frames[0], 0)[:60, :60].mean() == pytest.approx(frames[0].mean(), rel=0.2)


def test_a_wrong_gain_is_said_instead_of_filled() -> None:
    """If a tenth of the pixels stand out, they are no single defects: nothing is filled and a warning says so."""
    frames = counts(mean=5.0, frames=30)
    frames[:, np.random.default_rng(1).random(frames.shape[1:]) < 0.1] = 0
    correction = correct(frames)
    assert correction.found_index.size == 0
    assert "differ from their neighbours" in correction.warnings[0]


def test_numbers_that_are_none_become_defects() -> None:
    """A NaN in one frame makes its pixel a defect; a frame that is mostly NaN is refused by its number."""
    frames = counts().astype(np.float32)
    frames[4, 10, 20] = np.nan
    correction = correct(frames)
    assert correction.defects[10, 20]
    assert np.isfinite(correction.apply(frames[4], 4)).all()
    frames[4] = np.nan
    with pytest.raises(ProcessingError, match="of frame 5 are no numbers"):
        correct(frames)


def test_a_few_empty_frames_are_left_out_by_number() -> None:
    """Up to a tenth of the frames may be blank: they are not used, and a warning names them."""
    frames = counts(frames=20)
    frames[2] = 0
    assert correct(frames).warnings == (
        "Frame 3 of 20 holds the same value in every pixel; the movie was aligned and added up without.",
    )
    frames[19] = 255
    correction = correct(frames)
    assert correction.used.tolist() == [0, 1, *range(3, 19)]
    assert correction.found_index.size == 0
    assert correction.warnings[0].startswith("Frames 3, 20 of 20 hold the same value")


def test_more_empty_frames_are_refused_by_number() -> None:
    """Beyond a tenth, or where all are, blank frames are a stated error that names them."""
    frames = counts()
    frames[2] = 0
    frames[7] = 0
    with pytest.raises(ProcessingError, match="frame 8 of 12 holds the same value, 0, in every pixel, as 3 before it"):
        correct(frames)
    with pytest.raises(ProcessingError, match="frame 2 of 12 holds the same value"):
        correct(np.zeros_like(frames))
    with pytest.raises(ProcessingError, match="frame 1 of 9 holds the same value, 0, in every pixel; expected"):
        correct(np.zeros_like(frames[:9]))


@pytest.mark.parametrize("inverted", ["mask", "gain"])
def test_a_mask_the_wrong_way_round_is_asked_about(inverted: str) -> None:
    """A mask or gain that leaves less than four fifths of the pixels is refused before memory is taken to fill them."""
    frames = counts()
    good = np.zeros(frames.shape[1:], dtype=bool)
    good[::10, ::10] = True
    mask, gain = (~good, None) if inverted == "mask" else (None, good.astype(np.float32))
    with pytest.raises(ProcessingError, match=r"99.0 % of the pixels are defects; expected at most 20 %") as caught:
        correct(frames, defects=mask, gain=gain)
    assert "inverted" in caught.value.remedy


def test_other_shapes_are_refused_with_both_shapes() -> None:
    """A gain or mask of another camera mode names what it has and what the frames have."""
    frames = counts()
    with pytest.raises(ProcessingError, match=r"180 × 300.*180 × 200"):
        correct(frames, gain=np.ones((300, 180), dtype=np.float32))
    with pytest.raises(ProcessingError, match="the defect mask has 180 × 200 pixels"):
        correct(frames, defects=np.zeros((180, 200), dtype=bool))


@pytest.mark.parametrize(
    "frames", [np.zeros((3, 4)), np.zeros((0, 4, 4)), np.ones((2, 4, 4), dtype=complex), np.ones((2, 4, 4), dtype=bool)]
)
def test_what_is_no_movie_is_refused(frames: NDArray[np.generic]) -> None:
    """Images, empty stacks, complex numbers and truth values are stated errors."""
    with pytest.raises(ProcessingError, match="expected a movie"):
        correct(frames)


def test_a_gain_without_a_single_value_is_refused() -> None:
    """A gain of zeros leaves no pixel to look at."""
    with pytest.raises(ProcessingError, match="are defects"):
        correct(counts(), gain=np.zeros((200, 180), dtype=np.float32))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), dtype=st.sampled_from([np.uint8, np.uint16, np.int16, np.float32]))
def test_any_small_movie_gives_finite_pictures_or_a_stated_error(data: st.DataObject, dtype: type) -> None:
    """Whatever the shape, type, gain and mask, the outcome is a finite picture or a ProcessingError."""
    shape = data.draw(hnp.array_shapes(min_dims=3, max_dims=3, max_side=9))
    frames = data.draw(hnp.arrays(dtype, shape))
    gain = data.draw(st.none() | hnp.arrays(np.float32, shape[1:], elements=st.sampled_from([0.0, 1.0, np.nan, 2.0])))
    mask = data.draw(st.none() | hnp.arrays(np.bool_, shape[1:]))
    before = frames.copy()
    try:
        correction = correct(frames, gain=gain, defects=mask)
    except ProcessingError:
        return
    picture = correction.apply(frames[0], 0)
    np.testing.assert_array_equal(frames, before)
    assert picture.dtype == np.float32
    assert np.isfinite(picture).all()
