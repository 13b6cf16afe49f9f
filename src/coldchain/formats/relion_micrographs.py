"""RELION's lists of micrographs: `corrected_micrographs.star`, from which extraction, CTF fits and polishing find what
they need, and `micrographs_ctf.star`, which has each one's CTF.

Polishing looks its movie up by `rlnMicrographName`, without a leading `Type/job000/`, and takes the motion STAR from
`rlnMicrographMetadata`. Every name is as RELION must find it from its project's folder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coldchain.errors import FormatError
from coldchain.formats.star import Record, Table, Value, write_star

_GROUP_NAME = re.compile(r"[A-Za-z0-9-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpticsGroup:
    """Micrographs taken alike. `movie_pixel_size_angstrom` is the movie's as stored, None where nobody knows;
    `pixel_size_angstrom` is the sum's.

    RELION allows ASCII letters, digits and hyphens in `name`.
    """

    name: str
    movie_pixel_size_angstrom: float | None
    pixel_size_angstrom: float
    voltage_kilovolt: float
    spherical_aberration_millimeter: float
    amplitude_contrast: float
    mtf_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectedMicrograph:
    """One sum and the files beside it. `optics_group` counts from 1.

    The motions are the whole-frame path's lengths as `relion_motion.accumulated_motion_pixel` gives them.
    """

    name: str
    metadata_name: str
    total_motion_pixel: float
    early_motion_pixel: float
    late_motion_pixel: float
    optics_group: int = 1
    unweighted_name: str | None = None
    power_spectrum_name: str | None = None
    even_name: str | None = None
    odd_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedMicrograph:
    """One micrograph and its CTF: defocus in Å, U ≥ V, positive is underfocus; its angle in degrees from x.

    phase_shift_degrees : None in all of them where there is no phase plate.
    """

    name: str
    ctf_image_name: str
    defocus_u_angstrom: float
    defocus_v_angstrom: float
    astigmatism_angstrom: float
    defocus_angle_degrees: float
    figure_of_merit: float
    max_resolution_angstrom: float
    ice_ring_density: float
    phase_shift_degrees: float | None = None
    optics_group: int = 1


# Labels in RELION's order. What is None in every micrograph has no column.
_FITTED = {
    "rlnMicrographName": "name",
    "rlnOpticsGroup": "optics_group",
    "rlnCtfImage": "ctf_image_name",
    "rlnDefocusU": "defocus_u_angstrom",
    "rlnDefocusV": "defocus_v_angstrom",
    "rlnCtfAstigmatism": "astigmatism_angstrom",
    "rlnDefocusAngle": "defocus_angle_degrees",
    "rlnPhaseShift": "phase_shift_degrees",
    "rlnCtfFigureOfMerit": "figure_of_merit",
    "rlnCtfMaxResolution": "max_resolution_angstrom",
    "rlnCtfIceRingDensity": "ice_ring_density",
}
_COLUMNS = {
    "rlnMicrographNameNoDW": "unweighted_name",
    "rlnCtfPowerSpectrum": "power_spectrum_name",
    "rlnMicrographNameEven": "even_name",
    "rlnMicrographNameOdd": "odd_name",
    "rlnMicrographName": "name",
    "rlnMicrographMetadata": "metadata_name",
    "rlnOpticsGroup": "optics_group",
    "rlnAccumMotionTotal": "total_motion_pixel",
    "rlnAccumMotionEarly": "early_motion_pixel",
    "rlnAccumMotionLate": "late_motion_pixel",
}
_OPTICS = {
    "rlnOpticsGroupName": "name",
    "rlnMtfFileName": "mtf_name",
    "rlnMicrographOriginalPixelSize": "movie_pixel_size_angstrom",
    "rlnVoltage": "voltage_kilovolt",
    "rlnSphericalAberration": "spherical_aberration_millimeter",
    "rlnAmplitudeContrast": "amplitude_contrast",
    "rlnMicrographPixelSize": "pixel_size_angstrom",
}


def write_corrected_micrographs(
    path: Path, optics: Sequence[OpticsGroup], micrographs: Sequence[CorrectedMicrograph]
) -> None:
    """Write the list in one go: nobody sees half a file.

    Raises FormatError where there is no optics group or no micrograph, where RELION would not take a group's name,
    where a micrograph's group is not there, where some micrographs have a file that others lack or where a name cannot
    stand in a STAR file, StorageError where the file cannot be written.
    """
    _write(path, optics, micrographs, _COLUMNS)


def write_fitted_micrographs(
    path: Path, optics: Sequence[OpticsGroup], micrographs: Sequence[FittedMicrograph]
) -> None:
    """Write the list with each one's CTF. Raises as `write_corrected_micrographs`."""
    _write(path, optics, micrographs, _FITTED)


def _write(
    path: Path,
    optics: Sequence[OpticsGroup],
    micrographs: Sequence[CorrectedMicrograph] | Sequence[FittedMicrograph],
    labels: dict[str, str],
) -> None:
    if not optics or not micrographs:
        raise FormatError("nothing to list", expected="an optics group and a micrograph at least", path=path)
    for group in optics:
        if not _GROUP_NAME.fullmatch(group.name):
            raise FormatError(
                f"the optics group's name {group.name!r}",
                expected="ASCII letters, digits and hyphens",
                remedy="Choose another name",
                path=path,
            )
    strays = {m.optics_group for m in micrographs} - set(range(1, len(optics) + 1))
    if strays:
        raise FormatError(f"optics group {min(strays)}", expected=f"1 to {len(optics)}", path=path)
    groups = _columns(optics, _OPTICS, path)
    groups = {"rlnOpticsGroupName": groups.pop("rlnOpticsGroupName"), "rlnOpticsGroup": _numbers(optics), **groups}
    blocks: list[Record | Table] = [
        Table("optics", groups),
        Table("micrographs", _columns(micrographs, labels, path)),
    ]
    write_star(path, blocks)


def _numbers(optics: Sequence[OpticsGroup]) -> list[Value]:
    return list(range(1, len(optics) + 1))


def _columns(
    rows: Sequence[OpticsGroup] | Sequence[CorrectedMicrograph] | Sequence[FittedMicrograph],
    labels: dict[str, str],
    path: Path,
) -> dict[str, list[Value]]:
    columns: dict[str, list[Value]] = {}
    for label, name in labels.items():
        values = [getattr(row, name) for row in rows]
        missing = sum(value is None for value in values)
        if missing == len(values):
            continue
        if missing:
            raise FormatError(f"{missing} of {len(values)} rows lack {label}", expected="all or none", path=path)
        columns[label] = values
    return columns
