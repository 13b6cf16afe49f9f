"""Files cut short at any byte: a stated error wherever pixels are lost, and never a foreign one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import write_png

from coldchain.errors import FormatError, IncompleteFileError
from coldchain.formats import eer, image, mrc, tiff
from coldchain.formats.movie import load_movie, probe_movie
from coldchain.formats.structure import check_structure

RNG = np.random.default_rng(17)
FRAMES = RNG.poisson(1.0, (3, 24, 36)).astype(np.uint8)
EVENTS = (RNG.random((6, 24, 36)) < 0.05).astype(np.uint8)

WRITERS: dict[str, Callable[[Path], None]] = {
    "signed.mrc": lambda path: mrc.write_mrc(path, FRAMES, pixel_size_angstrom=1.0),
    "packed.mrc": lambda path: mrc.write_mrc(path, FRAMES, pixel_size_angstrom=1.0, mode=101),
    "plain.tif": lambda path: tiff.write_tiff_movie(path, FRAMES, compression="none"),
    "lzw.tif": lambda path: tiff.write_tiff_movie(path, FRAMES, compression="lzw"),
    "deflate.tiff": lambda path: tiff.write_tiff_movie(path, FRAMES, compression="deflate", big=True),
    "seven.eer": lambda path: eer.write_eer(path, EVENTS),
    "eight.eer": lambda path: eer.write_eer(path, EVENTS, coding=eer.EIGHT_BIT),
    "picture.png": lambda path: write_png(path, FRAMES[0]),
}


def cut_places(name: str, folder: Path) -> tuple[bytes, Path]:
    """The bytes of a whole file, and where to put what is left of them."""
    path = folder / name
    WRITERS[name](path)
    return path.read_bytes(), path


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=80)
@given(part=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_never_read_as_whole(
    tmp_path_factory: pytest.TempPathFactory, name: str, part: float
) -> None:
    """Wherever the file ends, its structure check speaks up, unless every pixel is still there; then all are right."""
    whole, path = cut_places(name, tmp_path_factory.getbasetemp())
    right = load_movie(path).frames
    path.write_bytes(whole[: int(part * len(whole))])
    try:
        check_structure(path)
    except FormatError as error:
        assert error.path == path
        assert error.remedy
    else:
        assert np.array_equal(load_movie(path).frames, right)
    for act in (probe_movie, load_movie, image.read_image):
        try:
            act(path)
        except FormatError as error:
            assert error.path == path


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_cut_within_its_pixels_may_still_grow(tmp_path: Path, name: str) -> None:
    """A cut is told from damage: it is incomplete, which means that trying again later may help."""
    whole, path = cut_places(name, tmp_path)
    for length in (0, 1, 7, 100, len(whole) // 2, len(whole) * 4 // 5):
        path.write_bytes(whole[:length])
        with pytest.raises(IncompleteFileError) as caught:
            check_structure(path)
        assert caught.value.retry


@pytest.mark.parametrize("name", WRITERS)
def test_a_whole_file_is_whole_with_bytes_behind_it(tmp_path: Path, name: str) -> None:
    """Whole files pass, also with something appended."""
    whole, path = cut_places(name, tmp_path)
    check_structure(path)
    path.write_bytes(whole + b"behind")
    check_structure(path)


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_of_zeros_is_not_whole(tmp_path: Path, name: str) -> None:
    """The right size with nothing in it is what a preallocated file looks like: incomplete."""
    whole, path = cut_places(name, tmp_path)
    path.write_bytes(bytes(len(whole)))
    with pytest.raises(IncompleteFileError):
        check_structure(path)
    with pytest.raises(IncompleteFileError):
        load_movie(path)


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_of_noise_is_refused(tmp_path: Path, name: str) -> None:
    """The right size with wrong content is a format error."""
    whole, path = cut_places(name, tmp_path)
    path.write_bytes(RNG.integers(1, 256, len(whole), dtype=np.uint8).tobytes())
    with pytest.raises(FormatError):
        check_structure(path)
    with pytest.raises(FormatError):
        load_movie(path)
