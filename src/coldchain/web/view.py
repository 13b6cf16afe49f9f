"""What the pages show that no single value of the model says: sources of optics, advice, pictures, grid squares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from uuid import UUID

from coldchain.catalog import files, page
from coldchain.catalog.engine import Catalog
from coldchain.catalog.page import PlaceCount
from coldchain.collect.layout import places_seen
from coldchain.model.files import FileState
from coldchain.model.optics import Optics
from coldchain.model.quality import Measures, Verdict
from coldchain.model.results import PickResult, StepRun, StepState
from coldchain.model.session import Exposure, ExposureState, Session, SessionParameters
from coldchain.web import words
from coldchain.web.outputs import ScaleBar, output_path, pick_centres, read_scale, scale_bar

_DAMAGED_TODO = (
    "Its bytes are copied as they are. Bring the whole file again under the same name; it is then taken in anew."
)
_UNREADABLE_TODO = "Let the account that runs Coldchain read it; it is then taken in by itself."
_FAILED_TODO = "It is tried again by itself until it is verified."

_OPTICS_WORDS = {
    "pixel_size_angstrom": ("Pixel size", "Å"),
    "voltage_kilovolt": ("Voltage", "kV"),
    "spherical_aberration_millimeter": ("Spherical aberration", "mm"),
    "amplitude_contrast": ("Amplitude contrast", ""),
    "dose_e_per_square_angstrom": ("Dose", "e⁻/Å²"),
    "frame_count": ("Frames", ""),
    "gain": ("Gain reference", ""),
}
_METADATA_WORDS = {
    "acquired_at": ("Acquired", ""),
    "applied_defocus_micrometer": ("Applied defocus", "µm"),
    "exposure_time_seconds": ("Exposure time", "s"),
    "magnification": ("Magnification", "×"),
    "detector": ("Detector", ""),
    "microscope": ("Microscope", ""),
    "stage_x_micrometer": ("Stage x", "µm"),
    "stage_y_micrometer": ("Stage y", "µm"),
    "stage_z_micrometer": ("Stage z", "µm"),
    "tilt_degrees": ("Tilt", "°"),
    "beam_shift_x": ("Beam shift x", ""),
    "beam_shift_y": ("Beam shift y", ""),
    "energy_slit_electronvolt": ("Energy slit", "eV"),
    "gain_name": ("Gain named", ""),
    "defects_name": ("Defects named", ""),
    "movie_name": ("Movie named", ""),
}
_SOURCE_WORDS = {
    "epu-xml": "EPU's XML",
    "mdoc": "SerialEM's mdoc",
    "mdoc-section": "SerialEM's mdoc of many",
    "fei1": "extended header",
    "fei2": "extended header",
    "mrc-header": "file's header",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table: what, how much, who says so."""

    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class BadFile:
    """A file that is damaged or unreadable, or a copy that failed, and what to do."""

    word: str
    relative_path: str
    exposure_id: UUID | None
    detail: str
    todo: str


@dataclass(frozen=True, slots=True)
class Hole:
    """A foil hole and its exposures."""

    name: str | None
    exposures: int


@dataclass(frozen=True, slots=True)
class Square:
    """A grid square, its exposures and its holes: those exposed and those only seen."""

    name: str | None
    exposures: int
    quarantined: int
    holes: tuple[Hole, ...]

    @property
    def hole_count(self) -> int:
        """How many holes are known by name."""
        return sum(hole.name is not None for hole in self.holes)


