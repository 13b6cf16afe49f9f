"""Going into the background, with a file that holds the process id; SIGHUP."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TextIO

from coldchain.errors import UsageError


@contextmanager
def in_background(daemon: bool, pid_file: Path | None) -> Iterator[None]:
    """Go into the background where that is wanted, and leave the process id for as long as this lasts.

    In the background the folder is `/`: whoever goes there takes absolute paths with him.
    """
    path = None if pid_file is None else pid_file.absolute()
    # Opened before anything else: who cannot write it, or finds another at work, is told so.
    stream = None if path is None else _own(path)
    if daemon:
        process = os.fork()
        if process:
            # Written before this process ends: whoever started it reads the file as soon as it has.
            _note(stream, process)
            os._exit(0)
        _detach()
    else:
        _note(stream, os.getpid())
    try:
        yield
    finally:
        if path is not None and stream is not None:
            with suppress(OSError):
                path.unlink()
            stream.close()


def _note(stream: TextIO | None, process: int) -> None:
    if stream is not None:
        stream.truncate(0)
        stream.write(f"{process}\n")
        stream.flush()


def _own(path: Path) -> TextIO:
    """The file, locked for as long as this process lives. Raises UsageError where another process holds it."""
    stream = path.open("a")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        raise UsageError(
            f"another watcher is at work, whose process id stands in {path}",
            remedy="Stop it first, or name another file with -p: two would run every command twice",
        ) from None
    return stream


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
