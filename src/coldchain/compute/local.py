"""A pool of processes on this machine."""

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
    """Worker processes of this machine; a worker that is killed is replaced and its work reported as failed.

    Workers are spawned, not forked: the service has threads, and a fork would copy their locks.
    """

    def __init__(self, workers: int) -> None:
        self.slots = workers
        self._lock = threading.Lock()
        self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(max_workers=self.slots, mp_context=context, initializer=_settle_worker)

    def submit(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run `function` in a worker; see `Engine.submit`."""
        with self._lock:
            try:
                inner = self._pool.submit(function, *args, **kwargs)
            except BrokenProcessPool:
                self._pool.shutdown(wait=False)
                self._pool = self._new_pool()
                inner = self._pool.submit(function, *args, **kwargs)
        outer: Future[R] = Future()
        outer.set_running_or_notify_cancel()
        inner.add_done_callback(lambda done: _pass_on(done, outer))
        return outer

    def close(self) -> None:
        """Wait for what runs, then let the workers go."""
        self._pool.shutdown(wait=True)


def _pass_on(inner: Future[R], outer: Future[R]) -> None:
    error = inner.exception()
    if error is None:
        outer.set_result(inner.result())
    elif isinstance(error, BrokenProcessPool):
        found = "a worker process died (killed, or out of memory)"
        outer.set_exception(ComputeError(found, remedy="It is tried again; see the system's log for the reason."))
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
