"""Particles of a micrograph, without a reference.

The micrograph is brought to 4–8 Å a pixel, junk is masked, and every place is compared with the projections of a solid
ball and of hollow shells (`matching`); the member of the family, and the polarity, that the micrograph itself likes best
is used. What counts as a particle is decided by the score's own distribution in the empty parts of the same micrograph,
for a stated number of false alarms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import brentq

from coldchain.errors import ProcessingError
from coldchain.kernels.fourier import fourier_crop, good_size, irfft2, rfft2
from coldchain.kernels.junk import disc, junk_mask, robust_deviation
from coldchain.kernels.matching import Floats, Scene, Shell, score_map
from coldchain.model.results import Pick, PickResult

_WORKING_PIXELS_PER_DIAMETER = 20.0
_FINEST_WORKING_PIXEL_ANGSTROM = 4.0
_COARSEST_WORKING_PIXEL_ANGSTROM = 8.0
_CAVITIES = (0.0, 0.5, 0.7, 0.8)
# The rim of a projection is faint: a given diameter is what people measure, the best template is a little smaller.
_TEMPLATE_SCALE = 0.95
# Neighbours may touch and overlap a little.
_LEAST_DISTANCE = 0.85
# A centre nearer to the edge than this part of the diameter has most of its particle outside.
_EDGE = 0.0
# A pick much fainter than its fellows is a fragment, an overlap or something else.
_LEAST_OF_TYPICAL = 0.5
_GRADIENT_DIAMETERS = 1.5
_CLIP_DEVIATIONS = 5.0
_TRIED_DIAMETERS_ANGSTROM = tuple(70.0 * 1.12**i for i in range(17))


@dataclass(frozen=True, slots=True)
class PickParameters:
    """What to look for. `diameter_angstrom` None: estimated from the micrograph. `false_alarms_per_micrograph`: how many
    picks a micrograph of noise may have on average."""

    pixel_size_angstrom: float
    diameter_angstrom: float | None = None
    false_alarms_per_micrograph: float = 1.0
    threads: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class _Matched:
    """The score map of the family member and polarity that won, and its peaks, best first (rows, columns, scores)."""

    shell: Shell
    scores: Floats
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    heights: Floats
    preference: float


def pick_particles(image: NDArray[np.generic], parameters: PickParameters) -> PickResult:
    """Find the particles of a micrograph.

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
        return PickResult(diameter_angstrom=parameters.diameter_angstrom or 0.0, picks=())
    diameter = parameters.diameter_angstrom or estimate_diameter(image, parameters)
    picture, row_ratio, column_ratio, spacing = _working_picture(image, parameters, diameter)
    diameter_pixel = diameter / spacing
    flat, junk = _clean(picture, diameter_pixel)
    matched = _best_match(flat, junk, diameter_pixel, _CAVITIES, parameters.threads)
    trials = 2 * len(_CAVITIES)
    threshold = _threshold(matched, junk, diameter_pixel, parameters.false_alarms_per_micrograph / trials)
    picks = []
    for row, column, height in zip(matched.rows, matched.columns, matched.heights, strict=True):
        if height < threshold:
            break
        y, x = _refined(matched.scores, int(row), int(column))
        picks.append(Pick(x_pixel=x * column_ratio, y_pixel=y * row_ratio, figure_of_merit=float(height)))
    return PickResult(diameter_angstrom=diameter, picks=tuple(picks))


def estimate_diameter(image: NDArray[np.generic], parameters: PickParameters) -> float:
    """The particle diameter, in Å, for which the micrograph's best places stand highest above noise.

    A matched template collects all of a particle and nothing else, so its signal-to-noise ratio is the largest.
    """
    shorter_side = min(image.shape) * parameters.pixel_size_angstrom
    best_diameter, best_preference = _TRIED_DIAMETERS_ANGSTROM[0], -math.inf
    for diameter in _TRIED_DIAMETERS_ANGSTROM:
        if diameter > shorter_side / 4:
            break
        picture, _, _, spacing = _working_picture(image, parameters, diameter)
        flat, junk = _clean(picture, diameter / spacing)
        matched = _best_match(flat, junk, diameter / spacing, (0.0, 0.7), parameters.threads)
        # A correlation coefficient over n pixels of noise has the standard deviation 1/√n, whatever the pixel is.
        preference = matched.preference * diameter
        if preference > best_preference:
            best_diameter, best_preference = diameter, preference
    return best_diameter


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
        raise ProcessingError("pixels of the image are not finite numbers", remedy="Align the movie again")


