"""Streams of several threads, hashed together in the lanes of one processor core.

Sixteen streams take hardly more time than one. So the threads that hash combine: one that finds the turn free takes it
and hashes for all that wait, itself among them; when it is served it passes the turn on to another. No thread is there
for this alone, a lone stream waits for nobody, and nothing polls.
"""

from __future__ import annotations

import threading
from collections import deque
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from coldchain.errors import StorageError
from coldchain.kernels.sha256 import BLOCK_BYTES, INITIAL_STATE, WORDS, absorb

Bytes = bytes | bytearray | memoryview

# What is shorter is hashed where it is: being served would take as long.
_COMBINED_BLOCKS = (32 << 10) // BLOCK_BYTES
# A slice of a turn takes less than a millisecond, which is what a newcomer waits for its seat: so many blocks in all
# lanes together, reckoned as if there were at least so many streams, for fewer do not take less time.
_SLICE_BLOCKS = (1 << 20) // BLOCK_BYTES
_FEW_STREAMS = 4
_LENGTH_BYTES = 8


class _Request:
    """One stream's blocks. `served` is locked until they are hashed, or until the turn is this stream's thread's."""

    __slots__ = ("address", "blocks", "served", "state", "turn")

    def __init__(self, state: NDArray[np.uint32], address: int, blocks: int) -> None:
        self.state = state
        self.address = address
        self.blocks = blocks
        self.turn: _Turn | None = None
        self.served = Lock()
        self.served.acquire()


class _Turn:
    """The streams that are hashed together. Only the thread that holds the turn touches it."""

    def __init__(self, lanes: int) -> None:
        self._seats: list[_Request | None] = [None] * lanes
        self._states = np.zeros((lanes, WORDS), np.uint32)
        self._addresses = np.zeros(lanes, np.int64)
        self._blocks = np.zeros(lanes, np.int64)

    def take(self, waiting: deque[_Request]) -> None:
        """Give free seats to those who wait, first come, first served."""
        for lane, sitting in enumerate(self._seats):
            if not waiting:
                return
            if sitting is None:
                request = waiting.popleft()
                self._seats[lane] = request
                self._states[lane] = request.state
                self._addresses[lane] = request.address
                self._blocks[lane] = request.blocks

    def hash_slice(self) -> None:
        """Hash some blocks of every stream, and let those go that are served."""
        streams = len(self._seats) - self._seats.count(None)
        absorb(self._states, self._addresses, self._blocks, _SLICE_BLOCKS // max(streams, _FEW_STREAMS))
        for lane, request in enumerate(self._seats):
            if request is not None and not self._blocks[lane]:
                request.state[:] = self._states[lane]
                request.blocks = 0
                self._seats[lane] = None
                request.served.release()

    def leave(self, request: _Request) -> None:
        """Free the seat of a stream that will not be served."""
        for lane, sitting in enumerate(self._seats):
            if sitting is request:
                self._seats[lane] = None
                self._blocks[lane] = 0

    def longest(self) -> _Request | None:
        """The stream that has most blocks left, if there is one."""
        return self._seats[int(self._blocks.argmax())]


class Hasher:
    """Hashes what several threads bring: up to `lanes` (1 … 16) streams in a turn, in up to `turns` turns at a time.

    A further turn begins only when `crowd` streams wait (by default as many as have room in one): together they take
    less of the processor, and copying leaves it other things to do.
    """

    def __init__(self, lanes: int, turns: int, *, crowd: int | None = None) -> None:
        self._lanes = lanes
        self._most_turns = turns
        self._crowd = lanes if crowd is None else crowd
        self._lock = Lock()  # of the two that follow
        self._waiting: deque[_Request] = deque()
        self._turns = 0

    def new_digest(self) -> LaneDigest:
        """A digest whose longer updates are hashed with those of other threads."""
        return LaneDigest(self)

    @property
    def waiting(self) -> int:
        """How many streams have no seat yet."""
        with self._lock:
            return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether nothing is being hashed together, and nobody waits for it."""
        with self._lock:
            return not self._turns and not self._waiting

    def absorb(self, state: NDArray[np.uint32], address: int, blocks: int) -> None:
        """Hash whole blocks of 64 bytes, which lie at `address`, into `state` (8 words). Returns when that is done.

        Short ones are hashed at once, and so is what the main thread brings: Ctrl-C raises there, at any moment, and
        must not find it in other threads' way.
        """
        if blocks < _COMBINED_BLOCKS or threading.current_thread() is threading.main_thread():
            absorb(state[np.newaxis], np.array([address]), np.array([blocks]), blocks)
            return
        request = _Request(state, address, blocks)
        self._ask(request)
        request.served.acquire()
        if request.turn is not None:
            self._serve(request, request.turn)

    def _ask(self, request: _Request) -> None:
        with self._lock:
            self._waiting.append(request)
            crowded = len(self._waiting) >= self._crowd or not self._turns
            begins = crowded and self._turns < self._most_turns
            self._turns += begins
        if begins:
            self._pass_on(_Turn(self._lanes))

    def _serve(self, request: _Request, turn: _Turn) -> None:
        try:
            while request.blocks:
                turn.hash_slice()
                with self._lock:
                    turn.take(self._waiting)
        finally:
            turn.leave(request)
            self._pass_on(turn)

    def _pass_on(self, turn: _Turn) -> None:
        with self._lock:
            turn.take(self._waiting)
            heir = turn.longest()
            if heir is None:
                self._turns -= 1
                return
        heir.turn = turn
        heir.served.release()


class LaneDigest:
    """A `Digest` that is computed together with others."""

    def __init__(self, hasher: Hasher) -> None:
        self._hasher = hasher
        self._state = INITIAL_STATE.copy()
        self._rest = b""  # less than a block
        self._size_bytes = 0
        self._whole = True

    def update(self, data: Bytes, /) -> None:
        """Append bytes. The data may be changed again when this has returned."""
        self._require_whole()
        view = memoryview(data).cast("B")
        self._size_bytes += len(view)
        if self._rest:
            missing = BLOCK_BYTES - len(self._rest)
            self._rest += view[:missing]
            view = view[missing:]
            if len(self._rest) < BLOCK_BYTES:
                return
            self._absorb(self._rest)
        end = len(view) // BLOCK_BYTES * BLOCK_BYTES
        if end:
            self._absorb(view[:end])
        self._rest = bytes(view[end:])

    def hexdigest(self) -> str:
        """The digest of all bytes so far, as 64 lower-case hexadecimal digits."""
        self._require_whole()
        zeros = -(len(self._rest) + 1 + _LENGTH_BYTES) % BLOCK_BYTES
        end = self._rest + b"\x80" + bytes(zeros) + (8 * self._size_bytes).to_bytes(_LENGTH_BYTES, "big")
        state = self._state.copy()
        self._hasher.absorb(state, _address(end), len(end) // BLOCK_BYTES)
        return state.astype(">u4").tobytes().hex()

    def _absorb(self, data: Bytes) -> None:
        self._whole = False
        self._hasher.absorb(self._state, _address(data), len(data) // BLOCK_BYTES)
        self._whole = True

    def _require_whole(self) -> None:
        if not self._whole:
            raise StorageError("this digest's last update was broken off", remedy="Read the file again")


def _address(data: Bytes) -> int:
    return int(np.frombuffer(data, np.uint8).__array_interface__["data"][0])
