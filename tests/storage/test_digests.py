"""Digests that several threads compute together, against `hashlib`."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from coldchain.errors import StorageError
from coldchain.storage import digests, hashing
from coldchain.storage.digests import lanes_of, new_digest, processor_flags, sha256_of
from coldchain.storage.hashing import Hasher

LONG = 200_000  # more than what is hashed where it is
MANY = 20


def _in_threads(work: Callable[[int], str], count: int) -> list[str]:
    """Run `work` in so many threads that begin together."""
    together = threading.Barrier(count)

    def begin(n: int) -> str:
        together.wait()
        return work(n)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count), timeout=60))


def _hashed(hasher: Hasher, content: bytes, pieces: Sequence[int] = (LONG,)) -> str:
    """The digest of a content that comes in pieces of these sizes, in turn."""
    digest = hasher.new_digest()
    view, turn = memoryview(content), 0
    while view:
        size = pieces[turn % len(pieces)]
        digest.update(view[:size])
        view, turn = view[size:], turn + 1
    return digest.hexdigest()


def _contents(count: int, size: int, seed: int = 1) -> list[bytes]:
    rng = np.random.default_rng(seed)
    return [rng.bytes(size + 1000 * n) for n in range(count)]


def _expected(contents: Sequence[bytes]) -> list[str]:
    return [hashlib.sha256(content).hexdigest() for content in contents]


@pytest.mark.parametrize(("lanes", "turns", "crowd"), [(16, 2, None), (8, 1, None), (4, 3, 1), (3, 2, 2), (1, 1, None)])
def test_many_threads_get_each_its_own_digest(lanes: int, turns: int, crowd: int | None) -> None:
    """However few lanes and turns there are for them, every stream's digest is that of hashlib, and nobody is left."""
    hasher = Hasher(lanes, turns, crowd=crowd)
    contents = _contents(MANY, 3 * LONG)
    assert _in_threads(lambda n: _hashed(hasher, contents[n], (LONG, 70, 0, 40_000)), MANY) == _expected(contents)
    assert hasher.idle


@settings(deadline=None, max_examples=25)
@given(
    sizes=st.lists(st.integers(0, 3 * LONG), min_size=1, max_size=6),
    pieces=st.lists(st.sampled_from([1, 63, 64, 65, 1000, 32 << 10, LONG, 1 << 20]), min_size=1, max_size=4),
    lanes=st.sampled_from([1, 2, 4, 8, 16]),
    turns=st.integers(1, 3),
    seed=st.integers(0, 1 << 32),
)
def test_how_the_bytes_come_does_not_matter(
    sizes: list[int], pieces: list[int], lanes: int, turns: int, seed: int
) -> None:
    """Streams of any length in pieces of any length, so also at any address, in several threads."""
    pieces = [max(piece, 2000) if sum(sizes) > LONG else piece for piece in pieces]
    rng = np.random.default_rng(seed)
    contents = [rng.bytes(size) for size in sizes]
    hasher = Hasher(lanes, turns)
    assert _in_threads(lambda n: _hashed(hasher, contents[n], pieces), len(sizes)) == _expected(contents)
    assert hasher.idle


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 119, 120, 1000, LONG])
def test_the_main_thread_alone(size: int) -> None:
    """A lone stream, whose lengths meet every case of the padding; asking for the digest does not end it."""
    content = _contents(1, size)[0]
    digest = Hasher(16, 1).new_digest()
    assert digest.hexdigest() == hashlib.sha256().hexdigest()
    digest.update(content)
    assert digest.hexdigest() == _expected([content])[0]
    digest.update(bytearray(content))
    assert digest.hexdigest() == _expected([content + content])[0]


def test_a_stream_that_is_abandoned_holds_up_nobody() -> None:
    """Some threads stop in the middle of their files; the others' digests are right, and later ones', too."""
    hasher = Hasher(16, 1)
    contents = _contents(MANY, 3 * LONG)

    def work(n: int) -> str:
        if n % 3:
            return _hashed(hasher, contents[n])
        hasher.new_digest().update(contents[n][:LONG])
        return ""

    found = _in_threads(work, MANY)
    assert [digest for digest in found if digest] == [digest for n, digest in enumerate(_expected(contents)) if n % 3]
    assert hasher.idle


