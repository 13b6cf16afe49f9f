"""Tasks shared out to a stated number of threads."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def run_all(task: Callable[[int], None], count: int, threads: int) -> None:
    """Run task(0) … task(count − 1) in at most `threads` threads, in order as far as there is one.

    Each thread takes the next task when it is done with one, so that no thread waits while another has work left. The
    first error stops the taking of tasks and is raised when all threads have stopped.
    """
    if threads <= 1 or count <= 1:
        for number in range(count):
            task(number)
        return
    numbers = itertools.count()  # next() on it is one step of the interpreter: no number is given out twice
    failed = threading.Event()

    def work() -> None:
        try:
            while not failed.is_set() and (number := next(numbers)) < count:
                task(number)
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(min(threads, count)) as pool:
        futures = [pool.submit(work) for _ in range(min(threads, count))]
    for future in futures:
        future.result()
