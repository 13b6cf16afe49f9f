"""A session: a simulated microscope writes exposures into a folder, at its own pace, as EPU or SerialEM would.

Every movie is made and encoded in the wings (a scratch folder), then streamed under its final name, as a camera does:
the name is there from the first byte, the file grows, and it is closed at the end.
"""

from __future__ import annotations

import errno
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from coldchain.errors import StorageError, StoreFullError, UsageError
from coldchain.simulate import recording, sidecars
from coldchain.simulate.movie import simulate_movie
from coldchain.simulate.plan import CONTAINERS, PlannedExposure, SessionPlan, plan_exposures
from coldchain.simulate.specimen import Specimen
from coldchain.simulate.truth import ExposureTruth, MovieTruth, SessionTruth, write_truth

__all__ = ["CONTAINERS", "PlannedExposure", "SessionPlan", "plan_exposures", "simulate_session"]

_CHUNKS_PER_MOVIE = 16


def simulate_session(
    plan: SessionPlan,
    root: Path,
    *,
    specimen: Specimen,
    truth_path: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    stopping: threading.Event | None = None,
) -> SessionTruth:
    """Write a session into `root`, a new or empty folder, and return what is in it.

    Parameters
    ----------
    plan : what to write. Exposure *i* begins `i * seconds_between` after the first, or as soon as it is made.
    truth_path : where the truth goes as JSON, outside `root`; by default `<root>.truth.json` beside it. It holds an
        exposure before its first byte is written.
    progress : called with the number of exposures written and planned, after each.
    stopping : set it to end the session after the exposure in hand.

    Raises
    ------
    UsageError : `root` holds something, or the truth would lie inside it.
    """
    truth_path = root.with_name(root.name + ".truth.json") if truth_path is None else truth_path
    _check_places(root, truth_path)
    stopping = threading.Event() if stopping is None else stopping
    truth = SessionTruth(session=root.name, layout=plan.layout.value, gain_path=None, defects_path=None, exposures=())
    planned = plan_exposures(plan)
    with tempfile.TemporaryDirectory(prefix="coldchain-camera-") as scratch, _writing(root):
        references = recording.record_references(plan, Path(scratch))
        truth = replace(truth, gain_path=references.gain_name, defects_path=references.defects_name)
        _open_session(plan, root, planned, references)
        write_truth(truth_path, truth)
        begun = time.monotonic()
        for exposure in planned:
            movie = simulate_movie(exposure.movie, specimen)
            encoded = Path(scratch) / PurePosixPath(exposure.movie_path).name
            recording.record_movie(encoded, movie, plan)
            if stopping.wait(max(0.0, begun + exposure.index * plan.seconds_between - time.monotonic())):
                break
            truth = replace(truth, exposures=(*truth.exposures, _exposure_truth(exposure, movie.truth)))
            write_truth(truth_path, truth)
            _write_exposure(root, exposure, encoded, sidecars.of_exposure(plan, exposure, movie, references), plan)
            encoded.unlink()
            if progress is not None:
                progress(exposure.index + 1, plan.exposures)
    return truth


def _check_places(root: Path, truth_path: Path) -> None:
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UsageError("something is there", expected="a new or empty folder", remedy="Name another.", path=root)
    if truth_path.resolve().is_relative_to(root.resolve()):
        raise UsageError(
            "the truth would lie inside the session, where a judge could see it",
            expected=f"a path outside {root}",
            path=truth_path,
        )


def _open_session(
    plan: SessionPlan, root: Path, planned: tuple[PlannedExposure, ...], references: recording.References
) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for source, name in references.files:
        _stream(source, root / name, 0)
    for sidecar in sidecars.opening(plan, root.name, planned):
        _write(root, sidecar)


def _write_exposure(
    root: Path, exposure: PlannedExposure, encoded: Path, beside: sidecars.Beside, plan: SessionPlan
) -> None:
    for sidecar in beside.before:
        _write(root, sidecar)
    _stream(encoded, root / exposure.movie_path, plan.seconds_to_write)
    for sidecar in beside.after:
        _write(root, sidecar)


def _write(root: Path, sidecar: sidecars.Sidecar) -> None:
    path = root / sidecar.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sidecar.content)


def _stream(source: Path, destination: Path, seconds: float) -> None:
    """Write a file's bytes under its final name from the start, a piece at a time, over `seconds`."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    chunk_bytes = max(1, -(-source.stat().st_size // _CHUNKS_PER_MOVIE))
    with source.open("rb") as reader, destination.open("wb", buffering=0) as writer:
        while chunk := reader.read(chunk_bytes):
            writer.write(chunk)
            time.sleep(seconds / _CHUNKS_PER_MOVIE)


@contextmanager
def _writing(root: Path) -> Iterator[None]:
    """The operating system's refusals, said as ours."""
    try:
        yield
    except OSError as refusal:
        full = refusal.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (StoreFullError if full else StorageError)(
            f"the session cannot be written: {refusal.strerror or refusal}",
            remedy="Make room." if full else "See that the folder's permissions allow it and that its disk answers.",
            path=root,
        ) from refusal


def _exposure_truth(exposure: PlannedExposure, movie: MovieTruth) -> ExposureTruth:
    return ExposureTruth(
        name=exposure.name,
        movie_path=exposure.movie_path,
        grid_square=None if exposure.grid_square is None else str(exposure.grid_square),
        foil_hole=None if exposure.foil_hole is None else str(exposure.foil_hole),
        movie=movie,
    )
