"""Going into the background, with a file that holds the process id; SIGHUP."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType


@contextmanager
def in_background(daemon: bool, pid_file: Path | None) -> Iterator[None]:
    """Go into the background where that is wanted, and leave the process id for as long as this lasts.

    In the background the folder is `/`: whoever goes there takes absolute paths with him.
    """
    path = None if pid_file is None else pid_file.absolute()
    # Opened before anything else: who cannot write it is told so.
    stream = None if path is None else path.open("w")
    if daemon:
        if os.fork():
            os._exit(0)
        _detach()
    if stream is not None:
        with stream:
            stream.write(f"{os.getpid()}\n")
    try:
        yield
    finally:
        if path is not None:
            with suppress(OSError):
                path.unlink()


def _detach() -> None:
    os.setsid()
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.close(nothing)


@contextmanager
def told_to_read_again(can_be: bool = True) -> Iterator[threading.Event]:
    """An event that SIGHUP sets; where there is nothing to read again, SIGHUP does what it did."""
    again = threading.Event()
    if not can_be:
        yield again
        return

    def handle(_number: int, _frame: FrameType | None) -> None:
        again.set()

    before = signal.signal(signal.SIGHUP, handle)
    try:
        yield again
    finally:
        signal.signal(signal.SIGHUP, before)
