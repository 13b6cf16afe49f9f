"""`coldchain session import`: sessions that were taken before, or by Leginon."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from coldchain import config
from coldchain.catalog.engine import open_catalog
from coldchain.catalog.leginon.appion import AppionReader
from coldchain.catalog.leginon.images import OVERVIEW_PRESETS, ImageReader
from coldchain.catalog.leginon.server import LeginonServer
from coldchain.catalog.leginon.sessions import find_session, list_sessions
from coldchain.cli.console import DEFAULT_CONFIG, ConfigOption, JsonOption, errors, output, plain, print_json
from coldchain.cli.signals import stop_on_signals
from coldchain.collect.completeness import Timing
from coldchain.collect.folder_import import FolderImport
from coldchain.collect.import_report import ImportReport
from coldchain.collect.import_target import ImportTarget
from coldchain.collect.leginon_import import LeginonImport
from coldchain.collect.path_map import PathMap
from coldchain.config import InstrumentSection, Settings
from coldchain.errors import UsageError, printable
from coldchain.model.leginon import LeginonSession
from coldchain.model.session import Layout
from coldchain.notify.secret import Secret

PASSWORD_VARIABLE = "COLDCHAIN_LEGINON_PASSWORD"  # noqa: S105  # its name
URL_VARIABLE = "COLDCHAIN_LEGINON_URL"
_MOST_SHOWN = 20

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
    server = LeginonServer(url, _password(password_file))
    try:
        if session is None:
            _show_list(list_sessions(server, project_database=project_database), json)
            return
        found = find_session(server, session, project_database=project_database)
        images = ImageReader(server, found, overviews=overview or OVERVIEW_PRESETS)
        results = None if without_results else AppionReader(server, found, project_database=project_database)
        settings = config.load(config_file)
        mapped = PathMap(path_map or [])
        section = _instrument(settings, instrument, _folders(found, mapped))
        catalog = open_catalog(settings.catalog.url, settings.facility.site, settings.facility.name)
        try:
            with _bar(found.images) as advance:
                job = LeginonImport(
                    catalog,
                    found,
                    images,
                    results,
                    target=_target(settings, section),
                    path_map=mapped,
                    timing=Timing(settle_seconds=section.settle_seconds, patience_seconds=section.patience_seconds),
                    advance=advance,
                )
                _refuse_own_places(settings, job.folder)
                if dry_run:
                    job.survey()
                elif not follow:
                    job.run()
            if follow:
                _follow(job, every)
        finally:
            catalog.close()
    finally:
        server.close()
    _finish(job.report, json, dry_run=dry_run)


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
    settings = config.load(config_file)
    folders = [_existing(each) for each in (path, *(metadata or []))]
    section = _instrument(settings, instrument, folders)
    for each in folders:
        _refuse_own_places(settings, each)
    catalog = open_catalog(settings.catalog.url, settings.facility.site, settings.facility.name)
    try:
        job = FolderImport(
            catalog,
            folders[0],
            metadata=folders[1:],
            target=_target(settings, section),
            layout=layout,
            settle_seconds=section.settle_seconds,
        )
        count = job.survey()
        with _bar(count) as advance:
            if not dry_run:
                job.run(name=name, project=project, owner=owner or "", mail=mail or "", advance=lambda _: advance())
    finally:
        catalog.close()
    if dry_run:
        job.report.notes.insert(0, f"{count:,} files are there")
    _finish(job.report, json, dry_run=dry_run)


def _password(file: Path | None) -> str | None:
    """The password of the file, or else of the environment; None: that of the URL."""
    if file is not None:
        return Secret("--password-file", file=file).read()
    if PASSWORD_VARIABLE in os.environ:
        return Secret(PASSWORD_VARIABLE, variable=PASSWORD_VARIABLE).read()
    return None


def _folders(session: LeginonSession, path_map: PathMap) -> list[Path]:
    mapped = [path_map.here(path) for path in (session.frame_path, session.image_path) if path]
    return [Path(path) for path in mapped if path is not None]


def _instrument(settings: Settings, name: str | None, folders: list[Path]) -> InstrumentSection:
    """The instrument that is named, else the one below whose roots a folder lies, else the only one."""
    if name is not None:
        return settings.instrument_named(name)
    for section in settings.instrument:
        if any(root in folder.parents for root in (section.movie_root, *section.metadata_roots) for folder in folders):
            return section
    if len(settings.instrument) != 1:
        known = ", ".join(section.name for section in settings.instrument) or "none"
        raise UsageError(
            "it cannot be told which instrument took it", expected=f"one of: {known}", remedy="Give --instrument"
        )
    return settings.instrument[0]


def _target(settings: Settings, section: InstrumentSection) -> ImportTarget:
    return ImportTarget(
        section.name, section.movie_root, section.metadata_roots, settings.copy_plan(), settings.results.folder
    )


def _existing(path: Path) -> Path:
    """The folder's real path; a session in a root, or in a link's target, is the same by any name."""
    found = path.absolute()
    if not found.is_dir():
        raise UsageError("there is no such folder", remedy="Name one that is there", path=path)
    found = found.parent.resolve() / found.name if found.name not in ("..", "") else found.resolve()
    if found.is_symlink():
        found = found.resolve()
    if found.parent == found:
        raise UsageError("the root of all is no session's folder", remedy="Name a folder in it", path=path)
    return found


def _refuse_own_places(settings: Settings, folder: Path) -> None:
    """Raise UsageError where a folder holds what this facility itself writes: copies would be taken for new data."""
    own = {f"store {store.name}": store.folder for store in settings.store if store.folder is not None}
    own["the results"] = settings.results.folder
    real = folder.resolve()
    for what, place in own.items():
        where = place.resolve()
        if real == where or where in real.parents or real in where.parents:
            raise UsageError(
                f"the folder and that of {what} overlap ({printable(str(where))})",
                expected="a folder of a camera's files",
                remedy="Import it from where the camera wrote it",
                path=folder,
            )


@contextmanager
def _bar(count: int) -> Iterator[Callable[[], None]]:
    """A bar where somebody looks; gives what moves it on by one."""
    if not errors.is_terminal:
        yield lambda: None
        return
    from rich.progress import Progress

    with Progress(console=errors, transient=True) as bars:
        task = bars.add_task("importing", total=count or None)
        yield lambda: bars.advance(task)


def _follow(job: LeginonImport, every: float) -> None:
    """Go on until a signal; a line for each look that brought something."""

    def told(report: ImportReport) -> None:
        errors.print(f"{printable(report.session)}: {_counted(report)}", markup=False, highlight=False)

    with stop_on_signals() as stopping:
        job.follow(stopping, every_seconds=every, told=told)


def _show_list(found: list[LeginonSession], json: bool) -> None:
    if json:
        print_json(found)
        return
    table = Table("session", "taken", "project", "owner", "images", Column("image path", overflow="fold"))
    for session in found:
        taken = "" if session.created_at is None else f"{session.created_at:%Y-%m-%d %H:%M} UTC"
        words = (session.name, taken, session.project, session.owner_name)
        table.add_row(*map(plain, words), f"{session.images:,}", plain(session.image_path))
    output.print(table)


def _counted(report: ImportReport) -> str:
    files = report.files
    return (
        f"{report.exposures:,} exposures new, {report.described:,} described anew; files: {files.taken:,} taken, "
        f"{files.known:,} known, {files.damaged:,} damaged; {report.results:,} of Appion's results"
    )


def _finish(report: ImportReport, json: bool, *, dry_run: bool) -> None:
    if json:
        print_json(dataclasses.asdict(report))
    else:
        _show(report, dry_run=dry_run)
    if not report.is_clean:
        raise typer.Exit(1)


def _show(report: ImportReport, *, dry_run: bool) -> None:
    def say(line: str) -> None:
        output.print(line, markup=False, highlight=False, soft_wrap=True)

    say(f"{printable(report.session)} in {printable(report.folder)}")
    if report.images:
        shown = report.images - report.overviews - report.aligned - report.unusable
        say(
            f"{report.images:,} images: {shown:,} of exposures, {report.overviews:,} overviews, {report.aligned:,} sums"
        )
    if not dry_run:
        say(_counted(report))
    waiting = [(report.awaited_frames, "frames"), (report.awaited_images, "images")]
    for count, what in waiting:
        if count:
            say(f"{count:,} {what} are not there (yet)")
    for gain in report.awaited_gains:
        say(f"the gain reference {gain} is not there (yet): exposures wait for it")
    for line in [*report.kinds(), *report.notes, *report.files.faults[:_MOST_SHOWN]]:
        say(printable(line))
    if (more := len(report.files.faults) - _MOST_SHOWN) > 0:
        say(f"{more:,} more files; --json has them all")
