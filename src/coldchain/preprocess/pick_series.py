"""Picking micrographs one after the other: each is read, searched and written; a failure is that micrograph's own."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coldchain.errors import ColdchainError, ProcessingError
from coldchain.model.optics import Optics
from coldchain.model.results import Pick
from coldchain.preprocess.imaging import ImagingFinder
from coldchain.preprocess.known_picture import KnownPicture, read_known
from coldchain.preprocess.output_names import PICK_ENDINGS, PICK_LIST_NAME
from coldchain.preprocess.publishing import ResultsFolder
from coldchain.preprocess.relion_names import can_be_listed, can_be_read, from_here, unlisted
from coldchain.preprocess.report import Failed
from coldchain.preprocess.turns import EXPECTED, failed, in_turn

if TYPE_CHECKING:
    from coldchain.kernels.pick import Picking, PickParameters

# A diameter that is given finds fewer particles than the one, and the estimated one as many as the other,
_FEW, _MANY = 5, 20
# at a diameter that differs by more than this part: the estimate is a step of 12 % off at most.
_ANOTHER_SIZE = 0.2
_ASK = "Is the pixel size right? Give with --pixel-size Å"
_BLANK = "The picture is blank: every pixel has the same value."


@dataclass(frozen=True, slots=True, eq=False)
class PickAsked:
    """What is asked of every micrograph, and where the results go.

    pixel_size_angstrom : what the user says of all; None: as each one's header says.
    diameter_angstrom : None: estimated.
    templates : (n, rows, columns); None: balls and shells.
    threshold : least figure of merit; None: what the false alarms say.
    """

    folder: Path
    pixel_size_angstrom: float | None
    diameter_angstrom: float | None
    false_alarms_per_micrograph: float = 1.0
    threshold: float | None = None
    templates: NDArray[np.float32] | None = None
    templates_pixel_size_angstrom: float | None = None
    threads: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PickReport:
    """A micrograph that was picked, as `coldchain pick --json` prints it: the fields are its keys.

    picks : best first, in pixels of the file from its first stored pixel's centre: y is 0 in the row that the file
        stores first, which is an MRC's bottom row and the top row of a TIFF or a PNG.
    seconds : reading, searching and writing.
    contamination_fraction : the part of the picture in which no particle was sought.
    dark_on_light : whether the particles are darker than what is round them.
    """

    file: Path
    diameter_angstrom: float
    picks: tuple[Pick, ...]
    seconds: float
    pixel_size_angstrom: float
    dark_on_light: bool
    contamination_fraction: float
    files: dict[str, Path]
    warnings: tuple[str, ...]


def pick_all(paths: Sequence[Path], asked: PickAsked) -> Generator[PickReport | Failed, None, None]:
    """Pick micrographs in turn; what became of each is told as soon as it is written. At the end RELION's list of the
    coordinate files is written, also where the series is ended before; where that fails, it is told as of a
    micrograph."""
    stages, is_through = _Stages(asked), False
    try:
        yield from in_turn(paths, stages, asked.threads)
        is_through = True
    finally:
        not_written = stages.write_list(is_through=is_through)
    if not_written is not None:
        yield not_written


@dataclass(frozen=True, slots=True, eq=False)
class _Searched:
    read: KnownPicture
    picking: Picking
    hints: tuple[str, ...]
    seconds: float


class _Stages:
    """What is done to a micrograph, step by step. One that failed is passed on as it is.

    The kernels are imported where they are needed, and not with this module: it takes longer than reading a micrograph.
    """

    def __init__(self, asked: PickAsked) -> None:
        self._asked = asked
        self._imaging = ImagingFinder(Optics(pixel_size_angstrom=asked.pixel_size_angstrom), needs_voltage=False)
        self._results = ResultsFolder(asked.folder, PICK_ENDINGS)
        self._listed: list[tuple[str, str]] = []

    def import_kernels(self) -> None:
        import coldchain.kernels.pick
        import coldchain.preprocess.pick_files  # noqa: F401

    def read(self, path: Path, threads: int) -> KnownPicture | Failed:  # noqa: ARG002  # one picture, one thread
        return read_known(path, self._imaging)

    def work(self, read: KnownPicture | Failed) -> _Searched | Failed:
        if isinstance(read, Failed):
            return read
        from coldchain.kernels.pick import PickParameters, find_particles

        began, asked = time.perf_counter(), self._asked
        parameters = PickParameters(
            pixel_size_angstrom=read.imaging.pixel_size_angstrom,
            diameter_angstrom=asked.diameter_angstrom,
            false_alarms_per_micrograph=asked.false_alarms_per_micrograph,
            threshold=asked.threshold,
            templates=asked.templates,
            templates_pixel_size_angstrom=asked.templates_pixel_size_angstrom,
            threads=asked.threads,
        )
        try:
            picking = find_particles(read.picture.pixels, parameters)
            hints = _of_another_size(read, picking, parameters)
        except EXPECTED as error:
            return failed(_asking(error), read.path)
        return _Searched(read, picking, hints, read.seconds + time.perf_counter() - began)

    def write(self, searched: _Searched | Failed, threads: int) -> PickReport | Failed:  # noqa: ARG002  # small files
        if isinstance(searched, Failed):
            return searched
        from coldchain.preprocess.pick_files import stored_picks, write_picking

        began = time.perf_counter()
        read, picking = searched.read, searched.picking
        pixel = read.imaging.pixel_size_angstrom
        try:
            self._results.read.add(read.path)
            files = self._results.publish(
                read.path, lambda scratch: write_picking(picking, read.picture, pixel, scratch, read.path.stem)
            )
        except EXPECTED as error:
            return failed(error, read.path)
        warnings = read.warnings + searched.hints + self._list(read.path, files)
        if float(read.picture.pixels.max()) <= float(read.picture.pixels.min()):
            warnings += (_BLANK,)
        return PickReport(
            file=read.path,
            diameter_angstrom=round(picking.result.diameter_angstrom, 2),
            picks=tuple(map(_rounded, stored_picks(picking, read.picture))),
            seconds=round(searched.seconds + time.perf_counter() - began, 4),
            pixel_size_angstrom=pixel,
            dark_on_light=picking.dark_on_light,
            contamination_fraction=round(picking.contamination_fraction, 5),
            files=files,
            warnings=warnings,
        )

    def _list(self, path: Path, files: dict[str, Path]) -> tuple[str, ...]:
        if not (can_be_read(path) and can_be_listed(files["coordinates"])):
            return unlisted(PICK_LIST_NAME)
        self._listed.append((from_here(path), from_here(files["coordinates"])))
        return ()

    def write_list(self, *, is_through: bool) -> Failed | None:
        """Write RELION's list in place of an earlier one, which goes also where nothing is to be listed; not where the
        series was ended before anything could be."""
        from coldchain.formats.coordinates import write_coordinate_list

        path = self._asked.folder / PICK_LIST_NAME
        try:
            if self._listed:
                write_coordinate_list(path, self._listed)
            elif is_through:
                path.unlink(missing_ok=True)
        except EXPECTED as error:
            return failed(error, path)
        return None


def _of_another_size(read: KnownPicture, picking: Picking, parameters: PickParameters) -> tuple[str, ...]:
    """What is said where a diameter that was given finds next to nothing, and another one would find particles."""
    given, few = parameters.diameter_angstrom, len(picking.result.picks)
    if given is None or few >= _FEW or parameters.templates is not None:
        return ()
    from coldchain.kernels.pick import find_particles

    other = find_particles(read.picture.pixels, replace(parameters, diameter_angstrom=None)).result
    if len(other.picks) < _MANY or abs(other.diameter_angstrom - given) <= _ANOTHER_SIZE * given:
        return ()
    return (
        f"--diameter {given:.4g} finds {few or 'no'} particle{'s' * (few != 1)}; there are {len(other.picks)} of"
        f" {other.diameter_angstrom:.0f} Å: are diameter and pixel size right?",
    )


def _asking(error: ColdchainError | OSError | MemoryError) -> ColdchainError | OSError | MemoryError:
    """The error with a remedy where it has none: what is too small, or holds nothing, is most often so by its scale."""
    if isinstance(error, ProcessingError) and not error.remedy:
        return ProcessingError(error.found, expected=error.expected, remedy=_ASK, path=error.path)
    return error


def _rounded(pick: Pick) -> Pick:
    """To a thousandth of a pixel, and so the figure of merit."""
    return Pick(round(pick.x_pixel, 3), round(pick.y_pixel, 3), round(pick.figure_of_merit, 4))
