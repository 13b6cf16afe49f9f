"""What a session will hold, decided before anything is written: a pure function of the plan and its seed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from coldchain.errors import UsageError
from coldchain.model.session import Layout
from coldchain.simulate.truth import MovieParameters

CONTAINERS = ("tiff", "mrc", "eer")
_MOVIE_SUFFIX = {
    Layout.EPU: {"tiff": "_fractions.tiff", "mrc": "_Fractions.mrc", "eer": "_EER.eer"},
    Layout.SERIALEM: {"tiff": ".tif", "mrc": ".mrc", "eer": ".eer"},
    Layout.PLAIN: {"tiff": ".tiff", "mrc": ".mrc", "eer": ".eer"},
}
_LEAST_SECONDS_BETWEEN_TIME_STAMPS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPlan:
    """What a session holds and how fast it comes.

    `movie` is what the exposures have in common; each has its own particles, ice, drift and counts, and a defocus drawn
    from `defocus_range_angstrom` (of V; U − V is the movie's) with an azimuth of its own. `seconds_to_write` is how
    long a movie grows under its final name. `eer_frames_per_fraction` raw frames of single electrons make one of the
    movie's frames where the container is "eer". `seed` also decides the camera. `started_at` is what the metadata say;
    nothing else reads a clock, so that the same plan with the same start gives the same bytes.
    """

    layout: Layout = Layout.EPU
    exposures: int = 6
    seconds_between: float = 0.0
    seconds_to_write: float = 0.0
    container: str = "tiff"
    grid_squares: int = 2
    exposures_per_hole: int = 3
    defocus_range_angstrom: tuple[float, float] = (8000.0, 24000.0)
    eer_frames_per_fraction: int = 20
    movie: MovieParameters = field(default_factory=MovieParameters)
    seed: int = 0
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        if self.container not in CONTAINERS:
            raise UsageError(f"the container {self.container!r}", expected=" or ".join(CONTAINERS))
        if self.layout not in _MOVIE_SUFFIX:
            known = " or ".join(layout.value for layout in _MOVIE_SUFFIX)
            raise UsageError(f"no session is simulated in the layout {self.layout}", expected=known)
        for name in ("exposures", "grid_squares", "exposures_per_hole", "eer_frames_per_fraction"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}", expected="1 or more")
        if self.seconds_between < 0 or self.seconds_to_write < 0:
            raise UsageError("a negative time", expected="0 seconds or more")
        if self.defocus_range_angstrom[0] > self.defocus_range_angstrom[1]:
            raise UsageError(f"a defocus range of {self.defocus_range_angstrom}", expected="its lower end first")
        if self.started_at.utcoffset() is None:
            raise UsageError("a start without a time zone", expected="an aware time", remedy="Give it in UTC.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedExposure:
    """One exposure to come. `name` is its files' common path relative to the session's root, without suffixes.

    `image_shift` counts the places of one hole, from 0; `metadata_first` says that the XML or mdoc comes before the
    movie, as some set-ups have it.
    """

    index: int
    name: str
    movie_path: str
    acquired_at: datetime
    grid_square: int | None
    foil_hole: int | None
    image_shift: int
    metadata_first: bool
    movie: MovieParameters


def plan_exposures(plan: SessionPlan) -> tuple[PlannedExposure, ...]:
    """The exposures of a session, in the order in which they come."""
    return tuple(_plan_exposure(plan, index) for index in range(plan.exposures))


def grid_square_number(plan: SessionPlan, index: int) -> int:
    """EPU's number of the session's `index`-th grid square."""
    return 8_000_000 + 1000 * (plan.seed % 1000) + 40 + 7 * index


def camera_parameters(plan: SessionPlan) -> MovieParameters:
    """The common parameters, with the camera that all of the session's movies share."""
    return replace(plan.movie, camera_seed=plan.seed)


def _plan_exposure(plan: SessionPlan, index: int) -> PlannedExposure:
    rng = np.random.default_rng(np.random.SeedSequence([plan.seed, index]))
    astigmatism = plan.movie.defocus_u_angstrom - plan.movie.defocus_v_angstrom
    defocus_v = round(float(rng.uniform(*plan.defocus_range_angstrom)), 1)
    movie = replace(
        camera_parameters(plan),
        seed=int(rng.integers(2**31)),
        defocus_u_angstrom=defocus_v + astigmatism,
        defocus_v_angstrom=defocus_v,
        defocus_angle_degrees=round(float(rng.uniform(0, 180)), 2),
    )
    step = max(plan.seconds_between, _LEAST_SECONDS_BETWEEN_TIME_STAMPS)
    acquired_at = plan.started_at + timedelta(seconds=index * step)
    hole, image_shift = divmod(index, plan.exposures_per_hole)
    square = hole * plan.grid_squares // -(-plan.exposures // plan.exposures_per_hole)
    is_epu = plan.layout is Layout.EPU
    grid_square = grid_square_number(plan, square) if is_epu else None
    foil_hole = 9_000_000 + 1000 * (plan.seed % 1000) + 3 * hole if is_epu else None
    name = _name(plan, index, acquired_at, grid_square, foil_hole, image_shift)
    return PlannedExposure(
        index=index,
        name=name,
        movie_path=name + _MOVIE_SUFFIX[plan.layout][plan.container],
        acquired_at=acquired_at,
        grid_square=grid_square,
        foil_hole=foil_hole,
        image_shift=image_shift,
        metadata_first=bool(rng.integers(2)),
        movie=movie,
    )


def _name(
    plan: SessionPlan,
    index: int,
    acquired_at: datetime,
    grid_square: int | None,
    foil_hole: int | None,
    image_shift: int,
) -> str:
    if plan.layout is Layout.EPU:
        template = 9_500_000 + 7 * image_shift
        folder = f"Images-Disc1/GridSquare_{grid_square}/Data"
        return f"{folder}/FoilHole_{foil_hole}_Data_{template}_{index + 1}_{acquired_at:%Y%m%d_%H%M%S}"
    if plan.layout is Layout.SERIALEM:
        return f"{acquired_at:%Y%m%d}_{index + 1:05d}"
    return f"movie_{index + 1:05d}"
