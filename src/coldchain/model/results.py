"""What the pipeline finds out about an exposure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias
from uuid import UUID

from coldchain.model.quality import Grade


class Step(StrEnum):
    """The pipeline's steps, in the order in which an exposure takes them."""

    ALIGN = "align"
    CTF = "ctf"
    PICK = "pick"
    PREVIEW = "preview"
    QUALITY = "quality"


class StepState(StrEnum):
    """Where a run of a step stands."""

    RUNNING = "running"  # journalled before it began
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # its process ended before it did


@dataclass(frozen=True, slots=True)
class StepRun:
    """One run of one step on one exposure. `key` is the digest of step, version, input digests and parameters: a step
    with the same key that is done is never run again. `outputs` maps roles ("micrograph", "power_spectrum") to paths
    relative to the results folder."""

    id: UUID
    exposure_id: UUID
    step: Step
    key: str
    parameters: dict[str, object]
    state: StepState
    outputs: dict[str, str]
    seconds: float | None
    detail: str
    started_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class MotionResult:
    """Frame *f* shows the specimen displaced by (shift_x[f], shift_y[f]) from where the first frame shows it, in Å;
    x grows with the column, y with the row of the stored array (an MRC's first row is the picture's bottom).

    `error_angstrom` is what the alignment expects of itself: infinite where the frames did not tell their motion, whose
    shifts are then 0 for want of better. `gain_verdict` is what the movie says of its gain reference, `gain_share` the
    part of the reference's pattern that is in the movie; None without a reference. All are None in older results.
    """

    shift_x_angstrom: tuple[float, ...]
    shift_y_angstrom: tuple[float, ...]
    total_motion_angstrom: float
    early_motion_angstrom: float
    late_motion_angstrom: float
    dose_weighted: bool
    error_angstrom: float | None = None
    gain_verdict: str | None = None
    gain_share: float | None = None

    @property
    def is_found(self) -> bool:
        """Whether the frames told their motion; older results do not say, and are believed."""
        return self.error_angstrom is None or math.isfinite(self.error_angstrom)


@dataclass(frozen=True, slots=True)
class CtfResult:
    """Defocus U ≥ V in Å, positive is underfocus; azimuth of U in degrees from x towards y, in [0, 180)
    (Rohou & Grigorieff, J. Struct. Biol. 2015, 192, 216, doi:10.1016/j.jsb.2015.08.008; RELION's STAR labels).

    `trustworthy` means that the defocus is right within `uncertainty_angstrom`; where it is False, `reason` says why.
    `ice_ring_density` is the spectrum's power at 0.25–0.28 Å⁻¹ over that beside it.
    """

    defocus_u_angstrom: float
    defocus_v_angstrom: float
    defocus_angle_degrees: float
    phase_shift_degrees: float
    score: float
    fit_resolution_angstrom: float
    ice_ring_density: float
    uncertainty_angstrom: float
    trustworthy: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Pick:
    """One particle: centre in pixels of the micrograph, x the column and y the row; 0 is a pixel's centre.

    Of kernels, catalog and page, row 0 is the picture's bottom: an MRC's first row, the last one of a TIFF or a PNG.
    Where picks stand beside a file, as in what `coldchain pick --json` prints, row 0 is the file's first.
    """

    x_pixel: float
    y_pixel: float
    figure_of_merit: float


@dataclass(frozen=True, slots=True)
class PickResult:
    """The particles of a micrograph, best first. `contamination_fraction` is the part of it where none was sought, as
    carbon, ice or aggregates lie there; None where nobody looked."""

    diameter_angstrom: float
    picks: tuple[Pick, ...]
    contamination_fraction: float | None = None


@dataclass(frozen=True, slots=True)
class QualityResult:
    """What a micrograph's brightness tells. See `Measures` for `transmission` and `unevenness`."""

    transmission: float | None
    unevenness: float | None


StepResult: TypeAlias = MotionResult | CtfResult | PickResult | QualityResult


@dataclass(frozen=True, slots=True)
class ExposureResults:
    """The newest results of an exposure; None where there is none yet."""

    motion: MotionResult | None = None
    ctf: CtfResult | None = None
    picks: PickResult | None = None
    quality: QualityResult | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One exposure's point in the session's plots. `total_motion_angstrom` is None where no motion was found."""

    exposure_id: UUID
    name: str
    found_at: datetime
    acquired_at: datetime | None
    defocus_angstrom: float | None
    fit_resolution_angstrom: float | None
    trustworthy: bool | None
    total_motion_angstrom: float | None
    picks: int | None
    astigmatism_angstrom: float | None = None
    ice_thickness: float | None = None
    grade: Grade | None = None
    reason: str = ""
