"""RELION's motion STAR, one a movie: what its Bayesian polishing starts from.

Field set of RELION 5; RELION 3.1 reads the same. What its values mean, found in RELION's source
(`micrograph_model.cpp`, `motioncorr_runner.cpp`, `micrograph_handler.cpp`) and by running it on planted motion:

- **Sign**: a shift is how far the picture has to be moved: aligned(X) = frame(X − shift). It is the opposite of the
  house's displacement, which is how far the specimen went. So for `data_global_shift`, for the polynomial and for
  `data_local_shift`.
- **Units**: pixels of the movie as stored (of the rendered frames for EER), whatever `rlnMicrographBinning`. RELION's
  reader takes the polynomial so too, although its own motion correction, where it bins before aligning, writes the
  polynomial alone in binned pixels (3dem/relion issue 771).
- **Places**: x = column / width − ½, y = row / height − ½ with 0 at the first pixel's centre; rows as in an MRC.
- **Polynomial**: 18 coefficients an axis, six spatial terms 1, x, x², y, y², xy, each times z, z², z³; z is the frame
  minus the first frame used. The shift at a place is the frame's global shift plus the polynomial.
- **Frames** are numbered from 1 and all of the movie's are listed; one that was not used has −9999, here NaN.
- **Dose** is per frame of this table, so per fraction for EER.
- **Hot pixels** are (column, row) from 0 and only those that the movie showed beyond the gain's zeros and the defect
  file. RELION indexes an array by them unchecked.
- **`data_local_shift`** is what the patches showed beyond the global shift; nothing in RELION computes with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coldchain.errors import FormatError
from coldchain.formats import star
from coldchain.formats.star import Record, Table, Value

COEFFICIENTS = 18
EARLY_DOSE_E_PER_SQUARE_ANGSTROM = 4.0
_NOT_OBSERVED = -9999.0
_LARGEST_SIDE = 1 << 20
_MOST_FRAMES = 1 << 20
_NO_MODEL, _POLYNOMIAL = 0, 1


def _none() -> NDArray[np.float64]:
    return np.zeros(0)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PatchShifts:
    """`data_local_shift`: one row a patch and frame, all (rows,). Frames from 1, places and shifts in pixels, RELION's
    sign."""

    frame: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    x_pixel: NDArray[np.float64] = field(default_factory=_none)
    y_pixel: NDArray[np.float64] = field(default_factory=_none)
    shift_x_pixel: NDArray[np.float64] = field(default_factory=_none)
    shift_y_pixel: NDArray[np.float64] = field(default_factory=_none)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RelionMotion:
    """A motion STAR's content, all in RELION's sign (see the module; `opposite` converts) and in the movie's pixels.

    `movie_name`, `gain_name` and `defect_name` are as RELION must find them from its project's folder. The gain must be
    one that RELION reads and needs no turning: an MRC or TIFF in the movie's orientation, or an EER `.gain`.
    `shift_x_pixel`, `shift_y_pixel`: (frames,), NaN where a frame was not used. `polynomial_x`, `polynomial_y`: (18,)
    each, or both None without a local model. `hot_pixels`: int (n, 2) of (column, row). `first_frame` counts from 1.
    """

    width: int
    height: int
    movie_name: str
    shift_x_pixel: NDArray[np.float64]
    shift_y_pixel: NDArray[np.float64]
    gain_name: str | None = None
    defect_name: str | None = None
    bin_factor: float = 1.0
    pixel_size_angstrom: float | None = None
    dose_per_frame_e_per_square_angstrom: float | None = None
    pre_exposure_e_per_square_angstrom: float | None = None
    voltage_kilovolt: float | None = None
    first_frame: int = 1
    eer_upsampling: int | None = None
    eer_grouping: int | None = None
    polynomial_x: NDArray[np.float64] | None = None
    polynomial_y: NDArray[np.float64] | None = None
    hot_pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    patches: PatchShifts = field(default_factory=PatchShifts)

    @property
    def frames(self) -> int:
        """Frames of the whole movie, used or not."""
        return len(self.shift_x_pixel)


def opposite(pixel: NDArray[np.float64]) -> NDArray[np.float64]:
    """RELION's shift of a displacement of the specimen, or the displacement of RELION's shift; any shape, any unit.

    The same for tracks, patches and polynomial coefficients: the polynomial is linear in them and its places and frames
    are counted alike.
    """
    return 0.0 - pixel  # not -pixel: a first frame of -0.0 reads oddly


def displacement(
    motion: RelionMotion, x_pixel: NDArray[np.float64], y_pixel: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the specimen at places (points,) of the first used frame is displaced to, (frames, points) along x and y.

    In pixels of the movie, the house's sign; NaN in frames that were not used.
    """
    z = np.arange(motion.frames, dtype=np.float64) - (motion.first_frame - 1)
    x, y = x_pixel / motion.width - 0.5, y_pixel / motion.height - 0.5
    spatial = np.stack([np.ones_like(x), x, x * x, y, y * y, x * y])
    temporal = np.stack([z, z * z, z * z * z])

    def total(track: NDArray[np.float64], coefficients: NDArray[np.float64] | None) -> NDArray[np.float64]:
        terms = np.zeros((6, 3)) if coefficients is None else coefficients.reshape(6, 3)
        return opposite(track[:, np.newaxis] + (terms @ temporal).T @ spatial)

    return total(motion.shift_x_pixel, motion.polynomial_x), total(motion.shift_y_pixel, motion.polynomial_y)


