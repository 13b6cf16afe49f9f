"""A gain reference among the movies is told from a movie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coldchain.errors import ProcessingError
from coldchain.formats.movie import probe_movie
from coldchain.formats.mrc import write_mrc
from coldchain.preprocess.mistaken_gain import refuse_gain

IMAGE = np.ones((64, 64), np.float32)


def written(path: Path, pixels: np.ndarray[tuple[int, ...], np.dtype[np.generic]] = IMAGE) -> Path:
    """The picture as an MRC."""
    write_mrc(path, pixels, pixel_size_angstrom=1)
    return path


def test_the_file_that_the_option_names_is_no_movie(tmp_path: Path) -> None:
    """Under any name, and whatever it holds."""
    reference = written(tmp_path / "a.mrc", np.ones((3, 64, 64), np.uint8))
    (tmp_path / "link.mrc").symlink_to(reference)
    with pytest.raises(ProcessingError, match="what --gain names"):
        refuse_gain(probe_movie(tmp_path / "link.mrc"), reference)
    refuse_gain(probe_movie(reference), written(tmp_path / "b.mrc"))


def test_the_file_that_an_mdoc_names_is_no_movie(tmp_path: Path) -> None:
    """Its name alone would not tell; an mdoc that cannot be read says nothing."""
    reference = written(tmp_path / "K3-21400028.mrc")
    (tmp_path / "a.mdoc").write_text("nothing")
    refuse_gain(probe_movie(reference), None)
    (tmp_path / "m.tif.mdoc").write_text("[FrameSet = 0]\nGainReference = K3-21400028.mrc\n")
    with pytest.raises(ProcessingError, match="an mdoc beside it"):
        refuse_gain(probe_movie(reference), None)


@pytest.mark.parametrize("name", ["gain.mrc", "my_Gain_ref.mrc", "CountRef_1.mrc", "SuperRef_2.mrc"])
def test_one_image_of_floats_that_is_called_as_a_gain_is_none(tmp_path: Path, name: str) -> None:
    """A movie of that name has several frames, or counts."""
    with pytest.raises(ProcessingError, match=r"called as one.*Name the movies without it"):
        refuse_gain(probe_movie(written(tmp_path / name)), None)
    refuse_gain(probe_movie(written(tmp_path / name, np.ones((2, 64, 64), np.float32))), None)
    refuse_gain(probe_movie(written(tmp_path / name, np.ones((64, 64), np.uint8))), None)


def test_other_names_are_those_of_micrographs(tmp_path: Path) -> None:
    """One image of floats may be a sum."""
    refuse_gain(probe_movie(written(tmp_path / "again_0001.mrc")), None)
