"""CTF estimation: planted truth comes back, and nothing is believed that is not there."""

from __future__ import annotations

import gzip
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from planted_ctf import micrograph, planted_ctf, wavelength_angstrom

from coldchain.errors import ProcessingError
from coldchain.kernels.ctf import CtfParameters, fit_ctf, fitted_phase_shift
from coldchain.kernels.ctf_model import Defocus, Lens

SHAPE = (1024, 1152)


def _optics(**changes: object) -> CtfParameters:
    return replace(CtfParameters(1.1, 300.0, 2.7), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", range(16))
def test_a_planted_defocus_comes_back(case: int) -> None:
    """Defocus 0.4–4 µm, astigmatism 0–2000 Å, 200 and 300 kV, Cs 0 and 2.7, 0.5–1.7 Å: U and V within 60 Å, trusted."""
    random = np.random.default_rng([case, 7])
    voltage, cs = (200.0, 300.0)[case % 2], (2.7, 0.0)[case // 2 % 2]
    pixel, astigmatism = random.uniform(0.5, 1.7), random.uniform(0, 2000)
    mean, angle = random.uniform(4000 + astigmatism / 2, 40000), random.uniform(0, 180)
    u, v = mean + astigmatism / 2, mean - astigmatism / 2
    shape = SHAPE if pixel > 0.9 else (1536, 1500)
    ctf = planted_ctf(shape, pixel, u, v, angle, voltage_kilovolt=voltage, cs_millimeter=cs)
    image = micrograph(shape, pixel, ctf, signal_to_noise=0.2, seed=case)
    result = fit_ctf(image, CtfParameters(pixel, voltage, cs)).result
    planted = f"planted {u:.0f}/{v:.0f} at {angle:.0f}° ({voltage:.0f} kV, Cs {cs}, {pixel:.2f} Å), found {result}"
    assert result.trustworthy, planted
    assert abs(result.defocus_u_angstrom - u) <= 60, planted
    assert abs(result.defocus_v_angstrom - v) <= 60, planted
    assert abs(0.5 * (result.defocus_u_angstrom + result.defocus_v_angstrom) - mean) <= result.uncertainty_angstrom
    if astigmatism > 200:
        off = (result.defocus_angle_degrees - angle + 90) % 180 - 90
        assert abs(off) <= 6, planted


@pytest.mark.parametrize("shift", [35.0, 90.0, 150.0])
def test_a_planted_phase_shift_comes_back(shift: float) -> None:
    """Where a phase plate was used and its shift is to be fitted: within 8°, defocus within 150 Å."""
    ctf = planted_ctf(SHAPE, 1.1, 12000, 11400, 60, phase_shift_degrees=shift)
    image = micrograph(SHAPE, 1.1, ctf, signal_to_noise=0.4, seed=3)
    result = fit_ctf(image, _optics(fit_phase_shift=True)).result
    assert result.trustworthy, result
    assert abs((result.phase_shift_degrees - shift + 90) % 180 - 90) <= 8, result
    assert abs(result.defocus_u_angstrom - 12000) <= 150, result
    assert abs(result.defocus_v_angstrom - 11400) <= 150, result


def test_noise_is_never_trusted() -> None:
    """Of 60 images of pure noise, white or coloured, none is called trustworthy."""
    random = np.random.default_rng(11)
    trusted = []
    for i in range(60):
        image = random.standard_normal((288, 288)).astype(np.float32)
        if i % 2:
            ramp = np.fft.rfftfreq(288)[None, :] ** 2 + np.fft.fftfreq(288)[:, None] ** 2
            image += np.fft.irfft2(np.fft.rfft2(image) / (0.02 + np.sqrt(ramp)) * 0.1, image.shape).astype(np.float32)
        result = fit_ctf(image, _optics(pixel_size_angstrom=1.3)).result
        if result.trustworthy:
            trusted.append((i, result))
        assert result.reason or result.trustworthy
    assert not trusted


def test_rings_too_faint_to_fit_are_doubted_or_right() -> None:
    """As the signal fades the fit stays within its stated uncertainty or is no longer trusted; at the end it is not."""
    ctf = planted_ctf((768, 768), 1.1, 18000, 17500, 20)
    for signal_to_noise in (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003):
        for seed in range(4):
            image = micrograph((768, 768), 1.1, ctf, signal_to_noise=signal_to_noise, seed=seed)
            result = fit_ctf(image, _optics()).result
            mean = 0.5 * (result.defocus_u_angstrom + result.defocus_v_angstrom)
            assert not result.trustworthy or abs(mean - 17750) <= result.uncertainty_angstrom, result
            assert signal_to_noise > 0.0005 or not result.trustworthy, result


def test_two_ring_systems_are_not_trusted() -> None:
    """Two defoci of like strength in one picture have no one defocus."""
    first = micrograph(SHAPE, 1.1, planted_ctf(SHAPE, 1.1, 9000, 9000, 0), signal_to_noise=0.3, seed=1)
    second = micrograph(SHAPE, 1.1, planted_ctf(SHAPE, 1.1, 21000, 21000, 0), signal_to_noise=0.3, seed=2)
    result = fit_ctf(first + second, _optics()).result
    assert not result.trustworthy
    assert "another defocus" in result.reason


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (np.full((512, 512), 7, dtype=np.uint8), "blank"),
        (np.zeros((512, 512), dtype=np.float32), "blank"),
        (np.full((512, 512), np.nan, dtype=np.float32), "finite"),
        (np.where(np.eye(512) > 0, np.inf, 1.0).astype(np.float32), "finite"),
        (np.ones((100, 100), dtype=np.float32), "too small"),
        (np.ones((4096, 100), dtype=np.float32), "too small"),
        (np.tile(np.arange(512, dtype=np.float32), (512, 1)), ""),
        (np.eye(512, dtype=np.float32), ""),
    ],
)
def test_pictures_without_rings_say_why(image: NDArray[np.generic], word: str) -> None:
    """A blank, broken or tiny picture gives numbers that are finite, no trust, and a reason; never an exception."""
    result = fit_ctf(image, _optics()).result
    assert not result.trustworthy
    assert result.reason
    assert word in result.reason
    numbers = (result.defocus_u_angstrom, result.score, result.uncertainty_angstrom, result.ice_ring_density)
    assert all(math.isfinite(v) for v in numbers)


