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

from coldchain.errors import FormatError, IncompleteFileError, UsageError
from coldchain.formats import ifd, tiff
from coldchain.formats.movie import MovieReading, load_movie, probe_movie
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
        {"tile": (16, 32)},
        {"tile": (16, 32), "compression": "lzw"},
        {"tile": (64, 96), "compression": "zlib"},
        {"compression": "lzw", "predictor": True},
        {"compression": "zlib", "predictor": True, "rowsperstrip": 5},
        {"tile": (32, 16), "compression": "lzw", "predictor": True},
        {"compression": "zstd"},
        {"compression": "packbits"},
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_other_layouts_are_read(tmp_path: Path, options: dict[str, Any], dtype: type, byteorder: str) -> None:
    """Tiles, predictors of integers and of floats, and rarer codecs give the same frames."""
    frames = (FRAMES * 37.0).astype(dtype)
    path = written(tmp_path / "movie.tif", frames, byteorder=byteorder, **options)
    assert np.array_equal(tiff.read_tiff(path), frames)
    assert np.array_equal(tiff.read_tiff(path, threads=2), frames)


def test_unknown_compressions_are_named(tmp_path: Path) -> None:
    """What no camera writes is refused with what is read."""
    path = tmp_path / "movie.tif"
    with tifffile.TiffWriter(path) as out:
        out.write(FRAMES[0], photometric="minisblack", metadata=None, compression="jpeg")
    with pytest.raises(FormatError, match="compression 7 with predictor 1; expected one of none, LZW, deflate"):
        tiff.read_tiff(path)


@pytest.mark.parametrize("width", [83, 84])
def test_pixels_of_one_and_of_four_bits(tmp_path: Path, width: int) -> None:
    """TIFF's own order has the left pixel in the high bits; a row begins on a new byte; bits may lie reversed."""
    pixels = RNG.integers(0, 16, (3, 61, width)).astype(np.uint8)
    even = np.pad(pixels, ((0, 0), (0, 0), (0, width % 2)))
    packed = even[..., 0::2] << 4 | even[..., 1::2]
    path = tmp_path / "movie.tif"
    for number, stored in enumerate((packed, np.packbits(pixels & 1, axis=2))):
        written(path, stored, compression="lzw" if number else None)
        bits = (4, 1)[number]
        patch(path, **{"258": bits, "256": width})
        assert probe_movie(path).width == width
        assert np.array_equal(tiff.read_tiff(path), pixels if bits == 4 else pixels & 1)
    assert np.array_equal(tiff.read_tiff(reversed_bits(path)), pixels & 1)


def patch(path: Path, **values: int) -> None:
    """Other values in place of a little-endian classic TIFF's own, in all directories: tag=value."""
    data = bytearray(path.read_bytes())
    for tag, value in values.items():
        at = 0
        while True:
            found = [data.find(struct.pack("<HHI", int(tag), kind, 1), at) for kind in (3, 4)]
            at = min((place for place in found if place >= 0), default=-1)
            if at < 0:
                break
            struct.pack_into("<HHII", data, at, int(tag), 4, 1, value)
            at += 12
    path.write_bytes(data)


def reversed_bits(path: Path) -> Path:
    """The same file with the bits of every strip's bytes reversed, and saying so."""
    data = bytearray(path.read_bytes())
    for page in ifd.read_pages(path):
        for offset, count in page.segments.tolist():
            data[offset : offset + count] = imagecodecs.bitorder_decode(bytes(data[offset : offset + count]))
    # The tag after which the fill order belongs is one that nothing here reads.
    for page_at in [at for at in range(len(data)) if data[at : at + 8] == struct.pack("<HHI", 262, 3, 1)]:
        struct.pack_into("<HHII", data, page_at, 266, 3, 1, 2)
    path.write_bytes(data)
    return path


def test_serialems_packed_pixels_are_unpacked(tmp_path: Path) -> None:
    """Bytes of two pixels each, the left one in the low bits, are told by the title that the plugin writes."""
    pixels = RNG.integers(0, 16, (3, 20, 46)).astype(np.uint8)
    packed = pixels[..., 0::2] | pixels[..., 1::2] << 4
    title = "SerialEMCCD: Dose frac. image, 4 bits packed  r/f 0"
    path = written(tmp_path / "movie.tif", packed, compression="lzw", description=title, rowsperstrip=3)
    assert (probe_movie(path).width, probe_movie(path).height) == (46, 20)
    assert np.array_equal(tiff.read_tiff(path), pixels)
    tiled = written(tmp_path / "tiled.tif", packed, compression="lzw", description=title, tile=(16, 16))
    assert np.array_equal(tiff.read_tiff(tiled), pixels)


