"""Single images, and the orientation that they share."""

import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from coldchain.errors import FormatError, IncompleteFileError
from coldchain.formats import eer, mrc, tiff
from coldchain.formats.image import read_image, write_png

RNG = np.random.default_rng(23)
PICTURE = RNG.integers(0, 4000, (21, 33)).astype(np.uint16)


def test_all_kinds_give_one_orientation(tmp_path: Path) -> None:
    """The same picture in four containers comes as the same float32 array."""
    mrc.write_mrc(tmp_path / "a.mrc", PICTURE, pixel_size_angstrom=1.0)
    tiff.write_tiff_movie(tmp_path / "a.tif", [PICTURE])
    write_png(tmp_path / "a.png", PICTURE)
    for name in ("a.mrc", "a.tif", "a.png"):
        image = read_image(tmp_path / name)
        assert image.dtype == np.float32
        assert image.flags.c_contiguous
        assert np.array_equal(image, PICTURE)
    events = (PICTURE > 3000).astype(np.uint8)
    eer.write_eer(tmp_path / "a.eer", [events, events])
    assert np.array_equal(read_image(tmp_path / "a.eer"), 2 * events)


def test_another_program_sees_the_top_row_first(tmp_path: Path) -> None:
    """In a PNG the picture's top, our last row, comes first; a JPEG is read the other way round alike."""
    write_png(tmp_path / "a.png", (PICTURE >> 4).astype(np.uint8))
    with Image.open(tmp_path / "a.png") as file:
        assert np.array_equal(np.asarray(file), (PICTURE >> 4)[::-1])
    (tmp_path / "a.jpg").write_bytes(imagecodecs.jpeg8_encode(np.repeat([[0], [250]], 64, axis=1).astype(np.uint8)))
    image = read_image(tmp_path / "a.jpg")
    assert image[0].mean() > image[1].mean()


def test_the_first_of_several_is_taken(tmp_path: Path) -> None:
    """A stack gives its first section or page."""
    stack = np.stack([PICTURE, PICTURE + 1])
    mrc.write_mrc(tmp_path / "a.mrc", stack, pixel_size_angstrom=1.0)
    tiff.write_tiff_movie(tmp_path / "a.tif", stack)
    for name in ("a.mrc", "a.tif"):
        assert np.array_equal(read_image(tmp_path / name), PICTURE)


def test_colours_are_averaged(tmp_path: Path) -> None:
    """A colour picture becomes grey; transparency is no colour."""
    pixels = RNG.integers(0, 255, (8, 9, 4)).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    assert np.allclose(read_image(tmp_path / "a.png"), pixels[::-1, :, :3].mean(axis=2), atol=1e-3)


def test_damaged_pictures_are_stated_errors(tmp_path: Path) -> None:
    """A cut JPEG, a cut PNG and a PNG that promises a gigapixel in few bytes are refused."""
    jpeg = imagecodecs.jpeg8_encode((PICTURE >> 4).astype(np.uint8))
    (tmp_path / "a.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    with pytest.raises(IncompleteFileError, match="no end marker"):
        read_image(tmp_path / "a.jpg")
    write_png(tmp_path / "a.png", PICTURE)
    png = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(png[: len(png) // 2])
    with pytest.raises(FormatError, match="cannot be decoded"):
        read_image(tmp_path / "a.png")
    head = b"IHDR" + struct.pack(">IIBBBBB", 1 << 20, 1 << 20, 8, 0, 0, 0, 0)
    bomb = png[:8] + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + png[33:]
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(FormatError, match="1048576 × 1048576"):
        read_image(tmp_path / "bomb.png")


def test_an_image_without_a_number_is_refused(tmp_path: Path) -> None:
    """A micrograph of NaNs alone is no image."""
    mrc.write_mrc(tmp_path / "a.mrc", np.full((4, 4), np.nan, np.float32), pixel_size_angstrom=1.0)
    with pytest.raises(FormatError, match="no pixel is a finite number"):
        read_image(tmp_path / "a.mrc")


def test_what_is_no_grey_picture_is_not_written(tmp_path: Path) -> None:
    """Floats and stacks are refused by the PNG writer."""
    for array in (np.zeros((2, 2), np.float32), np.zeros((2, 2, 2), np.uint8)):
        with pytest.raises(FormatError):
            write_png(tmp_path / "a.png", array)  # type: ignore[arg-type]  # the wrong type is what is tested


def test_real_apoferritin_sums_are_read(real_data: Path) -> None:
    """The 16-bit PNGs of EMPIAR-10146 have 1240 × 1200 pixels, the bottom row first."""
    for path in sorted((real_data / "apoferritin").glob("*.png")):
        image = read_image(path)
        with Image.open(path) as file:
            assert np.array_equal(image[::-1], np.asarray(file))
        assert sorted(image.shape) == [1200, 1240]
        assert image.max() > 255


def test_real_epu_previews_are_read(real_data: Path) -> None:
    """EPU's own JPEGs of exposures have 512 × 364 pixels."""
    paths = sorted((real_data / "epu_session").rglob("FoilHole_*_Data_*.jpg"))
    assert len(paths) == 4
    for path in paths:
        assert read_image(path).shape == (364, 512)