@pytest.mark.parametrize(
    "changes",
    [
        {"pixel_size_angstrom": 0.0},
        {"pixel_size_angstrom": math.nan},
        {"voltage_kilovolt": -300.0},
        {"spherical_aberration_millimeter": -1.0},
        {"amplitude_contrast": 1.5},
        {"min_resolution_angstrom": 2.0},
        {"min_defocus_angstrom": 60000.0},
        {"phase_shift_degrees": math.inf},
    ],
)
def test_impossible_optics_are_refused(changes: dict[str, float]) -> None:
    """Optics that cannot be are a stated error, with what was found and what to do."""
    with pytest.raises(ProcessingError) as caught:
        fit_ctf(np.eye(512, dtype=np.float32), _optics(**changes))
    assert caught.value.found
    assert caught.value.remedy


@pytest.mark.parametrize("scale", [1e-320, 1e-150, 1e-40, 1e-18, 1.0, 1e18, 1e25, 1e37, 1e150, 1e306])
def test_the_unit_of_the_picture_does_not_matter(scale: float) -> None:
    """From the smallest numbers that there are to the largest, the same picture has the same CTF."""
    image = micrograph((512, 512), 1.1, planted_ctf((512, 512), 1.1, 16000, 14000, 30), signal_to_noise=1.0, seed=6)
    # Whole numbers stay what they are, even as multiples of a number that has few digits left.
    image = np.rint(100 * image / np.abs(image).max()).astype(np.float64)
    plain, scaled = (fit_ctf(picture, _optics()).result for picture in (image, (image + 3) * scale))
    assert scaled.trustworthy == plain.trustworthy
    assert scaled.defocus_u_angstrom == pytest.approx(plain.defocus_u_angstrom, abs=5)
    if 1e-40 <= scale <= 1e25:
        single = fit_ctf(((image + 3) * scale).astype(np.float32), _optics()).result
        assert single.defocus_u_angstrom == pytest.approx(plain.defocus_u_angstrom, abs=5)


