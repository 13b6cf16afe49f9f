"""`coldchain session import`: sessions that were taken before, or by Leginon."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coldchain.cli.console import DEFAULT_CONFIG, ConfigOption, JsonOption
from coldchain.errors import UsageError
from coldchain.model.session import Layout

PASSWORD_VARIABLE = "COLDCHAIN_LEGINON_PASSWORD"  # noqa: S105  # its name
URL_VARIABLE = "COLDCHAIN_LEGINON_URL"

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Import a session that is there already: Leginon's, or a folder of EPU's, SerialEM's or anybody's.",
)

InstrumentOption = Annotated[
    str | None,
    typer.Option("--instrument", help="As facility.toml names it [the one in whose folders it lies, or the only one]."),
]


@app.command()
def leginon(
    session: Annotated[str | None, typer.Argument(help="Leginon's name of the session.")] = None,
    url: Annotated[
        str | None,
        typer.Option("--url", envvar=URL_VARIABLE, help="mysql+pymysql://USER@HOST/leginondb", show_envvar=True),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option("--password-file", help=f"Holds the password; or set {PASSWORD_VARIABLE}."),
    ] = None,
    path_map: Annotated[
        list[str] | None, typer.Option("--path-map", help="OLD=NEW: Leginon's OLD is NEW on this host. Repeatable.")
    ] = None,
    instrument: InstrumentOption = None,
    overview: Annotated[
        list[str] | None,
        typer.Option("--overview", help="A preset whose images show where, not what [gr, sq, hl, fc, fa]. Repeatable."),
    ] = None,
    project_database: Annotated[
        str | None, typer.Option("--project-database", help="The database of the projects [projectdb].")
    ] = None,
    without_results: Annotated[bool, typer.Option("--without-results", help="Leave Appion's results alone.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what comes, until Ctrl-C or SIGTERM.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.1, help="With --follow: seconds between looks.")] = 5.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be imported; write nothing.")] = False,
    list_them: Annotated[bool, typer.Option("--list", help="List Leginon's sessions instead.")] = False,
    json: JsonOption = False,
    config_file: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Import a session of Leginon's with its exposures, files and Appion's results. Leginon's database is only read.

    Doing it again brings what has come since, and nothing twice.

    Example: coldchain session import leginon --url mysql+pymysql://reader@db/leginondb --path-map /mydata=/mnt 24mar28a
    """
    if url is None:
        raise UsageError("--url is not given", expected="mysql+pymysql://USER@HOST/leginondb", remedy="Give it")
    if (session is None) != list_them or (follow and dry_run):
        raise UsageError(
            "that is not one thing to do",
            expected="a session's name, with --follow or --dry-run if wanted, or --list",
            remedy="See `coldchain session import leginon --help`",
        )
    from coldchain.cli import session_import_jobs as jobs  # with it comes the compiler of the kernels: a second

    jobs.import_leginon(
        jobs.LeginonRequest(
            session=session,
            url=url,
            password_file=password_file,
            path_map=tuple(path_map or ()),
            instrument=instrument,
            overviews=frozenset(overview or ()),
            project_database=project_database,
            with_results=not without_results,
            follow_seconds=every if follow else None,
            dry_run=dry_run,
            json=json,
            config_file=config_file,
        )
    )


@app.command()
def folder(
    path: Annotated[Path, typer.Argument(help="The session's folder.")],
    instrument: InstrumentOption = None,
    metadata: Annotated[
        list[Path] | None,
        typer.Option("--metadata", help="Another folder of the session's files, laid out like it. Repeatable."),
    ] = None,
    layout: Annotated[
        Layout | None, typer.Option("--layout", help="How its files lie [as they tell].", case_sensitive=False)
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The session's name [the folder's].")] = None,
    project: Annotated[str | None, typer.Option("--project", help="The project it belongs to.")] = None,
    owner: Annotated[str | None, typer.Option("--owner", help="Whose session it is.")] = None,
    mail: Annotated[str | None, typer.Option("--mail", help="The owner's mail address.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many files there are; write nothing.")] = False,
    json: JsonOption = False,
    config_file: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Import a folder that is there already as one session: EPU's, SerialEM's, Leginon's or a plain one.

    Its files are journalled where they lie, copied and computed like those that arrive. Doing it again brings what has
    come since, and nothing twice.

    Example: coldchain session import folder /mnt/old/visit-17 --instrument krios1
    """
    from coldchain.cli import session_import_jobs as jobs  # as above

    jobs.import_folder(
        jobs.FolderRequest(
            folder=path,
            instrument=instrument,
            metadata=tuple(metadata or ()),
            layout=layout,
            name=name,
            project=project,
            owner=owner or "",
            mail=mail or "",
            dry_run=dry_run,
            json=json,
            config_file=config_file,
        )
    )
