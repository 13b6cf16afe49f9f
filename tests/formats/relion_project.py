"""A small RELION project with planted truth: particles of known orientation in movies of known motion.

Nothing of the kernels is used: frames are drawn from a closed formula, and sums are made of them with the planted
motion undone.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.ndimage
import starfile
from numpy.typing import NDArray

from coldchain.formats import mrc, tiff
from coldchain.formats.relion_micrographs import CorrectedMicrograph, OpticsGroup, write_corrected_micrographs
from coldchain.formats.relion_motion import RelionMotion, accumulated_motion_pixel, displacement, opposite, write_motion
from coldchain.simulate.optics import Lens

Numbers = NDArray[np.float64]

PIXEL_ANGSTROM = 1.5
BOX = 64
FRAMES = 10
DOSE = 1.5
SHAPE = (384, 512)  # rows and columns differ, so that nothing may take one for the other
LENS = Lens(300.0, 2.7, 0.1, 9000.0, 8500.0, 30.0)
_STAMP = 128
_BLOBS = 24
_BLOB_PIXEL = 2.0
_ELECTRONS_PER_PIXEL = 20.0
_CONTRAST = 80.0


@dataclass(frozen=True, slots=True, eq=False)
class PlantedMovie:
    """A movie in a project's folder; its sum is `sums/STEM.mrc`. Angles (particles, 3) in degrees, places (particles,)
    in pixels of frame 0, `motion` in RELION's sign, `ideal` (particles, box, box): each particle without noise, bright,
    in the box that extraction cuts out."""

    stem: str
    motion: RelionMotion
    angles: Numbers
    x_pixel: Numbers
    y_pixel: Numbers
    ideal: Numbers


def euler_matrix(rot: float, tilt: float, psi: float) -> Numbers:
    """RELION's: a point r of the map is seen at (M r) along x and y. Angles in degrees."""
    alpha, beta, gamma = np.radians([rot, tilt, psi])

    def about_z(angle: float) -> Numbers:
        return np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])

    about_y = np.array([[np.cos(beta), 0, -np.sin(beta)], [0, 1, 0], [np.sin(beta), 0, np.cos(beta)]])
    return np.asarray(about_z(gamma) @ about_y @ about_z(alpha))


def blobs() -> Numbers:
    """The particle: centres (blobs, 3) in pixels of x, y, z, within 20 pixels of the centre and without symmetry."""
    rng = np.random.default_rng(5)
    points = rng.normal(size=(_BLOBS, 3))
    points *= rng.uniform(4, 20, size=(_BLOBS, 1)) / np.linalg.norm(points, axis=1, keepdims=True)
    return points


def reference_map() -> NDArray[np.float32]:
    """The particle's density (z, y, x), centred on pixel box / 2."""
    z, y, x = np.indices((BOX, BOX, BOX)) - BOX / 2
    density = np.zeros((BOX, BOX, BOX))
    for bx, by, bz in blobs():
        density += np.exp(-0.5 * ((x - bx) ** 2 + (y - by) ** 2 + (z - bz) ** 2) / _BLOB_PIXEL**2)
    return density.astype(np.float32)


def stamp(angles: Numbers, x: float, y: float, size: int) -> Numbers:
    """A particle's contrast (size, size), dark, through the lens; its centre at (x, y) from pixel size / 2."""
    kx = np.fft.rfftfreq(size)
    ky = np.fft.fftfreq(size)
    seen = blobs() @ euler_matrix(*angles).T
    along_x = np.exp(-2j * np.pi * np.outer(seen[:, 0] + x + size / 2, kx))
    along_y = np.exp(-2j * np.pi * np.outer(ky, seen[:, 1] + y + size / 2))
    spectrum = along_y @ along_x * np.exp(-2 * np.pi**2 * _BLOB_PIXEL**2 * (ky[:, None] ** 2 + kx**2))
    transfer = LENS.transfer(kx[None, :] / PIXEL_ANGSTROM, ky[:, None] / PIXEL_ANGSTROM)
    return np.asarray(np.fft.irfft2(spectrum * transfer, (size, size))) * _CONTRAST / _BLOBS


