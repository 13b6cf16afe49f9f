"""A verdict says what is good, what is not and why; and what is not known never counts as good."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldchain.model.optics import ExposureMetadata
from coldchain.model.quality import Grade, Measures, Quantity, Thresholds
from coldchain.model.results import (
    CtfResult,
    ExposureResults,
    MotionResult,
    Pick,
    PickResult,
    QualityResult,
)
from coldchain.preprocess.quality import FEWEST_FOR_BRIGHTEST, ice_thickness, judge, measures_of

LIMITS = Thresholds()
GOOD = Measures(
    is_movie=True,
    motion_found=True,
    total_motion_angstrom=20.0,
    motion_error_angstrom=0.4,
    ctf_trustworthy=True,
    defocus_angstrom=15_000.0,
    intended_defocus_angstrom=15_200.0,
    astigmatism_angstrom=150.0,
    fit_resolution_angstrom=3.4,
    transmission=0.8,
    ice_thickness=0.1,
    unevenness=0.02,
    ice_ring_density=1.05,
    picks=300,
    contamination_fraction=0.03,
    gain_share=0.98,
    pattern_share=0.001,
)
MOTION = MotionResult((0.0, 9.0), (0.0, 0.0), 9.0, 4.0, 5.0, True, 0.3, "fits", 0.97)
CTF = CtfResult(15_100.0, 14_900.0, 10.0, 0.0, 0.3, 3.6, 1.1, 30.0, True, "")
PICKS = PickResult(120.0, (Pick(1.0, 1.0, 0.4),) * 50, 0.1)


def test_a_good_micrograph_is_good_without_a_word() -> None:
    """Nothing beyond a threshold, nothing unknown that matters: no reason."""
    assert (judge(GOOD, LIMITS).grade, judge(GOOD, LIMITS).reasons) == (Grade.GOOD, ())


@pytest.mark.parametrize(
    ("name", "quantity", "doubtful", "bad", "says"),
    [
        ("total_motion_angstrom", Quantity.MOTION, 61.0, 151.0, "moved by"),
        ("motion_error_angstrom", Quantity.ALIGNMENT, 3.5, 11.0, "known to"),
        ("fit_resolution_angstrom", Quantity.RESOLUTION, 7.5, 13.0, "Thon rings"),
        ("astigmatism_angstrom", Quantity.ASTIGMATISM, 1100.0, 3100.0, "astigmatism"),
        ("ice_thickness", Quantity.ICE, 0.4, 0.7, "thicker"),
        ("unevenness", Quantity.UNEVENNESS, 0.2, 0.4, "uneven"),
        ("ice_ring_density", Quantity.ICE_RING, 2.0, 4.0, "crystalline ice"),
        ("contamination_fraction", Quantity.CONTAMINATION, 0.3, 0.6, "cover"),
        ("picks", Quantity.PICKS, 4, 0, "found"),
    ],
)
def test_each_number_beyond_its_threshold_is_a_reason(
    name: str, quantity: Quantity, doubtful: float, bad: float, says: str
) -> None:
    """Beyond the first threshold doubtful, beyond the second bad, and the sentence names the value's kind."""
    for value, grade in ((doubtful, Grade.DOUBTFUL), (bad, Grade.BAD)):
        verdict = judge(replace(GOOD, **{name: value}), LIMITS)
        assert verdict.grade is grade
        assert [(reason.quantity, reason.grade) for reason in verdict.reasons] == [(quantity, grade)]
        assert says in verdict.reasons[0].words
        assert f"({grade} " in verdict.reasons[0].words


def test_the_heaviest_reason_stands_first_and_decides() -> None:
    """A bad reason after doubtful ones makes the micrograph bad, and is read first."""
    verdict = judge(replace(GOOD, total_motion_angstrom=80.0, picks=0), LIMITS)
    assert verdict.grade is Grade.BAD
    assert [reason.quantity for reason in verdict.reasons] == [Quantity.PICKS, Quantity.MOTION]


