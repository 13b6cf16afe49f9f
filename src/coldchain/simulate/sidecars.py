"""The small files that a session has beside its movies, as bytes, by layout."""

from __future__ import annotations

import io
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from coldchain.model.session import Layout
from coldchain.simulate import epu, serialem
from coldchain.simulate.movie import SimulatedMovie
from coldchain.simulate.plan import PlannedExposure, SessionPlan, grid_square_number
from coldchain.simulate.recording import References

_PREVIEW_WIDTH = 512
_MAGNIFICATION = 105_000
_SECONDS_PER_FRAME = 0.04
_OUTPUT_FORMAT = {"tiff": "Tiff Lzw Non-Gain normalized", "mrc": "Mrc", "eer": "Eer"}
_SQUARE_PIXEL_METER = 5e-8
_HOLE_PIXEL_METER = 1e-9
_SQUARE_PITCH_METER = 1e-4
_HOLE_PITCH_METER = 2.5e-6


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A small file: its path relative to the session's root, and its bytes."""

    path: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Beside:
    """The sidecars of one exposure that come before and after its movie."""

    before: tuple[Sidecar, ...]
    after: tuple[Sidecar, ...]


def opening(plan: SessionPlan, session_name: str, planned: Sequence[PlannedExposure]) -> tuple[Sidecar, ...]:
    """What lies in a session before its first exposure."""
    if plan.layout is not Layout.EPU:
        return ()
    squares = [grid_square_number(plan, index) for index in range(plan.grid_squares)]
    session = epu.session_dm(
        name=session_name,
        session_id=7_000_000 + plan.seed % 1_000_000,
        started_at=plan.started_at,
        grid_squares=squares,
        output_format=_OUTPUT_FORMAT[plan.container],
    )
    found = [Sidecar("EpuSession.dm", _xml(session))]
    for index, square in enumerate(squares):
        found.extend(_grid_square(plan, index, square, planned))
    return tuple(found)


def of_exposure(plan: SessionPlan, exposure: PlannedExposure, movie: SimulatedMovie, references: References) -> Beside:
    """What comes with one exposure: metadata before or after the movie, a preview after it, its hole before."""
    if plan.layout is Layout.PLAIN:
        return Beside((), ())
    if plan.layout is Layout.SERIALEM:
        mdoc = serialem.frame_set_mdoc(_frame_set(plan, exposure, references))
        metadata = Sidecar(exposure.movie_path + ".mdoc", mdoc.encode("ascii"))
        return Beside((metadata,), ()) if exposure.metadata_first else Beside((), (metadata,))
    metadata = Sidecar(exposure.name + ".xml", _xml(epu.image_xml(_exposure_image(plan, exposure))))
    preview = Sidecar(exposure.name + ".jpg", _jpeg(movie.frames.sum(axis=0, dtype=np.float32)))
    hole = _foil_hole(exposure, movie) if exposure.image_shift == 0 else ()
    if exposure.metadata_first:
        return Beside((*hole, metadata), (preview,))
    return Beside(hole, (metadata, preview))


def _grid_square(
    plan: SessionPlan, index: int, square: int, planned: Sequence[PlannedExposure]
) -> tuple[Sidecar, Sidecar, Sidecar]:
    image = f"Images-Disc1/GridSquare_{square}/GridSquare_{plan.started_at:%Y%m%d_%H%M%S}"
    numbers = sorted({e.foil_hole for e in planned if e.grid_square == square and e.foil_hole is not None})
    centre_x = index * _SQUARE_PITCH_METER
    holes = {number: _hole(centre_x, place) for place, number in enumerate(numbers)}
    manifest = epu.grid_square_dm(
        grid_square=square,
        image_path="Z:\\DoseFractions\\" + image.replace("/", "\\") + ".jpg",
        stage_x_meter=centre_x,
        stage_y_meter=0.0,
        holes=holes,
    )
    picture = np.full((364, 512), 0.2, dtype=np.float32)
    rows, columns = np.indices(picture.shape)
    for hole in holes.values():
        picture[np.hypot(columns - hole.pixel_x, rows - hole.pixel_y) < 12] = 1.0
    described = epu.EpuImage(
        unique_id=_unique(image),
        acquired_at=plan.started_at,
        pixel_size_meter=_SQUARE_PIXEL_METER,
        width=picture.shape[1],
        height=picture.shape[0],
        magnification=740,
        voltage_volt=plan.movie.voltage_kilovolt * 1e3,
        exposure_time_seconds=1.0,
        applied_defocus_meter=-2e-4,
        stage_x_meter=centre_x,
        stage_y_meter=0.0,
    )
    return (
        Sidecar(f"Metadata/GridSquare_{square}.dm", _xml(manifest)),
        Sidecar(image + ".xml", _xml(epu.image_xml(described))),
        Sidecar(image + ".jpg", _jpeg(picture)),
    )


