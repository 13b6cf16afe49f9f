"""`coldchain store usage` and `store plan`: whose the stores' bytes are, and what is still to be copied."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Annotated
from uuid import UUID

import typer
from rich.table import Column, Table

from coldchain import config
from coldchain.catalog import capacity, sessions, stores
from coldchain.catalog.capacity import ToDo, Usage, UsageLine
from coldchain.catalog.engine import Catalog, open_catalog
from coldchain.cli.console import DEFAULT_CONFIG, ConfigOption, JsonOption, output, plain, print_json
from coldchain.model.files import CopyTask, ReplicaState
from coldchain.model.session import Session
from coldchain.units import byte_size

_REASONS = 5
_NO_PROJECT = "(no project)"
_NEW = "new"
_OTHERS = "other reasons"


class By(StrEnum):
    """What usage is added up by."""

    STORE = "store"
    SESSION = "session"
    PROJECT = "project"
    KIND = "kind"


@contextmanager
def _opened(config_file: Path) -> Iterator[Catalog]:
    settings = config.load(config_file)
    catalog = open_catalog(settings.catalog.url, settings.facility.site, settings.facility.name)
    try:
        yield catalog
    finally:
        catalog.close()


def usage(
    by: Annotated[By, typer.Option("--by", help="What to add up by.")] = By.STORE,
    json: JsonOption = False,
    config_file: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Show what the catalog's copies take on each store: verified ones, damaged ones, and what lies in the trash.

    Example: coldchain store usage --by session
    """
    with _opened(config_file) as catalog:
        found = _by_store(catalog) if by is By.STORE else _by(by, capacity.lines(catalog), sessions.list_all(catalog))
    ordered = sorted(found.items(), key=lambda item: (item[0][0], -item[1].all_bytes, item[0][1]))
    if json:
        print_json([_as_json(by, store, name, each) for (store, name), each in ordered])
        return
    table = Table("store", *([] if by is By.STORE else [Column(str(by), overflow="fold")]))
    for name in ("files", "verified", "damaged", "in the trash"):
        table.add_column(name, justify="right")
    for (store, name), each in ordered:
        names = [plain(store)] if by is By.STORE else [plain(store), plain(name)]
        numbers = (each.size_bytes, each.damaged_bytes, each.trash_bytes)
        table.add_row(*names, f"{each.files:,}", *(byte_size(number) if number else "" for number in numbers))
    output.print(table)


def plan(
    limit: Annotated[int, typer.Option("--next", min=0, help="How many of the next files to list per store.")] = 5,
    json: JsonOption = False,
    config_file: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Show what is still to be copied to each store, why, and which files are next; nothing is done.

    Example: coldchain store plan
    """
    with _opened(config_file) as catalog:
        names = [state.name for state in stores.all_stores(catalog) if state.site == catalog.site]
        groups = list(_few_reasons(capacity.to_do(catalog)))
        names += sorted({group.store for group in groups} - set(names))
        tasks = {name: capacity.next_copies(catalog, name, limit=limit) if limit else [] for name in names}
    if json:
        print_json([_plan_as_json(name, [one for one in groups if one.store == name], tasks[name]) for name in names])
        return
    if not groups:
        output.print("Nothing is to be copied.", markup=False)
        return
    table = Table("store", Column("priority", justify="right"), "state", Column("why", overflow="fold"))
    table.add_column("files", justify="right")
    table.add_column("bytes", justify="right")
    for priorities, one in _troubles_once(groups):
        why = plain(_why(one))
        table.add_row(plain(one.store), priorities, one.state, why, f"{one.files:,}", byte_size(one.size_bytes))
    output.print(table)
    _show_next(tasks)


def _show_next(tasks: Mapping[str, list[CopyTask]]) -> None:
    table = Table("next for", Column("file", overflow="fold"), Column("bytes", justify="right"))
    for name, found in tasks.items():
        for task in found:
            table.add_row(plain(name), plain(_path(task)), byte_size(task.file.size_bytes))
    if table.row_count:
        output.print(table)


def _by_store(catalog: Catalog) -> dict[tuple[str, str], Usage]:
    keys = [(state.site, state.name) for state in stores.all_stores(catalog)]
    found: defaultdict[tuple[str, str], Usage] = defaultdict(Usage)
    for (_, store), each in capacity.totals(catalog, keys).items():
        found[store, store] += each
    return dict(found)


def _by(by: By, lines: Iterable[UsageLine], known: Iterable[Session]) -> dict[tuple[str, str], Usage]:
    """Usage by store and by what was asked."""
    of = {session.id: session for session in known}
    found: defaultdict[tuple[str, str], Usage] = defaultdict(Usage)
    for line in lines:
        found[line.store, _name(by, line, of)] += line.usage
    return dict(found)


def _name(by: By, line: UsageLine, of: Mapping[UUID, Session]) -> str:
    session = of.get(line.session_id)
    if by is By.KIND:
        return line.kind
    if by is By.SESSION:
        return str(line.session_id) if session is None else session.name
    return _NO_PROJECT if session is None or session.project is None else session.project.name


def _few_reasons(groups: Iterable[ToDo]) -> Iterator[ToDo]:
    """Of each store, priority and state the reasons of most files; the rest as one."""
    of: defaultdict[tuple[str, int, ReplicaState], list[ToDo]] = defaultdict(list)
    for group in groups:
        of[group.store, group.priority, group.state].append(group)
    for (store, priority, state), found in of.items():
        yield from found[:_REASONS]
        if rest := found[_REASONS:]:
            files, size_bytes = sum(one.files for one in rest), sum(one.size_bytes for one in rest)
            yield ToDo(store, priority, state, _OTHERS, files, size_bytes)


def _troubles_once(groups: Iterable[ToDo]) -> Iterator[tuple[str, ToDo]]:
    """What is to be done with its priorities: a trouble is said once for each store, whatever it keeps."""
    of: defaultdict[tuple[str, ReplicaState, str | int], list[ToDo]] = defaultdict(list)
    for one in groups:
        of[one.store, one.state, one.reason or one.priority].append(one)
    for found in of.values():
        first, files, size_bytes = found[0], sum(one.files for one in found), sum(one.size_bytes for one in found)
        priorities = ", ".join(str(priority) for priority in sorted({one.priority for one in found}))
        yield priorities, replace(first, files=files, size_bytes=size_bytes)


def _why(one: ToDo) -> str:
    return one.reason or (_NEW if one.state is ReplicaState.WANTED else "no reason was written down")


def _path(task: CopyTask) -> str:
    return str(PurePosixPath(task.instrument, task.session_folder, task.file.relative_path))


def _as_json(by: By, store: str, name: str, each: Usage) -> dict[str, object]:
    return {"store": store} | ({} if by is By.STORE else {str(by): name}) | {"usage": each}


def _plan_as_json(name: str, groups: list[ToDo], tasks: list[CopyTask]) -> dict[str, object]:
    return {
        "store": name,
        "files": sum(one.files for one in groups),
        "size_bytes": sum(one.size_bytes for one in groups),
        "to_do": [
            {"priority": o.priority, "state": o.state, "why": _why(o), "files": o.files, "size_bytes": o.size_bytes}
            for o in groups
        ],
        "next": [{"path": _path(task), "size_bytes": task.file.size_bytes} for task in tasks],
    }
