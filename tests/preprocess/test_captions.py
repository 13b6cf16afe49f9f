"""Captions stand below a picture, whole and within its width."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from coldchain.preprocess import captions


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("width", [1, 33, 299, 640])
def test_any_words_find_room(mode: str, width: int) -> None:
    """The picture is as it was, in the upper left corner; below it are dark letters and a white margin, in no more than
    a few lines, however narrow the picture and long a word."""
    picture = Image.new(mode, (width, 50), 0 if mode == "L" else (0, 0, 0))
    shown = np.asarray(captions.with_caption(picture, ["w" * 250, "15000 Å at 3°", "a\nb" * 200]).convert("L"))
    assert shown.shape[1] == max(width, 300)
    assert 50 < shown.shape[0] < 2000
    assert not shown[:50, :width].any()
    assert (shown[:50, width:] == 255).all()
    assert shown[50:].min() < 50
    assert (shown[50:, -4:] == 255).all()


def test_a_long_word_is_measured_in_few_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of 250 letters is broken without measuring each of its beginnings."""
    measured: list[str] = []
    plain = ImageDraw.ImageDraw.textlength

    def textlength(pen: ImageDraw.ImageDraw, text: str, *words: object, **options: object) -> float:
        measured.append(text)
        return plain(pen, text, *words, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageDraw.ImageDraw, "textlength", textlength)
    captions.with_caption(Image.new("L", (640, 50)), ["x" * 250])
    assert len(measured) < 60
