"""Single images, and the orientation that they share."""

import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import write_png
from PIL import Image

from coldchain.errors import FormatError, IncompleteFileError
from coldchain.formats import eer, mrc, tiff
from coldchain.formats.image import read_image
from coldchain.formats.movie import load_movie, probe_movie
from coldchain.formats.picture import check_picture

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


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_transparency_beside_grey_is_left_out(tmp_path: Path, dtype: type) -> None:
    """A grey PNG with an alpha channel has its own grey values, in the camera's type, not their mean with the alpha."""
    pixels = np.full((8, 9, 2), np.iinfo(dtype).max, dtype)
    pixels[..., 0] = RNG.integers(0, 99, (8, 9))
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    assert np.array_equal(read_image(tmp_path / "a.png"), pixels[::-1, :, 0])
    assert probe_movie(tmp_path / "a.png").dtype == load_movie(tmp_path / "a.png").frames.dtype == dtype


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


def jpeg(pixels: np.ndarray, rows: int | None = None, columns: int | None = None) -> bytes:
    """A JPEG, if wanted with another size written into its frame header."""
    data = bytearray(imagecodecs.jpeg8_encode(pixels))
    at = data.index(b"\xff\xc0")
    if rows and columns:
        struct.pack_into(">HH", data, at + 5, rows, columns)
    return bytes(data)


@pytest.mark.parametrize("name", ["a.jpg", "bomb.tif", "bomb.png"])
def test_a_jpegs_size_is_known_and_bounded_without_decoding_it(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its name, a JPEG is probed by its frame header; one that promises four gigapixels is refused by it."""
    monkeypatch.setattr(imagecodecs, "jpeg8_decode", None)
    path = tmp_path / name
    path.write_bytes(jpeg(np.zeros((40, 60), np.uint8)))
    info = probe_movie(path)
    assert (info.container, info.frames, info.height, info.width, info.dtype) == ("image", 1, 40, 60, "uint8")
    path.write_bytes(jpeg(np.zeros((40, 60, 3), np.uint8)))
    assert probe_movie(path).dtype == "float32"
    path.write_bytes(jpeg(np.zeros((40, 60), np.uint8), 65500, 65500))
    for act in (probe_movie, load_movie, read_image, check_picture):
        with pytest.raises(FormatError, match="the JPEG says 65500 × 65500 pixels"):
            act(path)


def test_a_pngs_size_is_read_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PNG named .tif is probed by its header and not decoded."""
    monkeypatch.setattr(imagecodecs, "png_decode", None)
    write_png(tmp_path / "a.tif", PICTURE)
    info = probe_movie(tmp_path / "a.tif")
    assert (info.container, info.height, info.width, info.dtype) == ("image", 21, 33, "uint16")


@given(st.data())
def test_a_jpeg_with_changed_bytes_gives_a_size_or_a_stated_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Cut anywhere and with any two bytes changed, a JPEG's header is read or refused as ours."""
    path = tmp_path_factory.getbasetemp() / "changed.tif"
    content = bytearray(jpeg(np.zeros((40, 60, 3), np.uint8)))
    for _ in range(2):
        content[data.draw(st.integers(3, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(8, len(content)))])
    for act in (probe_movie, check_picture):
        try:
            act(path)
        except FormatError as error:
            assert error.path == path


def test_a_few_pixels_that_are_no_numbers_are_filled(tmp_path: Path) -> None:
    """A dead pixel does not cost a micrograph: up to one in a hundred takes the median of the others."""
    image = PICTURE.astype(np.float32)
    image[3, 4:7] = np.nan, np.inf, -np.inf
    tiff.write_tiff_movie(tmp_path / "a.tif", [image])
    read = read_image(tmp_path / "a.tif")
    right = np.isfinite(image)
    assert np.array_equal(read[right], image[right])
    assert (read[3, 4:7] == np.median(image[right])).all()
    image[:, 0] = np.nan
    tiff.write_tiff_movie(tmp_path / "a.tif", [image])
    with pytest.raises(FormatError, match=r"24 of 693 pixels are not finite numbers; expected at most 1%") as caught:
        read_image(tmp_path / "a.tif")
    assert caught.value.remedy


def test_an_image_without_a_number_is_refused(tmp_path: Path) -> None:
    """A micrograph of NaNs alone is no image; doubles beyond all floats are not finite either."""
    mrc.write_mrc(tmp_path / "a.mrc", np.full((4, 4), np.nan, np.float32), pixel_size_angstrom=1.0)
    tiff.write_tiff_movie(tmp_path / "a.tif", [np.full((4, 4), 1e300)])
    for name in ("a.mrc", "a.tif"):
        with pytest.raises(FormatError, match="16 of 16 pixels are not finite numbers"):
            read_image(tmp_path / name)


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
