"""MRC files: what is written comes back, foreign files are understood, and impossible headers are refused."""

import os
import struct
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldchain.errors import FormatError, IncompleteFileError, StorageError, UsageError
from coldchain.formats import arrays, mrc
from coldchain.formats.movie import MovieReading, load_movie

RNG = np.random.default_rng(7)
COUNTS = RNG.integers(0, 16, (3, 5, 8))
MODES = [
    (0, np.int8, np.int8),
    (0, np.uint8, np.uint8),
    (1, np.int16, np.int16),
    (2, np.float32, np.float32),
    (6, np.uint16, np.uint16),
    (12, np.float16, np.float32),
    (101, np.uint8, np.uint8),
]


def patched(path: Path, *changes: tuple[int, str, int | float]) -> Path:
    """The file with values written over its bytes: (offset, struct format, value)."""
    data = bytearray(path.read_bytes())
    for offset, layout, value in changes:
        struct.pack_into(layout, data, offset, value)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("mode", "given_type", "read_type"), MODES)
def test_every_mode_comes_back(tmp_path: Path, mode: int, given_type: type, read_type: type) -> None:
    """What is written in a mode is read again, in the type that the module promises."""
    path = tmp_path / "movie.mrc"
    mrc.write_mrc(path, COUNTS.astype(given_type), pixel_size_angstrom=0.83, mode=mode)
    frames = mrc.read_mrc(path)
    assert frames.dtype == read_type
    assert np.array_equal(frames, COUNTS)
    assert mrc.read_header(path).pixel_size_angstrom == pytest.approx(0.83)
    assert path.stat().st_size == mrc.read_header(path).file_bytes


@pytest.mark.parametrize("mode", [0, 1, 2, 6, 12])
def test_mrcfile_agrees_with_what_we_write(tmp_path: Path, mode: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The reference library finds our files valid and reads the same values."""
    path = tmp_path / "movie.mrc"
    mrc.write_mrc(path, COUNTS.astype(np.int16), pixel_size_angstrom=1.1, mode=mode)
    assert mrcfile.validate(path), capsys.readouterr().out
    with mrcfile.open(path) as file:
        assert np.array_equal(file.data, COUNTS)
        assert float(file.voxel_size.x) == pytest.approx(1.1)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.float32, np.float16, np.complex64])
def test_we_agree_with_what_mrcfile_writes(tmp_path: Path, dtype: type) -> None:
    """Files of the reference library are read alike; complex ones are refused."""
    path = tmp_path / "movie.mrc"
    with mrcfile.new(path, data=COUNTS.astype(dtype)) as file:
        file.voxel_size = 2.5
    if dtype is np.complex64:
        with pytest.raises(FormatError, match="mode is 4"):
            mrc.read_mrc(path)
    else:
        assert np.array_equal(mrc.read_mrc(path), COUNTS)
        assert mrc.read_header(path).pixel_size_angstrom == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("mode", "kind", "read_type"),
    [(0, "i1", np.int8), (1, "i2", np.int16), (2, "f4", np.float32), (6, "u2", np.uint16), (12, "f2", np.float32)],
)
@pytest.mark.parametrize("extended", [0, 4096])
def test_big_endian_files_are_understood(tmp_path: Path, mode: int, kind: str, read_type: type, extended: int) -> None:
    """The machine stamp decides the byte order, values come in this machine's; an extended header is stepped over."""
    path = tmp_path / "movie.mrc"
    header = bytearray(1024)
    struct.pack_into(">4i", header, 0, 8, 5, 3, mode)
    struct.pack_into(">i", header, 92, extended)
    header[208:214] = b"MAP \x11\x11"
    path.write_bytes(bytes(header) + b"x" * extended + COUNTS.astype(f">{kind}").tobytes())
    for frames in (mrc.read_mrc(path), load_movie(path, MovieReading(threads=2)).frames):
        assert frames.dtype == read_type
        assert frames.dtype.isnative
        assert np.array_equal(frames, COUNTS)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("mode", "kind"), [(0, "i1"), (1, "i2"), (2, "f4")])
def test_old_files_without_a_stamp_are_understood(tmp_path: Path, order: str, mode: int, kind: str) -> None:
    """Where there is no machine stamp, the byte order in which the header makes sense is taken."""
    path = tmp_path / "old.mrc"
    header = struct.pack(f"{order}4i", 8, 5, 3, mode).ljust(1024, b"\0")
    path.write_bytes(header + COUNTS.astype(order + kind).tobytes())
    assert np.array_equal(mrc.read_mrc(path), COUNTS)


