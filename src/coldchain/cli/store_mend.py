"""`coldchain store verify`, `repair` and `adopt`: copies that are proved again, made again, or on another disk now."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Annotated, TypeVar
from uuid import UUID

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from coldchain import config
from coldchain.catalog import checks, replicas, sessions, stores
from coldchain.catalog.engine import Catalog, open_catalog
from coldchain.cli.console import DEFAULT_CONFIG, ConfigOption, JsonOption, errors, output, plain, print_json
from coldchain.config import Settings
from coldchain.errors import CatalogAwayError, ColdchainError, StorageError, UsageError, printable
from coldchain.model.files import CheckTask, ReplicaState
from coldchain.model.identity import new_id
from coldchain.model.retention import counted
from coldchain.service import FacilityLock, open_stores, site_to_itself
from coldchain.storage.checking import check
from coldchain.storage.copies.copier import Copier
from coldchain.storage.store import Store, wrong_store
from coldchain.units import byte_size

_AT_ONCE = 256
_LOOK_SECONDS = 0.2

T = TypeVar("T")

StoreArgument = Annotated[str, typer.Argument(help="The store's name in facility.toml.")]
SessionOption = Annotated[str | None, typer.Option("--session", help="Only this session's copies; default: all.")]


@dataclass
class _Report:
    """What verifying a store came to."""

    store: str
    whole: int = 0
    bytes_read: int = 0
    damaged: list[dict[str, str]] = field(default_factory=list)
    stopped: str = ""


def verify(
    name: StoreArgument,
    session: SessionOption = None,
    rate: Annotated[float | None, typer.Option("--rate", help="MB/s at most; default: as fast as it reads.")] = None,
    config_file: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Read every verified copy of a store again, past the page cache, and compare; exit status 1 if one is damaged.

    What is damaged is written down, and a running service makes it again from a good copy.

    Example: coldchain store verify archive --session visit-17
    """
    settings = config.load(config_file)
    catalog = open_catalog(settings.catalog.url, settings.facility.site, settings.facility.name)
    try:
        store = _store(catalog, settings, name)
        report = _verify(catalog, store, _session_id(catalog, session), rate)
    finally:
        catalog.close()
    if as_json:
        print_json(report)
    else:
        _show(report)
    if report.damaged or report.stopped:
        raise typer.Exit(1)


