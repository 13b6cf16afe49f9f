"""TIFF movies: rows reversed, every plain layout straight from its strips, the rest through tifffile, damage named."""

import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from coldchain.errors import FormatError, IncompleteFileError
from coldchain.formats import ifd, tiff
from coldchain.formats.structure import check_structure

RNG = np.random.default_rng(11)
FRAMES = RNG.poisson(1.0, (4, 61, 83)).astype(np.uint8)


def written(path: Path, frames: np.ndarray, **options: Any) -> Path:
    """A TIFF as tifffile writes it, picture's top row first."""
    with tifffile.TiffWriter(
        path, bigtiff=options.pop("bigtiff", False), byteorder=options.pop("byteorder", "<")
    ) as out:
        for frame in frames:
            out.write(frame[::-1], photometric="minisblack", metadata=None, **options)
    return path


@pytest.mark.parametrize("compression", ["lzw", "deflate", "none"])
@pytest.mark.parametrize("big", [False, True])
def test_a_movie_comes_back(tmp_path: Path, compression: tiff.Compression, big: bool) -> None:
    """What is written is read again, by one thread and by several; tifffile sees the rows reversed."""
    path = tmp_path / "movie.tif"
    tiff.write_tiff_movie(path, FRAMES, compression=compression, big=big, pixel_size_angstrom=0.6425)
    check_structure(path)
    assert np.array_equal(tiff.read_tiff(path), FRAMES)
    assert np.array_equal(tiff.read_tiff(path, threads=3), FRAMES)
    assert np.array_equal(tifffile.imread(path), FRAMES[:, ::-1])
    assert tiff.pixel_size_angstrom(ifd.read_pages(path)[0]) == pytest.approx(0.6425, rel=1e-7)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.float32, np.float64])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
def test_types_and_byte_orders(tmp_path: Path, dtype: type, byteorder: str, compression: str | None) -> None:
    """Every type that cameras write is read in either byte order, into this machine's."""
    frames = (FRAMES.astype(np.int64) * 50).astype(dtype)
    path = written(tmp_path / "movie.tif", frames, byteorder=byteorder, compression=compression, rowsperstrip=7)
    read = tiff.read_tiff(path)
    assert read.dtype == dtype
    assert np.array_equal(read, frames)


@pytest.mark.parametrize(
    "options",
    [
        {"tile": (16, 32), "compression": "lzw"},
        {"compression": "lzw", "predictor": True},
        {"compression": "zlib", "predictor": True},
        {"compression": "zstd"},
        {"compression": "packbits"},
    ],
)
def test_other_layouts_go_through_tifffile(tmp_path: Path, options: dict[str, Any]) -> None:
    """Tiles, predictors and rarer codecs give the same frames."""
    assert np.array_equal(tiff.read_tiff(written(tmp_path / "movie.tif", FRAMES, **options)), FRAMES)


def test_pages_of_different_kinds(tmp_path: Path) -> None:
    """A thumbnail beside the frames is passed over; a frame of another shape is named."""
    path = tmp_path / "movie.tif"
    with tifffile.TiffWriter(path) as out:
        out.write(FRAMES[0, ::-1], metadata=None)
        out.write(FRAMES[0, :10, :10], metadata=None, subfiletype=1)
        out.write(FRAMES[1, ::-1], metadata=None)
    assert np.array_equal(tiff.read_tiff(path), FRAMES[:2])
    with tifffile.TiffWriter(path) as out:
        out.write(FRAMES[0], metadata=None)
        out.write(FRAMES[1, :10], metadata=None)
    with pytest.raises(FormatError, match="page 1 is 83 × 10"):
        tiff.read_tiff(path)


def test_colours_are_refused(tmp_path: Path) -> None:
    """An RGB image is no movie, and the error says so."""
    path = tmp_path / "colour.tif"
    tifffile.imwrite(path, np.zeros((8, 8, 3), np.uint8), photometric="rgb", metadata=None)
    with pytest.raises(FormatError, match="3 samples"):
        tiff.read_tiff(path)