def planted_motion(name: str, rng: np.random.Generator) -> RelionMotion:
    """A bent whole-frame drift of 10 pixels and local motion of a few, in RELION's sign."""
    time = np.arange(FRAMES) / (FRAMES - 1)
    drift = 10 * (1 - np.exp(-3 * time))
    direction = rng.uniform(0, 2 * np.pi) + time
    terms = rng.normal(size=(2, 6, 3)) * np.array([0, 4, 6, 4, 6, 6])[:, np.newaxis]
    local = terms / (FRAMES - 1) ** np.array([1.0, 2.0, 3.0])
    return RelionMotion(
        width=SHAPE[1],
        height=SHAPE[0],
        movie_name=name,
        pixel_size_angstrom=PIXEL_ANGSTROM,
        dose_per_frame_e_per_square_angstrom=DOSE,
        pre_exposure_e_per_square_angstrom=0.0,
        voltage_kilovolt=LENS.voltage_kilovolt,
        shift_x_pixel=opposite(drift * np.cos(direction)),
        shift_y_pixel=opposite(drift * np.sin(direction)),
        polynomial_x=opposite(local[0].ravel()),
        polynomial_y=opposite(local[1].ravel()),
    )


def plant_movie(folder: Path, name: str, stem: str, *, seed: int) -> PlantedMovie:
    """Write a movie (`name` relative to the project `folder`) and its sum."""
    rng = np.random.default_rng(seed)
    motion = planted_motion(name, rng)
    columns, rows = np.meshgrid(np.arange(80, SHAPE[1] - 79, 86.0), np.arange(80, SHAPE[0] - 79, 74.0))
    x = columns.ravel() + rng.uniform(-4, 4, columns.size)
    y = rows.ravel() + rng.uniform(-4, 4, rows.size)
    angles = rng.uniform([0, 0, 0], [360, 180, 360], (len(x), 3))
    moved_x, moved_y = displacement(motion, x, y)
    frames = np.empty((FRAMES, *SHAPE), dtype=np.uint8)
    for index in range(FRAMES):
        contrast = np.zeros(SHAPE)
        for particle, (px, py) in enumerate(zip(x + moved_x[index], y + moved_y[index], strict=True)):
            left, bottom = round(px) - _STAMP // 2, round(py) - _STAMP // 2
            add_clipped(contrast, stamp(angles[particle], px - round(px), py - round(py), _STAMP), left, bottom)
        frames[index] = np.minimum(rng.poisson(_ELECTRONS_PER_PIXEL * np.maximum(1 + contrast, 0)), 255)
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".tiff":
        tiff.write_tiff_movie(path, frames, compression="lzw", pixel_size_angstrom=PIXEL_ANGSTROM)
    else:
        mrc.write_mrc(path, frames, pixel_size_angstrom=PIXEL_ANGSTROM)
    (folder / "sums").mkdir(exist_ok=True)
    total = align(frames, motion)
    mrc.write_mrc(folder / "sums" / f"{stem}.mrc", total, pixel_size_angstrom=PIXEL_ANGSTROM)
    ideal = -np.stack([stamp(a, px - round(px), py - round(py), BOX) for a, px, py in zip(angles, x, y, strict=True)])
    return PlantedMovie(stem, motion, angles, x, y, ideal)


def add_clipped(image: Numbers, patch: Numbers, left: int, bottom: int) -> None:
    """Add a patch where it lies within the image."""
    top, right = min(bottom + patch.shape[0], image.shape[0]), min(left + patch.shape[1], image.shape[1])
    first_row, first_column = max(bottom, 0), max(left, 0)
    part = patch[first_row - bottom : top - bottom, first_column - left : right - left]
    image[first_row:top, first_column:right] += part


def align(frames: NDArray[np.uint8], motion: RelionMotion) -> NDArray[np.float32]:
    """The sum with the motion undone: aligned(X) = frame(X + displacement)."""
    rows, columns = np.indices(SHAPE, dtype=np.float64)
    moved_x, moved_y = displacement(motion, columns.ravel(), rows.ravel())
    total = np.zeros(SHAPE)
    for index, frame in enumerate(frames):
        at = [rows + moved_y[index].reshape(SHAPE), columns + moved_x[index].reshape(SHAPE)]
        total += scipy.ndimage.map_coordinates(frame.astype(np.float64), at, order=3, mode="mirror")
    return total.astype(np.float32)


