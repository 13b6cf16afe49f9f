"""Particles of a micrograph, without a reference.

The micrograph is brought to 4–8 Å a pixel, junk is masked, and every place is compared with the projections of a solid
ball and of hollow shells (`matching`); the member of the family, and the polarity, that the micrograph itself likes
best is used. What counts as a particle is decided by the distribution of the score in the same micrograph, for a stated
number of false alarms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import brentq

from coldchain.errors import ProcessingError
from coldchain.kernels.fourier import resample
from coldchain.kernels.junk import disc, junk_mask, robust_deviation
from coldchain.kernels.matching import Floats, Scene
from coldchain.kernels.outlines import outlines
from coldchain.model.results import Pick, PickResult

_WORKING_PIXELS_PER_DIAMETER = 20.0
_FINEST_WORKING_PIXEL_ANGSTROM = 4.0
_COARSEST_WORKING_PIXEL_ANGSTROM = 8.0
_CAVITIES = (0.0, 0.5, 0.7, 0.8)
# The rim of a projection is faint: a given diameter is what people measure, the best template is a little smaller.
_TEMPLATE_SCALE = 0.95
# Neighbours may touch and overlap a little.
_LEAST_DISTANCE = 0.85
# What the decoys may make of the picks: beyond it more noise than particles is gained.
_FALSE_PART = 0.1
# In noise, so many picks before the second decoy have a chance of a few in a million.
_FEWEST_FOR_DECOYS = 25
# A pick much fainter than its fellows is a fragment, an overlap or something else.
_LEAST_OF_TYPICAL = 0.5
# What is wider than so many particles is ice and illumination.
_GRADIENT_DIAMETERS = 3.5
# One hot pixel must not outweigh a particle.
_CLIP_DEVIATIONS = 5.0
_DIAMETER_STEP = 1.12
_TRIED_DIAMETERS_ANGSTROM = tuple(70.0 * _DIAMETER_STEP**i for i in range(17))
_ESTIMATION_CAVITY = 0.7
_ESTIMATION_PICKS = 10
# A pick with a multiple of its fellows' contrast is a body of another kind (gold, ice).
_HIGHEST_CONTRAST = 2.5


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


@dataclass(frozen=True, slots=True, eq=False)
class _Matched:
    """The score map of the family member and polarity that won, and its peaks, best first (rows, columns, scores).

    opposite_heights : the peaks of the same map turned upside down: what the template finds where there is nothing.
    """

    cavity: float
    scores: Floats
    contrasts: Floats
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    heights: Floats
    opposite_heights: Floats
    preference: float
    dark_on_light: bool


def pick_particles(image: NDArray[np.generic], parameters: PickParameters) -> PickResult:
    """The particles of a micrograph alone: `find_particles(image, parameters).result`."""
    return find_particles(image, parameters).result


def find_particles(image: NDArray[np.generic], parameters: PickParameters) -> Picking:
    """Find the particles of a micrograph, and its junk.

    Parameters
    ----------
    image : (rows, columns), any real type; particles may be dark on light or light on dark.
    parameters : pixel size, diameter if known, false alarms allowed.

    Returns
    -------
    Picks, best first: x is the column, y the row, in pixels of `image` from the first stored pixel's centre;
    `figure_of_merit` is the correlation coefficient with the projection of a ball or shell, 0 … 1. A blank image has no
    picks.

    Raises
    ------
    ProcessingError : the parameters cannot be, the image is not two-dimensional, has values that are not finite, or is
        smaller than two particles.
    """
    _check(image, parameters)
    if float(image.max()) <= float(image.min()):
        nothing = PickResult(diameter_angstrom=parameters.diameter_angstrom or 0.0, picks=())
        return Picking(
            nothing, np.zeros((1, 1), dtype=bool), (float(image.shape[0]), float(image.shape[1])), (), 0.0, True
        )
    diameter = parameters.diameter_angstrom or estimate_diameter(image, parameters)
    picture, row_ratio, column_ratio, spacing = _working_picture(image, parameters, diameter)
    diameter_pixel = diameter / spacing
    flat, junk = _clean(picture, diameter_pixel)
    matched = _best_match(flat, junk, diameter_pixel, _CAVITIES, parameters.threads)
    trials = 2 * len(_CAVITIES)
    threshold = parameters.threshold
    if threshold is None:
        threshold = _threshold(matched, parameters.false_alarms_per_micrograph / trials)
    standing = matched.heights >= threshold
    contrast = matched.contrasts[matched.rows, matched.columns]
    usual = _HIGHEST_CONTRAST * float(np.median(contrast[standing])) if standing.any() else 0.0
    standing &= contrast <= usual
    found = tuple(
        _pick(matched, i, (row_ratio, column_ratio), (image.shape[0], image.shape[1]))
        for i in np.flatnonzero(standing).tolist()
    )
    scale = np.array([column_ratio, row_ratio])
    limits = np.array([image.shape[1], image.shape[0]]) - 0.5
    return Picking(
        result=PickResult(diameter_angstrom=diameter, picks=found),
        junk=junk,
        junk_scale=(row_ratio, column_ratio),
        outlines=tuple(np.clip(scale * polygon, -0.5, limits) for polygon in outlines(junk)),
        contamination_fraction=float(junk.mean()),
        dark_on_light=matched.dark_on_light,
    )


def _pick(matched: _Matched, index: int, ratios: tuple[float, float], shape: tuple[int, int]) -> Pick:
    """One peak in the pixels of the original picture."""
    y, x = _refined(matched.scores, int(matched.rows[index]), int(matched.columns[index]))
    return Pick(
        x_pixel=min(max(0.0, x * ratios[1]), shape[1] - 1.0),
        y_pixel=min(max(0.0, y * ratios[0]), shape[0] - 1.0),
        figure_of_merit=float(matched.heights[index]),
    )


def estimate_diameter(image: NDArray[np.generic], parameters: PickParameters) -> float:
    """The particle diameter, in Å, for which the micrograph's best places stand highest above the rest of the map.

    A template of the right size collects all of a particle and nothing else. The shell is used for solid particles as
    well: its narrow rim makes it the more particular about size.
    """
    finest = PickParameters(parameters.pixel_size_angstrom, threads=parameters.threads)
    picture, _, _, spacing = _working_picture(image, finest, _TRIED_DIAMETERS_ANGSTROM[0])
    largest = min(picture.shape) * spacing / 4
    tried = [d for d in _TRIED_DIAMETERS_ANGSTROM if d <= largest and d >= 5 * spacing] or [largest]
    finest = PickParameters(spacing, threads=parameters.threads)
    preferences = [_preference(picture, finest, diameter) for diameter in tried]
    best = int(np.argmax(preferences))
    shift = _vertex(np.array(preferences[max(0, best - 1) : best + 2]))
    return float(tried[best] * _DIAMETER_STEP**shift)


def _preference(picture: Floats, parameters: PickParameters, diameter_angstrom: float) -> float:
    """How far the best places stand above the map, in robust standard deviations of it."""
    smaller, _, _, spacing = _working_picture(picture, parameters, diameter_angstrom)
    diameter = diameter_angstrom / spacing
    flat, junk = _clean(smaller, diameter)
    matched = _best_match(flat, junk, diameter, (_ESTIMATION_CAVITY,), parameters.threads)
    return float(matched.heights[:_ESTIMATION_PICKS].mean()) / max(robust_deviation(matched.scores), 1e-9)


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
            f"{parameters.false_alarms_per_micrograph} false alarms per micrograph", expected="a positive number"
        )
    if image.ndim != 2:
        raise ProcessingError(f"the image has {image.ndim} dimensions", expected="rows and columns")
    needed = 2 * (diameter or _TRIED_DIAMETERS_ANGSTROM[0])
    if min(image.shape) * pixel < needed or min(image.shape) < 32:
        raise ProcessingError(
            f"the image has {image.shape[0]} × {image.shape[1]} pixels of {pixel} Å",
            expected=f"at least 32 pixels and {needed:.0f} Å, two particles, on each side",
        )
    if not (math.isfinite(float(image.min())) and math.isfinite(float(image.max()))):
        raise ProcessingError(
            "pixels of the image are not finite numbers",
            expected="a number in every pixel",
            remedy="Make the image again from its movie, or leave it out",
        )


def _working_picture(
    image: NDArray[np.generic], parameters: PickParameters, diameter_angstrom: float
) -> tuple[Floats, float, float, float]:
    """The picture at a working pixel; image pixels per working row and column; the working pixel in Å."""
    target = diameter_angstrom / _WORKING_PIXELS_PER_DIAMETER
    target = min(max(target, _FINEST_WORKING_PIXEL_ANGSTROM), _COARSEST_WORKING_PIXEL_ANGSTROM)
    pixels, row_spacing, column_spacing = resample(image, parameters.pixel_size_angstrom, target, parameters.threads)
    row_ratio = row_spacing / parameters.pixel_size_angstrom
    column_ratio = column_spacing / parameters.pixel_size_angstrom
    return pixels.astype(np.float64), row_ratio, column_ratio, math.sqrt(row_spacing * column_spacing)


def _clean(picture: Floats, diameter_pixel: float) -> tuple[Floats, NDArray[np.bool_]]:
    """The picture without slow gradients, junk flattened and outliers clipped; and the junk."""
    # Two running means are a triangle: nearly a Gaussian, at a cost that does not grow with its width.
    width = max(3, min(round(_GRADIENT_DIAMETERS * diameter_pixel), *picture.shape))
    slow = ndimage.uniform_filter(picture, width, mode="reflect")
    flat = picture - ndimage.uniform_filter(slow, width, mode="reflect")
    junk = junk_mask(flat, diameter_pixel)
    usual = flat[~junk] if not junk.all() else flat
    middle, deviation = float(np.median(usual)), robust_deviation(usual)
    limit = _CLIP_DEVIATIONS * deviation
    flat = np.clip(flat, middle - limit, middle + limit)
    flat[junk] = middle
    return flat, junk


def _best_match(
    flat: Floats, junk: NDArray[np.bool_], diameter_pixel: float, cavities: tuple[float, ...], threads: int
) -> _Matched:
    """The cavity and polarity whose best places score highest."""
    scene = Scene.of(flat, _TEMPLATE_SCALE * diameter_pixel, threads)
    asked = max(3, round(0.1 * flat.size / diameter_pixel**2))
    best: _Matched | None = None
    for cavity in cavities:
        brighter, contrasts = scene.score(cavity)
        bright = _peaks(brighter, junk, diameter_pixel)
        dark = _peaks(-brighter, junk, diameter_pixel)
        for sign, (rows, columns, heights), (_, _, opposite) in ((1.0, bright, dark), (-1.0, dark, bright)):
            preference = float(heights[:asked].mean()) if len(heights) else 0.0
            if best is None or preference > best.preference:
                dark_on_light = sign < 0
                best = _Matched(
                    cavity,
                    sign * brighter,
                    sign * contrasts,
                    rows,
                    columns,
                    heights,
                    opposite,
                    preference,
                    dark_on_light,
                )
    assert best is not None
    return best


def _peaks(
    scores: Floats, junk: NDArray[np.bool_], diameter_pixel: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Local maxima, best first, none within `_LEAST_DISTANCE` diameters of a better one, none on junk."""
    distance = _LEAST_DISTANCE * diameter_pixel
    window = max(3, int(0.5 * distance) | 1)
    allowed = (scores == ndimage.maximum_filter(scores, size=window)) & ~junk & (scores > 0)
    rows, columns = np.nonzero(allowed)
    order = np.argsort(-scores[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    taken = np.zeros(scores.shape, dtype=bool)
    reach = disc(distance)
    half = len(reach) // 2
    kept = []
    for i, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        if taken[row, column]:
            continue
        kept.append(i)
        top, left = max(0, row - half), max(0, column - half)
        part = reach[top - row + half :, left - column + half :]
        block = taken[top : row + half + 1, left : column + half + 1]
        block |= part[: block.shape[0], : block.shape[1]]
    return rows[kept], columns[kept], scores[rows[kept], columns[kept]]


def _threshold(matched: _Matched, false_alarms: float) -> float:
    """The score from which on a place counts as a particle.

    Two readings of the micrograph's own noise; the lower one holds.

    *Gaussian*: the level that a Gaussian field with the map's variance and steepness exceeds `false_alarms` times on
    average (Adler, The Geometry of Random Fields, 1981, doi:10.1137/1.9780898718980); right for an empty micrograph,
    too strict for a full one, whose particles are in the variance.

    *Decoys*: noise scores as often below zero as above, so the peaks of the map turned upside down say how many of the
    picks are false (Elias & Gygi, Nat. Methods 2007, 4, 207, doi:10.1038/nmeth1019); asked only where the picks are too
    many to be noise.
    """
    steepness = math.prod(robust_deviation(np.diff(matched.scores, axis=axis)) for axis in (0, 1))
    gaussian = _level(robust_deviation(matched.scores), steepness, matched.scores.size, false_alarms)
    threshold = min(gaussian, _decoy_level(matched.heights, matched.opposite_heights))
    standing = matched.heights[matched.heights >= threshold]
    typical = float(np.median(standing)) if len(standing) else 0.0
    return max(threshold, _LEAST_OF_TYPICAL * typical)


def _decoy_level(heights: Floats, decoys: Floats) -> float:
    """The lowest pick above which decoys are at most `_FALSE_PART` of the picks all the way; infinite for few picks."""
    false = len(decoys) - np.searchsorted(np.sort(decoys), heights)
    picks = np.arange(1, len(heights) + 1)
    too_many = np.flatnonzero(false > np.maximum(1, _FALSE_PART * picks))
    last = int(too_many[0]) if len(too_many) else len(heights)
    return float(heights[last - 1]) if last >= _FEWEST_FOR_DECOYS else math.inf


def _level(deviation: float, steepness: float, area: int, false_alarms: float) -> float:
    """The level that a Gaussian field exceeds in `false_alarms` separate places on average."""
    density = area * steepness / max(deviation, 1e-12) ** 2 / (2 * math.pi) ** 1.5

    def excess(level: float) -> float:
        return math.log(max(density, 1e-300)) + math.log(level) - 0.5 * level**2 - math.log(false_alarms)

    # The expected number falls with the level from one standard deviation on.
    return deviation * (float(brentq(excess, 1.0, 40.0)) if excess(1.0) > 0 else 1.0)


def _refined(scores: Floats, row: int, column: int) -> tuple[float, float]:
    """The peak's position between pixels, by a parabola in each axis."""
    return (
        row + _vertex(scores[max(0, row - 1) : row + 2, column]),
        column + _vertex(scores[row, max(0, column - 1) : column + 2]),
    )


def _vertex(three: Floats) -> float:
    if len(three) < 3:
        return 0.0
    below, middle, above = (float(v) for v in three)
    curvature = below - 2 * middle + above
    return max(-0.5, min(0.5, 0.5 * (below - above) / curvature)) if curvature < 0 else 0.0
