"""Movies one after the other: each is read, aligned and written; a failure is that movie's own.

While one is aligned, one more thread reads the next and writes the last one. It takes the cores that an alignment
leaves idle where one thread works alone. So two stacks of frames are in memory at most. With one thread nothing is done
at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coldchain.errors import ColdchainError, ProcessingError, StorageError
from coldchain.formats.movie import frames_per_fraction, probe_movie
from coldchain.preprocess.exposure import Stated, find_exposure
from coldchain.preprocess.raw_movie import RawMovie, References, read_raw, with_fractions
from coldchain.preprocess.report import Failed, Report, report
from coldchain.preprocess.wishes import FramesWanted, Lens, Wishes

if TYPE_CHECKING:
    from coldchain.preprocess.alignment import Alignment


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of every movie of a series, and where the results go."""

    stated: Stated
    frames: FramesWanted
    wishes: Wishes
    folder: Path
    lens: Lens


def align_all(movies: Sequence[Path], asked: Asked) -> Iterator[Report | Failed]:
    """Align movies in turn; what became of each is told as soon as it is written. At the end those that went well are
    listed for RELION; where that fails, it is told as of a movie."""
    stages = _Stages(asked)
    yield from _each(movies, stages, asked.wishes.threads)
    failed = stages.write_list()
    if failed is not None:
        yield failed


def _each(movies: Sequence[Path], stages: _Stages, threads: int) -> Iterator[Report | Failed]:
    if threads == 1:
        stages.import_kernels()
        for movie in movies:
            yield stages.write(stages.align(stages.read(movie, 1)), 1)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="read") as first:
        reading = first.submit(stages.read, movies[0], threads)
        stages.import_kernels()
    writing: Future[Report | Failed] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="aside") as aside:
        for index in range(len(movies)):
            read = reading.result()
            is_last = index + 1 == len(movies)
            if not is_last:
                reading = aside.submit(stages.read, movies[index + 1], 1)
            aligned = stages.align(read)
            del read
            if writing is not None:
                yield writing.result()
            if is_last:
                yield stages.write(aligned, threads)
            else:
                writing = aside.submit(stages.write, aligned, 1)
            del aligned  # or it would be kept until the next one is


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    movie: Path
    began: float
    raw: RawMovie


@dataclass(frozen=True, slots=True, eq=False)
class _Aligned:
    movie: Path
    began: float
    decode_seconds: float
    alignment: Alignment


class _Stages:
    """What is done to a movie, step by step. A movie that failed is passed on as it is.

    The kernels are imported where they are needed, and not with this module: it takes as long as reading a movie.
    """

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._references = References()

    def import_kernels(self) -> None:
        from coldchain.preprocess.alignment_files import Publisher
        from coldchain.preprocess.micrograph_list import MicrographList

        self._publisher = Publisher(self._asked.folder)
        self._list = MicrographList(self._asked.folder, self._asked.lens)

    def read(self, movie: Path, threads: int) -> _Read | Failed:
        began = time.perf_counter()
        try:
            return _Read(movie, began, self._read(movie, threads))
        except _EXPECTED as error:
            return Failed(movie, _stated(error, movie))

    def _read(self, movie: Path, threads: int) -> RawMovie:
        info, stated, frames = probe_movie(movie, whole=False), self._asked.stated, self._asked.frames
        camera_frames = frames_per_fraction(info, eer_fractions=frames.eer_fractions)
        exposure = find_exposure(info, stated, camera_frames_per_frame=camera_frames[0])
        wanted = with_fractions(frames, exposure)
        return read_raw(exposure, wanted, self._references, threads=threads)

    def align(self, read: _Read | Failed) -> _Aligned | Failed:
        if isinstance(read, Failed):
            return read
        from coldchain.preprocess.alignment import align_raw

        try:
            return _Aligned(read.movie, read.began, read.raw.seconds, align_raw(read.raw, self._asked.wishes))
        except _EXPECTED as error:
            return Failed(read.movie, _stated(error, read.movie))

    def write(self, aligned: _Aligned | Failed, threads: int) -> Report | Failed:
        if isinstance(aligned, Failed):
            return aligned
        from coldchain.preprocess.alignment import track_lengths
        from coldchain.preprocess.alignment_files import about_relion

        began, alignment = time.perf_counter(), aligned.alignment
        try:
            files = self._publisher.publish(alignment, aligned.movie.stem, threads=threads)
            self._list.add(alignment, files)
        except _EXPECTED as error:
            return Failed(aligned.movie, _stated(error, aligned.movie))
        ended = time.perf_counter()
        seconds = {
            "decode": aligned.decode_seconds,
            **alignment.aligned.seconds,
            "write": ended - began,
            "total": ended - aligned.began,
        }
        return report(
            aligned.movie, alignment, track_lengths(alignment), files, seconds, more_warnings=about_relion(alignment)
        )

    def write_list(self) -> Failed | None:
        try:
            self._list.write()
        except _EXPECTED as error:
            return Failed(self._list.path, _stated(error, self._list.path))
        return None


_EXPECTED = (ColdchainError, OSError, MemoryError)


def _stated(error: ColdchainError | OSError | MemoryError, movie: Path) -> ColdchainError:
    """The failure as one of ours that names a file."""
    if isinstance(error, MemoryError):
        return ProcessingError("there was not enough memory", remedy="Align it where there is more", path=movie)
    if isinstance(error, OSError):
        return StorageError(error.strerror or str(error), remedy="Check its permissions and its disk", path=movie)
    if error.path is None:
        return type(error)(error.found, expected=error.expected, remedy=error.remedy, path=movie)
    return error
