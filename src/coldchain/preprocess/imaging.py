"""How a lone micrograph was taken: what the user says, its own header, and the STAR, mdoc or XML that lie beside it.

The pixel size is first sought in the micrograph's own header, for what lies beside it may speak of the movie, whose
pixel can be another. The other values are first sought in the STAR files that an alignment left: they are what its
user said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from coldchain.errors import ColdchainError, MetadataError
from coldchain.formats import star
from coldchain.formats.movie import MovieInfo
from coldchain.formats.relion_motion import read_motion
from coldchain.formats.star import Table, Value
from coldchain.model import limits
from coldchain.model.optics import ExposureMetadata, Optics
from coldchain.preprocess.exposure import contradiction, find_metadata, header_metadata, lacking
from coldchain.preprocess.micrographs import is_spectrum
from coldchain.preprocess.output_names import LIST_NAME
from coldchain.preprocess.wishes import Lens

SPHERICAL_ABERRATION_MILLIMETER = (0.0, 20.0)
_VARIANT = re.compile(r"_(?:noDW|PS|even|odd|EVN|ODD|DW|DWS)$")
_NAMES = ("rlnMicrographName", "rlnMicrographNameNoDW", "rlnCtfPowerSpectrum", "rlnMicrographNameEven")
# RELION's motion correction keeps the movies' folders below its own, in which the list lies.
_LIST_LEVELS = 3
_SOUGHT = "neither from its header nor from a STAR, mdoc or XML by it"


@dataclass(frozen=True, slots=True)
class Imaging:
    """What is known of a micrograph.

    voltage_kilovolt : None where nobody knows, and it is not needed.
    warnings : what of its metadata could not be used.
    """

    pixel_size_angstrom: float
    voltage_kilovolt: float | None
    spherical_aberration_millimeter: float
    amplitude_contrast: float
    warnings: tuple[str, ...] = ()


class ImagingFinder:
    """Finds how micrographs were taken. `stated` is what the user says of all of them, and counts over all else."""

    def __init__(self, stated: Optics, *, needs_voltage: bool) -> None:
        self._stated = stated
        self._needs_voltage = needs_voltage
        self._lists: dict[Path, Mapping[str, Optics]] = {}

    def find(self, info: MovieInfo) -> Imaging:
        """What is known of the micrograph or spectrum.

        Of a spectrum the header alone knows the pixel: what the user says is that of micrographs. Raises
        ProcessingError where the pixel size is known from nowhere, or the voltage, where that is needed.
        """
        own, spectrum = _own_pixel(info), is_spectrum(info.path)
        stated, beside = self._stated, _motion(info.path).over(self._listed(info.path))
        if spectrum:  # what lies beside it speaks of the micrograph
            stated = replace(stated, pixel_size_angstrom=own or stated.pixel_size_angstrom)
            beside = replace(beside, pixel_size_angstrom=None)
        known = stated.over(Optics(pixel_size_angstrom=own)).over(beside)
        metadata, warnings = find_metadata(info, ExposureMetadata(optics=known))
        optics = metadata.optics
        pixel = known.pixel_size_angstrom if spectrum else optics.pixel_size_angstrom
        voltage = optics.voltage_kilovolt
        if pixel is None or (voltage is None and self._needs_voltage):
            raise lacking(info.path, pixel, voltage if self._needs_voltage else 0.0, _SOUGHT, warnings)
        if spectrum and self._stated.pixel_size_angstrom not in (None, pixel):
            warnings += (f"--pixel-size is that of micrographs; this spectrum's own pixel of {pixel:.4g} Å was used.",)
        warnings += _contradictions(stated, info, Optics(pixel_size_angstrom=own).over(beside))
        lens = Lens()
        cs, contrast = optics.spherical_aberration_millimeter, optics.amplitude_contrast
        return Imaging(
            pixel_size_angstrom=_in_decimals(pixel),
            voltage_kilovolt=None if voltage is None else _in_decimals(voltage),
            spherical_aberration_millimeter=lens.spherical_aberration_millimeter if cs is None else cs,
            amplitude_contrast=lens.amplitude_contrast if contrast is None else contrast,
            warnings=warnings,
        )

    def _listed(self, path: Path) -> Optics:
        """What the list of an alignment says, in the file's folder or one of the two above it."""
        for folder in list(path.absolute().parents)[:_LIST_LEVELS]:
            name = folder / LIST_NAME
            if name not in self._lists:
                self._lists[name] = _by_name(name) if name.is_file() else {}
            if path.name in self._lists[name]:
                return self._lists[name][path.name]
        return Optics()


