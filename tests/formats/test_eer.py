"""EER movies: our encoder against two decoders, fractions that lose no frame, sub-pixels in their places."""

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from coldchain.errors import FormatError, IncompleteFileError, UsageError
from coldchain.formats import eer, ifd
from coldchain.formats.events import Coding
from coldchain.formats.movie import MovieReading, fractions_for_dose, load_movie, probe_movie
from coldchain.formats.structure import check_structure

RNG = np.random.default_rng(13)
CODINGS = pytest.mark.parametrize("coding", [eer.SEVEN_BIT, eer.EIGHT_BIT, Coding(7, 1, 1), Coding(9, 3, 2)])


def whole(path: Path, upsampling: int = 1) -> np.ndarray:
    """Every camera frame of a movie, each a fraction of its own."""
    frames = probe_movie(path).frames
    return load_movie(path, MovieReading(eer_fractions=frames, eer_upsampling=upsampling)).frames


def spoiled(path: Path, *indices: int) -> Path:
    """The movie with the streams of some camera frames (from 0) overwritten."""
    data = bytearray(path.read_bytes())
    pages = ifd.read_pages(path)
    for index in indices:
        offset, count = pages[index].segments[0]
        data[offset : offset + count] = b"\xff" * count
    path.write_bytes(data)
    return path


@CODINGS
@pytest.mark.parametrize("density", [0.0, 0.0005, 0.01, 0.3, 1.0])
def test_events_come_back(tmp_path: Path, coding: Coding, density: float) -> None:
    """From no event at all to one in every pixel, each comes back in its frame and pixel."""
    frames = (RNG.random((5, 64, 96)) < density).astype(np.uint8)
    path = tmp_path / "movie.eer"
    eer.write_eer(path, frames, coding=coding)
    check_structure(path)
    assert np.array_equal(whole(path), frames)
    assert np.array_equal(eer.read_eer(path, threads=3), frames)


def test_tifffile_reads_seven_bits_alike(tmp_path: Path) -> None:
    """An independent reader knows the file for an EER and finds the same events."""
    frames = (RNG.random((5, 64, 96)) < 0.01).astype(np.uint8)
    path = tmp_path / "movie.eer"
    eer.write_eer(path, frames)
    with tifffile.TiffFile(path) as file:
        assert file.is_eer
        assert file.is_bigtiff
        assert np.array_equal(file.asarray(), frames)


@CODINGS
@pytest.mark.parametrize("upsampling", [2, 4])
def test_places_within_pixels_are_kept(tmp_path: Path, coding: Coding, upsampling: int) -> None:
    """Events planted on half and quarter pixels are found on half pixels, and on whole ones where nobody asks."""
    if upsampling > 1 << min(coding.x_bits, coding.y_bits):
        upsampling = 2
    fine = np.zeros((3, 40 * upsampling, 30 * upsampling), dtype=np.uint8)
    for frame in fine:
        for pixel in RNG.choice(40 * 30, 60, replace=False):
            row, column = divmod(int(pixel), 30)
            inner = RNG.integers(upsampling, size=2)
            frame[row * upsampling + inner[0], column * upsampling + inner[1]] = 1
    path = tmp_path / "movie.eer"
    eer.write_eer(path, fine, coding=coding, upsampling=upsampling)
    factor = upsampling // 2
    halves = fine.reshape(3, 80, factor, 60, factor).sum((2, 4))
    assert np.array_equal(whole(path, 2), halves)
    assert np.array_equal(whole(path), halves.reshape(3, 40, 2, 30, 2).sum((2, 4)))


def test_halves_are_refused_where_events_have_no_place(tmp_path: Path) -> None:
    """A coding without places within the pixel is read on whole pixels only."""
    path = tmp_path / "movie.eer"
    eer.write_eer(path, np.ones((2, 8, 8), np.uint8), coding=Coding(7, 0, 0))
    assert whole(path).sum() == 128
    with pytest.raises(FormatError, match="0 and 0 bits of place; expected an upsampling of 1"):
        whole(path, 2)