def _hole(centre_x_meter: float, place: int) -> epu.EpuHole:
    row, column = divmod(place, 8)
    x, y = (column - 3.5) * _HOLE_PITCH_METER, (row - 2.5) * _HOLE_PITCH_METER
    return epu.EpuHole(256 + x / _SQUARE_PIXEL_METER, 182 + y / _SQUARE_PIXEL_METER, centre_x_meter + x, y)


def _foil_hole(exposure: PlannedExposure, movie: SimulatedMovie) -> tuple[Sidecar, Sidecar]:
    folder = f"Images-Disc1/GridSquare_{exposure.grid_square}/FoilHoles"
    name = f"{folder}/FoilHole_{exposure.foil_hole}_{exposure.acquired_at:%Y%m%d_%H%M%S}"
    rows, columns = np.indices((364, 512))
    inside = np.hypot(columns - 256, rows - 182) < 150
    described = epu.EpuImage(
        unique_id=_unique(name),
        acquired_at=exposure.acquired_at,
        pixel_size_meter=_HOLE_PIXEL_METER,
        width=512,
        height=364,
        magnification=8700,
        voltage_volt=movie.truth.parameters.voltage_kilovolt * 1e3,
        exposure_time_seconds=1.0,
        applied_defocus_meter=-2e-5,
        stage_x_meter=0.0,
        stage_y_meter=0.0,
    )
    return Sidecar(name + ".xml", _xml(epu.image_xml(described))), Sidecar(name + ".jpg", _jpeg(inside + 0.2))


def _exposure_image(plan: SessionPlan, exposure: PlannedExposure) -> epu.EpuImage:
    movie = exposure.movie
    return epu.EpuImage(
        unique_id=_unique(exposure.name),
        acquired_at=exposure.acquired_at,
        pixel_size_meter=movie.pixel_size_angstrom * 1e-10,
        width=movie.width,
        height=movie.height,
        magnification=_MAGNIFICATION,
        voltage_volt=movie.voltage_kilovolt * 1e3,
        exposure_time_seconds=movie.frames * _SECONDS_PER_FRAME,
        applied_defocus_meter=-_mean_defocus_angstrom(exposure) * 1e-10,
        stage_x_meter=0.0,
        stage_y_meter=0.0,
        dose_e_per_square_meter=movie.dose_e_per_square_angstrom * 1e20,
        # An EER movie is fractionated when it is read.
        fractions=None if plan.container == "eer" else movie.frames,
        beam_shift=(0.02 * exposure.image_shift, -0.01 * exposure.image_shift),
    )


def _frame_set(plan: SessionPlan, exposure: PlannedExposure, references: References) -> serialem.FrameSet:
    movie = exposure.movie
    raw_frames = plan.eer_frames_per_fraction if plan.container == "eer" else 1
    return serialem.FrameSet(
        movie_name=PurePosixPath(exposure.movie_path).name,
        acquired_at=exposure.acquired_at,
        pixel_size_angstrom=movie.pixel_size_angstrom,
        voltage_kilovolt=movie.voltage_kilovolt,
        spherical_aberration_millimeter=movie.spherical_aberration_millimeter,
        magnification=_MAGNIFICATION,
        exposure_time_seconds=movie.frames * _SECONDS_PER_FRAME,
        dose_e_per_square_angstrom=movie.dose_e_per_square_angstrom,
        frames=movie.frames * raw_frames,
        target_defocus_micrometer=-_mean_defocus_angstrom(exposure) * 1e-4,
        stage_x_micrometer=float(exposure.index),
        stage_y_micrometer=0.0,
        gain_name=references.gain_name,
        defects_name=references.defects_name,
    )


def _mean_defocus_angstrom(exposure: PlannedExposure) -> float:
    return 0.5 * (exposure.movie.defocus_u_angstrom + exposure.movie.defocus_v_angstrom)


def _unique(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def _xml(text: str) -> bytes:
    return ('<?xml version="1.0" encoding="utf-8"?>\n' + text).encode()


def _jpeg(image: NDArray[np.floating]) -> bytes:
    """A grey preview (rows, columns), at most 512 pixels wide, stretched, the picture's top first."""
    step = max(1, image.shape[1] // _PREVIEW_WIDTH)
    rows, columns = image.shape[0] // step * step, image.shape[1] // step * step
    small = image[:rows, :columns].reshape(rows // step, step, columns // step, step).mean(axis=(1, 3))
    low, high = np.percentile(small, [1, 99])
    grey = np.clip((small - low) / max(float(high - low), 1e-6), 0, 1) * 255
    stream = io.BytesIO()
    Image.fromarray(grey[::-1].astype(np.uint8)).save(stream, format="JPEG", quality=85)
    return stream.getvalue()