def accumulated_motion_pixel(motion: RelionMotion) -> tuple[float, float, float]:
    """The whole-frame path's length: total, within the first 4 e/Å², and the rest, as `rlnAccumMotion…` has them.

    RELION's dictionary says Å; RELION writes pixels of the movie, and so does this. A step counts as early where its
    later frame's number is at most (4 − pre-exposure) / dose; without a dose all is late.
    """
    used = np.flatnonzero(np.isfinite(motion.shift_x_pixel))
    steps = np.hypot(np.diff(motion.shift_x_pixel[used]), np.diff(motion.shift_y_pixel[used]))
    dose = motion.dose_per_frame_e_per_square_angstrom or 0.0
    left = EARLY_DOSE_E_PER_SQUARE_ANGSTROM - (motion.pre_exposure_e_per_square_angstrom or 0.0)
    early = float(steps[used[1:] + 1 <= left / dose].sum()) if dose > 0 else 0.0
    total = float(steps.sum())
    return total, early, total - early


def write_motion(path: Path, motion: RelionMotion) -> None:
    """Write a motion STAR in one go: nobody sees half a file. Tables that would be empty are left out, as by RELION.

    Raises FormatError where the motion is not consistent in itself, a hot pixel lies outside the movie, a used frame's
    number is not finite or a name cannot stand in a STAR file, StorageError where the file cannot be written.
    """
    _check(motion, path)
    blocks: list[Record | Table] = [Record("general", _general(motion)), _global_table(motion)]
    if motion.polynomial_x is not None and motion.polynomial_y is not None:
        coefficients = [*motion.polynomial_x.tolist(), *motion.polynomial_y.tolist()]
        indices = list(range(2 * COEFFICIENTS))
        columns = {"rlnMotionModelCoeffsIdx": indices, "rlnMotionModelCoeff": coefficients}
        blocks.append(Table("local_motion_model", columns))
    places = motion.hot_pixels.astype(np.float64)  # the labels are RELION's for coordinates, which are no integers
    blocks.append(
        Table("hot_pixels", {"rlnCoordinateX": places[:, 0].tolist(), "rlnCoordinateY": places[:, 1].tolist()})
    )
    columns = {label: getattr(motion.patches, name).tolist() for label, name in _PATCH_COLUMNS.items()}
    blocks.append(Table("local_shift", columns))
    star.write_star(path, blocks)


def read_motion(path: Path) -> RelionMotion:
    """The motion that RELION or `write_motion` wrote.

    Raises FormatError where a table or a value is missing or cannot be, IncompleteFileError where the file is cut in a
    row, StorageError where it cannot be read.
    """
    blocks = star.read_star(path)
    general = _Values(star.record(blocks, "general", path).values, path)
    shift_x, shift_y = _read_global(blocks, general.integer("rlnImageSizeZ", most=_MOST_FRAMES), path)
    polynomial_x, polynomial_y = _read_polynomial(blocks, general.integer("rlnMotionModelVersion", most=9), path)
    motion = RelionMotion(
        width=general.integer("rlnImageSizeX", most=_LARGEST_SIDE),
        height=general.integer("rlnImageSizeY", most=_LARGEST_SIDE),
        movie_name=general.text("rlnMicrographMovieName") or "",
        shift_x_pixel=shift_x,
        shift_y_pixel=shift_y,
        polynomial_x=polynomial_x,
        polynomial_y=polynomial_y,
        hot_pixels=_read_hot_pixels(blocks, path),
        patches=_read_patches(blocks, path),
        **_read_optional(general),
    )
    _check(motion, path)
    return motion


