"""Movies one after the other: each is read, aligned and written; a failure is that movie's own."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coldchain.formats.movie import frames_per_fraction, probe_movie
from coldchain.preprocess.exposure import Stated, find_exposure
from coldchain.preprocess.mistaken_gain import refuse_gain
from coldchain.preprocess.raw_movie import RawMovie, References, read_raw, with_fractions
from coldchain.preprocess.report import Failed, Report, report
from coldchain.preprocess.turns import EXPECTED, failed, in_turn
from coldchain.preprocess.wishes import FramesWanted, Lens, Wishes

if TYPE_CHECKING:
    from coldchain.preprocess.alignment import Alignment
    from coldchain.preprocess.alignment_files import Publisher
    from coldchain.preprocess.micrograph_list import MicrographList

# Of the pixels: cameras have fewer defects that their gain reference does not know.
_USUAL_HOT_FRACTION = 1 / 2000


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of every movie of a series, and where the results go."""

    stated: Stated
    frames: FramesWanted
    wishes: Wishes
    folder: Path
    lens: Lens


def align_all(movies: Sequence[Path], asked: Asked) -> Generator[Report | Failed, None, None]:
    """Align movies in turn; what became of each is told as soon as it is written. At the end those that went well are
    listed for RELION, also where the series is ended before; where that fails, it is told as of a movie."""
    stages = _Stages(asked)
    try:
        yield from in_turn(movies, stages, asked.wishes.threads)
    finally:
        unlisted = stages.write_list()
    if unlisted is not None:
        yield unlisted


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
        self._publisher: Publisher | None = None
        self._list: MicrographList | None = None

    def import_kernels(self) -> None:
        from coldchain.preprocess.alignment_files import Publisher
        from coldchain.preprocess.micrograph_list import MicrographList

        self._publisher = Publisher(self._asked.folder)
        self._list = MicrographList(self._asked.folder, self._asked.lens)

    def read(self, movie: Path, threads: int) -> _Read | Failed:
        began = time.perf_counter()
        try:
            return _Read(movie, began, self._read(movie, threads))
        except EXPECTED as error:
            return failed(error, movie)

    def _read(self, movie: Path, threads: int) -> RawMovie:
        info, stated, frames = probe_movie(movie, whole=False), self._asked.stated, self._asked.frames
        refuse_gain(info, stated.gain)
        camera_frames = frames_per_fraction(info, eer_fractions=frames.eer_fractions)
        exposure = find_exposure(info, stated, camera_frames_per_frame=camera_frames[0])
        wanted = with_fractions(frames, exposure)
        return read_raw(exposure, wanted, self._references, threads=threads)

    def work(self, read: _Read | Failed) -> _Aligned | Failed:
        if isinstance(read, Failed):
            return read
        from coldchain.preprocess.alignment import align_raw

        try:
            return _Aligned(read.movie, read.began, read.raw.seconds, align_raw(read.raw, self._asked.wishes))
        except EXPECTED as error:
            return failed(error, read.movie)

    def write(self, aligned: _Aligned | Failed, threads: int) -> Report | Failed:
        if isinstance(aligned, Failed):
            return aligned
        from coldchain.preprocess.alignment import track_lengths
        from coldchain.preprocess.alignment_files import about_relion

        began, alignment = time.perf_counter(), aligned.alignment
        assert self._publisher is not None
        assert self._list is not None
        try:
            files = self._publisher.publish(alignment, threads=threads)
            warnings = self._hints(alignment) + about_relion(alignment) + self._list.add(alignment, files)
        except EXPECTED as error:
            return failed(error, aligned.movie)
        ended = time.perf_counter()
        seconds = {
            "decode": aligned.decode_seconds,
            **alignment.aligned.seconds,
            "write": ended - began,
            "total": ended - aligned.began,
        }
        return report(aligned.movie, alignment, track_lengths(alignment), files, seconds, more_warnings=warnings)

    def _hints(self, alignment: Alignment) -> tuple[str, ...]:
        """What may have been meant otherwise."""
        exposure, hot = alignment.exposure, len(alignment.aligned.hot_pixels)
        hints = []
        if exposure.info.frames == 1:
            hints.append("It holds one frame: there was nothing to align.")
        rows, columns = alignment.aligned.motion.shape
        no_gain_given = exposure.gain is None and not self._asked.stated.no_gain
        if no_gain_given and hot > rows * columns * _USUAL_HOT_FRACTION:
            hints.append(
                f"{hot:,} hot pixels: was a gain reference forgotten? Give it with --gain, or say --gain none."
            )
        return tuple(hints)

    def write_list(self) -> Failed | None:
        if self._list is None:
            return None
        try:
            self._list.write()
        except EXPECTED as error:
            return failed(error, self._list.path)
        return None
