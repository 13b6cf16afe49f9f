"""Particles' places in a micrograph, as RELION and EMAN read them, and RELION's list of such files.

Both count pixels of the picture as they read it, 0 at the first pixel's centre. They reverse the rows of a TIFF on
reading, and of no other file: so y here counts from the row that they have first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from coldchain.errors import FormatError
from coldchain.formats.files import replacing
from coldchain.formats.star import Table, Value, write_star
from coldchain.model.results import Pick


def write_coordinates(path: Path, picks: Sequence[Pick]) -> None:
    """RELION's coordinate STAR: a row a particle, also where there is none. Raises as `star.write_star`."""
    columns: dict[str, list[Value]] = {
        "rlnCoordinateX": [pick.x_pixel for pick in picks],
        "rlnCoordinateY": [pick.y_pixel for pick in picks],
        "rlnAutopickFigureOfMerit": [pick.figure_of_merit for pick in picks],
        "rlnClassNumber": [1] * len(picks),
        "rlnAnglePsi": [0.0] * len(picks),
    }
    write_star(path, [Table("", columns)], empty_too=True)


def write_boxes(path: Path, picks: Sequence[Pick], box_pixel: int) -> None:
    """EMAN's box file: a line a particle with its box's first column and row, width and height.

    The particle's centre is pixel `box_pixel` // 2 of its box. Raises FormatError where a place is no finite number,
    StorageError where the file cannot be written.
    """
    if not all(math.isfinite(pick.x_pixel) and math.isfinite(pick.y_pixel) for pick in picks):
        raise FormatError("a particle at no finite place", expected="finite numbers", path=path)
    half = box_pixel // 2
    lines = [
        f"{round(pick.x_pixel) - half}\t{round(pick.y_pixel) - half}\t{box_pixel}\t{box_pixel}\n" for pick in picks
    ]
    with replacing(path) as stream:
        stream.write("".join(lines).encode("ascii"))


def write_coordinate_list(path: Path, files: Iterable[tuple[str, str]]) -> None:
    """RELION's `autopick.star` of (micrograph, coordinate STAR), named as from its project. Raises as `write_star`."""
    pairs = list(files)
    names: dict[str, list[Value]] = {
        "rlnMicrographName": [micrograph for micrograph, _ in pairs],
        "rlnMicrographCoordinates": [coordinates for _, coordinates in pairs],
    }
    write_star(path, [Table("coordinate_files", names)])
