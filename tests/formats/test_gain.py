"""Gain and dark references: taken as they are meant, refused where they cannot be."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from dm_files import write_dm

from coldchain.errors import FormatError, IncompleteFileError
from coldchain.formats import eer, mrc, tiff
from coldchain.formats.gain import read_dark, read_gain
from coldchain.formats.structure import check_structure

RNG = np.random.default_rng(29)
GAIN = RNG.normal(1.0, 0.1, (24, 36)).astype(np.float32)
GAIN[3, 5] = 0


def test_mrc_and_tiff_gains_are_multiplicative(tmp_path: Path) -> None:
    """The gain lies in the array as the movie's frames do, from either container."""
    mrc.write_mrc(tmp_path / "gain.mrc", GAIN, pixel_size_angstrom=1.0)
    tiff.write_tiff_movie(tmp_path / "gain.tif", [GAIN], compression="lzw")
    for name in ("gain.mrc", "gain.tif"):
        gain = read_gain(tmp_path / name)
        assert gain.dtype == np.float32
        assert np.array_equal(gain, GAIN)


def test_the_eer_gain_is_multiplied_and_fits_its_movie(tmp_path: Path) -> None:
    """A camera whose pixels count unevenly is made even by its own .gain: the rows fit and the sense is right."""
    sensitivity = RNG.uniform(0.5, 1.5, (32, 48)).astype(np.float32)
    sensitivity[7, 9] = 0
    frames = RNG.random((400, 32, 48)) < 0.3 * sensitivity
    eer.write_eer(tmp_path / "movie.eer", frames)
    with tifffile.TiffWriter(tmp_path / "camera.gain") as out:
        out.write(np.divide(1, sensitivity, out=np.zeros_like(sensitivity), where=sensitivity > 0), metadata=None)
        out.write(np.zeros((4, 4), np.uint8), metadata=None)  # only the first page is the gain
    check_structure(tmp_path / "camera.gain")
    gain = read_gain(tmp_path / "camera.gain")
    assert gain[7, 9] == 0
    corrected = eer.read_eer(tmp_path / "movie.eer", fractions=1)[0] * gain
    alive = sensitivity > 0
    assert corrected[alive].std() / corrected[alive].mean() < 0.15
    assert np.allclose(gain[alive] * sensitivity[alive], 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("value", "words"), [(np.nan, "1 of 864"), (np.inf, "1 of 864"), (-0.1, "1 of 864"), (None, "are 0")]
)
def test_impossible_gains_are_refused(tmp_path: Path, value: float | None, words: str) -> None:
    """NaN, infinity, negative values and zeros alone are refused with a remedy."""
    gain = GAIN.copy()
    if value is None:
        gain[:] = 0
    else:
        gain[4, 4] = value
    mrc.write_mrc(tmp_path / "gain.mrc", gain, pixel_size_angstrom=1.0)
    with pytest.raises(FormatError, match=words) as caught:
        read_gain(tmp_path / "gain.mrc")
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["CountRef.dm4", "SuperRef.dm3", "reference"])
def test_digitalmicrograph_gains_lie_as_tiffs_do(tmp_path: Path, name: str) -> None:
    """Told by its content, whatever its name; the file's first row is the picture's top."""
    write_dm(tmp_path / name, GAIN.astype(np.float64), 3 if name.endswith("3") else 4)
    gain = read_gain(tmp_path / name)
    assert gain.dtype == np.float32
    assert np.array_equal(gain, GAIN)


def test_what_is_called_dm4_and_is_none_is_said(tmp_path: Path) -> None:
    """An empty file may still be growing; another's content is refused."""
    (tmp_path / "a.dm4").write_bytes(b"")
    with pytest.raises(IncompleteFileError):
        read_gain(tmp_path / "a.dm4")
    (tmp_path / "a.dm4").write_bytes(b"II*\0" + bytes(100))
    with pytest.raises(FormatError, match="expected DigitalMicrograph 3 or 4"):
        read_gain(tmp_path / "a.dm4")


@pytest.mark.parametrize("reader", [read_gain, read_dark])
def test_a_movie_is_no_reference(tmp_path: Path, reader: Callable[[Path], object]) -> None:
    """A file of several images is refused, in every container."""
    frames = RNG.integers(0, 4, (3, 24, 36)).astype(np.uint8)
    mrc.write_mrc(tmp_path / "a.mrc", frames, pixel_size_angstrom=1.0)
    tiff.write_tiff_movie(tmp_path / "a.tif", frames)
    write_dm(tmp_path / "a.dm4", frames)
    eer.write_eer(tmp_path / "a.eer", frames > 2)
    for name in ("a.mrc", "a.tif", "a.dm4", "a.eer"):
        with pytest.raises(FormatError, match=r"holds 3 images; expected one"):
            reader(tmp_path / name)


def test_a_dark_reference_may_be_of_either_sign(tmp_path: Path) -> None:
    """Offsets are what they are; every container gives the same."""
    dark = (20 * RNG.standard_normal((24, 36))).astype(np.float32)
    mrc.write_mrc(tmp_path / "a.mrc", dark, pixel_size_angstrom=1.0)
    tiff.write_tiff_movie(tmp_path / "a.tif", [dark])
    write_dm(tmp_path / "a.dm4", dark)
    for name in ("a.mrc", "a.tif", "a.dm4"):
        found = read_dark(tmp_path / name)
        assert found.dtype == np.float32
        assert np.array_equal(found, dark)
    dark[3, 4], dark[5, 6] = np.nan, np.inf
    mrc.write_mrc(tmp_path / "a.mrc", dark, pixel_size_angstrom=1.0)
    with pytest.raises(FormatError, match=r"2 of 864 values of the dark reference"):
        read_dark(tmp_path / "a.mrc")
    write_dm(tmp_path / "a.dm4", np.full((4, 4), 1e300))
    with pytest.raises(FormatError, match=r"16 of 16 values"):
        read_dark(tmp_path / "a.dm4")
