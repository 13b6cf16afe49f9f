"""Planted motion comes back with the right sign, and the sums are those of the plain formula."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from planted_motion import PIXEL, Picture, displaced, expose, moving_frames, planted_track, specimen, track_error
from scipy.signal import resample

from coldchain.errors import ProcessingError
from coldchain.kernels.align import AlignmentParameters, align_movie

PARAMETERS = AlignmentParameters(pixel_size_angstrom=PIXEL, voltage_kilovolt=300.0)


def test_sign_of_a_shift_is_the_specimens_displacement() -> None:
    """Motion to higher columns and lower rows is positive x and negative y, and the sum is where frame 1 is."""
    picture = specimen((256, 320), 0.3)
    frames = expose(picture, np.array([0.0, 6.0]), np.array([0.0, -9.0]), 20.0)
    result = align_movie(frames, gain=None, defects=None, parameters=PARAMETERS)
    assert (result.motion.shift_x_pixel[0], result.motion.shift_y_pixel[0]) == (0.0, 0.0)
    assert result.motion.shift_x_pixel[1] == pytest.approx(6.0, abs=0.2)
    assert result.motion.shift_y_pixel[1] == pytest.approx(-9.0, abs=0.2)
    inside = np.s_[20:-20, 20:-20]
    agreement = [
        np.corrcoef(result.unweighted[inside].ravel(), displaced(picture, *s)[inside].ravel())[0, 1]
        for s in ((0, 0), (6, -9), (-6, 9), (3, -4.5))
    ]
    assert agreement[0] > 0.85
    assert agreement[0] == max(agreement)


@pytest.mark.parametrize("scale", [0.0, 1.0, 4.0], ids=["still", "usual", "45-pixel drift"])
def test_track_of_one_electron_a_pixel_is_recovered(scale: float) -> None:
    """At 1 e⁻ a pixel and frame the track is right to half a pixel, from a still specimen to a wild one;
    nothing is said but that it does not bend."""
    x, y = planted_track(16, scale)
    frames = expose(specimen((512, 480), 0.12), x, y, 1.0)
    result = align_movie(frames, gain=None, defects=None, parameters=PARAMETERS)
    assert track_error(result.motion.shift_x_pixel, result.motion.shift_y_pixel, x, y) < 0.5
    assert all("moves locally is less" in sentence for sentence in result.warnings)


def test_patches_with_too_little_in_them_are_said() -> None:
    """Narrower than 200 Å they spoil the motion: how wide they are, and how many are usual."""
    frames = expose(specimen((480, 512), 0.3), np.zeros(2), np.zeros(2), 5.0)
    told = {
        grid: [
            sentence
            for sentence in align_movie(
                frames, gain=None, defects=None, parameters=AlignmentParameters(1.0, 300.0, patches=grid)
            ).warnings
            if "patches" in sentence
        ]
        for grid in ((6, 2), (2, 2), (1, 1))
    }
    (narrow,) = told[6, 2]
    assert "6 × 2 patches are 85 Å wide" in narrow
    assert "about 2 × 2, of 400 Å" in narrow
    assert not told[2, 2]
    assert not told[1, 1]


def test_a_jump_of_the_first_frame_is_followed() -> None:
    """The beam-induced jump after the first frame, 10 Å, is no outlier to be smoothed away."""
    x, y = planted_track(16)
    x[1:] += 9.0
    frames = expose(specimen((512, 480), 0.12), x, y, 1.0)
    result = align_movie(frames, gain=None, defects=None, parameters=PARAMETERS)
    assert track_error(result.motion.shift_x_pixel, result.motion.shift_y_pixel, x, y) < 0.5


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_patterns_that_stand_still_do_not_hold_the_track(scale: float) -> None:
    """Unknown dead columns, hot pixels and 5 % of gain error on top of a known gain change nothing."""
    rng = np.random.default_rng(7)
    x, y = planted_track(16, scale)
    ideal = expose(specimen((512, 480), 0.12), x, y, 4.0).astype(float)
    gain = rng.uniform(0.8, 1.25, size=ideal.shape[1:]).astype(np.float32)
    raw = rng.binomial(ideal.astype(int), np.clip(0.25 / gain * rng.normal(1, 0.05, gain.shape), 0, 1))
    raw[:, :, 200:203] = 0
    raw[:, 100, :] *= 3
    raw[:, rng.random(gain.shape) < 1e-4] = 60
    gain[300:304, 300:310] = 0
    result = align_movie(raw.astype(np.uint8), gain=gain, defects=None, parameters=PARAMETERS)
    assert track_error(result.motion.shift_x_pixel, result.motion.shift_y_pixel, x, y) < 0.5
    beside = result.unweighted[:, [190, 193, 196, 206, 209, 212]]
    assert result.unweighted[:, 200:203].mean() == pytest.approx(beside.mean(), rel=0.03)


def plain_reference(frames: NDArray[np.uint8], x: Picture, y: Picture, weights: Picture) -> NDArray[np.complex128]:
    """Every frame moved by whole pixels, mirrored, then by the exact phase, times its exact weights, at full size."""
    _, rows, columns = frames.shape
    total = np.zeros(weights.shape[1:], dtype=complex)
    for frame, dx, dy, weight in zip(frames, x, y, weights, strict=True):
        moved = frame.astype(float)
        for axis, (length, whole) in enumerate(((rows, int(np.floor(dy))), (columns, int(np.floor(dx))))):
            places = (np.arange(length) + whole) % (2 * length)
            moved = moved.take(np.minimum(places, 2 * length - 1 - places), axis=axis)
        part_y, part_x = dy - np.floor(dy), dx - np.floor(dx)
        phase = part_y * np.fft.fftfreq(rows)[:, None] + part_x * np.fft.rfftfreq(columns)
        total += weight * np.fft.rfft2(moved) * np.exp(2j * np.pi * phase)
    return total


@pytest.mark.parametrize("dose", [None, 1.5])
def test_sums_are_those_of_the_plain_reference(dose: float | None) -> None:
    """Both sums are the reference's, mirrored borders and all: waves to ⅖ of Nyquist within 0.5 % root mean square, to
    ⅔ within 5 %, and the noise from there to Nyquist is as strong as the reference's within a quarter."""
    x, y = planted_track(30)
    frames = expose(specimen((200, 240), 0.3), x, y, 5.0)
    parameters = AlignmentParameters(PIXEL, 200.0, dose, pre_exposure_e_per_square_angstrom=2.0, patches=(1, 1))
    result = align_movie(frames, gain=None, defects=None, parameters=parameters)
    frequency = np.hypot(np.fft.fftfreq(200)[:, None], np.fft.rfftfreq(240))
    with np.errstate(divide="ignore"):
        critical = 0.8019 * (0.245 * (frequency / PIXEL) ** -1.665 + 2.81)
    decay = np.array([np.exp(-((f + 0.5) * (dose or 0.0) + 2.0) / (2 * critical)) for f in range(30)])
    weights = decay / np.sqrt(np.mean(decay**2, axis=0))
    for found, exact in ((result.unweighted, np.ones_like(decay)), (result.micrograph, weights)):
        expected = plain_reference(frames, result.motion.shift_x_pixel, result.motion.shift_y_pixel, exact)
        got = np.fft.rfft2(found.astype(float))
        assert found.mean() == pytest.approx(frames.sum(axis=0).mean(), rel=0.01)
        for lowest, highest, largest in ((0.0, 0.2, 0.005), (0.2, 1 / 3, 0.05)):
            band = (frequency >= lowest) & (frequency < highest)
            error = np.sum(np.abs(got - expected)[band] ** 2) / np.sum(np.abs(expected)[band] ** 2)
            assert np.sqrt(error) < largest
        for lowest in (1 / 3, 0.4):
            band = (frequency >= lowest) & (frequency < lowest + 0.1)
            assert np.sum(np.abs(got)[band] ** 2) == pytest.approx(np.sum(np.abs(expected)[band] ** 2), rel=0.25)
    if dose is None:
        np.testing.assert_array_equal(result.micrograph, result.unweighted)


