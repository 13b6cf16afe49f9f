"""Defect lists and masks: marked where they are meant, refused where they cannot be."""

from pathlib import Path

import numpy as np
import pytest
from pictures import write_png

from coldchain.errors import FormatError
from coldchain.formats import mrc, tiff
from coldchain.formats.defects import read_defects


def test_boxes_count_from_the_first_stored_pixel(tmp_path: Path) -> None:
    """RELION's and MotionCor2's text: x y width height."""
    path = tmp_path / "defects.txt"
    path.write_text("# a comment\n3 2 1 5\n\n10 0 4 1\n")
    wanted = np.zeros((20, 30), dtype=bool)
    wanted[2:7, 3] = True
    wanted[0, 10:14] = True
    assert np.array_equal(read_defects(path, (20, 30)), wanted)


SERIALEM = """CameraSizeX 30
CameraSizeY 20
RotationAndFlip 0
WasScaled 0
K2Type 1
UsableArea 0 0 19 29
BadColumns 4 7
BadRows 1
PartialBadColumn 12 2 3 6
PartialBadRow 15 1 20 25
BadPixels 29 0 0 19
"""


def serialem_truth() -> np.ndarray:
    """The list above, y from the picture's top."""
    top_first = np.zeros((20, 30), dtype=bool)
    top_first[:, [4, 7]] = True
    top_first[1] = True
    top_first[3:7, 12:14] = True
    top_first[15, 20:26] = True
    top_first[0, 29] = top_first[19, 0] = True
    return top_first[::-1]


def test_serialem_lists_count_from_the_top(tmp_path: Path) -> None:
    """SerialEM's y runs down from the picture's top, so the list is turned over into our rows."""
    path = tmp_path / "defects.txt"
    path.write_text(SERIALEM)
    assert np.array_equal(read_defects(path, (20, 30)), serialem_truth())


def test_serialem_lists_grow_with_super_resolution(tmp_path: Path) -> None:
    """A list for the camera's pixels marks blocks of two by two in super-resolution frames."""
    path = tmp_path / "defects.txt"
    path.write_text(SERIALEM)
    assert np.array_equal(read_defects(path, (40, 60)), serialem_truth().repeat(2, 0).repeat(2, 1))
    path.write_text(SERIALEM.replace("WasScaled 0", "WasScaled 1").replace("29 0 0 19", "28 0"))
    defects = read_defects(path, (20, 30))[::-1]
    assert defects[0:2, 28:30].all()


def test_serialem_lists_shrink_with_binned_frames(tmp_path: Path) -> None:
    """A list for super-resolution marks a pixel of counting frames that holds any bad one."""
    path = tmp_path / "defects.txt"
    path.write_text(SERIALEM)
    blocks = serialem_truth().reshape(10, 2, 15, 2).any((1, 3))
    assert np.array_equal(read_defects(path, (10, 15)), blocks)


@pytest.mark.parametrize("turn", ["RotationAndFlip 0", "RotationAndFlip 3", "RotationAndFlip 7", ""])
def test_a_serialem_list_lies_as_the_frames_beside_it(tmp_path: Path, turn: str) -> None:
    """SerialEM has turned a list already when it writes it: its number is told, not applied again."""
    path = tmp_path / "defects.txt"
    path.write_text(SERIALEM.replace("RotationAndFlip 0", turn))
    assert np.array_equal(read_defects(path, (20, 30)), serialem_truth())


def test_all_outside_the_usable_area_is_bad(tmp_path: Path) -> None:
    """SerialEM names the area's first row and column and its last, from the top; 0 is no bound."""
    path = tmp_path / "defects.txt"
    path.write_text("CameraSizeX 30\nCameraSizeY 20\nUsableArea 2 3 17 25\n")
    usable = np.zeros((20, 30), dtype=bool)
    usable[2:18, 3:26] = True
    assert np.array_equal(read_defects(path, (20, 30)), ~usable[::-1])
    path.write_text("CameraSizeX 30\nCameraSizeY 20\nUsableArea 0 0 0 28\n")
    assert np.array_equal(np.flatnonzero(read_defects(path, (20, 30)).all(axis=0)), [29])


def test_masks_are_defects_where_they_are_not_zero(tmp_path: Path) -> None:
    """MRC and TIFF masks lie as the movie does."""
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[2, 3] = 1
    mrc.write_mrc(tmp_path / "mask.mrc", mask, pixel_size_angstrom=1.0)
    tiff.write_tiff_movie(tmp_path / "mask.tif", [mask])
    for name in ("mask.mrc", "mask.tif"):
        assert np.array_equal(read_defects(tmp_path / name, (20, 30)), mask > 0)
        with pytest.raises(FormatError, match="30 × 20"):
            read_defects(tmp_path / name, (20, 31))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 2 3\n", "a line of 3 numbers"),
        ("a b c d\n", "'a b c d'"),
        ("29 0 2 1\n", "at column 29, row 0"),
        ("-1 0 1 1\n", "at column -1"),
        ("0 0 0 1\n", "0 × 1 pixels"),
        ("99999999999999999999 0 1 1\n", "at column 99999999999999999999"),
        (SERIALEM.replace("CameraSizeX 30", "CameraSizeX 31"), "31 × 20"),
        (SERIALEM.replace("CameraSizeX 30", "CameraSizeX 0"), "0 × 20"),
        (SERIALEM.replace("CameraSizeX 30\n", ""), "no CameraSizeX"),
        (SERIALEM.replace("BadColumns 4 7", "BadColumns 30"), "at column 30"),
        (SERIALEM.replace("BadColumns 4 7", "BadColumns four"), "'four'"),
        (SERIALEM.replace("12 2 3 6", "12 2 3"), "PartialBadColumn line has 3"),
        (SERIALEM.replace("29 0 0 19", "29 0 0"), "BadPixels line has 3"),
    ],
)
def test_impossible_defects_are_refused(tmp_path: Path, text: str, words: str) -> None:
    """Text that makes no sense and defects outside the frame are stated errors."""
    path = tmp_path / "defects.txt"
    path.write_text(text)
    with pytest.raises(FormatError, match=words):
        read_defects(path, (20, 30))


def test_an_empty_list_has_no_defects(tmp_path: Path) -> None:
    """A camera without defects is a good camera; binary rubbish is no list."""
    (tmp_path / "none.txt").write_text("")
    assert not read_defects(tmp_path / "none.txt", (4, 5)).any()
    write_png(tmp_path / "defects.txt", np.zeros((4, 5), np.uint8))
    with pytest.raises(FormatError):
        read_defects(tmp_path / "defects.txt", (4, 5))
