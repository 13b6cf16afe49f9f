"""Processes on this machine, one for each slot."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import ParamSpec, TypeVar

from coldchain.errors import ComputeError

P = ParamSpec("P")
R = TypeVar("R")


class LocalEngine:
    """Worker processes of this machine; one that is killed is replaced, and its work, and no other, reported as failed.

    Each slot is a pool of one: a pool of several breaks as a whole when one of its processes dies, and a movie that
    exhausts the memory would take its neighbours down with it. Workers are spawned, not forked: the service has
    threads, and a fork would copy their locks.
    """

    def __init__(self, workers: int) -> None:
        self.slots = workers
        self._lock = threading.Lock()
        self._pools = [_new_pool() for _ in range(workers)]
        # Never held while a pool is called: pools call back with locks of their own.
        self._counting = threading.Lock()
        self._given = [0] * workers

    def submit(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run `function` in a worker; see `Engine.submit`. Raises OSError where no process can be started."""
        with self._lock:
            with self._counting:
                slot = self._given.index(min(self._given))
                self._given[slot] += 1
            try:
                inner = self._submitted(slot, function, *args, **kwargs)
            except BaseException:
                self._let_go(slot)
                raise
        outer: Future[R] = Future()
        outer.set_running_or_notify_cancel()

        def ended(done: Future[R]) -> None:
            self._let_go(slot)
            _pass_on(done, outer)

        inner.add_done_callback(ended)
        return outer

    def _submitted(self, slot: int, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        try:
            return self._pools[slot].submit(function, *args, **kwargs)
        except BrokenProcessPool:
            self._pools[slot].shutdown(wait=False)
            self._pools[slot] = _new_pool()
            return self._pools[slot].submit(function, *args, **kwargs)

    def _let_go(self, slot: int) -> None:
        with self._counting:
            self._given[slot] -= 1

    def close(self) -> None:
        """Wait for what runs, then let the workers go."""
        for pool in self._pools:
            pool.shutdown(wait=True)


def _new_pool() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(max_workers=1, mp_context=context, initializer=_settle_worker)


def _pass_on(inner: Future[R], outer: Future[R]) -> None:
    error = inner.exception()
    if error is None:
        outer.set_result(inner.result())
    elif isinstance(error, BrokenProcessPool):
        found = "a worker process died (killed, or out of memory)"
        outer.set_exception(ComputeError(found, remedy="It is tried again; see the system's log for the reason"))
    else:
        outer.set_exception(error)


def _settle_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it: a worker whose parent was killed must not write on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True, name="parent-watch").start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