def test_exposure_filter_keeps_noise_white_and_as_strong() -> None:
    """On a movie of noise the filtered sum has the plain sum's power at low and at high frequencies."""
    frames = np.random.default_rng(3).poisson(2.0, size=(12, 256, 256)).astype(np.uint8)
    parameters = AlignmentParameters(PIXEL, 300.0, 3.0)
    result = align_movie(frames, gain=None, defects=None, parameters=parameters)
    power, plain = (np.abs(np.fft.rfft2(image)) ** 2 for image in (result.micrograph, result.unweighted))
    radius = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256))
    for least, most in ((0.02, 0.15), (0.15, 0.35), (0.35, 0.5)):
        band = (radius > least) & (radius < most)
        assert power[band].mean() / plain[band].mean() == pytest.approx(1, abs=0.05)


def test_noise_alone_is_added_as_it_is_and_says_so() -> None:
    """Without a specimen there is no track, and a sentence tells."""
    for seed in range(3):
        frames = np.random.default_rng(seed).poisson(1.0, size=(20, 256, 256)).astype(np.uint8)
        result = align_movie(frames, gain=None, defects=None, parameters=PARAMETERS)
        assert np.hypot(result.motion.shift_x_pixel, result.motion.shift_y_pixel).max() < 2.0
        assert result.warnings


