"""Pictures with words: captions that say in a line or two what a picture shows.

The font that comes with the imaging library has no Å: it is drawn as an A with a ring.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

from coldchain.errors import printable

_Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

_MARGIN_PIXEL = 8
_TEXT_PIXEL = 18
_LINE_PIXEL = 24
_WHITE, _INK = 255, 0
_LONGEST_LINE = 400
# A strip of a micrograph may be a few pixels wide, and a word of text is wider.
_LEAST_WIDTH_PIXEL = 300


def with_caption(picture: Image.Image, lines: Iterable[str]) -> Image.Image:
    """The picture with lines of text below it, dark on white, broken where they are wider than the picture. Beside one
    that is narrower than 300 pixels it is white."""
    font = ImageFont.load_default(_TEXT_PIXEL)
    pen = ImageDraw.Draw(picture)
    width = max(picture.width, _LEAST_WIDTH_PIXEL)
    room = width - 2 * _MARGIN_PIXEL
    broken = [part for line in lines for part in _broken(printable(line)[:_LONGEST_LINE], pen, font, room)]
    height = picture.height + len(broken) * _LINE_PIXEL + 2 * _MARGIN_PIXEL
    white = _WHITE if picture.mode == "L" else (_WHITE, _WHITE, _WHITE)
    ink = _INK if picture.mode == "L" else (_INK, _INK, _INK)
    whole = Image.new(picture.mode, (width, height), white)
    whole.paste(picture, (0, 0))
    pen = ImageDraw.Draw(whole)
    for number, line in enumerate(broken):
        y = picture.height + _MARGIN_PIXEL + number * _LINE_PIXEL
        pen.text((_MARGIN_PIXEL, y), line.replace("Å", "A"), fill=ink, font=font)
        for x, top in _angstroms(line, pen, font):
            ring = (_MARGIN_PIXEL + x - 3, y + top - 5, _MARGIN_PIXEL + x + 3, y + top + 1)
            pen.ellipse(ring, outline=ink)
    return whole


def _angstroms(line: str, pen: ImageDraw.ImageDraw, font: _Font) -> Iterator[tuple[float, float]]:
    """The middle of each Å from the line's beginning, and where its A begins below the line's top."""
    plain = line.replace("Å", "A")
    _, top, width, _ = pen.textbbox((0, 0), "A", font=font)
    yield from (
        (pen.textlength(plain[:place], font=font) + width / 2, top)
        for place, letter in enumerate(line)
        if letter == "Å"
    )


def label(picture: Image.Image, text: str, *, right: bool = False) -> None:
    """Write a word into an upper corner of a grey picture, white on black, so that it is read on any ground."""
    font = ImageFont.load_default(_TEXT_PIXEL)
    pen = ImageDraw.Draw(picture)
    x = picture.width - _MARGIN_PIXEL - pen.textlength(text, font=font) if right else _MARGIN_PIXEL
    box = pen.textbbox((x, _MARGIN_PIXEL), text, font=font)
    pen.rectangle((box[0] - 4, box[1] - 4, box[2] + 4, box[3] + 4), fill=_INK)
    pen.text((x, _MARGIN_PIXEL), text, fill=_WHITE, font=font)


def _broken(line: str, pen: ImageDraw.ImageDraw, font: _Font, room: float) -> Iterator[str]:
    """The line in parts that fit, broken between words, and within a word that is wider than the room."""
    part = ""
    for word in line.split(" "):
        longer = f"{part} {word}" if part else word
        if not part or pen.textlength(longer, font=font) <= room:
            part = longer
        else:
            yield part
            part = word
        while pen.textlength(part, font=font) > room and len(part) > 1:
            begins = part[: math.ceil(room) + 1]  # no letter is narrower than a pixel
            fits = max(
                1, bisect_right(range(len(begins)), room, key=lambda n: pen.textlength(begins[:n], font=font)) - 1
            )
            yield part[:fits]
            part = part[fits:]
    yield part