def repair(
    name: StoreArgument,
    config_file: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Make a store's damaged copies again, from the camera's file or from a good copy on another store.

    What is damaged is kept aside as NAME.replaced-…, beside its new copy. A running service does this by itself.

    Example: coldchain store repair archive
    """
    settings = config.load(config_file)
    remedy = "It makes damaged copies again by itself: see `coldchain store plan`."
    with _facility_to_itself(settings, remedy) as (catalog, require_turn):
        _store(catalog, settings, name)
        before = checks.count(catalog, name, None, state=ReplicaState.DAMAGED)
        _repair(catalog, open_stores(catalog, settings), name, before[0], require_turn)
        left = list(_copies(catalog, name, None, ReplicaState.DAMAGED))
        left += list(_copies(catalog, name, None, ReplicaState.FAILED))
    if as_json:
        print_json({"store": name, "damaged_before": before[0], "left": [_as_left(task) for task in left]})
    else:
        _show_repair(name, before[0], left)
    if left:
        raise typer.Exit(1)


def adopt(
    name: StoreArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config_file: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Take what lies in a store's place now for the store: another disk, or the same one of another catalog.

    Every copy that was verified on the old one is wanted anew; what is there already is recognised and only read.

    Example: coldchain store adopt archive
    """
    settings = config.load(config_file)
    with _facility_to_itself(settings, "Stop it, adopt the store, and start it again.") as (catalog, require_turn):
        store = open_stores(catalog, settings).get(name)
        if store is None:
            raise _unknown(settings, name)
        _adopt(catalog, store, require_turn, sure=yes)


@contextmanager
def _facility_to_itself(settings: Settings, remedy: str) -> Iterator[tuple[Catalog, Callable[[], None]]]:
    """The catalog, while no service works by it for this site; what raises CatalogError where one does after all."""
    with ExitStack() as held:
        _hold(held, FacilityLock(settings), remedy)
        catalog = open_catalog(settings.catalog.url, settings.facility.site, settings.facility.name)
        held.callback(catalog.close)
        yield catalog, _hold(held, site_to_itself(settings, catalog), remedy)


def _hold(held: ExitStack, lock: AbstractContextManager[T], remedy: str) -> T:
    try:
        return held.enter_context(lock)
    except CatalogAwayError:
        raise
    except ColdchainError as error:
        raise ColdchainError(error.found, remedy=remedy, path=error.path) from None


def _adopt(catalog: Catalog, store: Store, require_turn: Callable[[], None], *, sure: bool) -> None:
    state = stores.find(catalog, store.name)
    store.identity = None
    found = store.mark()
    if found == state.identity and state.is_marked:
        output.print(f"{printable(store.name)} is the store that it was; nothing to do.", markup=False)
        return
    files, size_bytes = checks.count(catalog, store.name, None, state=ReplicaState.VERIFIED)
    question = (
        f"What lies at {printable(state.url)} shall be store {printable(store.name)} from now on, "
        f"and its {counted(files, 'copy', 'copies')} ({byte_size(size_bytes)}) be made or proved again?"
    )
    if not sure and not typer.confirm(question, err=True):
        raise typer.Exit(1)
    # Whoever was asked may have taken an hour. Not again in what follows: each transaction reads what it changes, and
    # nobody else writes meanwhile.
    require_turn()
    identity = _fresh(state.identity, found, is_marked=state.is_marked)
    if found is None:
        store.set_mark(identity)
    changed = stores.adopt(catalog, store.name, identity)
    output.print(
        f"{printable(store.name)} is now {identity}; {counted(changed, 'copy is', 'copies are')} wanted anew.",
        markup=False,
    )


def _fresh(known: UUID, found: UUID | None, *, is_marked: bool) -> UUID:
    if found is not None:
        return found
    return new_id() if is_marked else known


def _verify(catalog: Catalog, store: Store, session_id: UUID | None, rate: float | None) -> _Report:
    report = _Report(store.name)
    files, size_bytes = checks.count(catalog, store.name, session_id, state=ReplicaState.VERIFIED)
    with _progress() as progress:
        bar = progress.add_task(counted(files, "copy", "copies"), total=size_bytes)
        for task in _copies(catalog, store.name, session_id, ReplicaState.VERIFIED):
            begun = time.monotonic()
            found = check(store, task)
            if found.trouble is not None:
                report.stopped = str(found.trouble)
                break
            replicas.record_check(catalog, task.replica.id, detail=found.damage)
            if found.damage:
                report.damaged.append({"path": task.relative, "reason": found.damage})
            else:
                report.whole += 1
            report.bytes_read += task.size_bytes
            progress.advance(bar, task.size_bytes)
            if rate:
                time.sleep(max(0.0, task.size_bytes / (rate * 1e6) - (time.monotonic() - begun)))
    return report


def _repair(
    catalog: Catalog, all_stores: dict[str, Store], name: str, damaged: int, require_turn: Callable[[], None]
) -> None:
    copier = Copier(catalog, all_stores, mends=name)
    copier.start()
    try:
        with _progress(TextColumn("{task.completed:,.0f} of {task.total:,.0f}")) as progress:
            bar = progress.add_task("damaged copies", total=damaged)
            while not copier.idle():
                require_turn()
                left = checks.count(catalog, name, None, state=ReplicaState.DAMAGED)[0]
                progress.update(bar, completed=damaged - left)
                time.sleep(_LOOK_SECONDS)
            progress.update(bar, completed=damaged)
    finally:
        copier.stop()


def _progress(*more: TextColumn) -> Progress:
    columns = more or (TransferSpeedColumn(), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}"), BarColumn(), *columns, console=errors, transient=True)


def _copies(catalog: Catalog, store: str, session_id: UUID | None, state: ReplicaState) -> Iterator[CheckTask]:
    after: UUID | None = None
    while True:
        page = checks.of_session(catalog, store, session_id, state=state, after=after, limit=_AT_ONCE)
        yield from page
        if len(page) < _AT_ONCE:
            return
        after = page[-1].replica.id


def _store(catalog: Catalog, settings: Settings, name: str) -> Store:
    store = open_stores(catalog, settings).get(name)
    if store is None:
        raise _unknown(settings, name)
    state = stores.find(catalog, name)
    if not state.is_marked:
        raise StorageError(
            f"store {name!r} was never in use", remedy="Start `coldchain run` once: it gives the store its identity"
        )
    try:
        found = store.mark()
    except StorageError as error:
        raise StorageError(
            f"store {name!r} is not there: {error.found}",
            remedy="Mount it, or bring its host back, and try again; nothing was read or written",
            path=error.path,
        ) from error
    if found != state.identity:
        raise wrong_store(name, state.identity, found)
    return store


def _unknown(settings: Settings, name: str) -> ColdchainError:
    known = ", ".join(store.name for store in settings.store) or "none"
    return UsageError(f"no store is called {name!r}", expected=f"one of: {known}")


def _session_id(catalog: Catalog, name: str | None) -> UUID | None:
    return None if name is None else sessions.by_name(catalog, name).id


def _as_left(task: CheckTask) -> dict[str, str]:
    return {"path": task.relative, "state": str(task.replica.state), "reason": task.replica.detail}


def _show(report: _Report) -> None:
    output.print(
        f"{printable(report.store)}: {counted(report.whole, 'copy is', 'copies are')} whole, "
        f"{counted(len(report.damaged), 'is', 'are')} not; {byte_size(report.bytes_read)} read.",
        markup=False,
        highlight=False,
    )
    if report.damaged:
        table = Table("damaged", "why")
        for each in report.damaged:
            table.add_row(plain(each["path"]), plain(each["reason"]))
        output.print(table)
    if report.stopped:
        errors.print(f"coldchain: it was not read to the end: {report.stopped}", markup=False, highlight=False)


def _show_repair(name: str, before: int, left: list[CheckTask]) -> None:
    were, are = counted(before, "copy was", "copies were"), counted(len(left), "is", "are")
    output.print(f"{printable(name)}: {were} damaged; {are} not whole.", markup=False)
    if left:
        table = Table("copy", "state", "why")
        for task in left:
            table.add_row(plain(task.relative), str(task.replica.state), plain(task.replica.detail))
        output.print(table)