@pytest.mark.parametrize("count", [2, 3, 5])
def test_few_frames_settle(count: int) -> None:
    """Two frames do not change places for ever."""
    x, y = planted_track(count)
    frames = expose(specimen((384, 384), 0.3), x, y, 3.0)
    result = align_movie(frames, gain=None, defects=None, parameters=PARAMETERS)
    assert track_error(result.motion.shift_x_pixel, result.motion.shift_y_pixel, x, y) < 0.3


def test_one_frame_is_returned_as_it_is() -> None:
    """A single image has no motion and no exposure filter to speak of."""
    frame = np.random.default_rng(5).poisson(20.0, size=(1, 90, 100)).astype(np.uint16)
    result = align_movie(frame, gain=None, defects=None, parameters=AlignmentParameters(PIXEL, 300.0, 40.0))
    np.testing.assert_allclose(result.unweighted, frame[0], atol=1e-3)
    np.testing.assert_allclose(result.micrograph, frame[0], atol=1e-3)
    assert result.motion.shift_x_pixel.tolist() == [0.0]
    assert result.warnings == ()


@pytest.mark.parametrize("blank", [0, 7, 19])
@pytest.mark.parametrize("dose", [None, 1.5])
def test_a_blank_frame_is_left_out_of_track_and_sum(blank: int, dose: float | None) -> None:
    """One frame without electrons costs that frame alone, wherever it is: the others are aligned and added up."""
    x, y = planted_track(20, 0.5)
    frames = expose(specimen((256, 192), 0.3), x, y, 6.0)
    others = np.delete(np.arange(20), blank)
    frames[blank] = 3
    doses = None if dose is None else tuple(np.full(20, dose))
    result = align_movie(frames, gain=None, defects=None, parameters=AlignmentParameters(PIXEL, 300.0, doses))
    assert result.motion.shift_x_pixel.shape == result.motion.shift_y_pixel.shape == (20,)
    found = result.motion.shift_x_pixel[others], result.motion.shift_y_pixel[others]
    assert track_error(*found, x[others], y[others]) < 0.5
    assert result.unweighted.mean() == pytest.approx(frames[others].sum(axis=0).mean(), rel=0.02)
    assert result.micrograph.mean() == pytest.approx(frames[others].sum(axis=0).mean(), rel=0.02)
    assert f"Frame {blank + 1} of 20 holds the same value" in result.warnings[0]


def test_equal_doses_one_by_one_are_one_dose_for_all() -> None:
    """A dose for each frame and one for all of them give one picture, where they are the same."""
    x, y = planted_track(5)
    frames = expose(specimen((200, 210), 0.3), x, y, 3.0)
    one, each = (
        align_movie(frames, gain=None, defects=None, parameters=AlignmentParameters(PIXEL, 300.0, dose))
        for dose in (2.0, (2.0,) * 5)
    )
    np.testing.assert_allclose(one.micrograph, each.micrograph, rtol=1e-5, atol=1e-4)