@pytest.mark.parametrize(
    ("kilovolt", "words"), [(0.3, "given in MV"), (300000.0, "given in V"), (5000.0, "10 to 3,000")]
)
def test_a_voltage_in_another_unit_is_asked_about(kilovolt: float, words: str) -> None:
    """0.3 or 300,000 kV are refused with what they probably are."""
    with pytest.raises(ProcessingError, match=words):
        fit_ctf(np.eye(512, dtype=np.float32), _optics(voltage_kilovolt=kilovolt))


def test_a_pixel_too_coarse_for_rings_is_not_trusted() -> None:
    """At 20 Å a pixel there is no fit band left; that is said, not crashed on."""
    noise = np.random.default_rng(0).standard_normal((512, 512))
    result = fit_ctf(noise, _optics(pixel_size_angstrom=20.0)).result
    assert not result.trustworthy
    assert result.reason


def test_the_picture_for_the_eye_shows_the_same_rings_left_and_right() -> None:
    """Mirrored on the middle column, measured and fitted half of an unastigmatic micrograph correlate."""
    ctf = planted_ctf(SHAPE, 1.1, 15000, 15000, 0)
    fit = fit_ctf(micrograph(SHAPE, 1.1, ctf, signal_to_noise=1.0, seed=5), _optics())
    picture = fit.diagnostic
    edge = len(picture)
    middle = edge // 2
    assert picture.dtype == np.float32
    assert 0 <= picture.min() <= picture.max() <= 1
    left, right = picture[:, 1:middle][:, ::-1], picture[:, middle + 1 :]
    y, x = np.mgrid[-middle : edge - middle, 1:middle]
    radius = np.hypot(y[:, : left.shape[1]], x[:, : left.shape[1]])
    ring = (radius > 0.12 * edge) & (radius < 0.25 * edge)
    agreement = np.corrcoef(left[ring], right[:, : left.shape[1]][ring])[0, 1]
    assert agreement > 0.6, agreement


def test_noise_is_shown_as_noise() -> None:
    """Along the circles of a picture without rings neighbouring places differ; where rings are, they are smoothed. As
    many threads as there are find the same."""
    noise = np.random.default_rng(5).standard_normal((1024, 1024)).astype(np.float32)
    ctf = planted_ctf((1024, 1024), 1.0, 15000.0, 14500.0, 20.0)
    ringed = micrograph((1024, 1024), 1.0, ctf, signal_to_noise=0.3, seed=5)
    alike = []
    for picture in (noise, ringed):
        fit, other = (fit_ctf(picture, CtfParameters(1.0, 300.0, 2.7, threads=count)) for count in (1, 2))
        assert fit.result.trustworthy == other.result.trustworthy
        if fit.result.trustworthy:
            assert fit.result.defocus_u_angstrom == pytest.approx(other.result.defocus_u_angstrom, abs=0.01)
        assert fit.smoothed == fit.result.trustworthy
        side = fit.diagnostic.shape[0]
        turned = np.radians(np.arange(100, 260, 10.0))
        rows, columns = (
            np.rint(side / 2 + 0.35 * side * wave[:, None] * np.linspace(0.5, 1, 200)).astype(int)
            for wave in (np.sin(turned), -np.abs(np.cos(turned)))
        )
        values = fit.diagnostic[rows, columns]
        alike.append(float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairwise(values)])))
    assert alike[0] < 0.3 < alike[1]


def test_the_azimuth_is_from_x_towards_increasing_row() -> None:
    """The rings lie closest to the middle along the azimuth of the larger defocus, also in the diagnostic picture."""
    ctf = planted_ctf(SHAPE, 1.1, 16000, 14000, 30)
    fit = fit_ctf(micrograph(SHAPE, 1.1, ctf, signal_to_noise=0.5, seed=6), _optics())
    assert abs(fit.result.defocus_angle_degrees - 30) < 3
    image = micrograph(SHAPE, 1.1, ctf, signal_to_noise=0.5, seed=6)
    turned = fit_ctf(image[::-1], _optics())
    assert abs(turned.result.defocus_angle_degrees - 150) < 3


