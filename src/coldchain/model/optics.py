"""How an exposure was taken: what the microscope's metadata says, and what a session overrides."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Optics:
    """The optical values of an exposure; None where nobody has said.

    `pixel_size_angstrom` is that of the movie's own pixels. `dose_e_per_square_angstrom` is the exposure's whole dose
    on the specimen; a frame's is that over `frame_count`, even where the file has fewer frames.
    `spherical_aberration_millimeter` may be 0.
    """

    pixel_size_angstrom: float | None = None
    voltage_kilovolt: float | None = None
    spherical_aberration_millimeter: float | None = None
    amplitude_contrast: float | None = None
    dose_e_per_square_angstrom: float | None = None
    frame_count: int | None = None
    gain: str | None = None

    def over(self, other: Optics) -> Optics:
        """These values, and `other`'s where these are silent."""
        mine = {name: getattr(self, name) for name in _OPTICS}
        return Optics(**{name: getattr(other, name) if value is None else value for name, value in mine.items()})


@dataclass(frozen=True, slots=True)
class ExposureMetadata:
    """What the microscope wrote about one exposure (EPU XML, SerialEM mdoc, extended MRC header).

    Stage positions are in micrometres, tilts in degrees. `applied_defocus_micrometer` is as the microscope counts it:
    negative is underfocus. `counts_per_electron` is that of the picture that SerialEM shows. `gain_name` and
    `defects_name` are file names as the metadata gives them. `source` names the kind of metadata ("epu-xml", "mdoc",
    "fei1", "fei2", "mrc-header").
    """

    optics: Optics = Optics()
    acquired_at: datetime | None = None
    applied_defocus_micrometer: float | None = None
    exposure_time_seconds: float | None = None
    magnification: float | None = None
    detector: str | None = None
    microscope: str | None = None
    stage_x_micrometer: float | None = None
    stage_y_micrometer: float | None = None
    stage_z_micrometer: float | None = None
    tilt_degrees: float | None = None
    beam_shift_x: float | None = None
    beam_shift_y: float | None = None
    energy_slit_electronvolt: float | None = None
    counts_per_electron: float | None = None
    gain_name: str | None = None
    defects_name: str | None = None
    movie_name: str | None = None
    source: str = ""

    def over(self, other: ExposureMetadata) -> ExposureMetadata:
        """These values, and `other`'s where these are silent."""
        merged: dict[str, object] = {"optics": self.optics.over(other.optics), "source": self.source or other.source}
        for name in _METADATA:
            if name not in merged:
                mine = getattr(self, name)
                merged[name] = getattr(other, name) if mine is None else mine
        return ExposureMetadata(**merged)  # type: ignore[arg-type]  # same fields, same types


# Asking a class for its fields takes longer than laying one value over another.
_OPTICS = tuple(field.name for field in fields(Optics))
_METADATA = tuple(field.name for field in fields(ExposureMetadata))
