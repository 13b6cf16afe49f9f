"""The rotational profile of a CTF fit as an SVG: what was measured, what was fitted, and how far they agree."""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from coldchain.errors import printable
from coldchain.kernels.ctf import CtfFit

_WIDTH, _HEIGHT = 900, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 20, 50, 60
# The measured profile is scaled like |CTF|², and noise takes it beyond; the agreement is a correlation.
_LOWEST, _HIGHEST = -0.5, 1.5
_LEVELS = (-0.5, 0.0, 0.5, 1.0, 1.5)
_RESOLUTIONS_ANGSTROM = (50, 30, 20, 15, 12, 10, 8, 7, 6, 5, 4.5, 4, 3.5, 3, 2.7, 2.5, 2.2, 2, 1.8, 1.6, 1.4, 1.2, 1)
_LEAST_TICK_PIXEL = 45
_INK, _GRID = "#222222", "#d8d8d8"
_CURVES = (
    ("measured", "#1f5fa8", 'stroke-width="1.6"'),
    ("fitted", "#c8501e", 'stroke-width="1.2"'),
    ("agreement", "#3b7d3b", 'stroke-width="1.6" stroke-dasharray="2 4"'),
)


def profile_svg(fit: CtfFit, *, title: str, resolution_angstrom: float) -> str:
    """The plot over the spatial frequency, marked with the resolution to which the fit holds."""
    k = fit.profile_frequency_per_angstrom.astype(np.float64)
    curves = {"measured": fit.profile_measured, "fitted": fit.profile_fitted, "agreement": fit.profile_agreement}
    scale = _Scale(float(k[0]), float(k[-1]))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}"'
            f' height="{_HEIGHT}" font-family="sans-serif" font-size="14" fill="{_INK}">',
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
            f'<text x="{_LEFT}" y="20">{escape(printable(title))}</text>',
            *_axes(scale),
            *_limit(scale, resolution_angstrom),
            *(
                f'<polyline fill="none" stroke="{colour}" {style} points="{_points(scale, k, curves[name])}"/>'
                for name, colour, style in _CURVES
            ),
            *_legend(),
            "</svg>\n",
        ]
    )


class _Scale:
    """From frequency and value to places in the plot."""

    def __init__(self, lowest: float, highest: float) -> None:
        self.lowest, self.highest = lowest, max(highest, lowest + 1e-9)

    def x(self, frequency: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (frequency - self.lowest) / (self.highest - self.lowest)

    def y(self, value: float) -> float:
        inside = min(max(value, _LOWEST), _HIGHEST)
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (_HIGHEST - inside) / (_HIGHEST - _LOWEST)


def _axes(scale: _Scale) -> Iterator[str]:
    for level in _LEVELS:
        y = scale.y(level)
        yield f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_GRID}"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 5:.1f}" text-anchor="end">{level:g}</text>'
    last = -float(_LEAST_TICK_PIXEL)
    for resolution in _RESOLUTIONS_ANGSTROM:
        x = scale.x(1 / resolution)
        if not (_LEFT <= x <= _WIDTH - _RIGHT and x - last >= _LEAST_TICK_PIXEL):
            continue
        last = x
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="{_GRID}"/>'
        yield f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 20}" text-anchor="middle">{resolution:g}</text>'
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    yield f'<text x="{middle:.0f}" y="{_HEIGHT - 14}" text-anchor="middle">resolution, Å (linear in frequency)</text>'


def _limit(scale: _Scale, resolution_angstrom: float) -> Iterator[str]:
    if not resolution_angstrom > 0:
        return
    x = scale.x(1 / resolution_angstrom)
    if _LEFT <= x <= _WIDTH - _RIGHT:
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="{_INK}"/>'
        yield (
            f'<text x="{min(x, _WIDTH - _RIGHT - 130) + 5:.1f}" y="{_HEIGHT - _BOTTOM - 8}">holds to'
            f" {resolution_angstrom:.2f} Å</text>"
        )


def _legend() -> Iterator[str]:
    for number, (name, colour, style) in enumerate(_CURVES):
        x = _LEFT + 130 * number
        yield f'<line x1="{x}" x2="{x + 28}" y1="36" y2="36" stroke="{colour}" {style}/>'
        yield f'<text x="{x + 34}" y="41">{name}</text>'


def _points(scale: _Scale, frequency: NDArray[np.float64], values: NDArray[np.float32]) -> str:
    pairs = zip(frequency.tolist(), values.tolist(), strict=True)
    return " ".join(f"{scale.x(k):.1f},{scale.y(value):.1f}" for k, value in pairs if np.isfinite(value))
