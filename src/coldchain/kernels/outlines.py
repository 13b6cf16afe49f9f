"""Closed polygons round the bodies of a mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Steps round a crossing of four pixels, in the order in which a border that meets itself there turns: it turns to the
# side of its own body first, so that bodies that touch at a corner only are two.
_EAST, _SOUTH, _WEST, _NORTH = range(4)
_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))


def outlines(mask: NDArray[np.bool_]) -> tuple[NDArray[np.float64], ...]:
    """The borders of a mask's bodies, and of the holes in them.

    Parameters
    ----------
    mask : (rows, columns) bool; beyond its edges there is nothing.

    Returns
    -------
    Polygons of (corners, 2): x (column) and y (row) in pixels of the mask, 0 is the first pixel's centre. They run
    through the middles of the pixels' sides, so that they cut corners; the last corner is joined with the first. A
    body's border has a positive area by the shoelace formula, a hole's a negative one. Longest first.
    """
    sides = _sides(np.pad(mask, 1))
    polygons = []
    while sides:
        polygons.append(_corners(_ring(sides)))
    return tuple(sorted(polygons, key=len, reverse=True))


def _sides(padded: NDArray[np.bool_]) -> dict[tuple[int, int], list[int]]:
    """Where a side of a True pixel that borders a False one begins (row, column of a crossing), and where it leads.

    The body is to the right of the way as rows grow downwards.
    """
    inside = padded[1:-1, 1:-1]
    found: dict[tuple[int, int], list[int]] = {}
    neighbours = (
        (_EAST, padded[:-2, 1:-1], 0, 0),
        (_SOUTH, padded[1:-1, 2:], 0, 1),
        (_WEST, padded[2:, 1:-1], 1, 1),
        (_NORTH, padded[1:-1, :-2], 1, 0),
    )
    for step, beside, row, column in neighbours:
        for y, x in np.argwhere(inside & ~beside).tolist():
            found.setdefault((y + row, x + column), []).append(step)
    return found


def _ring(sides: dict[tuple[int, int], list[int]]) -> NDArray[np.float64]:
    """One border, taken out of `sides`: the middles of its sides, (sides, 2) x and y."""
    start = next(iter(sides))
    place, heading = start, sides[start][0]
    middles: list[tuple[float, float]] = []
    while place in sides:
        steps = sides[place]
        # To the right first, which keeps to this body.
        taken = next(s for s in ((heading + 1) % 4, heading, (heading + 3) % 4) if s in steps) if middles else heading
        steps.remove(taken)
        if not steps:
            del sides[place]
        rows, columns = _STEPS[taken]
        middles.append((place[1] + 0.5 * columns - 0.5, place[0] + 0.5 * rows - 0.5))
        place, heading = (place[0] + rows, place[1] + columns), taken
        if place == start:
            break
    return np.array(middles, dtype=np.float64)


def _corners(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """The points at which the direction changes."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    return np.asarray(ring[turns])