@pytest.mark.parametrize("compression", ["lzw", "deflate"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_corrupt_strip_is_named(tmp_path: Path, compression: tiff.Compression, threads: int) -> None:
    """A strip that cannot be decoded is named with its frame, though the structure of the file is whole."""
    path = tmp_path / "movie.tif"
    tall = RNG.poisson(1.0, (3, 1200, 600)).astype(np.uint8)
    tiff.write_tiff_movie(path, tall, compression=compression)
    offset, count = ifd.read_pages(path)[2].segments[1]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = b"\x80" + b"\xff" * (count - 1)
    path.write_bytes(data)
    check_structure(path)
    with pytest.raises(FormatError, match="strip 1 of frame 2 cannot be decoded") as caught:
        tiff.read_tiff(path, threads=threads)
    assert caught.value.path == path
    assert caught.value.remedy


def test_a_strip_that_decodes_to_too_little_is_named(tmp_path: Path) -> None:
    """An early end inside a strip is an error, not a frame whose bottom is whatever memory held."""
    path = tmp_path / "movie.tif"
    tiff.write_tiff_movie(path, FRAMES[:1], compression="lzw")
    offset, count = ifd.read_pages(path)[0].segments[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = imagecodecs.lzw_encode(bytes(100)).ljust(count, b"\0")[:count]
    path.write_bytes(data)
    with pytest.raises(FormatError, match="strip 0 of frame 0 cannot be decoded: it decodes to 100 bytes"):
        tiff.read_tiff(path)


def test_a_bomb_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    """A page that promises a million rows in a few bytes is refused by its promise."""
    path = tmp_path / "bomb.tif"
    tiff.write_tiff_movie(path, np.zeros((1, 64, 64), np.uint8), compression="deflate")
    data = bytearray(path.read_bytes())
    for tag in (256, 257):
        at = data.index(struct.pack("<HHI", tag, 4, 1), 8)
        struct.pack_into("<HHII", data, at, tag, 4, 1, 1 << 20)
    path.write_bytes(data)
    with pytest.raises(FormatError, match="promises 1,099,511,627,776 bytes"):
        tiff.read_tiff(path)


def test_pages_that_share_a_strip_are_refused(tmp_path: Path) -> None:
    """One strip cannot be every frame of a movie: a thousand pages on it are refused before any memory is taken."""
    path = tmp_path / "shared.tif"
    size = 2 + 12 * len(PLAIN) + 4
    count = 1000
    strip = 8 + size * count
    entries = [*PLAIN[:3], (273, 4, 1, strip), (279, 4, 1, 4)]
    links = [8 + size * (number + 1) for number in range(count - 1)] + [0]
    path.write_bytes(classic(*((entries, link) for link in links)) + bytes(8))
    for act in (check_structure, tiff.read_tiff):
        with pytest.raises(FormatError, match=f"directory 1 begins at byte {strip:,}, in one of directory 0"):
            act(path)
    apart = [([*entries[:3], (273, 4, 1, strip + 4 * f), entries[4]], link) for f, link in enumerate(links)]
    path.write_bytes(classic(*apart) + bytes(4 * count))
    assert tiff.read_tiff(path).shape == (count, 1, 4)


def classic(*directories: tuple[list[tuple[int, int, int, int]], int]) -> bytes:
    """A little-endian TIFF of hand-made directories: (entries, offset of the next)."""
    blocks = b"".join(
        struct.pack("<H", len(entries))
        + b"".join(struct.pack("<HHII", *entry) for entry in entries)
        + struct.pack("<I", link)
        for entries, link in directories
    )
    return b"II*\0" + struct.pack("<I", 8) + blocks


PLAIN = [(256, 4, 1, 4), (257, 4, 1, 1), (258, 3, 1, 8), (273, 4, 1, 0), (279, 4, 1, 4)]


def test_a_circle_of_directories_ends(tmp_path: Path) -> None:
    """A directory that leads back to itself or to another is refused, not followed for ever."""
    entries = [*PLAIN[:3], (273, 4, 1, 4), (279, 4, 1, 4)]
    size = 2 + 12 * len(entries) + 4
    for data in (classic((entries, 8)), classic((entries, 8 + size), (entries, 8))):
        path = tmp_path / "circle.tif"
        path.write_bytes(data + bytes(64))
        with pytest.raises(FormatError, match="leads back"):
            check_structure(path)


def test_arrays_longer_than_the_file_are_refused(tmp_path: Path) -> None:
    """Many directories that share one long array cannot make the walk take longer than the file is long."""
    rows = 400
    entries = [(256, 4, 1, 4), (257, 4, 1, rows), (258, 3, 1, 8), (273, 4, rows, 8), (278, 4, 1, 1), (279, 4, rows, 8)]
    size = 2 + 12 * len(entries) + 4
    count = 50
    links = [8 + size * (number + 1) for number in range(count - 1)] + [0]
    path = tmp_path / "shared.tif"
    path.write_bytes(classic(*((entries, link) for link in links)) + bytes(4))
    with pytest.raises(FormatError):
        check_structure(path)


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"", IncompleteFileError, "empty"),
        (b"II*\0", IncompleteFileError, "before the end of its header"),
        (b"II*\0\0\0\0\0", IncompleteFileError, "no directory yet"),
        (bytes(64), IncompleteFileError, "no header yet"),
        (b"II*\0\xff\xff\xff\x7f", IncompleteFileError, "before the end of directory 0"),
        (b"II+\0\x08\0\0\0" + bytes(8), IncompleteFileError, "no directory yet"),
        (b"II+\0\x04\0\0\0" + bytes(8), FormatError, "offsets of 4 bytes"),
        (b"hello, this is text", FormatError, "begins with 68 65 6c 6c"),
        (classic(([], 0)) + bytes(64), FormatError, "has 0 entries"),
        (classic((PLAIN, 0)), IncompleteFileError, "strip 0 of directory 0 is not written yet"),
        (classic((PLAIN[:3], 0)), FormatError, "0 strip offsets"),
        (classic(([*PLAIN[:3], (273, 4, 1, 4000), (279, 4, 1, 4)], 0)), IncompleteFileError, "before strip 0"),
        (classic(([(256, 4, 1, 0), *PLAIN[1:]], 0)), FormatError, "0 × 1 pixels"),
        (classic(([(256, 4, 0, 4), *PLAIN[1:]], 0)), FormatError, "0 × 1 pixels"),
        (classic(([*PLAIN[:3], (273, 4, 1 << 30, 4), (279, 4, 1 << 30, 4)], 0)), IncompleteFileError, "tag 273"),
    ],
)
def test_broken_headers_and_directories(tmp_path: Path, data: bytes, kind: type, words: str) -> None:
    """What may still be written is incomplete; what no more bytes can mend is a format error."""
    path = tmp_path / "movie.tif"
    path.write_bytes(data)
    with pytest.raises(kind, match=words) as caught:
        check_structure(path)
    assert type(caught.value) is kind


@given(st.data())
def test_flipped_bytes_give_frames_or_a_stated_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever three bytes are changed, reading gives frames or an error of ours."""
    path = tmp_path_factory.getbasetemp() / "flipped.tif"
    tiff.write_tiff_movie(path, FRAMES[:2, :20, :30], compression="lzw")
    content = bytearray(path.read_bytes())
    for _ in range(3):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        check_structure(path)
        tiff.read_tiff(path)
    except FormatError as error:
        assert error.path == path


def test_no_frames_is_an_error(tmp_path: Path) -> None:
    """A movie without frames is refused, and nothing is left behind."""
    with pytest.raises(FormatError, match="no frames"):
        tiff.write_tiff_movie(tmp_path / "movie.tif", [])
    assert list(tmp_path.iterdir()) == []
