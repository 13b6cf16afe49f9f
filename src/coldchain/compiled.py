"""The one door to numba: typed decorators, so that compiled kernels keep their signatures under strict types."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar, cast

import numba
from numba.core.registry import cpu_target

P = ParamSpec("P")
R = TypeVar("R")

# What may change the last bits, and lets sums be vectorised; NaN and infinity keep their meaning.
_LOOSE = {"reassoc", "contract", "nsz"}
# A thread that is done early takes another band: cores are seldom equally free.
_BANDS_A_THREAD = 4
_BLAS = "scipy.linalg"


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile to machine code, cached on disk. The GIL is released, so that callers may run kernels in threads."""
    return cast(Callable[P, R], numba.njit(cache=True, nogil=True, fastmath=False)(function))


def compiled_loosely(function: Callable[P, R]) -> Callable[P, R]:
    """As `compiled`, but floating-point sums may be taken in another order: for long loops over pixels."""
    return cast(Callable[P, R], numba.njit(cache=True, nogil=True, fastmath=_LOOSE)(function))


def in_bands(work: Callable[[int, int], None], rows: int, threads: int) -> None:
    """Call `work(first, end)` for bands of rows that cover 0 … rows, some to a thread, in at most `threads` threads.

    For kernels made by `compiled`: they hold no lock, and the caller's bound is kept without numba's own thread pool,
    whose simplest layer must not be entered from two threads.
    """
    if threads <= 1 or rows <= 1:
        work(0, rows)
        return
    bands = min(_BANDS_A_THREAD * threads, rows)
    edges = [rows * band // bands for band in range(bands + 1)]
    with ThreadPoolExecutor(min(threads, bands)) as pool:
        # list() waits for all and raises what a band raised.
        list(pool.map(work, edges[:-1], edges[1:]))


def wake() -> None:
    """Make numba ready, in a command of one process and before it starts a thread.

    On its first use numba imports scipy's linear algebra, only to see whether compiled code could call BLAS, which none
    here does: a third of a second, a tenth of what aligning a small movie takes. Until numba has looked, there is none.
    """
    if _BLAS in sys.modules:
        return
    sys.modules[_BLAS] = None  # type: ignore[assignment]  # what makes an import of it fail
    try:
        cpu_target.target_context.refresh()
    finally:
        del sys.modules[_BLAS]
