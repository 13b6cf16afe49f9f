"""One image's rows → how it was taken. Pure.

Units of Leginon's, from its source (`leginondata`, `calibrationclient`, `apDatabase`): lengths in metres (defocus,
stage, pixel size, Cs), angles in radians, voltage in volts, times in milliseconds, doses in electrons per m². Defocus
is negative under focus. A calibrated pixel size is that of the camera's unbinned pixel; an image's is that times its
binning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from coldchain.catalog.leginon.server import Row
from coldchain.catalog.leginon.values import moment, number, truth, whole, words
from coldchain.model import limits
from coldchain.model.leginon import CameraState
from coldchain.model.optics import ExposureMetadata, Optics

SOURCE = "leginon"
_ANGSTROM_PER_METER = 1e10
_MICROMETER_PER_METER = 1e6
_SQUARE_ANGSTROM_PER_SQUARE_METER = 1e20
_LARGEST_DEFOCUS_MICROMETER = 1000.0  # of a grid's overview; beyond that it is no length in metres
_LARGEST_CS_MILLIMETER = 20.0
_LARGEST_SIDE_PIXEL = 1 << 17
_LARGEST_BINNING = 64
_LONGEST_EXPOSURE_SECONDS = 3600.0
_FARTHEST_STAGE_MICROMETER = 1e5


@dataclass(slots=True)
class ImageRows:
    """The rows that an image refers to; empty where it refers to none, or to one that is not there.

    `calibrated_meter` is the unbinned pixel's size on the specimen. `complaints` are added to.
    """

    image: Row
    scope: Row = field(default_factory=dict)
    camera: Row = field(default_factory=dict)
    preset: Row = field(default_factory=dict)
    tem: Row = field(default_factory=dict)
    detector: Row = field(default_factory=dict)
    calibrated_meter: float | None = None
    complaints: list[str] = field(default_factory=list)

    def number(self, row: str, name: str, factor: float, bounds: tuple[float, float], unit: str) -> float | None:
        """A number of one of the rows in this house's unit; None, with a complaint, where it cannot be true."""
        raw = getattr(self, row).get(name)
        found = number(raw)
        if found is None:
            if raw is not None:
                self.complaints.append(f"{name} is no number")
            return None
        value = found * factor
        if not bounds[0] <= value <= bounds[1]:
            self.complaints.append(f"{name} is {value:g} {unit}, which cannot be")
            return None
        return _rounded(value)


def metadata_of(rows: ImageRows) -> ExposureMetadata:
    """How an image was taken; the pixel size is that of the image itself, the dose that of the whole exposure."""
    exposure_seconds = rows.number("camera", "exposure time", 1e-3, (0.0, _LONGEST_EXPOSURE_SECONDS), "s")
    return ExposureMetadata(
        optics=Optics(
            pixel_size_angstrom=_pixel_size(rows),
            voltage_kilovolt=rows.number("scope", "high tension", 1e-3, limits.VOLTAGE_KILOVOLT, "kV"),
            spherical_aberration_millimeter=rows.number("tem", "cs", 1e3, (0.0, _LARGEST_CS_MILLIMETER), "mm"),
            dose_e_per_square_angstrom=_dose(rows, exposure_seconds),
            frame_count=_frame_count(rows),
        ),
        acquired_at=moment(rows.image.get("DEF_timestamp")),
        applied_defocus_micrometer=_defocus(rows),
        exposure_time_seconds=exposure_seconds or None,
        magnification=rows.number("scope", "magnification", 1.0, (1.0, 1e8), "times"),
        detector=words(rows.detector.get("name")) or None,
        microscope=words(rows.tem.get("name")) or None,
        stage_x_micrometer=_stage(rows, "x"),
        stage_y_micrometer=_stage(rows, "y"),
        stage_z_micrometer=_stage(rows, "z"),
        tilt_degrees=rows.number("scope", "SUBD|stage position|a", math.degrees(1), (-180.0, 180.0), "°"),
        energy_slit_electronvolt=_slit(rows),
        source=SOURCE,
    )


