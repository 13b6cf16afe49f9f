"""A lone micrograph or spectrum as a fit or a search takes it: its pixels, and how it was taken."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from coldchain.preprocess.imaging import Imaging, ImagingFinder
from coldchain.preprocess.micrographs import Picture, is_spectrum, probe_picture, read_picture
from coldchain.preprocess.report import Failed
from coldchain.preprocess.turns import EXPECTED, failed

_ANGSTROM_PER_NANOMETER = 10.0
_USUAL_WIDTH_NANOMETER = (100.0, 2000.0)


@dataclass(frozen=True, slots=True, eq=False)
class KnownPicture:
    """A picture and what is known of it. `seconds` is what reading both took."""

    path: Path
    picture: Picture
    imaging: Imaging
    seconds: float

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the reader of a result should know of it."""
        return self.imaging.warnings + self.picture.warnings + self._doubtful_width()

    def _doubtful_width(self) -> tuple[str, ...]:
        """A question where the picture is narrower or wider than micrographs are; a spectrum's pixel tells no width."""
        width = max(self.picture.pixels.shape) * self.imaging.pixel_size_angstrom / _ANGSTROM_PER_NANOMETER
        if is_spectrum(self.path) or _USUAL_WIDTH_NANOMETER[0] <= width <= _USUAL_WIDTH_NANOMETER[1]:
            return ()
        return (f"The picture is {width:.3g} nm wide: is the pixel size right?",)


def read_known(path: Path, finder: ImagingFinder) -> KnownPicture | Failed:
    """Read a picture and what is known of it; why that cannot be, where it cannot."""
    began = time.perf_counter()
    try:
        info = probe_picture(path)
        imaging = finder.find(info)
        picture = read_picture(info)
    except EXPECTED as error:
        return failed(error, path)
    return KnownPicture(path, picture, imaging, time.perf_counter() - began)
