"""What was planted: the parameters of movies and sessions, and the answers, as values and as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from coldchain.errors import FormatError, UsageError
from coldchain.simulate.optics import Lens


@dataclass(frozen=True, slots=True, kw_only=True)
class MovieParameters:
    """How one movie is made.

    `drift_angstrom` is the distance from the first frame's place to the last's; `local_motion_angstrom` what the
    frame's corners move beyond that. `particles` None: as many as cover a third of the area. `bfactor_square_angstrom`
    is the lens's and the source's envelope. `contrast` is the part of the weak-phase contrast that is left, the ice's
    and the particles' alike: 1 is all of it, and less makes a movie that is harder to align. `seed` decides particles,
    ice, track and counts; `camera_seed` the camera's gain and defects, which movies of one session share. `gain`: the
    counts are raw and want the multiplicative gain; `defects`: dead columns and hot pixels.
    """

    frames: int = 24
    height: int = 1024
    width: int = 1024
    pixel_size_angstrom: float = 1.06
    voltage_kilovolt: float = 300.0
    spherical_aberration_millimeter: float = 2.7
    amplitude_contrast: float = 0.1
    phase_shift_degrees: float = 0.0
    dose_per_frame_e_per_square_angstrom: float = 1.6
    defocus_u_angstrom: float = 15000.0
    defocus_v_angstrom: float = 14700.0
    defocus_angle_degrees: float = 30.0
    drift_angstrom: float = 12.0
    local_motion_angstrom: float = 0.0
    particles: int | None = None
    bfactor_square_angstrom: float = 40.0
    ice_thickness_angstrom: float = 300.0
    contrast: float = 1.0
    gain: bool = False
    defects: bool = False
    seed: int = 0
    camera_seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"{field.name} is {value}", expected="a finite number")
        for name in ("frames", "pixel_size_angstrom", "voltage_kilovolt", "dose_per_frame_e_per_square_angstrom"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} is {getattr(self, name)}", expected="more than 0")
        if min(self.height, self.width) < 64:
            raise UsageError(f"a movie of {self.width} × {self.height} pixels", expected="64 × 64 or more")
        if self.local_motion_angstrom < 0 or self.drift_angstrom < 0 or self.ice_thickness_angstrom < 0:
            raise UsageError("a negative motion or ice thickness", expected="0 or more")
        if not 0 <= self.contrast <= 1:
            raise UsageError(f"a contrast of {self.contrast:g}", expected="a value from 0 to 1")
        _ = self.lens  # states what is wrong with the optics now, not in the middle of a session

    @property
    def lens(self) -> Lens:
        """The objective lens that these parameters describe."""
        return Lens(**{field.name: getattr(self, field.name) for field in fields(Lens)})

    @property
    def dose_e_per_square_angstrom(self) -> float:
        """The whole exposure."""
        return self.frames * self.dose_per_frame_e_per_square_angstrom


@dataclass(frozen=True, slots=True, kw_only=True)
class MovieTruth:
    """What is in one movie.

    Frame *f* shows the specimen displaced by (shift_x[f], shift_y[f]) from where frame 0 shows it, in Å; x grows with
    the column, y with the row (an MRC's first row is the picture's bottom). Local motion, where it was asked for, comes
    on top: see `movie.local_displacement_angstrom`. Particle centres are in pixels of frame 0; 0 is the first pixel's
    centre.
    """

    parameters: MovieParameters
    specimen: str
    particle_diameter_angstrom: float
    shift_x_angstrom: tuple[float, ...]
    shift_y_angstrom: tuple[float, ...]
    particle_x_pixel: tuple[float, ...]
    particle_y_pixel: tuple[float, ...]

    def to_json(self) -> str:
        """These values as a JSON object; numbers come back exactly."""
        return _dump(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The values that `to_json` wrote.

        Raises
        ------
        FormatError : the text is no JSON, or lacks a value.
        """
        return cls._from_mapping(_load(text))

    @classmethod
    def _from_mapping(cls, values: dict[str, Any]) -> Self:
        try:
            arrays = {name: tuple(map(float, values[name])) for name in _MOVIE_TRACKS}
            return cls(
                parameters=MovieParameters(**values["parameters"]),
                specimen=str(values["specimen"]),
                particle_diameter_angstrom=float(values["particle_diameter_angstrom"]),
                **arrays,
            )
        except (KeyError, TypeError, ValueError, OverflowError, UsageError) as error:
            raise FormatError(f"no movie's truth: {error!r}", expected="JSON as the simulator writes it") from error


_MOVIE_TRACKS = ("shift_x_angstrom", "shift_y_angstrom", "particle_x_pixel", "particle_y_pixel")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposureTruth:
    """One exposure of a session: its movie's path relative to the session's root, and what is in it.

    `name` is that path without the movie's own suffix, which the exposure's metadata and preview share.
    """

    name: str
    movie_path: str
    grid_square: str | None
    foil_hole: str | None
    movie: MovieTruth


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTruth:
    """What is in a session. `gain_path` and `defects_path` are relative to the session's root."""

    session: str
    layout: str
    gain_path: str | None
    defects_path: str | None
    exposures: tuple[ExposureTruth, ...]

    def to_json(self) -> str:
        """These values as a JSON object; numbers come back exactly."""
        return _dump(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The values that `to_json` wrote.

        Raises
        ------
        FormatError : the text is no JSON, or lacks a value.
        """
        values = _load(text)
        try:
            exposures = tuple(
                ExposureTruth(**{**exposure, "movie": MovieTruth._from_mapping(exposure["movie"])})
                for exposure in values.pop("exposures")
            )
            return cls(exposures=exposures, **values)
        except (KeyError, TypeError) as error:
            raise FormatError(f"no session's truth: {error!r}", expected="JSON as the simulator writes it") from error


def write_truth(path: Path, truth: MovieTruth | SessionTruth) -> None:
    """Write a truth as JSON; whoever reads meanwhile sees the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(truth.to_json() + "\n", encoding="utf-8")
    part.replace(path)


def _dump(value: MovieTruth | SessionTruth) -> str:
    return json.dumps(asdict(value), indent=1, ensure_ascii=True, allow_nan=False)


def _load(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise FormatError(f"no JSON: {error}", expected="JSON as the simulator writes it") from error
    if not isinstance(values, dict):
        raise FormatError(f"JSON that holds a {type(values).__name__}", expected="an object")
    return values