def test_borders_are_mirrored_and_not_black() -> None:
    """What is moved in looks like the picture beside it: no dark strip, nothing of the opposite side."""
    x, y = planted_track(12, 2.0)
    picture = specimen((384, 384), 0.15)
    frames = expose(picture, x, y, 5.0).astype(np.float32)
    frames *= np.linspace(0.5, 1.5, 384, dtype=np.float32)
    result = align_movie(frames, gain=None, defects=None, parameters=PARAMETERS)
    columns = result.unweighted.mean(axis=0)
    expected = frames.sum(axis=0).mean(axis=0)
    np.testing.assert_allclose(columns[2:-2], expected[2:-2], rtol=0.15)


def test_two_threads_give_what_one_gives() -> None:
    """Threads divide the work and change nothing in it."""
    x, y = planted_track(5)
    frames = expose(specimen((200, 210), 0.3), x, y, 3.0)
    one = align_movie(frames, gain=None, defects=None, parameters=AlignmentParameters(PIXEL, 300.0, 1.0))
    two = align_movie(frames, gain=None, defects=None, parameters=AlignmentParameters(PIXEL, 300.0, 1.0, threads=2))
    np.testing.assert_allclose(one.micrograph, two.micrograph, atol=1e-3)
    np.testing.assert_allclose(one.motion.shift_x_pixel, two.motion.shift_x_pixel, atol=1e-3)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (AlignmentParameters(0.0, 300.0), "pixel size is 0.0 Å"),
        (AlignmentParameters(1.0, float("nan")), "voltage is nan kV"),
        (AlignmentParameters(1.0, 0.3), r"voltage is 0.3 kV; expected 10 to 3,000 kV.* in MV\? 0.3 MV are 300 kV"),
        (AlignmentParameters(1.0, 300000.0), r"voltage is 300000 kV; .* in V\? 300000 V are 300 kV"),
        (AlignmentParameters(1.0, -300.0), "voltage is -300 kV"),
        (AlignmentParameters(1.0, 300.0, -1.0), "dose per frame is -1.0"),
        (AlignmentParameters(1.0, 300.0, (1.0, 1.0, 1.0)), "3 doses for 2 frames"),
        (AlignmentParameters(1.0, 300.0, bin_factor=0.5), "cannot be binned by 0.5"),
        (AlignmentParameters(1.0, 300.0, patches=(0, 3)), "0 × 3 patches"),
    ],
)
def test_impossible_parameters_are_refused(parameters: AlignmentParameters, message: str) -> None:
    """A parameter that cannot be true is named with its value."""
    frames = np.random.default_rng(0).poisson(2.0, size=(2, 64, 64)).astype(np.uint8)
    with pytest.raises(ProcessingError, match=message):
        align_movie(frames, gain=None, defects=None, parameters=parameters)


