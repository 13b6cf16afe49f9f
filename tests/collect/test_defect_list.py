"""Correction plans become lists of defects that lie as the frames do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coldchain.collect.defect_list import boxes_of, list_name, write_list
from coldchain.formats.defects import read_defects
from coldchain.model.leginon import CameraState, CorrectionPlan

WIDTH, HEIGHT = 12, 8


@given(
    rows=st.lists(st.integers(0, HEIGHT - 1), max_size=3),
    columns=st.lists(st.integers(0, WIDTH - 1), max_size=3),
    pixels=st.lists(st.tuples(st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1)), max_size=4),
    turns=st.integers(0, 3),
    flip=st.booleans(),
    scale=st.sampled_from([1, 2]),
)
def test_boxes_are_the_map_that_is_turned_as_a_whole(
    rows: list[int], columns: list[int], pixels: list[tuple[int, int]], turns: int, flip: bool, scale: int
) -> None:
    """The list marks what numpy's turning and flipping of the whole map of defects marks."""
    plan = CorrectionPlan(3, WIDTH, HEIGHT, tuple(rows), tuple(columns), tuple(pixels))
    camera = CameraState(WIDTH, HEIGHT, turns, flip)
    expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
    expected[rows, :] = True
    expected[:, columns] = True
    for x, y in pixels:
        expected[y, x] = True
    expected = np.rot90(expected, 4 - turns)
    expected = np.kron(expected[::-1] if flip else expected, np.ones((scale, scale), dtype=bool))
    marked = np.zeros_like(expected)
    for x, y, width, height in boxes_of(plan, camera, scale):
        marked[y : y + height, x : x + width] = True
    assert np.array_equal(marked, expected)


def test_a_list_is_written_once_and_read_as_it_was_meant(tmp_path: Path) -> None:
    """It is in RELION's form; the same list again leaves the file alone."""
    plan = CorrectionPlan(7, WIDTH, HEIGHT, rows=(2,), pixels=((5, 6),))
    path = tmp_path / "references" / list_name(plan, CameraState(WIDTH, HEIGHT), 1)
    boxes = boxes_of(plan, CameraState(WIDTH, HEIGHT), 1)
    write_list(path, boxes)
    before = path.stat().st_mtime_ns
    write_list(path, boxes)
    assert path.stat().st_mtime_ns == before
    assert read_defects(path, (HEIGHT, WIDTH)).sum() == WIDTH + 1