def test_the_buffer_is_let_go() -> None:
    """After an update the buffer may be resized or unmapped: nobody holds it, not even whoever hashed it."""
    hasher = Hasher(16, 1)

    def work(n: int) -> str:
        buffer = bytearray(LONG)
        digest = hasher.new_digest()
        for _ in range(5):
            digest.update(memoryview(buffer))
            buffer.append(n)  # raises BufferError while it is held
        return digest.hexdigest()

    assert len(set(_in_threads(work, MANY))) == MANY


def test_an_error_in_one_stream_blocks_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel fails in one thread's hands, that stream ends with the error, the turn is passed on."""
    real, failures = hashing.absorb, iter([True, False, True])

    def failing(
        states: NDArray[np.uint32], addresses: NDArray[np.int64], blocks: NDArray[np.int64], most_blocks: int
    ) -> None:
        if len(blocks) > 1 and next(failures, False):
            raise MemoryError
        real(states, addresses, blocks, most_blocks)

    monkeypatch.setattr(hashing, "absorb", failing)
    hasher = Hasher(4, 1)
    contents = _contents(MANY, LONG)

    def work(n: int) -> str:
        digest = hasher.new_digest()
        try:
            digest.update(contents[n])
        except MemoryError:
            with pytest.raises(StorageError, match="broken off"):
                digest.update(b"more")
            with pytest.raises(StorageError, match="Read the file again"):
                digest.hexdigest()
            return "failed"
        return digest.hexdigest()

    found = _in_threads(work, MANY)
    assert found.count("failed") == 2
    assert {digest for digest in found if digest != "failed"} <= set(_expected(contents))
    assert hasher.idle


def test_who_waits_is_served_in_one_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams that come while another is hashed are taken up together by the thread that is at it."""
    real, together = hashing.absorb, []
    first, more = threading.Event(), threading.Event()

    def watched(
        states: NDArray[np.uint32], addresses: NDArray[np.int64], blocks: NDArray[np.int64], most_blocks: int
    ) -> None:
        if len(blocks) > 1:
            together.append(int(np.count_nonzero(blocks)))
            first.set()
            assert more.wait(30)
        real(states, addresses, blocks, most_blocks)

    monkeypatch.setattr(hashing, "absorb", watched)
    hasher = Hasher(16, 4)
    content = bytes(LONG)
    with ThreadPoolExecutor(8) as pool:
        alone = pool.submit(_hashed, hasher, content * 8, (8 * LONG,))
        assert first.wait(30)
        others = [pool.submit(_hashed, hasher, content) for _ in range(7)]
        while hasher.waiting < 7:
            threading.Event().wait(0.001)
        more.set()
        assert {other.result() for other in others} == set(_expected([content]))
        assert alone.result() == _expected([content * 8])[0]
    assert together[:2] == [1, 8]


@pytest.mark.parametrize(
    ("flags", "lanes"),
    [
        ("fpu sse2 avx2 avx512f avx512vl", 16),
        ("fpu sse2 avx2 avx512f", 8),
        ("fpu sse2 avx2", 8),
        ("fpu sse2 avx2 avx512f avx512vl sha_ni", 1),
        ("fp asimd aes sha1 sha2", 1),
        ("fp asimd", 1),
        ("", 1),
    ],
)
def test_processors_are_told_by_what_they_can_do(flags: str, lanes: int) -> None:
    """One with instructions for SHA-256, or with narrow registers, is left to hashlib."""
    assert lanes_of(frozenset(flags.split())) == lanes


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 sha_ni\nbugs\t\t: taa\n", "hashlib"),
        ("processor\t: 0\nflags\t\t: fpu avx2\n", "lanes"),
        ("processor\t: 0\nFeatures\t: fp asimd sha2\n", "hashlib"),
        (None, "hashlib"),
    ],
)
def test_a_new_digest_is_of_the_processors_kind(
    text: str | None, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lanes where they are faster; hashlib where it is, and where nothing is known. Both give the same digest."""
    told = tmp_path / "cpuinfo"
    if text is not None:
        told.write_text(text)
    monkeypatch.setattr(digests, "_PROCESSOR", told)
    digests._hasher.cache_clear()
    digest = new_digest()
    digests._hasher.cache_clear()
    assert isinstance(digest, hashing.LaneDigest) is (kind == "lanes")
    digest.update(b"abc")
    assert digest.hexdigest() == sha256_of(b"abc") == hashlib.sha256(b"abc").hexdigest()


def test_this_processor_is_known() -> None:
    """On Linux the kernel tells what the processor can do."""
    assert processor_flags() or not Path("/proc/cpuinfo").exists()
