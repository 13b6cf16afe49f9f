"""The map of scores that the micrograph likes best: of which template, and dark on light or light on dark."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from coldchain.kernels.matching import Floats, Mask, Scene, projected_shell
from coldchain.kernels.pick_peaks import Peaks, peaks_of
from coldchain.kernels.pick_templates import Templates

_CAVITIES = (0.0, 0.5, 0.7, 0.8)
# The rim of a projection is faint: a given diameter is what people measure, the best template is a little smaller.
_TEMPLATE_SCALE = 0.95
# What the best places of a full micrograph are: a tenth of what it could hold.
_BEST_PART = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """What was found where; maps are (rows, columns).

    scores, contrasts : the particles' polarity is positive.
    noise : the scores of one template alone, by which the noise is judged.
    variation : the sum of squared differences from the mean in the circle of comparison.
    peaks, decoys : of the scores, and of the scores upside down: what is found where there is nothing.
    trials : how many maps the scores are the best of.
    """

    scores: Floats
    contrasts: Floats
    noise: Floats
    variation: Floats
    peaks: Peaks
    decoys: Peaks
    trials: int
    dark_on_light: bool
    preference: float


def match_shells(flat: Floats, clean: Mask, diameter_pixel: float, threads: int) -> Matched:
    """The shell, from solid to thin, and the polarity whose best places score highest."""
    scene = Scene.of(flat, clean, _TEMPLATE_SCALE * diameter_pixel, threads)
    single = replace(scene, threads=1)
    # Shells are much alike: these and two polarities are about as many trials as there are shells.
    trials = len(_CAVITIES)

    def match(cavity: float) -> Matched:
        scores, contrasts = single.score(projected_shell(scene.diameter_pixel, cavity))
        both = (scores, -scores)
        return _better_polarity(single, clean, diameter_pixel, both, (contrasts, -contrasts), both, trials)

    with ThreadPoolExecutor(max(1, threads)) as pool:
        return max(pool.map(match, _CAVITIES), key=lambda found: found.preference)


def match_templates(
    flat: Floats, clean: Mask, diameter_pixel: float, templates: Templates, spacing_angstrom: float, threads: int
) -> Matched:
    """The best template and angle at every place, in the polarity whose best places score highest."""
    scene = Scene.of(flat, clean, diameter_pixel, threads)
    first: Floats | None = None
    light, dark, light_contrasts, dark_contrasts = (np.full(flat.shape, -np.inf, dtype=np.float32) for _ in range(4))
    for template in templates.turned(diameter_pixel, spacing_angstrom):
        scores, contrasts = scene.score(template)
        first = scores if first is None else first
        for sign, highest, strongest in ((1, light, light_contrasts), (-1, dark, dark_contrasts)):
            better = sign * scores > highest
            np.copyto(highest, sign * scores, where=better)
            np.copyto(strongest, sign * contrasts, where=better)
    assert first is not None
    trials = 2 * templates.count(diameter_pixel)
    return _better_polarity(
        scene, clean, diameter_pixel, (light, dark), (light_contrasts, dark_contrasts), (first, -first), trials
    )


def _better_polarity(
    scene: Scene,
    clean: Mask,
    diameter_pixel: float,
    scores: tuple[Floats, Floats],
    contrasts: tuple[Floats, Floats],
    noise: tuple[Floats, Floats],
    trials: int,
) -> Matched:
    """Of light particles and dark ones: `scores`, `contrasts` and `noise` are a map of each."""
    peaks = tuple(peaks_of(each, clean, diameter_pixel) for each in scores)
    asked = max(3, round(_BEST_PART * clean.size / diameter_pixel**2))
    preferences = [float(each.heights[:asked].mean()) if len(each.heights) else 0.0 for each in peaks]
    chosen = int(preferences[1] > preferences[0])
    return Matched(
        scores=scores[chosen],
        contrasts=contrasts[chosen],
        noise=noise[chosen],
        variation=scene.variation,
        peaks=peaks[chosen],
        decoys=peaks[1 - chosen],
        trials=trials,
        dark_on_light=chosen == 1,
        preference=preferences[chosen],
    )
