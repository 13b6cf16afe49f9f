"""Coordinate files: what is written is what RELION's and EMAN's readers take it for."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import starfile
from hypothesis import given
from hypothesis import strategies as st

from coldchain.errors import FormatError
from coldchain.formats import star
from coldchain.formats.coordinates import write_boxes, write_coordinate_list, write_coordinates
from coldchain.model.results import Pick

PICKS = (Pick(1.5, 2.5, 0.9), Pick(3.0, 4.0, 0.8))


def test_each_pick_is_a_row_of_a_star(tmp_path: Path) -> None:
    """Places and figures of merit come back, to `starfile` as well; without a pick the labels are still there."""
    write_coordinates(tmp_path / "picks.star", PICKS)
    table = starfile.read(tmp_path / "picks.star")
    assert list(table["rlnCoordinateX"]) == [1.5, 3.0]
    assert list(table["rlnCoordinateY"]) == [2.5, 4.0]
    assert list(table["rlnAutopickFigureOfMerit"]) == [0.9, 0.8]
    write_coordinates(tmp_path / "none.star", ())
    columns = star.table(star.read_star(tmp_path / "none.star"), "", tmp_path).columns
    assert "rlnCoordinateX" in columns
    assert len(columns["rlnCoordinateX"]) == 0


@given(st.lists(st.tuples(st.floats(0, 6000), st.floats(0, 6000)), max_size=20), st.integers(1, 300))
def test_a_boxs_middle_is_its_particle(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[float, float]], half: int
) -> None:
    """Lower corner plus half the box is the centre, to half a pixel."""
    path = tmp_path_factory.mktemp("boxes") / "a.box"
    write_boxes(path, [Pick(x, y, 0.5) for x, y in places], 2 * half)
    lines = [list(map(int, line.split("\t"))) for line in path.read_text().splitlines()]
    assert len(lines) == len(places)
    for (left, bottom, width, height), (x, y) in zip(lines, places, strict=True):
        assert width == height == 2 * half
        assert max(abs(left + half - x), abs(bottom + half - y)) <= 0.5


def test_no_box_is_nowhere(tmp_path: Path) -> None:
    """A place that is no number is refused, and no file is left."""
    with pytest.raises(FormatError, match="no finite place"):
        write_boxes(tmp_path / "a.box", [Pick(math.nan, 1.0, 0.5)], 10)
    assert not list(tmp_path.iterdir())


def test_the_list_pairs_micrographs_and_coordinates(tmp_path: Path) -> None:
    """A row a micrograph, as RELION's picking job lists them."""
    write_coordinate_list(
        tmp_path / "autopick.star", [("m/a b.mrc", "p/a b_picks.star"), ("m/c.mrc", "p/c_picks.star")]
    )
    table = starfile.read(tmp_path / "autopick.star")
    assert np.asarray(table).tolist() == [["m/a b.mrc", "p/a b_picks.star"], ["m/c.mrc", "p/c_picks.star"]]