def test_packed_super_resolution_frames_are_told_by_their_size(tmp_path: Path) -> None:
    """Bytes of half a K3's super-resolution width are packed pixels; of a K3's own width they are not."""
    path = tmp_path / "movie.tif"
    for shape, width in (((8184, 5760), 11520), ((4092, 5760), 5760)):
        tifffile.imwrite(path, np.full(shape, 0x21, np.uint8), photometric="minisblack", metadata=None)
        assert probe_movie(path).width == width
    tifffile.imwrite(path, np.full((8184, 5760), 0x21, np.uint8), metadata=None, compression="zlib")
    assert tiff.read_tiff(path)[0, 5, :4].tolist() == [1, 2, 1, 2]


def test_pages_of_different_kinds(tmp_path: Path) -> None:
    """A thumbnail beside the frames is passed over, marked in the new way or the old; a frame of another shape is
    named."""
    path = tmp_path / "movie.tif"
    with tifffile.TiffWriter(path) as out:
        out.write(FRAMES[0, ::-1], metadata=None)
        out.write(FRAMES[0, :10, :10], metadata=None, subfiletype=1)
        out.write(FRAMES[1, ::-1], metadata=None)
        out.write(FRAMES[0, :12, :10], metadata=None, extratags=[(255, 3, 1, 2, True)])
    assert np.array_equal(tiff.read_tiff(path), FRAMES[:2])
    assert probe_movie(path).frames == 2
    with tifffile.TiffWriter(path) as out:
        out.write(FRAMES[0], metadata=None)
        out.write(FRAMES[1, :10], metadata=None)
    for act in (tiff.read_tiff, probe_movie, check_structure):
        with pytest.raises(FormatError, match="page 2 is 83 × 10 with 8 bits; expected 83 × 61 with 8 bits, as page 1"):
            act(path)


def test_pages_that_differ_in_all_but_shape_and_type_are_one_movie(tmp_path: Path) -> None:
    """Where every page has its own description, software and compression, tifffile sees as many series as frames."""
    path = tmp_path / "movie.tif"
    with tifffile.TiffWriter(path) as out:
        for number, (frame, codec) in enumerate(zip(FRAMES, ("lzw", None, "zlib", "lzw"), strict=True)):
            out.write(
                frame[::-1],
                photometric="minisblack",
                metadata=None,
                description=f"frame {number}",
                software="a" * number,
                compression=codec,
                rowsperstrip=5 + number,
                extratags=[(65000 + number, "H", 1, number, True)],
            )
    with tifffile.TiffFile(path) as file:
        assert len(file.series) > 1
    assert np.array_equal(load_movie(path).frames, FRAMES)


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
    with pytest.raises(FormatError, match="strip 2 of frame 3 cannot be decoded") as caught:
        tiff.read_tiff(path, threads=threads)
    assert caught.value.path == path
    assert caught.value.remedy


def spoil(path: Path, *strips: tuple[int, int]) -> None:
    """Overwrite strips, given as frame and strip from 0, with what is no LZW."""
    data = bytearray(path.read_bytes())
    pages = ifd.read_pages(path)
    for frame, strip in strips:
        offset, count = pages[frame].segments[strip]
        data[offset : offset + count] = b"\x80" + b"\xff" * (count - 1)
    path.write_bytes(data)


