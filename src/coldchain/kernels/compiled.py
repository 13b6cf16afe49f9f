"""The one door to numba: a typed decorator, so that compiled kernels keep their signatures under strict types."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile to machine code, cached on disk. The GIL is released, so that callers may run kernels in threads."""
    return cast(Callable[P, R], numba.njit(cache=True, nogil=True, fastmath=False)(function))


def compiled_parallel(function: Callable[P, R]) -> Callable[P, R]:
    """The same with `numba.prange` in parallel; callers bound the threads with `numba.set_num_threads`."""
    return cast(Callable[P, R], numba.njit(cache=True, nogil=True, parallel=True, fastmath=False)(function))
