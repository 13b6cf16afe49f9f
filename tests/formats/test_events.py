"""Streams of events in every coding: what is coded comes back, and what is damaged leaves no trace."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from coldchain.formats.eer import EIGHT_BIT, SEVEN_BIT
from coldchain.formats.events import Coding, count_events, encode_events

SHAPE = (12, 20)
TOTAL = SHAPE[0] * SHAPE[1]
CODINGS = st.builds(Coding, st.integers(2, 14), st.integers(0, 4), st.integers(0, 4), st.booleans())
Events = dict[int, tuple[int, int]]


def events_of(coding: Coding) -> st.SearchStrategy[Events]:
    """Sets of events for the small sensor: pixel → (x, y) within it."""
    place = st.tuples(st.integers(0, (1 << coding.x_bits) - 1), st.integers(0, (1 << coding.y_bits) - 1))
    return st.dictionaries(st.integers(0, TOTAL - 1), place, max_size=60)


def encoded(events: Events, coding: Coding, total: int = TOTAL) -> bytes:
    """The stream of a set of events."""
    pixels = np.array(sorted(events), dtype=np.int64)
    places = np.array([events[int(pixel)] for pixel in pixels], dtype=np.int64).reshape(-1, 2)
    return encode_events(pixels, places, total, coding)


def decoded_slowly(stream: bytes, coding: Coding, total: int = TOTAL) -> Events:
    """The events of a stream, bit by bit."""
    number = int.from_bytes(stream, "little")
    at, pixel, events = 0, 0, {}
    while True:
        skip = number >> at & coding.longest_skip
        pixel += skip
        if pixel == total:
            return events
        assert pixel < total
        if skip == coding.longest_skip:
            at += coding.full_skip_bits
            continue
        x = (number >> at + coding.skip_bits & (1 << coding.x_bits) - 1) ^ (1 << coding.x_bits >> 1)
        y = (number >> at + coding.skip_bits + coding.x_bits & (1 << coding.y_bits) - 1) ^ (1 << coding.y_bits >> 1)
        events[pixel] = x, y
        pixel += 1
        at += coding.code_bits


def drawn(events: Events, coding: Coding, upsampling: int, shape: tuple[int, int] = SHAPE) -> NDArray[np.uint8]:
    """The image of a set of events."""
    image = np.zeros((shape[0] * upsampling, shape[1] * upsampling), np.uint8)
    for pixel, (x, y) in events.items():
        row, column = divmod(pixel, shape[1])
        row = row * upsampling + (y * upsampling >> coding.y_bits)
        image[row, column * upsampling + (x * upsampling >> coding.x_bits)] += 1
    return image


@given(data=st.data(), coding=CODINGS)
def test_what_is_coded_comes_back_in_every_rendering(data: st.DataObject, coding: Coding) -> None:
    """Any events, several frames of them, in any coding: each is counted in its pixel, its half and its quarter."""
    frames = data.draw(st.lists(events_of(coding), min_size=1, max_size=4))
    streams = [encoded(events, coding) for events in frames]
    for events, stream in zip(frames, streams, strict=True):
        assert decoded_slowly(stream, coding) == events
    for bits in range(min(coding.x_bits, coding.y_bits, 2) + 1):
        image = np.zeros((SHAPE[0] << bits, SHAPE[1] << bits), np.uint8)
        assert count_events(streams, coding, SHAPE, image) == ("",) * len(frames)
        assert np.array_equal(image, sum(drawn(events, coding, 1 << bits) for events in frames))


@pytest.mark.parametrize("coding", [SEVEN_BIT, Coding(8, 1, 1), Coding(6, 2, 2), Coding(9, 2, 2)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_imagecodecs_counts_alike(coding: Coding, dtype: type) -> None:
    """An independent decoder finds the same events on a larger sensor, on pixels and on halves of them."""
    rng = np.random.default_rng(5)
    shape = (300, 400)
    pixels = np.flatnonzero(rng.random(shape) < 0.02)
    places = np.stack([rng.integers(1 << bits, size=pixels.size) for bits in (coding.x_bits, coding.y_bits)], axis=1)
    stream = encode_events(pixels, places, shape[0] * shape[1], coding)
    for upsampling in (1, 2):
        image = np.zeros((shape[0] * upsampling, shape[1] * upsampling), dtype)
        assert count_events([stream], coding, shape, image) == ("",)
        bits = coding.skip_bits, coding.x_bits, coding.y_bits
        theirs = imagecodecs.eer_decode(stream + bytes(2), image.shape, *bits, superres=upsampling - 1)
        assert np.array_equal(image, theirs)


def test_the_documentations_example_is_read_as_it_says() -> None:
    """Six bytes of Thermo Fisher's description of the format, 7 bits a skip and 1 a place; it ends with an event."""
    image = np.zeros((1, 312), np.uint8)
    stream = bytes.fromhex("031bfcb135fb")
    assert count_events([stream], Coding(7, 1, 1), (1, 312), image) == ("",)
    assert np.array_equal(image, imagecodecs.eer_decode(stream, (1, 312), 7, 1, 1))
    assert image[0, 3] == image[0, 17] == 1


