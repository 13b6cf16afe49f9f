"""Particles of a micrograph, without a reference or with one.

The micrograph is brought to 4–8 Å a pixel, junk is masked, and every place is compared with the projections of a solid
ball and of hollow shells (`matching`), or with given pictures in all in-plane rotations; the member of the family, and
the polarity, that the micrograph itself likes best is used. What counts as a particle is decided by the distribution of
the score in the same micrograph, for a stated number of false alarms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from coldchain.errors import ProcessingError
from coldchain.kernels.junk import Relief, denser_side, grown, robust_deviation, sampled_median
from coldchain.kernels.matching import Mask
from coldchain.kernels.outlines import outlines
from coldchain.kernels.pick_match import Matched, match_shells, match_templates
from coldchain.kernels.pick_peaks import Peaks, summit, threshold_of
from coldchain.kernels.pick_picture import Picture, clipped, coarse_picture, flattened
from coldchain.kernels.pick_size import SPACING_ANGSTROM, TRIED_DIAMETERS_ANGSTROM, estimate_size
from coldchain.kernels.pick_templates import Templates
from coldchain.model.results import Pick, PickResult

_WORKING_PIXELS_PER_DIAMETER = 20.0
_FINEST_WORKING_PIXEL_ANGSTROM = 4.0
_COARSEST_WORKING_PIXEL_ANGSTROM = 8.0
# Junk is sought with this size where no particle was found to measure.
_USUAL_DIAMETER_ANGSTROM = 150.0
# Of so few particles nobody can tell the size; what is found with a size that nobody told is then no particle.
_FEWEST_OF_A_SIZE = 4
# A pick much fainter than its fellows is a fragment, an overlap or something else.
_LEAST_OF_TYPICAL = 0.5
# A pick with a multiple of its fellows' contrast is a body of another kind (gold, ice).
_HIGHEST_CONTRAST = 2.5
# Of the variance beyond noise the particle explains at least this part.
_LEAST_EXPLAINED = 0.2
# where noise and what is left of faint particles of any shape may be so many times the usual noise.
_MOST_NOISE = 3.0
# What lies so near to junk is not compared with particles, for its fringes.
_FRINGE_DIAMETERS = 0.1
# A pick nearer to junk than this is half of it.
_LEAST_FROM_JUNK_DIAMETERS = 0.25
# A body is junk where it stands so many times as far out of the picture as particles usually do.
_HIGHEST_STRENGTH = 2.5
# Phase contrast of a particle is a few per cent of the beam; what takes this part of it, or adds it, is none. That is
# known where mean and noise say that the picture is of so many counted electrons per Å².
_OPAQUE_PART = 0.25
_LEAST_ELECTRONS, _MOST_ELECTRONS = 8.0, 300.0
_LEAST_BRIGHTNESS = 0.1


@dataclass(frozen=True, slots=True)
class PickParameters:
    """What to look for.

    diameter_angstrom : None: estimated from the micrograph, or from the templates where there are some.
    false_alarms_per_micrograph : how many picks a micrograph of noise may have on average.
    threshold : least figure of merit of a pick; None: what the false alarms say.
    templates : (n, rows, columns), pictures of the particle, square; None: balls and shells.
    templates_pixel_size_angstrom : of these; None: the micrograph's.
    """

    pixel_size_angstrom: float
    diameter_angstrom: float | None = None
    false_alarms_per_micrograph: float = 1.0
    threshold: float | None = None
    templates: NDArray[np.generic] | None = None
    templates_pixel_size_angstrom: float | None = None
    threads: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Picking:
    """The particles of a micrograph, and the places where none were sought.

    result : the picks.
    junk : (rows, columns) bool at a coarser pixel than the micrograph's.
    junk_scale : pixels of the micrograph per row and per column of `junk`: its pixel (i, j) has its centre at row
        i · junk_scale[0] and column j · junk_scale[1] of the micrograph.
    outlines : closed polygons round the bodies of `junk` and the holes in them: (corners, 2), x and y in pixels of the
        micrograph, 0 is the first stored pixel's centre; the last corner is joined with the first.
    contamination_fraction : the part of the micrograph that is junk, 0 … 1.
    dark_on_light : whether the particles are darker than what is around them.
    """

    result: PickResult
    junk: NDArray[np.bool_]
    junk_scale: tuple[float, float]
    outlines: tuple[NDArray[np.float64], ...]
    contamination_fraction: float
    dark_on_light: bool


def pick_particles(image: NDArray[np.generic], parameters: PickParameters) -> PickResult:
    """The particles of a micrograph alone: `find_particles(image, parameters).result`."""
    return find_particles(image, parameters).result


def find_particles(image: NDArray[np.generic], parameters: PickParameters) -> Picking:
    """Find the particles of a micrograph, and its junk.

    Parameters
    ----------
    image : (rows, columns), any real type; particles may be dark on light or light on dark. What is no finite number,
        or an absurd one, is junk.
    parameters : pixel size, diameter if known, false alarms allowed.

    Returns
    -------
    Picks, best first: x is the column, y the row, in pixels of `image` from the first stored pixel's centre;
    `figure_of_merit` is the correlation coefficient with the projection of a ball or shell, or with a template, 0 … 1.
    A blank image has no picks. Where no diameter was given and fewer than four particles stand out of the noise, there
    are no picks and the diameter is 0.

    Raises
    ------
    ProcessingError : the parameters cannot be, the image is not two-dimensional, more than half of it is not finite, or
        it is smaller than two particles.
    """
    _check(image, parameters)
    templates = _templates(parameters)
    diameter = parameters.diameter_angstrom
    estimated = diameter is None and templates is None
    if diameter is None:
        diameter = templates.diameter_angstrom() if templates else estimate_diameter(image, parameters)
    sought = diameter or _USUAL_DIAMETER_ANGSTROM
    picture = coarse_picture(image, parameters.pixel_size_angstrom, _working_pixel(sought), parameters.threads)
    size = sought / picture.spacing_angstrom
    junk, relief = _junk(picture, size)
    if junk.all() or not diameter or not picture.pixels.any():
        return _told(image, picture, junk, (), diameter, dark_on_light=True)
    matched, standing = _found(picture, junk, size, templates, parameters)
    stronger = _stronger_junk(relief, standing)
    if stronger.any():  # what was found beside it, with it in the picture, does not count
        junk = junk | stronger
        matched, standing = _found(picture, junk, size, templates, parameters)
    covered = grown(junk & ~grown(picture.unknown, 1.0), _LEAST_FROM_JUNK_DIAMETERS * size) | junk
    standing = standing.where(~covered[standing.rows, standing.columns])
    if estimated and len(standing.rows) < _FEWEST_OF_A_SIZE:
        return _told(image, picture, junk, (), 0.0, dark_on_light=matched.dark_on_light)
    picks = tuple(_pick(matched, standing, i, picture.ratio, image.shape) for i in range(len(standing.rows)))
    return _told(image, picture, junk, picks, diameter, dark_on_light=matched.dark_on_light)


def estimate_diameter(image: NDArray[np.generic], parameters: PickParameters) -> float:
    """The particles' diameter in Å, see `estimate_size`; 0 where nothing stands out of the noise."""
    picture = coarse_picture(image, parameters.pixel_size_angstrom, SPACING_ANGSTROM, parameters.threads)
    return estimate_size(picture, parameters.threads) or 0.0


