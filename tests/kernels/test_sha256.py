"""SHA-256 of several streams in lanes, against `hashlib`."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldchain.kernels.sha256 import BLOCK_BYTES, INITIAL_STATE, WORDS, absorb

MOST_STREAMS = 16
# As many as there are in a table, so that each of the kernels has its turn: alone, in 4, in 8, in 16 lanes.
TABLES = [1, 4, 8, 16]


def _padded(content: bytes) -> bytes:
    zeros = -(len(content) + 9) % BLOCK_BYTES
    return content + b"\x80" + bytes(zeros) + (8 * len(content)).to_bytes(8, "big")


def _digests(contents: list[bytes], *, offset_bytes: int = 0, most_blocks: int = 1 << 40, table: int = 1) -> list[str]:
    """Digests of whole messages, which lie so many bytes behind an array's start, in a table of at least so many."""
    messages = [np.frombuffer(bytes(offset_bytes) + _padded(content), np.uint8) for content in contents]
    spare = max(0, table - len(contents))
    states = np.tile(INITIAL_STATE, (len(contents) + spare, 1))
    addresses = np.array([message.ctypes.data + offset_bytes for message in messages] + [0] * spare, np.int64)
    blocks = np.array([(message.size - offset_bytes) // BLOCK_BYTES for message in messages] + [0] * spare, np.int64)
    while blocks.any():
        absorb(states, addresses, blocks, most_blocks)
    assert np.array_equal(states[len(contents) :], np.tile(INITIAL_STATE, (spare, 1)))
    return [state.astype(">u4").tobytes().hex() for state in states[: len(contents)]]


def _expected(contents: list[bytes]) -> list[str]:
    return [hashlib.sha256(content).hexdigest() for content in contents]


def test_the_initial_state_is_the_standards() -> None:
    """The hash value of section 5.3.3, and nobody can change it for all."""
    words = "6a09e667 bb67ae85 3c6ef372 a54ff53a 510e527f 9b05688c 1f83d9ab 5be0cd19"
    assert [f"{word:08x}" for word in INITIAL_STATE] == words.split()
    with pytest.raises(ValueError, match="read-only"):
        INITIAL_STATE[0] = 0


@pytest.mark.parametrize("streams", range(1, MOST_STREAMS + 1))
def test_any_number_of_streams_has_the_digests_of_hashlib(streams: int) -> None:
    """Streams of the same length, in every number that has room."""
    content = np.random.default_rng(streams).bytes(streams * 1000)
    contents = [content[1000 * n : 1000 * (n + 1)] for n in range(streams)]
    assert _digests(contents) == _expected(contents)


@settings(deadline=None, max_examples=150)
@given(
    sizes=st.lists(st.integers(0, 2500), min_size=1, max_size=MOST_STREAMS),
    offset_bytes=st.integers(0, 80),
    most_blocks=st.integers(1, 50),
    table=st.sampled_from(TABLES),
    seed=st.integers(0, 1 << 32),
)
def test_lengths_offsets_and_slices_do_not_matter(
    sizes: list[int], offset_bytes: int, most_blocks: int, table: int, seed: int
) -> None:
    """Streams that end at different times, at any address, hashed in pieces: the digests are those of hashlib."""
    rng = np.random.default_rng(seed)
    contents = [rng.bytes(size) for size in sizes]
    assert _digests(contents, offset_bytes=offset_bytes, most_blocks=most_blocks, table=table) == _expected(contents)


@pytest.mark.parametrize("streams", TABLES)
def test_a_long_run_of_blocks(streams: int) -> None:
    """Hundreds of blocks at a time, whatever is left over at the end of the lone stream's schedules."""
    rng = np.random.default_rng(streams)
    contents = [rng.bytes(64 * 1001 + n) for n in range(streams)]
    assert _digests(contents) == _expected(contents)


@pytest.mark.parametrize("streams", TABLES)
def test_all_are_moved_on_by_what_the_shortest_has(streams: int) -> None:
    """One call takes as many blocks of each as all have; addresses and counts say where each stands."""
    data = np.zeros(64 * 64, np.uint8)
    states = np.tile(INITIAL_STATE, (streams, 1))
    addresses = np.full(streams, data.ctypes.data, np.int64)
    blocks = 7 + np.arange(streams)
    absorb(states, addresses, blocks, 1000)
    assert np.array_equal(addresses - data.ctypes.data, np.full(streams, 7 * 64))
    assert np.array_equal(blocks, np.arange(streams))
    absorb(states, addresses, np.where(blocks > 0, blocks, 0), 0)
    assert np.array_equal(addresses - data.ctypes.data, np.full(streams, 7 * 64))


@pytest.mark.parametrize("streams", TABLES)
def test_nothing_to_do_changes_nothing(streams: int) -> None:
    """No blocks at all, or none allowed: no memory is looked at, and every state stays."""
    states = np.arange(streams * WORDS, dtype=np.uint32).reshape(streams, WORDS)
    addresses = np.zeros(streams, np.int64)
    for blocks, most in ((0, 5), (3, 0)):
        absorb(states, addresses, np.full(streams, blocks), most)
    assert np.array_equal(states, np.arange(streams * WORDS, dtype=np.uint32).reshape(streams, WORDS))
    assert not addresses.any()


@pytest.mark.parametrize(("states", "addresses", "blocks"), [(8, 4, 8), (4, 4, 8), (8, 4, 4), (17, 17, 17)])
def test_what_does_not_fit_together_is_refused(states: int, addresses: int, blocks: int) -> None:
    """Arrays of unequal lengths, or of more streams than there are lanes, are refused before memory is read."""
    with pytest.raises(ValueError, match="expected"):
        absorb(np.tile(INITIAL_STATE, (states, 1)), np.zeros(addresses, np.int64), np.ones(blocks, np.int64), 1)
