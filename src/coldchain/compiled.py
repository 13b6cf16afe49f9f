"""The one door to numba: typed decorators, so that compiled kernels keep their signatures under strict types."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")

# What may change the last bits, and lets sums be vectorised; NaN and infinity keep their meaning.
_LOOSE = {"reassoc", "contract", "nsz"}


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile to machine code, cached on disk. The GIL is released, so that callers may run kernels in threads."""
    return cast(Callable[P, R], numba.njit(cache=True, nogil=True, fastmath=False)(function))


def compiled_loosely(function: Callable[P, R]) -> Callable[P, R]:
    """As `compiled`, but floating-point sums may be taken in another order: for long loops over pixels."""
    return cast(Callable[P, R], numba.njit(cache=True, nogil=True, fastmath=_LOOSE)(function))


def in_bands(work: Callable[[int, int], None], rows: int, threads: int) -> None:
    """Call `work(first, end)` for bands of rows that cover 0 … rows, in at most `threads` threads.

    For kernels made by `compiled`: they hold no lock, and the caller's bound is kept without numba's own thread pool,
    whose simplest layer must not be entered from two threads.
    """
    bands = max(1, min(threads, rows))
    if bands == 1:
        work(0, rows)
        return
    edges = [rows * band // bands for band in range(bands + 1)]
    with ThreadPoolExecutor(bands) as pool:
        # list() waits for all and raises what a band raised.
        list(pool.map(work, edges[:-1], edges[1:]))
