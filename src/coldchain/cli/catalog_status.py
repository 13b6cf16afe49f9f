"""`coldchain catalog status`: what the catalog is, how large, and how its two servers keep in step."""

from __future__ import annotations

from dataclasses import dataclass, replace

import typer
from rich.table import Column, Table

from coldchain import config
from coldchain.catalog import replication, sizes
from coldchain.catalog.engine import head, open_catalog
from coldchain.catalog.sizes import CatalogSize
from coldchain.cli.console import DEFAULT_CONFIG, ConfigOption, JsonOption, output, plain, print_json
from coldchain.config import Settings
from coldchain.errors import CatalogError, printable
from coldchain.model.replication import Direction, ServerLook, Trouble, still_to_come, troubles
from coldchain.units import byte_size

_HERE, _PEER = "this server", "the other server"


@dataclass(frozen=True, slots=True)
class _Status:
    """What was found. `fault` says why the catalog cannot be used, "" where it can."""

    url: str
    site: str
    expected_revision: str
    fault: str = ""
    size: CatalogSize | None = None
    here: ServerLook | None = None
    peer: ServerLook | None = None
    peer_fault: str = ""
    troubles: tuple[Trouble, ...] = ()


def status(json: JsonOption = False, config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Show the catalog's engine, revision and size, and how two servers keep in step; exit status 1: not all is well.

    Example: coldchain catalog status
    """
    found = _ask(config.load(config_file))
    if json:
        print_json(_as_json(found))
    else:
        _show(found)
    if found.fault or found.troubles:
        raise typer.Exit(1)


def _ask(settings: Settings) -> _Status:
    found = _Status(replication.shown_url(settings.catalog.url), settings.facility.site, head())
    try:
        catalog = open_catalog(settings.catalog.url, settings.facility.site, settings.facility.name)
    except CatalogError as error:
        # A server may tell of itself although its tables are of another version.
        return _with_replication(replace(found, fault=str(error)), settings)
    try:
        found = replace(found, size=sizes.of(catalog))
        return _with_replication(found, settings)
    finally:
        catalog.close()


def _with_replication(found: _Status, settings: Settings) -> _Status:
    section = settings.catalog
    if section.url.startswith("sqlite:"):
        return found
    try:
        here = replication.look_at(section.url)
    except CatalogError as error:
        return found if found.fault else replace(found, fault=str(error))
    peer, peer_fault = None, ""
    if section.peer_url is not None:
        try:
            peer = replication.look_at(section.peer_url)
        except CatalogError as error:
            peer_fault = error.found
    judged = troubles(here, peer, peer_fault=peer_fault, lag_seconds=section.lag_seconds)
    return replace(found, here=here, peer=peer, peer_fault=peer_fault, troubles=tuple(judged))


def _as_json(found: _Status) -> dict[str, object]:
    size = found.size
    return {
        "url": found.url,
        "site": found.site,
        "engine": size.version if size else found.here.version if found.here else None,
        "revision": None if found.fault else found.expected_revision,
        "expected_revision": found.expected_revision,
        "fault": found.fault,
        "size_bytes": size.size_bytes if size else None,
        "tables": list(size.tables) if size else [],
        "here": _look_as_json(found.here, found.peer),
        "peer": _look_as_json(found.peer, found.here),
        "peer_fault": found.peer_fault,
        "troubles": list(found.troubles),
    }


def _look_as_json(look: ServerLook | None, other: ServerLook | None) -> dict[str, object] | None:
    if look is None:
        return None
    return {
        "version": look.version,
        "settings": dict(look.variables),
        "directions": [_direction_as_json(direction) for direction in look.directions],
        "written": look.written,
        "applied": look.applied,
        "still_to_come": None if other is None else still_to_come(other, look),
        "denied": look.denied,
    }


def _direction_as_json(direction: Direction) -> dict[str, object]:
    return {name: getattr(direction, name) for name in Direction.__dataclass_fields__}


def _show(found: _Status) -> None:
    lines = {"catalog": found.url, "site": found.site}
    if found.size is not None:
        lines["engine"] = found.size.version
        lines["size"] = byte_size(found.size.size_bytes)
    if not found.fault:
        lines["revision"] = f"{found.expected_revision}, as this Coldchain has it"
    for name, value in lines.items():
        output.print(f"{name:<9} {printable(value)}", markup=False, highlight=False)
    if found.fault:
        output.print(f"It cannot be used: {found.fault}", markup=False, highlight=False)
    if found.size is not None:
        _show_tables(found.size)
    if found.here is not None:
        _show_directions(found)


def _show_tables(size: CatalogSize) -> None:
    table = Table("table", Column("rows, about", justify="right"), Column("bytes", justify="right"))
    for one in size.tables:
        if one.rows:
            size_bytes = "" if one.size_bytes is None else byte_size(one.size_bytes)
            table.add_row(one.name, f"{one.rows:,}", size_bytes)
    if table.row_count:
        output.print(table)


def _show_directions(found: _Status) -> None:
    table = Table(Column("replication", no_wrap=True), "from", "fetches", "applies", Column("behind", justify="right"))
    table.add_column("still to come", justify="right")
    for name, look, other in ((_HERE, found.here, found.peer), (_PEER, found.peer, found.here)):
        for direction in look.directions if look is not None else ():
            coming = None if look is None or other is None else still_to_come(other, look)
            table.add_row(
                name,
                plain(direction.source),
                direction.reader.lower(),
                "yes" if direction.is_applying else "no",
                "?" if direction.lag_seconds is None else f"{direction.lag_seconds} s",
                "?" if coming is None else f"{coming:,}",
            )
    if table.row_count:
        output.print(table)
    for trouble in found.troubles:
        output.print(f"{'ERROR' if trouble.is_error else 'warning'}: {trouble}", markup=False, highlight=False)
    if table.row_count and not found.troubles:
        output.print("Replication is well.")