def _templates(parameters: PickParameters) -> Templates | None:
    if parameters.templates is None:
        return None
    pixel = parameters.templates_pixel_size_angstrom
    return Templates.of(parameters.templates, parameters.pixel_size_angstrom if pixel is None else pixel)


def _told(
    image: NDArray[np.generic],
    picture: Picture,
    junk: Mask,
    picks: tuple[Pick, ...],
    diameter_angstrom: float,
    *,
    dark_on_light: bool,
) -> Picking:
    limits = np.array([image.shape[1], image.shape[0]]) - 0.5
    return Picking(
        result=PickResult(diameter_angstrom=diameter_angstrom, picks=picks),
        junk=junk,
        junk_scale=(picture.ratio, picture.ratio),
        outlines=tuple(np.clip(picture.ratio * polygon, -0.5, limits) for polygon in outlines(junk)),
        contamination_fraction=float(junk.mean()),
        dark_on_light=dark_on_light,
    )


def _check(image: NDArray[np.generic], parameters: PickParameters) -> None:
    pixel, diameter = parameters.pixel_size_angstrom, parameters.diameter_angstrom
    if not (math.isfinite(pixel) and pixel > 0):
        raise ProcessingError(f"a pixel size of {pixel} Å", expected="a positive number", remedy="Set the pixel size")
    if diameter is not None and not (math.isfinite(diameter) and diameter >= 3 * pixel):
        raise ProcessingError(
            f"a particle diameter of {diameter} Å at {pixel} Å a pixel",
            expected="at least three pixels",
            remedy="Set the session's particle diameter",
        )
    if not (parameters.false_alarms_per_micrograph > 0):
        raise ProcessingError(
            f"{parameters.false_alarms_per_micrograph} false alarms per micrograph",
            expected="a positive number",
            remedy="Allow one, or a part of one",
        )
    if parameters.threshold is not None and not math.isfinite(parameters.threshold):
        raise ProcessingError(
            f"a threshold of {parameters.threshold}", expected="a number from 0 to 1", remedy="Give one, or none"
        )
    if image.ndim != 2:
        raise ProcessingError(
            f"the image has {image.ndim} dimensions", expected="rows and columns", remedy="Give one picture at a time"
        )
    if np.iscomplexobj(image) or image.dtype.kind not in "biuf":
        raise ProcessingError(
            f"the image's pixels are of type {image.dtype}", expected="real numbers", remedy="Convert the image"
        )
    needed = 2 * (diameter or TRIED_DIAMETERS_ANGSTROM[0])
    if min(image.shape) * pixel < needed or min(image.shape) < 32:
        raise ProcessingError(
            f"the image has {image.shape[0]} × {image.shape[1]} pixels of {pixel} Å",
            expected=f"at least 32 pixels and {needed:.0f} Å, two particles, on each side",
            remedy="Is the pixel size right? Else leave the image out",
        )


