"""Pictures for people show what there is, whatever the numbers."""

from __future__ import annotations

import numpy as np
import pytest

from coldchain.preprocess.previews import micrograph_picture


@pytest.mark.parametrize("scale", [1e-30, 1.0, 3.4e38])
@pytest.mark.parametrize("side", [64, 32])
def test_any_numbers_give_greys(scale: float, side: int) -> None:
    """A left half of one value and a right half of its opposite are black and white, as far apart as they may be."""
    picture = np.full((64, 64), -scale, np.float32)
    picture[:, 32:] = scale
    shown = np.asarray(micrograph_picture(picture, side))
    assert shown.shape == (side, side)
    assert (shown[:, : side // 2] == 0).all()
    assert (shown[:, side // 2 :] == 255).all()


def test_the_top_comes_first() -> None:
    """Row 0 of a micrograph is its bottom; pixels that are no numbers are no hindrance."""
    picture = np.arange(100, dtype=np.float32).repeat(50).reshape(100, 50)
    picture[50, 20] = np.nan
    shown = np.asarray(micrograph_picture(picture)).astype(int)
    assert shown[0].mean() > 250
    assert shown[-1].mean() < 5