@settings(max_examples=40, deadline=None)
@given(
    frames=st.integers(1, 4),
    rows=st.sampled_from([1, 2, 3, 7, 31, 64, 97, 131]),
    columns=st.sampled_from([1, 2, 5, 16, 61, 89, 128]),
    dtype=st.sampled_from([np.uint8, np.uint16, np.int16, np.float32]),
    dose=st.sampled_from([None, 0.0, 1.0]),
    pixel=st.sampled_from([0.3, 1.06, 4.2, 12.0]),
    seed=st.integers(0, 1000),
)
def test_any_shape_type_and_pixel_gives_finite_sums(
    frames: int, rows: int, columns: int, dtype: type, dose: float | None, pixel: float, seed: int
) -> None:
    """Odd, prime and tiny movies of every camera type give sums of their own shape, mean kept, or a stated error."""
    movie = np.random.default_rng(seed).poisson(6.0, size=(frames, rows, columns)).astype(dtype)
    parameters = AlignmentParameters(pixel, 200.0, dose)
    try:
        result = align_movie(movie, gain=None, defects=None, parameters=parameters)
    except ProcessingError as error:
        assert "holds the same value" in str(error)
        return
    for picture in (result.micrograph, result.unweighted):
        assert picture.shape == (rows, columns)
        assert picture.dtype == np.float32
        assert np.isfinite(picture).all()
    assert result.motion.shift_x_pixel.shape == result.motion.shift_y_pixel.shape == (frames,)
    if rows * columns > 5000:
        assert result.unweighted.mean() == pytest.approx(movie.sum(axis=0).mean(), rel=0.02)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_the_same_numbers_in_another_type_give_the_same(dtype: type) -> None:
    """Counts of one byte, of two and as real numbers are one movie: one motion, and one sum."""
    x, y = planted_track(6)
    frames = expose(specimen((256, 300), 0.3), x, y, 3.0)
    parameters = AlignmentParameters(PIXEL, 300.0, 2.0, patches=(2, 2))
    one, other = (
        align_movie(each, gain=None, defects=None, parameters=parameters) for each in (frames, frames.astype(dtype))
    )
    np.testing.assert_allclose(other.motion.shift_x_pixel, one.motion.shift_x_pixel, atol=1e-6)
    np.testing.assert_allclose(other.motion.field_y, one.motion.field_y, atol=1e-6)
    np.testing.assert_allclose(other.micrograph, one.micrograph, atol=1e-3)


def test_counts_beyond_a_byte_are_aligned() -> None:
    """Frames of some thousand counts a pixel, as 16-bit integers, have the track of the same electrons in a byte."""
    x, y = planted_track(6)
    frames = expose(specimen((256, 300), 0.3), x, y, 3.0)
    counts = align_movie(frames.astype(np.uint16) * 1000, gain=None, defects=None, parameters=PARAMETERS)
    electrons = align_movie(frames, gain=None, defects=None, parameters=PARAMETERS)
    np.testing.assert_allclose(counts.motion.shift_x_pixel, electrons.motion.shift_x_pixel, atol=0.01)
    np.testing.assert_allclose(counts.unweighted / 1000, electrons.unweighted, atol=0.5)


def test_super_resolution_frames_are_cropped_to_the_physical_pixel() -> None:
    """Frames at half the pixel, binned by 2: the motion is in pixels of the frames, the sum in the physical ones, and
    it shows the specimen where the first frame has it, as well as its 80 electrons a pixel allow."""
    x, y = planted_track(10)
    picture = specimen((256, 288), 0.3)
    fine = resample(resample(picture, 512, axis=0), 576, axis=1)
    frames = expose(fine, 2 * x, 2 * y, 2.0)
    parameters = AlignmentParameters(PIXEL / 2, 300.0, 1.0, bin_factor=2.0, halves=True)
    result = align_movie(frames, gain=None, defects=None, parameters=parameters)
    assert track_error(result.motion.shift_x_pixel, result.motion.shift_y_pixel, 2 * x, 2 * y) < 0.6
    assert result.pixel_size_angstrom == pytest.approx(PIXEL)
    assert result.even is not None
    assert result.odd is not None
    for picture_of_sum in (result.micrograph, result.unweighted, result.even, result.odd):
        assert picture_of_sum.shape == picture.shape
    assert result.unweighted.mean() == pytest.approx(frames.sum(axis=0).mean(), rel=0.01)
    inside = np.s_[20:-20, 20:-20]
    at_place, beside = (
        np.corrcoef(result.unweighted[inside].ravel(), displaced(picture, dx, 0)[inside].ravel())[0, 1] for dx in (0, 2)
    )
    assert at_place > 0.98 * np.sqrt(0.3**2 / (0.3**2 + 1 / 80))
    assert at_place > beside


def test_super_resolution_gives_what_the_physical_pixels_give() -> None:
    """Binned by 2, without an exposure, a still movie's sum holds its electrons' waves to the physical Nyquist."""
    frames = np.random.default_rng(6).poisson(1.0, size=(3, 120, 140)).astype(np.uint8)
    result = align_movie(
        frames,
        gain=None,
        defects=None,
        parameters=AlignmentParameters(PIXEL / 2, 300.0, bin_factor=2.0, patches=(1, 1)),
    )
    whole = align_movie(
        frames, gain=None, defects=None, parameters=AlignmentParameters(PIXEL / 2, 300.0, patches=(1, 1))
    )
    expected = np.fft.rfft2(whole.unweighted.astype(float))[:30, :35] / 4
    np.testing.assert_allclose(np.fft.rfft2(result.unweighted.astype(float))[:30, :35], expected, atol=0.05)


