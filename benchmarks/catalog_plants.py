"""A catalog as it is after months: sessions, exposures, files, copies, runs, results, verdicts, events by the million.

The database makes the rows itself, from numbers, so that none of them goes through Python. What is made depends on the
numbers alone. Every exposure has `FILES_PER_EXPOSURE` files, each with a copy on each of `STORES`; the newest are not
copied and not computed yet.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Table, create_engine, event, inspect
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.schema import AddConstraint, CreateIndex, DropConstraint, DropIndex

from coldchain.catalog import engine, sessions, stores
from coldchain.catalog.tables import Base
from coldchain.model.policy import Tier
from coldchain.model.session import Layout

SITE = "here"
STORES = ("live", "archive")
FILES_PER_EXPOSURE = 10
EXPOSURES_PER_SESSION = 10_000
BIG_SHARE = 0.1
"""Which share of all exposures the one big session has."""
NEWEST_SHARE = 0.01
"""Which share of all, at the end, is neither copied to the last store nor computed yet."""
_AT_ONCE = 10_000
_SPACING_MS = 10_000
_FILLED = (
    "exposures",
    "files",
    "replicas",
    "events",
    "step_runs",
    "motion_results",
    "ctf_results",
    "pick_results",
    "quality_results",
    "verdicts",
    "frame_sets",
    "scanned_folders",
)
_STEPS = ("align", "ctf", "pick", "preview")


@dataclass(frozen=True, slots=True)
class Planted:
    """Sessions by their ids, each with the number of its exposures; the first is the big one."""

    sessions: tuple[tuple[UUID, int], ...]
    exposures: int


@dataclass(frozen=True, slots=True)
class _Words:
    """How a database says what differs: numbers from one to before another, such a number divided, a number in
    hexadecimal, a digest, bytes, texts laid together, a time of a number of milliseconds since 1970."""

    numbers: str
    divided: Callable[[int], str]
    hexadecimal: Callable[[str, int], str]
    digest: Callable[[str], str]
    path: Callable[[str], str]
    join: Callable[..., str]
    time: Callable[[str], str]


_SQLITE = _Words(
    numbers="WITH RECURSIVE seq(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM seq WHERE n + 1 < {end}) ",
    divided=lambda by: f"n / {by}",
    hexadecimal=lambda value, digits: f"printf('%0{digits}x', {value})",
    digest=lambda text: f"sha256({text})",
    path=lambda text: f"CAST({text} AS BLOB)",
    join=lambda *parts: f"printf('{'%s' * len(parts)}', {', '.join(parts)})",
    time=lambda ms: f"strftime('%Y-%m-%d %H:%M:%f000', ({ms}) / 1000.0, 'unixepoch')",
)
_MARIADB = _Words(
    numbers="",
    divided=lambda by: f"n DIV {by}",
    hexadecimal=lambda value, digits: f"LPAD(LOWER(HEX({value})), {digits}, '0')",
    digest=lambda text: f"UNHEX(SHA2({text}, 256))",
    path=lambda text: text,
    join=lambda *parts: "CONCAT(" + ", ".join(parts) + ")",
    time=lambda ms: f"DATE_ADD('1970-01-01', INTERVAL ({ms}) * 1000 MICROSECOND)",
)


def plant(
    url: str,
    exposures: int,
    *,
    per_session: int = EXPOSURES_PER_SESSION,
    told: Callable[[str], None] = lambda _: None,
) -> Planted:
    """Fill an empty database; where one is filled for as many exposures, whole or in part, go on with it."""
    engine.upgrade(url)
    catalog = engine.open_catalog(url, SITE)
    try:
        for store in STORES:
            stores.enrol(catalog, name=store, tier=Tier.LIVE if store == "live" else Tier.ARCHIVE, url=f"/{store}")
        sizes = session_sizes(exposures, per_session)
        made = tuple(
            (
                sessions.create(
                    catalog,
                    name=f"visit-{number}",
                    instrument_name="krios",
                    source_root="/camera",
                    folder=f"visit-{number}",
                    layout=Layout.EPU,
                ).id,
                size,
            )
            for number, size in enumerate(sizes)
        )
    finally:
        catalog.close()
    planted = Planted(made, exposures)
    _fill(url, planted, told)
    return planted


def session_sizes(exposures: int, per_session: int = EXPOSURES_PER_SESSION) -> list[int]:
    """How many exposures each session has."""
    sizes = [max(1, int(exposures * BIG_SHARE))]
    while (left := exposures - sum(sizes)) > 0:
        sizes.append(min(left, per_session))
    return sizes


def _fill(url: str, planted: Planted, told: Callable[[str], None]) -> None:
    opened = create_engine(url)
    words = _MARIADB
    if opened.dialect.name == "sqlite":
        words = _SQLITE
        event.listen(opened, "connect", _configure)
    else:
        event.listen(opened, "connect", _hasten)
    try:
        # The newest is now: what pages and forecasts ask for is of the last days.
        last_ms = int(time.time() * 1000)
        with opened.connect() as connection:
            known = connection.exec_driver_sql("SELECT count(*) FROM exposures").scalar() or 0
            if known > planted.exposures:
                raise SystemExit(f"{known:,} exposures are planted there: more than the {planted.exposures:,} wanted")
            if known:
                first = connection.exec_driver_sql("SELECT min(id) FROM exposures").scalar()
                last_ms = int(str(first)[:12], 16) + planted.exposures * _SPACING_MS
        before_ms = last_ms - planted.exposures * _SPACING_MS
        if known < planted.exposures and words is _MARIADB:
            _drop_indexes(opened)
        for session_id, first, end in _chunks(planted):
            if end <= known:
                continue
            with opened.begin() as connection:
                for statement in _statements(words, planted.exposures, before_ms, session_id, first, end):
                    connection.exec_driver_sql(statement.replace("%", "%%") if words is _MARIADB else statement)
            told(f"{end:,} of {planted.exposures:,} exposures")
        if words is _MARIADB:
            _make_indexes(opened, told)
        with opened.begin() as connection:
            _analyse(connection)
    finally:
        opened.dispose()


def _drop_indexes(opened: Engine) -> None:
    """Rows go into InnoDB several times as fast where no index is kept meanwhile, and no foreign key asks for one."""
    there = inspect(opened)
    with opened.begin() as connection:
        for table in _tables():
            keys = {key["name"] for key in there.get_foreign_keys(table.name)}
            for constraint in table.foreign_key_constraints:
                if constraint.name in keys:
                    connection.execute(DropConstraint(constraint))
        for table in _tables():
            indexes = {index["name"] for index in there.get_indexes(table.name)}
            for index in table.indexes:
                if index.name in indexes:
                    connection.execute(DropIndex(index))


def _make_indexes(opened: Engine, told: Callable[[str], None]) -> None:
    there = inspect(opened)
    for table in _tables():
        told(f"the rows; indexes of {table.name}")
        indexes = {index["name"] for index in there.get_indexes(table.name)}
        keys = {key["name"] for key in there.get_foreign_keys(table.name)}
        with opened.begin() as connection:
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                if index.name not in indexes:
                    connection.execute(CreateIndex(index))
            for constraint in table.foreign_key_constraints:
                if constraint.name not in keys:
                    connection.execute(AddConstraint(constraint))


def _tables() -> list[Table]:
    return [Base.metadata.tables[name] for name in _FILLED]


def _configure(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    connection.create_function("sha256", 1, _digest)
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA cache_size=-200000")


def _hasten(connection: Any, _entry: ConnectionPoolEntry) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION foreign_key_checks = 0, unique_checks = 0")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _analyse(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        return  # Coldchain never has SQLite take statistics
    for table in _FILLED:
        connection.exec_driver_sql(f"ANALYZE TABLE {table}")


def _chunks(planted: Planted) -> Iterator[tuple[UUID, int, int]]:
    """Session, first exposure's number, and that after the last."""
    start = 0
    for session_id, size in planted.sessions:
        for first in range(start, start + size, _AT_ONCE):
            yield session_id, first, min(first + _AT_ONCE, start + size)
        start += size


