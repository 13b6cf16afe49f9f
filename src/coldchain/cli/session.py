"""`coldchain session`: a session's parameters and life."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer
from rich.table import Column, Table

from coldchain import config
from coldchain.catalog import orphans, sessions
from coldchain.catalog.engine import Catalog, open_catalog
from coldchain.cli import session_import
from coldchain.cli.console import DEFAULT_CONFIG, ConfigOption, JsonOption, output, plain, print_json, within
from coldchain.config import Settings
from coldchain.errors import UsageError
from coldchain.model import limits
from coldchain.model.identity import is_safe_relative
from coldchain.model.optics import Optics
from coldchain.model.session import Layout, Session, SessionParameters, SessionState

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Create, change, close, list, show and import sessions; list what lacks its partner.",
)
app.add_typer(session_import.app, name="import")

NameArgument = Annotated[str, typer.Argument(help="The session's name, or its id.")]
ProjectOption = Annotated[str | None, typer.Option("--project", help="The project it belongs to.")]
OwnerOption = Annotated[str | None, typer.Option("--owner", help="Whose session it is.")]
MailOption = Annotated[str | None, typer.Option("--mail", help="The owner's mail address.")]
PixelOption = Annotated[float | None, typer.Option("--pixel-size", help="Å, of the movie's own pixels.")]
DoseOption = Annotated[float | None, typer.Option("--dose", help="e⁻/Å² of a whole exposure.")]
VoltageOption = Annotated[float | None, typer.Option("--voltage", help="kV.")]
CsOption = Annotated[float | None, typer.Option("--cs", help="Spherical aberration in mm; 0 is legal.")]
ContrastOption = Annotated[float | None, typer.Option("--amplitude-contrast", help="From 0 to 1.")]
GainOption = Annotated[
    str | None, typer.Option("--gain", help="Gain reference: a file (of the session's folder, or any), or 'none'.")
]
DiameterOption = Annotated[float | None, typer.Option("--diameter", help="Particle diameter in Å.")]
ClearOption = Annotated[
    list[str] | None,
    typer.Option("--clear", help="Forget an override, so that the metadata counts again: pixel-size, dose, …"),
]

_OVERRIDES = {
    "pixel-size": "pixel_size_angstrom",
    "dose": "dose_e_per_square_angstrom",
    "voltage": "voltage_kilovolt",
    "cs": "spherical_aberration_millimeter",
    "amplitude-contrast": "amplitude_contrast",
    "gain": "gain",
}
_DIAMETER = "diameter"


@contextmanager
def _opened(config_file: Path) -> Iterator[tuple[Settings, Catalog]]:
    settings = config.load(config_file)
    catalog = open_catalog(settings.catalog.url, settings.facility.site, settings.facility.name)
    try:
        yield settings, catalog
    finally:
        catalog.close()


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="The session's name.")],
    instrument: Annotated[str, typer.Option("--instrument", help="As facility.toml names it.")],
    folder: Annotated[str | None, typer.Option("--folder", help="Its folder in the movie root [the name].")] = None,
    project: ProjectOption = None,
    owner: OwnerOption = None,
    mail: MailOption = None,
    pixel_size: PixelOption = None,
    dose: DoseOption = None,
    voltage: VoltageOption = None,
    cs: CsOption = None,
    amplitude_contrast: ContrastOption = None,
    gain: GainOption = None,
    diameter: DiameterOption = None,
    config_file: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Announce a session before its first file: what it is called, whose it is, how it is taken.

    Example: coldchain session create visit42 --instrument krios1 --project P7 --pixel-size 0.83 --dose 50
    """
    with _opened(config_file) as (settings, catalog):
        section = settings.instrument_named(instrument)
        where = _folder(folder or name)
        root = section.movie_root / where
        optics = _optics(pixel_size, dose, voltage, cs, amplitude_contrast, _gain(gain, root))
        session = sessions.create(
            catalog,
            name=name,
            instrument_name=instrument,
            source_root=str(section.movie_root),
            folder=where,
            layout=Layout.PLAIN,
            project_name=project,
            owner_name=owner or "",
            owner_mail=mail or "",
            parameters=SessionParameters(
                optics, within("--diameter", diameter, limits.PARTICLE_DIAMETER_ANGSTROM, "Å")
            ),
            only_new=True,
        )
    output.print(f"Created session {session.name}; its files are expected in {root}.", markup=False, highlight=False)


