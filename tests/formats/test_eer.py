"""EER movies: our encoder against two decoders, fractions that lose no frame, sub-pixels in their places."""

import struct
from pathlib import Path
from typing import Literal

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from coldchain.errors import FormatError
from coldchain.formats import eer, ifd
from coldchain.formats.movie import probe_movie, read_movie
from coldchain.formats.structure import check_structure

RNG = np.random.default_rng(13)
BITS = pytest.mark.parametrize("bits", [7, 8])


def decoded_slowly(stream: bytes, pixels: int, bits: int) -> list[tuple[int, int, int]]:
    """The events (pixel, x, y) of a stream, bit by bit as RELION's renderEER.cpp reads them."""
    number = int.from_bytes(stream, "little")
    longest, at, pixel, events = (1 << bits) - 1, 0, 0, []
    while True:
        skip = number >> at & longest
        pixel += skip
        if pixel == pixels:
            return events
        assert pixel < pixels
        if skip < longest:
            place = number >> (at + bits) & 15 ^ 10
            events.append((pixel, place & 3, place >> 2))
            pixel += 1
        at += bits + 4 if skip < longest or bits == 8 else bits


@BITS
@pytest.mark.parametrize("density", [0.0, 0.0005, 0.01, 0.3, 1.0])
def test_events_come_back(tmp_path: Path, bits: Literal[7, 8], density: float) -> None:
    """From no event at all to one in every pixel, each comes back in its frame and pixel."""
    frames = (RNG.random((5, 64, 96)) < density).astype(np.uint8)
    path = tmp_path / "movie.eer"
    eer.write_eer(path, frames, bits=bits)
    check_structure(path)
    assert np.array_equal(eer.read_eer(path), frames)
    assert np.array_equal(eer.read_eer(path, threads=3), frames)


@given(positions=st.sets(st.integers(0, 32 * 48 - 1), max_size=20), bits=st.sampled_from([7, 8]))
def test_streams_are_what_relion_reads(
    tmp_path_factory: pytest.TempPathFactory, positions: set[int], bits: Literal[7, 8]
) -> None:
    """A plain transcription of the rules, bit by bit, finds the same events, centred in their pixels."""
    frame = np.zeros(32 * 48, dtype=np.uint8)
    frame[list(positions)] = 1
    path = tmp_path_factory.getbasetemp() / "movie.eer"
    eer.write_eer(path, [frame.reshape(32, 48)], bits=bits)
    offset, count = ifd.read_pages(path)[0].segments[0]
    stream = path.read_bytes()[offset : offset + count]
    assert decoded_slowly(stream, frame.size, bits) == [(position, 2, 2) for position in sorted(positions)]
    assert np.array_equal(eer.read_eer(path)[0].ravel(), frame)


def test_tifffile_reads_seven_bits_alike(tmp_path: Path) -> None:
    """An independent reader knows the file for an EER and finds the same events."""
    frames = (RNG.random((5, 64, 96)) < 0.01).astype(np.uint8)
    path = tmp_path / "movie.eer"
    eer.write_eer(path, frames)
    with tifffile.TiffFile(path) as file:
        assert file.is_eer
        assert file.is_bigtiff
        assert np.array_equal(file.asarray(), frames)


@BITS
@pytest.mark.parametrize("upsampling", [2, 4])
def test_places_within_pixels_are_kept(tmp_path: Path, bits: Literal[7, 8], upsampling: int) -> None:
    """Events planted on half and quarter pixels are found on half pixels, and on whole ones where nobody asks."""
    fine = np.zeros((3, 40 * upsampling, 30 * upsampling), dtype=np.uint8)
    for frame in fine:
        for pixel in RNG.choice(40 * 30, 60, replace=False):
            row, column = divmod(int(pixel), 30)
            inner = RNG.integers(upsampling, size=2)
            frame[row * upsampling + inner[0], column * upsampling + inner[1]] = 1
    path = tmp_path / "movie.eer"
    eer.write_eer(path, fine, bits=bits, upsampling=upsampling)
    factor = upsampling // 2
    halves = fine.reshape(3, 80, factor, 60, factor).sum((2, 4))
    assert np.array_equal(eer.read_eer(path, upsampling=2), halves)
    assert np.array_equal(eer.read_eer(path), halves.reshape(3, 40, 2, 30, 2).sum((2, 4)))


