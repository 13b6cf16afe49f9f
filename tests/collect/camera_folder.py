"""What cameras and microscopes write, small."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from coldchain.formats.mrc import write_mrc

STEM = "FoilHole_9015883_Data_9017347_6_20250108_154915"
DATA = "visit/Images-Disc1/GridSquare_8999138/Data"

_XML = """<?xml version="1.0" encoding="utf-8"?>
<MicroscopeImage xmlns="http://schemas.datacontract.org/2004/07/Fei.SharedObjects">
  <CustomData xmlns:a="http://schemas.microsoft.com/2003/10/Serialization/Arrays">
    <a:KeyValueOfstringanyType><a:Key>Dose</a:Key><a:Value>4.1E+21</a:Value></a:KeyValueOfstringanyType>
  </CustomData>
  <SpatialScale><pixelSize><x><numericValue>{pixel}E-10</numericValue></x></pixelSize></SpatialScale>
  <microscopeData><gun><AccelerationVoltage>300000</AccelerationVoltage></gun></microscopeData>
</MicroscopeImage>
"""

_MDOC = """T = SerialEM: Test
Voltage = 300

[FrameSet = 0]
PixelSpacing = 0.83
Binning = 1
ExposureDose = 40
NumSubFrames = 3
GainReference = {gain}
"""


def write_movie(path: Path, *, frames: int = 3, pixel_size_angstrom: float = 1.3, value: int = 1) -> Path:
    """An MRC of so many frames of 8 × 8 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stack = np.full((frames, 8, 8), value, dtype=np.int16)
    write_mrc(path, stack if frames > 1 else stack[0], pixel_size_angstrom=pixel_size_angstrom)
    return path


def movie_bytes(folder: Path, *, frames: int = 3) -> bytes:
    """The bytes of such a movie."""
    path = write_movie(folder / "bytes.mrc", frames=frames)
    data = path.read_bytes()
    path.unlink()
    return data


def write_xml(path: Path, *, pixel_size_angstrom: float = 0.66) -> Path:
    """An exposure's XML as EPU writes it: 300 kV, 41 e/Å²."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_XML.format(pixel=pixel_size_angstrom))
    return path


def write_mdoc(path: Path, *, gain: str = "ref.mrc") -> Path:
    """A frame set's mdoc as SerialEM writes it: 300 kV, 0.83 Å, 40 e/Å², three frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_MDOC.format(gain=gain))
    return path


def wait_for(condition: Callable[[], bool], what: str, *, seconds: float = 60) -> None:
    """Return as soon as the condition holds; fail, saying what was waited for, when it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.01)


@contextmanager
def somebody_else() -> Iterator[None]:
    """Inside, permissions count: root becomes another user."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