@dataclass(frozen=True, slots=True)
class Picture:
    """A micrograph's picture and what is drawn over it, in its own pixels; no width where the scale is unknown."""

    url: str
    width: float | None
    height: float | None
    picks: list[tuple[float, float]]
    radius: float
    bar: ScaleBar | None
    note: str


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do, in words and as a command."""

    text: str
    command: str


def advice(session: Session) -> dict[ExposureState, Advice]:
    """What to do about exposures of this session that do not go on; no command where the reason has its own."""
    return {
        ExposureState.WAITING: Advice("It goes on by itself when what is missing is there.", ""),
        ExposureState.QUARANTINED: Advice(
            "The other exposures go on. When the cause is mended:",
            f"coldchain session reprocess {session.shell_word} --quarantined",
        ),
    }


def parameter_rows(parameters: SessionParameters) -> list[tuple[str, str]]:
    """What the session itself says, over whatever the metadata says."""
    rows = [(_OPTICS_WORDS[name][0], _shown(value, _OPTICS_WORDS[name][1])) for name, value in _told(parameters.optics)]
    if parameters.particle_diameter_angstrom is not None:
        rows.append(("Particle diameter", words.shortest(parameters.particle_diameter_angstrom, "Å")))
    return rows


def optics_rows(session: Session, exposure: Exposure, assumed: Optics | None) -> list[Row]:
    """The optical values that count, each with its source, then what else the microscope wrote."""
    metadata = exposure.metadata
    metadata_source = _SOURCE_WORDS.get(metadata.source, metadata.source or "metadata")
    told = (
        (session.parameters.optics, "set for the session"),
        (metadata.optics, metadata_source),
        (assumed or Optics(), "the instrument's default"),
    )
    rows = []
    for name, (title, unit) in _OPTICS_WORDS.items():
        value, source = next(
            ((getattr(optics, name), source) for optics, source in told if getattr(optics, name) is not None),
            (None, "not told"),
        )
        rows.append(Row(title, _shown(value, unit), source))
    if exposure.grid_square is not None:
        rows.append(Row("Grid square", exposure.grid_square, ""))
    if exposure.foil_hole is not None:
        rows.append(Row("Foil hole", exposure.foil_hole, ""))
    for name, (title, unit) in _METADATA_WORDS.items():
        if (value := getattr(metadata, name)) is not None:
            rows.append(Row(title, _shown(value, unit), metadata_source))
    return rows


def measure_rows(verdict: Verdict | None) -> list[tuple[str, str]]:
    """What a verdict rests on besides the numbers that stand in the results; "not known" is said, never 0."""
    if verdict is None:
        return []
    found = verdict.measures
    error_unknown = "not found" if found.motion_found is False else "not told"
    thickness_unknown = "no electrons in the image" if found.transmission is None else "fewer than ten exposures before"
    rows = [
        ("Ice, beyond the thinnest", words.number(found.ice_thickness, 2, "λ"), thickness_unknown),
        ("Unevenness", words.number(found.unevenness, 3, "λ"), "too small, or dark in places"),
        ("Contaminated", words.share(found.contamination_fraction), "nobody looked"),
        ("Defocus beyond intended", _defocus_error(found), "not told, or no fit"),
    ]
    if found.is_movie:
        rows += [
            ("Motion known to", words.number(found.motion_error_angstrom, 2, "Å"), error_unknown),
            ("Gain's pattern in the movie", words.share(found.gain_share), "no gain, or too few electrons"),
        ]
    rows.append(("Fixed pattern", words.share(found.pattern_share, 2), "too few exposures to compare with"))
    return [(name, why if value == words.NOTHING else value) for name, value, why in rows]


def _defocus_error(found: Measures) -> str:
    if found.defocus_angstrom is None or found.intended_defocus_angstrom is None:
        return words.NOTHING
    return words.micrometer(found.defocus_angstrom - found.intended_defocus_angstrom)


def bad_files(catalog: Catalog, session_id: UUID, *, limit: int) -> list[BadFile]:
    """Files and copies that want attention, newest first of each kind."""
    states = (FileState.DAMAGED, FileState.UNREADABLE)
    todo = {FileState.DAMAGED: _DAMAGED_TODO, FileState.UNREADABLE: _UNREADABLE_TODO}
    found = [
        BadFile(f"{file.state} {file.kind}", file.relative_path, file.exposure_id, file.detail, todo[file.state])
        for file in files.of_session(catalog, session_id, states=states, limit=limit)
    ]
    copies = [
        BadFile(f"copy to {copy.store} failed", file.relative_path, file.exposure_id, copy.detail, _FAILED_TODO)
        for file, copy in page.failed_copies(catalog, session_id, limit=limit)
    ]
    return [*found, *copies][:limit]


def squares(counts: Sequence[PlaceCount], overview_paths: Sequence[str]) -> list[Square]:
    """Grid squares with their holes: those of the exposures, and those that only EPU's own overview files tell of.

    None where nothing tells of any.
    """
    holes_of: dict[str | None, dict[str | None, int]] = {
        seen.id: dict.fromkeys(seen.holes, 0) for seen in places_seen(overview_paths)
    }
    bad: dict[str | None, int] = {}
    for count in counts:
        holes = holes_of.setdefault(count.grid_square, {})
        holes[count.foil_hole] = holes.get(count.foil_hole, 0) + count.exposures
        bad[count.grid_square] = bad.get(count.grid_square, 0) + count.quarantined
    if set(holes_of) <= {None}:
        return []
    return [
        Square(
            name=name,
            exposures=sum(holes.values()),
            quarantined=bad.get(name, 0),
            holes=tuple(Hole(hole, holes[hole]) for hole in sorted(holes, key=_by_number)),
        )
        for name, holes in sorted(holes_of.items(), key=lambda item: _by_number(item[0]))
    ]


def newest_with(results_root: Path, runs: Sequence[StepRun], role: str) -> tuple[StepRun, Path] | None:
    """The newest done run that left an output of this role, and where it lies. `runs` are oldest first."""
    for run in reversed(runs):
        if run.state is StepState.DONE and (path := output_path(results_root, run, role)) is not None:
            return run, path
    return None


def output_url(results_root: Path, runs: Sequence[StepRun], role: str) -> str | None:
    """The address of the newest output of this role."""
    found = newest_with(results_root, runs, role)
    return None if found is None else f"/runs/{found[0].id}/{role}"


def picture(results_root: Path, runs: Sequence[StepRun], picks: PickResult | None) -> Picture | None:
    """The newest picture of the micrograph, with the picks and a scale bar where its scale is known."""
    found = newest_with(results_root, runs, "micrograph_png")
    if found is None:
        return None
    run, _ = found
    url = f"/runs/{run.id}/micrograph_png"
    scale = read_scale(output_path(results_root, run, "scale"))
    if scale is None:
        note = "The picture's scale is not known, so picks and scale bar are not drawn."
        return Picture(url, None, None, [], 0, None, note)
    pixel_size_angstrom = _pixel_size_used(runs)
    centres = [] if picks is None else pick_centres(picks, scale)
    radius, note = 6.0, ""
    if picks is not None and pixel_size_angstrom is not None:
        radius = picks.diameter_angstrom / 2 / pixel_size_angstrom * scale.png_width / scale.width_pixel
    elif centres:
        note = "The pixel size is not known, so the circles are not to scale."
    bar = scale_bar(scale, pixel_size_angstrom)
    return Picture(url, scale.png_width, scale.png_height, centres, round(max(radius, 1.0), 2), bar, note)


def _pixel_size_used(runs: Sequence[StepRun]) -> float | None:
    """What the newest done step was told; it is what the picks and the picture stand on."""
    for run in reversed(runs):
        value = run.parameters.get("pixel_size_angstrom")
        if run.state is StepState.DONE and isinstance(value, int | float) and value > 0:
            return float(value)
    return None


def _told(optics: Optics) -> Iterator[tuple[str, object]]:
    for field in fields(optics):
        if (value := getattr(optics, field.name)) is not None:
            yield field.name, value


def _shown(value: object, unit: str) -> str:
    if value is None:
        return words.NOTHING
    if isinstance(value, datetime):
        return words.moment(value)
    if isinstance(value, int | float):
        return words.shortest(value, unit).replace(" °", "°")
    return str(value) or "none"


def _by_number(identity: str | None) -> tuple[bool, int, str]:
    """EPU's ids in ascending order, and what is not told last."""
    text = identity or ""
    return identity is None, len(text.lstrip("0")), text
