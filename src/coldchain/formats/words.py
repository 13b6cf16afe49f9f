"""Words of memory at any address, for compiled decoders: what array indexing cannot say.

A bit reader wants eight bytes at once, wherever they begin, and a string of a few bytes is copied fastest by one store
that is always as wide, whatever it writes past the string's end. Addresses are integers, as an array's `ctypes.data`
gives them. Nothing is checked here: whoever calls proves each address. Only compiled code can call these functions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir  # type: ignore[import-untyped]  # it has no stubs
from numba.core import types
from numba.extending import intrinsic

CHUNK = 32

_WORD = ir.IntType(64)
_CHUNK = ir.VectorType(ir.IntType(8), CHUNK)


def _load(builder: Any, address: Any, kind: ir.Type) -> Any:
    value = builder.load(builder.inttoptr(address, kind.as_pointer()))
    value.align = 1
    return value


def _store(builder: Any, address: Any, value: Any) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer())).align = 1


def _from_memory(kind: Any, emit: Callable[[Any, Any], Any]) -> Callable[[int], int]:
    def typed(_context: Any, _address: Any) -> Any:
        return kind(types.int64), lambda _context, builder, _signature, values: emit(builder, *values)

    return cast(Callable[[int], int], intrinsic(typed))


def _to_memory(emit: Callable[[Any, Any, Any], None]) -> Callable[[int, int], None]:
    def typed(_context: Any, _address: Any, _value: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
            emit(builder, *values)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    return cast(Callable[[int, int], None], intrinsic(typed))


def _load_big_endian(builder: Any, address: Any) -> Any:
    word = _load(builder, address, _WORD)
    return builder.bswap(word) if sys.byteorder == "little" else word


# (address): the int64 there, in this machine's byte order.
load_word = _from_memory(types.int64, lambda builder, address: _load(builder, address, _WORD))
# (address): the uint64 whose highest byte is the one there.
load_big_endian = _from_memory(types.uint64, _load_big_endian)
# (address, value): the opposite of load_word.
store_word = _to_memory(_store)
# (target, source): CHUNK bytes, all read before one is written.
copy_chunk = _to_memory(lambda builder, target, source: _store(builder, target, _load(builder, source, _CHUNK)))
