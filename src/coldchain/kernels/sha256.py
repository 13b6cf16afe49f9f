"""SHA-256 of several streams at once: each goes in a lane of its own of the processor's vector registers.

A digest is one long chain of dependent steps, in which a processor without instructions for SHA-256 finds little to do
at a time. Chains of different streams do not depend on each other: sixteen of them, in the lanes of AVX-512's
registers, take little longer than one. Of a lone stream only the message schedule can be made in lanes, of eight
blocks at once.

Secure Hash Standard, FIPS 180-4, doi:10.6028/NIST.FIPS.180-4. All is in one module, because numba keeps compiled code
until the module of the compiled function changes.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from typing import Any, cast

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]  # it has no stubs
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from coldchain.compiled import compiled

BLOCK_BYTES = 64
WORDS = 8
_ROUNDS = 64
_TURN = 16  # rounds in which each of the schedule's sixteen words is used once
_MOST_STREAMS = 16
_AHEAD = 8  # blocks of a lone stream whose schedules are made at once

_WORD = ir.IntType(32)
_ADDRESS = ir.IntType(64)


def _primes() -> Iterator[int]:
    return (n for n in count(2) if all(n % divisor for divisor in range(2, math.isqrt(n) + 1)))


def _cube_root(n: int) -> int:
    """The integer below the cube root of n."""
    low, high = 0, 1 << (n.bit_length() // 3 + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**3 <= n else (low, middle)
    return low


# The first 32 bits behind the point of the first primes' cube and square roots (sections 4.2.2 and 5.3.3).
_ROUND_CONSTANTS = [_cube_root(prime << 96) & 0xFFFFFFFF for prime in islice(_primes(), _ROUNDS)]
INITIAL_STATE = np.array([math.isqrt(prime << 64) & 0xFFFFFFFF for prime in islice(_primes(), WORDS)], np.uint32)
INITIAL_STATE.flags.writeable = False


class _Code:
    """Emits the steps of the standard for `width` lanes: on vectors of 32-bit words, or on one word where it is 1.

    Where a processor has no registers as wide, LLVM takes several.
    """

    def __init__(self, builder: Any, width: int) -> None:
        self.builder = builder
        self.width = width
        self.kind = _WORD if width == 1 else ir.VectorType(_WORD, width)

    def everywhere(self, value: int) -> Any:
        return ir.Constant(self.kind, value if self.width == 1 else [value] * self.width)

    def load(self, address: Any, kind: Any = None) -> Any:
        value = self.builder.load(self.builder.inttoptr(address, (kind or self.kind).as_pointer()))
        value.align = 1
        return value

    def store(self, value: Any, address: Any) -> None:
        self.builder.store(value, self.builder.inttoptr(address, value.type.as_pointer())).align = 1

    def beyond(self, address: Any, size_bytes: int) -> Any:
        return self.builder.add(address, ir.Constant(_ADDRESS, size_bytes))

    def xor(self, *values: Any) -> Any:
        result, *others = values
        for value in others:
            result = self.builder.xor(result, value)
        return result

    def sum(self, *values: Any) -> Any:
        result, *others = values
        for value in others:
            result = self.builder.add(result, value)
        return result

    def rotated(self, value: Any, bits: int) -> Any:
        return self._call("fshr", value, value, self.everywhere(bits))

    def round_constant(self, round_: Any) -> Any:
        value = self.builder.load(self.builder.gep(_table(self.builder.module), [ir.Constant(_ADDRESS, 0), round_]))
        if self.width == 1:
            return value
        undefined = ir.Constant(self.kind, ir.Undefined)
        first = self.builder.insert_element(undefined, value, ir.Constant(_WORD, 0))
        return self.builder.shuffle_vector(first, undefined, self.everywhere(0))

    def blocks(self, addresses: Any, offset: Any) -> list[Any]:
        """The sixteen words of a block of every lane, `offset` bytes behind that lane's address."""
        starts = [
            self.builder.add(self.load(self.beyond(addresses, 8 * lane), _ADDRESS), offset)
            for lane in range(self.width)
        ]
        words: list[Any] = []
        for first in range(0, _TURN, self.width):
            words += self._transposed([self.load(self.beyond(start, 4 * first)) for start in starts])
        return [self._call("bswap", word) for word in words] if sys.byteorder == "little" else words

    def following(self, words: Sequence[Any], at: int) -> Any:
        """The schedule's word sixteen rounds after `words[at]`."""
        near, far = words[(at + 1) % _TURN], words[(at + 14) % _TURN]
        shifted = self.builder.lshr
        sigma_0 = self.xor(self.rotated(near, 7), self.rotated(near, 18), shifted(near, self.everywhere(3)))
        sigma_1 = self.xor(self.rotated(far, 17), self.rotated(far, 19), shifted(far, self.everywhere(10)))
        return self.sum(self.sum(words[at], words[(at + 9) % _TURN]), self.sum(sigma_0, sigma_1))

    def round(self, state: Sequence[Any], word: Any) -> list[Any]:
        """The state after one round; `word` is the schedule's plus the round's constant."""
        a, b, c, d, e, f, g, h = state
        both, either = self.builder.and_, self.builder.or_
        upper = self.xor(self.rotated(e, 6), self.rotated(e, 11), self.rotated(e, 25))
        choice = self.xor(g, both(e, self.xor(f, g)))
        first = self.sum(h, word, choice, upper)
        lower = self.xor(self.rotated(a, 2), self.rotated(a, 13), self.rotated(a, 22))
        majority = either(both(a, b), both(c, either(a, b)))
        return [self.sum(first, self.sum(lower, majority)), a, b, c, self.sum(d, first), e, f, g]

    def repeated(self, times: int, values: Sequence[Any], step: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
        """A loop: `step(turn, values)` gives the next turn's values; turns count from 0."""
        builder = self.builder
        before, body, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
        builder.branch(body)
        builder.position_at_end(body)
        entering = [ir.Constant(_ADDRESS, 0), *values]
        carried = [builder.phi(value.type) for value in entering]
        results = step(carried[0], carried[1:])
        leaving = [self.beyond(carried[0], 1), *results]
        for phi, first, next_ in zip(carried, entering, leaving, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(next_, body)
        builder.cbranch(builder.icmp_unsigned("<", leaving[0], ir.Constant(_ADDRESS, times)), body, after)
        builder.position_at_end(after)
        return results

    def _call(self, operation: str, *arguments: Any) -> Any:
        name = f"llvm.{operation}.{'' if self.width == 1 else f'v{self.width}'}i32"
        module = self.builder.module
        function = module.globals.get(name)
        if function is None:
            function = ir.Function(module, ir.FunctionType(self.kind, [self.kind] * len(arguments)), name)
        return self.builder.call(function, arguments)

    def _transposed(self, rows: Sequence[Any]) -> list[Any]:
        """Rows to columns: of each two rows, quarters and ever smaller squares off the diagonal are exchanged."""
        rows = list(rows)
        size = self.width // 2
        while size:
            # Of the upper row what stays is where bit `size` of the column is 0, of the lower one where it is 1.
            upper_places = [at if not at & size else self.width + at - size for at in range(self.width)]
            lower_places = [at + size if not at & size else self.width + at for at in range(self.width)]
            for upper in range(self.width):
                if not upper & size:
                    pair = rows[upper], rows[upper + size]
                    rows[upper] = self.builder.shuffle_vector(*pair, ir.Constant(self.kind, upper_places))
                    rows[upper + size] = self.builder.shuffle_vector(*pair, ir.Constant(self.kind, lower_places))
            size //= 2
        return rows


def _table(module: Any) -> Any:
    table = module.globals.get("coldchain.sha256.constants")
    if table is None:
        kind = ir.ArrayType(_WORD, _ROUNDS)
        table = ir.GlobalVariable(module, kind, "coldchain.sha256.constants")
        table.initializer = ir.Constant(kind, _ROUND_CONSTANTS)
        table.global_constant = True
        table.linkage = "internal"
    return table


def _emit_compression(builder: Any, width: int, states: Any, addresses: Any, offset: Any) -> None:
    """Section 6.2.2 for one block of every lane. `states` holds eight words of `width` lanes, words first."""
    code = _Code(builder, width)
    places = [code.beyond(states, 4 * width * word) for word in range(WORDS)]
    before = [code.load(place) for place in places]

    def turn(number: Any, values: list[Any]) -> list[Any]:
        state, words = values[:WORDS], values[WORDS:]
        first = builder.mul(number, ir.Constant(_ADDRESS, _TURN))
        for at in range(_TURN):
            state = code.round(state, code.sum(words[at], code.round_constant(code.beyond(first, at))))
            words[at] = code.following(words, at)
        return [*state, *words]

    values = code.repeated(_ROUNDS // _TURN - 1, [*before, *code.blocks(addresses, offset)], turn)
    after, words = values[:WORDS], values[WORDS:]
    for at, word in enumerate(words):  # the last words have no followers
        after = code.round(after, code.sum(word, code.everywhere(_ROUND_CONSTANTS[at - _TURN])))
    for place, old, new in zip(places, before, after, strict=True):
        code.store(code.sum(old, new), place)


def _emit_schedules(builder: Any, addresses: Any, schedules: Any) -> None:
    """Write the schedules of `_AHEAD` blocks, constants added: 64 rows of a word of every block."""
    code = _Code(builder, _AHEAD)

    def turn(number: Any, words: list[Any]) -> list[Any]:
        first = builder.mul(number, ir.Constant(_ADDRESS, _TURN))
        for at in range(_TURN):
            round_ = code.beyond(first, at)
            row = builder.add(schedules, builder.mul(round_, ir.Constant(_ADDRESS, 4 * _AHEAD)))
            code.store(code.sum(words[at], code.round_constant(round_)), row)
            words[at] = code.following(words, at)
        return words

    code.repeated(_ROUNDS // _TURN, code.blocks(addresses, ir.Constant(_ADDRESS, 0)), turn)


def _emit_rounds(builder: Any, state: Any, schedule: Any) -> None:
    """The rounds of one block of one stream, whose schedule is a column of what `_emit_schedules` wrote."""
    code = _Code(builder, 1)
    places = [code.beyond(state, 4 * word) for word in range(WORDS)]
    before = [code.load(place) for place in places]

    def turn(number: Any, values: list[Any]) -> list[Any]:
        column = builder.add(schedule, builder.mul(number, ir.Constant(_ADDRESS, 4 * _AHEAD * _TURN)))
        for at in range(_TURN):
            values = code.round(values, code.load(code.beyond(column, 4 * _AHEAD * at)))
        return values

    after = code.repeated(_ROUNDS // _TURN, before, turn)
    for place, old, new in zip(places, before, after, strict=True):
        code.store(code.sum(old, new), place)


def _compression(width: int) -> Callable[[int, int, int], None]:
    def typed(_context: Any, _states: Any, _addresses: Any, _offset: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
            _emit_compression(builder, width, *values)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), generate

    return cast(Callable[[int, int, int], None], intrinsic(typed))


def _to_memory(emit: Callable[[Any, Any, Any], None]) -> Callable[[int, int], None]:
    def typed(_context: Any, _first: Any, _second: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
            emit(builder, *values)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    return cast(Callable[[int, int], None], intrinsic(typed))


_compress_4, _compress_8, _compress_16 = _compression(4), _compression(8), _compression(16)
_schedule = _to_memory(_emit_schedules)
_rounds = _to_memory(_emit_rounds)


@compiled
def _seat(
    states: NDArray[np.uint32],
    addresses: NDArray[np.int64],
    blocks: NDArray[np.int64],
    most_blocks: int,
    lanes: NDArray[np.int64],
    columns: NDArray[np.uint32],
    places: NDArray[np.int64],
) -> int:
    """Put streams that have blocks left into the lanes; returns how many blocks all of these have, up to `most_blocks`.

    `lanes` says which stream sits where; lanes to spare repeat another one's stream.
    """
    seated = 0
    common = most_blocks
    for stream in range(blocks.size):
        if blocks[stream] > 0 and seated < lanes.size:
            lanes[seated] = stream
            common = min(common, blocks[stream])
            seated += 1
    lanes[seated:] = lanes[0]
    for lane in range(lanes.size):
        places[lane] = addresses[lanes[lane]]
        for word in range(WORDS):
            columns[word, lane] = states[lanes[lane], word]
    return common


@compiled
def _unseat(
    states: NDArray[np.uint32],
    addresses: NDArray[np.int64],
    blocks: NDArray[np.int64],
    done: int,
    lanes: NDArray[np.int64],
    columns: NDArray[np.uint32],
) -> None:
    for lane in range(lanes.size):
        stream = lanes[lane]
        if lane > 0 and stream == lanes[0]:
            break
        addresses[stream] += BLOCK_BYTES * done
        blocks[stream] -= done
        for word in range(WORDS):
            states[stream, word] = columns[word, lane]


@compiled
def _in_4_lanes(
    states: NDArray[np.uint32], addresses: NDArray[np.int64], blocks: NDArray[np.int64], most_blocks: int
) -> None:
    lanes, places, columns = np.empty(4, np.int64), np.empty(4, np.int64), np.empty((WORDS, 4), np.uint32)
    common = _seat(states, addresses, blocks, most_blocks, lanes, columns, places)
    for block in range(common):
        _compress_4(columns.ctypes.data, places.ctypes.data, BLOCK_BYTES * block)
    _unseat(states, addresses, blocks, common, lanes, columns)


@compiled
def _in_8_lanes(
    states: NDArray[np.uint32], addresses: NDArray[np.int64], blocks: NDArray[np.int64], most_blocks: int
) -> None:
    lanes, places, columns = np.empty(8, np.int64), np.empty(8, np.int64), np.empty((WORDS, 8), np.uint32)
    common = _seat(states, addresses, blocks, most_blocks, lanes, columns, places)
    for block in range(common):
        _compress_8(columns.ctypes.data, places.ctypes.data, BLOCK_BYTES * block)
    _unseat(states, addresses, blocks, common, lanes, columns)


@compiled
def _in_16_lanes(
    states: NDArray[np.uint32], addresses: NDArray[np.int64], blocks: NDArray[np.int64], most_blocks: int
) -> None:
    lanes, places, columns = np.empty(16, np.int64), np.empty(16, np.int64), np.empty((WORDS, 16), np.uint32)
    common = _seat(states, addresses, blocks, most_blocks, lanes, columns, places)
    for block in range(common):
        _compress_16(columns.ctypes.data, places.ctypes.data, BLOCK_BYTES * block)
    _unseat(states, addresses, blocks, common, lanes, columns)


@compiled
def _alone(
    states: NDArray[np.uint32], addresses: NDArray[np.int64], blocks: NDArray[np.int64], most_blocks: int
) -> None:
    """One stream: the schedules of several blocks in lanes, then their rounds, one after another."""
    lanes, places, state = np.empty(1, np.int64), np.empty(_AHEAD, np.int64), np.empty((WORDS, 1), np.uint32)
    schedules = np.empty((_ROUNDS, _AHEAD), np.uint32)
    common = _seat(states, addresses, blocks, most_blocks, lanes, state, places[:1])
    start = places[0]
    for first in range(0, common, _AHEAD):
        ahead = min(_AHEAD, common - first)
        for block in range(_AHEAD):
            places[block] = start + BLOCK_BYTES * (first + min(block, ahead - 1))
        _schedule(places.ctypes.data, schedules.ctypes.data)
        for block in range(ahead):
            _rounds(state.ctypes.data, schedules.ctypes.data + 4 * block)
    _unseat(states, addresses, blocks, common, lanes, state)


def absorb(
    states: NDArray[np.uint32], addresses: NDArray[np.int64], blocks: NDArray[np.int64], most_blocks: int
) -> None:
    """Hash the next blocks of up to sixteen streams, as many of each as all that have any left can give.

    Parameters
    ----------
    states : (streams, 8), the hash values H of section 6.2; `INITIAL_STATE` where a stream begins. Changed in place.
    addresses : (streams,), where in memory each stream's next block lies, at any alignment. Moved on in place. They
        are not checked: the caller keeps that memory alive, and no other thread changes it.
    blocks : (streams,), how many whole blocks of 64 bytes are there; 0 for one that has none. Counted down in place.
    most_blocks : no more than so many of each.

    All three are C-contiguous. Nothing is allocated for the data, and the interpreter's lock is not held. Either all
    three change or, where an exception is raised, none does.

    Raises ValueError where the three are not of equally many streams, or more than sixteen have blocks: the kernels
    would read past the ends.
    """
    if states.shape != (len(addresses), WORDS) or blocks.shape != addresses.shape:
        raise ValueError(
            f"states of shape {states.shape}, {len(addresses)} addresses and {len(blocks)} counts of blocks; "
            f"expected states of shape ({len(addresses)}, {WORDS}) and as many counts"
        )
    active = np.count_nonzero(blocks)
    if active > _MOST_STREAMS:
        raise ValueError(f"{active} streams have blocks; expected {_MOST_STREAMS} at most")
    if active == 0 or most_blocks < 1:
        return
    kernel = _alone if active < 2 else _in_4_lanes if active <= 4 else _in_8_lanes if active <= 8 else _in_16_lanes
    kernel(states, addresses, blocks, most_blocks)