def test_bytes_are_unsigned_only_where_imod_says_so(tmp_path: Path) -> None:
    """A mode 0 file of 200s is read as 200 with IMOD's stamp, and as −56 without, as MRC2014 wants."""
    path = tmp_path / "bytes.mrc"
    mrc.write_mrc(path, np.full((2, 3), 200, dtype=np.uint8), pixel_size_angstrom=1.5, mode=0)
    assert mrc.read_mrc(path).max() == 200
    assert mrc.read_mrc(patched(path, (152, "<i", 0))).max() == -56


def test_four_bit_pixels_lie_low_nibble_first(tmp_path: Path) -> None:
    """The first of two packed pixels is in the low four bits, and a row of odd width begins on a new byte."""
    path = tmp_path / "packed.mrc"
    mrc.write_mrc(path, np.array([[1, 2, 3], [4, 5, 6]]), pixel_size_angstrom=1.5, mode=101)
    assert path.read_bytes()[1024:] == bytes([0x21, 0x03, 0x54, 0x06])
    assert mrc.read_mrc(path).tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("told_by", ["flag", "title"])
def test_packed_bytes_are_read_as_the_pixels_that_they_hold(tmp_path: Path, told_by: str) -> None:
    """SerialEM's mode 0 of half the width: IMOD's flag tells of it, and in older files the title with the size."""
    path = tmp_path / "packed.mrc"
    shape = (3, 4) if told_by == "flag" else (7420, 3838)
    mrc.write_mrc(path, np.full(shape, 0x21, np.uint8), pixel_size_angstrom=1.5, mode=0)
    assert mrc.read_header(path).width == shape[1]
    if told_by == "flag":
        patched(path, (156, "<i", 16))
    else:
        data = bytearray(path.read_bytes())
        data[224:304] = b"SerialEMCCD: Dose frac. image, 4 bits packed  r/f 0".ljust(80)
        path.write_bytes(data)
    header = mrc.read_header(path)
    assert (header.width, header.mode, header.pixel_size_angstrom) == (2 * shape[1], 101, 1.5)
    image = mrc.read_mrc(path)
    assert image.shape == (shape[0], 2 * shape[1])
    assert image[0, :4].tolist() == [1, 2, 1, 2]


def test_a_flag_without_imods_stamp_is_nobodys(tmp_path: Path) -> None:
    """Those bytes mean something else in other programs' headers."""
    path = tmp_path / "plain.mrc"
    mrc.write_mrc(path, np.full((3, 4), 0x21, np.uint8), pixel_size_angstrom=1.5, mode=0)
    header = mrc.read_header(patched(path, (152, "<i", 7), (156, "<i", 16)))
    assert (header.width, header.mode, header.unsigned_bytes) == (4, 0, False)


@pytest.mark.parametrize(("mode", "given_type", "read_type"), MODES)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_of_sections_can_be_chosen(
    tmp_path: Path, mode: int, given_type: type, read_type: type, threads: int
) -> None:
    """First and last count from 1; the file may be cut behind the last that is asked for."""
    path = tmp_path / "movie.mrc"
    mrc.write_mrc(path, COUNTS.astype(given_type), pixel_size_angstrom=0.83, mode=mode)
    section = mrc.read_header(path).section_bytes
    os.truncate(path, 1024 + 2 * section)
    movie = load_movie(path, MovieReading(first_frame=2, last_frame=2, threads=threads))
    assert movie.frames.dtype == read_type
    assert np.array_equal(movie.frames, COUNTS[1:2])
    assert movie.numbers == (2,)
    with pytest.raises(UsageError, match="the movie has 3 frames"):
        load_movie(path, MovieReading(last_frame=4))


@pytest.mark.parametrize(("mode", "given_type", "read_type"), MODES)
def test_a_stack_cut_in_its_last_frames_gives_the_others(
    tmp_path: Path, mode: int, given_type: type, read_type: type
) -> None:
    """Frames that the file ends in or before are left out, if so many are tolerated, and named."""
    path = tmp_path / "movie.mrc"
    mrc.write_mrc(path, COUNTS.astype(given_type), pixel_size_angstrom=0.83, mode=mode)
    os.truncate(path, path.stat().st_size - mrc.read_header(path).section_bytes - 1)
    for tolerated in (0, 1):
        with pytest.raises(IncompleteFileError, match="in frame 2 of 3"):
            load_movie(path, MovieReading(tolerate_frames=tolerated))
    movie = load_movie(path, MovieReading(tolerate_frames=2))
    assert np.array_equal(movie.frames, COUNTS[:1])
    assert [left.number for left in movie.left_out] == [2, 3]
    assert "in frame 3 of 3" in movie.left_out[1].reason
    with pytest.raises(FormatError, match="no frame is left"):
        load_movie(path, MovieReading(first_frame=2, tolerate_frames=2))


