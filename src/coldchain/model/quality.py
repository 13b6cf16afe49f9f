"""What is thought of a micrograph, and what has changed in a session."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class Grade(StrEnum):
    """Whether a micrograph is of use: its numbers are good; they leave a doubt; they are bad."""

    GOOD = "good"
    DOUBTFUL = "doubtful"
    BAD = "bad"


class Quantity(StrEnum):
    """What a verdict or an alert is about."""

    ALIGNMENT = "alignment"
    MOTION = "motion"
    CTF = "ctf"
    RESOLUTION = "fit resolution"
    ASTIGMATISM = "astigmatism"
    FOCUS = "focus"
    ICE = "ice thickness"
    UNEVENNESS = "unevenness"
    ICE_RING = "ice ring"
    CONTAMINATION = "contamination"
    PICKS = "picks"
    GAIN = "gain"
    PATTERN = "fixed pattern"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a micrograph is not good: what, how much it weighs, and the sentence that says it."""

    quantity: Quantity
    grade: Grade
    words: str


@dataclass(frozen=True, slots=True)
class Measures:
    """What a verdict rests on; None is what nobody knows: not measured, not found, or not to be trusted.

    is_movie : whether there was something to align.
    motion_found : False where the frames did not tell their motion; `total_motion_angstrom` is then None, never 0.
    motion_error_angstrom : what the alignment expects of itself.
    ctf_trustworthy, ctf_doubt : of the fit, and why not; where it is not, defocus, astigmatism and resolution are None.
    intended_defocus_angstrom : what the microscope was set to, positive is underfocus.
    transmission : of the electrons that were sent, which part arrived; in e⁻/Å² where nobody knows how many were sent.
    ice_thickness : the specimen's thickness over the electrons' mean free path, t/λ = ln(I₀/I), with the brightest
        exposure of the session's past for I₀: relative, so 0 is the thinnest that was seen, not nothing.
    unevenness : the standard deviation of t/λ over blocks of the micrograph.
    ice_ring_density : as in `CtfResult`; 1 is none. None where the spectrum does not reach so far.
    contamination_fraction : the part of the micrograph under carbon, ice and aggregates.
    gain_share : the part of the gain reference's pattern that the movie has; 1 is all.
    pattern_share : of the variance of single pixels, the part that other exposures of the session have too.
    """

    is_movie: bool = False
    motion_found: bool | None = None
    total_motion_angstrom: float | None = None
    motion_error_angstrom: float | None = None
    ctf_trustworthy: bool | None = None
    ctf_doubt: str = ""
    defocus_angstrom: float | None = None
    intended_defocus_angstrom: float | None = None
    astigmatism_angstrom: float | None = None
    fit_resolution_angstrom: float | None = None
    transmission: float | None = None
    ice_thickness: float | None = None
    unevenness: float | None = None
    ice_ring_density: float | None = None
    picks: int | None = None
    contamination_fraction: float | None = None
    gain_share: float | None = None
    pattern_share: float | None = None


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Beyond the first of each pair a micrograph is doubtful, beyond the second bad; of `fewest_picks`, below.

    `ice_thickness` is in electrons' mean free paths; one is some 300–400 nm of ice at 300 kV (395 nm for loss of
    energy: Rice et al., J. Struct. Biol. 2018, 204, 38, https://doi.org/10.1016/j.jsb.2018.06.007); 0.3 is about 100 nm
    more than the thinnest. `motion_error_angstrom` is what the alignment expects of itself.
    """

    total_motion_angstrom: tuple[float, float] = (60.0, 150.0)
    motion_error_angstrom: tuple[float, float] = (3.0, 10.0)
    fit_resolution_angstrom: tuple[float, float] = (7.0, 12.0)
    astigmatism_angstrom: tuple[float, float] = (1000.0, 3000.0)
    ice_thickness: tuple[float, float] = (0.3, 0.6)
    unevenness: tuple[float, float] = (0.1, 0.3)
    ice_ring_density: tuple[float, float] = (1.5, 3.0)
    contamination_fraction: tuple[float, float] = (0.2, 0.5)
    fewest_picks: tuple[int, int] = (10, 1)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is thought of a micrograph, why, and on what grounds. The heaviest reasons stand first."""

    grade: Grade
    reasons: tuple[Reason, ...]
    measures: Measures


@dataclass(frozen=True, slots=True)
class Judged:
    """An exposure and its newest verdict. `pattern` is the path of its camera pattern, relative to the results folder;
    "" where it has none."""

    exposure_id: UUID
    acquired_at: datetime | None
    verdict: Verdict
    pattern: str


@dataclass(frozen=True, slots=True)
class Change:
    """A quantity of a session has changed.

    since : the exposure from which on, as near as can be told; `seen` : that after which it was noticed.
    usual, spread : the median before, and the standard deviation there; level : the median since.
    """

    quantity: Quantity
    since: UUID
    seen: UUID
    usual: float
    spread: float
    level: float
    words: str


@dataclass(frozen=True, slots=True)
class Alert:
    """A change that was said once, when it was seen, and ends when it is over; `ending` says how it ended."""

    id: UUID
    session_id: UUID
    change: Change
    raised_at: datetime
    ended_at: datetime | None = None
    ended_by: UUID | None = None
    ending: str = ""
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """An alert is over after the exposure `by`. `settled`: the quantity has not come back; what it is now is usual."""

    alert_id: UUID
    by: UUID
    words: str
    settled: bool
