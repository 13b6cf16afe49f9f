"""What Appion found in a session's images: CTF fits and particles, from the databases of its project.

Facts from Appion's source (`appiondata`, `ctfdb`, `apDatabase`): defoci are in metres, written by some versions as
negative and by others as positive under focus, and Appion itself takes their absolute values; the angle belongs to
`defocus1`, counterclockwise from x in degrees; phase shifts are in radians, diameters in Å; particles are in pixels of
the image, x the column and y the row, from its first stored pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from sqlalchemy import Connection, func, select

from coldchain.catalog.leginon.server import (
    LeginonServer,
    Row,
    SourceTable,
    equals,
    is_after,
    is_in,
    read_rows,
    rows_by_id,
)
from coldchain.catalog.leginon.sessions import project_database_of
from coldchain.catalog.leginon.values import moment, number, text, truth, whole, words
from coldchain.model.leginon import ForeignResult, LeginonSession, Unusable
from coldchain.model.results import CtfResult, Pick, PickResult, Step

PROGRAM = "Appion"
_IMAGE_TABLE = "AcquisitionImageData"
_PAGE = 1000
_MOST_PICKS = 50_000
_ANGSTROM_PER_METER = 1e10
_DEFOCUS_METER = (1e-9, 1e-4)
_DIAMETER_ANGSTROM = (1.0, 100_000.0)
_FARTHEST_PIXEL = 1 << 17
_NOT_SAID = "how far it is right was not said"
_CTF_COLUMNS = (
    *("DEF_timestamp", "defocus1", "defocus2", "angle_astigmatism", "extra_phase_shift", "amplitude_contrast"),
    *("confidence", "confidence_d", "confidence_30_10", "confidence_5_peak", "cross_correlation"),
    *("ctffind4_resolution", "resolution_80_percent", "resolution_50_percent"),
)
_SCORES = ("confidence_30_10", "confidence_5_peak", "confidence", "confidence_d", "cross_correlation")
_RESOLUTIONS = ("ctffind4_resolution", "resolution_80_percent", "resolution_50_percent")
Found = ForeignResult | Unusable


class AppionReader:
    """Reads what is new in a session's results each time that it is asked.

    Parameters
    ----------
    server : Leginon's database; Appion's are beside it on the same server.
    session : whose results they are.
    project_database : as for `list_sessions`.
    """

    def __init__(self, server: LeginonServer, session: LeginonSession, *, project_database: str | None = None) -> None:
        self._server = server
        self._session = session
        self._project_database = project_database
        self._last_ctf: dict[str, int] = {}
        self._seen_picks: dict[tuple[str, int, int], tuple[int, int]] = {}

    def databases(self, connection: Connection) -> list[str]:
        """Appion's databases for the session's project; those that are not there are left out."""
        database = project_database_of(self._server, connection, self._project_database)
        table = None if database is None else self._server.table(connection, "processingdb", database)
        project = None if table is None else table.reference("project", "projects")
        if table is None or project is None or self._session.project_id is None:
            return []
        rows = read_rows(connection, table, ["appiondb"], where=[equals(table, project, self._session.project_id)])
        names = dict.fromkeys(text(row.get("appiondb")) for row in rows)
        return [name for name in names if self._server.tables(connection, name)]

    def new(self) -> Iterator[list[Found]]:
        """What was not given before, some results a time; oldest first in each run. Raises CatalogError."""
        self._server.look_again()
        with self._server.reading() as connection:
            names = self.databases(connection)
        for name in names:
            yield from self._new_fits(name)
            yield from self._new_picks(name)

    def _runs(self, connection: Connection, database: str, table_name: str) -> dict[int, Row]:
        table = self._server.table(connection, table_name, database)
        session = None if table is None else table.reference("session", "SessionData")
        if table is None or session is None:
            return {}
        columns = ["name", "hidden", table.reference("params", "ApSelectionParamsData"), *table.references_to("Params")]
        where = [equals(table, session, self._session.id)]
        rows = read_rows(connection, table, columns, where=where)
        return {int(row["DEF_id"]): row for row in rows if not truth(row.get("hidden"))}

    # -- fits -------------------------------------------------------------------------------------------------------

    def _new_fits(self, database: str) -> Iterator[list[Found]]:
        with self._server.reading() as connection:
            runs = self._runs(connection, database, "ApAceRunData")
            table = self._server.table(connection, "ApCtfData", database)
        of_run = None if table is None else table.reference("acerun", "ApAceRunData")
        of_image = None if table is None else table.reference("image", _IMAGE_TABLE)
        if table is None or of_run is None or of_image is None or not runs:
            return
        while True:
            where = [is_in(table, of_run, sorted(runs)), is_after(table, self._last_ctf.get(database, 0))]
            with self._server.reading() as connection:
                rows = read_rows(connection, table, [*_CTF_COLUMNS, of_run, of_image], where=where, limit=_PAGE)
            if not rows:
                return
            yield [fit_of(row, runs[int(row[of_run])], of_run, of_image, database) for row in rows]
            self._last_ctf[database] = int(rows[-1]["DEF_id"])

    # -- particles --------------------------------------------------------------------------------------------------

    def _new_picks(self, database: str) -> Iterator[list[Found]]:
        with self._server.reading() as connection:
            runs = self._runs(connection, database, "ApSelectionRunData")
            table = self._server.table(connection, "ApParticleData", database)
            of_run = None if table is None else table.reference("selectionrun", "ApSelectionRunData")
            of_image = None if table is None else table.reference("image", _IMAGE_TABLE)
            if table is None or of_run is None or of_image is None:
                return
            diameters = self._diameters(connection, database, runs)
        for run_id, run in sorted(runs.items()):
            for image_id, count, newest in self._picked_images(table, of_run, of_image, run_id):
                if self._seen_picks.get((database, run_id, image_id)) == (count, newest):
                    continue
                rows = self._particles(table, {of_run: run_id, of_image: image_id})
                yield [picks_of(rows, run, image_id, diameters.get(run_id), database)]
                self._seen_picks[database, run_id, image_id] = count, newest

    def _picked_images(self, table: SourceTable, of_run: str, of_image: str, run_id: int) -> list[tuple[int, int, int]]:
        its_image, its_id = table.table.c[of_image], table.table.c["DEF_id"]
        query = select(its_image, func.count(), func.max(its_id)).where(equals(table, of_run, run_id))
        with self._server.reading() as connection:
            found = connection.execute(query.group_by(its_image).order_by(its_image)).all()
        return [(int(image), int(count), int(newest)) for image, count, newest in found if image is not None]

    def _particles(self, table: SourceTable, having: dict[str, int]) -> list[Row]:
        where = [equals(table, name, value) for name, value in having.items()]
        columns = ["DEF_timestamp", "xcoord", "ycoord", "correlation", "diameter"]
        with self._server.reading() as connection:
            return read_rows(connection, table, columns, where=where, limit=_MOST_PICKS)

    def _diameters(self, connection: Connection, database: str, runs: dict[int, Row]) -> dict[int, float]:
        """By run, the diameter in Å that it was told, whatever kind of parameters it has."""
        diameters: dict[int, float] = {}
        for run_id, row in runs.items():
            for column, value in row.items():
                if not column.startswith("REF|") or (params := whole(value)) is None:
                    continue
                table = self._server.table(connection, column.split("|")[-2], database)
                found = number(rows_by_id(connection, table, [params], ["diam"]).get(params, {}).get("diam"))
                if found is not None and _DIAMETER_ANGSTROM[0] <= found <= _DIAMETER_ANGSTROM[1]:
                    diameters[run_id] = found
        return diameters


def fit_of(row: Row, run: Row, of_run: str, of_image: str, database: str) -> Found:
    """One row of fits as a result. Pure."""
    row_id, image_id = int(row["DEF_id"]), whole(row.get(of_image))
    first, second = number(row.get("defocus1")), number(row.get("defocus2"))
    if image_id is None:
        return Unusable("ApCtfData", row_id, "it names no image")
    if first is None or second is None:
        return Unusable("ApCtfData", row_id, "it has no defocus")
    low, high = _DEFOCUS_METER
    if not (low <= abs(first) <= high and low <= abs(second) <= high):
        return Unusable("ApCtfData", row_id, f"a defocus of {first:g} and {second:g} m, which cannot be")
    if (first > 0) != (second > 0):
        return Unusable("ApCtfData", row_id, f"a defocus of {first:g} and {second:g} m: under focus, or over?")
    angle = number(row.get("angle_astigmatism")) or 0.0
    if abs(first) < abs(second):  # the angle is that of the first axis, ours that of the larger defocus
        angle += 90.0
    larger, smaller = sorted((abs(first), abs(second)), reverse=True)
    phase = math.degrees(number(row.get("extra_phase_shift")) or 0.0)
    said = _words(run, database, _program(run))
    result = CtfResult(
        defocus_u_angstrom=larger * _ANGSTROM_PER_METER,
        defocus_v_angstrom=smaller * _ANGSTROM_PER_METER,
        defocus_angle_degrees=angle % 180.0,
        phase_shift_degrees=phase if abs(phase) <= 360 else 0.0,
        score=_first(row, _SCORES, (-10.0, 10.0)),
        fit_resolution_angstrom=_first(row, _RESOLUTIONS, (0.1, 1000.0)),
        ice_ring_density=math.nan,
        uncertainty_angstrom=math.nan,
        trustworthy=False,
        reason=f"{said}: {_NOT_SAID}",
    )
    parameters = {
        **_origin(run, int(row[of_run]), database),
        "program": f"{PROGRAM} {_program(run)}".strip(),
        "row": row_id,
    }
    return ForeignResult(image_id, Step.CTF, moment(row.get("DEF_timestamp")), parameters, said, result)


def picks_of(rows: list[Row], run: Row, image_id: int, diameter: float | None, database: str) -> Found:
    """The particles that one run found in one image as a result. Pure.

    Those that cannot be are left out, and said by their number; more than 50,000 are cut there.
    """
    picks = []
    for row in rows:
        x, y = number(row.get("xcoord")), number(row.get("ycoord"))
        if x is not None and y is not None and 0 <= x < _FARTHEST_PIXEL and 0 <= y < _FARTHEST_PIXEL:
            picks.append(Pick(x, y, number(row.get("correlation")) or 0.0))
    if rows and not picks:
        return Unusable("ApParticleData", int(rows[0]["DEF_id"]), f"none of {len(rows)} particles lies in an image")
    said = _words(run, database, _program(run))
    if len(picks) < len(rows):
        said += f"; {len(rows) - len(picks)} of {len(rows)} particles lie in no image"
    if len(rows) == _MOST_PICKS:
        said += f"; only the first {_MOST_PICKS:,} particles are here"
    sizes = [size for row in rows if (size := number(row.get("diameter"))) is not None]
    parameters: dict[str, object] = {
        **_origin(run, int(run["DEF_id"]), database),
        "program": f"{PROGRAM} {_program(run)}".strip(),
        "rows": len(rows),
        "last_row": max(int(row["DEF_id"]) for row in rows) if rows else 0,
    }
    found_at = moment(rows[-1].get("DEF_timestamp")) if rows else None
    picks.sort(key=lambda pick: -pick.figure_of_merit)
    its_diameter = diameter if diameter is not None else max(sizes, default=math.nan)
    return ForeignResult(image_id, Step.PICK, found_at, parameters, said, PickResult(its_diameter, tuple(picks)))


def _first(row: Row, names: tuple[str, ...], bounds: tuple[float, float]) -> float:
    found = (number(row.get(name)) for name in names)
    return next((value for value in found if value is not None and bounds[0] <= value <= bounds[1]), math.nan)


def _program(run: Row) -> str:
    """What a run's parameters are of: the first table of parameters that it refers to."""
    for column, value in run.items():
        if column.startswith("REF|") and whole(value) is not None:
            field = column.split("|")[-1]
            if field != "params":
                return field.removesuffix("params").removesuffix("_")
    return ""


def _origin(run: Row, run_id: int, database: str) -> dict[str, object]:
    return {"database": database, "run": words(run.get("name")), "run_id": run_id}


def _words(run: Row, database: str, program: str) -> str:
    name = words(run.get("name")) or f"run {run['DEF_id']}"
    return f"{PROGRAM}'s run {name} in {database}" + (f" ({program})" if program else "")
