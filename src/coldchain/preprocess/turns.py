"""Files one after the other, each read, worked on and written, so that no core waits for a disk.

While one is worked on, one more thread reads the next and writes the last one. It takes the cores that the work leaves
idle where one thread works alone. So two files' pixels are in memory at most. With one thread nothing is done at the
same time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from coldchain.errors import ColdchainError, ProcessingError, StorageError
from coldchain.preprocess.report import Failed

Read = TypeVar("Read")
Made = TypeVar("Made")
Told = TypeVar("Told", covariant=True)

EXPECTED = (ColdchainError, OSError, MemoryError)


class Stages(Protocol[Read, Made, Told]):
    """What is done to a file, step by step, each with so many threads. A file that failed is passed on as it is."""

    def import_kernels(self) -> None:
        """Import what takes as long as reading a file."""

    def read(self, path: Path, threads: int, /) -> Read | Failed:
        """What is worked on."""

    def work(self, read: Read | Failed, /) -> Made | Failed:
        """What is made of it."""

    def write(self, made: Made | Failed, threads: int, /) -> Told | Failed:
        """What is told of it when it is on the disk."""


def in_turn(paths: Sequence[Path], stages: Stages[Read, Made, Told], threads: int) -> Iterator[Told | Failed]:
    """Take files through the stages; what became of each is told as soon as it is written, in the order given.

    Where Ctrl-C or SIGTERM ends it, what is being written aside is written to its end and told before.
    """
    if threads == 1:
        stages.import_kernels()
        for path in paths:
            yield stages.write(stages.work(stages.read(path, 1)), 1)
        return
    if not paths:
        return
    with ThreadPoolExecutor(1, thread_name_prefix="read") as first:
        reading = first.submit(stages.read, paths[0], threads)
        stages.import_kernels()
    writing: Future[Told | Failed] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="aside") as aside:
        try:
            for index in range(len(paths)):
                read = reading.result()
                is_last = index + 1 == len(paths)
                if is_last:
                    del reading  # or it would keep what it gave
                else:
                    reading = aside.submit(stages.read, paths[index + 1], 1)
                made = stages.work(read)
                del read
                if writing is not None:
                    told, writing = writing.result(), None
                    yield told
                if is_last:
                    yield stages.write(made, threads)
                else:
                    writing = aside.submit(stages.write, made, 1)
                del made  # or it would be kept until the next one is
        except (KeyboardInterrupt, SystemExit):
            if writing is not None:
                yield writing.result()
            raise


def failed(error: ColdchainError | OSError | MemoryError, path: Path) -> Failed:
    """The failure as one of ours that names a file."""
    return Failed(path, _stated(error, path))


def _stated(error: ColdchainError | OSError | MemoryError, path: Path) -> ColdchainError:
    if isinstance(error, MemoryError):
        return ProcessingError("there was not enough memory", remedy="Compute it where there is more", path=path)
    if isinstance(error, OSError):
        return StorageError(error.strerror or str(error), remedy="Check its permissions and its disk", path=path)
    if error.path is None:
        return type(error)(error.found, expected=error.expected, remedy=error.remedy, path=path)
    return error
