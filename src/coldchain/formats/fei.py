"""The extended header that Thermo Fisher's software writes into MRC files (`FEI1`, `FEI2`).

The record's layout is mrcfile's (Burnley, Palmer & Winn, Acta Cryst. D 2017, 73, 469, doi:10.1107/S2059798317007859).
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import numpy as np
from mrcfile.dtypes import get_ext_header_dtype

from coldchain.errors import IncompleteFileError, MetadataError
from coldchain.formats.files import reading
from coldchain.formats.mrc import HEADER_BYTES, parse_header
from coldchain.model.optics import ExposureMetadata, Optics
from coldchain.units import ANGSTROM_PER_METER, SQUARE_ANGSTROM_PER_SQUARE_METER

_TYPES = ("FEI1", "FEI2")
_DAY_ZERO = datetime(1899, 12, 30)  # an OLE automation date has no zone
_MICROMETER_PER_METER = 1e6


def read_extended_header(path: Path, *, zone: tzinfo | None = None) -> ExposureMetadata | None:
    """What the first record of an FEI1 or FEI2 extended header says; None where the file has none.

    Pixel size, dose (per m², of the whole record), voltage (V), stage (m), tilt (degrees) and applied defocus (m) are
    converted; a 0 means unknown in all but stage, tilt and defocus. The time stamp counts days from 30 December 1899
    and carries no zone: it is taken as `zone`, or as this machine's own where it is None. The frame count is the
    number of sections where there are several.

    Raises IncompleteFileError where the record is cut, MetadataError where a value cannot be, and as `mrc.read_header`.
    """
    with reading(path) as stream:
        header = parse_header(stream.read(HEADER_BYTES), path)
        if header.extended_type not in _TYPES:
            return None
        layout = get_ext_header_dtype(header.extended_type.encode("ascii"), header.byte_order)
        if header.extended_bytes < layout.itemsize:
            raise MetadataError(
                f"the extended header has {header.extended_bytes:,} bytes",
                expected=f"{layout.itemsize:,} for {header.extended_type}",
                path=path,
            )
        data = stream.read(layout.itemsize)
    if len(data) < layout.itemsize:
        raise IncompleteFileError(
            "the file ends inside its extended header",
            remedy="Wait until it is written, or fetch it from the camera again",
            path=path,
        )
    record = _Record(np.frombuffer(data, dtype=layout)[0], path)
    return ExposureMetadata(
        optics=Optics(
            pixel_size_angstrom=record.positive("Pixel size X", ANGSTROM_PER_METER),
            voltage_kilovolt=record.positive("HT", 1e-3),
            dose_e_per_square_angstrom=record.positive("Dose", 1 / SQUARE_ANGSTROM_PER_SQUARE_METER),
            frame_count=header.sections if header.sections > 1 else None,
        ),
        acquired_at=record.time(zone),
        applied_defocus_micrometer=record.number("Applied defocus", _MICROMETER_PER_METER),
        exposure_time_seconds=record.positive("Integration time"),
        magnification=record.positive("Magnification"),
        detector=record.text("Camera name"),
        microscope=record.text("Microscope type"),
        stage_x_micrometer=record.number("X-Stage", _MICROMETER_PER_METER),
        stage_y_micrometer=record.number("Y-Stage", _MICROMETER_PER_METER),
        stage_z_micrometer=record.number("Z-Stage", _MICROMETER_PER_METER),
        tilt_degrees=record.number("Alpha tilt"),
        beam_shift_x=record.number("Shift X"),
        beam_shift_y=record.number("Shift Y"),
        energy_slit_electronvolt=record.positive("Slit width") if record.flag("Slit inserted") else None,
        source=header.extended_type.lower(),
    )


class _Record:
    def __init__(self, record: np.void, path: Path) -> None:
        self._record: Any = record
        self._path = path

    def number(self, field: str, factor: float = 1.0) -> float:
        value = float(self._record[field]) * factor
        if not math.isfinite(value):
            raise MetadataError(f"{field} is {value}", expected="a finite number", path=self._path)
        return value

    def positive(self, field: str, factor: float = 1.0) -> float | None:
        value = self.number(field, factor)
        if value < 0:
            raise MetadataError(f"{field} is {value:g}", expected="0 or more", path=self._path)
        return value or None

    def text(self, field: str) -> str | None:
        return self._record[field].decode("ascii", errors="replace").strip("\0 ") or None

    def flag(self, field: str) -> bool:
        return bool(self._record[field])

    def time(self, zone: tzinfo | None) -> datetime | None:
        days = self.number("Timestamp")
        if days <= 0:
            return None
        try:
            return (_DAY_ZERO + timedelta(days=days)).replace(tzinfo=zone).astimezone(UTC)
        except (OverflowError, ValueError) as failure:
            raise MetadataError(f"Timestamp is {days:g} days", expected="a date", path=self._path) from failure
