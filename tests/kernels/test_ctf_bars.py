"""The bars of CTF estimation, on fewer and smaller images than `make bench PART=ctf`, and no softer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import ctf
from benchmarks.sums import ctf_sums, phase_plate_sums, simulate_sum
from coldchain.kernels.ctf import CtfParameters, fit_ctf
from coldchain.simulate.movie import simulate_movie
from coldchain.simulate.specimen import generate_specimen
from coldchain.simulate.truth import MovieParameters

CASES = 8


def _outcomes(planted: list[MovieParameters], *, fit_phase_shift: bool = False) -> list[ctf.Outcome]:
    specimen = generate_specimen(seed=1)
    outcomes = []
    for parameters in planted:
        image, truth = simulate_sum(parameters, specimen)
        told = ctf.parameters_of(parameters, fit_phase_shift=fit_phase_shift, threads=1)
        outcomes.append(ctf.Outcome(truth.parameters, fit_ctf(image, told).result))
    return outcomes


def _small(planted: list[MovieParameters]) -> list[MovieParameters]:
    """The same on 1280² pixels of 1.2–1.7 Å, which hold about as much as 2048² of the bench's mean pixel."""
    return [
        replace(p, height=1280, width=1280, particles=40, pixel_size_angstrom=1.2 + 0.4 * (p.pixel_size_angstrom - 0.5))
        for p in planted
    ]


def test_simulated_sums_meet_the_bars() -> None:
    """All are trusted, none is wrong without a warning; mean defocus, astigmatism and angle are within their bars."""
    outcomes = _outcomes(_small(ctf_sums(CASES)))
    assert all(outcome.found.trustworthy for outcome in outcomes), outcomes
    assert not any(outcome.is_unwarned for outcome in outcomes)
    assert ctf.MEAN.is_met_by(ctf.rms([o.mean_error_angstrom for o in outcomes])), outcomes
    assert ctf.ASTIGMATISM.is_met_by(ctf.rms([o.astigmatism_error_angstrom for o in outcomes])), outcomes
    strong = [
        o.angle_error_degrees for o in outcomes if o.planted.defocus_u_angstrom - o.planted.defocus_v_angstrom > 200
    ]
    assert ctf.ANGLE.is_met_by(ctf.rms(strong)), outcomes
    # The stated error is neither modest nor boastful.
    assert 0.4 < ctf.rms([error for o in outcomes for error in o.standard_errors]) < 1.6


def test_simulated_phase_plates_meet_the_bars() -> None:
    """With a phase shift to be fitted, too; what is doubted is not counted."""
    outcomes = _outcomes(_small(phase_plate_sums(5)), fit_phase_shift=True)
    trusted = [outcome for outcome in outcomes if outcome.found.trustworthy]
    assert len(trusted) >= 4
    assert not any(outcome.is_unwarned for outcome in outcomes)
    assert ctf.PHASE_PLATE_MEAN.is_met_by(ctf.rms([o.mean_error_angstrom for o in trusted])), outcomes
    assert ctf.PHASE.is_met_by(ctf.rms([o.phase_error_degrees for o in trusted])), outcomes


def test_the_bench_s_noise_is_not_trusted() -> None:
    """The first 80 of the thousand images of white, coloured and counted noise."""
    assert [case for case in range(80) if fit_ctf(*ctf.noise(case)).result.trustworthy] == []


def test_a_sum_is_what_its_movie_adds_up_to() -> None:
    """Signal and noise of a sum made at once are those of the frames of a still movie added up, ring by ring."""
    planted = replace(
        ctf_sums(1)[0], frames=8, dose_per_frame_e_per_square_angstrom=2.0, height=512, width=512, particles=2
    )
    specimen = generate_specimen(seed=1)
    at_once, truth = simulate_sum(planted, specimen)
    movie = simulate_movie(planted, specimen)
    added = movie.frames.sum(axis=0, dtype=np.float64)
    assert truth.particle_x_pixel == movie.truth.particle_x_pixel
    assert at_once.mean() == pytest.approx(added.mean(), rel=2e-3)
    assert at_once.std() == pytest.approx(added.std(), rel=1e-2)
    k = np.hypot(np.fft.fftfreq(512)[:, np.newaxis], np.fft.rfftfreq(512))
    low = (k > 0.01) & (k < 0.06)
    one, other = np.fft.rfft2(at_once)[low], np.fft.rfft2(added)[low]
    assert (abs(one) ** 2).mean() == pytest.approx((abs(other) ** 2).mean(), rel=0.1)
    assert np.real(np.vdot(one, other)) / np.linalg.norm(one) / np.linalg.norm(other) > 0.3


def test_a_wrong_voltage_shows_in_the_score() -> None:
    """Told 120 kV of a picture at 300 kV, the rings fit less well."""
    planted = _small(ctf_sums(1))[0]
    planted = replace(planted, voltage_kilovolt=300.0, defocus_u_angstrom=9000.0, defocus_v_angstrom=8800.0)
    image, _ = simulate_sum(planted, generate_specimen(seed=1))
    right = ctf.parameters_of(planted, threads=1)
    assert fit_ctf(image, right).result.trustworthy
    wrong = fit_ctf(image, replace(right, voltage_kilovolt=120.0)).result
    assert wrong.score < fit_ctf(image, right).result.score


def test_a_hundred_pixels_have_one_stated_reason() -> None:
    """100 × 100 pixels are too small, and that is what is said."""
    noise = np.random.default_rng(0).standard_normal((100, 100)).astype(np.float32)
    result = fit_ctf(noise, CtfParameters(1.0, 300.0, 2.7)).result
    assert not result.trustworthy
    assert "too small" in result.reason
