"""What of a session is watched for a change, and what is said when it changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coldchain.model.quality import Judged, Measures, Quantity


@dataclass(frozen=True, slots=True)
class Watch:
    """A quantity that is watched.

    name : what a sentence about it begins with.
    value : of an exposure, in the scale in which it varies; None where it has none.
    least : the smallest standard deviation that is believed: less is of no consequence.
    sides : +1 where a rise is a fault, −1 where a fall is.
    words : of a usual value, a value since, the exposures since.
    is_share : whether the values are 0 and 1, failures being 1.
    """

    quantity: Quantity
    name: str
    value: Callable[[Measures], float | None]
    least: float
    sides: tuple[int, ...]
    words: Callable[[float, float, int], str]
    is_share: bool = False


def watches(judged: Sequence[Judged]) -> list[Watch]:
    """What is watched in a session."""
    known = sum(one.verdict.measures.intended_defocus_angstrom is not None for one in judged)
    # Intended defocus goes through a list; only what is found beyond it tells of the focus.
    focus = _FOCUS if 2 * known >= len(judged) else _FOCUS_UNINTENDED
    return [focus, *_WATCHES]


def _defocus_error(measures: Measures) -> float | None:
    if measures.defocus_angstrom is None or measures.intended_defocus_angstrom is None:
        return None
    return measures.defocus_angstrom - measures.intended_defocus_angstrom


def _log(value: float | None) -> float | None:
    return None if value is None or value <= 0 else math.log(value)


def _untrusted(measures: Measures) -> float | None:
    return None if measures.ctf_trustworthy is None else float(not measures.ctf_trustworthy)


def _micrometer(value_angstrom: float) -> str:
    return f"{value_angstrom * 1e-4:+.2f} µm".replace("-", "−")


def _say_focus(usual: float, level: float, count: int) -> str:
    return (
        f"The focus has changed: over {count} exposures the defocus found differs from the intended by "
        f"{_micrometer(level)}, before by {_micrometer(usual)}. See to the autofocus and the eucentric height."
    )


def _say_focus_unintended(usual: float, level: float, count: int) -> str:
    return (
        f"The defocus has changed: {level * 1e-4:.2f} µm over {count} exposures, {usual * 1e-4:.2f} µm before. The "
        "metadata do not say what was intended: where nobody changed it, see to the autofocus."
    )


def _say_ctf(usual: float, level: float, count: int) -> str:
    return (
        f"The CTF cannot be fitted any more: {level:.0%} of {count} exposures have no fit to be trusted, before "
        f"{usual:.0%}. See whether there is a beam, a specimen and a focus."
    )


def _say_resolution(usual: float, level: float, count: int) -> str:
    return (
        f"Thon rings have become worse: to {math.exp(level):.1f} Å over {count} exposures, to {math.exp(usual):.1f} Å "
        "before. See to ice, drift, focus and coma."
    )


def _say_astigmatism(usual: float, level: float, count: int) -> str:
    return (
        f"The astigmatism has grown: {level:,.0f} Å over {count} exposures, {usual:,.0f} Å before. See to the "
        "stigmator."
    )


def _say_motion(usual: float, level: float, count: int) -> str:
    return (
        f"The specimen moves more: {math.exp(level):.0f} Å over {count} exposures, {math.exp(usual):.0f} Å before. See "
        "to the stage, its settling time, and the grid."
    )


def _say_gain(usual: float, level: float, count: int) -> str:
    return (
        f"The gain reference fits less: {level:.0%} of its pattern is in the movies of {count} exposures, before "
        f"{usual:.0%}. It may have gone stale: take a new one."
    )


def _say_pattern(usual: float, level: float, count: int) -> str:
    return (
        f"The camera has a pattern that stands still: {max(level, 0):.1%} of the variance of single pixels is the same "
        f"in {count} exposures, before {max(usual, 0):.1%}. See to the camera, and take a new gain reference."
    )


_FOCUS = Watch(Quantity.FOCUS, "The focus", _defocus_error, 200.0, (1, -1), _say_focus)
_FOCUS_UNINTENDED = Watch(
    Quantity.FOCUS, "The focus", lambda m: m.defocus_angstrom, 200.0, (1, -1), _say_focus_unintended
)
_WATCHES = (
    Watch(Quantity.CTF, "How often the CTF can be fitted", _untrusted, 0.0, (1,), _say_ctf, is_share=True),
    Watch(
        Quantity.RESOLUTION,
        "The resolution of Thon rings",
        lambda m: _log(m.fit_resolution_angstrom),
        0.04,
        (1,),
        _say_resolution,
    ),
    Watch(Quantity.ASTIGMATISM, "The astigmatism", lambda m: m.astigmatism_angstrom, 75.0, (1,), _say_astigmatism),
    Watch(Quantity.MOTION, "The motion", lambda m: _log(m.total_motion_angstrom), 0.15, (1,), _say_motion),
    Watch(Quantity.GAIN, "How well the gain reference fits", lambda m: m.gain_share, 0.02, (-1,), _say_gain),
    Watch(Quantity.PATTERN, "The camera's fixed pattern", lambda m: m.pattern_share, 0.001, (1,), _say_pattern),
)
