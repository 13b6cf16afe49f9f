"""Judging a micrograph by its numbers. Pure: values in, a verdict in words out.

Nothing that is not known counts as good. Motion that was not found and a CTF fit that is not to be trusted are doubts;
both at once leave nothing to hold on to, and the micrograph is bad.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from coldchain.model.optics import ExposureMetadata
from coldchain.model.quality import Grade, Measures, Quantity, Reason, Thresholds, Verdict
from coldchain.model.results import ExposureResults

# With fewer exposures beside it, nobody knows how bright thin ice is.
FEWEST_FOR_BRIGHTEST = 10
# What is brighter than the session's usual by more than all its ice had another dose, or another magnification.
_MOST_OF_USUAL = 2.0

_ANGSTROM_PER_MICROMETER = 1e4
_WEIGHT = {Grade.BAD: 0, Grade.DOUBTFUL: 1, Grade.GOOD: 2}


@dataclass(frozen=True, slots=True)
class _Limit:
    """A number that may be too large.

    measure : what it is called in `Measures` and in `Thresholds`.
    words : of the value, and of the limit that it is beyond.
    shown : how a limit is written.
    """

    quantity: Quantity
    measure: str
    words: str
    shown: str


_ANGSTROM, _NUMBER = "{:,g} Å", "{:,g}"
_LIMITS = (
    _Limit(Quantity.MOTION, "total_motion_angstrom", "The specimen moved by {:.1f} Å{}.", _ANGSTROM),
    _Limit(Quantity.ALIGNMENT, "motion_error_angstrom", "Its motion is known to {:.1f} Å only{}.", _ANGSTROM),
    _Limit(Quantity.RESOLUTION, "fit_resolution_angstrom", "Thon rings are seen to {:.2f} Å only{}.", _ANGSTROM),
    _Limit(Quantity.ASTIGMATISM, "astigmatism_angstrom", "The astigmatism is {:,.0f} Å{}.", _ANGSTROM),
    _Limit(
        Quantity.ICE,
        "ice_thickness",
        "The ice is thicker than the session's thinnest by {:.2f} mean free paths{}.",
        _NUMBER,
    ),
    _Limit(
        Quantity.UNEVENNESS,
        "unevenness",
        "The brightness is uneven, by {:.2f}: an edge of carbon or of the beam, or ice that is not flat{}.",
        _NUMBER,
    ),
    _Limit(
        Quantity.ICE_RING,
        "ice_ring_density",
        "The ring of crystalline ice is {:.1f} times what is beside it{}.",
        _NUMBER,
    ),
    _Limit(
        Quantity.CONTAMINATION,
        "contamination_fraction",
        "Carbon, ice or aggregates cover {:.0%} of it{}.",
        "{:.0%}",
    ),
)


def measures_of(
    found: ExposureResults,
    metadata: ExposureMetadata,
    *,
    is_movie: bool,
    past_transmissions: Sequence[float] = (),
    pattern_share: float | None = None,
) -> Measures:
    """What a verdict can rest on.

    Parameters
    ----------
    found : the newest results.
    metadata : what the microscope wrote.
    past_transmissions : of the session's other exposures.
    pattern_share : see `Measures`.
    """
    motion, ctf, picks, quality = found.motion, found.ctf, found.picks, found.quality
    is_trusted = ctf is not None and ctf.trustworthy
    transmission = None if quality is None else quality.transmission
    return Measures(
        is_movie=is_movie,
        motion_found=None if motion is None else motion.is_found,
        total_motion_angstrom=_finite(motion.total_motion_angstrom) if motion is not None and motion.is_found else None,
        motion_error_angstrom=None if motion is None else _finite(motion.error_angstrom),
        ctf_trustworthy=None if ctf is None else ctf.trustworthy,
        ctf_doubt="" if ctf is None or is_trusted else ctf.reason,
        defocus_angstrom=_finite((ctf.defocus_u_angstrom + ctf.defocus_v_angstrom) / 2) if ctf and is_trusted else None,
        intended_defocus_angstrom=_intended(metadata),
        astigmatism_angstrom=_finite(ctf.defocus_u_angstrom - ctf.defocus_v_angstrom) if ctf and is_trusted else None,
        fit_resolution_angstrom=_finite(ctf.fit_resolution_angstrom) if ctf and is_trusted else None,
        transmission=transmission,
        ice_thickness=ice_thickness(transmission, past_transmissions),
        unevenness=None if quality is None else quality.unevenness,
        ice_ring_density=(_finite(ctf.ice_ring_density) or None) if ctf is not None else None,
        picks=None if picks is None else len(picks.picks),
        contamination_fraction=None if picks is None else picks.contamination_fraction,
        gain_share=None if motion is None else motion.gain_share,
        pattern_share=pattern_share,
    )


def ice_thickness(transmission: float | None, others: Sequence[float]) -> float | None:
    """t/λ = ln(I₀/I), with the brightest exposure of the session for I₀ (see `Measures.ice_thickness`).

    None where there are fewer than ten others to tell how bright thin ice is.
    """
    if transmission is None or transmission <= 0:
        return None
    lit = sorted(value for value in others if value > 0)
    if len(lit) < FEWEST_FOR_BRIGHTEST:
        return None
    usual = lit[len(lit) // 2]
    brightest = max(value for value in lit if value <= _MOST_OF_USUAL * usual)
    return max(0.0, math.log(brightest / transmission))


def judge(measures: Measures, thresholds: Thresholds) -> Verdict:
    """Good, doubtful or bad, with the reasons in words, the heaviest first."""
    reasons = sorted(_reasons(measures, thresholds), key=lambda reason: _WEIGHT[reason.grade])
    grade = reasons[0].grade if reasons else Grade.GOOD
    return Verdict(grade, tuple(reasons), measures)


def _reasons(measures: Measures, thresholds: Thresholds) -> Iterator[Reason]:
    unfound = measures.is_movie and measures.motion_found is not True
    untrusted = measures.ctf_trustworthy is not True
    lost = Grade.BAD if unfound and untrusted else Grade.DOUBTFUL
    if unfound:
        yield Reason(Quantity.ALIGNMENT, lost, _unfound(measures))
    if untrusted:
        yield Reason(Quantity.CTF, lost, _untrusted(measures))
    for limit in _LIMITS:
        yield from _beyond(limit, getattr(measures, limit.measure), getattr(thresholds, limit.measure))
    yield from _few_picks(measures.picks, thresholds.fewest_picks)


def _beyond(limit: _Limit, value: float | None, pair: tuple[float, float]) -> Iterator[Reason]:
    if value is None or value <= pair[0]:
        return
    grade, most = (Grade.BAD, pair[1]) if value > pair[1] else (Grade.DOUBTFUL, pair[0])
    yield Reason(limit.quantity, grade, limit.words.format(value, f" ({grade} beyond {limit.shown.format(most)})"))


def _few_picks(picks: int | None, pair: tuple[int, int]) -> Iterator[Reason]:
    if picks is None or picks >= pair[0]:
        return
    grade, limit = (Grade.BAD, pair[1]) if picks < pair[1] else (Grade.DOUBTFUL, pair[0])
    count = {0: "No particle was", 1: "One particle was"}.get(picks, f"{picks} particles were")
    yield Reason(Quantity.PICKS, grade, f"{count} found ({grade} below {limit}).")


def _unfound(measures: Measures) -> str:
    if measures.motion_found is None:
        return "It was not aligned."
    return "Its frames do not tell how they moved: they were added up as they lie."


def _untrusted(measures: Measures) -> str:
    if measures.ctf_trustworthy is None:
        return "No CTF was fitted."
    why = measures.ctf_doubt.strip().rstrip(".")
    return f"The CTF fit is not to be trusted{f': {why}' if why else ''}."


def _intended(metadata: ExposureMetadata) -> float | None:
    """What the microscope was set to; it counts underfocus as negative."""
    applied = metadata.applied_defocus_micrometer
    return None if applied is None else -applied * _ANGSTROM_PER_MICROMETER


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