# What may be left out, by label: our name and how it is read.
_OPTIONAL: dict[str, tuple[str, type]] = {
    "rlnMicrographGainName": ("gain_name", str),
    "rlnMicrographDefectFile": ("defect_name", str),
    "rlnMicrographBinning": ("bin_factor", float),
    "rlnMicrographOriginalPixelSize": ("pixel_size_angstrom", float),
    "rlnMicrographDoseRate": ("dose_per_frame_e_per_square_angstrom", float),
    "rlnMicrographPreExposure": ("pre_exposure_e_per_square_angstrom", float),
    "rlnVoltage": ("voltage_kilovolt", float),
    "rlnMicrographStartFrame": ("first_frame", int),
    "rlnEERUpsampling": ("eer_upsampling", int),
    "rlnEERGrouping": ("eer_grouping", int),
}
_PATCH_COLUMNS = {
    "rlnMicrographFrameNumber": "frame",
    "rlnCoordinateX": "x_pixel",
    "rlnCoordinateY": "y_pixel",
    "rlnMicrographShiftX": "shift_x_pixel",
    "rlnMicrographShiftY": "shift_y_pixel",
}


def _general(motion: RelionMotion) -> dict[str, Value]:
    values: dict[str, Value] = {
        "rlnImageSizeX": motion.width,
        "rlnImageSizeY": motion.height,
        "rlnImageSizeZ": motion.frames,
        "rlnMicrographMovieName": motion.movie_name,
    }
    for label, (name, kind) in _OPTIONAL.items():
        value = getattr(motion, name)
        if value is not None:
            values[label] = kind(value)
    values["rlnMotionModelVersion"] = _NO_MODEL if motion.polynomial_x is None else _POLYNOMIAL
    return values


def _global_table(motion: RelionMotion) -> Table:
    used = np.isfinite(motion.shift_x_pixel)
    return Table(
        "global_shift",
        {
            "rlnMicrographFrameNumber": list(range(1, motion.frames + 1)),
            "rlnMicrographShiftX": np.where(used, motion.shift_x_pixel, _NOT_OBSERVED).tolist(),
            "rlnMicrographShiftY": np.where(used, motion.shift_y_pixel, _NOT_OBSERVED).tolist(),
        },
    )


def _check(motion: RelionMotion, path: Path) -> None:
    def demand(holds: bool, found: str, expected: str) -> None:
        if not holds:
            raise FormatError(found, expected=expected, path=path)

    tracks = np.stack([motion.shift_x_pixel, motion.shift_y_pixel]) if _same_length(motion) else np.zeros((2, 0))
    patches = motion.patches
    columns = [getattr(patches, name) for name in _PATCH_COLUMNS.values()]
    polynomials = [p for p in (motion.polynomial_x, motion.polynomial_y) if p is not None]
    hot = motion.hot_pixels
    limits = np.array([motion.width, motion.height])
    demand(motion.width > 0 and motion.height > 0, f"a movie of {motion.width} × {motion.height} pixels", "1 or more")
    demand(motion.movie_name != "", "a movie without a name", "its path")
    demand(tracks.shape[1] > 0, "tracks of no length or of different lengths", "a shift for every frame")
    demand(1 <= motion.first_frame <= motion.frames, f"first frame {motion.first_frame}", f"1 to {motion.frames}")
    used = np.isfinite(tracks)
    demand(bool((used[0] == used[1]).all()), "a frame with one coordinate", "both, or neither")
    demand(bool(used[:, motion.first_frame - 1 :].any()), "no used frame from the first one on", "one at least")
    demand(len(polynomials) != 1, "a polynomial along one axis", "both, or neither")
    whole = all(p.shape == (COEFFICIENTS,) and np.isfinite(p).all() for p in polynomials)
    demand(whole, "coefficients that are not finite or not 18", "18 finite numbers an axis")
    demand(hot.ndim == 2 and hot.shape[1] == 2, f"hot pixels of shape {hot.shape}", "(n, 2)")
    inside = bool(((hot >= 0) & (hot < limits)).all()) if hot.size else True
    demand(inside, "a hot pixel outside the movie", f"columns and rows within {motion.width} × {motion.height}")
    demand(len({len(column) for column in columns}) == 1, "patch columns of different lengths", "one length")
    numbers = bool(((patches.frame >= 1) & (patches.frame <= motion.frames)).all())
    demand(numbers, "a patch's frame outside the movie", f"1 to {motion.frames}")


def _same_length(motion: RelionMotion) -> bool:
    return motion.shift_x_pixel.ndim == 1 and motion.shift_x_pixel.shape == motion.shift_y_pixel.shape