def _contradictions(stated: Optics, info: MovieInfo, known: Optics) -> tuple[str, ...]:
    """What the user says otherwise than the file and what lies beside it: it counts, and may be a slip."""
    if stated.pixel_size_angstrom is None and stated.voltage_kilovolt is None:
        return ()
    metadata, _ = find_metadata(info, ExposureMetadata(optics=known))
    return (
        *contradiction("--pixel-size", "Å", stated.pixel_size_angstrom, known.pixel_size_angstrom),
        *contradiction("--voltage", "kV", stated.voltage_kilovolt, metadata.optics.voltage_kilovolt),
    )


def _own_pixel(info: MovieInfo) -> float | None:
    """The pixel of a file's header, if it can be true. In a micrograph's plain one 1 Å says nothing; who writes spectra
    writes what is true."""
    if is_spectrum(info.path):
        return _within(info.pixel_size_angstrom, limits.PIXEL_SIZE_ANGSTROM)
    try:
        optics = header_metadata(info).optics
    except MetadataError:  # it is said where the header is asked for all else
        return None
    return _within(optics.pixel_size_angstrom, limits.PIXEL_SIZE_ANGSTROM)


def _motion(path: Path) -> Optics:
    """What the motion STAR of the same exposure says, beside the file. A STAR that is none of these says nothing."""
    beside = path.with_name(f"{_VARIANT.sub('', path.stem)}.star")
    if not beside.is_file():
        return Optics()
    try:
        motion = read_motion(beside)
    except ColdchainError:
        return Optics()
    pixel = None if motion.pixel_size_angstrom is None else motion.pixel_size_angstrom * motion.bin_factor
    return Optics(
        pixel_size_angstrom=_within(pixel, limits.PIXEL_SIZE_ANGSTROM),
        voltage_kilovolt=_within(motion.voltage_kilovolt, limits.VOLTAGE_KILOVOLT),
    )


def _by_name(path: Path) -> Mapping[str, Optics]:
    """The optics of every file that an alignment's list names. Of files in several folders that have one name nothing
    is known where they were taken otherwise."""
    found: dict[str, Optics] = {}
    for name, optics in _list_of(path):
        found[name] = optics if found.get(name, optics) == optics else Optics()
    return found


def _list_of(path: Path) -> Iterator[tuple[str, Optics]]:
    """The optics of every file that an alignment's list names, by its name without folders."""
    try:
        blocks = star.read_star(path)
        groups = _rows(star.table(blocks, "optics", path))
        micrographs = _rows(star.table(blocks, "micrographs", path))
    except ColdchainError:
        return
    optics = {str(group.get("rlnOpticsGroup")): _optics(group) for group in groups}
    for row in micrographs:
        found = optics.get(str(row.get("rlnOpticsGroup")), Optics())
        for label in _NAMES:
            if label in row:
                yield Path(str(row[label])).name, found


def _rows(table: Table) -> list[dict[str, Value]]:
    return [dict(zip(table.columns, row, strict=True)) for row in zip(*table.columns.values(), strict=True)]


def _optics(group: Mapping[str, Value]) -> Optics:
    def number(label: str, bounds: tuple[float, float]) -> float | None:
        try:
            return _within(float(group[label]), bounds)
        except (KeyError, ValueError):
            return None

    return Optics(
        pixel_size_angstrom=number("rlnMicrographPixelSize", limits.PIXEL_SIZE_ANGSTROM),
        voltage_kilovolt=number("rlnVoltage", limits.VOLTAGE_KILOVOLT),
        spherical_aberration_millimeter=number("rlnSphericalAberration", SPHERICAL_ABERRATION_MILLIMETER),
        amplitude_contrast=number("rlnAmplitudeContrast", (0.0, 0.999)),
    )


def _in_decimals(value: float) -> float:
    """As somebody wrote it before single precision took it: 0.79, and not 0.7900000214576721."""
    return float(f"{value:.7g}")


def _within(value: float | None, bounds: tuple[float, float]) -> float | None:
    return value if value is not None and bounds[0] <= value <= bounds[1] else None