@pytest.mark.parametrize("threads", [1, 3])
def test_bad_frames_are_left_out_and_named(tmp_path: Path, threads: int) -> None:
    """As many frames as are tolerated may be bad; the others come, with their numbers, and the bad ones' reasons."""
    path = written(tmp_path / "movie.tif", FRAMES, compression="lzw", rowsperstrip=8)
    spoil(path, (1, 6), (1, 2), (2, 0))
    movie = load_movie(path, MovieReading(tolerate_frames=2, threads=threads))
    assert np.array_equal(movie.frames, FRAMES[[0, 3]])
    assert movie.numbers == (1, 4)
    assert movie.camera_frames == (1, 1)
    assert [left.number for left in movie.left_out] == [2, 3]
    assert movie.left_out[0].reason.startswith("strip 3 of frame 2 cannot be decoded")
    with pytest.raises(FormatError, match=r"at least 2 frames cannot be used; strip . of frame 2 .* at most 1"):
        load_movie(path, MovieReading(tolerate_frames=1, threads=threads))
    spoil(path, (0, 0), (3, 7))
    with pytest.raises(FormatError, match="no frame is left: strip 1 of frame 1"):
        load_movie(path, MovieReading(tolerate_frames=4, threads=threads))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_run_of_frames_can_be_chosen(tmp_path: Path, threads: int) -> None:
    """First and last count from 1 and are both meant; what lies outside is not decoded, so it may be damaged."""
    path = written(tmp_path / "movie.tif", FRAMES, compression="lzw")
    spoil(path, (0, 0), (3, 0))
    movie = load_movie(path, MovieReading(first_frame=2, last_frame=3, threads=threads))
    assert np.array_equal(movie.frames, FRAMES[1:3])
    assert movie.numbers == (2, 3)
    for first, last, wrong in ((2, 5, 5), (5, None, 5), (9, 10, 9)):
        with pytest.raises(UsageError, match=f"frame {wrong} is wanted, and the movie has 4 frames"):
            load_movie(path, MovieReading(first_frame=first, last_frame=last))


def test_a_strip_outside_the_file_is_a_bad_frame(tmp_path: Path) -> None:
    """A directory that points behind the end costs its frame; without tolerance the file is incomplete."""
    path = written(tmp_path / "movie.tif", FRAMES, compression="lzw", rowsperstrip=100)
    data = bytearray(path.read_bytes())
    offset = int(ifd.read_pages(path)[2].segments[0][0])
    at = data.index(struct.pack("<HHII", 273, 4, 1, offset))
    struct.pack_into("<I", data, at + 8, len(data) - 3)
    path.write_bytes(data)
    with pytest.raises(IncompleteFileError, match="before strip 1 of directory 3 does"):
        load_movie(path)
    movie = load_movie(path, MovieReading(tolerate_frames=1))
    assert movie.numbers == (1, 2, 4)
    assert np.array_equal(movie.frames, FRAMES[[0, 1, 3]])
    assert load_movie(path, MovieReading(last_frame=2)).numbers == (1, 2)


def test_a_movie_cut_between_frames_gives_the_first_ones_to_who_asks_for_them(tmp_path: Path) -> None:
    """How many frames are missing behind a broken chain nobody knows: what is there has to be asked for."""
    path = written(tmp_path / "movie.tif", FRAMES, compression="lzw")
    third = ifd.read_pages(path)[2].segments[0][0]
    path.write_bytes(path.read_bytes()[: int(third) - 60])
    for how in (MovieReading(), MovieReading(tolerate_frames=4), MovieReading(last_frame=3)):
        with pytest.raises(IncompleteFileError):
            load_movie(path, how)
    assert np.array_equal(load_movie(path, MovieReading(last_frame=2)).frames, FRAMES[:2])


def test_a_page_with_too_few_strips_is_damaged(tmp_path: Path) -> None:
    """A height that its strips do not add up to is a lie."""
    path = written(tmp_path / "movie.tif", FRAMES, compression="lzw", rowsperstrip=8)
    patch(path, **{"257": 600})
    with pytest.raises(FormatError, match="page 1 has 8 strips of 83 × 8 pixels; expected 75 for 83 × 600"):
        tiff.read_tiff(path)


