"""The sessions of a Leginon database, with their users and projects."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from sqlalchemy import Connection, func, select

from coldchain.catalog.leginon.server import LeginonServer, Row, SourceTable, equals, is_in, read_rows, rows_by_id
from coldchain.catalog.leginon.values import moment, text, whole, words
from coldchain.errors import CatalogError, printable
from coldchain.model.leginon import LeginonSession

_PROJECT_TABLES = ("projects", "projectexperiments")
_USUAL_PROJECT_DATABASE = "projectdb"
_FRAMES, _IMAGES = "frames", "leginon"
_AT_ONCE = 500


def list_sessions(server: LeginonServer, *, project_database: str | None = None) -> list[LeginonSession]:
    """All sessions, newest first; those that Leginon hides are left out. Raises CatalogError."""
    with server.reading() as connection:
        table = _session_table(server, connection)
        rows = read_rows(connection, table, _columns(table))
        found = _described(server, connection, [row for row in rows if not whole(row.get("hidden"))], project_database)
    return sorted(found, key=lambda session: session.id, reverse=True)


def find_session(server: LeginonServer, name: str, *, project_database: str | None = None) -> LeginonSession:
    """The session of that name; the newest, should several bear it. Raises CatalogError."""
    with server.reading() as connection:
        table = _session_table(server, connection)
        rows = read_rows(connection, table, _columns(table), where=[equals(table, "name", name)])
        if not rows:
            raise _unknown(name, [text(row.get("name")) for row in read_rows(connection, table, ["name"])])
        return _described(server, connection, rows[-1:], project_database)[0]


def frame_path_from(image_path: str) -> str:
    """Where Leginon keeps frames of a session whose images lie in `image_path`: the last "leginon" of the path is
    "frames" there; "" where it has none."""
    before, found, after = image_path.rpartition(_IMAGES)
    return f"{before}{_FRAMES}{after}" if found else ""


def _session_table(server: LeginonServer, connection: Connection) -> SourceTable:
    table = server.table(connection, "SessionData")
    lacking = "SessionData" if table is None else None if "name" in table.columns else "SessionData.name"
    if table is None or lacking:
        raise CatalogError(
            f"{server.shown} is no database of Leginon's: it lacks {lacking}",
            expected="a database with Leginon's tables that this user may read",
            remedy="Check the name after the last slash, and this user's permissions",
        )
    return table


def _columns(table: SourceTable) -> list[str | None]:
    return [
        "DEF_timestamp",
        "name",
        "comment",
        "hidden",
        "image path",
        "frame path",
        table.reference("user", "UserData"),
    ]


def _described(
    server: LeginonServer, connection: Connection, rows: Sequence[Row], project_database: str | None
) -> list[LeginonSession]:
    table = _session_table(server, connection)
    of_user = table.reference("user", "UserData")
    user_ids = [user for row in rows if (user := whole(row.get(of_user or ""))) is not None]
    # Nothing else of a user is read: there are passwords in that table.
    names = ["username", "firstname", "lastname", "full name", "email"]
    users = rows_by_id(connection, server.table(connection, "UserData"), user_ids, names)
    ids = [int(row["DEF_id"]) for row in rows]
    projects = _projects(server, connection, ids, project_database)
    counts = _image_counts(server, connection, ids)
    return [
        _session(row, users.get(whole(row.get(of_user or "")) or 0, {}), projects, counts.get(int(row["DEF_id"]), 0))
        for row in rows
    ]


def _session(row: Row, user: Row, projects: dict[int, tuple[int, str]], images: int) -> LeginonSession:
    session_id, image_path = int(row["DEF_id"]), text(row.get("image path"))
    full = words(user.get("full name")) or f"{words(user.get('firstname'))} {words(user.get('lastname'))}".strip()
    project_id, project = projects.get(session_id, (None, ""))
    return LeginonSession(
        id=session_id,
        name=text(row.get("name")),
        created_at=moment(row.get("DEF_timestamp")),
        comment=words(row.get("comment")),
        image_path=image_path,
        frame_path=text(row.get("frame path")) or frame_path_from(image_path),
        owner_name=full or words(user.get("username")),
        owner_mail=words(user.get("email")),
        project_id=project_id,
        project=project,
        images=images,
    )


def project_database_of(server: LeginonServer, connection: Connection, wanted: str | None) -> str | None:
    """The database of the projects: the one that is named, else the usual one, else the only one that looks like it."""
    found = server.databases_with(connection, *_PROJECT_TABLES)
    if wanted is not None:
        if wanted not in found:
            known = ", ".join(found) or "none"
            raise CatalogError(f"{printable(wanted)} is no database of projects", expected=f"one of: {known}")
        return wanted
    return _USUAL_PROJECT_DATABASE if _USUAL_PROJECT_DATABASE in found else found[0] if len(found) == 1 else None


def _projects(
    server: LeginonServer, connection: Connection, session_ids: Sequence[int], wanted: str | None
) -> dict[int, tuple[int, str]]:
    """By session, the id and the name of its project; the last one that it was put in."""
    database = project_database_of(server, connection, wanted)
    table = None if database is None else server.table(connection, "projectexperiments", database)
    project = None if table is None else table.reference("project", "projects")
    session = None if table is None else table.reference("session", "SessionData")
    if database is None or table is None or project is None or session is None:
        return {}
    project_of: dict[int, int] = {}
    for start in range(0, len(session_ids), _AT_ONCE):
        within = is_in(table, session, session_ids[start : start + _AT_ONCE])
        for row in read_rows(connection, table, [project, session], where=[within]):
            if (its := whole(row[project])) is not None:
                project_of[int(row[session])] = its
    names = rows_by_id(connection, server.table(connection, "projects", database), project_of.values(), ["name"])
    return {
        session_id: (its, words(names[its].get("name")) or f"project {its}")
        for session_id, its in project_of.items()
        if its in names
    }


def _image_counts(server: LeginonServer, connection: Connection, session_ids: Sequence[int]) -> dict[int, int]:
    table = server.table(connection, "AcquisitionImageData")
    session = None if table is None else table.reference("session", "SessionData")
    if table is None or session is None:
        return {}
    counts: dict[int, int] = {}
    for start in range(0, len(session_ids), _AT_ONCE):
        its = table.table.c[session]
        query = select(its, func.count()).where(is_in(table, session, session_ids[start : start + _AT_ONCE]))
        counts |= {int(found): int(count) for found, count in connection.execute(query.group_by(its))}
    return counts


def _unknown(name: str, names: Sequence[str]) -> CatalogError:
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f"The nearest is {printable(nearest[0])!r}" if nearest else "Run it with --list"
    return CatalogError(f"Leginon has no session named {printable(name)!r}", remedy=hint)
