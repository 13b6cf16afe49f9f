"""A lone micrograph or spectrum as a fit or a search takes it: its pixels, and how it was taken."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from coldchain.preprocess.imaging import Imaging, ImagingFinder
from coldchain.preprocess.micrographs import Picture, probe_picture, read_picture
from coldchain.preprocess.report import Failed
from coldchain.preprocess.turns import EXPECTED, failed


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
        return self.imaging.warnings + self.picture.warnings


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
