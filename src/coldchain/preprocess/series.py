"""Movies one after the other: each is read, aligned and written; a failure is that movie's own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from coldchain.errors import ColdchainError, ProcessingError, StorageError
from coldchain.formats.movie import frames_per_fraction, probe_movie
from coldchain.preprocess.exposure import Stated, find_exposure
from coldchain.preprocess.raw_movie import FramesWanted, RawMovie, Wishes, read_raw

if TYPE_CHECKING:
    from coldchain.preprocess.alignment import Alignment


@dataclass(frozen=True, slots=True)
class Done:
    """A movie that was aligned and written. `files` by role; `seconds` by stage."""

    movie: Path
    alignment: Alignment
    files: dict[str, Path]
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class Failed:
    """A movie that was not, and why."""

    movie: Path
    error: ColdchainError


def align_all(
    movies: Sequence[Path], stated: Stated, wanted: FramesWanted, wishes: Wishes, folder: Path
) -> Iterator[Done | Failed]:
    """Align movies in turn into a folder; what became of each is told as soon as it is known."""
    with ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
        reading = reader.submit(_read, movies[0], stated, wanted, wishes.threads)
        # Kernels take longest to import; meanwhile the first movie is being read.
        import_module("coldchain.preprocess.alignment")
        for index, movie in enumerate(movies):
            outcome = _outcome(movie, reading, wishes, folder)
            if index + 1 < len(movies):
                reading = reader.submit(_read, movies[index + 1], stated, wanted, wishes.threads)
            yield outcome


def _read(movie: Path, stated: Stated, wanted: FramesWanted, threads: int) -> tuple[float, RawMovie]:
    began = time.perf_counter()
    info = probe_movie(movie)
    camera_frames = frames_per_fraction(info, eer_fractions=wanted.eer_fractions)
    exposure = find_exposure(info, stated, camera_frames_per_frame=camera_frames[0])
    return began, read_raw(exposure, wanted, threads=threads)


def _outcome(movie: Path, reading: Future[tuple[float, RawMovie]], wishes: Wishes, folder: Path) -> Done | Failed:
    try:
        return _finish(movie, reading, wishes, folder)
    except ColdchainError as error:
        return Failed(movie, error)
    except MemoryError:
        return Failed(movie, ProcessingError("there was not enough memory", remedy="Align fewer at once", path=movie))
    except OSError as error:
        return Failed(movie, StorageError(error.strerror or str(error), path=error.filename or movie))


def _finish(movie: Path, reading: Future[tuple[float, RawMovie]], wishes: Wishes, folder: Path) -> Done:
    from coldchain.preprocess.alignment import align_raw, publish_alignment

    began, raw = reading.result()
    alignment = align_raw(raw, wishes)
    decode = raw.seconds
    del raw, reading
    aligned = time.perf_counter()
    files = publish_alignment(alignment, folder, movie.stem, threads=wishes.threads)
    ended = time.perf_counter()
    seconds = {"decode": decode, **alignment.aligned.seconds, "write": ended - aligned, "total": ended - began}
    return Done(movie, alignment, files, seconds)