@given(data=st.data(), coding=CODINGS)
def test_a_stream_cut_anywhere_leaves_no_trace(data: st.DataObject, coding: Coding) -> None:
    """A stream that has lost its end is told, and its events are taken back, those of the others are not."""
    events, others = data.draw(events_of(coding)), data.draw(events_of(coding))
    stream = encoded(events, coding)
    cut = stream[: data.draw(st.integers(0, len(stream) - 1))]
    image = np.full(SHAPE, 7, np.uint8)
    fault, none = count_events([cut, encoded(others, coding)], coding, SHAPE, image)
    assert none == ""
    if fault:
        assert np.array_equal(image, drawn(others, coding, 1) + 7)
    else:  # what was cut off was the filling of the last word
        assert decoded_slowly(cut, coding) == events


def guarded(shape: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """An image, and the memory around it."""
    memory = np.zeros(shape[0] * shape[1] + 128, np.uint8)
    return memory[64:-64].reshape(shape), memory


@given(stream=st.binary(max_size=80), coding=CODINGS, upsampling=st.sampled_from([1, 2]))
def test_any_bytes_are_counted_or_told(stream: bytes, coding: Coding, upsampling: int) -> None:
    """Whatever the bytes are, nothing outside the image is touched, and a stream that is not whole changes nothing."""
    if upsampling > 1 << min(coding.x_bits, coding.y_bits):
        upsampling = 1
    image, memory = guarded((SHAPE[0] * upsampling, SHAPE[1] * upsampling))
    (fault,) = count_events([stream], coding, SHAPE, image)
    assert not memory[:64].any()
    assert not memory[-64:].any()
    if fault:
        assert not image.any()
    else:
        assert np.array_equal(image, drawn(decoded_slowly(stream + bytes(4), coding), coding, upsampling))


def test_what_is_wrong_with_a_stream_is_told() -> None:
    """A stream that ends and one that leads beyond the sensor are told from each other."""
    image = np.zeros(SHAPE, np.uint8)
    assert count_events([b""], SEVEN_BIT, SHAPE, image) == ("the stream of events ends too early",)
    assert count_events([b"\x05\x00"], SEVEN_BIT, SHAPE, image) == ("the stream of events ends too early",)
    assert count_events([b"\xff" * 40], SEVEN_BIT, SHAPE, image) == ("the code at bit 7 leads beyond the sensor",)
    assert not image.any()


@pytest.mark.parametrize("coding", [SEVEN_BIT, EIGHT_BIT, Coding(5, 1, 3)])
def test_the_stream_is_as_short_as_the_coding_allows(coding: Coding) -> None:
    """An event costs its bits and a long gap those of full skips, and nothing else, up to a word's end."""
    total, pixels = 128 * 128, (0, 128, 1000)
    stream = encoded(dict.fromkeys(pixels, (0, 0)), coding, total)
    gaps = np.diff([-1, *pixels, total]) - 1
    bits = 3 * coding.code_bits + coding.full_skip_bits * (int((gaps // coding.longest_skip).sum()) + 1)
    assert len(stream) == -(-bits // 64) * 8