def _statements(words: _Words, exposures: int, before_ms: int, session_id: UUID, first: int, end: int) -> Iterator[str]:
    """What fills one chunk. `n` numbers exposures, files, copies and runs of the whole catalog."""
    newest = exposures - max(1, int(exposures * NEWEST_SHARE))
    join, path, digest = words.join, words.path, words.digest

    def key(kind: int, number: str, per_exposure: int = 1) -> str:
        at = f"{before_ms} + ({number}) * {_SPACING_MS // per_exposure}"
        return join(words.hexadecimal(at, 12), f"'70008{kind:03x}'", words.hexadecimal(number, 12))

    def insert(table: str, per_exposure: int, values: dict[str, str], only: str = "") -> str:
        begin, stop = first * per_exposure, end * per_exposure
        numbers = words.numbers.format(first=begin, end=stop)
        source = "seq" if numbers else f"(SELECT seq AS n FROM seq_{begin}_to_{stop - 1}) AS numbers"
        columns = {"site": f"'{SITE}'"} | values
        chosen = f"{', '.join(columns.values())} FROM {source}{only and ' WHERE '}{only}"
        return f"INSERT INTO {table} ({', '.join(columns)}) {numbers}SELECT {chosen}"

    session = f"'{session_id.hex}'"
    per = FILES_PER_EXPOSURE
    exposure_of_file, exposure_of_run = words.divided(per), words.divided(len(_STEPS))
    file_of_copy, exposure_of_copy = words.divided(len(STORES)), words.divided(per * len(STORES))
    name = join("'Images-Disc1/GridSquare_'", f"{exposure_of_file}", "'/FoilHole_'", "n", "'.tiff'")
    exposure_name = join("'Images-Disc1/GridSquare_'", "n", "'/FoilHole_'", "n")

    def at(number: str, per_exposure: int = 1) -> str:
        return words.time(f"{before_ms} + ({number}) * {_SPACING_MS // per_exposure}")

    yield insert(
        "exposures",
        1,
        {
            "id": key(1, "n"),
            "session_id": session,
            "name": path(exposure_name),
            "name_digest": digest(exposure_name),
            "grid_square": join("'square '", "n % 50"),
            "foil_hole": join("'hole '", "n % 1000"),
            "details": '\'{"source": "epu"}\'',
            "input_file_id": key(2, f"n * {per}", per),
            "state": f"CASE WHEN n >= {newest} THEN 'ready' WHEN n % 200 = 0 THEN 'quarantined' "
            "WHEN n % 500 = 1 THEN 'waiting' ELSE 'done' END",
            "reason": "CASE WHEN n % 200 = 0 THEN 'the movie is truncated' ELSE '' END",
            "found_at": at("n"),
            "stem_digest": digest(join("'foilhole_'", "n")),
        },
    )
    yield insert(
        "files",
        per,
        {
            "id": key(2, "n", per),
            "session_id": session,
            "exposure_id": f"CASE WHEN n % 1000 = 999 THEN NULL ELSE {key(1, exposure_of_file)} END",
            "relative_path": path(name),
            "path_digest": digest(name),
            "kind": f"CASE n % {per} WHEN 0 THEN 'movie' WHEN 1 THEN 'metadata' ELSE 'other' END",
            "size_bytes": f"CASE n % {per} WHEN 0 THEN 600000000 ELSE 10000 END",
            "modified_ns": join("''", "1700000000000000000"),
            "state": "'arrived'",
            "sha256": f"'{'ab' * 32}'",
            "detail": "''",
            "arrived_at": at("n", per),
        },
    )
    copied = f"(n % 2 = 0 OR {exposure_of_copy} < {newest})"
    yield insert(
        "replicas",
        per * 2,
        {
            "id": key(3, "n", per * 2),
            "file_id": key(2, file_of_copy, per),
            "store": f"CASE n % 2 WHEN 0 THEN '{STORES[0]}' ELSE '{STORES[1]}' END",
            "state": f"CASE WHEN {copied} THEN 'verified' ELSE 'wanted' END",
            "pending": f"CASE WHEN {copied} THEN 0 ELSE 1 END",
            "level": f"CASE WHEN {copied} THEN 'medium' END",
            "sha256": f"CASE WHEN {copied} THEN '{'ab' * 32}' END",
            "attempts": "1",
            "detail": "''",
            "verified_at": at("n", per * 2),
            "checked_at": at("n", per * 2),
            "priority": f"CASE n % {per * 2} WHEN 0 THEN 50 WHEN 1 THEN 50 ELSE 40 END",
            "size_bytes": f"CASE WHEN n % {per * 2} < 2 THEN 600000000 ELSE 10000 END",
        },
    )
    yield insert(
        "events",
        per,
        {
            "id": key(4, "n", per),
            "at": at("n", per),
            "severity": "CASE WHEN n % 1000 = 7 THEN 'error' WHEN n % 100 = 3 THEN 'warning' ELSE 'info' END",
            "kind": "'file.arrived'",
            "message": join(name, "' (movie) is arrived'"),
            "session_id": session,
            "exposure_id": f"CASE WHEN n % 1000 = 999 THEN NULL ELSE {key(1, exposure_of_file)} END",
            "file_id": key(2, "n", per),
        },
    )
    step = "CASE n % 4 " + " ".join(f"WHEN {i} THEN '{step}'" for i, step in enumerate(_STEPS)) + " END"
    is_done = f"{exposure_of_run} < {newest}"
    yield insert(
        "step_runs",
        len(_STEPS),
        {
            "id": key(5, "n", len(_STEPS)),
            "exposure_id": key(1, exposure_of_run),
            "step": step,
            "`key`": join("'key '", "n"),
            "parameters": "'{}'",
            "state": f"CASE WHEN {is_done} THEN 'done' ELSE 'failed' END",
            "outputs": "'{}'",
            "seconds": "1.5",
            "detail": "''",
            "started_at": at("n", len(_STEPS)),
            "ended_at": at("n", len(_STEPS)),
        },
    )
    yield insert(
        "motion_results",
        1,
        {
            "id": key(6, "n"),
            "run_id": key(5, "n * 4", len(_STEPS)),
            "shift_x_angstrom": "'[0.0, 1.0]'",
            "shift_y_angstrom": "'[0.0, 1.0]'",
            "total_motion_angstrom": "9.0 + n % 10",
            "early_motion_angstrom": "4.0",
            "late_motion_angstrom": "5.0",
            "dose_weighted": "1",
        },
    )
    yield insert(
        "ctf_results",
        1,
        {
            "id": key(7, "n"),
            "run_id": key(5, "n * 4 + 1", len(_STEPS)),
            "defocus_u_angstrom": "15000.0 + n % 1000",
            "defocus_v_angstrom": "14800.0 + n % 1000",
            "defocus_angle_degrees": "30.0",
            "phase_shift_degrees": "0.0",
            "score": "0.2",
            "fit_resolution_angstrom": "3.0 + n % 5",
            "ice_ring_density": "1.0",
            "uncertainty_angstrom": "40.0",
            "trustworthy": "1",
            "reason": "''",
        },
    )
    yield insert(
        "pick_results",
        1,
        {
            "id": key(8, "n"),
            "run_id": key(5, "n * 4 + 2", len(_STEPS)),
            "diameter_angstrom": "120.0",
            "count": "n % 300",
            "picks": "'[]'",
        },
    )
    yield insert(
        "verdicts",
        1,
        {
            "id": key(9, "n"),
            "session_id": session,
            "exposure_id": key(1, "n"),
            "stands": "1",
            "grade": "CASE n % 10 WHEN 0 THEN 'bad' WHEN 1 THEN 'doubtful' ELSE 'good' END",
            "reasons": "'[]'",
            "measures": "'{}'",
            "judged_at": at("n"),
        },
    )
    yield insert(
        "quality_results",
        1,
        {"id": key(10, "n"), "run_id": key(5, "n * 4 + 3", len(_STEPS)), "transmission": "0.7", "unevenness": "0.1"},
    )
    yield insert(
        "frame_sets",
        1,
        {
            "id": key(11, "n"),
            "session_id": session,
            "stem_digest": digest(join("'frame_'", "n")),
            "movie": path(join("'frame_'", "n")),
            "described_in": path("'all.mdoc'"),
            "details": "'{}'",
            "waiting": "CASE WHEN n % 100 = 0 THEN 1 ELSE 0 END",
            "found_at": at("n"),
        },
        only="n % 10 = 0",
    )
    yield insert(
        "scanned_folders",
        1,
        {
            "id": key(12, "n"),
            "root_digest": digest("'/camera'"),
            "folder": path(join("'folder '", "n")),
            "folder_digest": digest(join("'folder '", "n")),
            "modified_ns": join("''", "1700000000000000000"),
            "changed_ns": join("''", "1700000000000000000"),
        },
        only="n % 10 = 0",
    )