@app.command("set")
def set_parameters(
    name: NameArgument,
    project: ProjectOption = None,
    owner: OwnerOption = None,
    mail: MailOption = None,
    pixel_size: PixelOption = None,
    dose: DoseOption = None,
    voltage: VoltageOption = None,
    cs: CsOption = None,
    amplitude_contrast: ContrastOption = None,
    gain: GainOption = None,
    diameter: DiameterOption = None,
    clear: ClearOption = None,
    config_file: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Change a session. What depends on a changed parameter is computed again; the old results are kept.

    Example: coldchain session set visit42 --pixel-size 0.834 --diameter 150
    """
    with _opened(config_file) as (_, catalog):
        session = sessions.by_name(catalog, name)
        root = Path(session.source_root, session.folder)
        given = _optics(pixel_size, dose, voltage, cs, amplitude_contrast, _gain(gain, root))
        particle = within("--diameter", diameter, limits.PARTICLE_DIAMETER_ANGSTROM, "Å")
        forgotten = _known_overrides(clear or [])
        if given == Optics() and particle is None and not forgotten and project is owner is mail is None:
            raise UsageError("there is nothing to change", remedy="Give an option; see `coldchain session set --help`")
        sessions.update(catalog, session.id, project_name=project, owner_name=owner, owner_mail=mail)
        session = sessions.change_parameters(
            catalog, session.id, lambda before: _changed(before, given, particle, forgotten)
        )
    output.print(f"Changed session {session.name}.", markup=False, highlight=False)


@app.command()
def close(
    name: NameArgument,
    reopen: Annotated[bool, typer.Option("--reopen", help="Open it again instead.")] = False,
    released: Annotated[bool, typer.Option("--released", help="Its owner has the data: mark it released.")] = False,
    config_file: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Close a session: its visit is over. Files that arrive late are still taken.

    Example: coldchain session close visit42
    """
    if reopen and released:
        raise UsageError("--reopen and --released contradict each other", remedy="Give one of them.")
    state = SessionState.OPEN if reopen else SessionState.RELEASED if released else SessionState.CLOSED
    with _opened(config_file) as (_, catalog):
        session = sessions.by_name(catalog, name)
        if state is SessionState.RELEASED and session.state is SessionState.OPEN:
            raise UsageError(
                f"session {session.name} is still open",
                expected="a closed one",
                remedy=f"Close it first with `coldchain session close {session.shell_word}`.",
            )
        sessions.set_state(catalog, session.id, state)
    output.print(f"Session {session.name} is {state}.", markup=False, highlight=False)


@app.command()
def reprocess(
    name: NameArgument,
    only_quarantined: Annotated[bool, typer.Option("--quarantined", help="Only what was quarantined.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also what is done with the same parameters.")] = False,
    config_file: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Look at a session's exposures again: what failed is retried, what is out of date is computed anew.

    Example: coldchain session reprocess visit42 --quarantined
    """
    with _opened(config_file) as (_, catalog):
        session = sessions.by_name(catalog, name)
        count = sessions.reprocess(catalog, session.id, only_quarantined=only_quarantined, force=force)
    output.print(f"{count} exposure(s) of {session.name} will be looked at again.", markup=False, highlight=False)


@app.command("list")
def list_sessions(json: JsonOption = False, config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """List the sessions, newest first.

    Example: coldchain session list
    """
    with _opened(config_file) as (_, catalog):
        rows = [(s, sessions.counts(catalog, s.id)) for s in sessions.list_all(catalog)]
    if json:
        print_json([{"session": session, "counts": counts} for session, counts in rows])
        return
    table = Table("session", "state", "instrument", "exp.", "done", "waiting", "failed", "verified")
    for session, counts in rows:
        table.add_row(
            plain(session.name),
            session.state,
            plain(session.instrument.name),
            str(counts.exposures),
            str(counts.processed),
            str(counts.waiting),
            str(counts.quarantined + counts.files_failed),
            f"{counts.files_verified} of {counts.files_arrived}",
        )
    output.print(table)


@app.command()
def show(name: NameArgument, json: JsonOption = False, config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Show a session: its parameters, its life, its counters.

    Example: coldchain session show visit42 --json
    """
    with _opened(config_file) as (_, catalog):
        session = sessions.by_name(catalog, name)
        counts = sessions.counts(catalog, session.id)
    if json:
        print_json({"session": session, "counts": counts})
        return
    table = Table(show_header=False, title=plain(session.name), title_justify="left")
    for key, value in _facts(session):
        table.add_row(key, plain(value))
    for field in dataclasses.fields(counts):
        table.add_row(field.name.replace("_", " "), f"{getattr(counts, field.name):,}")
    output.print(table)


@app.command("orphans")
def list_orphans(
    name: NameArgument,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many to list at most.")] = 1000,
    json: JsonOption = False,
    config_file: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """List what has waited too long for its partner: metadata without a movie, movies that lack metadata.

    Example: coldchain session orphans visit42 --json
    """
    with _opened(config_file) as (_, catalog):
        session = sessions.by_name(catalog, name)
        found = orphans.of_session(catalog, session.id, limit=limit)
        total = orphans.count(catalog, session.id)
    if json:
        print_json(found)
        return
    table = Table("what", Column("name", overflow="fold"), "known since", "what is missing")
    for orphan in found:
        table.add_row(orphan.kind, plain(orphan.name), f"{orphan.found_at:%Y-%m-%d %H:%M:%S} UTC", plain(orphan.reason))
    if found:
        output.print(table)
    output.print(f"{total:,} without a partner.", markup=False, highlight=False)


def _facts(session: Session) -> Iterator[tuple[str, str]]:
    yield "id", str(session.id)
    yield "state", session.state
    yield "instrument", session.instrument.name
    yield "folder", str(Path(session.source_root, session.folder))
    yield "project", session.project.name if session.project else ""
    yield "owner", f"{session.owner_name} {session.owner_mail}".strip()
    for option, field in _OVERRIDES.items():
        value = getattr(session.parameters.optics, field)
        yield option, "as the metadata says" if value is None else "none" if value == "" else str(value)
    diameter = session.parameters.particle_diameter_angstrom
    yield _DIAMETER, "estimated" if diameter is None else str(diameter)


def _folder(text: str) -> str:
    if text != "." and not is_safe_relative(PurePosixPath(text)):
        raise UsageError(
            f"the folder {text!r} does not stay in the movie root", expected="a relative path", remedy="Leave out `..`."
        )
    return Path(text).as_posix()


def _gain(text: str | None, session_root: Path) -> str | None:
    """None: not given; "": there is no gain; else a path, relative to the session's folder where it lies there."""
    if text is None or text == "none":
        return None if text is None else ""
    if (session_root / text).is_file() and not Path(text).is_absolute():
        return text
    path = Path(text).resolve()
    if not path.is_file():
        raise UsageError("there is no such gain reference", remedy="Name a file, or `none`.", path=path)
    return str(path)


def _optics(
    pixel_size: float | None,
    dose: float | None,
    voltage: float | None,
    cs: float | None,
    amplitude_contrast: float | None,
    gain: str | None,
) -> Optics:
    if cs is not None and cs < 0:
        raise UsageError(f"--cs is {cs}", expected="0 or more", remedy="Give it in millimetres")
    if amplitude_contrast is not None and not 0 <= amplitude_contrast < 1:
        raise UsageError(
            f"--amplitude-contrast is {amplitude_contrast}", expected="from 0 to below 1", remedy="0.1 is usual in ice"
        )
    return Optics(
        pixel_size_angstrom=within("--pixel-size", pixel_size, limits.PIXEL_SIZE_ANGSTROM, "Å"),
        voltage_kilovolt=within("--voltage", voltage, limits.VOLTAGE_KILOVOLT, "kV"),
        spherical_aberration_millimeter=cs,
        amplitude_contrast=amplitude_contrast,
        dose_e_per_square_angstrom=within("--dose", dose, limits.DOSE_E_PER_SQUARE_ANGSTROM, "e⁻/Å²"),
        gain=gain,
    )


def _known_overrides(names: list[str]) -> list[str]:
    unknown = [name for name in names if name not in {*_OVERRIDES, _DIAMETER}]
    if unknown:
        known = ", ".join([*_OVERRIDES, _DIAMETER])
        raise UsageError(f"--clear {unknown[0]} names no override", expected=known, remedy="Give one of these")
    return names


def _changed(
    before: SessionParameters, given: Optics, diameter: float | None, forgotten: list[str]
) -> SessionParameters:
    """The parameters with what was given changed and what was cleared forgotten."""
    kept = dataclasses.replace(before.optics, **{_OVERRIDES[name]: None for name in forgotten if name in _OVERRIDES})
    kept_diameter = None if _DIAMETER in forgotten else before.particle_diameter_angstrom
    return dataclasses.replace(
        before, optics=given.over(kept), particle_diameter_angstrom=kept_diameter if diameter is None else diameter
    )