@given(frames=st.integers(1, 3000), fractions=st.none() | st.integers(1, 4000))
def test_fractions_hold_every_frame_once(frames: int, fractions: int | None) -> None:
    """Fractions cover all camera frames in order, none twice, and differ in size by one at most."""
    bounds = eer.fraction_bounds(frames, fractions)
    sizes = np.diff(bounds)
    assert (bounds[0], bounds[-1]) == (0, frames)
    assert len(sizes) == min(frames, 40 if fractions is None else fractions)
    assert sizes.min() >= 1
    assert sizes.max() - sizes.min() <= 1


def test_counts_are_spread_over_camera_frames_and_come_back(tmp_path: Path) -> None:
    """Several electrons in a pixel go into as many camera frames, and a fraction sums them again."""
    counts = RNG.poisson(2.0, (6, 32, 40)).astype(np.uint8)
    frames = int(counts.max())
    path = tmp_path / "movie.eer"
    eer.write_eer(path, counts, camera_frames_per_image=frames)
    assert probe_movie(path).frames == 6 * frames
    assert np.array_equal(read_movie(path, eer_fractions=6), counts)
    assert read_movie(path, eer_fractions=6 * frames).max() == 1
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
    eer.write_eer(path, [frame.reshape(4, 2000)], bits=8)
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


@BITS
def test_damaged_streams_are_named_or_decoded(tmp_path: Path, bits: Literal[7, 8]) -> None:
    """A stream whose skips lead beyond the sensor names its frame."""
    path = tmp_path / "movie.eer"
    eer.write_eer(path, (RNG.random((3, 64, 64)) < 0.02).astype(np.uint8), bits=bits)
    offset, count = ifd.read_pages(path)[1].segments[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = b"\xff" * count
    path.write_bytes(data)
    with pytest.raises(FormatError, match="frame 1 cannot be decoded") as caught:
        eer.read_eer(path)
    assert caught.value.remedy


def test_a_stream_too_short_for_its_sensor_is_structurally_wrong(tmp_path: Path) -> None:
    """Even an empty frame needs its skips, so a stream cut inside the file is found without decoding."""
    path = tmp_path / "movie.eer"
    eer.write_eer(path, np.zeros((1, 512, 512), dtype=np.uint8))
    data = bytearray(path.read_bytes())
    at = data.index((279).to_bytes(2, "little") + (16).to_bytes(2, "little"))
    data[at + 12 : at + 20] = (64).to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(FormatError, match="has 64 bytes"):
        check_structure(path)


@pytest.mark.parametrize(("fractions", "upsampling"), [(0, 1), (-1, 1), (None, 3), (None, 0)])
def test_impossible_wishes_are_refused(tmp_path: Path, fractions: int | None, upsampling: int) -> None:
    """Numbers of fractions and upsamplings that cannot be are errors, not surprises."""
    path = tmp_path / "movie.eer"
    eer.write_eer(path, np.ones((1, 64, 64), dtype=np.uint8))
    with pytest.raises(FormatError):
        eer.read_eer(path, fractions=fractions, upsampling=upsampling)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """Negative counts, sides that upsampling does not divide and movies without frames leave nothing behind."""
    for images, upsampling in (([-np.ones((4, 4), dtype=int)], 1), ([np.ones((5, 4), dtype=int)], 2), ([], 1)):
        with pytest.raises(FormatError):
            eer.write_eer(tmp_path / "movie.eer", images, upsampling=upsampling)
    assert list(tmp_path.iterdir()) == []


def test_the_stream_is_as_short_as_the_format_allows(tmp_path: Path) -> None:
    """An event costs its 11 bits and a long gap 7 for each 127 pixels, and nothing else, up to a word's end."""
    frame = np.zeros((128, 128), dtype=np.uint8)
    frame.ravel()[[0, 128, 1000]] = 1
    path = tmp_path / "movie.eer"
    eer.write_eer(path, [frame])
    codes = 3 * 11 + 7 * (0 + 127 // 127 + 871 // 127) + 7 * (15383 // 127 + 1)
    assert ifd.read_pages(path)[0].segments[0][1] == -(-codes // 64) * 8


def test_the_codec_still_counts_into_the_array_that_it_is_given() -> None:
    """We sum camera frames by handing the codec an array that already holds counts: it must not clear it."""
    counts = np.full((4, 64), 5, dtype=np.uint8)
    # A skip of 3 and an event, then skips of 127 and 125 to the end: 3 + 1 + 127 + 125 = 256 pixels.
    stream = 3 | 0b1010 << 7 | 127 << 11 | 125 << 18
    imagecodecs.eer_decode(stream.to_bytes(8, "little"), (4, 64), 7, 2, 2, out=counts)
    assert counts.ravel()[:5].tolist() == [5, 5, 5, 6, 5]
