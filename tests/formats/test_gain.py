"""Gain references: taken as they are meant, refused where they cannot be."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from coldchain.errors import FormatError
from coldchain.formats import eer, mrc, tiff
from coldchain.formats.gain import read_gain
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


def test_the_eer_gain_is_inverted_and_fits_its_movie(tmp_path: Path) -> None:
    """A camera whose pixels count unevenly is made even by its own .gain: the rows fit and the sense is right."""
    sensitivity = RNG.uniform(0.5, 1.5, (32, 48)).astype(np.float32)
    sensitivity[7, 9] = 0
    frames = RNG.random((400, 32, 48)) < 0.3 * sensitivity
    eer.write_eer(tmp_path / "movie.eer", frames)
    with tifffile.TiffWriter(tmp_path / "camera.gain") as out:
        out.write(sensitivity, metadata=None)
        out.write(np.zeros((4, 4), np.uint8), metadata=None)  # only the first page is the gain
    check_structure(tmp_path / "camera.gain")
    gain = read_gain(tmp_path / "camera.gain")
    assert gain[7, 9] == 0
    corrected = eer.read_eer(tmp_path / "movie.eer", fractions=1)[0] * gain
    alive = sensitivity > 0
    assert corrected[alive].std() / corrected[alive].mean() < 0.15
    assert np.allclose(gain[alive] * sensitivity[alive], sensitivity.mean(), rtol=1e-5)


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


def test_a_dm4_gain_names_its_remedy(tmp_path: Path) -> None:
    """DigitalMicrograph references are refused with the command that converts them."""
    (tmp_path / "SuperRef.dm4").write_bytes(b"\0\0\0\4" + bytes(100))
    with pytest.raises(FormatError, match=r"dm2mrc SuperRef.dm4 SuperRef.mrc"):
        read_gain(tmp_path / "SuperRef.dm4")