def _working_pixel(diameter_angstrom: float) -> float:
    wanted = diameter_angstrom / _WORKING_PIXELS_PER_DIAMETER
    return min(max(wanted, _FINEST_WORKING_PIXEL_ANGSTROM), _COARSEST_WORKING_PIXEL_ANGSTROM)


def _junk(picture: Picture, diameter_pixel: float) -> tuple[Mask, Relief]:
    """Broken pixels, sides and bodies; the denser side of brightness is the darker one."""
    junk, texture, opaque = grown(picture.unknown, 1.0), picture.texture, _opaque(picture)
    if math.isfinite(opaque):
        junk = junk | Relief.of(picture.pixels, ~junk, diameter_pixel, everywhere=True).strong_bodies(opaque)
        if texture is not None:  # of counted electrons the noise is as the brightness
            brightness = 1 + picture.pixels * np.float32(picture.deviation / picture.mean)
            texture = texture / np.maximum(brightness, np.float32(_LEAST_BRIGHTNESS))
    sides = denser_side(picture.pixels, ~junk, diameter_pixel, denser_is_higher=False)
    if texture is not None:
        sides = sides | denser_side(texture, ~junk, diameter_pixel, denser_is_higher=True)
    junk = junk | sides
    relief = Relief.of(picture.pixels, ~junk, diameter_pixel)
    return junk | relief.wide_bodies(), relief


