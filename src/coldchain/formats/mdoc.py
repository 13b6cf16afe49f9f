"""SerialEM's `.mdoc`: what it knew of a movie when it saved it (autodoc text, one section per frame set or image).

A movie's own mdoc has one `[FrameSet = 0]`. An mdoc of many movies (a tilt series, a montage, multishot) has a
`[ZValue = n]` or `[FrameSet = n]` for each, whose `SubFramePath` names it; SerialEM adds sections as it goes on.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path, PureWindowsPath

from coldchain.errors import FormatError, IncompleteFileError, MetadataError
from coldchain.formats.files import reading
from coldchain.model.optics import ExposureMetadata, Optics

_LARGEST_BYTES = 64 << 20
_LONGEST_LINE = 64 << 10
_LONGEST_TITLE = 500  # of sections and of the file: what is longer would be searched for ever
_MOST_SECTIONS = 20_000
_GENERAL = ("", "")
# What is read of a section; whatever else stands there costs nothing.
_KEYS = frozenset(
    {
        "Binning",
        "CountsPerElectron",
        "Cs",
        "DateTime",
        "DefectFile",
        "ExposureDose",
        "ExposureTime",
        "FilterSlitAndLoss",
        "FrameDosesAndNumber",
        "GainReference",
        "Magnification",
        "NumSubFrames",
        "PixelSpacing",
        "StagePosition",
        "StageZ",
        "SubFramePath",
        "T",
        "TargetDefocus",
        "TiltAngle",
        "Voltage",
    }
)
_SECTION = re.compile(r"\[\s*(\w+)\s*=\s*(.*?)\s*\]?\s*$")
_TITLE = re.compile(r"SerialEM:\s*(.*?)\s{2,}")
# English, whatever this machine's language.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TIME = re.compile(r"(\d{1,2})-([A-Z][a-z]{2})-(\d{2}|\d{4})\s+(\d{1,2}):(\d{2}):(\d{2})", re.ASCII)


@dataclass(frozen=True, slots=True)
class FrameSet:
    """What one section says of one movie. `movie` is its path as SerialEM wrote it, with slashes; "" where none is
    named."""

    movie: str
    metadata: ExposureMetadata


@dataclass(frozen=True, slots=True)
class Mdoc:
    """All sections of an mdoc. `is_stack` says that they are `ZValue`s: images of one file, each perhaps with a movie.

    `fault` is why sections were left out, "" where none was; what they say cannot be.
    """

    is_stack: bool
    frame_sets: tuple[FrameSet, ...]
    fault: str = ""


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
    general: dict[str, str] = {}
    first: dict[str, dict[str, str]] = {}
    for (kind, number), values in _sections(path):
        if (kind, number) == _GENERAL:
            general = values
        elif kind not in first:
            first[kind] = values
    section = first.get("FrameSet") or first.get("ZValue")
    if not section:
        raise _no_section(path)
    return _metadata({**general, **section}, zone, path)


def read_frame_sets(path: Path, *, zone: tzinfo | None = None) -> Mdoc:
    """What SerialEM says about each of the movies that an mdoc names, as `read_mdoc` reads one.

    These are its `FrameSet`s, or its `ZValue`s where it has none, at most 20,000. A section that holds a value that
    cannot be is left out, which `fault` says; of two that name the same movie the first counts.

    Raises as `read_mdoc`, but MetadataError for a value only where every section has such a one.
    """
    general: dict[str, str] = {}
    kinds: dict[str, list[dict[str, str]]] = {"FrameSet": [], "ZValue": []}
    for (kind, number), values in _sections(path):
        if (kind, number) == _GENERAL:
            general = values
        elif kind in kinds:
            kinds[kind].append(values)
            if len(kinds[kind]) > _MOST_SECTIONS:
                raise MetadataError(f"more than {_MOST_SECTIONS:,} sections", expected="an mdoc", path=path)
    is_stack = not kinds["FrameSet"]
    sections = kinds["FrameSet"] or kinds["ZValue"]
    if not sections:
        raise _no_section(path)
    found: dict[str, FrameSet] = {}
    faults: list[MetadataError] = []
    for place, section in enumerate(sections):
        movie = section.get("SubFramePath", "").replace("\\", "/")
        try:
            metadata = _metadata({**general, **section}, zone, path)
        except MetadataError as error:
            faults.append(error)
            continue
        found.setdefault(movie or f"/{place}", FrameSet(movie, replace(metadata, source="mdoc-section")))
    if not found:
        raise faults[0]
    fault = f"{len(faults)} of {len(sections)} sections cannot be used; the first: {faults[0].found}" if faults else ""
    return Mdoc(is_stack, tuple(found.values()), fault)


def is_stack_of_images(path: Path) -> bool:
    """Whether an mdoc describes the images of a stack, two at least, and not the frames of one movie.

    Raises StorageError where it cannot be read, FormatError where it is no mdoc.
    """
    images = 0
    for (kind, _), _ in _sections(path):
        if kind == "FrameSet":
            return False
        images += kind == "ZValue"
        if images > 1:
            return True
    return False


def _metadata(values: Mapping[str, str], zone: tzinfo | None, path: Path) -> ExposureMetadata:
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


def _no_section(path: Path) -> MetadataError:
    return MetadataError(
        "the file has no FrameSet and no ZValue section", expected="an mdoc that SerialEM wrote", path=path
    )


def _sections(path: Path) -> Iterator[tuple[tuple[str, str], dict[str, str]]]:
    """What stands before all sections, as `_GENERAL`, then each section's kind, number and lines, one after another."""
    with reading(path) as stream:
        data = stream.read(_LARGEST_BYTES + 1)
    if not data.strip(b"\0 \t\r\n"):
        raise IncompleteFileError("the file is empty", remedy="Wait until it is written, or fetch it again", path=path)
    if len(data) > _LARGEST_BYTES:
        raise FormatError(f"the file is larger than {_LARGEST_BYTES:,} bytes", expected="an mdoc", path=path)
    name, current = _GENERAL, dict[str, str]()
    for line in io.BytesIO(data):
        text = line[:_LONGEST_LINE].decode("utf-8", errors="replace").strip()
        header = _SECTION.match(text) if len(text) <= _LONGEST_TITLE else None
        if header and header.group(1) != "T":
            yield name, current
            name, current = (header.group(1), header.group(2)), {}
            continue
        key, equals, value = text.lstrip("[").partition("=")
        if not equals:
            continue
        key = key.strip()
        if key not in _KEYS:
            current.setdefault("", "")  # not nothing, though nothing that is wanted
        elif key not in current:
            current[key] = _title(value) if key == "T" else value.strip()
    yield name, current