@dataclass(frozen=True, slots=True)
class _Values:
    """A record's values, read as what they should be."""

    values: Mapping[str, Value]
    path: Path

    def text(self, label: str) -> str | None:
        value = self.values.get(label)
        return None if value in (None, "") else str(value)

    def integer(self, label: str, *, most: int) -> int:
        value = self.optional_integer(label)
        if value is None or not 0 <= value <= most:
            raise FormatError(f"{label} is {self.text(label)}", expected=f"0 to {most:,}", path=self.path)
        return value

    def optional_integer(self, label: str) -> int | None:
        text = self.text(label)
        try:
            return None if text is None else int(text)
        except ValueError as failure:
            raise FormatError(f"{label} is {text!r}", expected="an integer", path=self.path) from failure

    def optional_number(self, label: str) -> float | None:
        text = self.text(label)
        try:
            value = None if text is None else float(text)
        except ValueError as failure:
            raise FormatError(f"{label} is {text!r}", expected="a number", path=self.path) from failure
        if value is not None and not math.isfinite(value):
            raise FormatError(f"{label} is {value}", expected="a finite number", path=self.path)
        return value


def _read_optional(general: _Values) -> dict[str, Any]:
    readers: dict[type, Callable[[str], Any]] = {
        str: general.text,
        int: general.optional_integer,
        float: general.optional_number,
    }
    found = {name: readers[kind](label) for label, (name, kind) in _OPTIONAL.items()}
    return {name: value for name, value in found.items() if value is not None}


def _column(table: Table, label: str, path: Path) -> NDArray[np.float64]:
    try:
        numbers = np.array([float(word) for word in table.columns[label]], dtype=np.float64)
    except (KeyError, ValueError) as failure:
        raise FormatError(
            f"data_{table.name} lacks numbers in {label}", expected="a column of numbers", path=path
        ) from failure
    if not np.isfinite(numbers).all():
        raise FormatError(f"data_{table.name} has a {label} that is not finite", expected="finite numbers", path=path)
    return numbers


def _integers(table: Table, label: str, path: Path, *, most: int) -> NDArray[np.int64]:
    numbers = _column(table, label, path)
    if not ((numbers >= 0) & (numbers <= most)).all():
        raise FormatError(
            f"data_{table.name} has {label} beyond 0 to {most:,}", expected="a counting number", path=path
        )
    return numbers.astype(np.int64)


def _read_global(
    blocks: Mapping[str, Record | Table], frames: int, path: Path
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    table = star.table(blocks, "global_shift", path)
    index = _integers(table, "rlnMicrographFrameNumber", path, most=frames) - 1
    if (index < 0).any():
        raise FormatError("data_global_shift has a frame 0", expected="frames from 1", path=path)
    tracks = []
    for label in ("rlnMicrographShiftX", "rlnMicrographShiftY"):
        track = np.full(frames, np.nan)
        track[index] = _column(table, label, path)
        tracks.append(np.where(track == _NOT_OBSERVED, np.nan, track))
    return tracks[0], tracks[1]


def _read_polynomial(
    blocks: Mapping[str, Record | Table], version: int, path: Path
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    if version == _NO_MODEL:
        return None, None
    if version != _POLYNOMIAL:
        raise FormatError(f"motion model {version}", expected="0 (none) or 1 (third-order polynomial)", path=path)
    table = star.table(blocks, "local_motion_model", path)
    index = _integers(table, "rlnMotionModelCoeffsIdx", path, most=2 * COEFFICIENTS - 1)
    if sorted(index.tolist()) != list(range(2 * COEFFICIENTS)):
        raise FormatError("the local motion model is not whole", expected="coefficients 0 to 35, each once", path=path)
    coefficients = np.empty(2 * COEFFICIENTS)
    coefficients[index] = _column(table, "rlnMotionModelCoeff", path)
    return coefficients[:COEFFICIENTS], coefficients[COEFFICIENTS:]


def _read_hot_pixels(blocks: Mapping[str, Record | Table], path: Path) -> NDArray[np.int64]:
    if "hot_pixels" not in blocks:
        return np.zeros((0, 2), dtype=np.int64)
    table = star.table(blocks, "hot_pixels", path)
    places = [_integers(table, label, path, most=_LARGEST_SIDE) for label in ("rlnCoordinateX", "rlnCoordinateY")]
    return np.stack(places, axis=1)


def _read_patches(blocks: Mapping[str, Record | Table], path: Path) -> PatchShifts:
    if "local_shift" not in blocks:
        return PatchShifts()
    table = star.table(blocks, "local_shift", path)
    columns = {name: _column(table, label, path) for label, name in _PATCH_COLUMNS.items()}
    frame = _integers(table, "rlnMicrographFrameNumber", path, most=_MOST_FRAMES)
    return PatchShifts(**{**columns, "frame": frame})  # type: ignore[arg-type]  # frame is int64, the rest float64
