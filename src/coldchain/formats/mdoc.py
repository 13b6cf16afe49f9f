"""SerialEM's `.mdoc`: what it knew of a movie when it saved it (autodoc text, one section per frame set or image)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from pathlib import Path, PureWindowsPath

from coldchain.errors import FormatError, IncompleteFileError, MetadataError
from coldchain.formats.files import reading
from coldchain.model.optics import ExposureMetadata, Optics

_LARGEST_BYTES = 64 << 20
_SECTION = re.compile(r"\[\s*(\w+)\s*=\s*(.*?)\s*\]?\s*$")
_TITLE = re.compile(r"SerialEM:\s*(.*?)\s{2,}")
# English, whatever this machine's language.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TIME = re.compile(r"(\d{1,2})-([A-Z][a-z]{2})-(\d{2}|\d{4})\s+(\d{1,2}):(\d{2}):(\d{2})", re.ASCII)


def read_mdoc(path: Path, *, zone: tzinfo | None = None) -> ExposureMetadata:
    """What SerialEM says about a movie: its first `FrameSet`, or its first `ZValue` where there is none.

    `PixelSpacing` is the pixel of the image that SerialEM shows, binned by `Binning`. Frames of K2 and K3 are saved at
    binning 1 or 0.5 (super-resolution) and share it; where `Binning` is larger, the frames were saved finer than the
    image by a factor that the file does not tell, so the pixel size stays unknown. `ExposureDose` 0 means that the
    dose was never calibrated; then the dose is that of `FrameDosesAndNumber`, or unknown. Applied defocus is
    `TargetDefocus`. `Cs`, which some facilities add, is the spherical aberration. Times carry no zone: they are taken
    as `zone`, or as this machine's own where it is None. `ImageShift` is no beam shift and is left out.

    Raises IncompleteFileError for an empty file, MetadataError where there is no section or a value cannot be,
    StorageError where it cannot be read.
    """
    general, section = _sections(path)
    values = {**general, **section}

    def number(key: str, part: int = 0) -> float | None:
        return _number(values, key, part, path)

    binning = number("Binning")
    spacing = number("PixelSpacing")
    frames = number("NumSubFrames")
    return ExposureMetadata(
        optics=Optics(
            pixel_size_angstrom=spacing if spacing and spacing > 0 and (binning or 1) <= 1 else None,
            voltage_kilovolt=_positive(number("Voltage")),
            spherical_aberration_millimeter=_not_negative(number("Cs")),
            dose_e_per_square_angstrom=_positive(number("ExposureDose")) or _dose_of_frames(values, path),
            frame_count=int(frames) if frames and frames >= 1 else None,
        ),
        acquired_at=_time(values.get("DateTime"), zone, path),
        applied_defocus_micrometer=number("TargetDefocus"),
        exposure_time_seconds=number("ExposureTime"),
        magnification=_positive(number("Magnification")),
        microscope=values.get("T"),
        stage_x_micrometer=number("StagePosition", 0),
        stage_y_micrometer=number("StagePosition", 1),
        stage_z_micrometer=number("StageZ"),
        tilt_degrees=number("TiltAngle"),
        energy_slit_electronvolt=_positive(number("FilterSlitAndLoss")),
        counts_per_electron=_positive(number("CountsPerElectron")),
        gain_name=_file_name(values.get("GainReference")),
        defects_name=_file_name(values.get("DefectFile")),
        movie_name=_file_name(values.get("SubFramePath")),
        source="mdoc",
    )


def _sections(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """What stands before all sections, and the first section's own lines."""
    with reading(path) as stream:
        data = stream.read(_LARGEST_BYTES + 1)
    if not data.strip(b"\0 \t\r\n"):
        raise IncompleteFileError("the file is empty", remedy="Wait until it is written, or fetch it again", path=path)
    if len(data) > _LARGEST_BYTES:
        raise FormatError(f"the file is larger than {_LARGEST_BYTES:,} bytes", expected="an mdoc", path=path)
    general: dict[str, str] = {}
    sections: dict[str, dict[str, str]] = {}
    current = general
    for line in data.decode("utf-8", errors="replace").splitlines():
        header = _SECTION.match(line.strip())
        if header and header.group(1) != "T":
            # Only the first section of each kind counts; the lines of later ones go nowhere.
            known = header.group(1) in sections
            current = {} if known else sections.setdefault(header.group(1), {})
            continue
        key, equals, value = line.strip().lstrip("[").partition("=")
        if equals:
            current.setdefault(key.strip(), _title(value) if key.strip() == "T" else value.strip())
    section = sections.get("FrameSet") or sections.get("ZValue")
    if not section:
        raise MetadataError(
            "the file has no FrameSet and no ZValue section", expected="an mdoc that SerialEM wrote", path=path
        )
    return general, section


def _title(written: str) -> str:
    found = _TITLE.search(written + "  ")
    return found.group(1) if found else written.strip(" ]")


def _number(values: Mapping[str, str], key: str, part: int, path: Path) -> float | None:
    words = values.get(key, "").split()
    if part >= len(words):
        return None
    try:
        value = float(words[part])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise MetadataError(f"{key} is {values[key][:40]!r}", expected="numbers", path=path)
    return value


def _positive(value: float | None) -> float | None:
    return value if value is not None and value > 0 else None


def _not_negative(value: float | None) -> float | None:
    return value if value is not None and value >= 0 else None


def _dose_of_frames(values: Mapping[str, str], path: Path) -> float | None:
    """`FrameDosesAndNumber` is a list of pairs: the dose of a frame, and how many frames had it."""
    count = len(values.get("FrameDosesAndNumber", "").split())
    numbers = [_number(values, "FrameDosesAndNumber", part, path) or 0.0 for part in range(count - count % 2)]
    return _positive(sum(dose * frames for dose, frames in zip(numbers[0::2], numbers[1::2], strict=True)))


def _file_name(written: str | None) -> str | None:
    return (PureWindowsPath(written).name or None) if written else None


def _time(written: str | None, zone: tzinfo | None, path: Path) -> datetime | None:
    if not written:
        return None
    found = _TIME.fullmatch(written.strip())
    if found is None or found.group(2) not in _MONTHS:
        raise _impossible_time(written, path)
    day, year, hour, minute, second = (int(found.group(group)) for group in (1, 3, 4, 5, 6))
    year += 2000 if year < 100 else 0
    try:
        time = datetime(year, _MONTHS.index(found.group(2)) + 1, day, hour, minute, second, tzinfo=zone)
        return time.astimezone(UTC)
    except (ValueError, OverflowError) as failure:
        raise _impossible_time(written, path) from failure


def _impossible_time(written: str, path: Path) -> MetadataError:
    return MetadataError(f"DateTime is {written[:40]!r}", expected="a time like 25-Mar-21 17:00:46", path=path)
