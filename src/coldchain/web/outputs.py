"""What the steps wrote: found through the catalog alone, never through a path that a request names."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from coldchain.model.identity import is_safe_relative
from coldchain.model.results import PickResult, StepRun

MEDIA_TYPES = {".png": "image/png", ".json": "application/json", ".jpg": "image/jpeg"}


def output_path(results_root: Path, run: StepRun, role: str) -> Path | None:
    """Where the run's output of this role lies; None where it has none, it is gone, or it lies outside the results."""
    relative = run.outputs.get(role)
    if relative is None or "\0" in relative or not is_safe_relative(PurePosixPath(relative)):
        return None
    root = results_root.resolve()
    path = (root / relative).resolve()
    return path if path.is_relative_to(root) and path.is_file() else None


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes in pixels of a micrograph and of the picture that was made of it."""

    width_pixel: float
    height_pixel: float
    png_width: float
    png_height: float


def read_scale(path: Path | None) -> Scale | None:
    """The sizes that the preview step wrote; None where they are missing or cannot be true."""
    if path is None:
        return None
    try:
        document = json.loads(path.read_bytes())
        values = [float(document[name]) for name in ("width_pixel", "height_pixel", "png_width", "png_height")]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Scale(*values) if all(math.isfinite(value) and value > 0 for value in values) else None


def pick_centres(picks: PickResult, scale: Scale) -> list[tuple[float, float]]:
    """Centres in the units of an SVG over the picture, x to the right and y down.

    A micrograph's row 0 is the picture's bottom, a PNG's is its top. A pick counts from the first pixel's centre, an
    SVG from its corner.
    """
    across = scale.png_width / scale.width_pixel
    down = scale.png_height / scale.height_pixel
    return [
        (round((pick.x_pixel + 0.5) * across, 2), round(scale.png_height - (pick.y_pixel + 0.5) * down, 2))
        for pick in picks.picks
    ]


@dataclass(frozen=True, slots=True)
class ScaleBar:
    """A bar of a round length, in the picture's pixels, and its length in words."""

    x: float
    y: float
    width: float
    height: float
    text_size: float
    words: str


def scale_bar(scale: Scale, pixel_size_angstrom: float | None) -> ScaleBar | None:
    """A bar of 1, 2 or 5 times a power of ten, about a sixth of the picture long; None where no pixel size is known."""
    if pixel_size_angstrom is None or not (math.isfinite(pixel_size_angstrom) and pixel_size_angstrom > 0):
        return None
    wanted_angstrom = scale.width_pixel * pixel_size_angstrom / 6
    power = 10.0 ** math.floor(math.log10(wanted_angstrom))
    length_angstrom = max(step * power for step in (1, 2, 5) if step * power <= wanted_angstrom * (1 + 1e-9))
    width = length_angstrom / pixel_size_angstrom * scale.png_width / scale.width_pixel
    unit = scale.png_width / 100
    words = f"{length_angstrom / 10:g} nm" if length_angstrom >= 10 else f"{length_angstrom:g} Å"
    return ScaleBar(
        x=round(3 * unit, 2),
        y=round(scale.png_height - 4 * unit, 2),
        width=round(width, 2),
        height=round(0.9 * unit, 2),
        text_size=round(2.6 * unit, 2),
        words=words,
    )
