"""What SerialEM writes beside its movies: a frame-set mdoc and a list of the camera's defects."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSet:
    """What a movie's mdoc says, in SerialEM's units. `target_defocus_micrometer` is negative in underfocus."""

    movie_name: str
    acquired_at: datetime
    pixel_size_angstrom: float
    voltage_kilovolt: float
    spherical_aberration_millimeter: float
    magnification: int
    exposure_time_seconds: float
    dose_e_per_square_angstrom: float
    frames: int
    target_defocus_micrometer: float
    stage_x_micrometer: float
    stage_y_micrometer: float
    gain_name: str | None = None
    defects_name: str | None = None


def frame_set_mdoc(frame_set: FrameSet) -> str:
    """The text of `<movie>.mdoc`."""
    when = _serialem_time(frame_set.acquired_at)
    lines = [
        f"T = SerialEM: Simulated microscope                           {when}",
        f"Voltage = {frame_set.voltage_kilovolt:g}",
        "",
        "[FrameSet = 0]",
    ]
    if frame_set.gain_name is not None:
        lines.append(f"GainReference = {frame_set.gain_name}")
    if frame_set.defects_name is not None:
        lines.append(f"DefectFile = {frame_set.defects_name}")
    lines += [
        "TiltAngle = 0",
        f"StagePosition = {frame_set.stage_x_micrometer:.4f} {frame_set.stage_y_micrometer:.4f}",
        "StageZ = 0",
        f"Magnification = {frame_set.magnification}",
        f"ExposureDose = {frame_set.dose_e_per_square_angstrom!r}",
        f"PixelSpacing = {frame_set.pixel_size_angstrom!r}",
        f"Defocus = {frame_set.target_defocus_micrometer!r}",
        "ImageShift = 0 0",
        "RotationAngle = 0",
        f"ExposureTime = {frame_set.exposure_time_seconds!r}",
        "Binning = 1",
        "CameraIndex = 0",
        "DividedBy2 = 0",
        "CountsPerElectron = 1",
        f"TargetDefocus = {frame_set.target_defocus_micrometer!r}",
        f"SubFramePath = X:\\simulated\\frames\\{frame_set.movie_name}",
        f"NumSubFrames = {frame_set.frames}",
        f"FrameDosesAndNumber = {frame_set.dose_e_per_square_angstrom / frame_set.frames!r} {frame_set.frames}",
        f"DateTime = {when}",
        f"Cs = {frame_set.spherical_aberration_millimeter!r}",
        "",
    ]
    return "\n".join(lines)


def defect_list(defects: NDArray[np.bool_]) -> str:
    """SerialEM's defect list of a map (rows, columns): whole columns, then single pixels as "x y" pairs.

    SerialEM counts rows from the picture's top; the map's row 0 is its bottom.
    """
    height, width = defects.shape
    whole = defects.all(axis=0)
    rows, columns = np.nonzero(defects & ~whole)
    lines = [f"CameraSizeX {width}", f"CameraSizeY {height}", "RotationFlip 0"]
    if whole.any():
        lines.append("BadColumns " + " ".join(str(column) for column in np.flatnonzero(whole)))
    pairs = [f"{column} {height - 1 - row}" for row, column in zip(rows, columns, strict=True)]
    lines += ["BadPixels " + " ".join(pairs[start : start + 8]) for start in range(0, len(pairs), 8)]
    return "\n".join(lines) + "\n"


def _serialem_time(time: datetime) -> str:
    # Not strftime("%b"): the file's months are English whatever the locale.
    return f"{time.day:02d}-{_MONTHS[time.month - 1]}-{time:%y  %H:%M:%S}"
