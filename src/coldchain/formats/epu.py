"""What Thermo Fisher's EPU writes beside each of its movies: the exposure's XML (2.6 to 3.9 seen)."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from coldchain.errors import MetadataError
from coldchain.formats.document import child, local_name, read_xml, text
from coldchain.model.optics import ExposureMetadata, Optics
from coldchain.units import ANGSTROM_PER_METER, SQUARE_ANGSTROM_PER_SQUARE_METER

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_MICROMETER_PER_METER = 1e6
_NOT_A_SECOND = re.compile(r"(\.\d{6})\d+")


def read_exposure_xml(path: Path) -> ExposureMetadata:
    """What EPU says about one exposure.

    The document's `pixelSize` is that of the image that EPU shows, whose size is `ReadoutArea`; the movie's pixels are
    taken to be finer by `SuperResolutionFactor`. The evidence: in the real K3 documents `ReadoutArea` is 2880 × 2046
    and the factor 2, which makes the K3's own 5760 × 4092, and 1.0559 Å at a nominal 165,000 becomes 0.528 Å, its
    physical pixel; `DoseOnCamera` is `Dose` times the area of the undivided pixel. A Falcon has factor 1. Diamond's
    transfer software divides likewise. No movie was at hand to confirm it: compare `ReadoutArea` times the factor
    with a movie's size where both are known.

    The number of frames is `NumberOffractions`, or the count of `DoseFractions`. `Dose` is per m² over the whole
    exposure. EPU knows no spherical aberration and no amplitude contrast. Beam shifts are in EPU's own units.

    Raises MetadataError where the document is no exposure or a value cannot be; IncompleteFileError and FormatError as
    `document.read_xml`.
    """
    root = read_xml(path)
    if local_name(root) != "MicroscopeImage":
        raise MetadataError(
            f"the document is a {local_name(root)}", expected="EPU's MicroscopeImage of an exposure", path=path
        )
    return _Exposure(root, path).metadata()


class _Exposure:
    def __init__(self, root: Element, path: Path) -> None:
        self._root = root
        self._path = path
        self._custom = _dictionary(child(root, "CustomData"))
        self._microscope = child(root, "microscopeData")
        self._camera = child(self._microscope, "acquisition", "camera")
        self._camera_input = _dictionary(child(self._camera, "CameraSpecificInput"))

    def _number(self, element: Element | None, name: str) -> float | None:
        return _number(text(element), name, self._path)

    def _custom_number(self, key: str) -> float | None:
        return self._number(self._custom.get(key), key)

    def metadata(self) -> ExposureMetadata:
        scope = self._microscope
        stage = child(scope, "stage", "Position")
        energy_filter = child(scope, "optics", "EnergyFilter")
        beam_shift = child(scope, "optics", "BeamShift")
        slit_is_in = text(child(energy_filter, "EnergySelectionSlitInserted")) == "true"
        tilt = self._number(child(stage, "A"), "stage tilt")
        return ExposureMetadata(
            optics=self._optics(),
            acquired_at=_time(text(child(scope, "acquisition", "acquisitionDateTime")), self._path),
            applied_defocus_micrometer=_scaled(self._custom_number("AppliedDefocus"), _MICROMETER_PER_METER),
            exposure_time_seconds=self._number(child(self._camera, "ExposureTime"), "ExposureTime"),
            magnification=self._number(
                child(scope, "optics", "TemMagnification", "NominalMagnification"), "NominalMagnification"
            ),
            detector=text(self._custom.get("DetectorCommercialName")) or text(child(self._camera, "Name")),
            microscope=text(child(scope, "instrument", "InstrumentModel")),
            stage_x_micrometer=_scaled(self._number(child(stage, "X"), "stage X"), _MICROMETER_PER_METER),
            stage_y_micrometer=_scaled(self._number(child(stage, "Y"), "stage Y"), _MICROMETER_PER_METER),
            stage_z_micrometer=_scaled(self._number(child(stage, "Z"), "stage Z"), _MICROMETER_PER_METER),
            tilt_degrees=None if tilt is None else math.degrees(tilt),
            beam_shift_x=self._number(child(beam_shift, "_x"), "BeamShift x"),
            beam_shift_y=self._number(child(beam_shift, "_y"), "BeamShift y"),
            energy_slit_electronvolt=self._number(
                child(energy_filter, "EnergySelectionSlitWidth") if slit_is_in else None, "EnergySelectionSlitWidth"
            ),
            source="epu-xml",
        )

    def _optics(self) -> Optics:
        preview = self._number(child(self._root, "SpatialScale", "pixelSize", "x", "numericValue"), "pixelSize")
        factor = self._number(self._camera_input.get("SuperResolutionFactor"), "SuperResolutionFactor") or 1.0
        dose = self._custom_number("Dose")
        voltage = self._number(child(self._microscope, "gun", "AccelerationVoltage"), "AccelerationVoltage")
        return Optics(
            pixel_size_angstrom=self._positive(_scaled(preview, ANGSTROM_PER_METER / factor), "pixelSize"),
            voltage_kilovolt=self._positive(_scaled(voltage, 1e-3), "AccelerationVoltage"),
            dose_e_per_square_angstrom=self._positive(_scaled(dose, 1 / SQUARE_ANGSTROM_PER_SQUARE_METER), "Dose"),
            frame_count=self._frame_count(),
        )

    def _positive(self, value: float | None, name: str) -> float | None:
        """The value; None for 0, which EPU writes where it does not know."""
        if value is not None and not 0 <= value < math.inf:
            raise MetadataError(f"{name} is {value:g}", expected="more than 0", path=self._path)
        return value or None

    def _frame_count(self) -> int | None:
        settings = self._camera_input.get("FractionationSettings")
        number = self._number(child(settings, "NumberOffractions"), "NumberOffractions")
        if number is not None and number >= 1:
            return int(number)
        fractions = child(settings, "DoseFractions")
        return len(fractions) or None if fractions is not None else None


def _dictionary(element: Element | None) -> dict[str, Element]:
    """The values of a serialised dictionary by their keys."""
    pairs = ((text(child(pair, "Key")), child(pair, "Value")) for pair in (element if element is not None else ()))
    return {key: value for key, value in pairs if key is not None and value is not None}


def _number(written: str | None, name: str, path: Path) -> float | None:
    if written is None:
        return None
    try:
        value = float(written)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise MetadataError(f"{name} is {written[:40]!r}", expected="a number", path=path)
    return value


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _time(written: str | None, path: Path) -> datetime | None:
    """A time as .NET writes it, with seven decimals; one without a zone is taken as UTC."""
    if written is None:
        return None
    try:
        time = datetime.fromisoformat(_NOT_A_SECOND.sub(r"\1", written))
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError) as failure:
        raise MetadataError(f"a time is {written[:40]!r}", expected="an ISO 8601 time", path=path) from failure