def test_the_extended_header_is_stepped_over(tmp_path: Path) -> None:
    """Pixels begin behind the extended header, whose type is told."""
    path = tmp_path / "extended.mrc"
    with mrcfile.new(path, data=COUNTS.astype(np.int16)) as file:
        file.set_extended_header(np.frombuffer(b"x" * 333, dtype="V333"))
        file.header.exttyp = b"SERI"
    header = mrc.read_header(path)
    assert (header.extended_bytes, header.extended_type, header.data_offset) == (333, "SERI", 1357)
    assert np.array_equal(mrc.read_mrc(path), COUNTS)


def test_one_section_is_an_image_and_the_first_of_many_can_be_read_alone(tmp_path: Path) -> None:
    """A single section has two dimensions; the first of several is read without the rest."""
    path = tmp_path / "image.mrc"
    mrc.write_mrc(path, COUNTS[0].astype(np.float32), pixel_size_angstrom=1.0)
    assert mrc.read_mrc(path).shape == (5, 8)
    mrc.write_mrc(path, COUNTS.astype(np.float32), pixel_size_angstrom=1.0)
    assert np.array_equal(mrc.read_first_section(path), COUNTS[0])


def test_a_sparse_file_of_absurd_size_is_refused(tmp_path: Path) -> None:
    """A file of holes costs nothing on the disk and could take all memory: its pixels are bounded to 64 GiB."""
    path = tmp_path / "sparse.mrc"
    mrc.write_mrc(path, COUNTS[:1], pixel_size_angstrom=1.0, mode=2)
    data = bytearray(path.read_bytes()[:1024])
    struct.pack_into("<3i", data, 0, 1 << 15, 1 << 15, 17)
    path.write_bytes(data)
    os.truncate(path, 1024 + 17 * (4 << 30))
    mrc.check_size(mrc.read_header(path), path.stat().st_size, path)
    with pytest.raises(FormatError, match="promises 73,014,444,032 bytes of pixels; expected at most 68,719,476,736"):
        mrc.read_mrc(path)


def test_too_little_memory_is_a_stated_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the operating system gives no memory, the error says how much was wanted."""
    path = tmp_path / "movie.mrc"
    mrc.write_mrc(path, COUNTS, pixel_size_angstrom=1.0)

    def refuse(shape: object, dtype: object) -> None:
        raise MemoryError

    monkeypatch.setattr(arrays.np, "empty", refuse)
    with pytest.raises(FormatError, match="no memory for the file's"):
        mrc.read_mrc(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((0, "<i", 0), "0 × 5"),
        ((0, "<i", -8), "-8 × 5"),
        ((4, "<i", 2_000_000_000), "2000000000"),
        ((8, "<i", 0), "in 0 sections"),
        ((8, "<i", -3), "in -3 sections"),
        ((12, "<i", 3), "mode is 3"),
        ((12, "<i", 77), "mode is 77"),
        ((92, "<i", -1), "extended header has -1"),
        ((212, "<i", 0x11111111), "mode is"),
    ],
)
def test_impossible_headers_are_refused(tmp_path: Path, change: tuple[int, str, int], words: str) -> None:
    """A header that cannot be is named as such, with a remedy, before a byte is allocated for it."""
    path = tmp_path / "movie.mrc"
    mrc.write_mrc(path, COUNTS.astype(np.int16), pixel_size_angstrom=1.0)
    with pytest.raises(FormatError, match=words) as caught:
        mrc.read_mrc(patched(path, change))
    assert caught.value.remedy
    assert not isinstance(caught.value, IncompleteFileError)


@pytest.mark.parametrize("change", [(0, "<i", 1 << 20), (8, "<i", 1 << 24), (92, "<i", 1 << 30)])
def test_a_header_that_promises_more_than_the_file_holds_means_incomplete(
    tmp_path: Path, change: tuple[int, str, int]
) -> None:
    """A huge but possible promise costs no memory: the file is compared with it first."""
    path = tmp_path / "movie.mrc"
    mrc.write_mrc(path, COUNTS.astype(np.int16), pixel_size_angstrom=1.0)
    with pytest.raises(IncompleteFileError, match="the file ends after"):
        mrc.read_mrc(patched(path, change))


@pytest.mark.parametrize(("offset", "value"), [(28, 0), (28, -4), (40, float("nan")), (40, float("inf")), (40, -2.0)])
def test_a_cell_that_cannot_be_gives_no_pixel_size(tmp_path: Path, offset: int, value: float) -> None:
    """Where the header's cell makes no sense the pixel size is unknown, not wrong."""
    path = tmp_path / "movie.mrc"
    mrc.write_mrc(path, COUNTS.astype(np.int16), pixel_size_angstrom=1.0)
    patched(path, (offset, "<i" if isinstance(value, int) else "<f", value))
    assert mrc.read_header(path).pixel_size_angstrom is None