def test_ice_shows_in_the_ring_density() -> None:
    """Power planted at 3.7 Å raises the ice-ring density well above that of a micrograph without ice."""
    shape = (1024, 1024)
    ctf = planted_ctf(shape, 1.1, 15000, 14800, 30)
    plain = micrograph(shape, 1.1, ctf, signal_to_noise=0.3, seed=8)
    k = np.hypot(np.fft.fftfreq(shape[0], 1.1)[:, None], np.fft.rfftfreq(shape[1], 1.1)[None, :])
    grown = np.fft.rfft2(plain) * np.where(abs(k - 0.267) < 0.008, 2.0, 1.0)
    icy = fit_ctf(np.fft.irfft2(grown, shape), _optics()).result
    clean = fit_ctf(plain, _optics()).result
    assert clean.ice_ring_density == pytest.approx(1.0, abs=0.15)
    assert icy.ice_ring_density > 1.8
    assert not icy.trustworthy or abs(icy.defocus_u_angstrom - 15000) <= icy.uncertainty_angstrom, icy


def test_the_phase_is_the_textbook_formula() -> None:
    """The kernel's χ equals the formula written out here, Cs 0 and 2.7 alike, and lines of equal phase are that."""
    k = np.linspace(0.03, 0.3, 50)
    for voltage, cs in ((200.0, 0.0), (300.0, 2.7)):
        lens = Lens.of(voltage, cs, 0.1, 20.0)
        lam = wavelength_angstrom(voltage)
        chi = np.pi * lam * 15000 * k**2 - 0.5 * np.pi * cs * 1e7 * lam**3 * k**4 + np.arcsin(0.1) + np.radians(20)
        assert np.allclose(lens.phase(k, 15000.0), chi, rtol=1e-6)
        same = lens.equiphase_frequency(k, np.full_like(k, 15600.0), 15000.0)
        assert np.allclose(lens.phase(same, 15000.0), lens.phase(k, 15600.0), atol=1e-9)


def test_u_is_never_below_v() -> None:
    """Whatever the sign of the astigmatism's parts, U ≥ V and the azimuth is in [0, 180)."""
    for cosine, sine in ((100.0, 0.0), (-100.0, 0.0), (0.0, -100.0), (0.0, 0.0), (1e-300, -1e-300)):
        defocus = Defocus(15000.0, cosine, sine)
        assert defocus.u_angstrom >= defocus.v_angstrom
        assert 0 <= defocus.angle_degrees < 180


@pytest.mark.real_data
def test_a_real_micrograph_is_fitted_as_ctffind_does(real_data: Path) -> None:
    """EPU example, 0.667 Å: CTFFIND 5 gives 27,294/27,148 Å to 3.5 Å; ours is within 150 Å, to 3.6 Å, and trusted."""
    with gzip.open(real_data / "micrographs" / "epu2.9_example.mrc.gz") as stream:
        header = stream.read(1024)
        width, height = (int(v) for v in np.frombuffer(header, dtype="<i4", count=2))
        stream.read(int(np.frombuffer(header, dtype="<i4", count=1, offset=92)[0]))
        image = np.frombuffer(stream.read(2 * width * height), dtype="<u2").reshape(height, width)
    result = fit_ctf(image, CtfParameters(0.667, 300.0, 2.7)).result
    assert result.trustworthy, result
    assert abs(result.defocus_u_angstrom - 27294) <= 150, result
    assert abs(result.defocus_v_angstrom - 27148) <= 150, result
    assert result.fit_resolution_angstrom <= 3.6, result


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [(0, 0), (90, 90), (159, 159), (161, -19), (179.8, -0.2), (-0.2, -0.2), (200, 20)],
)
def test_a_fitted_phase_shift_keeps_the_contrast(degrees: float, expected: float) -> None:
    """No phase plate, a little below zero, is not one of nearly 180°."""
    assert fitted_phase_shift(degrees) == pytest.approx(expected)
