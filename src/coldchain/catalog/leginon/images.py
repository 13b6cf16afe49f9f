"""The images of a Leginon session: how each was taken, where, and with which references."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from sqlalchemy import Connection

from coldchain.catalog.leginon.ancestry import Ancestry, preset_kind
from coldchain.catalog.leginon.calibrations import Calibrations
from coldchain.catalog.leginon.optics import ImageRows, camera_of, frames_want_gain, has_frames, metadata_of
from coldchain.catalog.leginon.server import (
    LeginonServer,
    Row,
    equals,
    is_after,
    read_rows,
    rows_by_id,
)
from coldchain.catalog.leginon.values import is_file_name, moment, text, whole, whole_numbers
from coldchain.errors import CatalogError, printable
from coldchain.model.leginon import CameraState, CorrectionPlan, GainImage, LeginonImage, LeginonSession, Unusable

TABLE = "AcquisitionImageData"
OVERVIEW_PRESETS = frozenset({"gr", "sq", "hl", "fc", "fa"})
PAGE = 500
_ALIGNED = re.compile(r"(?P<of>.+)-[a-z](?:-DW)?")
_IMAGE_SUFFIX = ".mrc"
_STAGE = tuple(f"SUBD|stage position|{axis}" for axis in "xyza")
_SIDES = tuple(f"SUBD|{what}|{axis}" for what in ("dimension", "binning") for axis in "xy")
_SCOPE = ("magnification", "high tension", "defocus", "tem energy filter", "tem energy filter width", *_STAGE)
_CAMERA = (
    *("exposure time", "nframes", "save frames", "eer frames", "frame flip", "frame rotate", "frame gain corrected"),
    *("energy filter", "energy filter width", *_SIDES),
)
_PRESET = ("name", "dose", "exposure time", "defocus")
# What an image refers to: the field of its row, and the table.
_REFERRED = {
    "scope": "ScopeEMData",
    "camera": "CameraEMData",
    "preset": "PresetData",
    "norm": "NormImageData",
    "corrector plan": "CorrectorPlanData",
}


class ImageReader:
    """Reads a session's images in the order of their ids.

    Parameters
    ----------
    server : the database.
    session : whose images they are.
    overviews : names of presets whose images show where and not what; digits at a name's end do not count.
    """

    def __init__(
        self, server: LeginonServer, session: LeginonSession, *, overviews: Collection[str] = OVERVIEW_PRESETS
    ) -> None:
        self._server = server
        self._session = session
        self._overviews = frozenset(overviews)
        self._ancestry = Ancestry(server)

    def check(self) -> None:
        """Raise CatalogError where the database has no images at all."""
        with self._server.reading() as connection:
            _Page(self._server, connection, self._session, self._overviews, self._ancestry)

    def pages(self, after: int) -> Iterator[list[LeginonImage | Unusable]]:
        """The images with ids above `after`, a page a time, each page in a transaction of its own. Raises CatalogError.

        What one row has wrong stays with it. Leginon's ids are given when a row is written, and rows may be seen in
        another order: whoever follows asks for the last ones again.
        """
        self._server.look_again()
        while True:
            with self._server.reading() as connection:
                page = _Page(self._server, connection, self._session, self._overviews, self._ancestry)
                found = page.read(after)
            if not found:
                return
            yield found
            after = found[-1].id


class _Page:
    def __init__(
        self,
        server: LeginonServer,
        connection: Connection,
        session: LeginonSession,
        overviews: frozenset[str],
        ancestry: Ancestry,
    ) -> None:
        self._server = server
        self._connection = connection
        self._session = session
        self._overviews = overviews
        self._ancestry = ancestry
        self._calibrations = Calibrations(server, connection)
        self._referred: dict[str, dict[int, Row]] = {}
        self._instruments: dict[int, Row] = {}
        self._folders: dict[int, str] = {}
        table = server.table(connection, TABLE)
        of_session = None if table is None else table.reference("session", "SessionData")
        if table is None or of_session is None or "filename" not in table.columns:
            lacking = TABLE if table is None else f"a column of {TABLE}"
            raise CatalogError(
                f"{server.shown} lacks {lacking}", expected="Leginon's tables", remedy="No image was ever taken with it"
            )
        self._table = table
        self._of_session = of_session
        self._columns: dict[str, str | None] = {
            field: table.reference(field, kind)
            for field, kind in {**_REFERRED, "target": "AcquisitionImageTargetData"}.items()
        }

    def read(self, after: int) -> list[LeginonImage | Unusable]:
        columns = ["DEF_timestamp", "filename", "MRC|image", *self._columns.values()]
        where = [equals(self._table, self._of_session, self._session.id), is_after(self._table, after)]
        rows = read_rows(self._connection, self._table, columns, where=where, limit=PAGE)
        self._read_referred(rows)
        targets = {target for row in rows if (target := self._id(row, "target")) is not None}
        self._ancestry.read(self._connection, targets)
        parents = self._ancestry.parents_among(self._connection, [int(row["DEF_id"]) for row in rows])
        bases = self._bases(rows)
        return [self._image(row, parents, bases) for row in rows]

    def _id(self, row: Row, field: str) -> int | None:
        column = self._columns[field]
        return None if column is None else whole(row.get(column))

    # -- what images refer to ---------------------------------------------------------------------------------------

    def _read_referred(self, rows: Sequence[Row]) -> None:
        wanted: dict[str, list[str | None]] = {
            "scope": [*_SCOPE, self._reference("ScopeEMData", "tem")],
            "camera": [*_CAMERA, self._reference("CameraEMData", "ccdcamera")],
            "preset": list(_PRESET),
            "norm": ["MRC|image", "filename", self._reference("NormImageData", "session", "SessionData")],
            "corrector plan": ["SEQ|bad_rows", "SEQ|bad_cols", "SEQ|bad_pixels"],
        }
        for field, columns in wanted.items():
            ids = {found for row in rows if (found := self._id(row, field)) is not None}
            table = self._server.table(self._connection, _REFERRED[field])
            self._referred[field] = rows_by_id(self._connection, table, ids, columns)
        self._read_instruments()
        self._read_folders()

    def _reference(self, table: str, field: str, kind: str = "InstrumentData") -> str | None:
        found = self._server.table(self._connection, table)
        return None if found is None else found.reference(field, kind)

    def _referring(self, rows: Collection[Row], column: str | None) -> set[int]:
        return {found for row in rows if column and (found := whole(row.get(column))) is not None}

    def _read_instruments(self) -> None:
        ids = self._referring(self._referred["scope"].values(), self._reference("ScopeEMData", "tem"))
        ids |= self._referring(self._referred["camera"].values(), self._reference("CameraEMData", "ccdcamera"))
        table = self._server.table(self._connection, "InstrumentData")
        self._instruments = rows_by_id(self._connection, table, ids, ["name", "cs"])

    def _read_folders(self) -> None:
        """The folders of the sessions that gain references were taken in: often one for all."""
        column = self._reference("NormImageData", "session", "SessionData")
        ids = self._referring(self._referred["norm"].values(), column)
        table = self._server.table(self._connection, "SessionData")
        rows = rows_by_id(self._connection, table, ids, ["image path"])
        self._folders = {found: text(row.get("image path")) for found, row in rows.items()}

    def _bases(self, rows: Sequence[Row]) -> set[str]:
        """The names of this session's images that others could be aligned sums of."""
        names = {text(row.get("filename")) for row in rows}
        wanted = {found["of"] for name in names if (found := _ALIGNED.fullmatch(name))}
        elsewhere = sorted(wanted - names)
        if not elsewhere:
            return names
        where = [
            equals(self._table, self._of_session, self._session.id),
            self._table.table.c["filename"].in_(elsewhere),
        ]
        others = read_rows(self._connection, self._table, ["filename"], where=where)
        return names | {text(row.get("filename")) for row in others}

    # -- one image --------------------------------------------------------------------------------------------------

    def _image(self, row: Row, parents: set[int], bases: set[str]) -> LeginonImage | Unusable:
        image_id, name = int(row["DEF_id"]), text(row.get("filename"))
        if not is_file_name(name):
            shown = printable(name[:80])
            return Unusable(
                TABLE, image_id, f"filename is {shown!r}, which can be no file's" if name else "no filename"
            )
        rows = self._rows_of(row)
        preset = text(rows.preset.get("name"))
        target = self._id(row, "target")
        aligned = _ALIGNED.fullmatch(name)
        square, hole = self._ancestry.place(self._session.name, name, target)
        image = LeginonImage(
            id=image_id,
            name=name,
            file_name=self._file_name(row, name, rows),
            metadata=metadata_of(rows),
            camera=camera_of(rows),
            is_overview=image_id in parents
            or preset_kind(preset) in self._overviews
            or self._ancestry.is_focus(target),
            derived_from=aligned["of"] if aligned and aligned["of"] in bases else None,
            has_frames=has_frames(rows),
            grid_square=square,
            foil_hole=hole,
        )
        if frames_want_gain(rows):
            image = self._with_references(image, row, rows)
        return replace(image, complaints=tuple(rows.complaints))

    def _rows_of(self, row: Row) -> ImageRows:
        rows = ImageRows(row)
        for field in ("scope", "camera", "preset"):
            setattr(rows, field, self._one(row, field, rows))
        tem = whole(rows.scope.get(self._reference("ScopeEMData", "tem") or ""))
        detector = whole(rows.camera.get(self._reference("CameraEMData", "ccdcamera") or ""))
        rows.tem, rows.detector = self._instruments.get(tem or 0, {}), self._instruments.get(detector or 0, {})
        magnification, voltage = whole(rows.scope.get("magnification")), whole(rows.scope.get("high tension"))
        if tem is None or detector is None or magnification is None:
            return rows
        at = moment(row.get("DEF_timestamp"))
        rows.calibrated_meter, before = self._calibrations.pixel_meter(tem, detector, magnification, at, voltage)
        if rows.calibrated_meter is not None and not before:
            rows.complaints.append("its pixel size was calibrated only after it was taken")
        return rows

    def _one(self, row: Row, field: str, rows: ImageRows) -> Row:
        """What an image refers to; a complaint where that is not there."""
        wanted = self._id(row, field)
        found = None if wanted is None else self._referred[field].get(wanted)
        if wanted is not None and found is None:
            rows.complaints.append(f"{_REFERRED[field]} {wanted}, which it refers to, is not there")
        return found or {}

    def _file_name(self, row: Row, name: str, rows: ImageRows) -> str:
        given = text(row.get("MRC|image")) or f"{name}{_IMAGE_SUFFIX}"
        if is_file_name(given):
            return given
        rows.complaints.append(
            f"its image is {printable(given[:80])!r}, which can be no file's in the session's folder"
        )
        return ""

    def _with_references(self, image: LeginonImage, row: Row, rows: ImageRows) -> LeginonImage:
        norm = self._one(row, "norm", rows)
        gain = None
        if norm:
            session = whole(norm.get(self._reference("NormImageData", "session", "SessionData") or ""))
            folder = self._folders.get(session or 0, "") or self._session.image_path
            file_name = text(norm.get("MRC|image")) or f"{text(norm.get('filename'))}{_IMAGE_SUFFIX}"
            if is_file_name(file_name):
                gain = GainImage(folder, file_name)
            else:
                rows.complaints.append(f"its gain reference is {printable(file_name[:80])!r}, which can be no file's")
        if gain is not None:
            image = replace(image, gain=gain, metadata=replace(image.metadata, gain_name=gain.name))
        return replace(image, plan=self._plan(row, rows, image.camera))

    def _plan(self, row: Row, rows: ImageRows, camera: CameraState) -> CorrectionPlan | None:
        found = self._one(row, "corrector plan", rows)
        if not found or not camera.width:
            return None
        lists = [whole_numbers(found.get(f"SEQ|bad_{what}")) for what in ("rows", "cols", "pixels")]
        if None in lists or len(lists[2] or ()) % 2:
            rows.complaints.append(f"the correction plan {found['DEF_id']} cannot be read")
            return None
        bad_rows, bad_columns, flat = (each or () for each in lists)
        pixels = tuple(zip(flat[::2], flat[1::2], strict=True))
        is_inside = (
            all(0 <= y < camera.height for y in bad_rows)
            and all(0 <= x < camera.width for x in bad_columns)
            and all(0 <= x < camera.width and 0 <= y < camera.height for x, y in pixels)
        )
        if not is_inside:
            rows.complaints.append(f"the correction plan {found['DEF_id']} is of another camera")
            return None
        if not (bad_rows or bad_columns or pixels):
            return None
        return CorrectionPlan(int(found["DEF_id"]), camera.width, camera.height, bad_rows, bad_columns, pixels)
