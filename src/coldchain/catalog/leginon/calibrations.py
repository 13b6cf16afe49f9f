"""What a pixel of a camera is on the specimen, by microscope, camera and magnification, as it was calibrated."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from coldchain.catalog.leginon.server import LeginonServer, equals, read_rows
from coldchain.catalog.leginon.values import moment, number, whole

_COLUMNS = ("DEF_timestamp", "pixelsize", "high tension", "projection mode")
Calibrated = tuple[datetime | None, int | None, float]


class Calibrations:
    """The pixel sizes of one database, asked for as images need them. One reading's: it knows no later ones."""

    def __init__(self, server: LeginonServer, connection: Connection) -> None:
        self._connection = connection
        self._table = server.table(connection, "PixelSizeCalibrationData")
        self._known: dict[tuple[int, int, int], list[Calibrated]] = {}

    def pixel_meter(
        self, tem: int, camera: int, magnification: int, at: datetime | None, voltage: int | None
    ) -> tuple[float | None, bool]:
        """The size of an unbinned pixel in metres, and whether it was calibrated before `at`. See `chosen`."""
        key = tem, camera, magnification
        if key not in self._known:
            self._known[key] = self._read(*key)
        return chosen(self._known[key], at, voltage)

    def _read(self, tem: int, camera: int, magnification: int) -> list[Calibrated]:
        table = self._table
        of_tem = None if table is None else table.reference("tem", "InstrumentData")
        of_camera = None if table is None else table.reference("ccdcamera", "InstrumentData")
        if table is None or of_tem is None or of_camera is None or "magnification" not in table.columns:
            return []
        where = [equals(table, of_tem, tem), equals(table, of_camera, camera)]
        where.append(equals(table, "magnification", magnification))
        found = []
        for row in read_rows(self._connection, table, _COLUMNS, where=where):
            size = number(row.get("pixelsize"))
            if size is not None and size > 0:
                found.append((moment(row.get("DEF_timestamp")), whole(row.get("high tension")), size))
        return found


def chosen(known: list[Calibrated], at: datetime | None, voltage: int | None) -> tuple[float | None, bool]:
    """Of calibrations in the order of their making, the newest that was valid at a time; where all are later, the
    first of them, as Appion does, with False. One that names another voltage does not count. Pure."""
    fitting = [
        (made, size) for made, its_voltage, size in known if not its_voltage or not voltage or its_voltage == voltage
    ]
    if not fitting:
        return None, False
    earlier = [size for made, size in fitting if at is None or made is None or made <= at]
    return (earlier[-1], True) if earlier else (fitting[0][1], False)