def _opaque(picture: Picture) -> float:
    """The height, in units of the picture, that takes more electrons than a particle can; infinite where the picture's
    mean and noise are not those of counted electrons."""
    differences = np.diff(picture.pixels, axis=1)
    noise = robust_deviation(differences) / math.sqrt(2) * picture.deviation * picture.spacing_angstrom
    if not (noise > 0 and picture.mean > 0):
        return math.inf
    electrons = (picture.mean / noise) ** 2
    likely = _LEAST_ELECTRONS <= electrons <= _MOST_ELECTRONS
    return _OPAQUE_PART * picture.mean / picture.deviation if likely else math.inf


def _found(
    picture: Picture, junk: Mask, diameter_pixel: float, templates: Templates | None, parameters: PickParameters
) -> tuple[Matched, Peaks]:
    """The map of scores, and its peaks that count as particles, where there is no junk."""
    clean = ~grown(junk, _FRINGE_DIAMETERS * diameter_pixel)
    flat = clipped(flattened(picture.pixels, clean, diameter_pixel), clean)
    if templates is None:
        matched = match_shells(flat, clean, diameter_pixel, parameters.threads)
    else:
        matched = match_templates(flat, clean, diameter_pixel, templates, picture.spacing_angstrom, parameters.threads)
    return matched, _standing(matched, clean, diameter_pixel, parameters)


def _standing(matched: Matched, clean: Mask, diameter_pixel: float, parameters: PickParameters) -> Peaks:
    """The peaks that count as particles."""
    peaks = matched.peaks
    if parameters.threshold is not None:
        threshold = parameters.threshold
    else:
        alarms = parameters.false_alarms_per_micrograph / matched.trials
        threshold = threshold_of(matched.noise, clean, peaks, matched.decoys, diameter_pixel, alarms)
        standing = peaks.heights[peaks.heights >= threshold]
        threshold = max(threshold, _LEAST_OF_TYPICAL * float(np.median(standing)) if len(standing) else 0.0)
    peaks = peaks.where(peaks.heights >= threshold)
    peaks = peaks.where(_is_alike(matched, clean, peaks))
    contrasts = matched.contrasts[peaks.rows, peaks.columns]
    return peaks.where(contrasts <= _HIGHEST_CONTRAST * np.median(contrasts)) if len(contrasts) else peaks


def _is_alike(matched: Matched, clean: Mask, peaks: Peaks) -> NDArray[np.bool_]:
    """Whether the template explains enough of what stands out of the noise: False for strong bodies of other shapes.

    A correlation alone does not tell: that of a particle in noise is no higher than that of a crystal without.
    """
    noise = _MOST_NOISE * sampled_median(matched.variation[clean])
    whole = matched.variation[peaks.rows, peaks.columns]
    explained = peaks.heights**2 * whole
    return np.asarray(explained >= _LEAST_EXPLAINED * (whole - noise))


def _stronger_junk(relief: Relief, standing: Peaks) -> Mask:
    """Bodies that are stronger than the particles, however small."""
    if not len(standing.rows):
        return np.zeros(relief.height.shape, dtype=bool)
    strength = ndimage.maximum_filter(np.abs(relief.height), max(3, int(0.5 * relief.diameter_pixel) | 1))
    usual = float(np.median(strength[standing.rows, standing.columns]))
    return relief.strong_bodies(_HIGHEST_STRENGTH * usual)


def _pick(matched: Matched, peaks: Peaks, index: int, ratio: float, shape: tuple[int, ...]) -> Pick:
    """One peak in the pixels of the original picture."""
    row, column = int(peaks.rows[index]), int(peaks.columns[index])
    # Between pixels by a parabola in each axis; no peak is on the map's outermost pixels.
    y = row + summit(matched.scores[row - 1 : row + 2, column])
    x = column + summit(matched.scores[row, column - 1 : column + 2])
    return Pick(
        x_pixel=min(max(0.0, x * ratio), shape[1] - 1.0),
        y_pixel=min(max(0.0, y * ratio), shape[0] - 1.0),
        figure_of_merit=float(peaks.heights[index]),
    )