def _working_picture(
    image: NDArray[np.generic], parameters: PickParameters, diameter_angstrom: float
) -> tuple[Floats, float, float, float]:
    """The picture at a working pixel; image pixels per working row and column; the working pixel in Å."""
    target = diameter_angstrom / _WORKING_PIXELS_PER_DIAMETER
    target = min(max(target, _FINEST_WORKING_PIXEL_ANGSTROM), _COARSEST_WORKING_PIXEL_ANGSTROM)
    rows, columns = image.shape
    ratio = min(1.0, parameters.pixel_size_angstrom / target)
    new_rows = min(rows, good_size(math.ceil(rows * ratio), even=True))
    new_columns = min(columns, good_size(math.ceil(columns * ratio), even=True))
    pixels = image.astype(np.float32)
    pixels -= np.float32(pixels.mean(dtype=np.float64))
    if (new_rows, new_columns) != (rows, columns):
        transform = fourier_crop(rfft2(pixels, parameters.threads), (rows, columns), (new_rows, new_columns))
        pixels = irfft2(transform, (new_rows, new_columns), parameters.threads).astype(np.float32, copy=False)
    row_ratio, column_ratio = rows / new_rows, columns / new_columns
    spacing = parameters.pixel_size_angstrom * math.sqrt(row_ratio * column_ratio)
    return pixels.astype(np.float64), row_ratio, column_ratio, spacing


def _clean(picture: Floats, diameter_pixel: float) -> tuple[Floats, NDArray[np.bool_]]:
    """The picture without slow gradients, junk flattened and outliers clipped; and the junk."""
    flat = picture - ndimage.gaussian_filter(picture, _GRADIENT_DIAMETERS * diameter_pixel, mode="reflect")
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
    diameter = _TEMPLATE_SCALE * diameter_pixel
    scene = Scene.of(flat, math.ceil(diameter), threads)
    capacity = flat.size / diameter_pixel**2
    asked = max(3, round(0.1 * capacity))
    best: _Matched | None = None
    for cavity in cavities:
        shell = Shell(diameter, cavity)
        brighter = score_map(scene, shell)
        for scores in (brighter, -brighter):
            rows, columns, heights = _peaks(scores, junk, diameter_pixel)
            preference = float(heights[:asked].mean()) if len(heights) else 0.0
            if best is None or preference > best.preference:
                best = _Matched(shell, scores, rows, columns, heights, preference)
    assert best is not None
    return best


def _peaks(
    scores: Floats, junk: NDArray[np.bool_], diameter_pixel: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Local maxima, best first, none within `_LEAST_DISTANCE` diameters of a better one, none on junk."""
    distance = _LEAST_DISTANCE * diameter_pixel
    window = disc(0.5 * distance)
    allowed = (scores == ndimage.maximum_filter(scores, footprint=window)) & ~junk & (scores > 0)
    edge = math.ceil(_EDGE * diameter_pixel)
    if edge:
        allowed[:edge], allowed[-edge:], allowed[:, :edge], allowed[:, -edge:] = False, False, False, False
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


def _threshold(matched: _Matched, junk: NDArray[np.bool_], diameter_pixel: float, false_alarms: float) -> float:
    """The score that the empty part of the micrograph exceeds `false_alarms` times on average.

    What is empty depends on the threshold, and the other way round: the surroundings of what stands out are taken
    away until nothing more stands out. The score in noise is nearly Gaussian; the number of its maxima above a level
    follows from its variance and its gradient's (Adler, The Geometry of Random Fields, 1981,
    doi:10.1137/1.9780898718980).
    """
    scores = matched.scores
    rise, run = np.gradient(scores)
    empty = ~junk
    threshold = 1.0
    for _ in range(10):
        if np.count_nonzero(empty) < 0.03 * empty.size:
            break
        deviation = robust_deviation(scores[empty])
        steepness = robust_deviation(rise[empty]) * robust_deviation(run[empty])
        previous, threshold = threshold, _level(deviation, steepness, scores.size, false_alarms)
        if threshold > 0.98 * previous:
            break
        standing = np.zeros(scores.shape, dtype=bool)
        above = matched.heights >= threshold
        standing[matched.rows[above], matched.columns[above]] = True
        near = ndimage.distance_transform_edt(~standing) < 0.8 * diameter_pixel if standing.any() else standing
        empty = ~junk & ~near
    standing_heights = matched.heights[matched.heights >= threshold]
    typical = float(np.median(standing_heights)) if len(standing_heights) else 0.0
    return max(threshold, _LEAST_OF_TYPICAL * typical)


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
