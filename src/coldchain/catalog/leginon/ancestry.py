"""Where an image was taken: the images on which its target, and those of its forebears, were picked."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, select

from coldchain.catalog.leginon.server import LeginonServer, is_in, rows_by_id
from coldchain.catalog.leginon.values import text, whole

_GENERATIONS = 8
_MOST_KNOWN = 50_000
_SQUARE_PRESET, _HOLE_PRESET = "sq", "hl"
_VERSION = re.compile(r"_v[0-9]+$")
_LAST_PART = re.compile(r"(?:.*_)?([0-9]+[a-z]+[0-9]*)$")
# In a name, the square is all up to the part that ends in "sq", and the hole the part that ends in "hl".
_BY_NAME = re.compile(r"(?P<square>.*?[0-9]{2,}sq)(?:_v[0-9]+)?(?=_|$)(?:.*?_(?P<hole>[0-9]{2,}hl)(?=_|$))?")


@dataclass(frozen=True, slots=True)
class _Known:
    name: str
    preset: str
    target: int | None


class Ancestry:
    """Images and targets of one database, remembered between readings: neither is ever changed."""

    def __init__(self, server: LeginonServer) -> None:
        self._server = server
        self._images: dict[int, _Known] = {}
        self._targets: dict[int, tuple[int | None, str]] = {}

    def read(self, connection: Connection, targets: Collection[int]) -> None:
        """Learn of these targets and of all images and targets behind them."""
        if len(self._images) + len(self._targets) > _MOST_KNOWN:
            self._images.clear()
            self._targets.clear()
        wanted = {target for target in targets if target not in self._targets}
        for _ in range(_GENERATIONS):
            if not wanted:
                return
            images = self._read_targets(connection, wanted)
            wanted = self._read_images(connection, {image for image in images if image not in self._images})

    def is_focus(self, target: int | None) -> bool:
        """Whether a target was picked to focus on."""
        return target is not None and self._targets.get(target, (None, ""))[1] == "focus"

    def place(self, session_name: str, name: str, target: int | None) -> tuple[str | None, str | None]:
        """Grid square and hole of an image: of the images that its targets were picked on, else as its name says."""
        square, hole = place_by_name(session_name, name)
        for _ in range(_GENERATIONS):
            image = None if target is None else self._images.get(self._targets.get(target, (None, ""))[0] or 0)
            if image is None:
                break
            bare = _VERSION.sub("", image.name.removeprefix(f"{session_name}_"))
            if image.preset == _SQUARE_PRESET:
                square = square or bare
            elif image.preset == _HOLE_PRESET and (part := _LAST_PART.fullmatch(bare)):
                hole = hole or part[1]
            target = image.target
        return square or None, hole or None

    def parents_among(self, connection: Connection, ids: Collection[int]) -> set[int]:
        """Those of these images on which targets were picked."""
        table = self._server.table(connection, "AcquisitionImageTargetData")
        of_image = None if table is None else table.reference("image", "AcquisitionImageData")
        if table is None or of_image is None or not ids:
            return set()
        query = select(table.table.c[of_image]).where(is_in(table, of_image, sorted(ids))).distinct()
        return {int(row[0]) for row in connection.execute(query)}

    def _read_targets(self, connection: Connection, ids: Collection[int]) -> set[int]:
        table = self._server.table(connection, "AcquisitionImageTargetData")
        of_image = None if table is None else table.reference("image", "AcquisitionImageData")
        images = set()
        for target, row in rows_by_id(connection, table, ids, [of_image, "type"]).items():
            its_image = whole(row.get(of_image or ""))
            self._targets[target] = its_image, text(row.get("type"))
            if its_image is not None:
                images.add(its_image)
        return images

    def _read_images(self, connection: Connection, ids: Collection[int]) -> set[int]:
        table = self._server.table(connection, "AcquisitionImageData")
        of_preset = None if table is None else table.reference("preset", "PresetData")
        of_target = None if table is None else table.reference("target", "AcquisitionImageTargetData")
        rows = rows_by_id(connection, table, ids, ["filename", of_preset, of_target])
        preset_ids = {preset for row in rows.values() if (preset := whole(row.get(of_preset or ""))) is not None}
        presets = rows_by_id(connection, self._server.table(connection, "PresetData"), preset_ids, ["name"])
        targets = set()
        for image, row in rows.items():
            its_preset = presets.get(whole(row.get(of_preset or "")) or 0, {})
            target = whole(row.get(of_target or ""))
            kind = preset_kind(text(its_preset.get("name")))
            self._images[image] = _Known(text(row.get("filename")), kind, target)
            if target is not None and target not in self._targets:
                targets.add(target)
        return targets


def preset_kind(name: str) -> str:
    """A preset's name without the number at its end: there may be "sq" and "sq2". Pure."""
    return name.rstrip("0123456789")


def place_by_name(session_name: str, name: str) -> tuple[str | None, str | None]:
    """Grid square and hole that a name tells of: `09mar16a_a_00010gr_00003sq_00001hl_00002en` is of the square
    `a_00010gr_00003sq` and the hole `00001hl`. Pure."""
    found = _BY_NAME.match(name.removeprefix(f"{session_name}_"))
    return (found["square"], found["hole"]) if found else (None, None)