def test_blank_frames_at_both_ends_have_their_neighbours_places() -> None:
    """What is left out at the first and at the last frame is said, and the others are placed as without them."""
    x, y = planted_track(20, 0.5)
    frames = expose(specimen((256, 192), 0.3), x, y, 6.0)
    frames[[0, 19]] = 0
    result = align_movie(
        frames, gain=None, defects=None, parameters=AlignmentParameters(PIXEL, 300.0, 1.0, halves=True)
    )
    alone = align_movie(frames[1:19], gain=None, defects=None, parameters=PARAMETERS)
    assert result.motion.shift_x_pixel[0] == result.motion.shift_x_pixel[1]
    assert result.motion.shift_y_pixel[19] == result.motion.shift_y_pixel[18]
    assert track_error(result.motion.shift_x_pixel[1:19], result.motion.shift_y_pixel[1:19], x[1:19], y[1:19]) < 0.5
    np.testing.assert_allclose(result.unweighted.mean(), alone.unweighted.mean(), rtol=1e-3)
    assert result.even is not None
    assert result.odd is not None
    np.testing.assert_allclose(result.even + result.odd, result.micrograph, atol=0.01)


@pytest.mark.parametrize("dose", [None, (3.0, 0.5, 1.0, 1.0, 2.0, 0.0, 1.0, 1.5)])
def test_frames_of_different_doses_are_aligned_and_keep_their_strength(dose: tuple[float, ...] | None) -> None:
    """A movie whose frames differ in electrons is aligned as well as any, whether that is known or not; its sums keep
    their mean, and the weights their noise."""
    x, y = planted_track(8)
    electrons = np.array([6, 1, 2, 2, 4, 0.2, 2, 3])
    ideal = moving_frames(specimen((300, 320), 0.3), x, y)
    frames = np.random.default_rng(2).poisson(electrons[:, np.newaxis, np.newaxis] * ideal).astype(np.uint8)
    result = align_movie(frames, gain=None, defects=None, parameters=AlignmentParameters(PIXEL, 300.0, dose))
    bright = electrons >= 1
    found = result.motion.shift_x_pixel[bright], result.motion.shift_y_pixel[bright]
    assert track_error(*found, x[bright], y[bright]) < 0.25
    for picture in (result.unweighted, result.micrograph):
        assert picture.mean() == pytest.approx(frames.sum(axis=0).mean(), rel=0.03)
    if dose is not None:
        assert result.rank > 1
        radius = np.hypot(np.fft.fftfreq(300)[:, None], np.fft.rfftfreq(320))
        high = (radius > 0.25) & (radius < 0.33)
        power = [
            np.mean(np.abs(np.fft.rfft2(picture))[high] ** 2) for picture in (result.micrograph, result.unweighted)
        ]
        assert power[0] == pytest.approx(power[1], rel=0.15)


def test_one_frame_can_be_binned_but_not_halved() -> None:
    """A single image is cropped to the wanted pixel; that there are no halves of it is said."""
    frame = np.random.default_rng(5).poisson(20.0, size=(1, 90, 100)).astype(np.uint8)
    parameters = AlignmentParameters(PIXEL, 300.0, 40.0, bin_factor=2.0, halves=True)
    result = align_movie(frame, gain=None, defects=None, parameters=parameters)
    assert result.micrograph.shape == result.unweighted.shape == (45, 50)
    assert result.pixel_size_angstrom == pytest.approx(2 * PIXEL)
    assert result.even is None
    assert result.odd is None
    assert result.warnings == ("There are not two frames to make sums of the even and of the odd ones.",)
    assert not np.any(result.motion.at(np.array([10.0]), np.array([20.0])))
    assert result.error_angstrom == np.inf