@pytest.mark.parametrize("bits", [(1, 2, 2), (15, 2, 2), (7, 5, 2)])
def test_impossible_codings_are_refused(tmp_path: Path, bits: tuple[int, int, int]) -> None:
    """Numbers of bits that no camera writes are told, not tried."""
    path = tmp_path / "movie.eer"
    eer.write_eer(path, np.ones((1, 8, 8), np.uint8), coding=Coding(9, 3, 1))
    data = bytearray(path.read_bytes())
    for tag, wanted in zip((65007, 65008, 65009), bits, strict=True):
        at = data.index(struct.pack("<HHQ", tag, 3, 1))
        struct.pack_into("<Q", data, at + 12, wanted)
    path.write_bytes(data)
    for act in (probe_movie, load_movie):
        with pytest.raises(FormatError, match=f"skips of {bits[0]} bits, places of {bits[1]} and {bits[2]}"):
            act(path)


@given(frames=st.integers(1, 3000), fractions=st.none() | st.integers(1, 4000))
def test_fractions_hold_every_frame_once(frames: int, fractions: int | None) -> None:
    """Fractions cover all camera frames in order, none twice; all are as long as the first but the last, which has the
    rest; and there are about as many as are wanted."""
    bounds = eer.fraction_bounds(frames, fractions)
    sizes = np.diff(bounds)
    wanted = min(frames, 40 if fractions is None else fractions)
    assert (bounds[0], bounds[-1]) == (0, frames)
    assert set(sizes[:-1]) <= {sizes[0]}
    assert sizes[0] <= sizes[-1] < 2 * sizes[0] or len(sizes) == 1
    assert wanted / 1.5 - 1 <= len(sizes) <= 1.5 * wanted + 1


@pytest.mark.parametrize(
    ("total", "each", "fractions"), [(40.0, 1.0, 40), (40.0, 0.5, 60), (40.0, 100.0, 1), (30.0, 4.0, 8)]
)
def test_fractions_are_made_for_a_dose(tmp_path: Path, total: float, each: float, fractions: int) -> None:
    """As many fractions as have the wanted dose each, at most one a camera frame and at least one."""
    path = tmp_path / "movie.eer"
    eer.write_eer(path, np.ones((60, 4, 6), np.uint8))
    info = probe_movie(path)
    doses = {"total_dose_e_per_square_angstrom": total, "dose_per_fraction_e_per_square_angstrom": each}
    assert fractions_for_dose(info, **doses) == fractions
    for wrong in ({"total_dose_e_per_square_angstrom": 0.0}, {"dose_per_fraction_e_per_square_angstrom": float("nan")}):
        with pytest.raises(UsageError):
            fractions_for_dose(info, **(doses | wrong))


def test_counts_are_spread_over_camera_frames_and_come_back(tmp_path: Path) -> None:
    """Several electrons in a pixel go into as many camera frames, and a fraction sums them again."""
    counts = RNG.poisson(2.0, (6, 32, 40)).astype(np.uint8)
    frames = int(counts.max())
    path = tmp_path / "movie.eer"
    eer.write_eer(path, counts, camera_frames_per_image=frames)
    assert probe_movie(path).frames == 6 * frames
    assert np.array_equal(load_movie(path, MovieReading(eer_fractions=6)).frames, counts)
    assert load_movie(path, MovieReading(eer_fractions=6 * frames)).frames.max() == 1
    with pytest.raises(FormatError, match=f"Give camera_frames_per_image={frames}"):
        eer.write_eer(path, counts, camera_frames_per_image=1)


def test_many_frames_in_a_fraction_do_not_overflow(tmp_path: Path) -> None:
    """A pixel hit in each of 300 camera frames counts 300."""
    path = tmp_path / "movie.eer"
    eer.write_eer(path, (np.ones((4, 64), dtype=np.uint8) for _ in range(300)))
    counts = eer.read_eer(path, fractions=1)
    assert counts.dtype == np.uint16
    assert counts.min() == counts.max() == 300


