"""Movies and references as files: what the camera computer encodes before it writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coldchain.formats import eer, mrc, tiff
from coldchain.model.session import Layout
from coldchain.simulate import serialem
from coldchain.simulate.camera import make_camera
from coldchain.simulate.movie import SimulatedMovie
from coldchain.simulate.plan import SessionPlan, camera_parameters

_UNSIGNED_MODE = 6


@dataclass(frozen=True, slots=True)
class References:
    """The session's gain and defect files: their names in its root, and where their bytes lie ready."""

    gain_name: str | None
    defects_name: str | None
    files: tuple[tuple[Path, str], ...]


def record_movie(path: Path, movie: SimulatedMovie, plan: SessionPlan) -> None:
    """Encode a movie at `path` in the plan's container."""
    parameters = movie.truth.parameters
    # A plain folder is one that says nothing: its pixel size is the session's to know.
    pixel_size = None if plan.layout is Layout.PLAIN else parameters.pixel_size_angstrom
    if plan.container == "tiff":
        tiff.write_tiff_movie(path, movie.frames, compression="lzw", pixel_size_angstrom=pixel_size)
    elif plan.container == "mrc":
        mrc.write_mrc(
            path,
            movie.frames.astype(np.uint16),
            pixel_size_angstrom=parameters.pixel_size_angstrom,
            mode=_UNSIGNED_MODE,
        )
    else:
        rng = np.random.default_rng(np.random.SeedSequence([parameters.seed, plan.eer_frames_per_fraction]))
        eer.write_eer(path, raw_frames(movie.frames, plan.eer_frames_per_fraction, rng))


def raw_frames(frames: NDArray[np.uint8], per_fraction: int, rng: np.random.Generator) -> Iterator[NDArray[np.bool_]]:
    """The raw frames, 0 or 1 electron a pixel, of which frames (fractions, rows, columns) are the sums.

    Every electron falls into one of its fraction's raw frames at random. Two in one pixel of one raw frame count once,
    as in a real counting camera, so that a little is lost: half the electrons a pixel and raw frame.
    """
    for fraction in frames:
        occupied = np.zeros((per_fraction, fraction.size), dtype=bool)
        pixel = np.repeat(np.arange(fraction.size), fraction.ravel())
        occupied[rng.integers(per_fraction, size=len(pixel)), pixel] = True
        yield from occupied.reshape(per_fraction, *fraction.shape)


def record_references(plan: SessionPlan, folder: Path) -> References:
    """Write the gain and the defect list that the plan's movies want into `folder`; none where they want none."""
    parameters = camera_parameters(plan)
    camera = make_camera(parameters)
    files: list[tuple[Path, str]] = []
    gain_name = defects_name = None
    if camera.gain is not None:
        gain_name = "EER_GainReference.gain" if plan.container == "eer" else "gain.mrc"
        if plan.container == "eer":
            # A Falcon's reference is a TIFF whose rows stand as the events' rows do.
            tiff.write_tiff_movie(folder / gain_name, camera.gain[np.newaxis, ::-1], compression="none")
        else:
            mrc.write_mrc(folder / gain_name, camera.gain, pixel_size_angstrom=parameters.pixel_size_angstrom)
        files.append((folder / gain_name, gain_name))
    if camera.defects is not None and plan.layout is Layout.SERIALEM:
        defects_name = "defects.txt"
        (folder / defects_name).write_text(serialem.defect_list(camera.defects), encoding="ascii")
        files.append((folder / defects_name, defects_name))
    return References(gain_name, defects_name, tuple(files))