def test_motion_that_was_not_found_is_never_a_motion_of_nothing() -> None:
    """The shifts of 0 that stand for want of better are no measure, and a doubt is said."""
    lost = replace(MOTION, total_motion_angstrom=0.0, error_angstrom=math.inf)
    measures = measures_of(ExposureResults(lost, CTF, PICKS), ExposureMetadata(), is_movie=True)
    assert (measures.motion_found, measures.total_motion_angstrom, measures.motion_error_angstrom) == (
        False,
        None,
        None,
    )
    verdict = judge(measures, LIMITS)
    assert verdict.grade is Grade.DOUBTFUL
    assert "do not tell how they moved" in verdict.reasons[0].words


def test_a_fit_that_is_not_trusted_gives_no_numbers() -> None:
    """Neither its defocus nor its resolution is believed, however good; its own reason is repeated."""
    doubted = replace(CTF, trustworthy=False, reason="Two ring systems are seen.", fit_resolution_angstrom=3.0)
    measures = measures_of(ExposureResults(MOTION, doubted, PICKS), ExposureMetadata(), is_movie=True)
    assert (measures.defocus_angstrom, measures.fit_resolution_angstrom, measures.astigmatism_angstrom) == (None,) * 3
    verdict = judge(measures, LIMITS)
    assert verdict.grade is Grade.DOUBTFUL
    assert "Two ring systems are seen" in verdict.reasons[0].words


def test_without_motion_and_defocus_nothing_is_left() -> None:
    """Either alone is a doubt, both together are bad."""
    both = replace(GOOD, motion_found=False, total_motion_angstrom=None, ctf_trustworthy=False)
    assert judge(both, LIMITS).grade is Grade.BAD


def test_a_movie_without_any_result_is_bad_and_a_single_image_needs_no_alignment() -> None:
    """What was never computed does not pass; an image that came summed has no motion to ask for."""
    assert judge(measures_of(ExposureResults(), ExposureMetadata(), is_movie=True), LIMITS).grade is Grade.BAD
    image = measures_of(ExposureResults(ctf=CTF, picks=PICKS), ExposureMetadata(), is_movie=False)
    assert judge(image, LIMITS).grade is Grade.GOOD


def test_ice_is_told_against_the_brightest_of_ten() -> None:
    """t/λ = ln(I₀/I); nothing is said of the first exposures, nor does one with another dose count as I₀."""
    past = [0.5] * 11 + [0.8] + [5.0]
    assert ice_thickness(0.4, past) == pytest.approx(math.log(0.8 / 0.4))
    assert ice_thickness(0.9, past) == 0.0
    assert ice_thickness(0.4, past[: FEWEST_FOR_BRIGHTEST - 1]) is None
    assert ice_thickness(None, past) is None
    assert ice_thickness(-0.1, past) is None


def test_measures_take_the_signs_of_the_microscope() -> None:
    """An applied defocus of −1.5 µm is an intended underfocus of 15,000 Å."""
    found = ExposureResults(MOTION, CTF, PICKS, QualityResult(0.7, 0.01))
    measures = measures_of(found, ExposureMetadata(applied_defocus_micrometer=-1.5), is_movie=True)
    assert measures.intended_defocus_angstrom == pytest.approx(15_000.0)
    assert measures.defocus_angstrom == pytest.approx(15_000.0)
    assert (measures.picks, measures.contamination_fraction) == (50, 0.1)
    assert (measures.gain_share, measures.ice_thickness) == (0.97, None)


VALUES = st.one_of(st.none(), st.floats(allow_nan=False), st.integers(0, 10**6))


@given(st.fixed_dictionaries({f.name: VALUES for f in fields(Measures) if "float" in str(f.type)}))
def test_any_numbers_get_a_verdict(values: dict[str, float | None]) -> None:
    """No number breaks the judge; more unknowns never make a bad micrograph better than doubtful."""
    verdict = judge(Measures(is_movie=True, **values), LIMITS)  # type: ignore[arg-type]  # fields by name
    assert verdict.grade is Grade.BAD
    assert all(reason.words.endswith(".") for reason in verdict.reasons)