def test_eight_bit_streams_without_waste_are_read_too(tmp_path: Path) -> None:
    """Where a 65000 stream does not add up in 12-bit codes, it is read as the newer readers do."""
    frame = np.zeros(2000 * 4, dtype=np.uint8)
    frame[[5, 900, 901, 7000]] = 1
    path = tmp_path / "movie.eer"
    eer.write_eer(path, [frame.reshape(4, 2000)], coding=eer.EIGHT_BIT)
    page = ifd.read_pages(path)[0]
    bits = []
    for gap, last in ((5, False), (894, False), (0, False), (6098, False), (999, True)):
        bits += [(255, 8)] * (gap // 255) + [(gap % 255, 8)] + ([] if last else [(0b1010, 4)])
    number, length = 0, 0
    for value, width in bits:
        number |= value << length
        length += width
    offset, count = page.segments[0]
    data = bytearray(path.read_bytes())
    stream = number.to_bytes(-(-length // 8), "little")
    assert len(stream) <= count
    data[offset : offset + count] = stream.ljust(count, b"\0")
    path.write_bytes(data)
    assert np.array_equal(eer.read_eer(path)[0].ravel(), frame)


def test_a_sum_image_before_the_events_is_passed_over(tmp_path: Path) -> None:
    """Some software puts a plain sum first; only the camera's frames count."""
    frames = (RNG.random((3, 64, 64)) < 0.02).astype(np.uint8)
    eer.write_eer(tmp_path / "events.eer", frames)
    data = (tmp_path / "events.eer").read_bytes()
    pages = ifd.read_pages(tmp_path / "events.eer")
    path = tmp_path / "movie.eer"
    with tifffile.TiffWriter(path, bigtiff=True) as out:
        out.write(frames.sum(0).astype(np.float32), metadata=None)
    whole = bytearray(path.read_bytes())
    link = int.from_bytes(whole[8:16], "little")
    link += 8 + 20 * int.from_bytes(whole[link : link + 8], "little")
    for page in pages:
        offset, count = page.segments[0]
        start = len(whole)
        whole += data[offset : offset + count]
        directory = len(whole)
        whole[link : link + 8] = directory.to_bytes(8, "little")
        entries = [(256, 64), (257, 64), (259, 65001), (273, start), (279, count)]
        whole += len(entries).to_bytes(8, "little")
        for tag, value in entries:
            whole += struct.pack("<HHQQ", tag, 16, 1, value)
        link = len(whole)
        whole += bytes(8)
    path.write_bytes(whole)
    assert np.array_equal(eer.read_eer(path), frames)


@CODINGS
def test_damaged_streams_are_named(tmp_path: Path, coding: Coding) -> None:
    """A stream whose skips lead beyond the sensor names its camera frame, counted from 1."""
    path = tmp_path / "movie.eer"
    eer.write_eer(path, (RNG.random((3, 64, 64)) < 0.02).astype(np.uint8), coding=coding)
    spoiled(path, 1)
    with pytest.raises(FormatError, match="camera frame 2 cannot be decoded: the code at bit") as caught:
        eer.read_eer(path)
    assert caught.value.remedy
    assert caught.value.path == path


@pytest.mark.parametrize("threads", [1, 3])
def test_bad_camera_frames_are_missing_from_their_fraction(tmp_path: Path, threads: int) -> None:
    """What is tolerated is left out and named; its fraction has so many camera frames less, and nothing of it."""
    frames = (RNG.random((12, 40, 50)) < 0.05).astype(np.uint8)
    path = tmp_path / "movie.eer"
    eer.write_eer(path, frames)
    spoiled(path, 1, 6, 7, 8)
    movie = load_movie(path, MovieReading(eer_fractions=4, tolerate_frames=4, threads=threads))
    assert movie.numbers == (1, 2, 4)
    assert movie.camera_frames == (2, 3, 3)
    assert [left.number for left in movie.left_out] == [2, 7, 8, 9]
    assert "camera frame 7 cannot be decoded" in movie.left_out[1].reason
    assert np.array_equal(movie.frames, [frames[[0, 2]].sum(0), frames[3:6].sum(0), frames[9:].sum(0)])
    with pytest.raises(FormatError, match=r"at least 4 frames cannot be used; camera frame \d cannot be decoded"):
        load_movie(path, MovieReading(eer_fractions=4, tolerate_frames=3, threads=threads))


def test_a_chosen_run_of_fractions_is_all_that_is_decoded(tmp_path: Path) -> None:
    """First and last count fractions, and a bad camera frame outside them does no harm."""
    frames = (RNG.random((12, 40, 50)) < 0.05).astype(np.uint8)
    path = tmp_path / "movie.eer"
    eer.write_eer(path, frames)
    spoiled(path, 0, 11)
    movie = load_movie(path, MovieReading(eer_fractions=4, first_frame=2, last_frame=3))
    assert movie.numbers == (2, 3)
    assert np.array_equal(movie.frames, frames.reshape(4, 3, 40, 50).sum(1)[1:3])
    with pytest.raises(UsageError, match="frame 5 is wanted, and the movie has 4 frames"):
        load_movie(path, MovieReading(eer_fractions=4, last_frame=5))


def test_a_stream_outside_the_file_is_a_bad_frame(tmp_path: Path) -> None:
    """A directory that points behind the file's end costs its camera frame; a broken chain of them the movie."""
    frames = (RNG.random((4, 40, 50)) < 0.05).astype(np.uint8)
    path = tmp_path / "movie.eer"
    eer.write_eer(path, frames)
    data = bytearray(path.read_bytes())
    offset = int(ifd.read_pages(path)[2].segments[0][0])
    at = data.index(struct.pack("<HHQQ", 273, 16, 1, offset))
    struct.pack_into("<Q", data, at + 12, len(data))
    path.write_bytes(data)
    movie = load_movie(path, MovieReading(tolerate_frames=1))
    assert movie.numbers == (1, 2, 4)
    assert movie.left_out[0].number == 3
    with pytest.raises(IncompleteFileError, match="before strip 1 of directory 3 does"):
        load_movie(path)
    path.write_bytes(data[:-100])
    with pytest.raises(IncompleteFileError):
        load_movie(path, MovieReading(tolerate_frames=4))


def test_a_stream_too_short_for_its_sensor_is_structurally_wrong(tmp_path: Path) -> None:
    """Even an empty frame needs its skips, so a stream cut inside the file is found without decoding."""
    path = tmp_path / "movie.eer"
    eer.write_eer(path, np.zeros((1, 512, 512), dtype=np.uint8))
    data = bytearray(path.read_bytes())
    at = data.index((279).to_bytes(2, "little") + (16).to_bytes(2, "little"))
    data[at + 12 : at + 20] = (64).to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(FormatError, match="camera frame 1 has 64 bytes"):
        check_structure(path)


@pytest.mark.parametrize(("fractions", "upsampling"), [(0, 1), (-1, 1), (None, 3), (None, 0)])
def test_impossible_wishes_are_refused(tmp_path: Path, fractions: int | None, upsampling: int) -> None:
    """Numbers of fractions and upsamplings that cannot be are errors, not surprises."""
    path = tmp_path / "movie.eer"
    eer.write_eer(path, np.ones((1, 64, 64), dtype=np.uint8))
    with pytest.raises(UsageError):
        eer.read_eer(path, fractions=fractions, upsampling=upsampling)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """Negative counts, sides that upsampling does not divide and movies without frames leave nothing behind."""
    for images, upsampling in (([-np.ones((4, 4), dtype=int)], 1), ([np.ones((5, 4), dtype=int)], 2), ([], 1)):
        with pytest.raises(FormatError):
            eer.write_eer(tmp_path / "movie.eer", images, upsampling=upsampling)
    assert list(tmp_path.iterdir()) == []


@given(data=st.data(), tolerated=st.integers(0, 3))
def test_flipped_bytes_give_events_or_a_stated_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, tolerated: int
) -> None:
    """Whatever three bytes are changed, of directories or of streams, reading gives frames or an error of ours."""
    path = tmp_path_factory.getbasetemp() / "flipped.eer"
    eer.write_eer(path, (np.arange(3 * 20 * 30).reshape(3, 20, 30) % 17 == 0).astype(np.uint8), coding=Coding(6, 2, 1))
    content = bytearray(path.read_bytes())
    for _ in range(3):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    for act in (check_structure, lambda path: load_movie(path, MovieReading(tolerate_frames=tolerated))):
        try:
            act(path)
        except FormatError as error:
            assert error.path == path