def list_micrographs(folder: Path, movies: list[PlantedMovie], motions: list[RelionMotion], name: str) -> Path:
    """Write each movie's motion STAR into the folder `name` of the project, and the list of them all, `name`.star."""
    (folder / name).mkdir()
    micrographs = []
    for movie, motion in zip(movies, motions, strict=True):
        stem = movie.stem
        write_motion(folder / name / f"{stem}.star", motion)
        total, early, late = accumulated_motion_pixel(motion)
        micrographs.append(
            CorrectedMicrograph(
                name=f"sums/{stem}.mrc",
                metadata_name=f"{name}/{stem}.star",
                total_motion_pixel=total,
                early_motion_pixel=early,
                late_motion_pixel=late,
            )
        )
    optics = OpticsGroup(
        name="planted-1",
        movie_pixel_size_angstrom=PIXEL_ANGSTROM,
        pixel_size_angstrom=PIXEL_ANGSTROM,
        voltage_kilovolt=LENS.voltage_kilovolt,
        spherical_aberration_millimeter=LENS.spherical_aberration_millimeter,
        amplitude_contrast=LENS.amplitude_contrast,
    )
    path = folder / f"{name}.star"
    write_corrected_micrographs(path, [optics], micrographs)
    return path


def pick(folder: Path, movies: list[PlantedMovie]) -> None:
    """Coordinate files as an automatic picker would leave them: `picks/sums/STEM_pick.star`."""
    (folder / "picks" / "sums").mkdir(parents=True)
    for movie in movies:
        lines = [f"{round(x)} {round(y)}" for x, y in zip(movie.x_pixel, movie.y_pixel, strict=True)]
        head = "data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n"
        (folder / "picks" / "sums" / f"{movie.stem}_pick.star").write_text(head + "\n".join(lines) + "\n\n")


def refined_particles(folder: Path, movies: list[PlantedMovie], extracted: str) -> Path:
    """The extracted particles with the truth that a refinement would have found, `particles.star`."""
    blocks = starfile.read(folder / extracted, always_dict=True)
    table = blocks["particles"]
    x, y = (np.concatenate([getattr(movie, name) for movie in movies]) for name in ("x_pixel", "y_pixel"))
    angles = np.concatenate([movie.angles for movie in movies])
    table["rlnOriginXAngst"] = (np.round(x) - x) * PIXEL_ANGSTROM
    table["rlnOriginYAngst"] = (np.round(y) - y) * PIXEL_ANGSTROM
    for axis, label in enumerate(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")):
        table[label] = angles[:, axis]
    table["rlnRandomSubset"] = 1 + np.arange(len(x)) % 2
    table["rlnDefocusU"] = LENS.defocus_u_angstrom
    table["rlnDefocusV"] = LENS.defocus_v_angstrom
    table["rlnDefocusAngle"] = LENS.defocus_angle_degrees
    starfile.write(blocks, folder / "particles.star")
    return folder / "particles.star"


def write_reference(folder: Path) -> None:
    """Two half maps and a Fourier shell correlation that trusts them, `half1.mrc`, `half2.mrc` and `fsc.star`."""
    for half in (1, 2):
        mrc.write_mrc(folder / f"half{half}.mrc", reference_map(), pixel_size_angstrom=PIXEL_ANGSTROM)
    head = "data_fsc\n\nloop_\n_rlnSpectralIndex #1\n_rlnFourierShellCorrelationCorrected #2\n"
    rows = "\n".join(f"{index} {0.99 if index < 16 else 0.0}" for index in range(BOX // 2 + 1))
    (folder / "fsc.star").write_text(head + rows + "\n\n")


def run(folder: Path, *words: str) -> str:
    """A program's output, run in the project's folder; it must succeed."""
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def smoothed(images: NDArray[np.floating]) -> Numbers:
    """Images (n, rows, columns) without their finest noise."""
    return np.asarray(scipy.ndimage.gaussian_filter(images.astype(np.float64), (0, 2, 2)))


def likeness(images: NDArray[np.floating], ideal: Numbers) -> Numbers:
    """The correlation (n,) of each image with its ideal, both smoothed."""
    pairs = zip(smoothed(images), smoothed(ideal), strict=True)
    return np.array([np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in pairs])


def read_tracks(path: Path) -> Numbers:
    """Polishing's tracks (particles, frames, 2) in pixels: how far each particle is displaced."""
    blocks = starfile.read(path, always_dict=True)
    count = int(blocks["general"]["rlnParticleNumber"])
    columns = ["rlnOriginXAngst", "rlnOriginYAngst"]
    return np.stack([blocks[str(index)][columns].to_numpy() for index in range(count)]) / PIXEL_ANGSTROM
