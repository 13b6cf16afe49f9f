"""LZW: every encoder's strips come back, damage is told, and nothing outside of the buffers is ever touched."""

import ctypes
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from coldchain.formats import lzw
from coldchain.formats.lzw import LzwError, decode_lzw
from coldchain.formats.words import CHUNK

CLEAR, END, CODES = 256, 257, 4096


def _width_of(making: int) -> int:
    return 9 + sum(making >= limit for limit in (511, 1023, 2047))


def _packed(codes: Sequence[tuple[int, int]]) -> bytes:
    """Codes and their widths as a stream, padded with zeros."""
    bits = "".join(format(code, f"0{width}b") for code, width in codes)
    return bytes(int(bits[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(bits), 8))


def _encoded(data: bytes, *, kept: int, end: bool = True) -> bytes:
    """Plain LZW; a full table is kept for a number of codes, then cleared."""
    codes = [(CLEAR, 9)]
    table: dict[bytes, int] = {}
    making, string, patience = END, b"", kept
    for byte in data:
        longer = string + bytes([byte])
        if len(longer) == 1 or longer in table:
            string = longer
            continue
        codes.append((table.get(string, string[0]), _width_of(making)))
        making = min(making + 1, CODES)
        if making < CODES:
            table[longer] = making
        elif patience:
            patience -= 1
        else:
            codes.append((CLEAR, _width_of(making)))
            making, table, patience = END, {}, kept
        string = bytes([byte])
    if string:
        codes.append((table.get(string, string[0]), _width_of(making)))
        making = min(making + 1, CODES)
    return _packed([*codes, (END, _width_of(making))] if end else codes)


def _plainly_decoded(data: bytes, size: int) -> bytes | None:
    """What a strip of `size` bytes holds, one code after the other; None where it is damaged."""
    bits = "".join(format(byte, "08b") for byte in data)
    if not bits.startswith("100000000"):
        return None
    table: list[bytes] = []
    out, at, last = b"", 9, b""
    while True:
        making = END + len(table) + bool(last)
        width = _width_of(making)
        code = int(bits[at : at + width], 2) if at + width <= len(bits) else END
        if code == END or (len(out) == size and len(bits) - at <= 19):
            return out if len(out) == size else None
        at += width
        if code == CLEAR:
            table, last = [], b""
            continue
        known = [*table, last + last[:1]] if last and making < CODES else table
        if code > END and code - END > len(known):
            return None
        string = bytes([code]) if code < CLEAR else known[code - END - 1]
        out += string
        if len(out) > size:
            return None
        if last and making < CODES:
            table.append(last + string[:1])
        last = string


def _decoded(data: bytes, size: int) -> bytes | None:
    out = np.full(size, 0xA5, np.uint8)
    try:
        assert decode_lzw(data, out) == size
    except LzwError:
        return None
    return out.tobytes()


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Bytes as counting, integrating and blank cameras give them, and as none does."""
    seed = draw(st.integers(0, 2**32 - 1))
    size = draw(st.one_of(st.integers(0, 300), st.integers(0, 40_000)))
    mean = draw(st.sampled_from([0.0, 0.01, 0.1, 0.7, 3.0, 30.0, 500.0]))
    drawn = np.random.default_rng(seed).poisson(mean, size)
    return (drawn.astype(np.uint16).tobytes() if draw(st.booleans()) else drawn.astype(np.uint8).tobytes())[:size]


@st.composite
def damaged_streams(draw: st.DrawFn) -> tuple[bytes, int]:
    """A stream with a few bytes changed, cut or added, and the size that it is decoded to."""
    data = draw(contents())[: draw(st.sampled_from([50, 2_000, 9_000]))]
    stream = bytearray(_encoded(data, kept=draw(st.sampled_from([0, 100, 10_000])), end=draw(st.booleans())))
    for place in draw(st.lists(st.integers(0, len(stream) - 1), max_size=4)):
        stream[place] ^= draw(st.integers(1, 255))
    stream += draw(st.binary(max_size=6))
    return bytes(stream[: draw(st.integers(0, len(stream)))]), max(0, len(data) + draw(st.integers(-70, 70)))


random_streams = st.tuples(st.binary(max_size=600).map(lambda rest: b"\x80" + rest), st.integers(0, 3000))


@given(contents())
def test_what_imagecodecs_encodes_comes_back(data: bytes) -> None:
    """Strips of any content and size are decoded to what was encoded."""
    assert _decoded(imagecodecs.lzw_encode(data), len(data)) == data


@pytest.mark.parametrize("kept", [0, 1, 5000, 1_000_000])
@pytest.mark.parametrize("values", [3, 256])
def test_a_table_that_is_full_is_cleared_or_kept(kept: int, values: int) -> None:
    """Strips of many more codes than the table has entries come back, however long the encoder keeps it."""
    data = np.random.default_rng(4).integers(0, values, 60_000, dtype=np.uint8).tobytes()
    assert _decoded(_encoded(data, kept=kept), len(data)) == data


@pytest.mark.parametrize("mean", [0.0, 0.7, 40.0])
def test_strips_of_libtiff_come_back(mean: float) -> None:
    """What libtiff compresses, through Pillow, is decoded strip by strip."""
    pixels = np.random.default_rng(3).poisson(mean, (300, 401)).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, format="TIFF", compression="tiff_lzw", strip_size=30 * 401)
    with Image.open(file) as image:
        offsets, counts = image.tag_v2[273], image.tag_v2[279]
        rows = image.tag_v2[278]
    out = np.empty_like(pixels)
    for strip, (offset, count) in enumerate(zip(offsets, counts, strict=True)):
        decode_lzw(file.getbuffer()[offset : offset + count], out[strip * rows : (strip + 1) * rows].reshape(-1))
    assert np.array_equal(out, pixels)


@settings(max_examples=300)
@given(st.one_of(damaged_streams(), random_streams))
def test_damaged_streams_are_judged_as_a_plain_decoder_does(stream_and_size: tuple[bytes, int]) -> None:
    """Whatever the bytes are, the outcome is that of decoding them one code after the other."""
    stream, size = stream_and_size
    expected = _plainly_decoded(stream, size)
    assert _decoded(stream, size) == expected
    if expected:
        theirs = np.zeros(size, np.uint8)
        assert len(imagecodecs.lzw_decode(stream, out=theirs.data)) == size
        assert theirs.tobytes() == expected


class _Memory:
    """The functions of `words` for the interpreter, which refuse whatever lies outside of the arrays that they know."""

    def __init__(self, *arrays: NDArray[Any]) -> None:
        self.readable = list(arrays)
        self.writable = [array for array in arrays if array.flags.writeable]

    def _check(self, address: int, size: int, arrays: list[NDArray[Any]]) -> None:
        assert any(a.ctypes.data <= address and address + size <= a.ctypes.data + a.nbytes for a in arrays)

    def _load(self, address: int, size: int) -> bytes:
        self._check(int(address), size, self.readable)
        return ctypes.string_at(int(address), size)

    def _store(self, address: int, data: bytes) -> None:
        self._check(int(address), len(data), self.writable)
        ctypes.memmove(int(address), data, len(data))

    def _table(self, make: Callable[[], NDArray[np.int64]]) -> NDArray[np.int64]:
        table = make()
        self.readable.append(table)
        self.writable.append(table)
        return table

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let the module's functions run as Python, on this memory."""
        for name, function in list(vars(lzw).items()):
            if hasattr(function, "py_func"):
                patch.setattr(lzw, name, function.py_func)
        make = lzw._new_table
        patch.setattr(lzw, "_new_table", lambda: self._table(make))
        patch.setattr(lzw, "load_word", lambda address: struct.unpack("q", self._load(address, 8))[0])
        patch.setattr(lzw, "load_big_endian", lambda address: np.uint64(int.from_bytes(self._load(address, 8), "big")))
        patch.setattr(lzw, "store_word", lambda address, value: self._store(address, struct.pack("q", value)))
        patch.setattr(lzw, "copy_chunk", lambda target, source: self._store(target, self._load(source, CHUNK)))


@settings(max_examples=200)
@given(st.one_of(damaged_streams(), random_streams))
def test_each_access_lies_within_the_buffers(stream_and_size: tuple[bytes, int]) -> None:
    """Run by the interpreter with checked memory, the same code reads and writes inside of its buffers alone."""
    stream, size = np.frombuffer(stream_and_size[0], np.uint8), stream_and_size[1]
    out = np.full(size, 0xA5, np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        _Memory(stream, out).install(patch)
        outcome, _, _ = lzw._decode(stream, out)
    assert _decoded(stream.tobytes(), size) == (out.tobytes() if outcome == lzw._WHOLE else None)


GUARDED = """
import ctypes, mmap, sys
import imagecodecs, numpy as np
from coldchain.formats.lzw import LzwError, decode_lzw

PAGE, ROOM = mmap.PAGESIZE, 64 * 1024
libc = ctypes.CDLL(None, use_errno=True)

def guarded():
    memory = mmap.mmap(-1, ROOM + 2 * PAGE)
    array = np.frombuffer(memory, np.uint8)
    for page in (array.ctypes.data, array.ctypes.data + PAGE + ROOM):
        assert libc.mprotect(ctypes.c_void_p(page), PAGE, 0) == 0
    return array[PAGE:-PAGE]

def placed(room, size, at_end):
    return room[ROOM - size:] if at_end else room[:size]

rng = np.random.default_rng(5)
source, target = guarded(), guarded()
whole = damaged = 0
for trial in range(int(sys.argv[1])):
    drawn = rng.poisson(rng.choice([0, 0.01, 0.7, 20]), rng.integers(1, rng.choice([40, 5000, 60000]))).astype(np.uint8)
    stream = np.frombuffer(imagecodecs.lzw_encode(drawn.tobytes()), np.uint8).copy()[:ROOM]
    if trial % 3:
        places = rng.integers(0, len(stream), rng.integers(0, 3))
        stream[places] = rng.integers(0, 256, len(places))
        stream = stream[:rng.integers(1, len(stream) + 1)]
    size = rng.integers(0, len(drawn) + 40) if trial % 2 else len(drawn)
    data, out = placed(source, len(stream), trial & 4), placed(target, size, trial & 8)
    data[:] = stream
    try:
        decode_lzw(data, out)
        whole += 1
    except LzwError:
        damaged += 1
assert whole > 10 and damaged > 10
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's mprotect")
def test_pages_beside_the_buffers_are_not_touched() -> None:
    """With unreadable memory right before and after both buffers, whole and damaged strips are decoded and no signal
    ends the process."""
    subprocess.run([sys.executable, "-c", GUARDED, "1500"], check=True, timeout=120)


@pytest.mark.parametrize(
    ("stream", "size", "words"),
    [
        (_packed([(65, 9), (END, 9)]), 1, "does not begin with a clear code"),
        (b"\x00\x01\x04", 1, "does not begin with a clear code"),
        (_packed([(CLEAR, 9), (65, 9), (259, 9)]), 9, "the code at bit 18 is not defined"),
        (_packed([(CLEAR, 9), (300, 9)]), 9, "the code at bit 9 is not defined"),
        (_packed([(CLEAR, 9), (65, 9), (258, 9), (END, 9)]), 4, "it decodes to 3 bytes"),
        (_packed([(CLEAR, 9), (65, 9)]), 4, "it decodes to 1 bytes"),
        (b"", 4, "does not begin with a clear code"),
        (b"\x80", 4, "does not begin with a clear code"),
        (_packed([(CLEAR, 9)]), 4, "it decodes to 0 bytes"),
        (_packed([(CLEAR, 9), (65, 9), (258, 9), (END, 9)]), 2, "it decodes to more than 2 bytes"),
        (imagecodecs.lzw_encode(bytes(5000)), 4000, "it decodes to more than 4,000 bytes"),
    ],
)
def test_damage_is_told(stream: bytes, size: int, words: str) -> None:
    """What is wrong with a strip is said in words."""
    with pytest.raises(LzwError, match=words):
        decode_lzw(stream, np.zeros(size, np.uint8))


def test_endings_of_careless_writers_are_taken() -> None:
    """Once all bytes are there, an end code of another width, a table cleared once more or padding harm nothing."""
    start = [(CLEAR, 9), *((byte, 9) for byte in b"ABCD")]
    for rest in ([(END, 10)], [(CLEAR, 9), (END, 9)], [(0, 19)], [(END, 9), (0, 64)], []):
        assert _decoded(_packed(start + rest), 4) == b"ABCD"
    assert _decoded(_packed([*start, (0, 27)]), 4) is None


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8).copy()])
def test_any_buffer_is_read(kind: Callable[[bytes], Any]) -> None:
    """A strip may lie in bytes, in a view or in an array, writable or not."""
    out = np.zeros(1000, np.uint8)
    assert decode_lzw(kind(imagecodecs.lzw_encode(b"ab" * 500)), out) == 1000
    assert out.tobytes() == b"ab" * 500


@pytest.mark.parametrize(
    "out", [np.zeros(8, np.uint16), np.zeros((2, 4), np.uint8), np.zeros(16, np.uint8)[::2], np.zeros(8, np.int8)]
)
def test_only_contiguous_bytes_are_filled(out: NDArray[Any]) -> None:
    """An array that is no row of bytes is refused before anything is written through its address."""
    with pytest.raises(TypeError):
        decode_lzw(imagecodecs.lzw_encode(bytes(8)), out)


def test_a_read_only_array_is_not_filled() -> None:
    """An array that must not be written is left as it is."""
    out = np.zeros(8, np.uint8)
    out.flags.writeable = False
    with pytest.raises(TypeError):
        decode_lzw(imagecodecs.lzw_encode(b"abcdefgh"), out)
    assert not out.any()


def test_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Strips decoded by several threads at once are those decoded one after the other."""
    rng = np.random.default_rng(8)
    strips = [rng.poisson(mean, 50_000).astype(np.uint8) for mean in (0.1, 0.7, 3.0, 20.0) * 8]
    outs = [np.zeros_like(strip) for strip in strips]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(decode_lzw, [imagecodecs.lzw_encode(strip.tobytes()) for strip in strips], outs))
    assert all(np.array_equal(out, strip) for out, strip in zip(outs, strips, strict=True))
