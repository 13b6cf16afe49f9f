"""What `coldchain session import` does, once its options are read."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.progress import Progress
from rich.table import Column, Table

from coldchain import config
from coldchain.catalog.engine import Catalog, open_catalog
from coldchain.catalog.leginon.appion import AppionReader
from coldchain.catalog.leginon.images import OVERVIEW_PRESETS, ImageReader
from coldchain.catalog.leginon.server import LeginonServer
from coldchain.catalog.leginon.sessions import find_session, list_sessions
from coldchain.cli.console import errors, output, plain, print_json
from coldchain.cli.session_import import PASSWORD_VARIABLE
from coldchain.cli.signals import stop_on_signals
from coldchain.collect.completeness import Timing
from coldchain.collect.folder_import import FolderImport
from coldchain.collect.import_report import ImportReport
from coldchain.collect.import_target import ImportTarget, place_of
from coldchain.collect.leginon_import import LeginonImport
from coldchain.collect.path_map import PathMap
from coldchain.config import InstrumentSection, Settings
from coldchain.errors import UsageError, printable
from coldchain.model.leginon import LeginonSession
from coldchain.model.session import Layout
from coldchain.notify.secret import Secret

_MOST_SHOWN = 20


@dataclass(frozen=True, slots=True)
class LeginonRequest:
    """What was asked for: a session to import, or with None a list of them. `follow_seconds` is None for one pass;
    `overviews` are empty for the usual ones."""

    session: str | None
    url: str
    password_file: Path | None
    path_map: tuple[str, ...]
    instrument: str | None
    overviews: frozenset[str]
    project_database: str | None
    with_results: bool
    follow_seconds: float | None
    dry_run: bool
    json: bool
    config_file: Path


@dataclass(frozen=True, slots=True)
class FolderRequest:
    """What was asked for: a folder to import, and what its session is to be called."""

    folder: Path
    instrument: str | None
    metadata: tuple[Path, ...]
    layout: Layout | None
    name: str | None
    project: str | None
    owner: str
    mail: str
    dry_run: bool
    json: bool
    config_file: Path


def import_leginon(asked: LeginonRequest) -> None:
    """Import a session of Leginon's, or list them."""
    with closing(LeginonServer(asked.url, _password(asked.password_file))) as server:
        if asked.session is None:
            _show_list(list_sessions(server, project_database=asked.project_database), asked.json)
            return
        session = find_session(server, asked.session, project_database=asked.project_database)
        settings = config.load(asked.config_file)
        with _opened(settings) as catalog, _bar(session.images) as advance:
            job = _leginon_job(asked, server, session, settings, catalog, advance)
            if asked.dry_run:
                job.survey()
            elif asked.follow_seconds is None:
                job.run()
            else:
                _follow(job, asked.follow_seconds)
    _finish(job.report, asked.json, dry_run=asked.dry_run)


def import_folder(asked: FolderRequest) -> None:
    """Import a folder."""
    settings = config.load(asked.config_file)
    folders = [_existing(each) for each in (asked.folder, *asked.metadata)]
    section = _instrument(settings, asked.instrument, folders)
    for each in folders:
        _refuse_own_places(settings, each)
    with _opened(settings) as catalog:
        job = FolderImport(
            catalog,
            folders[0],
            metadata=folders[1:],
            target=_target(settings, section),
            layout=asked.layout,
            settle_seconds=section.settle_seconds,
        )
        count = job.survey()
        if asked.dry_run:
            job.report.notes.insert(0, f"{count:,} files are there")
        else:
            with _bar(count) as advance:
                job.run(
                    name=asked.name,
                    project=asked.project,
                    owner=asked.owner,
                    mail=asked.mail,
                    advance=lambda _path: advance(),
                )
    _finish(job.report, asked.json, dry_run=asked.dry_run)


def _leginon_job(
    asked: LeginonRequest,
    server: LeginonServer,
    session: LeginonSession,
    settings: Settings,
    catalog: Catalog,
    advance: Callable[[], None],
) -> LeginonImport:
    path_map = PathMap(asked.path_map)
    section = _instrument(settings, asked.instrument, _folders(session, path_map))
    results = AppionReader(server, session, project_database=asked.project_database) if asked.with_results else None
    job = LeginonImport(
        catalog,
        session,
        ImageReader(server, session, overviews=asked.overviews or OVERVIEW_PRESETS),
        results,
        target=_target(settings, section),
        path_map=path_map,
        timing=Timing(settle_seconds=section.settle_seconds, patience_seconds=section.patience_seconds),
        advance=advance,
    )
    _refuse_own_places(settings, job.folder)
    return job


@contextmanager
def _opened(settings: Settings) -> Iterator[Catalog]:
    with closing(open_catalog(settings.catalog.url, settings.facility.site, settings.facility.name)) as catalog:
        yield catalog


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
        roots = (section.movie_root, *section.metadata_roots)
        if any(place_of(folder, roots)[0] in roots for folder in folders):
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
    results = f"; {report.results:,} of Appion's results" if report.images else ""
    return (
        f"{report.exposures:,} exposures new, {report.described:,} described anew; files: {files.taken:,} taken, "
        f"{files.known:,} known, {files.damaged:,} damaged{results}"
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