@given(st.binary(min_size=1024, max_size=1500))
def test_any_bytes_are_a_header_or_a_stated_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """No content of a file makes reading its header or its pixels fail in an unstated way."""
    path = tmp_path_factory.getbasetemp() / "any.mrc"
    path.write_bytes(data)
    try:
        mrc.read_mrc(path)
    except FormatError as error:
        assert error.path == path


def test_values_that_do_not_fit_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    """A value beyond the mode is an error that names the range, and neither file nor part of it stays behind."""
    for array, mode in (
        (np.array([[70000]]), 6),
        (np.array([[-1]]), 6),
        (np.array([[16]]), 101),
        (np.ones((1, 1, 1, 1)), 2),
    ):
        with pytest.raises(FormatError):
            mrc.write_mrc(tmp_path / "movie.mrc", array, pixel_size_angstrom=1.0, mode=mode)
    with pytest.raises(FormatError):
        mrc.write_mrc(tmp_path / "movie.mrc", np.array([[np.nan]]), pixel_size_angstrom=1.0, mode=6)
    assert list(tmp_path.iterdir()) == []


def test_a_stream_of_frames_is_the_same_file_as_the_array(tmp_path: Path) -> None:
    """Writing frame by frame gives byte for byte what writing the array gives; a missing frame is an error."""
    frames = COUNTS.astype(np.uint8)
    mrc.write_mrc(tmp_path / "a.mrc", frames, pixel_size_angstrom=1.2, mode=0)
    mrc.write_mrc_movie(tmp_path / "b.mrc", (f for f in frames), shape=(5, 8), count=3, pixel_size_angstrom=1.2, mode=0)
    assert (tmp_path / "a.mrc").read_bytes() == (tmp_path / "b.mrc").read_bytes()
    with pytest.raises(FormatError, match="2 frames were given"):
        mrc.write_mrc_movie(tmp_path / "c.mrc", frames[:2], shape=(5, 8), count=3, pixel_size_angstrom=1.2, mode=0)
    with pytest.raises(FormatError, match="frame 0 has shape"):
        mrc.write_mrc_movie(tmp_path / "c.mrc", frames, shape=(8, 5), count=3, pixel_size_angstrom=1.2, mode=0)
    assert not (tmp_path / "c.mrc").exists()


def test_what_cannot_be_read_or_written_says_why(tmp_path: Path) -> None:
    """A missing file, a folder, a named pipe and a missing folder are stated errors with the system's reason."""
    (tmp_path / "folder.mrc").mkdir()
    os.mkfifo(tmp_path / "pipe.mrc")
    for name, words in (
        ("gone.mrc", "No such file"),
        ("folder.mrc", "no regular file"),
        ("pipe.mrc", "no regular file"),
    ):
        with pytest.raises(StorageError, match=words):
            mrc.read_mrc(tmp_path / name)
    with pytest.raises(StorageError, match="null"):
        mrc.read_mrc(tmp_path / "a\0b.mrc")
    with pytest.raises(StorageError, match="cannot be written"):
        mrc.write_mrc(tmp_path / "gone" / "a.mrc", COUNTS, pixel_size_angstrom=1.0)


def test_a_binned_real_micrograph_is_read(real_data: Path) -> None:
    """The AAV micrograph of 512² pixels is read as its header says."""
    path = next((real_data / "micrographs").glob("24dec03a*_ds8.mrc"))
    header = mrc.read_header(path)
    assert (header.width, header.height, header.sections) == (512, 512, 1)
    assert header.pixel_size_angstrom == pytest.approx(0.79, abs=0.01)
    image = mrc.read_mrc(path)
    with mrcfile.open(path, permissive=True) as file:
        assert np.array_equal(image, file.data)