def camera_of(rows: ImageRows) -> CameraState:
    """How the camera was read out; sides that cannot be are 0."""
    side = {axis: whole(rows.camera.get(f"SUBD|dimension|{axis}")) or 0 for axis in "xy"}
    if not all(0 < value <= _LARGEST_SIDE_PIXEL for value in side.values()):
        side = {"x": 0, "y": 0}
    return CameraState(
        width=side["x"],
        height=side["y"],
        frame_quarter_turns=(whole(rows.camera.get("frame rotate")) or 0) % 4,
        frame_flip=truth(rows.camera.get("frame flip")),
        is_eer=truth(rows.camera.get("eer frames")),
    )


def has_frames(rows: ImageRows) -> bool:
    """Whether the camera was to save the frames."""
    return truth(rows.camera.get("save frames"))


def frames_want_gain(rows: ImageRows) -> bool:
    """Whether the frames that were saved still are to be multiplied by the gain reference."""
    return has_frames(rows) and not truth(rows.camera.get("frame gain corrected"))


def _pixel_size(rows: ImageRows) -> float | None:
    if rows.calibrated_meter is None:
        return None
    binning = {axis: whole(rows.camera.get(f"SUBD|binning|{axis}")) for axis in "xy"}
    if any(value is not None and not 1 <= value <= _LARGEST_BINNING for value in binning.values()):
        rows.complaints.append(f"a binning of {binning['x']} × {binning['y']}, which cannot be")
        return None
    if binning["x"] != binning["y"] and None not in binning.values():
        rows.complaints.append(f"its binning is {binning['x']} × {binning['y']}: its pixels are not square")
        return None
    size = rows.calibrated_meter * _ANGSTROM_PER_METER * (binning["x"] or binning["y"] or 1)
    low, high = limits.PIXEL_SIZE_ANGSTROM
    if low <= size <= high:
        return _rounded(size)
    if not 0 < size < 1e6:  # an overview's pixels may well be a micrometre
        rows.complaints.append(f"the calibrated pixel size makes pixels of {size:g} Å, which cannot be")
    return None


def _defocus(rows: ImageRows) -> float | None:
    row = "scope" if rows.scope.get("defocus") is not None else "preset"
    most = _LARGEST_DEFOCUS_MICROMETER
    return rows.number(row, "defocus", _MICROMETER_PER_METER, (-most, most), "µm")


def _dose(rows: ImageRows, exposure_seconds: float | None) -> float | None:
    """The preset's dose was measured with the preset's exposure time; this exposure may have had another."""
    dose = number(rows.preset.get("dose"))
    if not dose:
        return None
    total = dose / _SQUARE_ANGSTROM_PER_SQUARE_METER
    measured = number(rows.preset.get("exposure time"))
    if measured and exposure_seconds and measured > 0:
        total *= exposure_seconds * 1e3 / measured
    low, high = limits.DOSE_E_PER_SQUARE_ANGSTROM
    if low <= total <= high:
        return _rounded(total)
    if not 0 < total < low:  # an overview's is that small
        rows.complaints.append(f"dose is {total:g} e⁻/Å², which cannot be")
    return None


def _frame_count(rows: ImageRows) -> int | None:
    """How many frames were saved; an EER says itself how many the camera took."""
    if not has_frames(rows) or truth(rows.camera.get("eer frames")):
        return None
    count = whole(rows.camera.get("nframes"))
    if count is None:
        return None
    if not limits.FRAME_COUNT[0] <= count <= limits.FRAME_COUNT[1]:
        rows.complaints.append(f"nframes is {count}, which cannot be")
        return None
    return count if count > 1 else None


def _stage(rows: ImageRows, axis: str) -> float | None:
    far = _FARTHEST_STAGE_MICROMETER
    return rows.number("scope", f"SUBD|stage position|{axis}", _MICROMETER_PER_METER, (-far, far), "µm")


def _slit(rows: ImageRows) -> float | None:
    """The width of the energy filter's slit, where one was in: of a filter behind the column, or in it."""
    if truth(rows.camera.get("energy filter")):
        return rows.number("camera", "energy filter width", 1.0, (0.0, 1000.0), "eV")
    if truth(rows.scope.get("tem energy filter")):
        return rows.number("scope", "tem energy filter width", 1.0, (0.0, 1000.0), "eV")
    return None


def _rounded(value: float) -> float:
    """Without what a change of units adds: 1.63e-10 m are 1.63 Å, and not 1.6300000000000001."""
    return float(f"{value:.12g}")
