"""A Leginon database that a test writes: tables as Leginon makes them, rows as it adds them."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pymysql

from tests.mariadb_servers import MariaDbServer

READER, READER_PASSWORD = "reader", "se$ame/%x"
TAKEN_AT = datetime(2024, 3, 28, 12, tzinfo=UTC)

_INT, _REAL, _TEXT, _FLAG = "int(20) DEFAULT NULL", "double DEFAULT NULL", "text", "tinyint(1) DEFAULT 0"
_STAMP = "timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP"


def _axes(name: str, kind: str, axes: str = "xy") -> dict[str, str]:
    return {f"SUBD|{name}|{axis}": kind for axis in axes}


def _refs(*names: str) -> dict[str, str]:
    return {f"REF|{name}": _INT for name in names}


LEGINON: dict[str, dict[str, str]] = {
    "UserData": dict.fromkeys(("username", "firstname", "lastname", "password", "email"), _TEXT),
    "InstrumentData": {"name": _TEXT, "hostname": _TEXT, "cs": _REAL},
    "SessionData": {
        **dict.fromkeys(("name", "image path", "frame path", "comment"), _TEXT),
        "hidden": _FLAG,
        **_refs("UserData|user"),
    },
    "PixelSizeCalibrationData": {
        **_refs("SessionData|session", "InstrumentData|tem", "InstrumentData|ccdcamera"),
        **{"magnification": _INT, "high tension": _INT, "pixelsize": _REAL, "comment": _TEXT},
    },
    "PresetData": {
        **_refs("SessionData|session"),
        **{"name": _TEXT, "dose": _REAL, "exposure time": _REAL, "defocus": _REAL},
    },
    "ScopeEMData": {
        **_refs("SessionData|session", "InstrumentData|tem"),
        **{"magnification": _INT, "high tension": _INT, "defocus": _REAL, **_axes("stage position", _REAL, "xyza")},
    },
    "CameraEMData": {
        **_refs("SessionData|session", "InstrumentData|ccdcamera"),
        **_axes("dimension", _INT),
        **_axes("binning", _INT),
        **dict.fromkeys(("exposure time", "frame time", "energy filter width"), _REAL),
        **dict.fromkeys(("nframes", "frame rotate"), _INT),
        **dict.fromkeys(("save frames", "eer frames", "frame flip", "frame gain corrected", "energy filter"), _FLAG),
        "frames name": _TEXT,
    },
    "NormImageData": {**_refs("SessionData|session"), "MRC|image": _TEXT, "filename": _TEXT},
    "CorrectorPlanData": {
        **_refs("SessionData|session", "CameraEMData|camera"),
        **dict.fromkeys(("SEQ|bad_rows", "SEQ|bad_cols", "SEQ|bad_pixels"), _TEXT),
    },
    "AcquisitionImageTargetData": {
        **_refs("SessionData|session", "AcquisitionImageData|image", "PresetData|preset"),
        **{"type": _TEXT, "number": _INT},
    },
    "AcquisitionImageData": {
        **_refs(
            *("SessionData|session", "ScopeEMData|scope", "CameraEMData|camera", "PresetData|preset"),
            *("NormImageData|norm", "CorrectorPlanData|corrector plan", "AcquisitionImageTargetData|target"),
        ),
        **{"MRC|image": _TEXT, "filename": _TEXT, "label": _TEXT},
    },
}
PROJECTS: dict[str, dict[str, str]] = {
    "projects": {"name": _TEXT, "short_description": _TEXT},
    "projectexperiments": _refs("projects|project", "leginondata|SessionData|session"),
    "processingdb": {**_refs("projects|project"), "appiondb": _TEXT},
}
APPION: dict[str, dict[str, str]] = {
    "ApAceRunData": {
        **_refs("leginondata|SessionData|session", "ApCtfFind4ParamsData|ctffind4_params"),
        **{"name": _TEXT, "hidden": _FLAG},
    },
    "ApCtfData": {
        **_refs("ApAceRunData|acerun", "leginondata|AcquisitionImageData|image"),
        **dict.fromkeys(
            (
                *("defocus1", "defocus2", "angle_astigmatism", "extra_phase_shift", "confidence"),
                "ctffind4_resolution",
            ),
            _REAL,
        ),
    },
    "ApSelectionParamsData": {"diam": _INT},
    "ApSelectionRunData": {
        **_refs("leginondata|SessionData|session", "ApSelectionParamsData|params"),
        **{"name": _TEXT, "hidden": _FLAG},
    },
    "ApParticleData": {
        **_refs("ApSelectionRunData|selectionrun", "leginondata|AcquisitionImageData|image"),
        **{"xcoord": _INT, "ycoord": _INT, "correlation": _REAL},
    },
}


_TABLES = {"leg": LEGINON, "projectdb": PROJECTS, "ap7": APPION}


class LeginonTables:
    """A Leginon database `leg` on a server, with its projects in `projectdb` and Appion's results in `ap7`.

    It has a user, a microscope, a camera, and a session that belongs to a project; images are added.
    """

    def __init__(self, server: MariaDbServer) -> None:
        self.server = server
        self._connection: pymysql.Connection[pymysql.cursors.DictCursor] | None = None
        self.make()

    def make(self, *, without: tuple[str, ...] = ()) -> None:
        """Make the databases anew, without some tables."""
        for database, tables in _TABLES.items():
            self.run(f"DROP DATABASE IF EXISTS {database}", f"CREATE DATABASE {database}")
            self.run(*(_create(database, name, its) for name, its in tables.items() if name not in without))
        self.server.make_user(READER, READER_PASSWORD, grants="SELECT ON *.*")
        self.without = without
        self._fill()

    def clear(self) -> None:
        """Take out all that was added; tables that were taken away are there again."""
        count = "SELECT COUNT(*) AS n FROM information_schema.tables WHERE table_schema IN ('leg', 'projectdb', 'ap7')"
        if self.run(count)[0]["n"] < sum(map(len, _TABLES.values())):
            self.make()
            return
        for database, tables in _TABLES.items():
            self.run(*(f"TRUNCATE TABLE `{database}`.`{name}`" for name in tables))
        self._fill()

    def run(self, *statements: str) -> list[dict[str, Any]]:
        """Execute statements as the server's root; the rows of the last."""
        with self._connected().cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def close(self) -> None:
        """Let go of the server, so that it is connected to anew."""
        if self._connection is not None:
            with suppress(pymysql.Error):
                self._connection.close()
        self._connection = None

    def _connected(self) -> pymysql.Connection[pymysql.cursors.DictCursor]:
        # One for all: each costs a tenth of a second, in which the system's certificates are read.
        if self._connection is None:
            self._connection = self.server.connect()
        with self._connection.cursor() as cursor:
            cursor.execute("SET time_zone = '+00:00', sql_mode = 'NO_AUTO_VALUE_ON_ZERO'")
        return self._connection

    def _fill(self) -> None:
        person = {"username": "mm", "firstname": "Mary", "lastname": "Miller", "email": "m@x.org", "password": "s3cret"}
        self.user = self.row("UserData", person)
        self.tem = self.row("InstrumentData", {"name": "Krios1", "cs": 0.0027})
        self.detector = self.row("InstrumentData", {"name": "K3"})

    def url(self, user: str = READER, password: str = READER_PASSWORD, database: str = "leg") -> str:
        """The database's URL, for a user that may only read."""
        return self.server.url(database, user, password)

    def row(self, table: str, columns: dict[str, Any], database: str = "leg") -> int:
        """Add a row; its id."""
        if table in self.without:
            return 1
        names = ", ".join(f"`{name}`" for name in columns)
        marks = ", ".join(["%s"] * len(columns))
        with self._connected().cursor() as cursor:
            cursor.execute(f"INSERT INTO `{database}`.`{table}` ({names}) VALUES ({marks})", list(columns.values()))
            return int(cursor.lastrowid)

    def session(self, name: str, images: str, frames: str | None, project: str | None = "beta-gal") -> int:
        """A session with its project."""
        its = self.row(
            "SessionData", {"name": name, "image path": images, "frame path": frames, "REF|UserData|user": self.user}
        )
        if project is not None:
            project_id = self.row("projects", {"name": project, "short_description": ""}, "projectdb")
            link = {"REF|projects|project": project_id, "REF|leginondata|SessionData|session": its}
            self.row("projectexperiments", link, "projectdb")
            self.row("processingdb", {"REF|projects|project": project_id, "appiondb": "ap7"}, "projectdb")
        return its

    def calibrate(self, magnification: int, meter: float, at: datetime = datetime(2023, 1, 1, tzinfo=UTC)) -> int:
        """A calibrated pixel size."""
        return self.row(
            "PixelSizeCalibrationData",
            {
                "DEF_timestamp": _sql(at),
                "REF|InstrumentData|tem": self.tem,
                "REF|InstrumentData|ccdcamera": self.detector,
                "magnification": magnification,
                "pixelsize": meter,
            },
        )

    def image(
        self,
        session: int,
        name: Any,
        preset: str = "en",
        *,
        scope: dict[str, Any] | None = None,
        camera: dict[str, Any] | None = None,
        preset_row: dict[str, Any] | None = None,
        at: datetime = TAKEN_AT,
        **references: Any,
    ) -> int:
        """An image with its scope, camera and preset; `references` are columns of its own row."""
        in_session = {"REF|SessionData|session": session}
        its_preset = self.row(
            "PresetData", {**in_session, "name": preset, "exposure time": 2000.0, **(preset_row or {})}
        )
        its_scope = self.row(
            "ScopeEMData",
            {
                **{**in_session, "REF|InstrumentData|tem": self.tem, "magnification": 105000, "high tension": 300000},
                **{"defocus": -1.5e-6, "SUBD|stage position|x": 1e-4, "SUBD|stage position|a": 0.5, **(scope or {})},
            },
        )
        its_camera = self.row(
            "CameraEMData",
            {
                **{**in_session, "REF|InstrumentData|ccdcamera": self.detector, "exposure time": 2000.0},
                **{"SUBD|dimension|x": 64, "SUBD|dimension|y": 48, "SUBD|binning|x": 1, "SUBD|binning|y": 1},
                **(camera or {}),
            },
        )
        return self.row(
            "AcquisitionImageData",
            {
                **{**in_session, "DEF_timestamp": _sql(at), "REF|ScopeEMData|scope": its_scope},
                **{"REF|CameraEMData|camera": its_camera, "REF|PresetData|preset": its_preset},
                **{"filename": name, "MRC|image": f"{name}.mrc", **references},
            },
        )

    def target(self, session: int, image: int, kind: str = "acquisition") -> int:
        """A target that was picked on an image."""
        columns = {"REF|SessionData|session": session, "REF|AcquisitionImageData|image": image, "type": kind}
        return self.row("AcquisitionImageTargetData", columns)


FRAMES = {"save frames": 1, "nframes": 40, "frame time": 50.0}


def _create(database: str, name: str, columns: dict[str, str]) -> str:
    its = ", ".join(f"`{column}` {kind}" for column, kind in columns.items())
    key = f"`DEF_id` int(16) NOT NULL AUTO_INCREMENT PRIMARY KEY, `DEF_timestamp` {_STAMP}"
    return f"CREATE TABLE `{database}`.`{name}` ({key}, {its}) ENGINE=MyISAM DEFAULT CHARSET=latin1"


def _sql(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