def _title(written: str) -> str:
    written = written[:_LONGEST_TITLE]
    found = _TITLE.search(written + "  ")
    return found.group(1) if found else written.strip(" ]")


def _number(values: Mapping[str, str], key: str, part: int, path: Path) -> float | None:
    words = values.get(key, "").split(maxsplit=part + 1)
    return _parsed(key, words[part], path) if part < len(words) else None


def _parsed(key: str, word: str, path: Path) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise MetadataError(f"{key} is {word[:40]!r}", expected="numbers", path=path)
    return value


def _positive(value: float | None) -> float | None:
    return value if value is not None and value > 0 else None


def _not_negative(value: float | None) -> float | None:
    return value if value is not None and value >= 0 else None


def _dose_of_frames(values: Mapping[str, str], path: Path) -> float | None:
    """`FrameDosesAndNumber` is a list of pairs: the dose of a frame, and how many frames had it."""
    words = values.get("FrameDosesAndNumber", "").split()
    numbers = [_parsed("FrameDosesAndNumber", word, path) for word in words[: len(words) - len(words) % 2]]
    total = sum(dose * frames for dose, frames in zip(numbers[0::2], numbers[1::2], strict=True))
    if not math.isfinite(total):
        raise MetadataError("FrameDosesAndNumber makes no finite dose", expected="pairs of numbers", path=path)
    return _positive(total)


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