def test_a_strip_that_decodes_to_too_little_is_named(tmp_path: Path) -> None:
    """An early end inside a strip is an error, not a frame whose bottom is whatever memory held."""
    path = tmp_path / "movie.tif"
    tiff.write_tiff_movie(path, FRAMES[:1], compression="lzw")
    offset, count = ifd.read_pages(path)[0].segments[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = imagecodecs.lzw_encode(bytes(100)).ljust(count, b"\0")[:count]
    path.write_bytes(data)
    with pytest.raises(FormatError, match="strip 1 of frame 1 cannot be decoded: it decodes to 100 bytes"):
        tiff.read_tiff(path)


@pytest.mark.parametrize("compression", ["lzw", "zlib", None])
@pytest.mark.parametrize("predictor", [False, True])
def test_a_last_strip_as_long_as_the_others_is_cut(tmp_path: Path, compression: str | None, predictor: bool) -> None:
    """Some writers fill the last strip up with rows that the picture does not have."""
    options = {"predictor": True} if predictor and compression else {}
    top_first = np.pad(FRAMES, ((0, 0), (0, 2), (0, 0)))
    path = written(tmp_path / "movie.tif", top_first[:, ::-1], compression=compression, rowsperstrip=21, **options)
    patch(path, **{"257": 50})
    movie = tiff.read_tiff(path)
    assert movie.shape == (4, 50, 83)
    assert np.array_equal(movie, FRAMES[:, 49::-1])


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
        with pytest.raises(FormatError, match=f"directory 2 begins at byte {strip:,}, in one of directory 1"):
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


def test_directories_that_overlap_are_refused(tmp_path: Path) -> None:
    """A hundred thousand directories of 4,096 entries each, in a megabyte, end the walk as soon as it has read as much
    as there is."""
    count, entries = 170_000, 4096
    # Directory k begins at record k; the link behind its entries is that of record k + 2 · entries.
    records = np.zeros(count, dtype=[("entries", "<u2"), ("next", "<u4")])
    records["entries"] = entries
    records["next"][2 * entries :] = 8 + records.itemsize * (np.arange(count - 2 * entries) + 1)
    path = tmp_path / "overlapping.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + records.tobytes())
    for act in (check_structure, probe_movie, tiff.read_tiff):
        with pytest.raises(FormatError, match=r"directory \d\d.* longer together than the file"):
            act(path)


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"", IncompleteFileError, "empty"),
        (b"II*\0", IncompleteFileError, "before the end of its header"),
        (b"II*\0\0\0\0\0", IncompleteFileError, "no directory yet"),
        (bytes(64), IncompleteFileError, "no header yet"),
        (b"II*\0\xff\xff\xff\x7f", IncompleteFileError, "before the end of directory 1"),
        (b"II+\0\x08\0\0\0" + bytes(8), IncompleteFileError, "no directory yet"),
        (b"II+\0\x04\0\0\0" + bytes(8), FormatError, "offsets of 4 bytes"),
        (b"hello, this is text", FormatError, "begins with 68 65 6c 6c"),
        (classic(([], 0)) + bytes(64), FormatError, "has 0 entries"),
        (classic((PLAIN, 0)), IncompleteFileError, "strip 1 of directory 1 is not written yet"),
        (classic((PLAIN[:3], 0)), FormatError, "0 strip offsets"),
        (classic(([*PLAIN[:3], (273, 4, 1, 4000), (279, 4, 1, 4)], 0)), IncompleteFileError, "before strip 1"),
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


LAYOUTS: list[dict[str, Any]] = [
    {"compression": "lzw", "rowsperstrip": 3},
    {"compression": "zlib", "predictor": True},
    {"tile": (16, 16), "compression": "packbits"},
    {"description": "4 bits packed"},
]


@given(data=st.data(), options=st.sampled_from(LAYOUTS), tolerated=st.integers(0, 2))
def test_flipped_bytes_give_frames_or_a_stated_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, options: dict[str, Any], tolerated: int
) -> None:
    """Whatever three bytes are changed, reading gives frames or an error of ours."""
    path = written(tmp_path_factory.getbasetemp() / "flipped.tif", FRAMES[:2, :20, :30], **options)
    content = bytearray(path.read_bytes())
    for _ in range(3):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    for act in (check_structure, lambda path: load_movie(path, MovieReading(tolerate_frames=tolerated))):
        try:
            act(path)
        except FormatError as error:
            assert error.path == path


def test_tiles_much_larger_than_the_picture_are_refused(tmp_path: Path) -> None:
    """A tile is decoded whole, so that its size costs memory whatever the picture's is."""
    path = written(tmp_path / "movie.tif", FRAMES[:1, :20, :30], tile=(32, 32))
    patch(path, **{"322": 1 << 19, "323": 1 << 19})
    with pytest.raises(FormatError, match="page 1 has 1 strips of 524288 × 524288 pixels; expected 1 for 30 × 20"):
        tiff.read_tiff(path)


def test_no_frames_is_an_error(tmp_path: Path) -> None:
    """A movie without frames is refused, and nothing is left behind."""
    with pytest.raises(FormatError, match="no frames"):
        tiff.write_tiff_movie(tmp_path / "movie.tif", [])
    assert list(tmp_path.iterdir()) == []
