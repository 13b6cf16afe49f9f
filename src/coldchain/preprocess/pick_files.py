"""What picking leaves on the disk.

| role | file | what it holds |
|---|---|---|
| coordinates | STEM_picks.star | RELION's coordinate STAR |
| boxes | STEM_picks.box | EMAN's box file |
| junk | STEM_junk.mrc | 1 where no particle was sought, else 0; as large as the micrograph |
| outlines | STEM_junk.json | the same as polygons |
| picture | STEM_picks.png | the micrograph with a circle round each pick and a line round each junk |

Inside, row 0 is a picture's bottom. What is told of a file counts rows as the file stores them, from its first pixel's
centre: so do the polygons and what the command prints. RELION and EMAN reverse the rows of a TIFF on reading, and of no
other file: the coordinates that are for them count a TIFF's rows from its last one.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from coldchain.formats.container import Container
from coldchain.formats.coordinates import write_boxes, write_coordinates
from coldchain.formats.files import replacing
from coldchain.formats.mrc import write_mrc
from coldchain.kernels.pick import Picking
from coldchain.model.results import Pick
from coldchain.preprocess.captions import with_caption
from coldchain.preprocess.micrographs import Picture
from coldchain.preprocess.output_names import PICK_ENDINGS
from coldchain.preprocess.previews import micrograph_picture, save_png

# A box holds a particle and some of the ice round it.
_BOX_DIAMETERS = 1.5
_PICK_COLOUR = (53, 200, 255)
_JUNK_COLOUR = (255, 150, 20)


def write_picking(
    picking: Picking, picture: Picture, pixel_size_angstrom: float, folder: Path, stem: str
) -> dict[str, str]:
    """Write what was found in a micrograph into a folder; the names by role (see the module). Each is whole or absent.

    Raises StorageError where a file cannot be written.
    """
    names = {role: stem + ending for role, ending in PICK_ENDINGS.items()}
    picks = picks_for_programs(picking, picture)
    write_coordinates(folder / names["coordinates"], picks)
    box = box_pixel(picking.result.diameter_angstrom, pixel_size_angstrom)
    write_boxes(folder / names["boxes"], picks, box)
    shape = (picture.pixels.shape[0], picture.pixels.shape[1])
    write_mrc(folder / names["junk"], whole_junk(picking, shape), pixel_size_angstrom=pixel_size_angstrom)
    write_outlines(picking, picture, folder / names["outlines"])
    with replacing(folder / names["picture"]) as stream:
        save_png(_drawn(picking, picture, pixel_size_angstrom, stem), stream)
    return names


def stored_picks(picking: Picking, picture: Picture) -> tuple[Pick, ...]:
    """The picks, best first, in pixels of the file: y counts from the row that it stores first."""
    picks = picking.result.picks
    if not picture.rows_reversed:
        return picks
    last = picture.pixels.shape[0] - 1
    return tuple(replace(pick, y_pixel=last - pick.y_pixel) for pick in picks)


def picks_for_programs(picking: Picking, picture: Picture) -> tuple[Pick, ...]:
    """The picks, best first, in pixels of the picture as RELION and EMAN read the file."""
    return picking.result.picks if picture.info.container == Container.TIFF else stored_picks(picking, picture)


def box_pixel(diameter_angstrom: float, pixel_size_angstrom: float) -> int:
    """An even number of pixels that hold a particle and some of what is round it."""
    return max(2, 2 * math.ceil(_BOX_DIAMETERS * diameter_angstrom / pixel_size_angstrom / 2))


def whole_junk(picking: Picking, shape: tuple[int, int]) -> NDArray[np.int8]:
    """The junk at the micrograph's own pixel, (rows, columns): 1 where it is, else 0."""
    rows, columns = (
        np.clip(np.rint(np.arange(count) / scale), 0, coarse - 1).astype(np.intp)
        for count, scale, coarse in zip(shape, picking.junk_scale, picking.junk.shape, strict=True)
    )
    return np.take(np.take(picking.junk.astype(np.int8), columns, axis=1), rows, axis=0)


def write_outlines(picking: Picking, picture: Picture, path: Path) -> None:
    """The junk's outlines as JSON: the picture's size in pixels, the part of it that is junk, and closed polygons of
    corners [x, y] (of a body in it, or of a hole in a body) in pixels of the file, the last joined with the first."""
    rows, columns = picture.pixels.shape

    def stored(polygon: NDArray[np.float64]) -> list[list[float]]:
        y = rows - 1 - polygon[:, 1] if picture.rows_reversed else polygon[:, 1]
        return np.round(np.column_stack([polygon[:, 0], y]), 1).tolist()  # type: ignore[no-any-return]

    document = {
        "width_pixel": columns,
        "height_pixel": rows,
        "contamination_fraction": round(picking.contamination_fraction, 5),
        "polygons": [stored(polygon) for polygon in picking.outlines],
    }
    with replacing(path) as stream:
        stream.write(json.dumps(document).encode("ascii"))


def _drawn(picking: Picking, picture: Picture, pixel_size_angstrom: float, stem: str) -> Image.Image:
    grey = micrograph_picture(picture.pixels)
    drawn = grey.convert("RGB")
    rows, columns = picture.pixels.shape
    across, down = drawn.width / columns, drawn.height / rows
    pen = ImageDraw.Draw(drawn)

    def place(x: float, y: float) -> tuple[float, float]:
        """In the picture, whose top row is the last one inside."""
        return (x + 0.5) * across, drawn.height - (y + 0.5) * down

    for polygon in picking.outlines:
        corners = [place(x, y) for x, y in polygon.tolist()]
        pen.line([*corners, corners[0]], fill=_JUNK_COLOUR, width=2)
    radius = max(2.0, 0.5 * picking.result.diameter_angstrom / pixel_size_angstrom * across)
    for pick in picking.result.picks:
        x, y = place(pick.x_pixel, pick.y_pixel)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=_PICK_COLOUR, width=2)
    return with_caption(drawn, [stem, _words(picking, columns * pixel_size_angstrom)])


def _words(picking: Picking, width_angstrom: float) -> str:
    count, diameter = len(picking.result.picks), picking.result.diameter_angstrom
    polarity = "dark on light" if picking.dark_on_light else "light on dark"
    junk = f"{picking.contamination_fraction:.1%} junk"
    particles = f"{count} particle{'s' * (count != 1)} of {diameter:.0f} Å, {polarity}" if count else "no particles"
    return f"{particles}; {junk}; the picture is {width_angstrom / 10:.0f} nm wide"
