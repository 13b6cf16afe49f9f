"""Faults are what they claim to be: the readers of real files find them."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from coldchain.errors import FormatError, IncompleteFileError, UsageError
from coldchain.formats.gain import read_gain
from coldchain.formats.mrc import write_mrc
from coldchain.formats.structure import check_structure
from coldchain.formats.tiff import read_tiff, write_tiff_movie
from coldchain.simulate import faults


@pytest.fixture
def movie(tmp_path: Path) -> Path:
    """A good TIFF-LZW movie."""
    path = tmp_path / "good.tiff"
    frames = np.random.default_rng(0).poisson(1.5, size=(3, 64, 80)).astype(np.uint8)
    write_tiff_movie(path, frames, compression="lzw")
    return path


def test_a_truncated_movie_is_incomplete(movie: Path) -> None:
    """Half the bytes are left, and the structure says so."""
    whole = movie.stat().st_size
    assert faults.truncate(movie) == whole // 2 == movie.stat().st_size
    with pytest.raises(IncompleteFileError):
        check_structure(movie)


def test_an_emptied_file_has_no_bytes(movie: Path) -> None:
    """The name stays."""
    faults.empty(movie)
    assert movie.stat().st_size == 0


@pytest.mark.parametrize("frame", [0, 1, 2])
def test_a_corrupt_strip_passes_the_structure_and_fails_the_decoder(movie: Path, frame: int) -> None:
    """Size and directories are whole; decoding names the frame, counted from 1."""
    size = movie.stat().st_size
    faults.corrupt_strip(movie, frame=frame)
    assert movie.stat().st_size == size
    check_structure(movie)
    with pytest.raises(FormatError, match=rf"frame {frame + 1}\b"):
        read_tiff(movie)


def test_a_flipped_byte_is_one_byte(tmp_path: Path) -> None:
    """First, last and middle bytes can be turned, and turned back."""
    path = tmp_path / "bytes"
    path.write_bytes(bytes(range(10)))
    for offset in (0, 5, -1):
        faults.flip_byte(path, offset)
    assert path.read_bytes() == bytes([255, 1, 2, 3, 4, 250, 6, 7, 8, 246])
    for offset in (0, 5, -1):
        faults.flip_byte(path, offset)
    assert path.read_bytes() == bytes(range(10))


def test_odd_names_are_legal_and_come_back(tmp_path: Path) -> None:
    """Each can be made, and a folder lists it again unchanged."""
    for name in faults.ODD_NAMES:
        (tmp_path / f"{name}.mrc").write_bytes(b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{name}.mrc" for name in faults.ODD_NAMES)


def test_another_shapes_gain_is_a_good_file(tmp_path: Path) -> None:
    """It reads as a gain, of its own shape."""
    faults.write_other_gain(tmp_path / "gain.mrc", (30, 40))
    assert read_gain(tmp_path / "gain.mrc").shape == (30, 40)


def test_a_link_leads_out_of_its_folder(tmp_path: Path) -> None:
    """It resolves to the target outside; a target inside is refused."""
    outside, inside = tmp_path / "outside.mrc", tmp_path / "tree" / "inside.mrc"
    inside.parent.mkdir()
    for path in (outside, inside):
        write_mrc(path, np.zeros((4, 4), dtype=np.float32), pixel_size_angstrom=1.0)
    faults.link_out_of_tree(inside.with_name("link.mrc"), outside)
    assert inside.with_name("link.mrc").resolve() == outside.resolve()
    with pytest.raises(UsageError):
        faults.link_out_of_tree(inside.with_name("other.mrc"), inside)


def test_a_growing_file_grows_until_told(tmp_path: Path) -> None:
    """It gains bytes again and again, and as many as it says."""
    path, stopping, written = tmp_path / "growing.mrc", threading.Event(), []
    thread = threading.Thread(target=lambda: written.append(faults.grow(path, stopping, seconds_between=0.001)))
    thread.start()
    for least in (1, 20_000):
        while not path.exists() or path.stat().st_size < least:
            stopping.wait(0.001)
    stopping.set()
    thread.join()
    assert path.stat().st_size == written[0]
